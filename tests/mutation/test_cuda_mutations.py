"""Bugs seeded into the CUDA kernels: the assertions of their tests, run on a CPU, find every one of them.

``python tests/mutation/test_cuda_mutations.py``, a part of ``make mutants``, seeds them, writes the table of what found
each, tests/mutation/cuda.md, and fails where one was not found. It takes two minutes of processor time. The tests here
hold the list of bugs to the sources and to the table.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

if __name__ == "__main__":  # pytest has the folder on its path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from cuda_on_cpu import build
from cuda_on_cpu.mutations import FEWER_INSTANCES, MUTATIONS, Mutation

# Compiled without optimisation, since it is the compiler that takes the time.
WATCHES = {"results": ["-O0"], "bounds": build.SANITIZE, "accesses": ["-O0", *build.FIND_RACES[1:]]}
TABLE = Path(__file__).with_name("cuda.md")
HEADER = """\
# Bugs seeded into the CUDA kernels

Each is one replacement in csrc/cuda (tests/support/cuda_on_cpu/mutations.py), and every one is found when the kernels
run on a CPU: by their results, by AddressSanitizer and UBSan (bounds), or by the search for races and stray accesses
(accesses). Written by `python tests/mutation/test_cuda_mutations.py`.

| bug | watched for | found as |
| --- | --- | --- |
"""


def replace_once(folder: Path, file: str, old: str, new: str) -> None:
    """Spaces and line ends count for nothing, since they are clang-format's."""
    path = folder / file
    pattern = r"\s*".join(map(re.escape, re.findall(r"\w+|[^\w\s]", old)))
    text, count = re.subn(pattern, lambda _: new, path.read_text())
    assert count == 1, f"{file} has {count} places for the mutation of {old!r}, expected 1"
    path.write_text(text)


def mutants(watch: str) -> dict[int, Mutation]:
    """The mutations of a watch by number, from 1 on: mutant 0 is the kernels as they are."""
    return {number: mutation for number, mutation in enumerate(MUTATIONS, 1) if mutation.watch == watch}


def mutate(folder: Path, watches: Sequence[str]) -> Path:
    """A copy of the sources in ``folder`` with the bugs of ``watches``, each behind a switch; returns the kernels'."""
    shutil.copytree(build.KERNELS.parent, folder)
    kernels = folder / build.KERNELS.name
    for edit in FEWER_INSTANCES:
        replace_once(kernels, *edit)
    for watch in watches:
        for number, mutation in mutants(watch).items():
            assert "BUG" in mutation.new
            switch = f"(::cuda_on_cpu::mutant == {number})"
            replace_once(kernels, mutation.file, mutation.old, mutation.new.replace("BUG", switch))
    return kernels


def judge(library: str, numbers: Sequence[int], watch: str) -> list[str]:
    """What verdicts.py says of each mutant in the library."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(
        filter(None, [str(build.HERE.parent), os.environ.get("PYTHONPATH")]))}
    if watch != "results":
        environment["CUDA_ON_CPU_LIBRARY"] = library  # one schedule, smaller batches
    if watch == "bounds":
        environment |= build.sanitizer_environment()
    done = subprocess.run([sys.executable, "-m", "cuda_on_cpu.verdicts", library, *map(str, numbers)],
                          cwd=build.REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def judge_watch(watch: str, folder: Path) -> dict[str, str]:
    """What is said of the kernels as they are ("none"), and of every mutant of the watch."""
    of_watch = mutants(watch)
    library = str(build.kernels(WATCHES[watch], mutate(folder / watch, [watch])))
    said = judge(library, [0, *of_watch], watch)
    return dict(zip(["none", *(mutation.bug for mutation in of_watch.values())], said, strict=True))


@pytest.mark.parametrize("watch", WATCHES)
def test_every_bug_has_exactly_one_place_in_the_sources(watch, tmp_path):
    assert mutants(watch)
    mutate(tmp_path / "csrc", [watch])


def test_the_table_of_seeded_bugs_is_kept():
    """The table has every bug, in order, with its watch and with what found it in the run that wrote the table."""
    text = TABLE.read_text(encoding="utf-8")
    assert text.startswith(HEADER)
    rows = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in text.removeprefix(HEADER).splitlines()]
    assert [(bug, watch) for bug, watch, _ in rows] == [(mutation.bug, mutation.watch) for mutation in MUTATIONS]
    assert all(found and found != "NOT FOUND" for *_, found in rows)


def write_table(folder: Path) -> None:
    said = {}
    for watch in WATCHES:
        said |= judge_watch(watch, folder)
        assert said["none"] == "", f"the kernels as they are: {said['none']}"
    rows = [f"| {mutation.bug} | {mutation.watch} | {shorten(said[mutation.bug])} |\n" for mutation in MUTATIONS]
    TABLE.write_text(HEADER + "".join(rows), encoding="utf-8")
    missed = [bug for bug, found in said.items() if bug != "none" and not found]
    assert not missed, f"not found: {missed}"


def shorten(said: str) -> str:
    """Leaves out what differs from run to run, and what the line of the bug says itself."""
    said = re.sub(r"^RuntimeError: kernel (\w+).*?, block \([\d, ]+\): ", r"\1: ", said)
    said = re.sub(r"^.*AddressSanitizer: ([\w-]+).*", r"AddressSanitizer: \1", said)
    return re.sub(r", and nothing orders .*|, allowed .*|\.$", "", said).replace("|", "/") or "NOT FOUND"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        write_table(Path(temporary))

"""Bugs seeded into the CUDA kernels: the tests that run them on the CPU find every one of them.

``python tests/mutation/test_cuda_mutations.py`` writes the table of what found each into
tests/support/cuda_on_cpu/README.md.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from cuda_on_cpu import build
from cuda_on_cpu.mutations import FEWER_INSTANCES, MUTATIONS, Mutation

pytestmark = [pytest.mark.slow(seconds=45),
              pytest.mark.skipif(build.missing() is not None, reason=str(build.missing()))]
# Not optimised: compiling is what takes the time.
WATCHES = {"results": ["-O0"], "bounds": build.SANITIZE, "accesses": ["-O0", *build.FIND_RACES[1:]]}
TABLE = re.compile(r"(?<=<!-- mutations -->\n).*(?=<!-- end -->)", re.DOTALL)


def replaced(folder: Path, file: str, old: str, new: str) -> None:
    path = folder / file
    text = path.read_text()
    assert text.count(old) == 1, f"{file} holds {text.count(old)} times what the mutation replaces, {old!r}"
    path.write_text(text.replace(old, new))


def mutants(watch: str) -> dict[int, Mutation]:
    """The mutations of a watch by number, from 1: mutant 0 is the kernels as they are."""
    return {number: mutation for number, mutation in enumerate(MUTATIONS, 1) if mutation.watch == watch}


def built(folder: Path, watch: str) -> str:
    """The library of the kernels with the bugs of a watch, each of which waits to be switched on."""
    shutil.copytree(build.KERNELS.parent, folder)
    kernels = folder / build.KERNELS.name
    for edit in FEWER_INSTANCES:
        replaced(kernels, *edit)
    for number, mutation in mutants(watch).items():
        assert "BUG" in mutation.new
        bug = f"(::cuda_on_cpu::mutant == {number})"
        replaced(kernels, mutation.file, mutation.old, mutation.new.replace("BUG", bug))
    return str(build.kernels(WATCHES[watch], kernels))


def verdicts(library: str, numbers: Sequence[int], watch: str) -> list[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(
        [str(build.HERE.parent), str(build.REPOSITORY / "tests" / "kernels" / "backends" / "cuda")])}
    if watch != "results":
        environment["CUDA_ON_CPU_LIBRARY"] = library  # one schedule, smaller batches
    if watch == "bounds":
        environment |= build.sanitizer_environment()
    done = subprocess.run([sys.executable, "-m", "cuda_on_cpu.verdicts", library, *map(str, numbers)],
                          cwd=build.REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def verdicts_of_mutants(watch: str, folder: Path) -> dict[str, str]:
    """What was said of the kernels as they are ("none") and of every mutant of this watch."""
    of_watch = mutants(watch)
    said = verdicts(built(folder / watch, watch), [0, *of_watch], watch)
    return dict(zip(["none", *(mutation.bug for mutation in of_watch.values())], said, strict=True))


@pytest.mark.parametrize("watch", WATCHES)
def test_every_seeded_bug_is_found(watch, tmp_path):
    said = verdicts_of_mutants(watch, tmp_path)
    print(*(f"{bug}: {found or 'NOT FOUND'}" for bug, found in said.items()), sep="\n")
    assert said.pop("none") == ""
    assert [bug for bug, found in said.items() if not found] == []


def test_the_table_of_seeded_bugs_is_kept():
    """Every bug is in the README's table; what it says of each is from the run that wrote it."""
    kept = re.findall(r"^\| ([^|]+?) \|", TABLE.search((build.HERE / "README.md").read_text())[0], re.MULTILINE)
    assert kept[2:] == [mutation.bug for mutation in MUTATIONS]


def write_table(folder: Path) -> None:
    said = {}
    for watch in WATCHES:
        said |= verdicts_of_mutants(watch, folder)
        assert said["none"] == "", f"the kernels as they are: {said['none']}"
    rows = [f"| {mutation.bug} | {mutation.watch} | {shortened(said[mutation.bug])} |" for mutation in MUTATIONS]
    readme = build.HERE / "README.md"
    table = "\n".join(["| bug | watched for | found as |", "| --- | --- | --- |", *rows, ""])
    readme.write_text(TABLE.sub(lambda _: table, readme.read_text()))


def shortened(said: str) -> str:
    """Without what differs from run to run, and without what the bug's own line says."""
    said = re.sub(r"^RuntimeError: kernel (\w+).*?, block \([\d, ]+\): ", r"\1: ", said)
    said = re.sub(r"^.*AddressSanitizer: ([\w-]+).*", r"AddressSanitizer: \1", said)
    return re.sub(r", and nothing puts .*|, allowed .*|\.$", "", said).replace("|", "/") or "NOT FOUND"


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as temporary:
        write_table(Path(temporary))

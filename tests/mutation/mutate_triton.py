"""Breaks every Triton kernel in ten ways and more, and checks that the tests notice.

    python tests/mutation/mutate_triton.py [--kernels NAME ...] [--only WORDS ...] [--unchecked]
    [--table tests/mutation/triton.md]

Each mutant is one replacement in a copy of the sources (``triton_mutants`` and ``triton_window_mutants``). The tests of
the copy run in a fork of this process, which has imported the libraries but none of our kernels, until the first one
fails. A mutant for which none fails has survived, and the exit status is 1. ``--table`` writes the results to that
file; mutants that were not run keep their rows. ``--unchecked`` leaves out tests/support/memory_checker.py and so shows
what only that finds.
"""

import argparse
import contextlib
import gc
import importlib
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from triton_mutants import MUTANTS as OTHER_MUTANTS
from triton_mutants import Mutant
from triton_window_mutants import WINDOW_MUTANTS

REPOSITORY = Path(__file__).resolve().parents[2]
MUTANTS = OTHER_MUTANTS + WINDOW_MUTANTS
NOT_RUN = "the tests did not run:"
SECONDS = 600  # of processor time, so that a mutant that loops for ever is caught too
# What every fork would import again: the libraries behind the kernels, the tests and their conftest. None of ours.
LIBRARIES = ("pytest", "hypothesis", "_hypothesis_pytestplugin", "numpy", "torch", "torch._dynamo",
             "torch._inductor.compile_fx", "triton", "triton.language", "triton.runtime.interpreter", "transformers",
             "transformers.models.auto.modeling_auto", "transformers.models.auto.tokenization_auto",
             "transformers.models.bert.modeling_bert")
HEADER = """# Mutants of the Triton kernels

Written by `python tests/mutation/mutate_triton.py --table tests/mutation/triton.md`: each way in which a kernel was
broken, and the first test that failed.

"""


def run_in_fork(work: Callable[[], str]) -> str:
    """What ``work`` returns in a child of this process. "a crash" if a signal ends the child; "no end" if it is that of
    the processor's limit."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        try:
            os.write(write, work().encode())
        except BaseException as error:
            os.write(write, f"{NOT_RUN} {error!r}".encode())
        finally:
            os._exit(0)
    os.close(write)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU:
        os.close(read)
        return "no end"
    with os.fdopen(read, "rb") as pipe:
        return pipe.read().decode() or "a crash"


class FirstFailure:
    """A plugin of pytest that notes the name of the first test that fails."""

    name = ""

    def pytest_runtest_logreport(self, report):
        if report.failed and not self.name:
            self.name = report.nodeid.partition("[")[0].rpartition("::")[2]

    def pytest_collectreport(self, report):
        if report.failed:
            raise RuntimeError(str(report.longrepr))


def first_failure(tree: Path, tests: list[str]) -> str:
    """The first of the tests to fail in a copy of the repository, or "none"."""
    import pytest

    os.chdir(tree / "tests")
    sys.path[:0] = [str(tree), str(tree / "tests" / "support")]
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:2])
    plugin = FirstFailure()
    status = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-k", "not reference and not cpu-cpu", *tests],
                         plugins=[plugin])
    return "none" if status == 0 else plugin.name or f"{NOT_RUN} pytest ended with {int(status)}"


def copy_sources(tree: Path) -> None:
    for name in ("kernels", "dendritic_bert", "tests"):
        shutil.copytree(REPOSITORY / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", tree)


def run_mutant(tree: Path, mutant: Mutant) -> str:
    """The first test that fails while the copy is broken. The function's name occurs once among the kernels' files."""
    for path in (tree / "kernels" / "backends" / "triton").glob("*.py"):
        original = path.read_text(encoding="utf-8")
        if f"\ndef {mutant.function}(" in original:
            path.write_text(mutant.apply(original), encoding="utf-8")
            found = run_in_fork(lambda: first_failure(tree, mutant.tests))
            path.write_text(original, encoding="utf-8")
            return found
    raise ValueError(f"{mutant.kernel}, {mutant.what}: there is no function {mutant.function}.")


def write_table(path: Path, results: list[tuple[Mutant, str]]) -> None:
    old = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = {line.rpartition("|")[0].rpartition("|")[0]: line for line in old if line.startswith("|")}
    rows |= {f"| {mutant.kernel} | {mutant.what} ": f"| {mutant.kernel} | {mutant.what} | "
             f"{'**nothing**' if found == 'none' else found} |" for mutant, found in results}
    lines = ["| kernel | broken | caught by |", "| --- | --- | --- |"]
    lines += [rows[start] for mutant in MUTANTS if (start := f"| {mutant.kernel} | {mutant.what} ") in rows]
    path.write_text(HEADER + "\n".join(lines) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernels", nargs="+", choices=[*dict.fromkeys(mutant.kernel for mutant in MUTANTS)],
                        help="break only these")
    parser.add_argument("--only", nargs="+", default=[], help="break only in ways with these words in the table")
    parser.add_argument("--unchecked", action="store_true", help="without tests/support/memory_checker.py")
    parser.add_argument("--table", type=Path, help="the file that the results are written to")
    arguments = parser.parse_args()
    mutants = [mutant for mutant in MUTANTS if (arguments.kernels is None or mutant.kernel in arguments.kernels)
               and (not arguments.only or any(words in mutant.what for words in arguments.only))]
    os.environ |= {"TRITON_INTERPRET": "1", "MEMORY_UNCHECKED": "1" if arguments.unchecked else ""}
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()

    results = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        copy_sources(tree)
        for tests in {tuple(mutant.tests): mutant.tests for mutant in mutants}.values():
            if (found := run_in_fork(lambda tests=tests: first_failure(tree, tests))) != "none":
                parser.error(f"the kernels as they are do not pass: {found}")
        for number, mutant in enumerate(mutants):
            found = run_mutant(tree, mutant)
            if found.startswith(NOT_RUN):
                parser.error(f"{mutant.kernel}, {mutant.what}: {found}")
            results.append((mutant, found))
            print(f"{number + 1}/{len(mutants)} {mutant.kernel}: {mutant.what}: {found}", flush=True)
    survivors = [mutant for mutant, found in results if found == "none"]
    print(f"{len(results) - len(survivors)} of {len(results)} mutants were caught.")
    if arguments.table:
        write_table(arguments.table, results)
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())

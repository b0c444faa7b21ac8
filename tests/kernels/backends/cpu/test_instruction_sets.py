"""The kernels of every instruction set that this processor has pass the tests of the ops, each in its own process."""

import functools
import os
import platform
import re
import subprocess
import sys

import pytest
from helpers import REPOSITORY

from dendritic_bert.kernels.backends import cpu

pytestmark = pytest.mark.skipif(cpu.MISSING is not None, reason="the extension was not built")
ASCENDING = ["baseline", "avx2", "avx512", "amx"] if platform.machine() in ("x86_64", "AMD64") else ["baseline"]
TESTS = [*(f"tests/kernels/ops/test_{op}.py" for op in ("embed_pool", "window_pool", "dsn_logits",
                                                        "dsn_logits_folded", "dsn_window_logits")),
         "tests/kernels/backends/cpu/test_masks.py", "tests/kernels/backends/cpu/test_windows.py"]
# The op whose kernel AMX replaces; all others are those of AVX-512, on which the other tests run where AMX is the best.
REPLACED_BY_AMX = "dsn_window_logits"

# In a fork for each name, since the choice is made once in a process, at the first use of a kernel.
PRINT_CHOICES = """
import os, sys
from dendritic_bert.kernels.backends import cpu
for name in sys.argv[1:]:
    if os.fork() == 0:
        os.environ["DENDRITIC_BERT_CPU"] = name
        print(cpu.instruction_set(), flush=True)
        os._exit(0)
    os.wait()
print(cpu.instruction_set())
"""


@functools.cache
def choices() -> list[str]:
    """What is chosen where the environment names each of ASCENDING, and last where it names none."""
    done = run_python(None, PRINT_CHOICES, *ASCENDING)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def run_python(instruction_set: str | None, code: str, *arguments: str) -> subprocess.CompletedProcess:
    """Runs ``code`` in a new process whose kernels are those of ``instruction_set`` at most."""
    environment = {name: value for name, value in os.environ.items() if name != "DENDRITIC_BERT_CPU"}
    if instruction_set is not None:
        environment["DENDRITIC_BERT_CPU"] = instruction_set
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=REPOSITORY,
                          env=environment, capture_output=True, text=True)


def test_the_environment_lowers_the_instruction_set_and_never_raises_it():
    *chosen, best = choices()
    assert chosen == [min(name, best, key=ASCENDING.index) for name in ASCENDING]


def test_amx_replaces_the_kernel_of_one_op():
    source = (REPOSITORY / "csrc" / "cpu" / "dispatch.cpp").read_text(encoding="utf-8")
    assert "Kernels copy = kernels_avx512;" in source
    assert re.findall(r"\bcopy\.(\w+) =", source) == ["name", REPLACED_BY_AMX]


@pytest.mark.slow(seconds=30)
@pytest.mark.parametrize("name", ASCENDING[:-1] or ASCENDING)
def test_the_ops_on(name):
    """All other tests run on the best instruction set. Here each lower one repeats the tests of the results."""
    best = choices()[-1]
    if ASCENDING.index(name) >= ASCENDING.index(best):
        pytest.skip(f"this processor has {best} at most, on which every other test runs")
    tests = TESTS
    if (name, best) == ("avx512", "amx"):
        tests = [path for path in TESTS if REPLACED_BY_AMX in path or "backends/cpu" in path]
    done = run_python(name, "import sys, pytest\nfrom dendritic_bert.kernels.backends import cpu\n"
                     "options = ['-q', '--tb=short', '-p', 'no:cacheprovider']\n"
                     "options += ['-k', 'cpu-cpu or test_masks or test_windows']\n"
                     "status = pytest.main([*options, *sys.argv[1:]])\n"
                     "print(cpu.instruction_set())\nsys.exit(status)",
               *tests)
    assert done.returncode == 0, done.stdout[-4000:]
    assert done.stdout.split()[-1] == name
    assert " passed" in done.stdout

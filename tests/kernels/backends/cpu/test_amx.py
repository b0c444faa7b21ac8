"""The window layers on AMX, whose instructions are executed in software where the processor has none. Where it has
them, every other test of bfloat16 windows runs on them."""

import ctypes
from pathlib import Path

import pytest
from amx_emulator import KINDS, build, run_emulated

from dendritic_bert.kernels.backends import cpu

# Of each form of the layers, its product, its tests and which of them run.
FORMS = {
    "bfloat16": ("tdpbf16ps", "(bfloat16 or same_bits) and not reference",
                 "kernels/ops/test_dsn_window_logits.py", "kernels/backends/cpu/test_windows.py"),
    "int8": ("tdpbusd", "cpu-cpu or amx", "kernels/ops/test_dsn_window_logits_int8.py",
             "kernels/backends/cpu/test_int8_instruction_sets.py"),
}
# pytest's own handler of SIGILL would take the place of the emulator's.
RUN_TESTS = """
import sys, pytest
from amx_emulator import executed
status = pytest.main(["-q", "--tb=short", "-p", "no:faulthandler", "-p", "no:cacheprovider",
                      "-k", *sys.argv[1:]])
print(*executed().values())
sys.exit(status)
"""
# A bad id ends the work of one of two threads.
COMPUTE = """
import torch
from amx_emulator import executed
from window_workload import prepared, window_head, window_parameters
from dendritic_bert.kernels import ops
from dendritic_bert.kernels.backends import cpu
from dendritic_bert.kernels.prepare_int8 import quantise_windows
print(cpu.instruction_set(), cpu.int8_instruction_set())
values = window_parameters(dendrites=32, layers=5)
torch.set_num_threads(2)
ids = torch.zeros(200, 25, dtype=torch.long)
ids[3, 20] = -1
for dtype in (torch.float32, torch.bfloat16, torch.int8):
    tables = prepared(values, window_head(values), dtype=torch.bfloat16 if dtype == torch.bfloat16 else torch.float32)
    try:
        if dtype == torch.int8:
            ops.dsn_window_logits_int8(ids, quantise_windows(tables), backend="cpu")
        else:
            ops.dsn_window_logits(ids, tables, backend="cpu")
    except RuntimeError as error:
        assert "input_ids holds -1 in row 3" in str(error)
    print(*executed().values())
"""


def why_not_emulated() -> str | None:
    """Why the layers on AMX cannot be run in software here, or None."""
    if cpu.MISSING is not None:
        return "the extension was not built"
    if cpu.instruction_set() == "amx":
        return "this processor has AMX, on which every other test runs"
    from dendritic_bert import _cpu

    if not hasattr(ctypes.CDLL(_cpu.__file__), "dendritic_bert_may_use_amx"):
        return "the extension was compiled without AMX"
    if "avx512_bf16" not in Path("/proc/cpuinfo").read_text():
        return "this processor has no AVX512-BF16, which the layers on AMX use too"
    return None


pytestmark = pytest.mark.skipif((reason := why_not_emulated()) is not None, reason=reason or "")


@pytest.fixture(scope="module")
def emulator(tmp_path_factory):
    return build(tmp_path_factory.mktemp("amx"))


def counts_in(line: str) -> dict[str, int]:
    return dict(zip(KINDS, map(int, line.split()), strict=True))


@pytest.mark.parametrize("form", FORMS)
def test_windows(emulator, form):
    """The tests of windows of a form, those of awkward sizes among them, in a process of their own."""
    product, *tests = FORMS[form]
    done = run_emulated(emulator, RUN_TESTS, *tests)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
    counts = counts_in(done.stdout.splitlines()[-1])
    assert min(counts[name] for name in ("tileloadd", "tilestored", product)) > 10_000
    # Once a thread of a call; the tests in int8 make 50, those in bfloat16 more.
    assert counts["ldtilecfg"] == counts["tilerelease"] >= 50


def test_threads_give_the_tiles_back(emulator):
    """Also a thread that stops at a bad id. Layers of float32 use none."""
    done = run_emulated(emulator, COMPUTE)
    assert done.returncode == 0, done.stderr
    names, float32, bfloat16, int8 = done.stdout.splitlines()
    assert names == "amx amx"
    assert not any(counts_in(float32).values())
    assert counts_in(bfloat16)["ldtilecfg"] == counts_in(bfloat16)["tilerelease"] == 2
    assert counts_in(bfloat16)["tdpbf16ps"] > 0
    assert counts_in(int8)["ldtilecfg"] == counts_in(int8)["tilerelease"] == 4
    assert counts_in(int8)["tdpbusd"] > 0


def test_a_lower_instruction_set_uses_no_tiles(emulator):
    done = run_emulated(emulator, COMPUTE, at_most="avx512_vnni")
    assert done.returncode == 0, done.stderr
    names, *lines = done.stdout.splitlines()
    assert names == "avx512 avx512_vnni"
    assert not any(count for line in lines for count in counts_in(line).values())

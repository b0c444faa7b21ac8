"""What the compiler made: nothing compiled for one instruction set may serve another."""

import shutil
import subprocess
from pathlib import Path

import pytest

from dendritic_bert.kernels import cpu

ROOT = Path(__file__).resolve().parent.parent
OBJECTS = sorted(ROOT.glob("build/temp*/*/csrc/cpu/kernel.o"))


def test_the_extension_is_there_where_a_compiler_is() -> None:
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler on this machine")
    assert cpu.MISSING is None, cpu.MISSING
    assert cpu.instruction_set() in ("avx512", "avx2", "baseline")


@pytest.mark.skipif(not OBJECTS or shutil.which("nm") is None, reason="no object files of a build, or no nm")
@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: path.parts[-4])
def test_kernel_objects_export_no_shared_code(path: Path) -> None:
    """An inline function of the standard library, compiled for AVX-512 and emitted as a weak symbol, could be the copy
    that the linker keeps for every instruction set: a processor without AVX-512 would stop on it."""
    symbols = subprocess.run(["nm", "--defined-only", path], capture_output=True, text=True, check=True).stdout
    exported = [line.split()[-1] for line in symbols.splitlines() if line.split()[-2] not in "tTrdbB"]
    # kernels_<name> (rodata) and the unwinder's personality pointer are all there may be.
    assert [name for name in exported if not name.startswith(("kernels_", "DW.ref."))] == []
    code = [line.split()[-1] for line in symbols.splitlines() if line.split()[-2] == "T"]
    assert code == []

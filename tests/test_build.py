"""What the compiler made: nothing compiled for one instruction set may serve another. And what there is without one."""

import json
import os
import shutil
import subprocess
import sys
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


def test_without_a_compiler_the_package_installs_and_says_once_what_serves(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    hidden = {"CXX", "CUDA_HOME", "FORCE_CUDA", "SKIP_CUDA_BUILD", "DENDRITIC_BERT_BACKEND"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"PATH": str(tmp_path / "bin"), "PYTHONPATH": str(tmp_path / "lib")}
    build = ["build", "--build-base", tmp_path / "base", "--build-lib", tmp_path / "lib"]
    done = subprocess.run([sys.executable, "setup.py", "-q", *build], cwd=ROOT, env=environment, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("no C++ compiler found (set CXX or install one); the PyTorch reference serves") == 1
    assert list(tmp_path.rglob("*.so")) == []
    # An editable installation's finder would find this checkout's extension for the package in the new folder.
    classify = ("import sys; sys.meta_path = [finder for finder in sys.meta_path if '__editable__' not in "
                "getattr(finder, '__module__', '')]; from dendritic_bert.cli import main; "
                "sys.exit(main(['classify', 'a charming journey']))")
    done = subprocess.run([sys.executable, "-c", classify], cwd=tmp_path, env=environment, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["label"] == "positive"
    assert done.stderr.count("dendritic_bert runs on the PyTorch reference") == done.stderr.count("\n") == 1

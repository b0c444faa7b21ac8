"""What the compiler made: nothing compiled for one instruction set may serve another. And what there is without one."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import setuptools
import torch
from torch.utils import cpp_extension

from dendritic_bert.kernels.backends import cpu

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


# ---- what setup.py asks of the compilers -----------------------------------------------------------------------------

NVCC = """#!/bin/sh
case "$1" in
  --version) echo "Cuda compilation tools, release {version}, V{version}.1" ;;
  --list-gpu-code) printf 'sm_75\\nsm_80\\nsm_86\\nsm_90\\nsm_100\\nsm_120\\n' ;;
esac
"""


@pytest.fixture
def imported(tmp_path, monkeypatch):
    """setup.py with another environment, beside a toolkit whose nvcc answers questions alone."""
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text(NVCC.format(version="13.0"))
    nvcc.chmod(0o755)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", str(tmp_path))
    for name in ("CXX", "CC", "SKIP_CUDA_BUILD", "FORCE_CUDA", "TORCH_CUDA_ARCH_LIST", "DENDRITIC_BERT_SANITIZE"):
        monkeypatch.delenv(name, raising=False)

    def run(**environment: str) -> ModuleType:
        for name, value in ({"CUDA_HOME": str(tmp_path)} | environment).items():
            monkeypatch.setenv(name, value)
        spec = importlib.util.spec_from_file_location("setup_of_this", ROOT / "setup.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return run


def nvcc_flags(module: ModuleType) -> list[str]:
    (cuda,) = (extension for extension in module.extensions if extension.name == "dendritic_bert._cuda")
    return cuda.extra_compile_args["nvcc"]


def machine_code(*numbers: int) -> list[str]:
    return [f"-gencode=arch=compute_{number},code=sm_{number}" for number in numbers]


def ptx(number: int) -> str:
    return f"-gencode=arch=compute_{number},code=compute_{number}"


# As the documentation of torch.utils.cpp_extension has it; the names are those of CMake's select_compute_arch.
@pytest.mark.parametrize(("asked", "expected"), [
    ("8.0", machine_code(80)), ("8.0;9.0+PTX", [*machine_code(80, 90), ptx(90)]), ("8.6 9.0", machine_code(86, 90)),
    ("9.0a", ["-gencode=arch=compute_90a,code=sm_90a"]), ("Hopper", [*machine_code(90), ptx(90)]),
    ("Ampere", [*machine_code(80, 86), ptx(86)]), ("12.0+PTX", [*machine_code(120), ptx(120)])])
def test_the_architectures_that_are_asked_for(imported, asked, expected):
    flags = nvcc_flags(imported(TORCH_CUDA_ARCH_LIST=asked))
    assert sorted(flag for flag in flags if "gencode" in flag) == sorted(expected)


@pytest.mark.parametrize("environment", [{}, {"TORCH_CUDA_ARCH_LIST": ""}], ids=["unset", "empty"])
def test_the_architectures_where_none_is_asked_for(imported, environment):
    flags = nvcc_flags(imported(**environment))
    assert [flag for flag in flags if "gencode" in flag] == [
        *machine_code(80, 90), "-gencode=arch=compute_90,code=sm_100", "-gencode=arch=compute_90,code=sm_120", ptx(90)]


def test_of_a_list_for_all_what_is_too_old_is_left_out(imported, capsys):
    flags = nvcc_flags(imported(TORCH_CUDA_ARCH_LIST="6.0 7.5 8.0 9.0+PTX"))
    assert sorted(flag for flag in flags if "gencode" in flag) == sorted([*machine_code(80, 90), ptx(90)])
    assert capsys.readouterr().out == (
        "sm_60, sm_75 of TORCH_CUDA_ARCH_LIST is left out: the CUDA kernels need sm_80 or later.\n")


@pytest.mark.parametrize(("asked", "reason"), [
    ("7.5", "TORCH_CUDA_ARCH_LIST is '7.5', and the kernels need sm_80 or later (add 8.0)"),
    ("Pascal", "TORCH_CUDA_ARCH_LIST is 'Pascal', and the kernels need sm_80 or later (add 8.0)"),
    ("sm_90", "TORCH_CUDA_ARCH_LIST is 'sm_90', expected architectures such as 8.0;9.0+PTX (Unknown CUDA arch (sm_90)"),
    ("8,0", "TORCH_CUDA_ARCH_LIST is '8,0', expected architectures such as 8.0;9.0+PTX (Unknown CUDA arch (8,0)")])
def test_architectures_that_cannot_be_built_for(imported, asked, reason, capsys):
    module = imported(TORCH_CUDA_ARCH_LIST=asked)
    assert [extension.name for extension in module.extensions] == ["dendritic_bert._cpu"]
    said = capsys.readouterr().out
    assert said.startswith(f"CUDA kernels not built: {reason}")
    assert said.count("\n") == 1
    with pytest.raises(SystemExit, match=r"^FORCE_CUDA is 1, but the CUDA kernels cannot be built: TORCH_CUDA_ARCH"):
        imported(TORCH_CUDA_ARCH_LIST=asked, FORCE_CUDA="1")


@pytest.mark.parametrize(("command", "compiler"), [
    ("c++", "c++"), ("ccache g++", "g++"), ("g++ -m64", "g++"),
    ("ccache  /opt/a/g++-14 -m64 -isystem /opt/b", "/opt/a/g++-14"),
    ("'/opt/my tools/g++' -O2", "/opt/my tools/g++"), ("", "c++")])
def test_the_compiler_in_a_command(imported, command, compiler):
    module = imported(CXX=command)
    assert module.compiler_of("CXX") == compiler
    assert module.host_compiler_flags() == ([f"-ccbin={compiler}"] if command else [])
    assert module.compiler_found() == (shutil.which(compiler) is not None)


def test_nvcc_goes_by_cc_where_there_is_no_cxx(imported):
    """As torch has it, which would pass a launcher on too."""
    assert "-ccbin=gcc" in nvcc_flags(imported(CC="ccache gcc"))
    assert "-ccbin=g++" in nvcc_flags(imported(CC="gcc", CXX="g++ -m64"))


# Writes down what it is to compile or link and makes an empty file of it.
LAUNCHER = """#!/bin/sh
out= made=
for word in "$@"; do
  case "$previous" in -o) out=$word ;; -MF) : > "$word" ;; esac
  case "$word" in -c|-shared) made=$word ;; esac
  previous=$word
done
if [ -z "$made" ]; then exec "$@"; fi
echo "$made $*" >> "{log}"
: > "$out"
"""


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler on this machine")
def test_an_isolated_build_compiles_nothing_again(tmp_path):
    """Each has a torch of its own in another folder. By a compiler with a launcher and an option."""
    source, log = tmp_path / "source", tmp_path / "log"
    for name in ("csrc", "kernels", "dendritic_bert"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    launcher = tmp_path / "launcher"
    launcher.write_text(LAUNCHER.format(log=log))
    launcher.chmod(0o755)
    compiled = []
    for isolated in ("first", "second"):
        (tmp_path / isolated).mkdir()
        (tmp_path / isolated / "torch").symlink_to(Path(torch.__file__).parent, target_is_directory=True)
        log.write_text("")
        environment = os.environ | {"CXX": f"{launcher} c++ -m64", "SKIP_CUDA_BUILD": "1",
                                    "PYTHONPATH": str(tmp_path / isolated)}
        done = subprocess.run([sys.executable, "setup.py", "build_ext", "--inplace"], cwd=source, env=environment,
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        compiled.append([line for line in log.read_text().splitlines() if line.startswith("-c ")])
        assert (source / "build" / "torch").readlink().parent.name == isolated
    sources = {Path(word).name for line in compiled[0] for word in line.split() if word.endswith(".cpp")}
    assert sources == {"binding.cpp", "dispatch.cpp", "kernel.cpp"}
    assert all(" c++ -m64 " in line for line in compiled[0])
    assert compiled[1] == []
    assert "not compatible with the compiler" not in done.stderr

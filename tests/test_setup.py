"""What setup.py builds and how it calls the compilers; the package without a compiler."""

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
from compiled_kernels import compiled_kernels
from torch.utils import cpp_extension

from dendritic_bert.kernels.backends import cpu

ROOT = Path(__file__).resolve().parent.parent
needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler on this machine")


@needs_compiler
def test_the_extension_is_built_where_there_is_a_compiler() -> None:
    assert cpu.MISSING is None, cpu.MISSING
    assert cpu.instruction_set() in ("amx", "avx512", "avx2", "baseline")


@needs_compiler
def test_kernel_objects_export_no_shared_code() -> None:
    """An inline function of the standard library that is compiled for AVX-512 and emitted as a weak symbol could be the
    copy that the linker keeps for every instruction set: a processor without AVX-512 would stop at it."""
    objects = [path for path in compiled_kernels() if not path.stem.endswith("dispatch")]
    assert len(objects) > 0
    for path in objects:
        assert path.exists(), f"{path} is missing: run `python setup.py build_ext --inplace`"
        symbols = subprocess.run(["nm", "--defined-only", path], capture_output=True, text=True, check=True).stdout
        exported = [line.split()[-1] for line in symbols.splitlines() if line.split()[-2] not in "tTrdbB"]
        # Nothing but what the dispatch chooses, and the unwinder's pointer to its personality routine.
        (chosen,) = (symbol for symbol in exported if not symbol.startswith("DW.ref."))
        assert chosen.startswith("_ZN14dendritic_bert")
        assert [line for line in symbols.splitlines() if line.split()[-2] == "T"] == []


@needs_compiler
def test_the_package_has_everything_that_is_not_python(tmp_path: Path) -> None:
    """In the folder that a wheel is made from: the type stubs, the mark that the package is typed, and the assets."""
    environment = os.environ | {"SKIP_CUDA_BUILD": "1"}
    subprocess.run([sys.executable, "setup.py", "-q", "build_py", "--build-lib", tmp_path], cwd=ROOT, env=environment,
                   check=True, capture_output=True)
    package = tmp_path / "dendritic_bert"
    expected = ["_cpu.pyi", "_cuda.pyi", "_engine.pyi", "_files.pyi", "py.typed", "training/sweep.yaml",
                *(str(path.relative_to(ROOT / "dendritic_bert"))
                  for path in (ROOT / "dendritic_bert" / "assets").rglob("*") if path.is_file())]
    assert [name for name in expected if not (package / name).is_file()] == []
    modules = [path.relative_to(ROOT / "dendritic_bert") for path in (ROOT / "dendritic_bert").rglob("*.py")]
    modules += [path.relative_to(ROOT) for path in (ROOT / "kernels").rglob("*.py")]
    assert [name for name in modules if not (package / name).is_file()] == []


def test_without_a_compiler_the_package_installs_and_says_once_that_the_reference_serves(tmp_path: Path) -> None:
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
    # The finder of an editable installation would take the extension of this checkout for that of the new folder.
    classify = ("import sys; sys.meta_path = [finder for finder in sys.meta_path if '__editable__' not in "
                "getattr(finder, '__module__', '')]; from dendritic_bert.cli import main; "
                "sys.exit(main(['classify', 'a charming journey']))")
    done = subprocess.run([sys.executable, "-c", classify], cwd=tmp_path, env=environment, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["label"] == "positive"
    assert done.stderr.count("dendritic_bert runs on the PyTorch reference") == done.stderr.count("\n") == 1


# ---- how setup.py calls the compilers --------------------------------------------------------------------------------

NVCC = """#!/bin/sh
case "$1" in
  --version) echo "Cuda compilation tools, release {version}, V{version}.1" ;;
  --list-gpu-code) printf 'sm_75\\nsm_80\\nsm_86\\nsm_90\\nsm_100\\nsm_120\\n' ;;
esac
"""


@pytest.fixture
def load_setup(tmp_path, monkeypatch):
    """Loads setup.py as a module, with the given environment and a CUDA toolkit whose nvcc only answers questions. A
    variable that is None is not set."""
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

    def run(**environment: str | None) -> ModuleType:
        for name, value in ({"CUDA_HOME": str(tmp_path)} | environment).items():
            monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
        spec = importlib.util.spec_from_file_location("setup_of_this", ROOT / "setup.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return run


@needs_compiler
@pytest.mark.parametrize(("version", "reason"), [("13.0", "nvcc not found"), (None, "this torch has no CUDA")])
def test_without_cuda_one_line_says_so(load_setup, version, reason, tmp_path, monkeypatch, capsys):
    """With a C++ compiler on the PATH but no nvcc. It is an error where the kernels were asked for."""
    monkeypatch.setattr(torch.version, "cuda", version)
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "c++").symlink_to(shutil.which("c++"))
    environment = {"PATH": str(tmp_path / "tools"), "CUDA_HOME": None}
    load_setup(**environment)
    printed = capsys.readouterr().out
    assert printed.startswith(f"CUDA kernels not built: {reason}")
    assert printed.count("\n") == 1
    with pytest.raises(SystemExit) as error:
        load_setup(**environment, FORCE_CUDA="1")
    assert error.value.code.startswith(f"FORCE_CUDA is 1, but the CUDA kernels cannot be built: {reason}")


def test_the_cuda_build_can_be_skipped(load_setup, capsys):
    load_setup(SKIP_CUDA_BUILD="1")
    assert "CUDA kernels not built: SKIP_CUDA_BUILD is 1.\n" in capsys.readouterr().out


def nvcc_flags(module: ModuleType) -> list[str]:
    (cuda,) = (extension for extension in module.extensions if extension.name == "dendritic_bert._cuda")
    return cuda.extra_compile_args["nvcc"]


def machine_code(*numbers: int) -> list[str]:
    return [f"-gencode=arch=compute_{number},code=sm_{number}" for number in numbers]


def ptx(number: int) -> str:
    return f"-gencode=arch=compute_{number},code=compute_{number}"


# The expected flags follow the documentation of torch.utils.cpp_extension; the names of architectures are those of
# CMake's select_compute_arch.
@pytest.mark.parametrize(("requested", "expected"), [
    ("8.0", machine_code(80)), ("8.0;9.0+PTX", [*machine_code(80, 90), ptx(90)]), ("8.6 9.0", machine_code(86, 90)),
    ("9.0a", ["-gencode=arch=compute_90a,code=sm_90a"]), ("Hopper", [*machine_code(90), ptx(90)]),
    ("Ampere", [*machine_code(80, 86), ptx(86)]), ("12.0+PTX", [*machine_code(120), ptx(120)])])
def test_the_architectures_of_a_list(load_setup, requested, expected):
    flags = nvcc_flags(load_setup(TORCH_CUDA_ARCH_LIST=requested))
    assert sorted(flag for flag in flags if "gencode" in flag) == sorted(expected)


@pytest.mark.parametrize("environment", [{}, {"TORCH_CUDA_ARCH_LIST": ""}], ids=["unset", "empty"])
def test_the_architectures_without_a_list(load_setup, environment):
    flags = nvcc_flags(load_setup(**environment))
    assert [flag for flag in flags if "gencode" in flag] == [
        *machine_code(80, 90), "-gencode=arch=compute_90,code=sm_100", "-gencode=arch=compute_90,code=sm_120", ptx(90)]


def test_architectures_that_are_too_old_are_left_out(load_setup, capsys):
    flags = nvcc_flags(load_setup(TORCH_CUDA_ARCH_LIST="6.0 7.5 8.0 9.0+PTX"))
    assert sorted(flag for flag in flags if "gencode" in flag) == sorted([*machine_code(80, 90), ptx(90)])
    assert capsys.readouterr().out == (
        "sm_60, sm_75 of TORCH_CUDA_ARCH_LIST is left out: the CUDA kernels need sm_80 or later.\n")


@pytest.mark.parametrize(("requested", "reason"), [
    ("7.5", "TORCH_CUDA_ARCH_LIST is '7.5', and the kernels need sm_80 or later (add 8.0)"),
    ("Pascal", "TORCH_CUDA_ARCH_LIST is 'Pascal', and the kernels need sm_80 or later (add 8.0)"),
    ("sm_90", "TORCH_CUDA_ARCH_LIST is 'sm_90', expected architectures such as 8.0;9.0+PTX (Unknown CUDA arch (sm_90)"),
    ("8,0", "TORCH_CUDA_ARCH_LIST is '8,0', expected architectures such as 8.0;9.0+PTX (Unknown CUDA arch (8,0)")])
def test_lists_that_leave_nothing_to_build_for(load_setup, requested, reason, capsys):
    module = load_setup(TORCH_CUDA_ARCH_LIST=requested)
    assert [extension.name for extension in module.extensions] == [
        "dendritic_bert._cpu", "dendritic_bert._engine", "dendritic_bert._files"]
    printed = capsys.readouterr().out
    assert printed.startswith(f"CUDA kernels not built: {reason}")
    assert printed.count("\n") == 1
    with pytest.raises(SystemExit, match=r"^FORCE_CUDA is 1, but the CUDA kernels cannot be built: TORCH_CUDA_ARCH"):
        load_setup(TORCH_CUDA_ARCH_LIST=requested, FORCE_CUDA="1")


@pytest.mark.parametrize(("command", "compiler"), [
    ("c++", "c++"), ("ccache g++", "g++"), ("g++ -m64", "g++"),
    ("ccache  /opt/a/g++-14 -m64 -isystem /opt/b", "/opt/a/g++-14"),
    ("'/opt/my tools/g++' -O2", "/opt/my tools/g++"), ("", "c++")])
def test_the_compiler_in_a_command(load_setup, command, compiler):
    module = load_setup(CXX=command)
    assert module.compiler_in("CXX") == compiler
    assert module.host_compiler_flags() == ([f"-ccbin={compiler}"] if command else [])
    assert module.has_compiler() == (shutil.which(compiler) is not None)


def test_without_cxx_nvcc_uses_cc(load_setup):
    """As in torch, which would pass on the launcher too."""
    assert "-ccbin=gcc" in nvcc_flags(load_setup(CC="ccache gcc"))
    assert "-ccbin=g++" in nvcc_flags(load_setup(CC="gcc", CXX="g++ -m64"))


# Logs what it is told to compile or link, and writes an empty file instead of doing so.
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


@needs_compiler
def test_an_isolated_build_compiles_nothing_again(tmp_path):
    """Each isolated build has its own torch in another folder. The compiler here has a launcher and an option."""
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
    sources = {Path(*Path(word).parts[-2:]) for line in compiled[0] for word in line.split() if word.endswith(".cpp")}
    assert sources == {path.relative_to(ROOT / "csrc") for folder in ("cpu", "engine", "files")
                       for path in (ROOT / "csrc" / folder).glob("*.cpp")}
    assert all(" c++ -m64 " in line for line in compiled[0])
    assert compiled[1] == []
    assert "not compatible with the compiler" not in done.stderr

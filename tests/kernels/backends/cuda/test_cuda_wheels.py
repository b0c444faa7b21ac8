"""The wheels of `make wheel`, each installed by itself into an empty environment, and the source distribution.

Dependencies come from this environment, dendritic_bert from the wheel alone. Objects that build/temp has already are
linked and not compiled again.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from helpers import REPOSITORY

from dendritic_bert.kernels.backends import cpu, cuda

CPU_ONLY, WITH_CUDA = {"SKIP_CUDA_BUILD": "1"}, {"FORCE_CUDA": "1"}
no_cpu = pytest.mark.skipif(cpu.MISSING is not None, reason=str(cpu.MISSING))
no_cuda = pytest.mark.skipif(cuda.MISSING is not None, reason=str(cuda.MISSING))
REPORT = """
import dendritic_bert
from dendritic_bert import cli
from dendritic_bert.kernels import backends
from dendritic_bert.kernels.backends import cuda
print(dendritic_bert.__file__)
print(backends.availability()["cpu"] is None, cuda.MISSING is None)
cli.main(["classify", "a wonderful film"])
"""
# Compiles no further than the preprocessor, and writes an empty file instead of linking.
PREPROCESSOR = """#!/bin/sh
for word in "$@"; do
  case "$previous" in -o) out=$word ;; esac
  case "$word" in -shared) links=1 ;; esac
  previous=$word
done
if [ -n "$links" ]; then : > "$out"; else exec {compiler} "$@" -E; fi
"""


def run(*command: str | Path, cwd: Path = REPOSITORY, **environment: str) -> str:
    inherited = {name: value for name, value in os.environ.items()
                 if name not in ("SKIP_CUDA_BUILD", "FORCE_CUDA", "PYTHONPATH")}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=inherited | environment, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def empty_environment(folder: Path, wheel: Path) -> Path:
    """The Python of a new environment that holds ``wheel``, and sees what this one has installed but not its links."""
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-index", "--no-deps", wheel)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return python


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pytest.param(CPU_ONLY, id="cpu", marks=no_cpu),
                                  pytest.param(WITH_CUDA, id="cuda", marks=no_cuda)])
def test_a_wheel_runs_in_an_empty_environment(kind, tmp_path):
    run(sys.executable, "setup.py", "-q", "build", "--build-lib", tmp_path / "lib", "bdist_wheel",
        "--compression", "stored", "--bdist-dir", tmp_path / "bdist", "--dist-dir", tmp_path, **kind)
    (wheel,) = tmp_path.glob("*.whl")
    assert "-cp310-abi3-" in wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    extensions = {"_cpu", "_engine", "_files"} | ({"_cuda"} if kind is WITH_CUDA else set())
    assert {Path(name).name.partition(".")[0] for name in names if name.endswith(".so")} == extensions

    python = empty_environment(tmp_path / "environment", wheel)
    place, found, classified = run(python, "-c", REPORT, cwd=tmp_path).splitlines()[-3:]
    assert Path(place).is_relative_to(tmp_path / "environment")
    assert found == f"True {kind is WITH_CUDA}"
    assert "positive" in classified.lower()


@no_cpu
def test_the_shipped_sources_are_complete(tmp_path):
    """They are those of this checkout, which is what the other tests have built, and all that they include is found."""
    run(sys.executable, "setup.py", "-q", "sdist", "--dist-dir", tmp_path)
    (archive,) = tmp_path.glob("*.tar.gz")
    run("tar", "-xf", archive, "-C", tmp_path)  # tarfile's own filters are no older than Python 3.11.4
    root = archive.with_suffix("").with_suffix("")
    for pattern in ("setup.py", "pyproject.toml", "csrc/**/*.*", "kernels/**/*.py", "dendritic_bert/**/*.py",
                    "dendritic_bert/assets/**/*.*"):
        for path in filter(Path.is_file, REPOSITORY.glob(pattern)):
            if path.suffix == ".pyc":
                continue
            assert (root / path.relative_to(REPOSITORY)).read_bytes() == path.read_bytes(), path
    compiler = tmp_path / "c++"
    compiler.write_text(PREPROCESSOR.format(compiler=shutil.which(os.environ.get("CXX", "c++"))), encoding="utf-8")
    compiler.chmod(0o755)
    run(sys.executable, "setup.py", "-q", "build_ext", "--inplace", cwd=root, CXX=str(compiler), **CPU_ONLY)
    assert {path.name.partition(".")[0] for path in root.rglob("*.so")} == {"_cpu", "_engine", "_files"}
    assert "namespace dendritic_bert" in next(root.rglob("kernel.o")).read_text()

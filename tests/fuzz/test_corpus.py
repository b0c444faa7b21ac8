"""What the fuzzers have found, and what they begin with, through their targets as the usual compiler builds them."""

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from compiled_kernels import compiled_kernels
from fuzz_seeds import write_seeds
from helpers import REPOSITORY

TARGETS = ["text", "model_file", "arrow", "records"]
CORPUS = REPOSITORY / "tests" / "fuzz" / "corpus"


def library_sources() -> list[Path]:
    """All of csrc/engine and csrc/files but what is for Python."""
    return [path for folder in ("engine", "files") for path in sorted((REPOSITORY / "csrc" / folder).glob("*.cpp"))
            if not path.stem.startswith("python_")]


@pytest.fixture(scope="module")
def targets(tmp_path_factory) -> Path:
    """A folder with a program for each target, with the kernels that setup.py has compiled."""
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler on this machine")
    folder = tmp_path_factory.mktemp("targets")
    compiler = ["c++", "-std=c++17", "-O1", "-D_GLIBCXX_ASSERTIONS", "-pthread"]
    subprocess.run([*compiler, "-c", *library_sources(), REPOSITORY / "tests" / "fuzz" / "replay.cpp"], cwd=folder,
                   check=True)
    objects = [*folder.glob("*.o"), *compiled_kernels()]
    for target in TARGETS:
        subprocess.run([*compiler, REPOSITORY / "tests" / "fuzz" / f"{target}.cpp", *objects, "-o", folder / target],
                       check=True)
    return folder


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """A folder with a folder for each target."""
    folder = tmp_path_factory.mktemp("inputs")
    write_seeds(folder)
    for target in TARGETS:
        with zipfile.ZipFile(CORPUS / f"{target}.zip") as found:
            found.extractall(folder / target)
    return folder


@pytest.mark.parametrize("target", TARGETS)
def test_what_the_fuzzers_have_found(targets, inputs, target):
    files = sorted(str(path) for path in (inputs / target).iterdir())
    assert len(files) > 20
    done = subprocess.run([targets / target, *files], capture_output=True, text=True,
                          env=os.environ | {"DENDRITIC_BERT_FUZZ_MODEL": str(inputs / "model_file" / "folded")})
    assert done.returncode == 0, done.stderr[-500:]

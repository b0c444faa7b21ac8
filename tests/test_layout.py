"""The tests stand where their sources do, no test file imports another, and no line is longer than it may be."""

import ast
import re
from pathlib import Path

import pytest
from helpers import REPOSITORY

TESTS = REPOSITORY / "tests"
TEST_FILES = sorted(TESTS.rglob("test_*.py"))
LONGEST_LINE = 120
# Ruff holds Python to it, and clang-format code in C++ and CUDA, but not its comments.
SOURCES = sorted(path for folder in ("csrc", "runtime") for path in (REPOSITORY / folder).rglob("*")
                 if path.suffix in (".c", ".cpp", ".cu", ".cuh", ".h", ".py"))
DOCUMENTS = sorted(path for pattern in ("*.md", "kernels/*.md", "docs/**/*.md") for path in REPOSITORY.glob(pattern)
                   if "results" not in path.parts)
# Files in the folder of a package that are not named after one of its modules, and what they test.
OF_A_PACKAGE = {
    "bench/test_benches.py": "every bench/bench_*.py",
    "kernels/backends/test_adding_a_backend.py": "docs/adding_a_backend.md",
    "kernels/backends/test_backends.py": "kernels/backends/__init__.py",
    "kernels/backends/triton/test_compiled.py": "every Triton kernel, compiled",
    "kernels/backends/triton/test_properties.py": "every Triton kernel, on any batch",
    "runtime/test_main.py": "runtime/dendritic_bert_runtime/__main__.py",
}


def imported_modules(path: Path) -> set[str]:
    """The last parts of the names of all modules that a file imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or "", *(alias.name for alias in node.names)}
    return {name.rpartition(".")[2] for name in names}


def find_source(folder: Path) -> Path:
    """The folder or the module of the sources that a folder of the tests stands for."""
    relative = folder.relative_to(TESTS)
    if relative.parts[0] == "runtime":
        source = REPOSITORY / "runtime" / "dendritic_bert_runtime" / relative.relative_to("runtime")
    else:
        source = (REPOSITORY if relative.parts[0] in ("kernels", "bench") else REPOSITORY / "dendritic_bert") / relative
    return source if source.is_dir() else source.with_suffix(".py")


def test_no_test_file_imports_another():
    names = {path.stem for path in TEST_FILES}
    assert len(names) > 70
    for path in TESTS.rglob("*.py"):
        assert imported_modules(path).isdisjoint(names), path


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_every_test_file_is_named_after_what_it_tests(path):
    name = path.relative_to(TESTS)
    if len(name.parts) == 1 or name.parts[0] in ("support", "mutation", "fuzz"):
        return
    source = find_source(path.parent)
    assert source.exists()
    if source.is_dir() and str(name) not in OF_A_PACKAGE:
        assert (source / f"{path.stem.removeprefix('test_')}.py").is_file()


def lines_of_text(document: Path) -> list[str]:
    """The lines of a document outside of code, tables and what is written into it."""
    text = re.sub(r"<!-- results -->.*?<!-- /results -->", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    text = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    return [line for line in text.splitlines() if not line.lstrip().startswith("|")]


def test_lines_are_short_enough():
    assert len(SOURCES) > 100
    assert len(DOCUMENTS) > 20
    long = [f"{path}: {line}" for path in SOURCES for line in path.read_text(encoding="utf-8").splitlines()
            if len(line) > LONGEST_LINE]
    long += [f"{path}: {line}" for path in DOCUMENTS for line in lines_of_text(path) if len(line) > LONGEST_LINE]
    assert not long

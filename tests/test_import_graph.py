"""Which module imports which: no circle anywhere, and no layer that knows one above it.

Every import counts, also one inside a function; only those under ``if TYPE_CHECKING`` do not.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import REPOSITORY

PACKAGE = "dendritic_bert"
BENCH_FOLDERS = ("bench", "bench/analysis", "bench/accuracy")  # on the path when a bench runs, without a package


def find_modules() -> dict[str, Path]:
    """Name -> file of every module of the package, the kernels (dendritic_bert.kernels) and the benches."""
    modules = {}
    for file in (REPOSITORY / PACKAGE).rglob("*.py"):
        modules[dotted(file.relative_to(REPOSITORY))] = file
    for file in (REPOSITORY / "kernels").rglob("*.py"):
        modules[f"{PACKAGE}.{dotted(file.relative_to(REPOSITORY))}"] = file
    for folder in BENCH_FOLDERS:
        for file in (REPOSITORY / folder).glob("*.py"):
            modules[f"bench.{file.stem}"] = file
    return modules


def dotted(file: Path) -> str:
    parts = file.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = find_modules()


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in {
        getattr(name, "id", getattr(name, "attr", None)) for name in ast.walk(node.test)}


def statements(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import in ``tree``, wherever it stands, but for those under TYPE_CHECKING."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif is_type_checking(node):
            for other in node.orelse:
                yield from statements(other)
        else:
            yield from statements(node)


def imports_of(name: str, file: Path) -> set[str]:
    """The modules among ``MODULES`` that one of them imports; a package only where a name of its own is taken."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in statements(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [(alias.name, None) for alias in node.names]
        else:
            base = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
            source = ".".join(filter(None, [base if node.level else "", node.module or ""]))
            targets = [(source, alias.name) for alias in node.names]
        for source, member in targets:
            for candidate in (f"{source}.{member}", source, f"bench.{source}.{member}", f"bench.{source}"):
                if candidate in MODULES:
                    found.add(candidate)
                    break
    return found - {name}


GRAPH = {name: imports_of(name, file) for name, file in MODULES.items()}


def find_circle(graph: dict[str, set[str]]) -> list[str]:
    """One circle of imports, first module repeated at its end; empty if there is none."""
    done: set[str] = set()

    def search(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name):], name]
        if name in done:
            return []
        for imported in sorted(graph[name]):
            if circle := search(imported, [*path, name]):
                return circle
        done.add(name)
        return []

    return next(filter(None, (search(name, []) for name in sorted(graph))), [])


def imports_between(importing: str, imported: str) -> list[str]:
    """Imports of what begins with ``imported`` by what begins with ``importing``."""
    def is_in(name: str, folder: str) -> bool:
        return name == folder or name.startswith(f"{folder}.")

    return [f"{name} imports {target}" for name, targets in GRAPH.items() if is_in(name, importing)
            for target in sorted(targets) if is_in(target, imported)]


def test_every_module_is_seen():
    assert {"dendritic_bert.cli.parser", "dendritic_bert.kernels.backends.triton", "bench.harness"} <= set(GRAPH)
    assert "dendritic_bert.kernels.ops" in GRAPH["dendritic_bert.model.modeling"]
    assert "dendritic_bert.training.trainer" in GRAPH["dendritic_bert.cli.train"], "inside a function"


def test_no_circle():
    assert find_circle(GRAPH) == []


def test_a_circle_is_found():
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


@pytest.mark.parametrize("imported", sorted({name.split(".")[1] for name in GRAPH if name.startswith(f"{PACKAGE}.")
                                             and not name.startswith(f"{PACKAGE}.kernels")}))
def test_the_kernels_import_nothing_of_the_package(imported):
    assert imports_between(f"{PACKAGE}.kernels", f"{PACKAGE}.{imported}") == []


def test_nothing_imports_the_benches():
    assert imports_between(PACKAGE, "bench") == []


@pytest.mark.parametrize("layer", ["model", "inference", "datasets", "growth"])
def test_the_layers_above_the_ops_do_not_know_the_backends(layer):
    assert imports_between(f"{PACKAGE}.{layer}", f"{PACKAGE}.kernels.backends") == []

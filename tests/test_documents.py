"""The documents name files that are there, and link to them."""

import re

import pytest
from helpers import REPOSITORY

FOLDERS = ("bench", "csrc", "dendritic_bert", "docs", "examples", "kernels", "runtime", "tests")
PATTERNS = ("*.md", "docs/*.md", "docs/*/*.md", "kernels/README.md", "tests/README.md", "tests/*/*/README.md")
DOCUMENTS = sorted(path for pattern in PATTERNS for path in REPOSITORY.glob(pattern)
                   if "results" not in path.parts and not path.is_symlink())
# Files that the programs of the documents make, or that lie elsewhere.
OTHERS = {"config.json", "best_model.pt", "utils.py", "__init__.py", "mkdocs.yml", "pyproject.toml"}


@pytest.fixture(scope="module")
def files() -> set[str]:
    found = {str(path.relative_to(REPOSITORY)) for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*.*")}
    return found | {path.name for path in REPOSITORY.iterdir()}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_and_names_of_files(document, files):
    """A link is a path from the document on; a name in backticks is the end of a path, a folder's from the top on."""
    text = document.read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    missing = [link for link in links if link and not (document.parent / link).exists()]
    names = re.findall(r"`(?:\.\./)*((?:[\w.-]+/)*[\w-]+\.(?:py|h|cuh|cu|cpp|json|md|yaml))`", text)
    missing += [name for name in names if name not in OTHERS and document.name != "CHANGELOG.md"
                and not any(f"/{file}".endswith(f"/{name}") for file in files)]
    folders = re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w/]*)`", text)
    missing += [name for name in folders if not (REPOSITORY / name).exists()]
    assert not missing

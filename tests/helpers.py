"""What several test files share."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def shared_path(name: str) -> Path:
    """A file or folder of the data that is too large for the repository; skips the test where it is not there."""
    roots = [Path(os.environ["DENDRITIC_BERT_DATA"])] if "DENDRITIC_BERT_DATA" in os.environ else []
    roots.append(REPOSITORY.parent / "shared")
    for root in roots:
        if (root / name).exists():
            return root / name
    pytest.skip(f"{name} is not in {' or '.join(map(str, roots))}: set DENDRITIC_BERT_DATA to the folder that holds it")

"""The CSV files of results, and the line below a page that says what made it."""

from __future__ import annotations

import csv
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from dendritic_bert import __version__
from dendritic_bert.atomic_write import atomic_path

Row = dict[str, str]


def read_csv(path: Path) -> list[Row]:
    """The rows of a CSV file with a header; none where there is no file."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows, with a header of the names that any of them has; an interrupted call leaves the file as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_path(path) as unfinished, open(unfinished, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def made_by(script: str) -> str:
    """The line that names a script of bench/accuracy, versions and machine."""
    return (f"Made by `python bench/accuracy/{script}.py` with dendritic-bert {__version__}, torch "
            f"{torch.__version__}, transformers {transformers.__version__}, Python {platform.python_version()} on "
            f"{platform.machine()}, torch threads: {torch.get_num_threads()}.\n")

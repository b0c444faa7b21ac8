"""What a training needs to know of a benchmark: its rows, the class of its models, its scores."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from .rows import EncodedRows, pad_rows


class Benchmark(ABC):
    """One task with its rows.

    model_class: the class that is trained.
    settings: fields of the configuration that the task determines.
    main_metric: the key of ``scores`` by which runs are compared.
    label_names: entries of a batch that only training reads.
    source: where the rows come from, in words.
    num_train, num_dev: numbers of rows, or of questions.
    majority: share of the most frequent label in the dev set; None if there are no labels.
    longest: the most tokens of a row when a model is scored.
    class_counts: ``[C]``, training rows of each class; None if they are not counted.
    digest: tells the rows from any others of the same number; "" if nothing does.
    report: what was counted in the rows, for people to read; None if nothing was.
    findings: what is known before the training and belongs to its results, by names; None if nothing is.
    """

    model_class: Any
    settings: dict[str, Any]
    main_metric: str
    label_names: tuple[str, ...] = ("labels",)
    source: str
    num_train: int
    num_dev: int
    majority: float | None = None
    longest: float = math.inf
    class_counts: Any = None
    digest: str = ""
    report: Any = None
    findings: dict[str, Any] | None = None

    @property
    def num_taught(self) -> int:
        """How many texts an epoch goes through: the training rows, and what a teacher labels beside them."""
        return self.num_train

    def save(self, model: Any, folder: Path) -> None:
        """Write a trained ``model_class`` to ``folder``."""
        model.save_pretrained(folder)

    def load(self, folder: Path) -> Any:
        """The model that ``save`` has written to ``folder``."""
        return self.model_class.from_pretrained(folder)

    def folders(self, folder: Path) -> list[Path]:
        """The folders to which ``save`` has written models, each of which needs a tokenizer."""
        return [folder]

    @abstractmethod
    def texts(self) -> Iterable[str]:
        """The training texts, from which a new vocabulary is made."""

    @abstractmethod
    def encode(self, tokenizer: Any, max_length: int) -> tuple[EncodedRows | None, dict[str, EncodedRows]]:
        """The training rows, None if they were not read, and the rows of every dev split."""

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Rows of a ``RowDataset`` as a padded batch."""
        return pad_rows(rows)

    def logits(self, output: Any) -> Tensor:
        """The part of a model's output that ``scores`` reads: ``[B, ...]`` float32."""
        return output.logits.float()

    @abstractmethod
    def scores(self, logits: Any, split: str) -> dict[str, float]:
        """The metrics of a dev split; ``logits`` is an array or a list with one entry per encoded row."""


def label_fields(names: Sequence[str]) -> dict[str, Any]:
    """The fields of ``Benchmark.settings`` that name a model's outputs, in their order; none for a regression, whose
    outputs have no ``names``."""
    if not names:
        return {}
    return {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}


def digest_of(strings: Iterable[str], *arrays: np.ndarray) -> str:
    """A digest of strings and arrays, for ``Benchmark.digest``."""
    digest = blake2b(digest_size=16)
    for text in strings:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\n")
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()

"""What a training has to know of its benchmark: the rows, the kind of model, the scores. GLUE's; SQuAD's stand in
``question_answering``."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np
from torch import Tensor

from ..inference.tokenization import PackedTokenizer
from ..model.modeling import DendriticBertForSequenceClassification
from .glue_tasks import find_task
from .rows import EncodedRows, Rows, encode_rows, hold_out, pad_rows, read_rows, take_fraction


class Benchmark(ABC):
    """One task of a benchmark, with its rows.

    model_class: what is trained. settings: the task's own fields of the configuration. main_metric: the key of
    ``scores`` by which runs are compared. label_names: entries of a batch that only training reads. source: where the
    rows came from, in words. num_train, num_dev: rows, or questions. majority: the share of the most frequent label on
    the dev set, None where there are no labels. longest: tokens of a row, at most, when a model is scored.
    """

    model_class: Any
    settings: dict[str, Any]
    main_metric: str
    label_names: tuple[str, ...]
    source: str
    num_train: int
    num_dev: int
    majority: float | None = None
    longest: float = math.inf

    @abstractmethod
    def texts(self) -> Iterable[str]:
        """The training texts, from which a new vocabulary is made."""

    @abstractmethod
    def encode(self, tokenizer: Any, max_length: int) -> tuple[EncodedRows | None, dict[str, EncodedRows]]:
        """The rows to train on, None where they were not read, and those of every dev split."""

    @abstractmethod
    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Rows of a ``RowDataset`` as a padded batch."""

    @abstractmethod
    def logits(self, output: Any) -> Tensor:
        """What ``scores`` judges, of a model's output: ``[B, ...]``."""

    @abstractmethod
    def scores(self, logits: Any, split: str) -> dict[str, float]:
        """The metrics of a dev split; ``logits`` is an array, or a list, with an entry for each of its encoded rows."""


class Glue(Benchmark):
    """A task of GLUE: the dev ``splits`` (all there are where None), and "train" unless ``with_train`` is False.

    ``share``: in the place of "train", train on all but this share of the first dev split, and score on the share.
    ``fraction``: of the rows to train on, so many are taken.
    Raises as ``data.read_rows`` does.
    """

    model_class = DendriticBertForSequenceClassification
    label_names = ("labels",)

    def __init__(self, name: str, data_dir: str | None, share: float | None = None, with_train: bool = True,
                 splits: tuple[str, ...] | None = None, fraction: float = 1.0) -> None:
        self.task = task = find_task(name)
        is_read = with_train and share is None
        self.train: Rows | None = read_rows(name, "train", data_dir) if is_read else None
        self.dev = {split: read_rows(name, split, data_dir) for split in splits or task.dev_splits}
        first = next(iter(self.dev))
        if share is not None:
            self.train, self.dev[first] = hold_out(self.dev[first], share)
        if self.train and fraction < 1:
            self.train = take_fraction(self.train, fraction)
        self.settings: dict[str, Any] = {
            "num_labels": task.num_labels,
            "problem_type": "single_label_classification" if task.labels else "regression",
        }
        if task.labels:
            self.settings["id2label"] = dict(enumerate(task.labels))
            self.settings["label2id"] = {label: i for i, label in enumerate(task.labels)}
        self.main_metric = task.main_metric
        self.source = (self.train or self.dev[first]).source
        self.num_train, self.num_dev = len(self.train.labels) if self.train else 0, len(self.dev[first].labels)
        counts = np.bincount(self.dev[first].labels) if task.labels else None
        self.majority = None if counts is None else float(counts.max() / counts.sum())

    def texts(self) -> Iterable[str]:
        return chain.from_iterable(self.train.columns if self.train else ())

    def encode(self, tokenizer: Any, max_length: int) -> tuple[EncodedRows | None, dict[str, EncodedRows]]:
        packed = PackedTokenizer(tokenizer)
        dev = {split: encode_rows(rows, packed, max_length) for split, rows in self.dev.items()}
        return self.train and encode_rows(self.train, packed, max_length), dev

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        return pad_rows(rows)

    def logits(self, output: Any) -> Tensor:
        return output.logits.float()

    def scores(self, logits: Any, split: str) -> dict[str, float]:
        return self.task.scores(np.asarray(logits), self.dev[split].labels, split)

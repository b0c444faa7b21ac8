"""Rows that lie in memory with labels that are numbered already, all of which are trained on."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np

from ..inference.tokenization import PackedTokenizer
from ..model.modeling import DendriticBertForSequenceClassification
from .benchmark import Benchmark, label_fields
from .rows import EncodedRows, Rows, encode_rows


class InMemoryRows(Benchmark):
    """Texts, or pairs of texts, with classes ``[n]`` int64, or ``[n, C]`` float32 of 0 and 1 for several labels a row.

    There are no dev rows: ``encode`` gives the training rows in their place, and ``scores`` none.

    Args:
        columns: one list of n texts, or two.
        labels: as the loss takes them.
        names: those of the C outputs.
        problem_type: "single_label_classification" or "multi_label_classification".
    """

    model_class = DendriticBertForSequenceClassification
    main_metric = "loss"
    source = "rows in memory"

    def __init__(self, columns: tuple[list[str], ...], labels: np.ndarray, names: list[str], problem_type: str) -> None:
        self.rows = Rows(columns, labels, self.source)
        self.num_train, self.num_dev = len(labels), 0
        self.settings = {"num_labels": len(names), "problem_type": problem_type, **label_fields(names)}

    def texts(self) -> Iterable[str]:
        return chain.from_iterable(self.rows.columns)

    def encode(self, tokenizer: Any, max_length: int) -> tuple[EncodedRows | None, dict[str, EncodedRows]]:
        encoded = encode_rows(self.rows, PackedTokenizer(tokenizer), max_length)
        return encoded, {"train": encoded}

    def scores(self, logits: Any, split: str) -> dict[str, float]:
        return {}

"""The labels of rows, and the kinds of labels that there are."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")
CLASSES, SEVERAL, REGRESSION = PROBLEM_TYPES

_MISSING = frozenset(("", "nan", "NaN"))


class Labels(NamedTuple):
    """The labels of n rows.

    problem_type: one of ``PROBLEM_TYPES``.
    names: names of the C classes in the order of their ids; () for a regression.
    values: ``[n]`` int32 ids of classes; ``[n]`` or ``[n, C]`` float32 for a regression; for multi-label the ids of
        all rows, one row after another.
    starts: ``[n + 1]`` int64, where each row starts in ``values``; None if each row has one entry.
    """

    problem_type: str
    names: tuple[str, ...]
    values: np.ndarray
    starts: np.ndarray | None = None

    @property
    def num_rows(self) -> int:
        return len(self.values) if self.starts is None else len(self.starts) - 1

    @property
    def num_labels(self) -> int:
        """Number of outputs of a model."""
        return len(self.names) or (self.values.shape[1] if self.values.ndim == 2 else 1)

    def of_rows(self, is_row: np.ndarray) -> Labels:
        """The labels of the rows that ``is_row`` ``[n]`` bool marks."""
        if self.starts is None:
            return self._replace(values=self.values[is_row])
        lengths = np.diff(self.starts)
        return self._replace(values=self.values[np.repeat(is_row, lengths)],
                             starts=np.concatenate([[0], np.cumsum(lengths[is_row])]))

    def dense(self) -> np.ndarray:
        """``[n]`` int64 classes, ``[n, C]`` bool for multi-label, ``[n]`` or ``[n, C]`` float32 for a regression."""
        if self.starts is None:
            return self.values.astype(np.float32 if self.problem_type == REGRESSION else np.int64)
        dense = np.zeros((self.num_rows, len(self.names)), np.bool_)
        dense[np.repeat(np.arange(self.num_rows), np.diff(self.starts)), self.values] = True
        return dense

    def counts(self) -> np.ndarray:
        """``[C]``, the number of rows of each class; ``[0]`` for a regression."""
        return np.bincount(self.values, minlength=len(self.names)) if self.names else np.zeros(0, np.int64)

    def keys(self) -> np.ndarray:
        """``[n]``, equal for rows with the same labels (sums of random numbers, where a row has several classes)."""
        if self.values.ndim == 2:
            return np.unique(self.values, axis=0, return_inverse=True)[1].ravel()
        if self.starts is None:
            return self.values
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(_draw(len(self.names))[self.values])])
        return np.diff(sums[self.starts])


def is_missing(value: Any, separator: str | None = None) -> bool:
    """Whether a label is null, NaN, an empty string, or a list with a null or NaN; a row of separated strings may have
    none of the labels."""
    if isinstance(value, str):
        return separator is None and value.strip() in _MISSING
    if isinstance(value, (list, tuple, np.ndarray)):
        return any(not isinstance(part, str) and is_missing(part) for part in value)
    return value is None or (isinstance(value, (float, np.floating)) and math.isnan(value))


def _draw(size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 1 << 64, size, np.uint64)

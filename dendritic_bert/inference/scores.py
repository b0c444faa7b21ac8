"""The names of a model's labels, the scores that its logits stand for, and the best of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Number
from typing import Any, NamedTuple

import numpy as np

from .texts import without_surrogates


class Prediction(NamedTuple):
    """The best label of B texts: B names, ``[B]`` float32 scores, and how many texts were cut to the model's length."""

    labels: list[str]
    scores: np.ndarray
    num_truncated: int


class NonFiniteScores(ValueError):
    """The model gives logits that are NaN or infinite.

    row: the first text of the batch with such logits. text: what the message calls it. why: what is wrong with the
    model.
    """

    def __init__(self, row: int, text: str, why: str):
        super().__init__(row, text, why)  # so that it can be pickled
        self.row, self.text, self.why = row, text, why

    def __str__(self) -> str:
        return (f"the model gives {self.text} a score that is NaN or infinite, because {self.why}: train it again or "
                "load another checkpoint.")


def label_names(id2label: Any, num_labels: int) -> list[str]:
    """The names of labels 0 to ``num_labels`` - 1. A key may be a str, as in JSON, and a name may be a number."""
    pairs = list(id2label.items() if isinstance(id2label, Mapping) else enumerate(id2label or ()))
    names = {int(key) if isinstance(key, str) and key.isdecimal() else key: name for key, name in pairs}
    if len(pairs) != num_labels or names.keys() != set(range(num_labels)):
        keys = ", ".join(repr(key) for key, _ in pairs)
        raise ValueError(f"id2label has the keys {keys:.60}, the model {num_labels} labels: name each from 0 to "
                         f"{num_labels - 1} in its configuration.")
    for label, name in names.items():
        if not isinstance(name, (str, Number)):
            raise ValueError(f"id2label[{label}] is {name!r:.60}, expected a str: name the label in the model's "
                             "configuration.")
    return [without_surrogates(str.__str__(name)) if isinstance(name, str) else str(name)
            for _, name in sorted(names.items())]


def score_function(problem_type: str | None, num_labels: int) -> Callable[[np.ndarray], np.ndarray]:
    """The function from logits ``[B, C]`` to scores, by the rules of transformers' TextClassificationPipeline."""
    if problem_type == "regression":
        return _identity
    return _sigmoid if problem_type == "multi_label_classification" or num_labels == 1 else _softmax


def _identity(logits: np.ndarray) -> np.ndarray:
    return logits


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-logits))


def _softmax(logits: np.ndarray) -> np.ndarray:
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exp / exp.sum(axis=1, keepdims=True)

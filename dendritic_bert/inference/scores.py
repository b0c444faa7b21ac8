"""The names of a model's labels, the scores that its logits stand for, and what is said of a text by them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from numbers import Number
from typing import Any, Literal, NamedTuple

import numpy as np

from .formatters import Labels
from .texts import without_surrogates
from .threads import check_positive

try:
    from .._engine import apply_scores
except ImportError:  # numpy serves
    apply_scores = None  # type: ignore[assignment]

SMALLEST_TEMPERATURE = 2.0**-149  # of float32, in which smaller ones are 0
SCORE_FUNCTIONS = ("sigmoid", "softmax", "none")  # in the order of their codes in csrc/engine/scores.h


class Prediction(NamedTuple):
    """The best label of B texts: B names, ``[B]`` float32 scores, and how many texts were cut to the model's length.

    A name is None where the classifier abstains.
    """

    labels: list[str | None]
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
        return (f"the model gives {self.text} numbers that are NaN or infinite, because {self.why}: train it again or "
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


def score_rule(
    problem_type: str | None, num_labels: int, function_to_apply: str | None = None, temperature: float = 1.0
) -> tuple[str, float]:
    """What makes scores of logits, by the rules of transformers' TextClassificationPipeline: the name of a function,
    and what logits are divided by before.

    ``function_to_apply`` is "sigmoid", "softmax" or "none"; None is none for a regression, the sigmoid for a
    multi-label problem and for a single label, and the softmax for all others. Logits are divided by ``temperature``
    (Guo et al., On Calibration of Modern Neural Networks, 2017), except in a regression and where no function is
    applied. Raises ValueError for another function and for a temperature that is not positive.
    """
    if function_to_apply is None:
        is_sigmoid = problem_type == "multi_label_classification" or num_labels == 1
        name = "none" if problem_type == "regression" else "sigmoid" if is_sigmoid else "softmax"
    else:
        name = function_to_apply.lower()  # the pipeline takes either case
    if name not in SCORE_FUNCTIONS:
        raise ValueError(f"function_to_apply is {function_to_apply!r}, known are {', '.join(SCORE_FUNCTIONS)}.")
    if not SMALLEST_TEMPERATURE <= temperature < np.inf:
        raise ValueError(f"temperature is {temperature}, expected a positive number, {SMALLEST_TEMPERATURE:.2g} or "
                         "more: mend it in the model's configuration.")
    return name, 1.0 if name == "none" or problem_type == "regression" else temperature


def _apply(name: str, temperature: float, logits: np.ndarray) -> np.ndarray:
    """The function of logits that are divided by the temperature. Exponentials and sums are float64, and a score is
    rounded once."""
    if name == "none":
        return logits
    if apply_scores is not None:
        logits = np.ascontiguousarray(logits, np.float32)
        scores = np.empty_like(logits)
        apply_scores(SCORE_FUNCTIONS.index(name), temperature, logits.ctypes.data, scores.ctypes.data, *logits.shape)
        return scores
    divisor = np.float32(temperature)
    with np.errstate(over="ignore", invalid="ignore"):
        if name == "sigmoid":  # below -709 the exponential is infinite, and its quotient 0, as it should be
            return (1 / (1 + np.exp(-(logits / divisor).astype(np.float64)))).astype(np.float32)
        largest = logits.max(axis=1, keepdims=True)
        # A small temperature makes quotients infinite, and their difference would be NaN.
        differences = np.where(np.isinf(largest / divisor), (logits - largest) / divisor,
                               logits / divisor - largest / divisor)
    exp = np.exp(differences.astype(np.float64))
    return (exp / exp.sum(axis=1, keepdims=True)).astype(np.float32)


class Answers:
    """What is said of each text: its best label or several, with their scores.

    ``labels``, ``problem_type`` and ``temperature`` are the model's, ``function_to_apply`` that of ``score_rule``.

    Args:
        top_k: how many labels are said, in a list that begins with the highest score; None is all of them. "" is the
            best label, not in a list, unless there is a threshold.
        threshold: labels with a lower score are left out of the list, which may then be empty.
        abstain_below: where the best score is lower, the label is None, and the score stays. Not with a list.
        all_scores: a file has, beside the answer, the score of every label; that of a regression with several targets
            has them in any case, unless it has a list.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument has a value that is not listed, or does not go with another.
    """

    def __init__(
        self,
        labels: list[str],
        problem_type: str | None,
        temperature: float = 1.0,
        *,
        function_to_apply: str | None = None,
        top_k: int | Literal[""] | None = "",
        threshold: float | None = None,
        abstain_below: float | None = None,
        all_scores: bool = False,
    ):
        self.labels = labels
        self.rule = score_rule(problem_type, len(labels), function_to_apply, temperature)
        self.scores = partial(_apply, *self.rule)  # of logits [B, C] float32
        self.is_list = top_k != "" or threshold is not None
        self.num_listed = len(labels)
        if top_k is not None and top_k != "":
            self.num_listed = min(check_positive("top_k", top_k), len(labels))
        self.threshold = _check_score("threshold", threshold)
        self.abstain_below = _check_score("abstain_below", abstain_below)
        # The largest of several targets says nothing of the others, and is another one in each row.
        has_targets = problem_type == "regression" and len(labels) > 1
        self.all_scores = all_scores or (has_targets and not self.is_list)
        # All that tells two answers of one model apart, in values of JSON.
        self.options = {"top_k": self.num_listed if self.is_list else "", "function_to_apply": function_to_apply,
                        "threshold": self.threshold, "abstain_below": self.abstain_below, "all_scores": self.all_scores}
        if self.is_list and abstain_below is not None:
            raise ValueError("abstain_below is for the best label alone: leave out top_k and threshold, or use "
                             "threshold to leave out labels with a lower score.")

    def best(self, scores: np.ndarray) -> tuple[list[str | None], np.ndarray]:
        """The best label of each row of scores ``[B, C]``, and its score ``[B]``."""
        numbers, best = self._best(scores)
        names = [*self.labels, None]
        return [names[number] for number in numbers.tolist()], best

    def _best(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The numbers ``[B]`` int32 of the best labels, -1 for None, and their scores ``[B]``."""
        numbers = scores.argmax(axis=1).astype(np.int32)
        best = scores[np.arange(len(numbers)), numbers]
        if self.abstain_below is not None:
            numbers[best.astype(np.float64) < self.abstain_below] = -1
        return numbers, best

    def _ranked(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The numbers and scores ``[B, num_listed]`` of the labels of each row of scores ``[B, C]``, the highest score
        first; of equal ones, in order. And how many ``[B]`` of them are said."""
        order = np.argsort(-scores, axis=1, kind="stable")[:, :self.num_listed].astype(np.int32)
        highest = np.take_along_axis(scores, order, axis=1)
        if self.threshold is None:
            return order, highest, np.full(len(scores), self.num_listed)
        # As Python compares them: rounded to float32, a threshold of 0.7 would let 0.69999999 through.
        return order, highest, np.count_nonzero(highest.astype(np.float64) >= self.threshold, axis=1)

    def ranked(self, scores: np.ndarray) -> list[list[tuple[str, float]]]:
        """The labels that are said of each row of scores ``[B, C]``, the highest score first; of equal ones, in order.
        """
        order, highest, counts = self._ranked(scores)
        names = [[self.labels[label] for label in row[:count]] for row, count in zip(order.tolist(), counts.tolist())]
        return [list(zip(row, values)) for row, values in zip(names, highest.tolist())]

    def dicts(self, logits: np.ndarray) -> list[Any]:
        """What transformers' pipeline gives for logits ``[B, C]``: a ``{"label", "score"}`` for each row, or a list."""
        scores = self.scores(logits)
        if self.is_list:
            return [[{"label": label, "score": score} for label, score in row] for row in self.ranked(scores)]
        labels, best = self.best(scores)
        return [{"label": label, "score": score} for label, score in zip(labels, best.tolist())]

    def values(self, logits: np.ndarray, nested: bool) -> list[Any]:
        """What a file says of logits ``[B, C]``: the B cells of each of ``columns(nested)``, as ``formatters.Column``
        has them.

        Scores that are nested in other values have six decimals.
        """
        scores = self.scores(logits)
        if not self.is_list:
            numbers, best = self._best(scores)
            values: list[Any] = [Labels(numbers, self.labels), best]
        elif nested:
            values = [[[{"label": label, "score": round(score, 6)} for label, score in row]
                       for row in self.ranked(scores)]]
        else:
            order, highest, counts = self._ranked(scores)
            is_said = np.arange(self.num_listed) < counts[:, None]
            order, highest = np.where(is_said, order, -1), np.where(is_said, highest, np.float32(np.nan))
            values = [part for rank in range(self.num_listed)
                      for part in (Labels(order[:, rank], self.labels), highest[:, rank])]
        if self.all_scores and nested:
            values.append([dict(zip(self.labels, [round(score, 6) for score in row])) for row in scores.tolist()])
        elif self.all_scores:
            values += list(scores.T)
        return values

    def columns(self, nested: bool) -> list[tuple[str, str]]:
        """The columns of a file, each with its kind, "label", "score" or "value".

        They are label and score, or, of a list, label_1, score_1, label_2, ... up to the longest list. ``nested`` is
        for a format whose values may be lists and objects: then a list is in one column, labels, of
        ``{"label", "score"}``. The scores of all labels are in columns score_LABEL, or nested in an object, scores.
        Raises ValueError if two columns would have the same name.
        """
        if not self.is_list:
            columns = [("label", "label"), ("score", "score")]
        elif nested:
            columns = [("labels", "value")]
        else:
            ranks = range(1, self.num_listed + 1)
            columns = [(f"{kind}_{rank}", kind) for rank in ranks for kind in ("label", "score")]
        if self.all_scores:
            scores = [(f"score_{label}", "score") for label in self.labels]
            names = [name for name, _ in (scores if nested else columns + scores)]
            twice = [name for name in names if names.count(name) > 1]
            if twice:
                raise ValueError(f"all_scores would write the column {twice[0]!r} twice: give the model's labels other "
                                 "names in its configuration, or leave out top_k and threshold.")
            columns += [("scores", "value")] if nested else scores
        return columns


def _check_score(name: str, value: float | None) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"{name} is {value!r}, it must be a number.")
    if not np.isfinite(value):
        raise ValueError(f"{name} is {value}, it must be a finite number.")
    return float(value)

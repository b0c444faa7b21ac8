"""The tasks of GLUE: where their columns stand, what their labels are called, and by what they are judged."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Task(NamedTuple):
    """A classification task of GLUE, or a regression where ``labels`` is empty.

    folder: its name in the GLUE download. texts, label: columns of the file, names or, where the file has no header,
    places. hub_texts: columns on the hub. labels: names of the classes, in the order of their ids. metrics: what it is
    judged by, the first one first. spellings: how the file writes the classes, where not "0", "1", ... dev_splits: the
    files it is judged on. has_broken_rows: texts of the download hold line ends, and such rows are left out, as GLUE
    itself does.
    """

    folder: str
    texts: tuple[str | int, ...]
    label: str | int
    hub_texts: tuple[str, ...]
    labels: tuple[str, ...]
    metrics: tuple[str, ...] = ("accuracy",)
    spellings: tuple[str, ...] = ()
    dev_splits: tuple[str, ...] = ("dev",)
    has_broken_rows: bool = False

    @property
    def num_labels(self) -> int:
        """Outputs of a model of this task; 1 for a regression."""
        return len(self.labels) or 1

    @property
    def main_metric(self) -> str:
        """The one by which runs are compared, as ``scores`` names it on the first of ``dev_splits``."""
        return self.metrics[0] + self.dev_splits[0].removeprefix("dev")

    def scores(self, logits: np.ndarray, labels: np.ndarray, split: str = "dev") -> dict[str, float]:
        """The task's metrics of logits ``[n, C]``, and the standard error of an accuracy: sqrt(a (1 - a) / n).

        On a split "dev_matched" the names end in "_matched". A metric that a constant prediction leaves undefined, a
        correlation, is 0.
        """
        predictions = logits.argmax(axis=1) if self.labels else logits[:, 0]
        scores = {name: float(np.nan_to_num(_METRICS[name](labels, predictions))) for name in self.metrics}
        if "accuracy" in scores:
            scores["standard_error"] = math.sqrt(scores["accuracy"] * (1 - scores["accuracy"]) / len(labels))
        return {name + split.removeprefix("dev"): value for name, value in scores.items()}


def _accuracy(labels: Any, predictions: Any) -> float:
    from sklearn.metrics import accuracy_score

    return accuracy_score(labels, predictions)


def _f1(labels: Any, predictions: Any) -> float:
    from sklearn.metrics import f1_score

    return f1_score(labels, predictions)


def _matthews_correlation(labels: Any, predictions: Any) -> float:
    from sklearn.metrics import matthews_corrcoef

    return matthews_corrcoef(labels, predictions)


def _pearson(labels: Any, predictions: Any) -> float:
    from scipy.stats import pearsonr

    return pearsonr(labels, predictions).statistic


def _spearman(labels: Any, predictions: Any) -> float:
    from scipy.stats import spearmanr

    return spearmanr(labels, predictions).statistic


# scikit-learn and scipy belong to the extra `train` and take a second to import.
_METRICS: dict[str, Callable[[Any, Any], float]] = {
    "accuracy": _accuracy, "f1": _f1, "matthews_correlation": _matthews_correlation, "pearson": _pearson,
    "spearman": _spearman,
}

_PAIR = ("sentence1", "sentence2")
_ENTAILMENT = ("entailment", "not_entailment")
_MNLI = ("entailment", "neutral", "contradiction")
TASKS = {
    "sst2": Task("SST-2", ("sentence",), "label", ("sentence",), ("negative", "positive")),
    "cola": Task("CoLA", (3,), 1, ("sentence",), ("unacceptable", "acceptable"), ("matthews_correlation", "accuracy")),
    "mrpc": Task("MRPC", ("#1 String", "#2 String"), "Quality", _PAIR, ("not_equivalent", "equivalent"),
                 ("accuracy", "f1")),
    "stsb": Task("STS-B", _PAIR, "score", _PAIR, (), ("pearson", "spearman")),
    "qqp": Task("QQP", ("question1", "question2"), "is_duplicate", ("question1", "question2"),
                ("not_duplicate", "duplicate"), ("accuracy", "f1"), has_broken_rows=True),
    "mnli": Task("MNLI", _PAIR, "gold_label", ("premise", "hypothesis"), _MNLI, spellings=_MNLI,
                 dev_splits=("dev_matched", "dev_mismatched")),
    "qnli": Task("QNLI", ("question", "sentence"), "label", ("question", "sentence"), _ENTAILMENT,
                 spellings=_ENTAILMENT),
    "rte": Task("RTE", _PAIR, "label", _PAIR, _ENTAILMENT, spellings=_ENTAILMENT),
    "wnli": Task("WNLI", _PAIR, "label", _PAIR, ("not_entailment", "entailment")),
}


def find_task(name: str) -> Task:
    """The task of that name. Raises ValueError, listing those there are."""
    if name not in TASKS:
        raise ValueError(f"task is {name!r}, expected one of {', '.join(TASKS)}.")
    return TASKS[name]

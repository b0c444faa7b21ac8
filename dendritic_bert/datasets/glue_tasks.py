"""The tasks of GLUE: the columns of their files, the names of their labels, and their metrics.

Nothing here imports more than the standard library before a score is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np


class Task(NamedTuple):
    """A classification task of GLUE, or a regression if ``labels`` is empty.

    folder: name of its folder in the GLUE download.
    texts, label: columns of the file, as names, or as indices if the file has no header.
    hub_texts: names of the text columns on the hub.
    labels: names of the classes in the order of their ids.
    metrics: the metrics of the task, of which runs are compared by the first.
    spellings: how the file writes the classes, if not as "0", "1", ...
    dev_splits: the files that are scored.
    has_broken_rows: whether texts of the download contain line ends; such rows are left out, as in GLUE's own code.
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
        """Number of outputs of a model for this task; 1 for a regression."""
        return len(self.labels) or 1

    @property
    def main_metric(self) -> str:
        """The metric by which runs are compared, as ``scores`` names it for the first of ``dev_splits``."""
        return self.metrics[0] + self.dev_splits[0].removeprefix("dev")

    def scores(self, logits: np.ndarray, labels: np.ndarray, split: str = "dev") -> dict[str, float]:
        """The task's metrics for ``logits`` ``[n, C]`` and ``labels`` ``[n]``, each from -1 or 0 to 1.

        Beside an accuracy a stands its standard error, sqrt(a (1 - a) / n). For the split "dev_matched" the names end
        in "_matched". A correlation that a constant prediction leaves undefined is 0.
        """
        predictions = logits.argmax(axis=1) if self.labels else logits[:, 0]
        scores = {name: float(_METRICS[name](labels, predictions)) for name in self.metrics}
        scores = {name: 0.0 if math.isnan(value) else value for name, value in scores.items()}
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


# Imported when called: scikit-learn and scipy belong to the extra `train`, and take a second.
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
    """The task of that name. Raises ValueError, which lists the names, if there is none."""
    if name not in TASKS:
        raise ValueError(f"task is {name!r}, expected one of {', '.join(TASKS)}.")
    return TASKS[name]

"""What a model's logits on labelled rows are worth: the metrics of classes, of several labels a row, of regressions.

scikit-learn and scipy compute; both are imported when they are first needed, because they take a second. Logits are
read a block of rows at a time, so that half a million rows of 150 classes take no second copy of their memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

NUM_BINS = 15  # of confidence, as in Guo et al. 2017
BLOCK_ROWS = 8192
# problem_type -> the metric by which runs are compared
MAIN_METRIC = {"single_label_classification": "accuracy", "multi_label_classification": "micro_f1",
               "regression": "pearson"}


class Evaluation(NamedTuple):
    """A model's answers to n labelled rows.

    logits: ``[n, C]`` float32, before any temperature.
    labels: ``[n]`` int64 classes; ``[n, C]`` of 0 and 1 for several labels a row; ``[n]`` or ``[n, C]`` float32 for a
        regression.
    label_names: the names of the C outputs.
    problem_type: "single_label_classification", "multi_label_classification" or "regression".
    temperature: the number by which probabilities divide the logits.
    """

    logits: np.ndarray
    labels: np.ndarray
    label_names: list[str]
    problem_type: str
    temperature: float = 1.0


class Reliability(NamedTuple):
    """How often answers of a confidence are right, in ``NUM_BINS`` bins of equal width from 0 to 1.

    Of classes, an answer is the most probable one and its confidence its probability. Of several labels a row, every
    label is an answer, its probability the confidence, and it is right where the row has the label.

    counts: ``[15]`` int64, the answers in each bin. confidence, accuracy: ``[15]`` float64, their mean confidence and
    the share that is right; 0 where a bin is empty.
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def ece(self) -> float:
        """The expected calibration error: the mean distance of the two over all answers (Guo et al. 2017, eq. 3)."""
        return float(np.average(np.abs(self.accuracy - self.confidence), weights=self.counts))


def predict(logits: np.ndarray, problem_type: str) -> np.ndarray:
    """Classes ``[n]``; for several labels a row the 0 and 1 ``[n, C]`` of a threshold of one half; or values
    ``[n, C]``."""
    if problem_type == "regression":
        return logits
    return (logits > 0).astype(np.int64) if problem_type == "multi_label_classification" else logits.argmax(axis=1)


def probabilities(logits: np.ndarray, problem_type: str, temperature: float = 1.0) -> np.ndarray:
    """The probabilities ``[n, C]`` float64 of classes (softmax) or of labels (sigmoid)."""
    from scipy.special import expit, softmax

    scaled = logits.astype(np.float64) / temperature
    return expit(scaled) if problem_type == "multi_label_classification" else softmax(scaled, axis=1)


def scores(
    logits: np.ndarray, labels: np.ndarray, problem_type: str, temperature: float = 1.0
) -> dict[str, float]:
    """The metrics by name, the main one first; arguments as in ``Evaluation``.

    Of classes: accuracy with its standard error, sqrt(a (1 - a) / n), macro_f1 over the classes that occur in the
    labels or the answers, log_loss, and ece. Of several labels: micro_f1, macro_f1, subset_accuracy (all labels of a
    row right), log_loss (the mean over labels), and ece. Of a regression: pearson, spearman, rmse and r2, each the mean
    over the targets; a correlation that constant values leave undefined is 0.
    """
    predictions = predict(logits, problem_type)
    if problem_type == "regression":
        return _regression_scores(predictions.reshape(len(labels), -1), labels.reshape(len(labels), -1))
    from sklearn.metrics import accuracy_score, f1_score

    accuracy = float(accuracy_score(labels, predictions))
    macro_f1 = float(f1_score(labels, predictions, average="macro", zero_division=0))
    if problem_type == "multi_label_classification":
        found = {"micro_f1": float(f1_score(labels, predictions, average="micro", zero_division=0)),
                 "macro_f1": macro_f1, "subset_accuracy": accuracy}
    else:
        found = {"accuracy": accuracy, "standard_error": math.sqrt(accuracy * (1 - accuracy) / len(labels)),
                 "macro_f1": macro_f1}
    return found | {"log_loss": log_loss(logits, labels, problem_type, temperature),
                    "ece": reliability(logits, labels, problem_type, temperature).ece}


def _regression_scores(values: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    from scipy.stats import pearsonr, spearmanr
    from sklearn.metrics import r2_score, root_mean_squared_error

    def mean_correlation(correlate: Any) -> float:
        pairs = [(value, target) for value, target in zip(values.T, targets.T)]
        return float(np.mean([correlate(value, target).statistic if np.ptp(value) and np.ptp(target) else 0.0
                              for value, target in pairs]))

    values, targets = values.astype(np.float64), targets.astype(np.float64)
    return {"pearson": mean_correlation(pearsonr), "spearman": mean_correlation(spearmanr),
            "rmse": float(root_mean_squared_error(targets, values)),
            "r2": float(r2_score(targets, values)) if len(targets) > 1 else 0.0}


def log_loss(logits: np.ndarray, labels: np.ndarray, problem_type: str, temperature: float = 1.0) -> float:
    """The mean negative log-likelihood in nats, of a row's class, or of each of a row's C labels."""
    from scipy.special import log_expit, log_softmax

    total = 0.0
    for block, right in _blocks(logits, labels):
        scaled = block.astype(np.float64) / temperature
        if problem_type == "multi_label_classification":
            total -= log_expit(np.where(right == 1, scaled, -scaled)).sum() / logits.shape[1]
        else:
            total -= log_softmax(scaled, axis=1)[np.arange(len(right)), right].sum()
    return float(total / len(labels))


def reliability(
    logits: np.ndarray, labels: np.ndarray, problem_type: str, temperature: float = 1.0
) -> Reliability:
    """The bins of confidence, each open below and closed above: (0, 1/15], ..., (14/15, 1]."""
    counts = np.zeros(NUM_BINS, np.int64)
    confidence, right = np.zeros(NUM_BINS), np.zeros(NUM_BINS)
    for block, block_labels in _blocks(logits, labels):
        sure = probabilities(block, problem_type, temperature)
        if problem_type == "multi_label_classification":
            sure, is_right = sure.ravel(), block_labels.ravel() == 1
        else:
            sure, is_right = sure.max(axis=1), block.argmax(axis=1) == block_labels
        bins = np.clip(np.ceil(sure * NUM_BINS).astype(np.int64) - 1, 0, NUM_BINS - 1)
        counts += np.bincount(bins, minlength=NUM_BINS)
        confidence += np.bincount(bins, sure, NUM_BINS)
        right += np.bincount(bins, is_right, NUM_BINS)
    return Reliability(counts, confidence / np.maximum(counts, 1), right / np.maximum(counts, 1))


def _blocks(logits: np.ndarray, labels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(labels), BLOCK_ROWS):
        yield logits[start:start + BLOCK_ROWS], labels[start:start + BLOCK_ROWS]


def per_class(evaluation: Evaluation) -> list[dict[str, Any]]:
    """For every class or label, in order: label (its name), precision, recall, f1, and support, the rows that have it.

    A precision or recall that no row defines is 0.
    """
    from sklearn.metrics import precision_recall_fscore_support

    columns = precision_recall_fscore_support(
        evaluation.labels, predict(evaluation.logits, evaluation.problem_type),
        labels=np.arange(len(evaluation.label_names)), zero_division=0)
    return [{"label": name, "precision": float(precision), "recall": float(recall), "f1": float(f1),
             "support": int(support)}
            for name, precision, recall, f1, support in zip(evaluation.label_names, *columns)]


def confusion_matrix(evaluation: Evaluation) -> np.ndarray:
    """``[C, C]`` int64: the rows of class i that are answered j. For a single label a row."""
    from sklearn.metrics import confusion_matrix as count

    return count(evaluation.labels, evaluation.logits.argmax(axis=1), labels=np.arange(len(evaluation.label_names)))


def most_confused(evaluation: Evaluation, most: int = 20) -> list[tuple[str, str, int]]:
    """(class, answer, rows) of the pairs that are confused most often, most first, ties in the order of the classes."""
    answers = evaluation.logits.argmax(axis=1)
    is_wrong = answers != evaluation.labels
    pairs, counts = np.unique(np.stack([evaluation.labels[is_wrong], answers[is_wrong]], axis=1), axis=0,
                              return_counts=True)
    names = evaluation.label_names
    return [(names[pairs[i, 0]], names[pairs[i, 1]], int(counts[i]))
            for i in np.argsort(-counts, kind="stable")[:most]]


def majority_share(labels: np.ndarray, problem_type: str) -> float | None:
    """The share of the most frequent class; None where a row has no single class."""
    return float(np.bincount(labels).max() / len(labels)) if problem_type == "single_label_classification" else None

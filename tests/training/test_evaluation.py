"""The metrics are scikit-learn's and scipy's, and the calibration error torchmetrics', at any number of rows."""

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from sklearn import metrics
from torchmetrics.classification import BinaryCalibrationError, MulticlassCalibrationError

from dendritic_bert.training import evaluation
from dendritic_bert.training.evaluation import Evaluation

CLASSES, LABELS, VALUES = "single_label_classification", "multi_label_classification", "regression"
SIZES = [(1, 2), (7, 3), (evaluation.BLOCK_ROWS + 3, 5), (300, 150)]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(("rows", "classes"), SIZES)
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_classes(rng, rows, classes, temperature):
    logits = rng.normal(size=(rows, classes)).astype(np.float32)
    labels = np.where(rng.random(rows) < 0.5, logits.argmax(1), rng.integers(0, classes, rows))
    found = evaluation.scores(logits, labels, CLASSES, temperature)
    answers = logits.argmax(1)
    accuracy = metrics.accuracy_score(labels, answers)
    assert next(iter(found)) == evaluation.MAIN_METRIC[CLASSES]
    assert found["accuracy"] == accuracy
    assert found["standard_error"] == pytest.approx(np.sqrt(accuracy * (1 - accuracy) / rows))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(labels, answers, average="macro", zero_division=0))
    scaled = torch.from_numpy(logits).double() / temperature
    loss = torch.nn.functional.cross_entropy(scaled, torch.from_numpy(labels))
    assert found["log_loss"] == pytest.approx(float(loss), rel=1e-12)
    error = MulticlassCalibrationError(classes, n_bins=15)(scaled.softmax(1), torch.from_numpy(labels))
    assert found["ece"] == pytest.approx(float(error), abs=1e-6)


@pytest.mark.parametrize(("rows", "classes"), SIZES)
def test_labels(rng, rows, classes):
    logits = rng.normal(size=(rows, classes)).astype(np.float32)
    labels = (logits + rng.normal(size=logits.shape) > 0).astype(np.int64)
    found = evaluation.scores(logits, labels, LABELS, 2.0)
    answers = (torch.from_numpy(logits).sigmoid() > 0.5).long().numpy()
    assert next(iter(found)) == evaluation.MAIN_METRIC[LABELS]
    assert found["micro_f1"] == pytest.approx(metrics.f1_score(labels, answers, average="micro", zero_division=0))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(labels, answers, average="macro", zero_division=0))
    assert found["subset_accuracy"] == (labels == answers).all(axis=1).mean()
    scaled = torch.from_numpy(logits).double() / 2
    loss = torch.nn.functional.binary_cross_entropy_with_logits(scaled, torch.from_numpy(labels).double())
    assert found["log_loss"] == pytest.approx(float(loss), rel=1e-12)
    error = BinaryCalibrationError(n_bins=15)(scaled.sigmoid().ravel(), torch.from_numpy(labels).ravel())
    assert found["ece"] == pytest.approx(float(error), abs=1e-6)


@pytest.mark.parametrize("targets", [1, 3])
def test_regression(rng, targets):
    logits = rng.normal(size=(50, targets)).astype(np.float32)
    labels = (logits + rng.normal(size=logits.shape)).astype(np.float32)
    found = evaluation.scores(logits, labels[:, 0] if targets == 1 else labels, VALUES)
    assert next(iter(found)) == evaluation.MAIN_METRIC[VALUES]
    for name, correlate in (("pearson", pearsonr), ("spearman", spearmanr)):
        expected = np.mean([correlate(logits[:, i], labels[:, i])[0] for i in range(targets)])
        assert found[name] == pytest.approx(expected, rel=1e-5)
    errors = logits.astype(float) - labels
    assert found["rmse"] == pytest.approx(np.sqrt((errors ** 2).mean(axis=0)).mean())
    assert found["r2"] == pytest.approx(metrics.r2_score(labels.astype(float), logits.astype(float)))


def test_a_constant_has_no_correlation(rng):
    found = evaluation.scores(np.ones((9, 1), np.float32), rng.random(9), VALUES)
    assert (found["pearson"], found["spearman"]) == (0.0, 0.0)


def test_the_bins_of_a_small_case():
    """Four answers of confidence 0.5, 0.8, 0.8 and 0.98, the last two right, by hand."""
    sure = np.array([0.5, 0.8, 0.8, 0.98])
    logits = np.log(np.stack([sure, 1 - sure], axis=1))
    found = evaluation.reliability(logits, np.array([1, 1, 0, 0]), CLASSES)
    assert found.counts.nonzero()[0].tolist() == [7, 11, 14]  # 0.5 is in (7/15, 8/15], 0.8 in (11/15, 12/15]
    assert found.counts[[7, 11, 14]].tolist() == [1, 2, 1]
    assert found.accuracy[[7, 11, 14]].tolist() == [0, 0.5, 1]
    assert found.confidence[[7, 11, 14]] == pytest.approx([0.5, 0.8, 0.98])
    assert found.ece == pytest.approx((0.5 + 2 * 0.3 + 0.02) / 4)


def test_per_class(rng):
    """A class that no row has stays in the list."""
    logits, labels = rng.normal(size=(40, 4)).astype(np.float32), rng.integers(0, 3, 40)
    found = evaluation.per_class(Evaluation(logits, labels, ["b", "a", "d", "c"], CLASSES))
    expected = metrics.classification_report(labels, logits.argmax(1), labels=range(4), output_dict=True,
                                             target_names=["b", "a", "d", "c"], zero_division=0)
    for row in found:
        report = expected[row["label"]]
        assert [row["precision"], row["recall"], row["f1"], row["support"]] == list(report.values())
    assert [row["label"] for row in found] == ["b", "a", "d", "c"]
    assert found[3]["support"] == 0


def test_per_label(rng):
    logits, labels = rng.normal(size=(40, 2)).astype(np.float32), rng.integers(0, 2, (40, 2))
    found = evaluation.per_class(Evaluation(logits, labels, ["x", "y"], LABELS))
    assert [row["recall"] for row in found] == [metrics.recall_score(labels[:, i], logits[:, i] > 0) for i in (0, 1)]


def test_what_is_confused():
    """Of 3 a's one is called b; of 3 b's two are called c; the c is found."""
    labels, answers = np.array([0, 0, 0, 1, 1, 1, 2]), np.array([0, 0, 1, 2, 2, 1, 2])
    case = Evaluation(np.eye(3, dtype=np.float32)[answers], labels, ["a", "b", "c"], CLASSES)
    assert evaluation.confusion_matrix(case).tolist() == [[2, 1, 0], [0, 1, 2], [0, 0, 1]]
    assert evaluation.most_confused(case) == [("b", "c", 2), ("a", "b", 1)]
    assert evaluation.most_confused(case, 1) == [("b", "c", 2)]
    assert evaluation.majority_share(labels, CLASSES) == 3 / 7
    assert evaluation.majority_share(labels, VALUES) is None

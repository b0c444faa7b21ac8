"""Losses with smoothed targets and weighted classes, against their formulas in float64 and scikit-learn's weights."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from dendritic_bert.training.losses import balanced_weights, make_loss, weighted_loss

CLASSES, LABELS, VALUES = "single_label_classification", "multi_label_classification", "regression"


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("counts", [None, [1, 5, 2]])
def test_a_single_label(smoothing, counts):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    labels = torch.arange(7) % 3
    weights = None if counts is None else balanced_weights(np.array(counts), 8, CLASSES)
    loss = make_loss(CLASSES, smoothing, weights)
    if loss is None:
        assert (smoothing, counts) == (0.0, None)
        return
    w = np.ones(3) if counts is None else compute_class_weight(
        "balanced", classes=np.arange(3), y=np.repeat(np.arange(3), counts))
    log_p = (logits - logits.logsumexp(1, keepdim=True)).numpy()

    def expected(share):
        targets = (1 - share) * np.eye(3)[labels] + share / 3
        return -(targets * w * log_p).sum() / w[labels].sum()

    output = SimpleNamespace(logits=logits)
    assert loss(output, labels).item() == pytest.approx(expected(smoothing), rel=1e-6)
    with torch.no_grad():  # held-out losses are comparable whatever the smoothing
        assert loss(output, labels).item() == pytest.approx(expected(0.0), rel=1e-6)


def test_several_labels():
    logits = torch.tensor([[0.5, -2.0], [1.5, 0.3], [-1.0, 2.0]], dtype=torch.float64)
    labels = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    weights = balanced_weights(np.array([2, 1]), 3, LABELS)  # rows without over rows with: 1/2 and 2
    loss = make_loss(LABELS, 0.1, weights)
    p, y = 1 / (1 + np.exp(-logits.numpy())), labels.numpy() * 0.9 + 0.05
    expected = -np.mean(y * np.array([0.5, 2.0]) * np.log(p) + (1 - y) * np.log(1 - p))
    assert loss(SimpleNamespace(logits=logits), labels).item() == pytest.approx(expected, rel=1e-6)


def test_a_class_without_rows_weighs_one():
    assert balanced_weights(np.array([4, 0]), 4, CLASSES).tolist() == [0.5, 1.0]


@pytest.mark.parametrize(("smoothing", "weights", "name"), [
    (0.1, None, "label_smoothing"), (0.0, torch.ones(1), "class_weights")])
def test_numbers_have_no_classes(smoothing, weights, name):
    with pytest.raises(ValueError, match=rf"^{name} is given, but the labels are numbers, which have no classes"):
        make_loss(VALUES, smoothing, weights)


@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_a_row_of_weight_2_counts_as_two_rows(problem_type, label_smoothing):
    """Against the loss of torch of the rows repeated; weights 2, 1 and 0 are 1 on average."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, generator=generator)
    is_single = problem_type == "single_label_classification"
    labels = torch.tensor([[3], [0], [1]]) if is_single else torch.randint(0, 2, (3, 4), generator=generator)
    weights = torch.tensor([[2], [1], [0]])
    found = weighted_loss(SimpleNamespace(logits=logits), torch.hstack([labels, weights]).double(),
                          problem_type=problem_type, label_smoothing=label_smoothing)
    repeated = torch.tensor([0, 0, 1])
    targets = torch.nn.functional.one_hot(labels[:, 0], 4) if is_single else labels
    targets = targets * (1 - label_smoothing) + label_smoothing / (4 if is_single else 2)
    if is_single:
        expected = torch.nn.functional.cross_entropy(logits[repeated], targets[repeated])
    else:
        expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[repeated], targets[repeated])
    torch.testing.assert_close(found, expected)

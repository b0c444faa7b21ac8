"""The temperature is the one that made the logits too sure, and torch's optimiser finds the same."""

import numpy as np
import pytest
import torch

from dendritic_bert.training import calibration
from dendritic_bert.training.calibration import fit_temperature

CLASSES, LABELS = "single_label_classification", "multi_label_classification"


def draw(rows: int, outputs: int, problem_type: str, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are ``temperature`` times as large as those by which the labels are drawn."""
    rng = np.random.default_rng(rows)
    logits = 2 * rng.normal(size=(rows, outputs))
    if problem_type == LABELS:
        labels = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.int64)
    else:
        labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return (temperature * logits).astype(np.float32), labels


def torch_temperature(logits: np.ndarray, labels: np.ndarray, problem_type: str) -> float:
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([scale], max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe")
    values, targets = torch.from_numpy(logits).double(), torch.from_numpy(labels)

    def closure():
        optimizer.zero_grad()
        loss = (torch.nn.functional.cross_entropy(values * scale, targets) if problem_type == CLASSES else
                torch.nn.functional.binary_cross_entropy_with_logits(values * scale, targets.double()))
        loss.backward()
        return loss

    optimizer.step(closure)
    return 1 / scale.item()


@pytest.mark.parametrize(("rows", "outputs", "problem_type"), [(20, 2, CLASSES), (500, 7, CLASSES), (90, 3, LABELS)])
@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_as_torch_finds_it(rows, outputs, problem_type, temperature):
    logits, labels = draw(rows, outputs, problem_type, temperature)
    found = fit_temperature(logits, labels, problem_type)
    assert found == pytest.approx(torch_temperature(logits, labels, problem_type), rel=1e-4)
    assert found == fit_temperature(logits, labels, problem_type)


@pytest.mark.parametrize("problem_type", [CLASSES, LABELS])
def test_the_temperature_that_was_applied(problem_type, monkeypatch):
    """Of 40,000 rows every tenth is enough: 4,000 tell the temperature to about 3 %."""
    logits, labels = draw(40_000, 3, problem_type, 2.5)
    assert fit_temperature(logits, labels, problem_type) == pytest.approx(2.5, rel=0.03)
    monkeypatch.setattr(calibration, "MOST_ROWS", 4_000)
    assert fit_temperature(logits, labels, problem_type) == pytest.approx(2.5, rel=0.1)


def test_where_there_is_nothing_to_fit():
    logits, labels = draw(30, 4, CLASSES, 1.0)
    assert fit_temperature(logits, logits.argmax(axis=1), CLASSES) == 1.0, "every answer is right"
    assert fit_temperature(logits, (logits > 0).astype(np.int64), LABELS) == 1.0
    assert fit_temperature(logits, logits, "regression") == 1.0
    assert fit_temperature(logits[:0], labels[:0], CLASSES) == 1.0


def test_answers_that_are_worth_nothing():
    """Wrong throughout: the probabilities become equal."""
    logits, _ = draw(30, 4, CLASSES, 1.0)
    assert fit_temperature(logits, logits.argmin(axis=1), CLASSES) == pytest.approx(100, rel=0.01)

"""Training on standardised targets: the steps of a plain head for (y - m) / s, and outputs like the targets."""

import copy

import numpy as np
import pytest
import torch
from windowed_models import KINDS, windowed_model

from dendritic_bert.training.standardised_targets import (
    measure_targets,
    squared_error,
    standardise_target_steps,
    start_at_targets,
)

STEPS, RATE = 30, 0.01
TARGETS = np.random.default_rng(0).normal([10_000.0, -0.2], [1_000.0, 0.001], (64, 2))


def test_the_scale_is_that_of_the_targets():
    scale = measure_targets(np.array([1.0, 3.0, 5.0], np.float32))
    assert scale.mean.tolist() == [3.0]
    assert scale.deviation.tolist() == pytest.approx([(8 / 3) ** 0.5])
    assert measure_targets(np.array([[7.0, 1.0], [7.0, 3.0]])).deviation.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("num_dendrites", "head_hidden"), [(0, None), (2, None), (0, 5), (2, 5)])
def test_the_steps_are_those_of_a_head_for_standardised_targets(num_dendrites, head_hidden):
    """Beside it, AdamW on a head whose outputs are (y - m) / s, everything in float64."""
    model = windowed_model(**KINDS["plain_gate"], num_dendrites=num_dendrites, num_labels=2, head_hidden=head_hidden,
                           problem_type="regression").double()
    scale = measure_targets(TARGETS)
    mean, deviation = (value.double() for value in scale)
    head, plain = model.classifier, copy.deepcopy(model.classifier)
    x = torch.randn(64, model.config.pooled_size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    start_at_targets(model, scale)
    torch.testing.assert_close(head(x), plain(x) * deviation + mean, rtol=1e-12, atol=0)
    ours, theirs = (torch.optim.AdamW(layer.parameters(), RATE, weight_decay=0.1) for layer in (head, plain))
    standardise_target_steps(ours, model, scale)
    targets = torch.from_numpy(TARGETS)
    for _ in range(STEPS):
        ours.zero_grad()
        theirs.zero_grad()
        output = type("Output", (), {"logits": head(x)})
        of_ours = squared_error(output, targets, scale=scale)
        of_theirs = ((plain(x) - (targets - mean) / deviation) ** 2).mean()
        torch.testing.assert_close(of_ours, of_theirs, rtol=1e-6, atol=0)
        of_ours.backward()
        of_theirs.backward()
        ours.step()
        theirs.step()
    # Float64, 30 steps; the deviation of the second target is 1e-3 beside its mean of 0.2.
    torch.testing.assert_close((head(x) - mean) / deviation, plain(x), rtol=1e-6, atol=1e-6)


def test_a_head_without_gradients_keeps_its_bits():
    model = windowed_model(**KINDS["plain_gate"], num_labels=2)
    before = model.classifier.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    standardise_target_steps(optimizer, model, measure_targets(TARGETS))
    optimizer.step()
    assert torch.equal(model.classifier.weight, before)

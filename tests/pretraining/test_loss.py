"""The loss against its formula, written out in numpy in float64."""

import numpy as np
import pytest
import torch
from transformers.modeling_outputs import SequenceClassifierOutput

from dendritic_bert.pretraining.loss import embedding_loss


def formula(ours: np.ndarray, theirs: np.ndarray, gram_weight: float) -> float:
    cosine = [a @ b / np.sqrt(a @ a * (b @ b)) for a, b in zip(ours, theirs)]
    squares = [(a @ b / np.sqrt(a @ a * (b @ b)) - c @ d / np.sqrt(c @ c * (d @ d)))**2
               for a, c in zip(ours, theirs) for b, d in zip(ours, theirs)]
    return 1 - np.mean(cosine) + gram_weight * np.mean(squares)


@pytest.mark.parametrize(("rows", "size"), [(1, 1), (2, 3), (7, 40), (33, 384)])
@pytest.mark.parametrize("gram_weight", [0.0, 5.0])
def test_the_formula(rows, size, gram_weight):
    generator = np.random.default_rng(rows)
    ours, theirs = (generator.normal(size=(rows, size)).astype(dtype) for dtype in (np.float32, np.float16))
    found = embedding_loss(SequenceClassifierOutput(logits=torch.from_numpy(ours)), torch.from_numpy(theirs),
                           gram_weight=gram_weight)
    # A cosine is a sum of ``size`` products, each a product of two quotients of a sum's root: every one of these
    # roundings is at most 2^-24 of a number that is at most 1, and the loss is a mean of such numbers.
    bound = (size + 8) * 2.0**-24 * (1 + 8 * gram_weight)
    assert float(found) == pytest.approx(formula(ours.astype(np.float64), theirs.astype(np.float64), gram_weight),
                                         abs=bound)


def test_the_gradient_is_that_of_the_formula():
    """Beside central differences of the formula in float64."""
    generator = np.random.default_rng(0)
    ours, theirs = generator.normal(size=(2, 3, 5))
    logits = torch.tensor(ours, dtype=torch.float32, requires_grad=True)
    embedding_loss(SequenceClassifierOutput(logits=logits), torch.tensor(theirs), gram_weight=5.0).backward()
    step = 1e-6
    for place in np.ndindex(ours.shape):
        higher, lower = ours.copy(), ours.copy()
        higher[place] += step
        lower[place] -= step
        expected = (formula(higher, theirs, 5.0) - formula(lower, theirs, 5.0)) / (2 * step)
        assert float(logits.grad[place]) == pytest.approx(expected, abs=1e-5)


def test_lengths_do_not_count():
    rows = torch.tensor([[3.0, 4.0], [1.0, -1.0]])
    output = SequenceClassifierOutput(logits=7 * rows)
    assert float(embedding_loss(output, rows, gram_weight=5.0)) == pytest.approx(0, abs=1e-6)

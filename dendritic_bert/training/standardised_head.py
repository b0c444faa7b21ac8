"""A head that learns as if its rows were centred and scaled, and is an ordinary head at every moment.

With the mean m and the deviation s of each pooled channel, the head V, c on (p - m) / s gives the logits of the head
W = V / s, b = c - W m on p. The model keeps W and b, so that checkpoints, scores and kernels know nothing of this; the
optimizer sees V and c: before each of its steps parameters and gradients are rewritten, and after it they are written
back. Adam's steps depend on the coordinates, so this is another training, not another model. Dropout keeps a channel's
mean in place of 0, which is what dropout on (p - m) / s does.

Where the labels are classes, V and c start as a logistic regression on the rows as the encoder gives them, and all is
trained from there: the gradients of a random head would first distort what the encoder has learnt (Kumar et al.,
Fine-Tuning Can Distort Pretrained Features and Underperform Out-of-Distribution, 2022).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..datasets.rows import EncodedRows, RowDataset
from ..model.dendritic_linear import DendriticLinear, dendritic_layers
from .losses import classes_and_weights

Collate = Callable[[list[dict[str, Any]]], dict[str, Tensor]]
MOST_ROWS = 4096  # are measured: the standard error of a mean is then 1/64 of the deviation
BATCH = 256
# Of the median deviation: a channel that hardly varies in a few rows is not blown up.
LEAST_DEVIATION = 0.1
# C of scikit-learn's LogisticRegression. On 8 rows of each of 4 classes 0.01 and 0.03 gave 72.9 and 72.0, on 8 rows of
# each of 150 classes 81.3 and 82.3.
INVERSE_REGULARISATION = 0.02


class PooledScale(NamedTuple):
    """The mean and the deviation of every pooled channel, ``[H + M]`` float32 each."""

    mean: Tensor
    deviation: Tensor


@torch.no_grad()
def pooled_rows(model: Any, rows: EncodedRows, collate: Collate) -> tuple[Tensor, np.ndarray]:
    """What the head of ``model`` reads without dropout of at most ``MOST_ROWS`` of ``rows``, at equal distances:
    ``[n, H + M]`` float32, and their places. The model is as before afterwards."""
    found: list[Tensor] = []
    data, was_training = RowDataset(rows), model.training
    places = np.linspace(0, len(data) - 1, min(len(data), MOST_ROWS)).round().astype(np.int64)
    # A head that is hooked is never part of a fused op, which would not call it.
    hook = model.classifier.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].float()))
    model.eval()
    try:
        for start in range(0, len(places), BATCH):
            batch = collate([data[place] for place in places[start:start + BATCH]])
            model(**{name: value.to(model.device) for name, value in batch.items() if name != "labels"})
    finally:
        hook.remove()
        model.train(was_training)
    return torch.cat(found), places


def measure(pooled: Tensor) -> PooledScale:
    """The scale of pooled rows ``[n, H + M]``."""
    deviation = pooled.std(dim=0, correction=0)
    return PooledScale(pooled.mean(dim=0), deviation.clamp_min((LEAST_DEVIATION * deviation.median()).clamp_min(1e-6)))


@contextmanager
def standardised_head(model: Any, rows: EncodedRows, collate: Collate, class_weight: str | None = None
                      ) -> Iterator[PooledScale]:
    """Start the head of ``model`` for standardised rows: as a logistic regression where it is one layer and the labels
    are classes, else as ``nn.Linear`` does. In the block, dropout on pooled rows puts the mean in the place of what it
    drops. Yields what ``standardise_steps`` takes. ``class_weight`` is that of scikit-learn."""
    pooled, places = pooled_rows(model, rows, collate)
    scale, p = measure(pooled), model.dropout.p
    labels = np.asarray(rows.labels)[places]
    with torch.no_grad():
        model.classifier.reset_parameters()
        if can_be_fitted(model, labels):
            _fit(model, (pooled - scale.mean) / scale.deviation, labels, class_weight)
        _write_back(first_layer(model), scale)

    def drop(_: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor | None:
        if not model.training:
            return None
        mean = scale.mean.to(inputs[0])
        return mean + F.dropout(inputs[0] - mean, p)

    model.dropout.p = 0.0
    hook = model.classifier.register_forward_pre_hook(drop)
    try:
        yield scale
    finally:
        hook.remove()
        model.dropout.p = p


def standardise_steps(optimizer: torch.optim.Optimizer, model: Any, scale: PooledScale) -> None:
    """Let every step of ``optimizer`` change the head of ``model`` as if it read standardised rows."""
    def standardise(layer: DendriticLinear) -> None:
        assert layer.weight.grad is not None
        assert layer.bias.grad is not None
        mean, deviation = (value.to(layer.weight) for value in scale)
        layer.bias.add_(layer.weight @ mean)
        layer.weight.mul_(deviation)
        layer.weight.grad = (layer.weight.grad - layer.bias.grad[:, None] * mean) / deviation

    rewrite_steps(optimizer, partial(first_layer, model), standardise, partial(_write_back, scale=scale))


def rewrite_steps(optimizer: torch.optim.Optimizer, find_layer: Callable[[], DendriticLinear],
                  before: Callable[[DendriticLinear], None], after: Callable[[DendriticLinear], None]) -> None:
    """Let ``before`` rewrite a layer and its gradients before every step of ``optimizer``, and ``after`` write it back.

    The layer is looked up each time, since a growing head gets new parameters; one without gradients keeps its bits.
    """
    def hook(rewrite: Callable[[DendriticLinear], None]) -> Callable[..., None]:
        @torch.no_grad()
        def run(*_: Any) -> None:
            layer = find_layer()
            if layer.weight.grad is not None and layer.bias.grad is not None:
                rewrite(layer)

        return run

    optimizer.register_step_pre_hook(hook(before))
    optimizer.register_step_post_hook(hook(after))


def can_be_fitted(model: Any, labels: np.ndarray) -> bool:
    """Whether the head is one layer, and the labels, with weights or without, are classes, of which there are two at
    least."""
    problem_type = model.config.problem_type
    classes, _ = classes_and_weights(labels, problem_type)
    is_single = problem_type in (None, "single_label_classification") and model.config.num_labels > 1
    return (is_single and not model.config.head_hidden and classes.ndim == 1 and classes.dtype.kind in "iu"
            and len(np.unique(classes)) > 1)


def logistic_regression(rows: Any, classes: np.ndarray, weights: np.ndarray | None, inverse_regularisation: float,
                        class_weight: str | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """scikit-learn's, from ``rows`` ``[n, F]``, which may be sparse, to ``classes`` ``[n]``, with the weights of the
    rows ``[n]`` or None: the classes that have rows ``[C]``, and for each the weights ``[C, F]`` and the bias ``[C]``
    of its logit."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    # Further than 100 iterations it would only come nearer to what the training leaves again. And what the labels are
    # was decided when they were read: many classes of few rows are no regression.
    with threadpool_limits(1, "blas"), warnings.catch_warnings():  # as in tfidf_baseline
        warnings.simplefilter("ignore", category=ConvergenceWarning)
        warnings.filterwarnings("ignore", "The number of unique classes is greater", UserWarning)
        regression = LogisticRegression(C=inverse_regularisation, class_weight=class_weight)
        found = regression.fit(rows, classes, sample_weight=weights)
    weight, bias = found.coef_, found.intercept_
    if len(found.classes_) == 2:  # one row of coefficients, for the difference of the two logits
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return found.classes_, weight, bias


def _fit(model: Any, pooled: Tensor, labels: np.ndarray, class_weight: str | None) -> None:
    """Make the main layer a logistic regression from ``pooled`` to ``labels``; a class without rows keeps its start."""
    layer = first_layer(model)
    found, weight, bias = logistic_regression(
        pooled.cpu().numpy().astype(np.float64), *classes_and_weights(labels, model.config.problem_type),
        INVERSE_REGULARISATION, class_weight)
    classes = torch.from_numpy(found.astype(np.int64)).to(layer.weight.device)
    layer.weight[classes] = torch.from_numpy(weight).to(layer.weight)
    layer.bias[classes] = torch.from_numpy(bias).to(layer.bias)


def first_layer(model: Any) -> DendriticLinear:
    """The layer that reads the pooled rows."""
    return next(iter(dendritic_layers(model.classifier).values()))


def _write_back(layer: DendriticLinear, scale: PooledScale) -> None:
    mean, deviation = (value.to(layer.weight) for value in scale)
    layer.weight.div_(deviation)
    layer.bias.sub_(layer.weight @ mean)

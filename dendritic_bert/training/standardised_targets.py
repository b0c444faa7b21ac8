"""Regressions that learn as if their targets were centred and scaled, and give the numbers of the rows at every moment.

Adam moves a parameter by about its rate in a step, whatever the gradient, so that outputs of thousands, or of
thousandths, are out of its reach. With the mean m and the deviation s of each target, the model keeps the last layer
W, b, T of its head and gives numbers like the targets; the optimizer sees W / s, (b - m) / s and T / s, which are those
of centred and scaled targets, and the loss is that of these: parameters and gradients are rewritten before each of its
steps, and written back after it, as those of ``standardised_head`` are.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..model.dendritic_linear import DendriticLinear, dendritic_layers
from .standardised_head import rewrite_steps


class TargetScale(NamedTuple):
    """The mean and the deviation of every target, ``[C]`` float32 each."""

    mean: Tensor
    deviation: Tensor


def measure_targets(labels: np.ndarray) -> TargetScale:
    """The scale of targets ``[n]`` or ``[n, C]``; one that does not vary is not scaled."""
    values = np.asarray(labels, np.float64).reshape(len(labels), -1)
    deviation = values.std(axis=0)
    deviation[deviation == 0] = 1
    return TargetScale(*(torch.from_numpy(number).float() for number in (values.mean(axis=0), deviation)))


def squared_error(output: Any, labels: Tensor, num_items_in_batch: Any = None, *, scale: TargetScale) -> Tensor:
    """The loss of a regression: the mean square of errors, each divided by the deviation of its target."""
    errors = output.logits - labels.to(output.logits).reshape(output.logits.shape)
    return (errors / scale.deviation.to(errors)).square().mean()


@torch.no_grad()
def start_at_targets(model: Any, scale: TargetScale) -> None:
    """Let the new head of ``model``, whose outputs lie around 0, give numbers like the targets."""
    _write_back(_last_layer(model), scale)


def standardise_target_steps(optimizer: torch.optim.Optimizer, model: Any, scale: TargetScale) -> None:
    """Let every step of ``optimizer`` change the head of ``model`` as if its targets were centred and scaled."""
    def standardise(layer: DendriticLinear) -> None:
        mean, deviation = (value.to(layer.weight) for value in scale)
        layer.bias[:len(mean)].sub_(mean)
        for parameter in _of_outputs(layer):
            parameter.div_(deviation)
        for gradient in _of_outputs(layer, gradients=True):
            gradient.mul_(deviation)

    rewrite_steps(optimizer, partial(_last_layer, model), standardise, partial(_write_back, scale=scale))


def _last_layer(model: Any) -> DendriticLinear:
    return list(dendritic_layers(model.classifier).values())[-1]


def _of_outputs(layer: DendriticLinear, gradients: bool = False) -> list[Tensor]:
    """The parameters of which an output is a sum, or their gradients, as views ``[..., C]``."""
    size, parameters = layer.out_features, [layer.weight, layer.bias, *([] if layer.top is None else [layer.top])]
    weight, bias, *top = (values.grad if gradients else values.data for values in parameters)
    return [weight[:size].T, bias[:size], *top]  # type: ignore[index, list-item]  # whose gradients are there


def _write_back(layer: DendriticLinear, scale: TargetScale) -> None:
    mean, deviation = (value.to(layer.weight) for value in scale)
    for parameter in _of_outputs(layer):
        parameter.mul_(deviation)
    layer.bias[:len(mean)].add_(mean)

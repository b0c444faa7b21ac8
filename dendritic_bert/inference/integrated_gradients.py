"""Integrated gradients of a dendritic head along the pooled row, and of a whole model along the words of a row.

Both follow Sundararajan, Taly and Yan 2017, "Axiomatic attribution for deep networks".

``mean_gradient`` serves where the pooled row is a sum over tokens. The head maps the pooled row p ``[H]`` to the logits
``[C]``; the pooled row of an empty text is 0. The mean gradient on the straight way from there,

    G = integral_0^1 d logits / d pooled (s p) ds        [C, H],        G p = logits(p) - logits(0),

gives each token a share in that difference, since p is a sum over tokens. For a head without dendrites G is its weight,
and nothing is approximated. Otherwise the integral is one of functions of the single number s: the inputs z of the
first layer's units move along straight lines, z(s) = b + s W p. Where the activation is relu, these functions have
steps, around which the intervals are halved until what is left of them does not count.

``path_shares`` serves where windows or a gate let tokens act on each other. All that is looked up for a part of the row
has a factor, and the share of a part is the integral of the logit's slope by its factor while all factors grow from 0
to 1 together. Each of the J * M * T dendrites of the windows may bend the logits on that way, so that the slopes have
some thousand steps, all of them small.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..kernels.reference import dendritic_cascade_ref, dendritic_linear_ref
from ..model.dendritic_linear import DendriticLinear, DendriticMLP

SMALLEST_INTERVAL = 2.0**-40  # an error of this times a step of the gradient stays, whatever the tolerance
INTERVALS = 32  # that are evaluated at a time, which bounds the memory
MOST_STEPS = 2000  # 95 were enough for the 428 units of relu of a head with a hidden layer and 150 labels


class Rule(NamedTuple):
    """How an interval is integrated.

    tolerance: what may be left of its error, as a share of what all shares in a logit add up to, without their signs.
    nodes: of Gauss-Legendre's rule; n are exact for polynomials of degree 2 n - 1.
    """

    tolerance: float
    nodes: int


HEAD_RULE = Rule(1e-8, 8)
# Where steps are everywhere, no rule of a higher order is nearer. For random weights of 5 layers of 32 dendrites, two
# labels and 2 to 60 tokens, the shares were off by up to 6e-4 of what they add up to, and their sum by up to 3e-4.
PATH_RULE = Rule(1e-4, 2)
PATH_ERROR = 1e-3  # of the sum of the magnitudes, by which the shares of a path may miss what they must add up to

# s and weights, both [I, n] -> the weighted sums [I, C, K] of the logits' slopes by the K inputs that move with s.
SumOfSlopes = Callable[[Tensor, Tensor], Tensor]


def mean_gradient(head: DendriticLinear | DendriticMLP, x: Tensor) -> Tensor:
    """``G [C, H]`` of the head at the pooled row that is the sum of ``x [T, H]``, in float64 on the CPU.

    ``x`` is what each token adds to the pooled row, in float64. The error of the shares ``G x_t`` is small beside the
    sum of their magnitudes.
    """
    with torch.inference_mode(False), torch.enable_grad():
        first = _Layer(head if isinstance(head, DendriticLinear) else head[0])
        of_tokens = x @ first.weight.T  # [T, (1 + N) * outputs]
        moves, sizes = of_tokens.sum(dim=0), of_tokens.abs().sum(dim=0)

        def along(s: Tensor, after: Callable[[Tensor], Tensor] = torch.clone) -> tuple[Tensor, Tensor]:
            outputs, slopes = first.slopes(first.bias + s.flatten()[:, None] * moves, after)
            return outputs, slopes.unflatten(0, s.shape)

        def logits(s: Tensor) -> Tensor:
            return head_logits(head, s[:, None] * x.sum(dim=0))

        def one_layer(s: Tensor, weights: Tensor) -> Tensor:
            return torch.einsum("in,inkc->ick", weights, along(s)[1])

        def two_layers(s: Tensor, weights: Tensor) -> Tensor:
            hidden, of_first = along(s, head[1])  # type: ignore[index]
            _, of_second = second.slopes(hidden @ second.weight.T + second.bias)
            of_hidden = torch.einsum("skc,kcm->scm", of_second, second.weight.unflatten(0, of_second.shape[1:]))
            of_hidden = weights[..., None, None] * of_hidden.unflatten(0, s.shape)
            return torch.einsum("incm,inkm->ickm", of_hidden, of_first).flatten(2)

        if not isinstance(head, DendriticLinear):
            second = _Layer(head[2])
            return _integral(two_layers, logits, moves, sizes, HEAD_RULE) @ first.weight
        weight, moves_of, sizes_of = (
            values.unflatten(0, (first.rows, -1)).transpose(0, 1) for values in (first.weight, moves, sizes))
        return (_integral(one_layer, logits, moves_of, sizes_of, HEAD_RULE)[:, None] @ weight)[:, 0]


def path_shares(logits: Callable[[Tensor], Tensor], parts: int, rows: int) -> Tensor:
    """The share of every part of a row in each logit, ``[parts, C]`` float64.

    ``logits`` maps float64 factors ``[S, parts]`` of the parts to the logits ``[S, C]``, for up to ``rows`` rows S at a
    time. The shares add up to the logits where all factors are 1 minus those where all are 0, to within 1e-3 of the sum
    of their magnitudes.
    """
    def together(s: Tensor) -> Tensor:
        return torch.cat([logits(some[:, None].repeat(1, parts)).detach() for some in s.split(rows)])

    def slopes(s: Tensor, weights: Tensor) -> Tensor:
        every = torch.cat([_jacobians(logits, some[:, None].repeat(1, parts)) for some in s.flatten().split(rows)])
        return torch.einsum("in,inck->ick", weights, every.unflatten(0, s.shape))

    with torch.inference_mode(False), torch.enable_grad():
        ones = torch.ones(parts, dtype=torch.float64)
        at_zeros, at_ones = together(torch.tensor([0.0, 1.0], dtype=torch.float64))
        rule, missing = PATH_RULE, True
        while missing and rule.tolerance > HEAD_RULE.tolerance:  # errors of one sign add up in one of some hundred rows
            shares = _integral(slopes, together, ones, ones, rule).T
            error = (shares.sum(dim=0) - (at_ones - at_zeros)).abs()
            missing = bool((error > PATH_ERROR / 2 * shares.abs().sum(dim=0)).any())
            rule = rule._replace(tolerance=rule.tolerance / 10)
        return shares


def _jacobians(logits: Callable[[Tensor], Tensor], factors: Tensor) -> Tensor:
    """The slopes ``[S, C, parts]`` of the logits ``[S, C]`` of each row by its factors ``[S, parts]``.

    There is a backward pass for each label, or for each part where there are fewer of those.
    """
    factors = factors.requires_grad_()
    values = logits(factors)
    if values.shape[1] <= factors.shape[1]:
        sums = values.sum(dim=0)
        return torch.stack([torch.autograd.grad(total, factors, retain_graph=True)[0] for total in sums], dim=1)
    # The slopes are linear in the weights of the logits, so that their own gradient holds a part's slope of each label.
    weights = torch.ones_like(values, requires_grad=True)
    sums = torch.autograd.grad(values, factors, weights, create_graph=True)[0].sum(dim=0)
    return torch.stack([torch.autograd.grad(total, weights, retain_graph=True)[0] for total in sums], dim=2)


def head_logits(head: DendriticLinear | DendriticMLP, pooled: Tensor) -> Tensor:
    """The logits ``[..., C]`` of float64 ``pooled [..., H]``, in float64."""
    if isinstance(head, DendriticLinear):
        return _Layer(head)(pooled)
    return _Layer(head[2])(head[1](_Layer(head[0])(pooled)))


class _Layer:
    """A dendritic layer in float64 on the CPU; ``rows`` is 1 + N."""

    def __init__(self, layer: Any) -> None:
        values: list[Any] = [None if value is None else value.detach().to("cpu", torch.float64, copy=True)
                             for value in (layer.weight, layer.bias, layer.lateral, layer.top)]
        self.weight, self.bias, self.lateral, self.top = values
        self.rows, self.activation = 1 + layer.num_dendrites, layer.activation

    def __call__(self, x: Tensor) -> Tensor:
        return dendritic_linear_ref(x, self.weight, self.bias, self.lateral, self.top, self.activation)

    def slopes(self, z: Tensor, after: Callable[[Tensor], Tensor] = torch.clone) -> tuple[Tensor, Tensor]:
        """The outputs ``[S, C]``, after an elementwise function, and their slopes by their own units' inputs
        ``z [S, (1 + N) * C]``, as ``[S, 1 + N, C]``.

        The units of one output feed no other, so that the slopes of the sum of all outputs are those of each.
        """
        z = z.detach().unflatten(1, (self.rows, -1)).requires_grad_()
        outputs = after(dendritic_cascade_ref(z.unbind(1), self.lateral, self.top, self.activation))
        return outputs.detach(), torch.autograd.grad(outputs.sum(), z)[0]


def _integral(sum_of_slopes: SumOfSlopes, logits: Callable[[Tensor], Tensor], moves: Tensor, sizes: Tensor,
              rule: Rule) -> Tensor:
    """The integral ``[C, K]`` of the slopes over s from 0 to 1; ``logits`` maps s ``[S]`` to ``[S, C]``.

    ``moves`` is how far each input moves, ``sizes`` the sum of what the tokens move it by, without signs; both are
    ``[C, K]`` or, if they are the same for all labels, ``[K]``. An interval is halved until halving it once more
    changes no share by more than the tolerance, and until the slopes times ``moves`` give the difference of the logits
    at its ends. The second condition finds a step so narrow that no node meets it.
    """
    nodes, weights = (torch.from_numpy(values) / 2 for values in np.polynomial.legendre.leggauss(rule.nodes))
    nodes = nodes + 0.5

    def on(starts: Tensor, widths: Tensor) -> Tensor:  # [I], [I] -> [I, C, K]
        return sum_of_slopes(starts[:, None] + widths[:, None] * nodes, widths[:, None] * weights)

    starts, widths = torch.arange(4, dtype=torch.float64) / 4, torch.full((4,), 0.25, dtype=torch.float64)
    coarse = on(starts, widths)
    largest = logits(torch.tensor([0.0, 1.0], dtype=torch.float64)).abs().amax(dim=0)
    # The logits are rounded, so that their differences cannot be told from 0 below 1e-13 of them.
    tolerance = rule.tolerance * (coarse.abs().sum(dim=0) * sizes).sum(dim=-1) + 1e-13 * largest  # [C]
    total = torch.zeros_like(coarse[0])
    for _ in range(MOST_STEPS):
        if not len(starts):
            break
        (starts, start), (widths, width), (coarse, old) = (
            (values[:-INTERVALS], values[-INTERVALS:]) for values in (starts, widths, coarse))
        middle, half = start + width / 2, width / 2
        left, right = on(start, half), on(middle, half)
        new = left + right
        differences = logits(start + width) - logits(start)
        errors = ((new - old) * sizes).abs().sum(dim=-1) + ((new * moves).sum(dim=-1) - differences).abs()
        is_done = (errors <= tolerance).all(dim=-1) | (width <= SMALLEST_INTERVAL)
        total += new[is_done].sum(dim=0)
        starts = torch.cat([starts, start[~is_done], middle[~is_done]])
        widths = torch.cat([widths, half[~is_done], half[~is_done]])
        coarse = torch.cat([coarse, left[~is_done], right[~is_done]])
    # What is left after so many steps belongs to weights so large that the logits themselves are rounded by more than
    # the tolerance.
    return total + coarse.sum(dim=0)

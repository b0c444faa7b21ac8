"""The dendritic layer: a linear layer whose every output has N small neighbours that feed it.

    y      = A x + b
    a_k    = f(A_k x + b_k + sum_{j<k} D_kj * a_j)       k = 0..N-1
    output = y + sum_k T_k * a_k

This is what a ``torch.nn.Linear`` wrapped by PerforatedAI (open-source gradient-descent mode) computes, bit for bit.
"""

import math

import torch
from torch import Tensor, nn

from .kernels.reference import ACTIVATIONS, dendritic_linear_ref

NEW_DENDRITE_STD = 0.01  # PerforatedAI's: every parameter of a new dendrite is drawn as randn * 0.01


class DendriticLinear(nn.Module):
    """``nn.Linear`` with ``num_dendrites`` dendrites for each of its C = ``out_features`` outputs.

    Parameters, with N = ``num_dendrites`` and H = ``in_features``:
        weight ``[(1 + N) * C, H]``, bias ``[(1 + N) * C]``: the main layer's rows, then dendrite 0, 1, ...
        lateral ``[N, N, C]``: entry ``[k, j]`` feeds dendrite j into dendrite k; only j < k is read.
        top ``[N, C]``: dendrites into the output.
    ``lateral`` and ``top`` are None where N is 0, so that the checkpoint of an ``nn.Linear`` loads as it is; where N is
    1 nothing reads ``lateral``, and it is a buffer: DDP stops at a parameter that never gets a gradient.

    Raises ValueError for a negative ``num_dendrites`` or an unknown ``activation``.
    """

    lateral: Tensor | None
    top: nn.Parameter | None

    def __init__(
        self, in_features: int, out_features: int, num_dendrites: int = 0, activation: str = "sigmoid"
    ) -> None:
        super().__init__()
        if num_dendrites < 0:
            raise ValueError(f"num_dendrites is {num_dendrites}, expected 0 or more.")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation is {activation!r}, expected one of {', '.join(ACTIVATIONS)}.")
        self.in_features, self.out_features = in_features, out_features
        self.num_dendrites, self.activation = num_dendrites, activation
        rows = (1 + num_dendrites) * out_features
        self.weight = nn.Parameter(torch.empty(rows, in_features))
        self.bias = nn.Parameter(torch.empty(rows))
        lateral = torch.empty(num_dendrites, num_dendrites, out_features)
        if num_dendrites == 1:
            self.register_buffer("lateral", lateral)
        else:
            self.register_parameter("lateral", nn.Parameter(lateral) if num_dendrites else None)
        top = nn.Parameter(torch.empty(num_dendrites, out_features)) if num_dendrites else None
        self.register_parameter("top", top)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, std: float | None = None) -> None:
        """Draw the main layer as ``nn.Linear`` does, or N(0, std) with a bias of 0; dendrites as PerforatedAI does.

        ``lateral`` and ``top`` start at 0: at first the layer computes exactly what its main layer does.
        """
        main_weight, main_bias = self.weight[: self.out_features], self.bias[: self.out_features]
        self.weight.normal_(std=NEW_DENDRITE_STD)
        self.bias.normal_(std=NEW_DENDRITE_STD)
        if std is None:
            bound = 1 / math.sqrt(self.in_features)
            main_weight.uniform_(-bound, bound)
            main_bias.uniform_(-bound, bound)
        else:
            main_weight.normal_(std=std)
            main_bias.zero_()
        if self.lateral is not None and self.top is not None:
            self.lateral.zero_()
            self.top.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """``[..., H]`` -> ``[..., C]``."""
        return dendritic_linear_ref(x, self.weight, self.bias, self.lateral, self.top, self.activation)

    def num_live_parameters(self) -> int:
        """Parameters that can change the output: of ``lateral`` only the entries with j < k."""
        pairs = self.num_dendrites * (self.num_dendrites - 1) // 2
        return self.weight.numel() + self.bias.numel() + (pairs + self.num_dendrites) * self.out_features

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"num_dendrites={self.num_dendrites}, activation={self.activation!r}"
        )

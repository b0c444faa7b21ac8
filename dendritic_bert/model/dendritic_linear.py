"""The dendritic layer: a linear layer with N dendrites, small linear units, that feed each of its outputs.

    y      = A x + b
    a_k    = f(A_k x + b_k + sum_{j<k} D_kj * a_j)       k = 0..N-1
    output = y + sum_k T_k * a_k

A ``torch.nn.Linear`` that PerforatedAI has wrapped (open-source gradient-descent mode) computes the same, bit for bit.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..kernels.contract import ACTIVATIONS
from ..kernels.reference import dendritic_linear_ref

NEW_DENDRITE_STD = 0.01  # as in PerforatedAI, which draws every parameter of a new dendrite as randn * 0.01


class DendriticLinear(nn.Module):
    """``nn.Linear`` with ``num_dendrites`` dendrites for each of its C = ``out_features`` outputs.

    Parameters, with N = ``num_dendrites`` and H = ``in_features``:
        weight ``[(1 + N) * C, H]``, bias ``[(1 + N) * C]``: the rows of the main layer, then of dendrite 0, 1, ...
        lateral ``[N, N, C]``: entry ``[k, j]`` feeds dendrite j into dendrite k; only entries with j < k are read.
        top ``[N, C]``: feeds the dendrites into the output.
    If N is 0, ``lateral`` and ``top`` are None, so that the checkpoint of an ``nn.Linear`` can be loaded as it is. If N
    is 1, ``lateral`` is never read and is a buffer, because DDP fails for a parameter that never gets a gradient.

    Raises ValueError for a negative ``num_dendrites`` or an unknown ``activation``.
    """

    num_dendrites: int
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
        self.in_features, self.out_features, self.activation = in_features, out_features, activation
        rows, size = (1 + num_dendrites) * out_features, (num_dendrites, out_features)
        self._set(torch.empty(rows, in_features), torch.empty(rows), torch.empty(num_dendrites, *size),
                  torch.empty(size))
        self.reset_parameters()

    def _set(self, weight: Tensor, bias: Tensor, lateral: Tensor, top: Tensor) -> None:
        """Become a layer with as many dendrites as ``top`` has rows; every parameter is replaced by a new one."""
        for name in ("weight", "bias", "lateral", "top"):
            self._parameters.pop(name, None)
            self._buffers.pop(name, None)
        self.num_dendrites = top.shape[0]
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        if self.num_dendrites == 1:
            self.register_buffer("lateral", lateral)
        else:
            self.register_parameter("lateral", nn.Parameter(lateral) if self.num_dendrites else None)
        self.register_parameter("top", nn.Parameter(top) if self.num_dendrites else None)

    @torch.no_grad()
    def reset_parameters(self, std: float | None = None) -> None:
        """Draw the main layer as ``nn.Linear`` does, or from N(0, std) with a bias of 0.

        Dendrites are drawn as PerforatedAI draws them. ``lateral`` and ``top`` are set to 0, so that the layer computes
        exactly what its main layer does.
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

    def add_dendrite(self) -> None:
        """Grow one dendrite for each output, without changing the output of the layer by a bit.

        The weights of the dendrite are drawn as PerforatedAI draws them; its entries of ``lateral`` and ``top`` are 0.
        Every parameter is a new tensor, so that an optimizer or a DDP wrapper, which holds the old ones, must be made
        again.
        """
        self.resize(self.num_dendrites + 1)

    @torch.no_grad()
    def resize(self, num_dendrites: int) -> None:
        """Keep the oldest ``num_dendrites``, or grow until there are that many (see ``add_dendrite``)."""
        kept = min(num_dendrites, self.num_dendrites)
        rows = (1 + kept) * self.out_features
        weights, biases = [self.weight[:rows]], [self.bias[:rows]]
        for _ in range(kept, num_dendrites):
            # Drawn on the CPU and one by one, so that a seed gives the numbers of PerforatedAI on every device.
            for parts, shape in ((weights, (self.out_features, self.in_features)), (biases, (self.out_features,))):
                parts.append((NEW_DENDRITE_STD * torch.randn(shape, dtype=parts[0].dtype)).to(parts[0].device))
        lateral = self.weight.new_zeros(num_dendrites, num_dendrites, self.out_features)
        top = self.weight.new_zeros(num_dendrites, self.out_features)
        if self.lateral is not None and self.top is not None:
            lateral[:kept, :kept], top[:kept] = self.lateral[:kept, :kept], self.top[:kept]
        self._set(torch.cat(weights), torch.cat(biases), lateral, top)

    @torch.no_grad()
    def set_outputs(self, sources: Sequence[int | None]) -> None:
        """Become a layer whose output i computes what output ``sources[i]`` did; None stands for an output that is
        drawn as ``reset_parameters`` draws it. Every parameter is a new tensor, as after ``add_dendrite``."""
        new = DendriticLinear(self.in_features, len(sources), self.num_dendrites, self.activation)
        size = self.out_features
        for number, source in enumerate(sources):
            if source is None:
                continue
            for name in ("weight", "bias"):
                getattr(new, name)[number::len(sources)] = getattr(self, name)[source::size]
            for name in ("lateral", "top"):
                if getattr(self, name) is not None:
                    getattr(new, name)[..., number] = getattr(self, name)[..., source]
        self.out_features = new.out_features
        lateral = self.weight.new_zeros(0) if new.lateral is None else new.lateral
        top = self.weight.new_zeros(0, new.out_features) if new.top is None else new.top
        self._set(new.weight.detach(), new.bias.detach(), lateral.detach(), top.detach())

    def forward(self, x: Tensor) -> Tensor:
        """``[..., H]`` -> ``[..., C]``."""
        return dendritic_linear_ref(x, self.weight, self.bias, self.lateral, self.top, self.activation)

    def num_live_parameters(self) -> int:
        """The number of parameters that can change the output; of ``lateral`` these are the entries with j < k."""
        pairs = self.num_dendrites * (self.num_dendrites - 1) // 2
        return self.weight.numel() + self.bias.numel() + (pairs + self.num_dendrites) * self.out_features

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"num_dendrites={self.num_dendrites}, activation={self.activation!r}"
        )


class DendriticMLP(nn.Sequential):
    """Two dendritic layers with an activation between them, as PerforatedAI grows them if both are perforated."""

    def __init__(
        self, in_features: int, hidden_size: int, out_features: int, num_dendrites: int = 0,
        activation: str = "sigmoid", hidden_activation: nn.Module | None = None,
    ) -> None:
        super().__init__(
            DendriticLinear(in_features, hidden_size, num_dendrites, activation),
            nn.GELU() if hidden_activation is None else hidden_activation,
            DendriticLinear(hidden_size, out_features, num_dendrites, activation),
        )

    def reset_parameters(self, std: float | None = None) -> None:
        """See ``DendriticLinear.reset_parameters``."""
        for layer in dendritic_layers(self).values():
            layer.reset_parameters(std)

    def num_live_parameters(self) -> int:
        """The number of parameters that can change the output."""
        return sum(layer.num_live_parameters() for layer in dendritic_layers(self).values())


def dendritic_layers(module: nn.Module) -> dict[str, DendriticLinear]:
    """The dendritic layers in ``module`` by their names; ``module`` itself, if it is one, has the name ''."""
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, DendriticLinear)}


def resize_dendrites(module: nn.Module, num_dendrites: int) -> None:
    """Give every dendritic layer in ``module`` this many dendrites (see ``DendriticLinear.resize``), and note the
    number in the ``config`` of ``module`` if it has one."""
    for layer in dendritic_layers(module).values():
        layer.resize(num_dendrites)
    config: Any = getattr(module, "config", None)
    if config is not None:
        config.num_dendrites = num_dendrites

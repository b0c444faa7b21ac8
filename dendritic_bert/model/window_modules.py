"""What stands between the embeddings of a DSN and its pooling: dendrites on windows of tokens, and the gate.

``kernels.reference`` has the formulas. The modules hold the parameters; they are called where ``ops.window_pool`` does
not serve, as for hidden states and hooks.
"""

import math

import torch
from torch import Tensor, nn

from ..kernels.reference import window_layers_ref
from ..kernels.validation import seed_tensor
from .configuration import DendriticBertConfig


class WindowDendrites(nn.Module):
    """J layers of M dendrites on windows of 2 * radius + 1 tokens, those of layer j 2^j columns apart.

    input_weight ``[R, H, M]`` is that of layer 0 and weight ``[J - 1, R, M, M]`` that of the others; the entry of tap k
    is multiplied by the row vector of the token at offset k - radius. bias is ``[J, M]``.
    """

    def __init__(self, config: DendriticBertConfig) -> None:
        super().__init__()
        layers, dendrites, taps = config.window_layers, config.window_dendrites, 2 * config.window_radius + 1
        self.input_weight = nn.Parameter(torch.empty(taps, config.hidden_size, dendrites))
        self.weight = nn.Parameter(torch.empty(layers - 1, taps, dendrites, dendrites))
        self.bias = nn.Parameter(torch.zeros(layers, dendrites))
        self.dropout = nn.Dropout(config.window_dropout_prob)

    def forward(self, x: Tensor, row: Tensor, column: Tensor, attention_mask: Tensor | None) -> Tensor:
        """``x [..., H]``, which is 0 at tokens that are not valid -> ``[..., M]``, 0 there too. ``row`` and ``column``
        are those of ``reference.token_places``."""
        p = self.dropout.p if self.dropout.training else 0.0
        seed = seed_tensor(None, x.device) if p > 0 else None
        weights = (weight.to(x.dtype) for weight in self.weights())
        return window_layers_ref(x, row, column, attention_mask, *weights, p, seed)

    def weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """The parameters in the order in which the ops take them."""
        return self.input_weight, self.weight, self.bias

    def initial_std(self) -> tuple[float, float]:
        """The standard deviations of input_weight and of weight in a new model: He et al. 2015 for ReLU, and for the
        layers that add to the one before, that over the root of J, so that J of them add as much as one."""
        taps, hidden_size, dendrites = self.input_weight.shape
        return math.sqrt(2 / (taps * hidden_size)), math.sqrt(2 / (taps * dendrites * self.bias.shape[0]))

    def extra_repr(self) -> str:
        taps, hidden_size, dendrites = self.input_weight.shape
        return f"in_features={hidden_size}, dendrites={dendrites}, layers={self.bias.shape[0]}, taps={taps}"


class TokenGate(nn.Module):
    """The logit of every token's weight in the mean: weight ``[H + M]`` times the token's row, plus the entry of its id
    in word_bias ``[V]``. Zeros are a plain mean."""

    def __init__(self, config: DendriticBertConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(config.pooled_size))
        self.word_bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, h: Tensor, input_ids: Tensor) -> Tensor:
        """The rows ``h [..., H + M]`` and ids ``[...]`` -> ``[...]``."""
        return h @ self.weight.to(h.dtype) + self.word_bias.to(h.dtype)[input_ids.long()]


def no_windows(config: DendriticBertConfig, words: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The parameters of no window layers, as the ops take them, beside the word table ``words [V, H]``."""
    taps = 2 * config.window_radius + 1
    return words.new_empty(taps, words.shape[1], 0), words.new_empty(0, taps, 0, 0), words.new_empty(0, 0)

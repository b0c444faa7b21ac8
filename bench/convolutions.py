"""What ``ops.window_pool`` computes, as one would write it with torch's own convolution, and parameters for it."""

import torch
import torch.nn.functional as F
from torch import Tensor
from workload import SEED, SMALL

WORDS = 500 if SMALL else 9600
HIDDEN_SIZE, DENDRITES, LAYERS, RADIUS, LABELS = 32, 32, 5, 1, 2


def make_parameters() -> tuple[Tensor, ...]:
    """Those of ``ops.window_pool`` without LayerNorm, and the head's weight and bias."""
    rng = torch.Generator().manual_seed(SEED)
    taps = 2 * RADIUS + 1
    shapes_and_scales = (
        ((WORDS, HIDDEN_SIZE), 1.0), ((1, HIDDEN_SIZE), 0.3), ((taps, HIDDEN_SIZE, DENDRITES), 0.1),
        ((LAYERS - 1, taps, DENDRITES, DENDRITES), 0.1), ((LAYERS, DENDRITES), 0.1), ((HIDDEN_SIZE + DENDRITES,), 0.1),
        ((WORDS,), 0.5), ((LABELS, HIDDEN_SIZE + DENDRITES), 0.1), ((LABELS,), 0.1))
    return tuple(scale * torch.randn(shape, generator=rng) for shape, scale in shapes_and_scales)


def convolution_pool(input_ids: Tensor, attention_mask: Tensor, word: Tensor, token_type: Tensor, input_weight: Tensor,
                     weight: Tensor, bias: Tensor, gate_weight: Tensor, gate_bias: Tensor) -> Tensor:
    """Padded rows to pooled ones, ``[B, H + M]``."""
    mask = attention_mask[:, None].to(word.dtype)
    x = F.embedding(input_ids, word + token_type).transpose(1, 2) * mask
    u = F.conv1d(x, input_weight.permute(2, 1, 0), bias[0], padding=RADIUS).relu() * mask
    for layer in range(1, LAYERS):
        reach = 2**layer
        u = (u + F.conv1d(u, weight[layer - 1].permute(2, 1, 0), bias[layer], padding=RADIUS * reach,
                          dilation=reach).relu()) * mask
    h = torch.cat([x, u], dim=1)
    gate = (torch.einsum("bhl,h->bl", h, gate_weight) + gate_bias[input_ids]).clamp(-8, 8).exp() * mask[:, 0]
    return torch.einsum("bhl,bl->bh", h, gate) / gate.sum(dim=1, keepdim=True)

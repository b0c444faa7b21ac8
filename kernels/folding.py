"""The head folded into the tables: inference whose cost does not depend on the hidden size.

The logits' linear part changes places with the sum over tokens, since both are linear:

    A (sum_t r_t (w_t + q_t)) = sum_t r_t (A w_t + A q_t)

so a token needs its rows of ``A W`` and ``A Q``, [(1 + N) * C] floats instead of [H], and the LayerNorm's factor

    r = 1 / sqrt(|w + q|^2 / H + eps),    |w + q|^2 = |w|^2 + |q|^2 + 2 <w, q>

which is a function of id, type and position alone: one matrix product tabulates it. Exact up to rounding, and
computed in float64. What the tables cost is a float for each id and position; at 64 positions of BERT's vocabulary
that is 7.8 MB, half of the word table at H = 128.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .weights import DsnHead, DsnTable

# Positions of an id that share a cache line. Tile by tile a batch of short rows touches the first tiles alone.
POSITION_TILE = 16


class FoldedDsn(NamedTuple):
    """Tables of ``dsn_logits_folded``; all float32, S the number of outputs (1 + N) * C padded by ``padded_outputs``.

    rstd: ``[K, P' / 16, V, 16]``, LayerNorm's factor of id v at position p and type k is ``[k, p // 16, v, p % 16]``.
    word: ``[V, S]`` and context: ``[K, P', S]``, centred rows times the head's matrix. P' is num_positions rounded up
    to a multiple of 16; later positions are no part of the model. The others are those of ``DsnHead``.
    """

    rstd: Tensor
    word: Tensor
    context: Tensor
    num_positions: int
    bias: Tensor
    beta_bias: Tensor
    lateral: Tensor
    top: Tensor
    activation: str


def padded_outputs(outputs: int) -> int:
    """Floats in a row: 4, 8 or a multiple of 16, so that the kernel loads whole vectors."""
    return next((size for size in (4, 8) if outputs <= size), math.ceil(outputs / 16) * 16)


def fold(table: DsnTable, head: DsnHead, num_positions: int | None = None, num_types: int | None = None) -> FoldedDsn:
    """Fold ``head`` into ``table`` for the first ``num_positions`` positions and ``num_types`` types (default all).

    An entry is the same to the bit however many are asked for. Raises ValueError where more are asked for than there
    are.
    """
    types, positions, hidden_size = table.context.shape
    num_types = types if num_types is None else num_types
    num_positions = positions if num_positions is None else num_positions
    if not 1 <= num_types <= types or not 0 <= num_positions <= positions:
        raise ValueError(f"num_types is {num_types} and num_positions {num_positions}, the context table has {types} "
                         f"types and {positions} positions.")
    words = table.word.double()
    if table.word_scale is not None:
        words *= table.word_scale.double()[:, None]
    tiles = math.ceil(num_positions / POSITION_TILE)
    context = words.new_zeros(num_types, tiles * POSITION_TILE, hidden_size)
    context[:, :num_positions] = table.context[:num_types, :num_positions]
    rstd = torch.empty(num_types, tiles, words.shape[0], POSITION_TILE, device=words.device)
    for tile, contexts in zip(rstd.flatten(0, 1), context.view(num_types * tiles, POSITION_TILE, hidden_size)):
        tile.copy_((_squared_norms(words, contexts) / hidden_size + table.eps).rsqrt())
    outputs = head.weight.shape[0]
    weight = words.new_zeros(padded_outputs(outputs), hidden_size)
    weight[:outputs] = head.weight
    return FoldedDsn(rstd, (words @ weight.T).float(), (context @ weight.T).float(), num_positions, head.bias,
                     head.beta_bias, head.lateral, head.top, head.activation)


def _squared_norms(words: Tensor, contexts: Tensor) -> Tensor:
    """``|w + q|^2`` of ``[V, H]`` and ``[P, H]``, float64 -> ``[V, P]``."""
    words_squared, contexts_squared = words.square().sum(dim=1, keepdim=True), contexts.square().sum(dim=1)
    sizes = words_squared + contexts_squared
    squares = torch.addmm(sizes, words, contexts.T, alpha=2)
    # Where w and q nearly cancel, so do the three terms; below 1e-6 of their size, take the norm of the sum itself.
    ids, places = (squares < 1e-6 * sizes).nonzero(as_tuple=True)
    squares[ids, places] = (words[ids] + contexts[places]).square().sum(dim=1)
    return squares

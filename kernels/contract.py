"""What every backend agrees on: poolings, activations, dtypes, and the tables and heads that the ops read.

This module imports none of the others, so that each of them may import it.
"""

import enum
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

POOLINGS = ("mean_masked", "mean_all", "sum_all")
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "gelu": F.gelu,
}


# The kernels know a pooling and an activation by its place in the list: csrc/*/arguments.h names them in this order.
POOLING_CODES = {name: code for code, name in enumerate(POOLINGS)}
ACTIVATION_CODES = {name: code for code, name in enumerate(ACTIVATIONS)}


class WordGrad(enum.IntEnum):
    """How the backward pass of ``embed_pool`` returns the word table's gradient."""

    NONE = 0
    DENSE = 1
    SPARSE = 2


# Of parameters, and of prepared word tables. Kernels read these; float64 is read by the reference alone.
PARAMETER_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
TABLE_DTYPES = (*PARAMETER_DTYPES, torch.int8, torch.float8_e4m3fn)
# Stored with one float32 scale a row, max|row| / the largest magnitude that the format is used for.
ROW_SCALED = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
# Of attention masks. Kernels read these as they are.
MASK_DTYPES = (torch.bool, torch.uint8, torch.int8, torch.int32, torch.int64)


class Tokens(NamedTuple):
    """The tokens of a call: ``[B, L]`` with an optional mask, or ``[T]`` beside ``cu_seqlens [B + 1]``."""

    input_ids: Tensor
    attention_mask: Tensor | None = None
    cu_seqlens: Tensor | None = None
    token_type_ids: Tensor | None = None
    position_ids: Tensor | None = None


class DsnTable(NamedTuple):
    """The embedding tables, every row centred.

    word: ``[V, H]`` float32, bfloat16, float16, int8 or float8_e4m3fn. word_scale: ``[V]`` float32, only beside the
    last two. context: ``[K, P, H]`` float32, position plus token type. eps: LayerNorm's epsilon.
    Everything may be float64 instead, and the head's tensors with it: the reference serves that.
    """

    word: Tensor
    word_scale: Tensor | None
    context: Tensor
    eps: float


class DsnHead(NamedTuple):
    """The dendritic head with LayerNorm's gamma and beta folded in; all float32, or all float64 as its table.

    weight: ``[(1 + N) * C, H]``, rows of the main layer first, then of dendrite 0, 1, ...
    bias: ``[(1 + N) * C]``, what an empty row gets. beta_bias: ``[(1 + N) * C]``, added once for each unit of beta
    in the pooled row. lateral: ``[N, N, C]``, entry ``[k, j]`` (j < k) feeds dendrite j into dendrite k.
    top: ``[N, C]``, dendrites into the logits. activation: one of ``ACTIVATIONS``.
    """

    weight: Tensor
    bias: Tensor
    beta_bias: Tensor
    lateral: Tensor
    top: Tensor
    activation: str


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

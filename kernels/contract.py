"""What every backend agrees on: poolings, activations, dtypes, and the tables and heads that the ops read.

This module imports none of the others, so that each of them can import it. The names that csrc/*/arguments.h gives to
the same things are compared with these by tests/kernels/test_contract.py.
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


# The operators take a pooling and an activation as its place in the list.
POOLING_CODES = {name: code for code, name in enumerate(POOLINGS)}
ACTIVATION_CODES = {name: code for code, name in enumerate(ACTIVATIONS)}


class WordGrad(enum.IntEnum):
    """How the backward pass of ``embed_pool`` returns the word table's gradient."""

    NONE = 0
    DENSE = 1
    SPARSE = 2


# The dtypes of parameters, and of prepared word tables, that kernels read. The reference reads float64 too.
PARAMETER_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
TABLE_DTYPES = (*PARAMETER_DTYPES, torch.int8, torch.float8_e4m3fn)
# The dtypes of word tables that have one float32 scale per row, with the magnitude that the largest of a row becomes.
ROW_SCALED = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
# The dtypes of attention masks that kernels read. ops converts any other.
MASK_DTYPES = (torch.bool, torch.uint8, torch.int8, torch.int32, torch.int64)


class Tokens(NamedTuple):
    """The tokens of a call: ``[B, L]`` with an optional mask, or ``[T]`` beside ``cu_seqlens [B + 1]``.

    ``ops.embed_pool`` describes each.
    """

    input_ids: Tensor
    attention_mask: Tensor | None = None
    cu_seqlens: Tensor | None = None
    token_type_ids: Tensor | None = None
    position_ids: Tensor | None = None


class DsnTable(NamedTuple):
    """The full-width embedding tables, every row centred; made by ``prepare.prepare_table``.

    word: ``[V, H]``, one of ``TABLE_DTYPES``.
    word_scale: ``[V]`` float32 beside an int8 or float8_e4m3fn word table, else None.
    context: ``[K, P, H]`` float32, the sum of a token type's row and a position's.
    eps: LayerNorm's epsilon.
    All of them may be float64 instead, and the head's tensors with them, which the reference alone serves.
    """

    word: Tensor
    word_scale: Tensor | None
    context: Tensor
    eps: float


class DsnHead(NamedTuple):
    """The dendritic head with LayerNorm's gamma and beta folded in; made by ``prepare.prepare_head``.

    weight: ``[(1 + N) * C, H]``, the rows of the main layer first, then those of dendrite 0, 1, ...
    bias: ``[(1 + N) * C]``, which is all that an empty row gets.
    beta_bias: ``[(1 + N) * C]``, times the share of beta in the pooled row: 1 for a mean, the number of tokens for a
        sum, 0 for an empty row.
    lateral: ``[N, N, C]``; entry ``[k, j]`` (j < k) feeds dendrite j into dendrite k.
    top: ``[N, C]``, feeds the dendrites into the logits.
    activation: one of ``ACTIVATIONS``.
    The tensors are float32, or float64 beside a float64 table.
    """

    weight: Tensor
    bias: Tensor
    beta_bias: Tensor
    lateral: Tensor
    top: Tensor
    activation: str


# The positions of an id whose factors share a cache line. Since the table goes tile by tile, a batch of short rows
# touches the first tiles alone.
POSITION_TILE = 16


class FoldedDsn(NamedTuple):
    """The tables of ``ops.dsn_logits_folded``, all float32; made by ``prepare.fold``.

    rstd: ``[K, P' / 16, V, 16]``; LayerNorm's factor of id v at position p and token type k is the entry
        ``[k, p // 16, v, p % 16]``. P' is ``num_positions`` rounded up to a multiple of 16.
    word, context: ``[V, S]`` and ``[K, P', S]``, the centred rows times the head's matrix. S is the number of outputs
        (1 + N) * C, padded by ``padded_outputs``.
    num_positions: positions from here on are no part of the model.
    bias, beta_bias, lateral, top, activation: those of ``DsnHead``.
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
    """The number of floats in a folded row: 4, 8 or a multiple of 16, so that the kernel loads whole vectors."""
    return next((size for size in (4, 8) if outputs <= size), math.ceil(outputs / 16) * 16)

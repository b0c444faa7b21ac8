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

# How embed_pool and the ops without windows pool. A model whose window or gate asks for it has "gated_mean" too, which
# window_pool and dsn_window_logits compute.
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


# The gate of a token is exp of a number that is clipped to this magnitude.
GATE_LIMIT = 8.0


class WindowedDsn(NamedTuple):
    """What ``ops.dsn_window_logits`` reads, float32 unless said; made by ``prepare.prepare_windows``.

    With R = 2 * radius + 1 taps, J layers of M dendrites, and N dendrites and C labels in the head, whose outputs are
    (1 + N) * C. M is padded with zeros to a multiple of 16, or 0 where J is 0: ``padded_dendrites``. A matrix that a
    token's row vector is multiplied by is [in, out].

    values: ``[K, V, D]``, what a token of type k and id v gives to the pooled row beside its u: x itself (D = H), or x
        times the head's matrix (D = ``padded_outputs`` of the outputs). The second is told by the shape of ``weight``.
    gate: ``[K, V]``, the gate's logit without u; None for a plain mean.
    taps: ``[K, V, R, M]``, x times each matrix of layer 0.
    window_bias: ``[J, M]``.
    window_weight: ``[J - 1, R, M, M]`` float32 or bfloat16, the matrices of layers 1 to J - 1. Beside bfloat16 the
        other factor of a product is rounded to bfloat16 too, and everything else stays float32.
    gate_weight: ``[M]``, the gate's weights of u; zeros beside a gate of None.
    weight: ``[(1 + N) * C, M]`` where ``values`` hold the head, else ``[(1 + N) * C, D + M]``.
    bias, lateral, top, activation: those of ``DsnHead``.
    All of them may be float64 instead, which the reference alone serves.
    """

    values: Tensor
    gate: Tensor | None
    taps: Tensor
    window_bias: Tensor
    window_weight: Tensor
    gate_weight: Tensor
    weight: Tensor
    bias: Tensor
    lateral: Tensor
    top: Tensor
    activation: str


WINDOW_DTYPES = (torch.float32, torch.bfloat16)


def padded_dendrites(dendrites: int) -> int:
    """The number of channels of a prepared window layer: a multiple of 16, a whole vector or tile of every backend."""
    return math.ceil(dendrites / 16) * 16


# The entries of the tables of QuantisedWindowedDsn for a difference of 1, and how far the table of the activation
# reaches.
GATE_STEPS, ACTIVATION_STEPS = 256, 64
ACTIVATION_LIMIT = 16.0
LONGEST_INT8_ROW = 2**20  # tokens; prepare_int8 has the ranges that follow from it


class QuantisedWindowedDsn(NamedTuple):
    """What ``ops.dsn_window_logits_int8`` reads; made by ``prepare_int8.quantise_windows``, which says what each of the
    integers stands for. Sizes are those of ``WindowedDsn``, with J >= 1; M is a multiple of 16.

    values: ``[K, V, D]`` int16.
    gate: ``[K, V]`` int32, or None.
    taps: ``[K, V, R, M]`` int16.
    window_bias: ``[J, M]`` int32.
    input_scale, output_scale: ``[J - 1, M]`` int16. output_shift: ``[J - 1, M]`` int32, 0 to 29.
    window_weight: ``[J - 1, R, M / 4, M, 4]`` int8, -64 to 64; entry [j - 1, k, i, o, c] is that of the input 4i + c
        and the output o. Neither the positive nor the negative ones of [2i : 2i + 2, o, 2h : 2h + 2] sum up to more
        than 128, or the kernels for AVX2 overflow.
    gate_weight: ``[M]`` int16. gate_bits: how many bits it and ``gate`` have after the point, 8 to 22.
    gate_table: ``[4097]`` int32, exp from -8 to 8 in steps of 1 / 256, times a constant.
    pooled_scale: ``[D + M]`` float32, what a unit of ``values``, and after them of u, is worth.
    weight, bias, lateral, top, activation: those of ``WindowedDsn``, float32.
    activation_table: ``[2049]`` float32, the activation from -16 to 16 in steps of 1 / 64; empty for relu, and for gelu
        that of gelu(x) / x.
    """

    values: Tensor
    gate: Tensor | None
    taps: Tensor
    window_bias: Tensor
    input_scale: Tensor
    window_weight: Tensor
    output_shift: Tensor
    output_scale: Tensor
    gate_weight: Tensor
    gate_bits: int
    gate_table: Tensor
    pooled_scale: Tensor
    weight: Tensor
    bias: Tensor
    lateral: Tensor
    top: Tensor
    activation: str
    activation_table: Tensor


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

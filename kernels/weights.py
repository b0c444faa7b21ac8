"""Prepared weights: what a trained model is turned into once, so that every later call does less.

Two identities make this exact (up to rounding):

* the LayerNorm mean is linear: ``mean(W[i] + Q[c]) = mean(W[i]) + mean(Q[c])``, so rows centred once stay centred
  when they are added, and no kernel computes a mean per token;
* gamma and beta leave the token loop and, for inference, fold into the head:
  ``A (gamma * h + s * beta) + b = (A gamma) h + (b + s A beta)`` with ``s`` the share of beta in the pooled row
  (1 for a mean, the number of tokens for a sum, 0 for an empty row).

Both are computed in float64 and rounded once.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .reference import ACTIVATIONS

# What kernels read; float64 is the reference's alone.
TABLE_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.float8_e4m3fn)
# Stored with one float32 scale a row, max|row| / the largest magnitude that the format is used for.
ROW_SCALED = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}


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
    top: ``[N, C]``, dendrites into the logits. activation: one of ``reference.ACTIVATIONS``.
    """

    weight: Tensor
    bias: Tensor
    beta_bias: Tensor
    lateral: Tensor
    top: Tensor
    activation: str


def _centred(rows: Tensor) -> Tensor:
    rows = rows.detach().to(torch.float64)
    return rows - rows.mean(dim=-1, keepdim=True)


def prepare_table(
    word_embeddings: Tensor,
    position_embeddings: Tensor,
    token_type_embeddings: Tensor,
    eps: float = 1e-12,
    dtype: torch.dtype | None = None,
) -> DsnTable:
    """Centre and combine the tables ``[V, H]``, ``[P, H]``, ``[K, H]``; store the words as ``dtype``.

    ``dtype`` defaults to that of ``word_embeddings`` (float64 becomes float32). int8 and float8_e4m3fn are symmetric
    with one float32 scale a row, ``max|row| / 127`` and ``max|row| / 448``; float64 makes the context float64 too.
    Raises ValueError for any other dtype, and where shapes or eps do not fit.
    """
    for name, rows in (("word_embeddings", word_embeddings), ("position_embeddings", position_embeddings),
                       ("token_type_embeddings", token_type_embeddings)):
        if rows.dim() != 2 or rows.shape[1] != word_embeddings.shape[-1]:
            raise ValueError(f"{name} has shape {tuple(rows.shape)}, expected [*, H] with the H of word_embeddings.")
    if not 0 <= eps < math.inf:
        raise ValueError(f"eps is {eps}, expected a finite number >= 0.")
    if dtype is None:
        dtype = torch.float32 if word_embeddings.dtype == torch.float64 else word_embeddings.dtype
    if dtype not in (*TABLE_DTYPES, torch.float64):
        raise ValueError(f"dtype is {dtype}, a table is stored as one of {', '.join(map(str, TABLE_DTYPES))}, or as "
                         "torch.float64 for the reference.")
    words = _centred(word_embeddings)
    context = _centred(token_type_embeddings.double()[:, None, :] + position_embeddings.double()[None, :, :])
    scale = None
    if dtype in ROW_SCALED:
        largest = ROW_SCALED[dtype]
        scale = words.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny).div(largest).float()
        words = (words / scale.double()[:, None]).clamp(-largest, largest)
        words = words.round() if dtype == torch.int8 else words
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return DsnTable(words.to(dtype).contiguous(), scale, context.to(wide).contiguous(), float(eps))


def prepare_head(
    ln_weight: Tensor,
    ln_bias: Tensor,
    weight: Tensor,
    bias: Tensor,
    lateral: Tensor | None = None,
    top: Tensor | None = None,
    activation: str = "sigmoid",
    dtype: torch.dtype = torch.float32,
) -> DsnHead:
    """Fold gamma and beta ``[H]`` into the stacked head ``weight [(1+N)*C, H]``, ``bias [(1+N)*C]``; ``dtype`` is
    float32, or float64 beside a float64 table.

    ``lateral [N, N, C]`` and ``top [N, C]`` may be None where there is no dendrite. Raises ValueError where the
    shapes do not fit or the activation is unknown.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is {activation!r}, known are {', '.join(ACTIVATIONS)}.")
    if weight.dim() != 2 or (top is not None and top.dim() != 2):
        raise ValueError(f"weight has shape {tuple(weight.shape)} and top has shape "
                         f"{None if top is None else tuple(top.shape)}, expected [(1+N)*C, H] and [N, C].")
    rows, hidden_size = weight.shape
    num_dendrites, num_labels = (0, rows) if top is None else (top.shape[0], top.shape[1] if top.shape[0] else rows)
    if rows != (1 + num_dendrites) * num_labels:
        raise ValueError(f"weight has {rows} rows, top {None if top is None else tuple(top.shape)} asks for "
                         f"{(1 + num_dendrites) * num_labels}: pass the main layer and every dendrite stacked.")
    if top is None or lateral is None or num_dendrites == 0:
        lateral, top = weight.new_zeros(0, 0, num_labels), weight.new_zeros(0, num_labels)
    if lateral.shape != (num_dendrites, num_dendrites, num_labels):
        raise ValueError(f"lateral has shape {tuple(lateral.shape)}, expected "
                         f"{(num_dendrites, num_dendrites, num_labels)}.")
    if bias.shape != (rows,) or ln_weight.shape != (hidden_size,) or ln_bias.shape != (hidden_size,):
        raise ValueError(f"bias {tuple(bias.shape)}, ln_weight {tuple(ln_weight.shape)} and ln_bias "
                         f"{tuple(ln_bias.shape)} do not fit weight {tuple(weight.shape)}.")
    wide = weight.detach().double()
    return DsnHead(
        weight=(wide * ln_weight.detach().double()).to(dtype).contiguous(),
        bias=bias.detach().to(dtype).contiguous(),
        beta_bias=(wide @ ln_bias.detach().double()).to(dtype).contiguous(),
        lateral=lateral.detach().to(dtype).contiguous(),
        top=top.detach().to(dtype).contiguous(),
        activation=activation,
    )

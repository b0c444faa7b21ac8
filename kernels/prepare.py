"""Prepared weights: what a trained model is turned into once, so that every later call does less.

Two identities make this exact (up to rounding):

* the LayerNorm mean is linear: ``mean(W[i] + Q[c]) = mean(W[i]) + mean(Q[c])``, so rows centred once stay centred
  when they are added, and no kernel computes a mean per token;
* gamma and beta leave the token loop and, for inference, fold into the head:
  ``A (gamma * h + s * beta) + b = (A gamma) h + (b + s A beta)`` with ``s`` the share of beta in the pooled row
  (1 for a mean, the number of tokens for a sum, 0 for an empty row).

Both are computed in float64 and rounded once.

The head folded into the tables: inference whose cost does not depend on the hidden size.

The logits' linear part changes places with the sum over tokens, since both are linear:

    A (sum_t r_t (w_t + q_t)) = sum_t r_t (A w_t + A q_t)

so a token needs its rows of ``A W`` and ``A Q``, [(1 + N) * C] floats instead of [H], and the LayerNorm's factor

    r = 1 / sqrt(|w + q|^2 / H + eps),    |w + q|^2 = |w|^2 + |q|^2 + 2 <w, q>

which is a function of id, type and position alone: one matrix product tabulates it. Exact up to rounding, and
computed in float64. What the tables cost is a float for each id and position; at 64 positions of BERT's vocabulary
that is 7.8 MB, half of the word table at H = 128.
"""

import math

import torch
from torch import Tensor

from .contract import ACTIVATIONS, POSITION_TILE, ROW_SCALED, TABLE_DTYPES, DsnHead, DsnTable, FoldedDsn, padded_outputs


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

"""What a trained model is turned into once, so that every later call does less: centring, quantising, folding.

Four identities make this exact up to rounding. Everything is computed in float64 and rounded once.

1. Centring (``prepare_table``): the LayerNorm identity. The mean is linear, mean(w + q) = mean(w) + mean(q), so that
   rows which were centred once have a sum that is centred too. No kernel computes a mean per token, and the variance of
   a token is |w + q|^2 / H.

2. Folding gamma and beta into the head (``prepare_head``). Both leave the sum over tokens, and the head is linear:

       A (gamma * pooled_hat + s beta) + b = (A gamma) pooled_hat + (b + s A beta)

   where pooled_hat is the pooled row before gamma and beta, and s is the share of beta in the pooled row: 1 for a mean,
   the number of tokens for a sum, 0 for an empty row.

3. Folding the head into the tables (``fold``): inference whose cost does not depend on the hidden size. The head's
   linear part changes places with the sum over tokens, since both are linear:

       A (sum_t r_t (w_t + q_t)) = sum_t r_t (A w_t + A q_t)

   so that a token needs its rows of A W and A Q, (1 + N) * C floats each in the place of H, and LayerNorm's factor

       r = 1 / sqrt(|w + q|^2 / H + eps),    |w + q|^2 = |w|^2 + |q|^2 + 2 <w, q>

   That factor is a function of id, position and token type alone, and one matrix product tabulates it. Its table holds
   one float for each id and position: 7.8 MB for 64 positions of BERT's vocabulary, half of the word table at H = 128.

4. Windows without positions (``prepare_windows``). x_t is a function of id and token type alone, and so is all that is
   linear in it: the three products U_0k x_t of the first window layer, the part v . x_t + G[id] of the gate, and, since
   the head's linear part changes places with the gated mean,

       A [sum_t g_t x_t ; sum_t g_t u_t] / sum_t g_t = (sum_t g_t A_x x_t + A_u sum_t g_t u_t) / sum_t g_t

   the part A_x x_t of the head. A tap outside the row, or on a token that is not valid, gives nothing, so that no bias
   is folded into a tap.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .contract import (
    ACTIVATIONS,
    POSITION_TILE,
    ROW_SCALED,
    TABLE_DTYPES,
    WINDOW_DTYPES,
    DsnHead,
    DsnTable,
    FoldedDsn,
    WindowedDsn,
    padded_dendrites,
    padded_outputs,
)


def centre(rows: Tensor) -> Tensor:
    """``rows [..., H]`` without their means, in float64."""
    rows = rows.detach().to(torch.float64)
    return rows - rows.mean(dim=-1, keepdim=True)


def quantise(rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Float64 ``rows [V, H]`` as ``dtype``, int8 or float8_e4m3fn, and one float32 scale per row ``[V]``.

    Symmetric: the scale is max|row| / 127 for int8 and max|row| / 448 for float8_e4m3fn. A row of zeros has the scale
    of the smallest normal float32, not 0.
    """
    largest = ROW_SCALED[dtype]
    scale = rows.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny).div(largest).float()
    rows = (rows / scale.double()[:, None]).clamp(-largest, largest)
    return (rows.round() if dtype == torch.int8 else rows).to(dtype), scale


def prepare_table(
    word_embeddings: Tensor,
    position_embeddings: Tensor,
    token_type_embeddings: Tensor,
    eps: float = 1e-12,
    dtype: torch.dtype | None = None,
) -> DsnTable:
    """Centre the word table ``[V, H]``, and the context table ``[K, P, H]``, which combines the position table
    ``[P, H]`` and the token type table ``[K, H]``.

    ``dtype`` is that of the prepared word table: one of ``TABLE_DTYPES``, where int8 and float8_e4m3fn are quantised,
    or float64, which makes the context table float64 too. The default is the dtype of ``word_embeddings``, but float32
    in the place of float64. Raises ValueError for any other dtype, and where a shape or eps does not fit.
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
    words, scale = centre(word_embeddings), None
    context = centre(token_type_embeddings.double()[:, None, :] + position_embeddings.double()[None, :, :])
    if dtype in ROW_SCALED:
        words, scale = quantise(words, dtype)
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
    """Fold LayerNorm's gamma and beta, ``ln_weight [H]`` and ``ln_bias [H]``, into the stacked head ``weight
    [(1 + N) * C, H]`` and ``bias [(1 + N) * C]``, whose rows are those of ``DsnHead``.

    ``lateral [N, N, C]`` and ``top [N, C]`` may be None where there is no dendrite. ``dtype`` is float32, or float64
    for a head beside a float64 table. Raises ValueError where a shape does not fit or the activation is unknown.
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


def prepare_windows(
    word_embeddings: Tensor,
    token_type_embeddings: Tensor,
    ln_weight: Tensor | None,
    ln_bias: Tensor | None,
    window_input_weight: Tensor,
    window_weight: Tensor,
    window_bias: Tensor,
    gate_weight: Tensor | None,
    gate_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    lateral: Tensor | None = None,
    top: Tensor | None = None,
    activation: str = "sigmoid",
    eps: float = 1e-12,
    dtype: torch.dtype = torch.float32,
    is_folded: bool | None = None,
) -> WindowedDsn:
    """The tables of a model without positions, windowed or gated or neither.

    The first nine arguments are those of ``ops.window_pool``. ``weight [(1 + N) * C, H + M]``, ``bias``, ``lateral``
    and ``top`` are the head's, as in ``prepare_head``. ``dtype`` is that of ``window_weight``, one of
    ``WINDOW_DTYPES``, or float64 for tables that the reference alone serves. ``is_folded`` says whether ``values`` hold
    the head; by default they do where that makes them no wider. Raises ValueError where a shape does not fit.
    """
    if dtype not in (*WINDOW_DTYPES, torch.float64):
        raise ValueError(f"dtype is {dtype}, window layers are stored as one of {', '.join(map(str, WINDOW_DTYPES))}, "
                         "or as torch.float64 for the reference.")
    hidden_size, dendrites = word_embeddings.shape[-1], window_bias.shape[-1]
    if weight.shape[-1] != hidden_size + dendrites:
        raise ValueError(f"weight has shape {tuple(weight.shape)}, expected [*, {hidden_size + dendrites}]: H + M.")
    no_norm = weight.new_ones(weight.shape[1]), weight.new_zeros(weight.shape[1])
    head = prepare_head(*no_norm, weight, bias, lateral, top, activation, torch.float64)
    outputs, padding = head.weight.shape[0], padded_dendrites(dendrites) - dendrites
    if is_folded is None:
        is_folded = padded_outputs(outputs) <= hidden_size
    x = word_embeddings.detach().double() + token_type_embeddings.detach().double()[:, None]
    if ln_weight is not None and ln_bias is not None:
        x = F.layer_norm(x, ln_weight.shape, ln_weight.detach().double(), ln_bias.detach().double(), eps)
    gate, gate_of_u = None, weight.new_zeros(dendrites)
    if gate_weight is not None and gate_bias is not None:
        gate = x @ gate_weight.detach().double()[:hidden_size] + gate_bias.detach().double()
        gate_of_u = gate_weight.detach()[hidden_size:]
    values, of_u = x, head.weight
    if is_folded:
        of_x, of_u = head.weight.split([hidden_size, dendrites], dim=1)
        values = x @ F.pad(of_x, (0, 0, 0, padded_outputs(outputs) - outputs)).T
    wide = torch.float64 if dtype == torch.float64 else torch.float32

    def padded(tensor: Tensor, as_dtype: torch.dtype = wide, num_axes: int = 1) -> Tensor:
        """With zeros after the last, or the last two, axes of M channels."""
        return F.pad(tensor.detach().double(), (0, padding) * num_axes).to(as_dtype).contiguous()

    taps = torch.stack([x @ matrix for matrix in window_input_weight.detach().double()], dim=2)
    return WindowedDsn(
        values.to(wide).contiguous(), None if gate is None else gate.to(wide).contiguous(), padded(taps),
        padded(window_bias), padded(window_weight, dtype, 2), padded(gate_of_u), padded(of_u),
        head.bias.to(wide), head.lateral.to(wide), head.top.to(wide), activation)


def fold(table: DsnTable, head: DsnHead, num_positions: int | None = None, num_types: int | None = None) -> FoldedDsn:
    """Fold ``head`` into ``table`` for the first ``num_positions`` positions and ``num_types`` token types (all by
    default).

    An entry has the same bits however many are asked for. Raises ValueError where more are asked for than the context
    table has.
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
    """``|w + q|^2 [V, P]`` for every row w of ``words [V, H]`` and q of ``contexts [P, H]``, in float64."""
    words_squared, contexts_squared = words.square().sum(dim=1, keepdim=True), contexts.square().sum(dim=1)
    sizes = words_squared + contexts_squared
    squares = torch.addmm(sizes, words, contexts.T, alpha=2)
    # Where w and q nearly cancel, so do the three terms. Below 1e-6 of their size, take the norm of the sum itself.
    ids, positions = (squares < 1e-6 * sizes).nonzero(as_tuple=True)
    squares[ids, positions] = (words[ids] + contexts[positions]).square().sum(dim=1)
    return squares

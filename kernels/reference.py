"""The contract in plain PyTorch: what every backend computes, written to be read. Its float64 run judges every kernel.

A Dendritic Semantic Network (DSN) looks up BERT's embeddings, normalises them, takes their mean over a text and applies
a dendritic head. For row b with tokens t (id, position, token type, mask m in {0, 1}):

    e_t    = W[id_t] + P[pos_t] + T[type_t]                                                             [H]
    x_t    = (e_t - mean(e_t)) / sqrt(var(e_t) + eps) * gamma + beta      biased variance                [H]
    pooled = sum_t m_t x_t / sum_t m_t       (0 where the row has no token)                              [H]
    y      = A pooled + b                                                                                [C]
    a_k    = f(A_k pooled + b_k + sum_{j<k} D_kj * a_j)       k = 0..N-1                                  [C]
    logits = y + sum_k T_k * a_k                                                                         [C]

Between embeddings and pooling there may be J layers of M dendrites on windows of tokens, with radius r and dilation
d_0 = 1, d_j = 2^j, and the mean may be gated. Here t is the column in the row, x_t has no position, and x_t and every
u_t are 0 where the token is not valid or outside the row:

    u0_t   = relu(b_0 + sum_{k=-r..r} U_0k x_{t+k})                                                      [M]
    uj_t   = u{j-1}_t + relu(b_j + sum_{k=-r..r} U_jk u{j-1}_{t + k d_j})     j = 1..J-1                  [M]
    h_t    = [x_t ; u{J-1}_t]                 J = 0: x_t                                                 [H + M]
    g_t    = exp(clip(v . h_t + G[id_t], -8, 8))                                                         scalar
    pooled = sum_t m_t g_t h_t / sum_t m_t g_t       (0 where the row has no token)                      [H + M]

A residual dilated 1-D convolution over embeddings (Kim 2014; Kalchbrenner et al. 2016; van den Oord et al. 2016) under
attention pooling.

Embeddings and LayerNorm: Devlin et al. 2019 (BERT), Ba et al. 2016. The dendritic head: PerforatedAI's open-source
gradient-descent mode. Dropout: Philox 4x32-10, Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".

Every sum accumulates in float32, or in float64 where the parameters are float64.

The functions without ``table``, ``head`` or ``folded`` follow these lines from the parameters of a model; the others
compute the same from what ``prepare`` made of the parameters.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .contract import ACTIVATIONS, GATE_LIMIT, DsnHead, DsnTable, FoldedDsn, WindowedDsn

# The last word of a Philox counter tells apart the draws for dropout on every token's x_t, on the pooled row, and on
# window layer j, whose stream is WINDOW_STREAM + j.
EMBED_STREAM, POOL_STREAM, WINDOW_STREAM = 0, 1, 2


def philox(seed: Tensor, counter: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox 4x32-10: four uint32 (held in int64) for every counter of four uint32. The int64 ``seed`` is the key."""
    low32 = 0xFFFFFFFF

    def multiply(constant: int, x: Tensor) -> tuple[Tensor, Tensor]:
        # The high and the low word of the product, which would overflow int64: 16-bit halves of the constant keep every
        # term below 2^49.
        low_half, high_half = (constant & 0xFFFF) * x, (constant >> 16) * x
        return ((low_half >> 16) + high_half) >> 16, (low_half + ((high_half & 0xFFFF) << 16)) & low32

    c0, c1, c2, c3 = counter
    k0, k1 = seed & low32, (seed >> 32) & low32
    for _ in range(10):
        high0, low0 = multiply(0xD2511F53, c0)
        high1, low1 = multiply(0xCD9E8D57, c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & low32, (k1 + 0xBB67AE85) & low32
    return c0, c1, c2, c3


def dropout_keep(seed: Tensor, row: Tensor, column: Tensor, hidden_size: int, p: float, stream: int) -> Tensor:
    """Which channels dropout keeps: bool ``[*row.shape, H]``.

    Channel h of a token reads word h % 4 of the counter (h // 4, column, row, stream), so that it draws the same bits
    in the padded and the packed layout and on every backend. It is dropped where that word is below ``p * 2^32``.
    """
    block = torch.arange((hidden_size + 3) // 4, device=row.device)
    shape = torch.broadcast_shapes(row[..., None].shape, block.shape)
    counter = (block.expand(shape), column[..., None].expand(shape), row[..., None].expand(shape),
               torch.full_like(block, stream).expand(shape))
    words = torch.stack(philox(seed, counter), dim=-1).flatten(-2)[..., :hidden_size]
    return words >= int(p * 2**32)


def dropout_ref(x: Tensor, seed: Tensor | None, row: Tensor, column: Tensor, p: float, stream: int) -> Tensor:
    """``x [..., H]`` with the channels of ``dropout_keep`` scaled by ``1 / (1 - p)`` and the rest zero. Where p
    is 0, no seed is needed."""
    if p == 0:
        return x
    assert seed is not None
    return torch.where(dropout_keep(seed, row, column, x.shape[-1], p, stream), x / (1 - p), 0)


def _pool_dropout_ref(pooled: Tensor, seed: Tensor | None, p: float) -> Tensor:
    """``dropout_ref`` of pooled rows ``[B, H]``, which stand in column 0."""
    if p == 0:  # inference, whose graphs then need no places
        return pooled
    rows = torch.arange(pooled.shape[0], device=pooled.device)
    return dropout_ref(pooled, seed, rows, torch.zeros_like(rows), p, POOL_STREAM)


def token_places(input_ids: Tensor, cu_seqlens: Tensor | None) -> tuple[Tensor, Tensor]:
    """The row and the column of every token, both int64 and shaped as ``input_ids``."""
    if cu_seqlens is None:
        batch, length = input_ids.shape
        row = torch.arange(batch, device=input_ids.device)[:, None].expand(batch, length)
        return row, torch.arange(length, device=input_ids.device).expand(batch, length)
    lengths = cu_seqlens.diff().long()
    row = torch.arange(lengths.numel(), device=input_ids.device).repeat_interleave(
        lengths, output_size=input_ids.numel())
    return row, torch.arange(input_ids.numel(), device=input_ids.device) - cu_seqlens.long()[row]


def pool_ref(x: Tensor, row: Tensor, attention_mask: Tensor | None, cu_seqlens: Tensor | None, pooling: str) -> Tensor:
    """``x [B, L, H]`` or packed ``[T, H]`` -> pooled ``[B, H]``; a row without tokens is 0."""
    if cu_seqlens is None:
        if pooling == "mean_masked" and attention_mask is not None:
            is_valid = attention_mask != 0
            total, count = torch.where(is_valid[..., None], x, 0).sum(dim=1), is_valid.sum(dim=1, keepdim=True)
        else:
            total, count = x.sum(dim=1), x.new_full((x.shape[0], 1), x.shape[1], dtype=torch.int64)
    else:
        total = x.new_zeros(cu_seqlens.numel() - 1, x.shape[-1]).index_add(0, row, x)
        count = cu_seqlens.diff()[:, None]
    return total if pooling == "sum_all" else total / count.clamp_min(1)


def _valid(indices: Tensor, attention_mask: Tensor | None) -> Tensor:
    """``indices`` with 0 at every token that is not valid: what stands there is never looked up."""
    return indices if attention_mask is None else torch.where(attention_mask != 0, indices, 0)


def _selected(x: Tensor, attention_mask: Tensor | None) -> Tensor:
    """``x [..., C]`` with 0 at every token that is not valid, whatever stands there."""
    return x if attention_mask is None else torch.where(attention_mask[..., None] != 0, x, 0)


def shifted(x: Tensor, row: Tensor, offset: int) -> Tensor:
    """For every token the ``x [..., C]`` of the token ``offset`` columns further on in its row, 0 outside of the row.
    ``row [...]`` is that of ``token_places``."""
    if offset == 0:
        return x
    flat, rows = x.flatten(0, -2), row.flatten()
    source = torch.arange(rows.numel(), device=x.device) + offset
    near = source.clamp(0, max(0, rows.numel() - 1))
    is_inside = (source == near) & (rows[near] == rows)
    return torch.where(is_inside[:, None], flat[near], 0).view(x.shape)


def gated_mean_ref(h: Tensor, gate_logits: Tensor, row: Tensor, attention_mask: Tensor | None,
                   cu_seqlens: Tensor | None) -> Tensor:
    """The gated mean of ``h [..., C]`` over each row, ``[B, C]``, from the gates' logits ``[...]``, which are clipped
    here; a row without tokens is 0."""
    gates = gate_logits.clamp(-GATE_LIMIT, GATE_LIMIT).exp()[..., None]
    weighted = _selected(torch.cat([gates * h, gates], dim=-1), attention_mask)
    totals = pool_ref(weighted, row, None, cu_seqlens, "sum_all")
    total, share = totals[:, :-1], totals[:, -1:]
    return total / torch.where(share == 0, 1, share)


def embed_pool_ref(
    input_ids: Tensor,
    word_embeddings: Tensor,
    position_embeddings: Tensor,
    token_type_embeddings: Tensor,
    ln_weight: Tensor,
    ln_bias: Tensor,
    *,
    attention_mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    token_type_ids: Tensor | None = None,
    position_ids: Tensor | None = None,
    eps: float = 1e-12,
    pooling: str = "mean_masked",
    p_embed: float = 0.0,
    p_pool: float = 0.0,
    seed: Tensor | None = None,
    sparse_grad: bool = False,
) -> Tensor:
    """Token ids -> pooled ``[B, H]`` in the dtype of ``word_embeddings``; see ``ops.embed_pool``."""
    row, column = token_places(input_ids, cu_seqlens)
    wide = torch.promote_types(word_embeddings.dtype, torch.float32)
    mask = attention_mask if pooling == "mean_masked" else None  # the other poolings look up padding too
    if sparse_grad:
        words = F.embedding(_valid(input_ids, mask), word_embeddings, sparse=True).to(wide)
    else:  # widened first, so that the gradient of a row is summed in float32 too and rounded once
        words = F.embedding(_valid(input_ids, mask), word_embeddings.to(wide))
    positions = F.embedding(_valid(column if position_ids is None else position_ids, mask),
                            position_embeddings.to(wide))
    if token_type_ids is None:
        types = token_type_embeddings.to(wide)[0]
    else:
        types = F.embedding(_valid(token_type_ids, mask), token_type_embeddings.to(wide))
    # Summed in the order of transformers' BertEmbeddings, to the same bits.
    x = F.layer_norm(words + types + positions, ln_weight.shape, ln_weight.to(wide), ln_bias.to(wide), eps)
    x = dropout_ref(x, seed, row, column, p_embed, EMBED_STREAM)
    pooled = pool_ref(x, row, attention_mask, cu_seqlens, pooling)
    return _pool_dropout_ref(pooled, seed, p_pool).to(word_embeddings.dtype)


def window_layers_ref(
    x: Tensor,
    row: Tensor,
    column: Tensor,
    attention_mask: Tensor | None,
    input_weight: Tensor,
    weight: Tensor,
    bias: Tensor,
    p: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:
    """The window layers: ``x [..., H]``, 0 at tokens that are not valid -> u of the last layer ``[..., M]``, 0 there
    too. The parameters are those of ``window_pool_ref``, of which ``p`` is the ``p_window``."""
    u = x
    for layer, layer_bias in enumerate(bias):
        matrices = input_weight if layer == 0 else weight[layer - 1]
        total = layer_bias
        for tap, matrix in enumerate(matrices):
            total = total + shifted(u, row, (tap - len(matrices) // 2) * 2**layer) @ matrix
        activated = total.relu()
        activated = dropout_ref(activated, seed, row, column, p, WINDOW_STREAM + layer)
        u = _selected(activated if layer == 0 else u + activated, attention_mask)
    return u


def window_pool_ref(
    input_ids: Tensor,
    word_embeddings: Tensor,
    token_type_embeddings: Tensor,
    ln_weight: Tensor | None,
    ln_bias: Tensor | None,
    window_input_weight: Tensor,
    window_weight: Tensor,
    window_bias: Tensor,
    gate_weight: Tensor | None,
    gate_bias: Tensor | None,
    *,
    attention_mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    token_type_ids: Tensor | None = None,
    eps: float = 1e-12,
    p_embed: float = 0.0,
    p_window: float = 0.0,
    p_pool: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:
    """Token ids -> pooled ``[B, H + M]`` in the dtype of ``word_embeddings``; see ``ops.window_pool``."""
    row, column = token_places(input_ids, cu_seqlens)
    wide = torch.promote_types(word_embeddings.dtype, torch.float32)
    ids = _valid(input_ids, attention_mask)
    types = torch.zeros_like(ids) if token_type_ids is None else _valid(token_type_ids, attention_mask)
    x = F.embedding(ids, word_embeddings.to(wide)) + F.embedding(types, token_type_embeddings.to(wide))
    if ln_weight is not None and ln_bias is not None:
        x = F.layer_norm(x, ln_weight.shape, ln_weight.to(wide), ln_bias.to(wide), eps)
    x = dropout_ref(x, seed, row, column, p_embed, EMBED_STREAM)
    h = x = _selected(x, attention_mask)
    if len(window_bias):
        windows = (window_input_weight.to(wide), window_weight.to(wide), window_bias.to(wide))
        u = window_layers_ref(x, row, column, attention_mask, *windows, p=p_window, seed=seed)
        h = torch.cat([x, u], dim=-1)
    if gate_weight is None or gate_bias is None:
        pooled = pool_ref(h, row, attention_mask, cu_seqlens, "mean_masked")
    else:
        gate_logits = h @ gate_weight.to(wide) + gate_bias.to(wide)[ids]
        pooled = gated_mean_ref(h, gate_logits, row, attention_mask, cu_seqlens)
    return _pool_dropout_ref(pooled, seed, p_pool).to(word_embeddings.dtype)


def dendritic_cascade_ref(layers: Sequence[Tensor], lateral: Tensor | None, top: Tensor | None,
                          activation: str) -> Tensor:
    """The cascade of dendrites: logits ``[..., C]`` from y, which is ``layers[0]``, and ``A_k pooled + b_k``, which is
    ``layers[1 + k]``, each ``[..., C]``.

    The sums run in PerforatedAI's order, so that the result has the same bits as its own modules.
    """
    logits = layers[0]
    activations: list[Tensor] = []
    for k, z in enumerate(layers[1:]):
        for j in range(k):
            z = z + lateral[k, j] * activations[j]  # type: ignore[index]
        activations.append(ACTIVATIONS[activation](z))
    for k, a in enumerate(activations):
        logits = logits + a * top[k]  # type: ignore[index]
    return logits


def dendritic_linear_ref(x: Tensor, weight: Tensor, bias: Tensor, lateral: Tensor | None, top: Tensor | None,
                         activation: str) -> Tensor:
    """The dendritic head: ``x [..., H]`` through the main layer and N dendrites -> ``[..., C]``.

    ``weight [(1 + N) * C, H]``, ``bias [(1 + N) * C]``, ``lateral [N, N, C]``, ``top [N, C]``. Each layer has an
    ``F.linear`` of its own, as in PerforatedAI: one stacked product would round differently.
    """
    num_labels = weight.shape[0] // (1 + (0 if top is None else top.shape[0]))
    layers = [F.linear(x, w, b) for w, b in zip(weight.split(num_labels), bias.split(num_labels))]
    return dendritic_cascade_ref(layers, lateral, top, activation)


def _x_hat_ref(input_ids: Tensor, column: Tensor, table: DsnTable, attention_mask: Tensor | None,
               token_type_ids: Tensor | None, position_ids: Tensor | None, wide: torch.dtype) -> Tensor:
    """LayerNorm's output before gamma and beta, ``[*input_ids.shape, H]``. The rows of the tables are centred, so that
    their sum has mean 0."""
    ids = _valid(input_ids, attention_mask)
    e = table.word[ids].to(wide)
    if table.word_scale is not None:
        e = e * table.word_scale[ids].to(wide)[..., None]
    positions = _valid(column if position_ids is None else position_ids, attention_mask)
    types = 0 if token_type_ids is None else _valid(token_type_ids, attention_mask)
    e = e + table.context[types, positions].to(wide)
    return e * torch.rsqrt(e.square().mean(dim=-1, keepdim=True) + table.eps)


def dsn_logits_ref(
    input_ids: Tensor,
    table: DsnTable,
    head: DsnHead,
    *,
    attention_mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    token_type_ids: Tensor | None = None,
    position_ids: Tensor | None = None,
    pooling: str = "mean_masked",
) -> Tensor:
    """Token ids -> logits ``[B, C]`` from full-width tables, in the head's dtype; see ``ops.dsn_logits``."""
    row, column = token_places(input_ids, cu_seqlens)
    mask = attention_mask if pooling == "mean_masked" else None
    x_hat = _x_hat_ref(input_ids, column, table, mask, token_type_ids, position_ids, head.weight.dtype)
    pooled_hat = pool_ref(x_hat, row, attention_mask, cu_seqlens, pooling)
    beta_share = pool_ref(torch.ones_like(x_hat[..., :1]), row, attention_mask, cu_seqlens, pooling)
    layers = F.linear(pooled_hat, head.weight) + head.bias + beta_share * head.beta_bias
    return dendritic_cascade_ref(layers.split(head.top.shape[1], dim=-1), head.lateral, head.top, head.activation)


def dsn_logits_folded_ref(
    input_ids: Tensor,
    folded: FoldedDsn,
    *,
    attention_mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    token_type_ids: Tensor | None = None,
    position_ids: Tensor | None = None,
    pooling: str = "mean_masked",
) -> Tensor:
    """Token ids -> logits ``[B, C]`` from folded tables, in their dtype; see ``ops.dsn_logits_folded``."""
    row, column = token_places(input_ids, cu_seqlens)
    mask = attention_mask if pooling == "mean_masked" else None
    ids = _valid(input_ids, mask)
    positions = _valid(column if position_ids is None else position_ids, mask)
    types = torch.zeros_like(ids) if token_type_ids is None else _valid(token_type_ids, mask)
    tile = folded.rstd.shape[3]
    rstd = folded.rstd[types, positions // tile, ids, positions % tile]
    z = pool_ref(rstd[..., None] * (folded.word[ids] + folded.context[types, positions]), row, attention_mask,
                 cu_seqlens, pooling)
    beta_share = pool_ref(torch.ones_like(rstd[..., None]), row, attention_mask, cu_seqlens, pooling)
    z = z[:, :folded.bias.shape[0]] + folded.bias + beta_share * folded.beta_bias
    return dendritic_cascade_ref(z.split(folded.top.shape[1], dim=-1), folded.lateral, folded.top, folded.activation)


def dsn_window_logits_ref(
    input_ids: Tensor,
    windowed: WindowedDsn,
    *,
    attention_mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    token_type_ids: Tensor | None = None,
) -> Tensor:
    """Token ids -> logits ``[B, C]`` from the tables of ``prepare.prepare_windows``, in the head's dtype; see
    ``ops.dsn_window_logits``."""
    row, _ = token_places(input_ids, cu_seqlens)
    ids = _valid(input_ids, attention_mask)
    types = torch.zeros_like(ids) if token_type_ids is None else _valid(token_type_ids, attention_mask)
    values, dtype = windowed.values[types, ids], windowed.bias.dtype
    u = _prepared_windows_ref(windowed, windowed.taps[types, ids], row, attention_mask)
    h = torch.cat([values, u], dim=-1)
    if windowed.gate is None:
        pooled = pool_ref(h, row, attention_mask, cu_seqlens, "mean_masked")
    else:
        gate_logits = windowed.gate[types, ids] + u @ windowed.gate_weight
        pooled = gated_mean_ref(h, gate_logits, row, attention_mask, cu_seqlens)
    outputs, width = windowed.weight.shape
    if width == u.shape[-1]:  # the values hold the head
        layers = pooled[:, :outputs] + F.linear(pooled[:, values.shape[-1]:], windowed.weight)
    else:
        layers = F.linear(pooled, windowed.weight)
    layers = (layers + windowed.bias).to(dtype)
    return dendritic_cascade_ref(layers.split(windowed.top.shape[1], dim=-1), windowed.lateral, windowed.top,
                                 windowed.activation)


def _prepared_windows_ref(windowed: WindowedDsn, taps: Tensor, row: Tensor, attention_mask: Tensor | None) -> Tensor:
    """u of the last layer, ``[..., M]``, from the taps of every token, ``[..., R, M]``."""
    radius = taps.shape[-2] // 2
    u = taps.new_zeros(*row.shape, taps.shape[-1])
    for layer, bias in enumerate(windowed.window_bias):
        total = bias
        for tap in range(taps.shape[-2]):
            offset = (tap - radius) * 2**layer
            if layer == 0:
                total = total + shifted(_selected(taps[..., tap, :], attention_mask), row, offset)
            else:
                matrix = windowed.window_weight[layer - 1, tap]
                total = total + shifted(u.to(matrix.dtype).to(u.dtype), row, offset) @ matrix.to(u.dtype)
        u = _selected(u + total.relu(), attention_mask)
    return u


def dsn_token_logits_ref(
    input_ids: Tensor,
    table: DsnTable,
    head: DsnHead,
    *,
    attention_mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    token_type_ids: Tensor | None = None,
    position_ids: Tensor | None = None,
) -> Tensor:
    """Token ids -> logits of every token, ``[B, L, C]`` or ``[T, C]``, in the head's dtype; see
    ``ops.dsn_token_logits``. Those of a token that is not valid are 0."""
    _, column = token_places(input_ids, cu_seqlens)
    x_hat = _x_hat_ref(input_ids, column, table, attention_mask, token_type_ids, position_ids, head.weight.dtype)
    layers = F.linear(x_hat, head.weight) + head.bias + head.beta_bias
    logits = dendritic_cascade_ref(layers.split(head.top.shape[1], dim=-1), head.lateral, head.top, head.activation)
    return _selected(logits, attention_mask)

"""The contract in plain PyTorch: what every backend computes, written to be read. The float64 run of it is the judge.

For row b with tokens t (id, position, token type, mask m in {0, 1}):

    e_t    = W[id_t] + P[pos_t] + T[type_t]                                                             [H]
    x_t    = (e_t - mean(e_t)) / sqrt(var(e_t) + eps) * gamma + beta      biased variance                [H]
    pooled = sum_t m_t x_t / sum_t m_t       (0 where the row has no token)                              [H]
    y      = A pooled + b                                                                                [C]
    a_k    = f(A_k pooled + b_k + sum_{j<k} D_kj * a_j)       k = 0..N-1                                  [C]
    logits = y + sum_k T_k * a_k                                                                         [C]

Embeddings and LayerNorm: Devlin et al. 2019 (BERT), Ba et al. 2016. The dendritic head: PerforatedAI's open-source
gradient-descent mode. Dropout: Philox 4x32-10, Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".

Everything accumulates in float32, or in float64 where the parameters are float64.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .contract import ACTIVATIONS, DsnHead, DsnTable, FoldedDsn

# Which draw a Philox counter belongs to: dropout on every token's x_t, or on the pooled row.
EMBED_STREAM, POOL_STREAM = 0, 1


def philox(seed: Tensor, counter: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox 4x32-10: four uint32 (held in int64) for every counter of four uint32, keyed by the int64 ``seed``."""
    low32 = 0xFFFFFFFF

    def multiply(constant: int, x: Tensor) -> tuple[Tensor, Tensor]:
        # The 64-bit product would overflow int64: take its high word through 16-bit halves, all below 2^49.
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

    The counter is (channel // 4, column, row, stream), the word channel % 4: a token draws the same bits in the padded
    and the packed layout and on every backend. A channel is dropped where its word is below ``p * 2^32``.
    """
    block = torch.arange((hidden_size + 3) // 4, device=row.device)
    shape = torch.broadcast_shapes(row[..., None].shape, block.shape)
    counter = (block.expand(shape), column[..., None].expand(shape), row[..., None].expand(shape),
               torch.full_like(block, stream).expand(shape))
    words = torch.stack(philox(seed, counter), dim=-1).flatten(-2)[..., :hidden_size]
    return words >= int(p * 2**32)


def dropout_ref(x: Tensor, seed: Tensor, row: Tensor, column: Tensor, p: float, stream: int) -> Tensor:
    """``x [..., H]`` with the channels of ``dropout_keep`` scaled by ``1 / (1 - p)`` and the rest zero."""
    return torch.where(dropout_keep(seed, row, column, x.shape[-1], p, stream), x / (1 - p), 0)


def token_places(input_ids: Tensor, cu_seqlens: Tensor | None) -> tuple[Tensor, Tensor]:
    """Row and column of every token, int64, shaped as ``input_ids``."""
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
            keep = attention_mask != 0
            total, count = torch.where(keep[..., None], x, 0).sum(dim=1), keep.sum(dim=1, keepdim=True)
        else:
            total, count = x.sum(dim=1), x.new_full((x.shape[0], 1), x.shape[1], dtype=torch.int64)
    else:
        total = x.new_zeros(cu_seqlens.numel() - 1, x.shape[-1]).index_add(0, row, x)
        count = cu_seqlens.diff()[:, None]
    return total if pooling == "sum_all" else total / count.clamp_min(1)


def _shown_ids(input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
    """What stands at a masked token is never looked up: its id counts as 0."""
    return input_ids if attention_mask is None else torch.where(attention_mask != 0, input_ids, 0)


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
    shown = attention_mask if pooling == "mean_masked" else None
    if sparse_grad:
        words = F.embedding(_shown_ids(input_ids, shown), word_embeddings, sparse=True).to(wide)
    else:  # widened first: the gradient of a row is added up in float32 too, and rounded once
        words = F.embedding(_shown_ids(input_ids, shown), word_embeddings.to(wide))
    positions = F.embedding(_shown_ids(column if position_ids is None else position_ids, shown),
                            position_embeddings.to(wide))
    if token_type_ids is None:
        types = token_type_embeddings.to(wide)[0]
    else:
        types = F.embedding(_shown_ids(token_type_ids, shown), token_type_embeddings.to(wide))
    # Summed in the order of BertEmbeddings: the same bits as transformers.
    x = F.layer_norm(words + types + positions, ln_weight.shape, ln_weight.to(wide), ln_bias.to(wide), eps)
    if p_embed > 0:
        assert seed is not None
        x = dropout_ref(x, seed, row, column, p_embed, EMBED_STREAM)
    pooled = pool_ref(x, row, attention_mask, cu_seqlens, pooling)
    if p_pool > 0:
        assert seed is not None
        first = torch.arange(pooled.shape[0], device=pooled.device)
        pooled = dropout_ref(pooled, seed, first, torch.zeros_like(first), p_pool, POOL_STREAM)
    return pooled.to(word_embeddings.dtype)


def dendritic_cascade_ref(layers: Sequence[Tensor], lateral: Tensor | None, top: Tensor | None,
                          activation: str) -> Tensor:
    """``layers[0]`` is y, ``layers[1 + k]`` is ``A_k pooled + b_k``, each ``[..., C]`` -> logits ``[..., C]``.

    The sums run in PerforatedAI's order, so that the result is bit-identical to its own modules.
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
    """``x [..., H]`` through main layer and N dendrites -> ``[..., C]``.

    ``weight [(1 + N) * C, H]``, ``bias [(1 + N) * C]``, ``lateral [N, N, C]``, ``top [N, C]``. One ``F.linear`` a
    layer, as in PerforatedAI: one stacked product would round differently.
    """
    num_labels = weight.shape[0] // (1 + (0 if top is None else top.shape[0]))
    layers = [F.linear(x, w, b) for w, b in zip(weight.split(num_labels), bias.split(num_labels))]
    return dendritic_cascade_ref(layers, lateral, top, activation)


def _normalised_ref(input_ids: Tensor, column: Tensor, table: "DsnTable", attention_mask: Tensor | None,
                    token_type_ids: Tensor | None, position_ids: Tensor | None, wide: torch.dtype) -> Tensor:
    """LayerNorm's output before gamma and beta, from centred tables; what ``attention_mask`` hides is not looked up."""
    shown = _shown_ids(input_ids, attention_mask)
    e = table.word[shown].to(wide)
    if table.word_scale is not None:
        e = e * table.word_scale[shown].to(wide)[..., None]
    positions = _shown_ids(column if position_ids is None else position_ids, attention_mask)
    types = 0 if token_type_ids is None else _shown_ids(token_type_ids, attention_mask)
    e = e + table.context[types, positions].to(wide)
    return e * torch.rsqrt(e.square().mean(dim=-1, keepdim=True) + table.eps)


def dsn_logits_ref(
    input_ids: Tensor,
    table: "DsnTable",
    head: "DsnHead",
    *,
    attention_mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    token_type_ids: Tensor | None = None,
    position_ids: Tensor | None = None,
    pooling: str = "mean_masked",
) -> Tensor:
    """Token ids -> logits ``[B, C]`` from prepared tables, in the head's dtype; see ``ops.dsn_logits``."""
    row, column = token_places(input_ids, cu_seqlens)
    shown = attention_mask if pooling == "mean_masked" else None
    x = _normalised_ref(input_ids, column, table, shown, token_type_ids, position_ids, head.weight.dtype)
    pooled = pool_ref(x, row, attention_mask, cu_seqlens, pooling)
    beta_share = pool_ref(torch.ones_like(x[..., :1]), row, attention_mask, cu_seqlens, pooling)
    layers = F.linear(pooled, head.weight) + head.bias + beta_share * head.beta_bias
    return dendritic_cascade_ref(layers.split(head.top.shape[1], dim=-1), head.lateral, head.top, head.activation)


def dsn_logits_folded_ref(
    input_ids: Tensor,
    folded: "FoldedDsn",
    *,
    attention_mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    token_type_ids: Tensor | None = None,
    position_ids: Tensor | None = None,
    pooling: str = "mean_masked",
) -> Tensor:
    """Token ids -> logits ``[B, C]`` from folded tables, in their dtype; see ``ops.dsn_logits_folded``."""
    row, column = token_places(input_ids, cu_seqlens)
    shown = attention_mask if pooling == "mean_masked" else None
    ids = _shown_ids(input_ids, shown)
    positions = _shown_ids(column if position_ids is None else position_ids, shown)
    types = torch.zeros_like(ids) if token_type_ids is None else _shown_ids(token_type_ids, shown)
    tile = folded.rstd.shape[3]
    rstd = folded.rstd[types, positions // tile, ids, positions % tile]
    z = pool_ref(rstd[..., None] * (folded.word[ids] + folded.context[types, positions]), row, attention_mask,
                 cu_seqlens, pooling)
    beta_share = pool_ref(torch.ones_like(rstd[..., None]), row, attention_mask, cu_seqlens, pooling)
    z = z[:, :folded.bias.shape[0]] + folded.bias + beta_share * folded.beta_bias
    return dendritic_cascade_ref(z.split(folded.top.shape[1], dim=-1), folded.lateral, folded.top, folded.activation)


def dsn_token_logits_ref(
    input_ids: Tensor,
    table: "DsnTable",
    head: "DsnHead",
    *,
    attention_mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    token_type_ids: Tensor | None = None,
    position_ids: Tensor | None = None,
) -> Tensor:
    """Token ids -> logits of every token ``[B, L, C]`` or ``[T, C]``, 0 where masked; see ``ops.dsn_token_logits``."""
    _, column = token_places(input_ids, cu_seqlens)
    x = _normalised_ref(input_ids, column, table, attention_mask, token_type_ids, position_ids, head.weight.dtype)
    layers = F.linear(x, head.weight) + head.bias + head.beta_bias
    logits = dendritic_cascade_ref(layers.split(head.top.shape[1], dim=-1), head.lateral, head.top, head.activation)
    return logits if attention_mask is None else torch.where(attention_mask[..., None] != 0, logits, 0)

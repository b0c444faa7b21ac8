"""``ops.window_pool`` of padded rows on a CPU, for training: the formula of ``reference``, arranged for PyTorch's
convolutions.

The window layers are convolutions over the columns of ``[B, L, M]``, which is what PyTorch calls channels last. A whole
training step of 512 rows of 20 tokens with five layers of 32 dendrites takes 21 ms of one thread of a Zen 5 core, and
48 ms by the reference, which gathers every tap (torch 2.14, processor time, other work on the machine). What is not
valid is set to 0 by products with 0 or 1 beyond x, where a selection has left nothing but numbers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .contract import GATE_LIMIT
from .reference import EMBED_STREAM, POOL_STREAM, WINDOW_STREAM, dropout_keep, dropout_ref, token_places


def window_pool_padded(
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
    token_type_ids: Tensor | None = None,
    eps: float = 1e-12,
    p_embed: float = 0.0,
    p_window: float = 0.0,
    p_pool: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:
    """Token ids ``[B, L]`` -> pooled ``[B, H + M]`` in the dtype of ``word_embeddings``; see ``ops.window_pool``."""
    wide = torch.promote_types(word_embeddings.dtype, torch.float32)
    is_valid = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask != 0
    ids = torch.where(is_valid, input_ids, 0)
    x = F.embedding(ids, word_embeddings.to(wide))
    if token_type_ids is None:
        x = x + token_type_embeddings.to(wide)[0]
    else:
        x = x + F.embedding(torch.where(is_valid, token_type_ids, 0), token_type_embeddings.to(wide))
    if ln_weight is not None and ln_bias is not None:
        x = F.layer_norm(x, ln_weight.shape, ln_weight.to(wide), ln_bias.to(wide), eps)
    places = token_places(input_ids, None)
    if p_embed > 0:
        assert seed is not None
        x = dropout_ref(x, seed, *places, p_embed, EMBED_STREAM)
    x = torch.where(is_valid[..., None], x, 0)
    parts = [x]
    if len(window_bias):
        windows = (window_input_weight.to(wide), window_weight.to(wide), window_bias.to(wide))
        parts.append(_window_layers(x, is_valid, *windows, p_window, places, seed))
    gates = is_valid.to(wide)
    if gate_weight is not None and gate_bias is not None:
        logits = F.embedding(ids, gate_bias.to(wide)[:, None])[..., 0]
        for part, weight in zip(parts, gate_weight.to(wide).split([part.shape[-1] for part in parts])):
            logits = logits + part @ weight
        gates = logits.clamp(-GATE_LIMIT, GATE_LIMIT).exp() * gates
    total = gates.sum(dim=1, keepdim=True)
    shares = (gates / torch.where(total == 0, 1, total))[:, None]
    pooled = torch.cat([shares.to(part.dtype) @ part for part in parts], dim=-1)[:, 0]
    if p_pool > 0:
        assert seed is not None
        rows = torch.arange(len(pooled), device=pooled.device)
        pooled = dropout_ref(pooled, seed, rows, torch.zeros_like(rows), p_pool, POOL_STREAM)
    return pooled.to(word_embeddings.dtype)


def _window_layers(x: Tensor, is_valid: Tensor, input_weight: Tensor, weight: Tensor, bias: Tensor, p: float,
                   places: tuple[Tensor, Tensor], seed: Tensor | None) -> Tensor:
    """``x [B, L, H]`` -> u of the last layer, ``[B, L, M]``."""
    num_layers, dendrites = bias.shape
    # Written out for every channel once: a factor that is broadcast along the last axis takes 5 times as long.
    keep = is_valid[..., None].expand(*is_valid.shape, dendrites).to(x.dtype)
    u = x
    for layer in range(num_layers):
        total = _convolve(u, input_weight if layer == 0 else weight[layer - 1], bias[layer], 2**layer)
        factor = keep
        if p > 0:
            assert seed is not None
            factor = keep * dropout_keep(seed, *places, dendrites, p, WINDOW_STREAM + layer) / (1 - p)
        u = total.relu() * factor if layer == 0 else torch.addcmul(u, total.relu(), factor)
    return u


def _convolve(u: Tensor, matrices: Tensor, bias: Tensor, dilation: int) -> Tensor:
    """``bias + sum_k u_{t + (k - r) dilation} @ matrices[k]`` of ``u [B, L, in]`` and ``matrices [R, in, out]``."""
    kernel = matrices.permute(2, 1, 0)[:, :, None].contiguous(memory_format=torch.channels_last)
    padding = dilation * (len(matrices) // 2)
    images = u.transpose(1, 2)[:, :, None]  # [B, in, 1, L], whose memory is as it was
    return F.conv2d(images, kernel, bias, padding=(0, padding), dilation=(1, dilation))[:, :, 0].transpose(1, 2)

"""The gradients of ``embed_pool`` in Triton: those of rows, and those of tokens where they are added by atomics.

Let G = gamma * g * scale, where g is the gradient of a pooled row and scale is what pooling and dropout multiply a
token by; let k be the dropout mask of a token. The backward pass of LayerNorm is then

    d e_t = rstd_t * (k G - mean(k G) - x_hat_t * mean(k G * x_hat_t))

Only ``rstd`` and ``pooled_hat`` are kept from the forward pass; x_hat and the mask are computed again. The gradients
take one of two ways:

* ``scatter_gradients_kernel`` computes G for its rows and adds every d e_t to the tables' gradients by atomics: one
  launch, and sums in any order. Where rows are few and may be long, they are cut into splits as in the forward pass.
* ``segments`` goes through the tokens in the order of their ids, with no atomics for words. What the tokens of a row
  have in common, and the gradients of gamma and beta, ``row_gradients_kernel`` computes first.

Where cu_seqlens is invalid anywhere, rows may share tokens and the forward pass has kept no ``rstd``: G is NaN.
"""

import triton
import triton.language as tl

from .dropout import EMBED_STREAM, keep_channels, keep_pooled_channels
from .embeddings import centre_tokens
from .forward import divide
from .kernel import kernel
from .splits import find_split
from .tokens import SIZES, cu_seqlens_is_valid, is_valid, load_row_bounds, load_token_indices

MASK_TOKENS = tl.constexpr(128)  # columns of the mask that are read at once where only their number is wanted


@triton.jit
def count_valid(start, count, attention_mask, BLOCK_ROWS: tl.constexpr):
    """The number of valid tokens in each row ``[R]``."""
    num_valid = count.to(tl.int32)
    if attention_mask is not None:
        num_valid = tl.zeros((BLOCK_ROWS,), tl.int32)
        for offset in tl.range(0, tl.max(count), MASK_TOKENS):
            column = (offset + tl.arange(0, MASK_TOKENS)[None, :]).to(tl.int64)
            valid = is_valid(start[:, None] + column, column, count[:, None], attention_mask)
            num_valid += tl.sum(valid.to(tl.int32), axis=1)
    return num_valid


@triton.jit
def load_row_gradients(row, num_valid, batch, cu_seqlens, bounds, num_bounds, grad_pooled, dropout,
                       HIDDEN_SIZE: tl.constexpr, SUM: tl.constexpr, DROP_POOL: tl.constexpr, BLOCK_H: tl.constexpr,
                       BLOCK_ROWS: tl.constexpr):
    """The gradient of each row before the dropout of pooled rows ``[R, H]``, the share of it that each token gets
    ``[R]``, and the number of times that the pooled row holds beta ``[R]``."""
    num_rows, _, _ = batch
    h = tl.arange(0, BLOCK_H)
    known = (row < num_rows)[:, None] & (h < HIDDEN_SIZE)[None, :]
    grad = tl.load(grad_pooled + row[:, None] * HIDDEN_SIZE + h[None, :], mask=known, other=0.0).to(tl.float32)
    if DROP_POOL:
        _, _, scale = dropout
        grad = tl.where(keep_pooled_channels(row, dropout, BLOCK_H, BLOCK_ROWS), grad * scale, 0.0)
    share = tl.full((BLOCK_ROWS, 1), 1.0, tl.float32)
    if cu_seqlens is not None:
        share = tl.where(cu_seqlens_is_valid(cu_seqlens, bounds, num_bounds, batch), share, float("nan"))
        grad *= share
    share, beta_share = divide(share, num_valid, SUM)
    return grad, tl.sum(share, axis=1), beta_share


@kernel(do_not_specialize=[*SIZES, "embed_threshold", "pool_threshold"])
def row_gradients_kernel(
        attention_mask, cu_seqlens, bounds, grad_pooled, pooled_hat, seed, row_share, dropped, d_ln_weight, d_ln_bias,
        num_rows, length, num_tokens, num_bounds, embed_threshold, embed_scale, pool_threshold, pool_scale,
        HIDDEN_SIZE: tl.constexpr, SUM: tl.constexpr, DROP_EMBED: tl.constexpr, DROP_POOL: tl.constexpr,
        BLOCK_H: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_TOKENS: tl.constexpr, ATOMIC: tl.constexpr):
    """The share of its row's gradient that each token gets, ``row_share [B]``; where pooled rows are dropped, the
    gradient before that dropout, ``dropped [B, H]``; and the rows' part of the gradients of gamma and beta. These are
    added to ``[H]`` with ATOMIC, otherwise each program stores its own in a row of ``[programs, H]``. All float32. One
    program per ``BLOCK_ROWS`` rows."""
    batch = (num_rows, length, num_tokens)
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    start, count, _ = load_row_bounds(row, batch, cu_seqlens)
    num_valid = count_valid(start, count, attention_mask, BLOCK_ROWS)
    grad, share, beta_share = load_row_gradients(
        row, num_valid, batch, cu_seqlens, bounds, num_bounds, grad_pooled, (seed, pool_threshold, pool_scale),
        HIDDEN_SIZE, SUM, DROP_POOL, BLOCK_H, BLOCK_ROWS)
    h = tl.arange(0, BLOCK_H)
    places = row[:, None] * HIDDEN_SIZE + h[None, :]
    stored = (row < num_rows)[:, None] & (h < HIDDEN_SIZE)[None, :]
    tl.store(row_share + row, share, mask=row < num_rows)
    if dropped is not None:
        tl.store(dropped + places, grad, mask=stored)
    # Evicted first because nothing reads it again, while the tokens read grad_pooled again from the cache.
    gamma_grad = grad * tl.load(pooled_hat + places, mask=stored, other=0.0, eviction_policy="evict_first")
    beta_grad = grad * beta_share[:, None]
    if DROP_EMBED:
        # Nothing but Philox, 10 us for 512 columns at H = 128: not worth splitting.
        beta_kept = tl.zeros((BLOCK_ROWS, BLOCK_TOKENS, BLOCK_H), tl.float32)
        for offset in tl.range(0, tl.max(count), BLOCK_TOKENS):
            column = (offset + tl.arange(0, BLOCK_TOKENS)[None, :]).to(tl.int64)
            valid = is_valid(start[:, None] + column, column, count[:, None], attention_mask)
            keep = keep_channels(seed, row[:, None], column, embed_threshold, EMBED_STREAM, BLOCK_H)
            beta_kept += tl.where(keep & valid[:, :, None], embed_scale, 0.0)
        beta_grad = grad * share[:, None] * tl.sum(beta_kept, axis=1)
    if ATOMIC:
        tl.atomic_add(d_ln_weight + h, tl.sum(gamma_grad, axis=0), mask=h < HIDDEN_SIZE, sem="relaxed")
        tl.atomic_add(d_ln_bias + h, tl.sum(beta_grad, axis=0), mask=h < HIDDEN_SIZE, sem="relaxed")
    else:
        parts = tl.program_id(0).to(tl.int64) * HIDDEN_SIZE + h
        tl.store(d_ln_weight + parts, tl.sum(gamma_grad, axis=0), mask=h < HIDDEN_SIZE)
        tl.store(d_ln_bias + parts, tl.sum(beta_grad, axis=0), mask=h < HIDDEN_SIZE)


@triton.jit
def differentiate_tokens(e, rstd, share, gradient, HIDDEN_SIZE: tl.constexpr):
    """``d e_t`` of tokens ``[R, T, H]``, times their share. e: ``e_t - mean(e_t)`` ``[R, T, H]``. rstd: ``[R, T]``.
    gradient: k G, ``[R, T, H]`` or ``[R, 1, H]``, 0 from channel H on. From there on the result has no meaning."""
    mean = tl.sum(gradient, axis=2) / HIDDEN_SIZE
    slope = rstd * rstd * (tl.sum(gradient * e, axis=2) / HIDDEN_SIZE)
    return (rstd * share)[:, :, None] * (gradient - mean[:, :, None] - e * slope[:, :, None])


@kernel(do_not_specialize=[*SIZES, "embed_threshold", "pool_threshold"])
def scatter_gradients_kernel(
        input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, bounds, grad_pooled, pooled_hat,
        word_embeddings, position_embeddings, token_type_embeddings, ln_weight, seed, rstd, d_word, d_context,
        d_ln_weight, d_ln_bias, num_rows, length, num_tokens, num_bounds, vocab_size, num_types, num_positions,
        embed_threshold, embed_scale, pool_threshold, pool_scale, HIDDEN_SIZE: tl.constexpr, SUM: tl.constexpr,
        DROP_EMBED: tl.constexpr, DROP_POOL: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_ROWS: tl.constexpr,
        BLOCK_TOKENS: tl.constexpr, SPLIT_COLUMNS: tl.constexpr):
    """Add the gradient of every token to ``d_word [V, H]`` and ``d_context [K * P, H]``, and that of every row to
    ``d_ln_weight [H]`` and ``d_ln_bias [H]``, by atomics; all float32. One program per ``BLOCK_ROWS`` rows or, with
    SPLIT_COLUMNS > 0, per split."""
    tokens = (input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids)
    batch = (num_rows, length, num_tokens)
    sizes = (vocab_size, num_types, num_positions)
    embeddings = (word_embeddings, position_embeddings, token_type_embeddings)
    if SPLIT_COLUMNS > 0:
        split = tl.program_id(0).to(tl.int64) + tl.zeros((BLOCK_ROWS,), tl.int64)
        row, start, begin, end = find_split(split, batch, cu_seqlens, SPLIT_COLUMNS)
        _, count, _ = load_row_bounds(row, batch, cu_seqlens)
    else:
        row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
        start, count, _ = load_row_bounds(row, batch, cu_seqlens)
        begin, end = row * 0, count
    num_valid = count_valid(start, count, attention_mask, BLOCK_ROWS)
    grad, share, beta_share = load_row_gradients(
        row, num_valid, batch, cu_seqlens, bounds, num_bounds, grad_pooled, (seed, pool_threshold, pool_scale),
        HIDDEN_SIZE, SUM, DROP_POOL, BLOCK_H, BLOCK_ROWS)
    h = tl.arange(0, BLOCK_H)
    row_gradient = grad * tl.load(ln_weight + h, mask=h < HIDDEN_SIZE, other=0.0).to(tl.float32)[None, :]
    first = (row < num_rows) & (begin == 0)  # of a row's splits, the first alone adds what does not belong to a token
    row_hat = tl.load(pooled_hat + row[:, None] * HIDDEN_SIZE + h[None, :], other=0.0,
                      mask=first[:, None] & (h < HIDDEN_SIZE)[None, :])
    tl.atomic_add(d_ln_weight + h, tl.sum(grad * row_hat, axis=0), mask=h < HIDDEN_SIZE, sem="relaxed")
    beta_grad = tl.where(first[:, None], grad * beta_share[:, None], 0.0)
    if DROP_EMBED:
        beta_kept = tl.zeros((BLOCK_ROWS, BLOCK_TOKENS, BLOCK_H), tl.float32)
    for offset in tl.range(tl.max(begin), tl.max(end), BLOCK_TOKENS):
        column = (offset + tl.arange(0, BLOCK_TOKENS)[None, :]).to(tl.int64)
        place = start[:, None] + column
        valid = is_valid(place, column, end[:, None], attention_mask)
        token_id, token_type, position, context_inside, inside = load_token_indices(place, column, valid, tokens, sizes)
        read = valid & inside
        gradient = row_gradient[:, None, :]
        if DROP_EMBED:
            keep = keep_channels(seed, row[:, None], column, embed_threshold, EMBED_STREAM, BLOCK_H)
            gradient = tl.where(keep, gradient * embed_scale, 0.0)
            beta_kept += tl.where(keep & valid[:, :, None], embed_scale, 0.0)
        e = centre_tokens(read, token_id, token_type, position, context_inside, embeddings, HIDDEN_SIZE, BLOCK_H)
        token_rstd = tl.load(rstd + place, mask=read, other=0.0)
        known = (h < HIDDEN_SIZE)[None, None, :]
        gradient = differentiate_tokens(e, token_rstd, share[:, None], gradient, HIDDEN_SIZE)
        gradient = tl.where(read[:, :, None], gradient, 0.0)
        if d_word is not None:
            tl.atomic_add(d_word + token_id[:, :, None] * HIDDEN_SIZE + h[None, None, :], gradient,
                          mask=read[:, :, None] & known, sem="relaxed")
        added = read
        if token_type_ids is None and position_ids is None:  # all rows share one row of the context in each column
            gradient = tl.sum(gradient, axis=0, keep_dims=True)
            added = context_inside & (column < tl.max(end))
        context = token_type * num_positions + position
        tl.atomic_add(d_context + context[:, :, None] * HIDDEN_SIZE + h[None, None, :], gradient,
                      mask=added[:, :, None] & known, sem="relaxed")
    if DROP_EMBED:
        beta_grad = grad * share[:, None] * tl.sum(beta_kept, axis=1)
    tl.atomic_add(d_ln_bias + h, tl.sum(beta_grad, axis=0), mask=h < HIDDEN_SIZE, sem="relaxed")

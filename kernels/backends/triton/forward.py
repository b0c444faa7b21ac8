"""The forward kernels in Triton: the formulas of ``reference`` on NVIDIA and AMD GPUs, and in Triton's interpreter.

``launch_forward`` launches them as follows:

* One program serves ``BLOCK_ROWS`` rows of the batch, all at the same columns, ``BLOCK_TOKENS`` columns at a time. Its
  tile is ``[BLOCK_ROWS, BLOCK_TOKENS, BLOCK_H]``, where ``BLOCK_H`` is the hidden size rounded up to a power of two.
  Every element of the tile has a float32 sum of its own; tokens are summed across the tile once, after the loop.
* ``dsn_logits_kernel`` goes from token ids to logits in one launch; ``embed_pool_kernel`` is the forward pass of the
  differentiable op. Where rows are few and may be long, a ``_splits_kernel`` and a ``_combine_kernel`` take their place
  (see ``splits``). ``dsn_token_logits_kernel`` applies the head to every token.
* The kernels check indices and bounds. A token whose id, type or position lies outside its table, and a row whose
  bounds in cu_seqlens are invalid, are read nowhere and turn the result of their row into NaN. What is written for
  every token is written once: where rows may overlap, the logits of a token that two rows hold are NaN, and nothing is
  kept for the backward pass, whose gradients are then NaN.

Everything is widened to float32 when it is loaded, and every offset that can exceed 2^31 elements is int64.
``beta_share`` is the number of times that a pooled row holds beta: 1 for a mean, 0 for an empty row, the number of
tokens for a sum. How helpers take their arguments stands at the head of ``tokens``.
"""

import triton
import triton.language as tl

from .dropout import EMBED_STREAM, keep_channels, keep_pooled_channels
from .embeddings import centre_tokens, load_centred_tokens
from .head import store_logits
from .kernel import kernel
from .splits import add_splits, find_split, store_split
from .tokens import (
    SIZES,
    cu_seqlens_is_valid,
    find_columns,
    find_row,
    is_valid,
    load_row_bounds,
    load_token_indices,
)


@triton.jit
def pool_centred(start, begin, end, tokens, sizes, table, HIDDEN_SIZE: tl.constexpr, BLOCK_H: tl.constexpr,
                 BLOCK_ROWS: tl.constexpr, BLOCK_TOKENS: tl.constexpr, NUM_STAGES: tl.constexpr):
    """The sum of x_hat over columns ``begin`` to ``end[r] - 1`` of each row ``[R, H]``, and the number of valid tokens
    among them ``[R]``."""
    _, attention_mask, _, _, _ = tokens
    total = tl.zeros((BLOCK_ROWS, BLOCK_TOKENS, BLOCK_H), tl.float32)
    num_valid = tl.zeros((BLOCK_ROWS, BLOCK_TOKENS), tl.int32)
    for offset in tl.range(begin, tl.max(end), BLOCK_TOKENS, num_stages=NUM_STAGES):
        column = (offset + tl.arange(0, BLOCK_TOKENS)[None, :]).to(tl.int64)
        place = start[:, None] + column
        valid = is_valid(place, column, end[:, None], attention_mask)
        e, rstd = load_centred_tokens(place, column, valid, tokens, sizes, table, HIDDEN_SIZE, BLOCK_H)
        # Selected: the context of a token that is not valid has been read too, and may be NaN.
        total += tl.where(valid[:, :, None], e * rstd[:, :, None], 0.0)
        num_valid += valid.to(tl.int32)
    return tl.sum(total, axis=1), tl.sum(num_valid, axis=1)


@triton.jit
def divide(total, num_valid, SUM: tl.constexpr):
    """Turn sums ``[R, H]`` into pooled rows, and return ``beta_share [R]`` with them."""
    if SUM:
        pooled, beta_share = total, num_valid.to(tl.float32)
    else:
        pooled = total / tl.maximum(num_valid, 1).to(tl.float32)[:, None]
        beta_share = tl.where(num_valid > 0, 1.0, 0.0)
    return pooled, beta_share


@kernel(do_not_specialize=SIZES)
def dsn_logits_kernel(
        input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, word, word_scale, context, weight, bias,
        beta_bias, lateral, top, logits, num_rows, length, num_tokens, vocab_size, num_types, num_positions, eps,
        HIDDEN_SIZE: tl.constexpr, NUM_LABELS: tl.constexpr, NUM_DENDRITES: tl.constexpr, ACTIVATION: tl.constexpr,
        SUM: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_ROWS: tl.constexpr,
        BLOCK_TOKENS: tl.constexpr, NUM_STAGES: tl.constexpr):
    """Token ids -> logits ``[B, C]``. One program per ``BLOCK_ROWS`` rows."""
    tokens = (input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids)
    batch = (num_rows, length, num_tokens)
    sizes = (vocab_size, num_types, num_positions)
    table = (word, word_scale, context, eps)
    head = (weight, bias, beta_bias, lateral, top)
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    start, count, nan_guard = load_row_bounds(row, batch, cu_seqlens)
    total, num_valid = pool_centred(start, 0, count, tokens, sizes, table, HIDDEN_SIZE, BLOCK_H, BLOCK_ROWS,
                                    BLOCK_TOKENS, NUM_STAGES)
    pooled, beta_share = divide(total + nan_guard[:, None], num_valid, SUM)
    store_logits(pooled, beta_share, row, row < num_rows, head, logits, HIDDEN_SIZE, NUM_LABELS, NUM_DENDRITES,
                 ACTIVATION, BLOCK_H, BLOCK_C)


@kernel(do_not_specialize=SIZES)
def dsn_splits_kernel(
        input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, word, word_scale, context, split_sums,
        split_valid, split_row, num_rows, length, num_tokens, vocab_size, num_types, num_positions, eps,
        HIDDEN_SIZE: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_TOKENS: tl.constexpr, SPLIT_COLUMNS: tl.constexpr,
        NUM_STAGES: tl.constexpr):
    """Token ids -> the sum of x_hat over each split ``[S, H]`` and its number of valid tokens ``[S]``. One program per
    split."""
    tokens = (input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids)
    batch = (num_rows, length, num_tokens)
    sizes = (vocab_size, num_types, num_positions)
    table = (word, word_scale, context, eps)
    split = tl.program_id(0).to(tl.int64) + tl.zeros((1,), tl.int64)
    row, start, begin, end = find_split(split, batch, cu_seqlens, SPLIT_COLUMNS)
    total, num_valid = pool_centred(start, tl.max(begin), end, tokens, sizes, table, HIDDEN_SIZE, BLOCK_H, 1,
                                    BLOCK_TOKENS, NUM_STAGES)
    store_split(split, row, total, num_valid, total, (split_sums, None, split_valid, split_row), HIDDEN_SIZE, BLOCK_H)


@kernel(do_not_specialize=SIZES)
def dsn_combine_kernel(
        cu_seqlens, split_sums, split_valid, split_row, weight, bias, beta_bias, lateral, top, logits, num_rows, length,
        num_tokens, HIDDEN_SIZE: tl.constexpr, NUM_LABELS: tl.constexpr, NUM_DENDRITES: tl.constexpr,
        ACTIVATION: tl.constexpr, SUM: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_C: tl.constexpr,
        BLOCK_ROWS: tl.constexpr, SPLIT_COLUMNS: tl.constexpr):
    """What ``dsn_splits_kernel`` stored -> logits ``[B, C]``. One program per ``BLOCK_ROWS`` rows."""
    batch = (num_rows, length, num_tokens)
    head = (weight, bias, beta_bias, lateral, top)
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    total, num_valid, _ = add_splits(row, batch, cu_seqlens, (split_sums, None, split_valid, split_row), HIDDEN_SIZE,
                                     BLOCK_H, BLOCK_ROWS, SPLIT_COLUMNS)
    pooled, beta_share = divide(total, num_valid, SUM)
    store_logits(pooled, beta_share, row, row < num_rows, head, logits, HIDDEN_SIZE, NUM_LABELS, NUM_DENDRITES,
                 ACTIVATION, BLOCK_H, BLOCK_C)


@kernel(do_not_specialize=SIZES)
def dsn_token_logits_kernel(
        input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, bounds, word, word_scale, context, weight,
        bias, beta_bias, lateral, top, logits, num_rows, length, num_tokens, num_bounds, vocab_size, num_types,
        num_positions, eps, HIDDEN_SIZE: tl.constexpr, NUM_LABELS: tl.constexpr, NUM_DENDRITES: tl.constexpr,
        ACTIVATION: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_TOKENS: tl.constexpr):
    """Token ids -> logits of every token ``[B * L, C]`` or ``[T, C]``: 0 where the mask hides the token, NaN where no
    row or more than one holds it. One program per ``BLOCK_TOKENS`` tokens."""
    tokens = (input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids)
    batch = (num_rows, length, num_tokens)
    sizes = (vocab_size, num_types, num_positions)
    table = (word, word_scale, context, eps)
    head = (weight, bias, beta_bias, lateral, top)
    place = tl.program_id(0).to(tl.int64) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    inside = place < num_tokens
    column = place * 0
    if cu_seqlens is not None:
        row = find_row(place, cu_seqlens, num_rows, 0) if position_ids is None else place * 0
        all_valid = cu_seqlens_is_valid(cu_seqlens, bounds, num_bounds, batch)
        column, held = find_columns(place, row, all_valid, cu_seqlens, batch)
    elif position_ids is None:
        column = place % length
    valid = is_valid(place, place, num_tokens, attention_mask)
    e, rstd = load_centred_tokens(place[:, None], column[:, None], valid[:, None], tokens, sizes, table, HIDDEN_SIZE,
                                  BLOCK_H)
    if cu_seqlens is not None:
        rstd = tl.where(held[:, None], rstd, float("nan"))
    x_hat = tl.reshape(e * rstd[:, :, None], (BLOCK_TOKENS, BLOCK_H))
    store_logits(x_hat, valid.to(tl.float32), place, valid, head, logits, HIDDEN_SIZE, NUM_LABELS, NUM_DENDRITES,
                 ACTIVATION, BLOCK_H, BLOCK_C)
    if attention_mask is not None:
        for label in range(0, NUM_LABELS, BLOCK_C):
            c = label + tl.arange(0, BLOCK_C)
            tl.store(logits + place[:, None] * NUM_LABELS + c[None, :], tl.zeros((BLOCK_TOKENS, BLOCK_C), tl.float32),
                     mask=(inside & (valid == 0))[:, None] & (c < NUM_LABELS)[None, :])


@triton.jit
def pool_embedded(row, start, begin, end, tokens, batch, sizes, bounds, num_bounds, embeddings, eps, dropout,
                  stored_rstd, HIDDEN_SIZE: tl.constexpr, DROP_EMBED: tl.constexpr, BLOCK_H: tl.constexpr,
                  BLOCK_ROWS: tl.constexpr, BLOCK_TOKENS: tl.constexpr, NUM_STAGES: tl.constexpr):
    """``pool_centred`` from the parameters and with dropout. The third result is how often each channel kept beta:
    ``[R, H]``, or ``[R, 1]`` without dropout.

    Stores the ``rstd`` of every token, unless cu_seqlens is invalid: then two rows might store that of one token.
    """
    _, attention_mask, cu_seqlens, _, _ = tokens
    seed, threshold, scale = dropout
    stored_end = end
    if cu_seqlens is not None:
        stored_end = tl.where(cu_seqlens_is_valid(cu_seqlens, bounds, num_bounds, batch), end, 0)
    total = tl.zeros((BLOCK_ROWS, BLOCK_TOKENS, BLOCK_H), tl.float32)
    num_valid = tl.zeros((BLOCK_ROWS, BLOCK_TOKENS), tl.int32)
    if DROP_EMBED:
        beta_kept = tl.zeros((BLOCK_ROWS, BLOCK_TOKENS, BLOCK_H), tl.float32)
    for offset in tl.range(begin, tl.max(end), BLOCK_TOKENS, num_stages=NUM_STAGES):
        column = (offset + tl.arange(0, BLOCK_TOKENS)[None, :]).to(tl.int64)
        place = start[:, None] + column
        valid = is_valid(place, column, end[:, None], attention_mask)
        token_id, token_type, position, context_inside, inside = load_token_indices(place, column, valid, tokens, sizes)
        e = centre_tokens(valid & inside, token_id, token_type, position, context_inside, embeddings, HIDDEN_SIZE,
                          BLOCK_H)
        rstd = tl.rsqrt(tl.sum(e * e, axis=2) / HIDDEN_SIZE + eps)
        rstd = tl.where(valid, tl.where(inside, rstd, float("nan")), 0.0)
        tl.store(stored_rstd + place, rstd, mask=column < stored_end[:, None])
        x_hat = e * rstd[:, :, None]
        if DROP_EMBED:
            keep = keep_channels(seed, row[:, None], column, threshold, EMBED_STREAM, BLOCK_H)
            keep = tl.where(keep, scale, 0.0)
            x_hat = x_hat * keep
            beta_kept += tl.where(valid[:, :, None], keep, 0.0)
        total += x_hat
        num_valid += valid.to(tl.int32)
    row_valid = tl.sum(num_valid, axis=1)
    row_beta = tl.sum(beta_kept, axis=1) if DROP_EMBED else row_valid.to(tl.float32)[:, None]
    return tl.sum(total, axis=1), row_valid, row_beta


@triton.jit
def store_pooled(row, total, num_valid, beta_kept, num_rows, ln_weight, ln_bias, dropout, pooled, pooled_hat,
                 HIDDEN_SIZE: tl.constexpr, SUM: tl.constexpr, DROP_EMBED: tl.constexpr, DROP_POOL: tl.constexpr,
                 BLOCK_H: tl.constexpr, BLOCK_ROWS: tl.constexpr):
    """Sums of x_hat ``[R, H]`` -> ``pooled``, and ``pooled_hat`` before gamma, beta and the dropout of pooled rows."""
    h = tl.arange(0, BLOCK_H)
    row_hat, beta_share = divide(total, num_valid, SUM)
    beta_share = beta_share[:, None]
    if DROP_EMBED:
        beta_share, _ = divide(beta_kept, num_valid, SUM)
    gamma = tl.load(ln_weight + h, mask=h < HIDDEN_SIZE, other=0.0).to(tl.float32)[None, :]
    beta = tl.load(ln_bias + h, mask=h < HIDDEN_SIZE, other=0.0).to(tl.float32)[None, :]
    result = row_hat * gamma + beta_share * beta
    if DROP_POOL:
        _, _, scale = dropout
        result = tl.where(keep_pooled_channels(row, dropout, BLOCK_H, BLOCK_ROWS), result * scale, 0.0)
    stored = (row < num_rows)[:, None] & (h < HIDDEN_SIZE)[None, :]
    places = row[:, None] * HIDDEN_SIZE + h[None, :]
    tl.store(pooled_hat + places, row_hat, mask=stored)
    tl.store(pooled + places, result.to(pooled.dtype.element_ty), mask=stored)


@kernel(do_not_specialize=[*SIZES, "embed_threshold", "pool_threshold"])
def embed_pool_kernel(
        input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, bounds, word_embeddings,
        position_embeddings, token_type_embeddings, ln_weight, ln_bias, seed, pooled, pooled_hat, rstd, num_rows,
        length, num_tokens, num_bounds, vocab_size, num_types, num_positions, eps, embed_threshold, embed_scale,
        pool_threshold, pool_scale, HIDDEN_SIZE: tl.constexpr, SUM: tl.constexpr, DROP_EMBED: tl.constexpr,
        DROP_POOL: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_TOKENS: tl.constexpr,
        NUM_STAGES: tl.constexpr):
    """Token ids -> ``pooled [B, H]``, ``pooled_hat [B, H]`` before gamma, beta and the dropout of pooled rows, and
    ``rstd [T]``. One program per ``BLOCK_ROWS`` rows.

    Dropout multiplies the channels that it keeps by ``scale = 1 / (1 - p)``. With k_t for that mask, gamma and beta
    still leave the loop: ``sum_t k_t (gamma x_hat_t + beta) = gamma sum_t k_t x_hat_t + beta sum_t k_t``.
    """
    tokens = (input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids)
    batch = (num_rows, length, num_tokens)
    sizes = (vocab_size, num_types, num_positions)
    embeddings = (word_embeddings, position_embeddings, token_type_embeddings)
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    start, count, nan_guard = load_row_bounds(row, batch, cu_seqlens)
    total, num_valid, beta_kept = pool_embedded(
        row, start, 0, count, tokens, batch, sizes, bounds, num_bounds, embeddings, eps,
        (seed, embed_threshold, embed_scale), rstd, HIDDEN_SIZE, DROP_EMBED, BLOCK_H, BLOCK_ROWS, BLOCK_TOKENS,
        NUM_STAGES)
    store_pooled(row, total + nan_guard[:, None], num_valid, beta_kept, num_rows, ln_weight, ln_bias,
                 (seed, pool_threshold, pool_scale), pooled, pooled_hat, HIDDEN_SIZE, SUM, DROP_EMBED, DROP_POOL,
                 BLOCK_H, BLOCK_ROWS)


@kernel(do_not_specialize=[*SIZES, "embed_threshold"])
def embed_pool_splits_kernel(
        input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, bounds, word_embeddings,
        position_embeddings, token_type_embeddings, seed, split_sums, split_beta, split_valid, split_row, rstd,
        num_rows, length, num_tokens, num_bounds, vocab_size, num_types, num_positions, eps, embed_threshold,
        embed_scale, HIDDEN_SIZE: tl.constexpr, DROP_EMBED: tl.constexpr, BLOCK_H: tl.constexpr,
        BLOCK_TOKENS: tl.constexpr, SPLIT_COLUMNS: tl.constexpr, NUM_STAGES: tl.constexpr):
    """``dsn_splits_kernel`` from the parameters; with dropout also how often each channel kept beta ``[S, H]``."""
    tokens = (input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids)
    batch = (num_rows, length, num_tokens)
    sizes = (vocab_size, num_types, num_positions)
    embeddings = (word_embeddings, position_embeddings, token_type_embeddings)
    split = tl.program_id(0).to(tl.int64) + tl.zeros((1,), tl.int64)
    row, start, begin, end = find_split(split, batch, cu_seqlens, SPLIT_COLUMNS)
    total, num_valid, beta_kept = pool_embedded(
        row, start, tl.max(begin), end, tokens, batch, sizes, bounds, num_bounds, embeddings, eps,
        (seed, embed_threshold, embed_scale), rstd, HIDDEN_SIZE, DROP_EMBED, BLOCK_H, 1, BLOCK_TOKENS, NUM_STAGES)
    store_split(split, row, total, num_valid, beta_kept, (split_sums, split_beta, split_valid, split_row), HIDDEN_SIZE,
                BLOCK_H)


@kernel(do_not_specialize=[*SIZES, "pool_threshold"])
def embed_pool_combine_kernel(
        cu_seqlens, ln_weight, ln_bias, seed, split_sums, split_beta, split_valid, split_row, pooled, pooled_hat,
        num_rows, length, num_tokens, pool_threshold, pool_scale, HIDDEN_SIZE: tl.constexpr, SUM: tl.constexpr,
        DROP_EMBED: tl.constexpr, DROP_POOL: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_ROWS: tl.constexpr,
        SPLIT_COLUMNS: tl.constexpr):
    """What ``embed_pool_splits_kernel`` stored -> ``pooled [B, H]`` and ``pooled_hat [B, H]``."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    total, num_valid, beta_kept = add_splits(
        row, (num_rows, length, num_tokens), cu_seqlens, (split_sums, split_beta, split_valid, split_row), HIDDEN_SIZE,
        BLOCK_H, BLOCK_ROWS, SPLIT_COLUMNS)
    store_pooled(row, total, num_valid, beta_kept, num_rows, ln_weight, ln_bias, (seed, pool_threshold, pool_scale),
                 pooled, pooled_hat, HIDDEN_SIZE, SUM, DROP_EMBED, DROP_POOL, BLOCK_H, BLOCK_ROWS)

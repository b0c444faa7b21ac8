"""The gradients of ``embed_pool`` in Triton. How a launch is put together stands in ``triton_forward``.

With G = gamma * g * scale, g the gradient of a pooled row and scale what pooling and dropout multiply a token by, k the
dropout mask of a token and x its normalised embedding (before gamma and beta), LayerNorm's backward is

    d e_t = rstd_t * (k G - mean(k G) - x_t * mean(k G * x_t))

Nothing but ``rstd`` is kept from the forward pass: x and the mask are computed again. ``row_gradients_kernel`` makes G
and every row's share of the gradients of gamma and beta. From there the embeddings' gradients go one of two ways:

* ``scatter_gradients_kernel`` adds every d e_t to its rows with atomics: the fast form, in whatever order.
* ``segment_gradients_kernel`` goes through the tokens in the order of their sorted ids. A segment, the tokens of one
  id, is summed by one program and written once, with no atomics and no read-modify-write: the same bits in every run.
  The sorted tokens are cut every ``CHUNK`` tokens, so that a frequent id does not keep one program busy for long;
  ``segment_combine_kernel`` adds the pieces of a segment that was cut, in their order.
"""

import triton
import triton.language as tl

from .triton_forward import (
    EMBED_STREAM,
    POOL_STREAM,
    SIZES,
    divided,
    dropout_keep,
    embedded_tokens,
    row_bounds,
    row_of,
    shown_tokens,
    token_indices,
)


@triton.jit(do_not_specialize=[*SIZES, "embed_threshold", "pool_threshold"])
def row_gradients_kernel(
        attention_mask, cu_seqlens, grad_pooled, pooled_hat, ln_weight, seed, row_gradient, gamma_share, beta_share,
        num_rows, length, num_tokens, embed_threshold, embed_scale, pool_threshold, pool_scale,
        HIDDEN_SIZE: tl.constexpr, SUM: tl.constexpr, DROP_EMBED: tl.constexpr, DROP_POOL: tl.constexpr,
        BLOCK_H: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_TOKENS: tl.constexpr):
    """G, and each row's part of the gradients of gamma and beta: three times ``[B, H]`` float32."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    start, count, poison = row_bounds(row, num_rows, length, num_tokens, cu_seqlens)
    kept = tl.zeros((BLOCK_ROWS, BLOCK_TOKENS), tl.int32)
    if DROP_EMBED:
        beta_kept = tl.zeros((BLOCK_ROWS, BLOCK_TOKENS, BLOCK_H), tl.float32)
    for offset in tl.range(0, tl.max(count), BLOCK_TOKENS):
        column = (offset + tl.arange(0, BLOCK_TOKENS)[None, :]).to(tl.int64)
        shown = shown_tokens(start[:, None] + column, column, count[:, None], attention_mask)
        kept += shown.to(tl.int32)
        if DROP_EMBED:
            keep = dropout_keep(seed, row[:, None], column, embed_threshold, EMBED_STREAM, BLOCK_H)
            beta_kept += tl.where(keep & shown[:, :, None], embed_scale, 0.0)
    h = tl.arange(0, BLOCK_H)
    stored = (row < num_rows)[:, None] & (h < HIDDEN_SIZE)[None, :]
    places = row[:, None] * HIDDEN_SIZE + h[None, :]
    grad = tl.load(grad_pooled + places, mask=stored, other=0.0).to(tl.float32) + poison[:, None]
    if DROP_POOL:
        keep = dropout_keep(seed, row[:, None], row[:, None] * 0, pool_threshold, POOL_STREAM, BLOCK_H)
        grad = tl.where(tl.reshape(keep, (BLOCK_ROWS, BLOCK_H)), grad * pool_scale, 0.0)
    # The same division as of the pooled row: G is what one of its tokens gets.
    row_kept = tl.sum(kept, axis=1)
    token_grad, share = divided(grad, row_kept, SUM)
    beta_grad = grad * share[:, None]
    if DROP_EMBED:
        beta_grad = token_grad * tl.sum(beta_kept, axis=1)
    gamma = tl.load(ln_weight + h, mask=h < HIDDEN_SIZE, other=0.0).to(tl.float32)[None, :]
    tl.store(row_gradient + places, token_grad * gamma, mask=stored)
    tl.store(gamma_share + places, grad * tl.load(pooled_hat + places, mask=stored, other=0.0), mask=stored)
    tl.store(beta_share + places, beta_grad, mask=stored)


@triton.jit
def token_gradients(place, row, column, read, token_id, token_type, position, inside, word_embeddings,
                    position_embeddings, token_type_embeddings, seed, rstd, row_gradient, embed_threshold, embed_scale,
                    HIDDEN_SIZE: tl.constexpr, DROP_EMBED: tl.constexpr, BLOCK_H: tl.constexpr):
    """``d e_t`` of tokens ``[R, T]`` -> ``[R, T, H]``, 0 where a token is not read; ``row`` may be ``[R, 1]``."""
    h = tl.arange(0, BLOCK_H)[None, None, :]
    known = read[:, :, None] & (h < HIDDEN_SIZE)
    x = embedded_tokens(read, token_id, token_type, position, inside, word_embeddings, position_embeddings,
                        token_type_embeddings, HIDDEN_SIZE, BLOCK_H)
    factor = tl.load(rstd + place, mask=read, other=0.0)[:, :, None]
    x = x * factor
    gradient = tl.load(row_gradient + row[:, :, None] * HIDDEN_SIZE + h, mask=known, other=0.0)
    if DROP_EMBED:
        keep = dropout_keep(seed, row, column, embed_threshold, EMBED_STREAM, BLOCK_H)
        gradient = tl.where(keep, gradient * embed_scale, 0.0)
    mean = tl.sum(gradient, axis=2) / HIDDEN_SIZE
    slope = tl.sum(gradient * x, axis=2) / HIDDEN_SIZE
    return tl.where(known, factor * (gradient - mean[:, :, None] - x * slope[:, :, None]), 0.0)


@triton.jit(do_not_specialize=[*SIZES, "embed_threshold"])
def scatter_gradients_kernel(
        input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, word_embeddings, position_embeddings,
        token_type_embeddings, seed, rstd, row_gradient, d_word, d_context, num_rows, length, num_tokens, vocab_size,
        num_types, num_positions, embed_threshold, embed_scale, HIDDEN_SIZE: tl.constexpr, DROP_EMBED: tl.constexpr,
        BLOCK_H: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_TOKENS: tl.constexpr):
    """Adds every token's gradient to ``d_word [V, H]`` and ``d_context [K * P, H]``, both float32, by atomics."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    start, count, _ = row_bounds(row, num_rows, length, num_tokens, cu_seqlens)
    h = tl.arange(0, BLOCK_H)[None, None, :]
    for offset in tl.range(0, tl.max(count), BLOCK_TOKENS):
        column = (offset + tl.arange(0, BLOCK_TOKENS)[None, :]).to(tl.int64)
        place = start[:, None] + column
        shown = shown_tokens(place, column, count[:, None], attention_mask)
        token_id, token_type, position, inside, readable = token_indices(
            place, column, shown, input_ids, token_type_ids, position_ids, vocab_size, num_types, num_positions)
        read = shown & readable
        gradient = token_gradients(
            place, row[:, None], column, read, token_id, token_type, position, inside, word_embeddings,
            position_embeddings, token_type_embeddings, seed, rstd, row_gradient, embed_threshold, embed_scale,
            HIDDEN_SIZE, DROP_EMBED, BLOCK_H)
        stored = read[:, :, None] & (h < HIDDEN_SIZE)
        context = token_type * num_positions + position + place * 0
        if d_word is not None:
            tl.atomic_add(d_word + token_id[:, :, None] * HIDDEN_SIZE + h, gradient, mask=stored, sem="relaxed")
        tl.atomic_add(d_context + context[:, :, None] * HIDDEN_SIZE + h, gradient, mask=stored, sem="relaxed")


@triton.jit(do_not_specialize=[*SIZES, "embed_threshold", "num_segments", "num_pieces"])
def segment_gradients_kernel(
        input_ids, token_type_ids, position_ids, word_embeddings, position_embeddings, token_type_embeddings, seed,
        rstd, row_gradient, token_row, token_column, order, offsets, sums, cut_sums, num_segments, num_pieces,
        vocab_size, num_types, num_positions, embed_threshold, embed_scale, HIDDEN_SIZE: tl.constexpr,
        DROP_EMBED: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_TOKENS: tl.constexpr,
        CHUNK: tl.constexpr):
    """Sums of ``d e_t`` over segments: token ``order[i]`` for i from ``offsets[s]`` to ``offsets[s + 1] - 1``.

    Segment s has a piece for each chunk of ``CHUNK`` sorted tokens it touches, numbered from
    ``offsets[s] // CHUNK + s``. What lies in one chunk is written to ``sums [S, H]``; of a longer segment, chunk j's
    piece goes to row 2j of ``cut_sums``, or 2j + 1 where the segment starts there: no two share a row.
    """
    piece = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    segment = row_of(piece, offsets, num_segments, CHUNK)
    start = tl.load(offsets + segment).to(tl.int64)
    end = tl.load(offsets + segment + 1).to(tl.int64)
    chunk = piece - segment  # start // CHUNK + the number of the piece in its segment
    begin = tl.maximum(start, chunk * CHUNK)
    stop = tl.where(piece < num_pieces, tl.minimum(end, (chunk + 1) * CHUNK), 0)
    total = tl.zeros((BLOCK_ROWS, BLOCK_TOKENS, BLOCK_H), tl.float32)
    for offset in tl.range(0, tl.max(stop - begin), BLOCK_TOKENS):
        i = begin[:, None] + offset + tl.arange(0, BLOCK_TOKENS)[None, :]
        read = i < stop[:, None]
        place = tl.load(order + i, mask=read, other=0).to(tl.int64)
        row = tl.load(token_row + place, mask=read, other=0).to(tl.int64)
        column = tl.load(token_column + place, mask=read, other=0).to(tl.int64)
        token_id, token_type, position, inside, readable = token_indices(
            place, column, read, input_ids, token_type_ids, position_ids, vocab_size, num_types, num_positions)
        total += token_gradients(
            place, row, column, read & readable, token_id, token_type, position, inside, word_embeddings,
            position_embeddings, token_type_embeddings, seed, rstd, row_gradient, embed_threshold, embed_scale,
            HIDDEN_SIZE, DROP_EMBED, BLOCK_H)
    h = tl.arange(0, BLOCK_H)[None, :]
    result = tl.sum(total, axis=1)
    first = chunk == start // CHUNK
    whole = (piece < num_pieces) & first & (end <= (chunk + 1) * CHUNK)
    cut = (begin < stop) & (whole == 0)
    tl.store(sums + segment[:, None] * HIDDEN_SIZE + h, result.to(sums.dtype.element_ty),
             mask=whole[:, None] & (h < HIDDEN_SIZE))
    tl.store(cut_sums + (2 * chunk + first.to(tl.int64))[:, None] * HIDDEN_SIZE + h, result,
             mask=cut[:, None] & (h < HIDDEN_SIZE))


@triton.jit(do_not_specialize=["num_segments"])
def segment_combine_kernel(offsets, sums, cut_sums, num_segments, HIDDEN_SIZE: tl.constexpr, BLOCK_H: tl.constexpr,
                           BLOCK_ROWS: tl.constexpr, CHUNK: tl.constexpr):
    """The segments that ``segment_gradients_kernel`` cut: their pieces, added in their order, into ``sums [S, H]``."""
    segment = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    inside = segment < num_segments
    start = tl.load(offsets + segment, mask=inside, other=0).to(tl.int64)
    end = tl.load(offsets + segment + 1, mask=inside, other=0).to(tl.int64)
    first = start // CHUNK
    chunks = tl.where(end > (first + 1) * CHUNK, (end + CHUNK - 1) // CHUNK - first, 0)
    h = tl.arange(0, BLOCK_H)[None, :]
    total = tl.zeros((BLOCK_ROWS, BLOCK_H), tl.float32)
    for k in range(0, tl.max(chunks)):
        place = 2 * (first + k) + tl.where(k == 0, 1, 0)
        total += tl.load(cut_sums + place[:, None] * HIDDEN_SIZE + h, other=0.0,
                         mask=(k < chunks)[:, None] & (h < HIDDEN_SIZE))
    tl.store(sums + segment[:, None] * HIDDEN_SIZE + h, total.to(sums.dtype.element_ty),
             mask=(chunks > 0)[:, None] & (h < HIDDEN_SIZE))

"""The gradients of ``embed_pool`` in Triton. How a launch is put together stands in ``triton_forward``.

With G = gamma * g * scale, g the gradient of a pooled row and scale what pooling and dropout multiply a token by, k the
dropout mask of a token and x its normalised embedding (before gamma and beta), LayerNorm's backward is

    d e_t = rstd_t * (k G - mean(k G) - x_t * mean(k G * x_t))

Nothing but ``rstd`` is kept from the forward pass: x and the mask are computed again. The gradients go one of two ways:

* ``scatter_gradients_kernel`` makes G of its rows and adds every d e_t to where it belongs with atomics: one launch, in
  whatever order. Rows that are long and few are cut into pieces, as in the forward pass.
* ``row_gradients_kernel`` writes G of every row, and ``segment_gradients_kernel`` goes through the tokens in the order
  of their ids. A segment, the tokens of one id, is summed by one program and written once, with no atomics and no
  read-modify-write. It is cut every ``CHUNK`` tokens, so that a frequent id does not keep one program busy for long;
  ``segment_combine_kernel`` adds the pieces of a segment that was cut, in their order. The order is one of two:
  - ``order_tokens_kernel`` sorts by counting, 26 bytes a token; tokens of an id come in whatever order. A token's
    gradient is its position's and type's too, and is added to theirs by atomics on the way.
  - ``token_keys_kernel`` writes by what tokens are sorted, by ids and by positions and types, and torch sorts both,
    stably: the same bits in every run.

Where cu_seqlens makes no sense anywhere (``sound`` is False), rows may share tokens and with them ``rstd``: G is NaN.
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
    piece_bounds,
    row_bounds,
    row_of,
    shown_tokens,
    token_indices,
)

MASK_TOKENS = tl.constexpr(128)  # of a row, looked at together where nothing but their number is wanted


@triton.jit
def count_tokens(start, count, attention_mask, BLOCK_ROWS: tl.constexpr):
    """How many tokens of rows the pooling took in ``[R]``."""
    kept = count.to(tl.int32)
    if attention_mask is not None:
        kept = tl.zeros((BLOCK_ROWS,), tl.int32)
        for offset in tl.range(0, tl.max(count), MASK_TOKENS):
            column = (offset + tl.arange(0, MASK_TOKENS)[None, :]).to(tl.int64)
            shown = shown_tokens(start[:, None] + column, column, count[:, None], attention_mask)
            kept += tl.sum(shown.to(tl.int32), axis=1)
    return kept


@triton.jit
def row_gradients(row, kept, num_rows, sound, grad_pooled, ln_weight, seed, pool_threshold, pool_scale,
                  HIDDEN_SIZE: tl.constexpr, SUM: tl.constexpr, DROP_POOL: tl.constexpr, BLOCK_H: tl.constexpr,
                  BLOCK_ROWS: tl.constexpr):
    """Of rows ``[R, H]``: the gradient before p_pool, what a token gets of it, that times gamma, which is G; and how
    often the pooled row holds beta ``[R]``."""
    h = tl.arange(0, BLOCK_H)
    known = (row < num_rows)[:, None] & (h < HIDDEN_SIZE)[None, :]
    grad = tl.load(grad_pooled + row[:, None] * HIDDEN_SIZE + h[None, :], mask=known, other=0.0).to(tl.float32)
    if sound is not None:
        grad += tl.where(tl.load(sound) != 0, 0.0, float("nan"))
    if DROP_POOL:
        keep = dropout_keep(seed, row[:, None], row[:, None] * 0, pool_threshold, POOL_STREAM, BLOCK_H)
        grad = tl.where(tl.reshape(keep, (BLOCK_ROWS, BLOCK_H)), grad * pool_scale, 0.0)
    # The same division as of the pooled row.
    token_grad, beta_share = divided(grad, kept, SUM)
    gamma = tl.load(ln_weight + h, mask=h < HIDDEN_SIZE, other=0.0).to(tl.float32)[None, :]
    return grad, token_grad, token_grad * gamma, beta_share


@triton.jit(do_not_specialize=[*SIZES, "embed_threshold", "pool_threshold"])
def row_gradients_kernel(
        attention_mask, cu_seqlens, sound, grad_pooled, pooled_hat, ln_weight, seed, row_gradient, d_ln_weight,
        d_ln_bias, num_rows, length, num_tokens, embed_threshold, embed_scale, pool_threshold, pool_scale,
        HIDDEN_SIZE: tl.constexpr, SUM: tl.constexpr, DROP_EMBED: tl.constexpr, DROP_POOL: tl.constexpr,
        BLOCK_H: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_TOKENS: tl.constexpr, ATOMIC: tl.constexpr):
    """G ``[B, H]``, and what the rows add to the gradients of gamma and beta: added to ``[H]`` where ATOMIC, else every
    program's in a row of ``[programs, H]``; float32."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    start, count, _ = row_bounds(row, num_rows, length, num_tokens, cu_seqlens)
    kept = count_tokens(start, count, attention_mask, BLOCK_ROWS)
    grad, token_grad, gradient, beta_share = row_gradients(
        row, kept, num_rows, sound, grad_pooled, ln_weight, seed, pool_threshold, pool_scale, HIDDEN_SIZE, SUM,
        DROP_POOL, BLOCK_H, BLOCK_ROWS)
    h = tl.arange(0, BLOCK_H)
    places = row[:, None] * HIDDEN_SIZE + h[None, :]
    stored = (row < num_rows)[:, None] & (h < HIDDEN_SIZE)[None, :]
    tl.store(row_gradient + places, gradient, mask=stored)
    gamma_grad = grad * tl.load(pooled_hat + places, mask=stored, other=0.0)
    beta_grad = grad * beta_share[:, None]
    if DROP_EMBED:
        # Philox alone, 10 us for 512 columns at H = 128: not worth pieces.
        beta_kept = tl.zeros((BLOCK_ROWS, BLOCK_TOKENS, BLOCK_H), tl.float32)
        for offset in tl.range(0, tl.max(count), BLOCK_TOKENS):
            column = (offset + tl.arange(0, BLOCK_TOKENS)[None, :]).to(tl.int64)
            shown = shown_tokens(start[:, None] + column, column, count[:, None], attention_mask)
            keep = dropout_keep(seed, row[:, None], column, embed_threshold, EMBED_STREAM, BLOCK_H)
            beta_kept += tl.where(keep & shown[:, :, None], embed_scale, 0.0)
        beta_grad = token_grad * tl.sum(beta_kept, axis=1)
    if ATOMIC:
        tl.atomic_add(d_ln_weight + h, tl.sum(gamma_grad, axis=0), mask=h < HIDDEN_SIZE, sem="relaxed")
        tl.atomic_add(d_ln_bias + h, tl.sum(beta_grad, axis=0), mask=h < HIDDEN_SIZE, sem="relaxed")
    else:
        shares = tl.program_id(0).to(tl.int64) * HIDDEN_SIZE + h
        tl.store(d_ln_weight + shares, tl.sum(gamma_grad, axis=0), mask=h < HIDDEN_SIZE)
        tl.store(d_ln_bias + shares, tl.sum(beta_grad, axis=0), mask=h < HIDDEN_SIZE)


@triton.jit
def token_gradients(place, read, token_id, token_type, position, inside, gradient, word_embeddings, position_embeddings,
                    token_type_embeddings, rstd, HIDDEN_SIZE: tl.constexpr, BLOCK_H: tl.constexpr):
    """``d e_t`` of tokens ``[R, T, H]``, 0 where one is not read; ``gradient`` is k G, of a token or ``[R, 1, H]``."""
    h = tl.arange(0, BLOCK_H)[None, None, :]
    x = embedded_tokens(read, token_id, token_type, position, inside, word_embeddings, position_embeddings,
                        token_type_embeddings, HIDDEN_SIZE, BLOCK_H)
    factor = tl.load(rstd + place, mask=read, other=0.0)[:, :, None]
    x = x * factor
    mean = tl.sum(gradient, axis=2) / HIDDEN_SIZE
    slope = tl.sum(gradient * x, axis=2) / HIDDEN_SIZE
    result = factor * (gradient - mean[:, :, None] - x * slope[:, :, None])
    return tl.where(read[:, :, None] & (h < HIDDEN_SIZE), result, 0.0)


@triton.jit(do_not_specialize=[*SIZES, "embed_threshold", "pool_threshold"])
def scatter_gradients_kernel(
        input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, sound, grad_pooled, pooled_hat,
        word_embeddings, position_embeddings, token_type_embeddings, ln_weight, seed, rstd, d_word, d_context,
        d_ln_weight, d_ln_bias, num_rows, length, num_tokens, vocab_size, num_types, num_positions, embed_threshold,
        embed_scale, pool_threshold, pool_scale, HIDDEN_SIZE: tl.constexpr, SUM: tl.constexpr,
        DROP_EMBED: tl.constexpr, DROP_POOL: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_ROWS: tl.constexpr,
        BLOCK_TOKENS: tl.constexpr, CHUNK: tl.constexpr):
    """Adds every token's gradient to ``d_word [V, H]`` and ``d_context [K * P, H]``, every row's to ``d_ln_weight [H]``
    and ``d_ln_bias [H]``, all float32, by atomics. A program for ``BLOCK_ROWS`` rows, or with CHUNK for a piece."""
    if CHUNK > 0:
        piece = tl.program_id(0).to(tl.int64) + tl.zeros((BLOCK_ROWS,), tl.int64)
        row, start, begin, end = piece_bounds(piece, num_rows, length, num_tokens, cu_seqlens, CHUNK)
        _, count, _ = row_bounds(row, num_rows, length, num_tokens, cu_seqlens)
    else:
        row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
        start, count, _ = row_bounds(row, num_rows, length, num_tokens, cu_seqlens)
        begin, end = row * 0, count
    kept = count_tokens(start, count, attention_mask, BLOCK_ROWS)
    grad, token_grad, row_gradient, beta_share = row_gradients(
        row, kept, num_rows, sound, grad_pooled, ln_weight, seed, pool_threshold, pool_scale, HIDDEN_SIZE, SUM,
        DROP_POOL, BLOCK_H, BLOCK_ROWS)
    h = tl.arange(0, BLOCK_H)
    first = (row < num_rows) & (begin == 0)  # a row's pieces add what is not a token's once
    hat = tl.load(pooled_hat + row[:, None] * HIDDEN_SIZE + h[None, :], other=0.0,
                  mask=first[:, None] & (h < HIDDEN_SIZE)[None, :])
    tl.atomic_add(d_ln_weight + h, tl.sum(grad * hat, axis=0), mask=h < HIDDEN_SIZE, sem="relaxed")
    beta_grad = tl.where(first[:, None], grad * beta_share[:, None], 0.0)
    if DROP_EMBED:
        beta_kept = tl.zeros((BLOCK_ROWS, BLOCK_TOKENS, BLOCK_H), tl.float32)
    for offset in tl.range(tl.max(begin), tl.max(end), BLOCK_TOKENS):
        column = (offset + tl.arange(0, BLOCK_TOKENS)[None, :]).to(tl.int64)
        place = start[:, None] + column
        shown = shown_tokens(place, column, end[:, None], attention_mask)
        token_id, token_type, position, inside, readable = token_indices(
            place, column, shown, input_ids, token_type_ids, position_ids, vocab_size, num_types, num_positions)
        read = shown & readable
        gradient = row_gradient[:, None, :]
        if DROP_EMBED:
            keep = dropout_keep(seed, row[:, None], column, embed_threshold, EMBED_STREAM, BLOCK_H)
            gradient = tl.where(keep, gradient * embed_scale, 0.0)
            beta_kept += tl.where(keep & shown[:, :, None], embed_scale, 0.0)
        gradient = token_gradients(
            place, read, token_id, token_type, position, inside, gradient, word_embeddings, position_embeddings,
            token_type_embeddings, rstd, HIDDEN_SIZE, BLOCK_H)
        known = (h < HIDDEN_SIZE)[None, None, :]
        if d_word is not None:
            tl.atomic_add(d_word + token_id[:, :, None] * HIDDEN_SIZE + h[None, None, :], gradient,
                          mask=read[:, :, None] & known, sem="relaxed")
        added = read
        if token_type_ids is None and position_ids is None:  # a column has one row of the context for all rows
            gradient = tl.sum(gradient, axis=0, keep_dims=True)
            added = inside & (column < tl.max(end))
        context = token_type * num_positions + position
        tl.atomic_add(d_context + context[:, :, None] * HIDDEN_SIZE + h[None, None, :], gradient,
                      mask=added[:, :, None] & known, sem="relaxed")
    if DROP_EMBED:
        beta_grad = token_grad * tl.sum(beta_kept, axis=1)
    tl.atomic_add(d_ln_bias + h, tl.sum(beta_grad, axis=0), mask=h < HIDDEN_SIZE, sem="relaxed")


@triton.jit
def found_tokens(place, input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, num_rows, length,
                 num_tokens, vocab_size, num_types, num_positions):
    """Of tokens ``[T]``: the row, the id, the row of the combined position and type table, and whether all are read."""
    if cu_seqlens is None:
        row = place // length
        column = place - row * length
    else:
        row = row_of(place, cu_seqlens, num_rows, 0)
        column = place - tl.load(cu_seqlens + row).to(tl.int64)
    shown = shown_tokens(place, place, num_tokens, attention_mask)
    token_id, token_type, position, _, readable = token_indices(
        place, column, shown, input_ids, token_type_ids, position_ids, vocab_size, num_types, num_positions)
    return row, token_id, token_type * num_positions + position, shown & readable


@triton.jit(do_not_specialize=SIZES)
def token_keys_kernel(
        input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, word_keys, context_keys, token_row,
        num_rows, length, num_tokens, vocab_size, num_types, num_positions, BLOCK_TOKENS: tl.constexpr):
    """Of every token ``[T]``: the id, the row of the combined position and type table, and its own row.

    A token that is hidden or outside a table has the first key that no row has: ``V``, and ``K * P``.
    """
    place = tl.program_id(0).to(tl.int64) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    row, token_id, context, read = found_tokens(
        place, input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, num_rows, length, num_tokens,
        vocab_size, num_types, num_positions)
    word_key = tl.where(read, token_id, vocab_size)
    context_key = tl.where(read, context, num_types * num_positions)
    inside = place < num_tokens
    tl.store(word_keys + place, word_key.to(word_keys.dtype.element_ty), mask=inside)
    tl.store(context_keys + place, context_key.to(context_keys.dtype.element_ty), mask=inside)
    tl.store(token_row + place, row.to(tl.int32), mask=inside)


@triton.jit(do_not_specialize=SIZES)
def order_tokens_kernel(
        input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, counts, order, token_row, num_rows, length,
        num_tokens, vocab_size, num_types, num_positions, BLOCK_TOKENS: tl.constexpr):
    """A counting sort of the tokens by id, in two launches.

    Without ``order``: how many tokens an id has, added to ``counts [V + 1]`` one place further on, and every token's
    row. With it ``counts`` holds where an id's next token goes, and every token takes a place in ``order``. Tokens that
    are hidden or outside a table have none.
    """
    place = tl.program_id(0).to(tl.int64) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    row, token_id, _, read = found_tokens(
        place, input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, num_rows, length, num_tokens,
        vocab_size, num_types, num_positions)
    one = tl.full((BLOCK_TOKENS,), 1, counts.dtype.element_ty)
    if order is None:
        tl.atomic_add(counts + token_id + 1, one, mask=read, sem="relaxed")
        tl.store(token_row + place, row.to(tl.int32), mask=place < num_tokens)
    else:
        to = tl.atomic_add(counts + token_id, one, mask=read, sem="relaxed")
        tl.store(order + to, place.to(order.dtype.element_ty), mask=read)


@triton.jit(do_not_specialize=[*SIZES, "embed_threshold", "num_segments", "num_pieces"])
def segment_gradients_kernel(
        input_ids, cu_seqlens, token_type_ids, position_ids, word_embeddings, position_embeddings,
        token_type_embeddings, seed, rstd, row_gradient, token_row, order, offsets, sums, cut_sums, d_context,
        num_segments, num_pieces, length, vocab_size, num_types, num_positions, embed_threshold, embed_scale,
        HIDDEN_SIZE: tl.constexpr,
        DROP_EMBED: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_TOKENS: tl.constexpr,
        CHUNK: tl.constexpr):
    """Sums of ``d e_t`` over segments: token ``order[i]`` for i from ``offsets[s]`` to ``offsets[s + 1] - 1``.

    A segment's pieces are ``CHUNK`` tokens each, but for the last. Segment s has as many as it touches chunks, numbered
    from ``offsets[s] // CHUNK + s``, which is enough; those behind its end are empty. The only piece of a segment is
    written to ``sums [S, H]``. Of several, piece k goes to row 2j of ``cut_sums``, j = ``offsets[s] // CHUNK + k``, or
    for k = 0 to row 2j + 1: no two share a row. Where there is ``d_context [K * P, H]``, every ``d e_t`` is added to it
    as well, by atomics.
    """
    piece = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    segment = row_of(piece, offsets, num_segments, CHUNK)
    start = tl.load(offsets + segment).to(tl.int64)
    end = tl.load(offsets + segment + 1).to(tl.int64)
    chunk = piece - segment
    number = chunk - start // CHUNK
    begin = start + number * CHUNK
    stop = tl.where(piece < num_pieces, tl.minimum(end, begin + CHUNK), 0)
    h = tl.arange(0, BLOCK_H)[None, :]
    total = tl.zeros((BLOCK_ROWS, BLOCK_TOKENS, BLOCK_H), tl.float32)
    for offset in tl.range(0, tl.max(stop - begin), BLOCK_TOKENS):
        i = begin[:, None] + offset + tl.arange(0, BLOCK_TOKENS)[None, :]
        read = i < stop[:, None]
        place = tl.load(order + i, mask=read, other=0).to(tl.int64)
        # Found again by a division it would take a tenth more instructions, 8 bytes a token fewer.
        row = tl.load(token_row + place, mask=read, other=0).to(tl.int64)
        if cu_seqlens is None:
            column = place - row * length
        else:
            column = place - tl.load(cu_seqlens + row, mask=read, other=0).to(tl.int64)
        token_id, token_type, position, _, readable = token_indices(
            place, column, read, input_ids, token_type_ids, position_ids, vocab_size, num_types, num_positions)
        read = read & readable
        gradient = tl.load(row_gradient + row[:, :, None] * HIDDEN_SIZE + h[None, :, :], other=0.0,
                           mask=read[:, :, None] & (h < HIDDEN_SIZE)[None, :, :])
        if DROP_EMBED:
            keep = dropout_keep(seed, row, column, embed_threshold, EMBED_STREAM, BLOCK_H)
            gradient = tl.where(keep, gradient * embed_scale, 0.0)
        gradient = token_gradients(
            place, read, token_id, token_type, position, read, gradient, word_embeddings, position_embeddings,
            token_type_embeddings, rstd, HIDDEN_SIZE, BLOCK_H)
        total += gradient
        if d_context is not None:
            context = token_type * num_positions + position
            tl.atomic_add(d_context + context[:, :, None] * HIDDEN_SIZE + h[None, :, :], gradient, sem="relaxed",
                          mask=read[:, :, None] & (h < HIDDEN_SIZE)[None, :, :])
    result = tl.sum(total, axis=1)
    first = number == 0
    whole = (piece < num_pieces) & first & (end - start <= CHUNK)
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
    chunks = tl.where(end - start > CHUNK, (end - start + CHUNK - 1) // CHUNK, 0)
    h = tl.arange(0, BLOCK_H)[None, :]
    total = tl.zeros((BLOCK_ROWS, BLOCK_H), tl.float32)
    for k in range(0, tl.max(chunks)):
        place = 2 * (first + k) + tl.where(k == 0, 1, 0)
        total += tl.load(cut_sums + place[:, None] * HIDDEN_SIZE + h, other=0.0,
                         mask=(k < chunks)[:, None] & (h < HIDDEN_SIZE))
    tl.store(sums + segment[:, None] * HIDDEN_SIZE + h, total.to(sums.dtype.element_ty),
             mask=(chunks > 0)[:, None] & (h < HIDDEN_SIZE))

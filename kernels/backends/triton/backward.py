"""The gradients of ``embed_pool`` in Triton. How a launch is put together stands in ``triton_forward``.

With G = gamma * g * scale, g the gradient of a pooled row and scale what pooling and dropout multiply a token by, k the
dropout mask of a token and x its normalised embedding (before gamma and beta), LayerNorm's backward is

    d e_t = rstd_t * (k G - mean(k G) - x_t * mean(k G * x_t))

Nothing but ``rstd`` is kept from the forward pass: x and the mask are computed again. The gradients go one of two ways:

* ``scatter_gradients_kernel`` makes G of its rows and adds every d e_t to where it belongs with atomics: one launch, in
  whatever order. Rows that are long and few are cut into pieces, as in the forward pass.
* ``segment_gradients_kernel`` goes through the tokens in the order of their ids. A segment, the tokens of one id, is
  summed by one program, which reads the id's word once and writes its gradient once, with no atomics and no
  read-modify-write. It is cut every ``CHUNK`` tokens, so that a frequent id does not keep one program busy for long;
  ``segment_combine_kernel`` adds the pieces of a segment that was cut, in their order. What rows have in common,
  their scale and the gradients of gamma and beta, ``row_gradients_kernel`` makes first. The order is one of two:
  - ``order_tokens_kernel`` sorts by counting: a token's cell is written and read, 4 bytes each; tokens of an id come in
    whatever order. A token's gradient is its position's and type's too, and is added to theirs by atomics on the way.
  - ``token_keys_kernel`` writes by what tokens are sorted, by ids and by positions and types, and torch sorts both,
    stably: the same bits in every run.

An order holds the cells of tokens, ``row * width + column`` where no row is longer than ``width``: in the padded layout
the token's place, packed a number from which its row need not be searched for again.

Where cu_seqlens makes no sense anywhere, rows may share tokens, and the forward pass keeps no ``rstd``: G is NaN.
"""

import triton
import triton.language as tl

from .forward import (
    EMBED_STREAM,
    POOL_STREAM,
    SIZES,
    context_indices,
    divided,
    dropout_keep,
    embedded_tokens,
    is_sound,
    piece_bounds,
    row_bounds,
    row_of,
    shown_tokens,
    table_rows,
    token_indices,
)
from .kernel import kernel

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
def row_gradients(row, kept, num_rows, num_tokens, num_rising, cu_seqlens, rising, grad_pooled, seed, pool_threshold,
                  pool_scale, HIDDEN_SIZE: tl.constexpr, SUM: tl.constexpr, DROP_POOL: tl.constexpr,
                  BLOCK_H: tl.constexpr, BLOCK_ROWS: tl.constexpr):
    """Of rows: the gradient before p_pool ``[R, H]``, which part of it a token gets, and how often the pooled row holds
    beta, both ``[R]``."""
    h = tl.arange(0, BLOCK_H)
    known = (row < num_rows)[:, None] & (h < HIDDEN_SIZE)[None, :]
    grad = tl.load(grad_pooled + row[:, None] * HIDDEN_SIZE + h[None, :], mask=known, other=0.0).to(tl.float32)
    if DROP_POOL:
        keep = dropout_keep(seed, row[:, None], row[:, None] * 0, pool_threshold, POOL_STREAM, BLOCK_H)
        grad = tl.where(tl.reshape(keep, (BLOCK_ROWS, BLOCK_H)), grad * pool_scale, 0.0)
    share = tl.full((BLOCK_ROWS, 1), 1.0, tl.float32)
    if cu_seqlens is not None:
        share = tl.where(is_sound(cu_seqlens, rising, num_rows, num_rising, num_tokens), share, float("nan"))
        grad *= share
    share, beta_share = divided(share, kept, SUM)
    return grad, tl.sum(share, axis=1), beta_share


@kernel(do_not_specialize=[*SIZES, "embed_threshold", "pool_threshold"])
def row_gradients_kernel(
        attention_mask, cu_seqlens, rising, grad_pooled, pooled_hat, seed, row_share, dropped, d_ln_weight, d_ln_bias,
        num_rows, length, num_tokens, num_rising, embed_threshold, embed_scale, pool_threshold, pool_scale,
        HIDDEN_SIZE: tl.constexpr, SUM: tl.constexpr, DROP_EMBED: tl.constexpr, DROP_POOL: tl.constexpr,
        BLOCK_H: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_TOKENS: tl.constexpr, ATOMIC: tl.constexpr):
    """Which part of a row's gradient a token gets ``[B]``, with p_pool that gradient before it ``[B, H]``, and what the
    rows add to the gradients of gamma and beta: added to ``[H]`` where ATOMIC, else every program's in a row of
    ``[programs, H]``; all float32."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    start, count, _ = row_bounds(row, num_rows, length, num_tokens, cu_seqlens)
    kept = count_tokens(start, count, attention_mask, BLOCK_ROWS)
    grad, share, beta_share = row_gradients(
        row, kept, num_rows, num_tokens, num_rising, cu_seqlens, rising, grad_pooled, seed, pool_threshold, pool_scale,
        HIDDEN_SIZE, SUM, DROP_POOL, BLOCK_H, BLOCK_ROWS)
    h = tl.arange(0, BLOCK_H)
    places = row[:, None] * HIDDEN_SIZE + h[None, :]
    stored = (row < num_rows)[:, None] & (h < HIDDEN_SIZE)[None, :]
    tl.store(row_share + row, share, mask=row < num_rows)
    if dropped is not None:
        tl.store(dropped + places, grad, mask=stored)
    # Read here and nowhere else: what the tokens read again, grad_pooled, is to stay in the cache.
    gamma_grad = grad * tl.load(pooled_hat + places, mask=stored, other=0.0, eviction_policy="evict_first")
    beta_grad = grad * beta_share[:, None]
    if DROP_EMBED:
        # Philox alone, 10 us for 512 columns at H = 128: not worth pieces.
        beta_kept = tl.zeros((BLOCK_ROWS, BLOCK_TOKENS, BLOCK_H), tl.float32)
        for offset in tl.range(0, tl.max(count), BLOCK_TOKENS):
            column = (offset + tl.arange(0, BLOCK_TOKENS)[None, :]).to(tl.int64)
            shown = shown_tokens(start[:, None] + column, column, count[:, None], attention_mask)
            keep = dropout_keep(seed, row[:, None], column, embed_threshold, EMBED_STREAM, BLOCK_H)
            beta_kept += tl.where(keep & shown[:, :, None], embed_scale, 0.0)
        beta_grad = grad * share[:, None] * tl.sum(beta_kept, axis=1)
    if ATOMIC:
        tl.atomic_add(d_ln_weight + h, tl.sum(gamma_grad, axis=0), mask=h < HIDDEN_SIZE, sem="relaxed")
        tl.atomic_add(d_ln_bias + h, tl.sum(beta_grad, axis=0), mask=h < HIDDEN_SIZE, sem="relaxed")
    else:
        shares = tl.program_id(0).to(tl.int64) * HIDDEN_SIZE + h
        tl.store(d_ln_weight + shares, tl.sum(gamma_grad, axis=0), mask=h < HIDDEN_SIZE)
        tl.store(d_ln_bias + shares, tl.sum(beta_grad, axis=0), mask=h < HIDDEN_SIZE)


@triton.jit
def token_gradients(x, factor, share, gradient, HIDDEN_SIZE: tl.constexpr):
    """``d e_t`` of tokens ``[R, T, H]``, times share. x: ``e_t - mean(e_t)``. factor: rstd ``[R, T]``. gradient: k G,
    of a token or ``[R, 1, H]``, 0 from H on, where what comes out means nothing."""
    mean = tl.sum(gradient, axis=2) / HIDDEN_SIZE
    slope = factor * factor * (tl.sum(gradient * x, axis=2) / HIDDEN_SIZE)
    return (factor * share)[:, :, None] * (gradient - mean[:, :, None] - x * slope[:, :, None])


@kernel(do_not_specialize=[*SIZES, "embed_threshold", "pool_threshold"])
def scatter_gradients_kernel(
        input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, rising, grad_pooled, pooled_hat,
        word_embeddings, position_embeddings, token_type_embeddings, ln_weight, seed, rstd, d_word, d_context,
        d_ln_weight, d_ln_bias, num_rows, length, num_tokens, num_rising, vocab_size, num_types, num_positions,
        embed_threshold, embed_scale, pool_threshold, pool_scale, HIDDEN_SIZE: tl.constexpr, SUM: tl.constexpr,
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
    grad, share, beta_share = row_gradients(
        row, kept, num_rows, num_tokens, num_rising, cu_seqlens, rising, grad_pooled, seed, pool_threshold, pool_scale,
        HIDDEN_SIZE, SUM, DROP_POOL, BLOCK_H, BLOCK_ROWS)
    h = tl.arange(0, BLOCK_H)
    row_gradient = grad * tl.load(ln_weight + h, mask=h < HIDDEN_SIZE, other=0.0).to(tl.float32)[None, :]
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
        x = embedded_tokens(read, token_id, token_type, position, inside, word_embeddings, position_embeddings,
                            token_type_embeddings, HIDDEN_SIZE, BLOCK_H)
        factor = tl.load(rstd + place, mask=read, other=0.0)
        known = (h < HIDDEN_SIZE)[None, None, :]
        gradient = tl.where(read[:, :, None], token_gradients(x, factor, share[:, None], gradient, HIDDEN_SIZE), 0.0)
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
        beta_grad = grad * share[:, None] * tl.sum(beta_kept, axis=1)
    tl.atomic_add(d_ln_bias + h, tl.sum(beta_grad, axis=0), mask=h < HIDDEN_SIZE, sem="relaxed")


@triton.jit
def found_tokens(place, input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, num_rows, length,
                 num_tokens, vocab_size, num_types, num_positions, width):
    """Of tokens ``[T]``: the cell, the id, the row of the combined position and type table, and whether all are read.
    """
    if cu_seqlens is None:
        cell, column = place, place % length
    else:
        row = row_of(place, cu_seqlens, num_rows, 0)
        column = place - tl.load(cu_seqlens + row).to(tl.int64)
        # A column that is in no row: cu_seqlens makes no sense, and every gradient is NaN, whatever the cell.
        cell = row * width + tl.minimum(tl.maximum(column, 0), width - 1)
    shown = shown_tokens(place, place, num_tokens, attention_mask)
    token_id, token_type, position, _, readable = token_indices(
        place, column, shown, input_ids, token_type_ids, position_ids, vocab_size, num_types, num_positions)
    return cell, token_id, token_type * num_positions + position, shown & readable


@kernel(do_not_specialize=[*SIZES, "width"])
def token_keys_kernel(
        input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, word_keys, context_keys, cells, num_rows,
        length, num_tokens, vocab_size, num_types, num_positions, width, BLOCK_TOKENS: tl.constexpr):
    """Of every token ``[T]``: the id, the row of the combined position and type table, and its cell.

    A token that is hidden or outside a table has the first key that no row has: ``V``, and ``K * P``.
    """
    place = tl.program_id(0).to(tl.int64) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    cell, token_id, context, read = found_tokens(
        place, input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, num_rows, length, num_tokens,
        vocab_size, num_types, num_positions, width)
    word_key = tl.where(read, token_id, vocab_size)
    context_key = tl.where(read, context, num_types * num_positions)
    inside = place < num_tokens
    tl.store(word_keys + place, word_key.to(word_keys.dtype.element_ty), mask=inside)
    tl.store(context_keys + place, context_key.to(context_keys.dtype.element_ty), mask=inside)
    tl.store(cells + place, cell.to(cells.dtype.element_ty), mask=inside)


@kernel(do_not_specialize=[*SIZES, "width"])
def order_tokens_kernel(
        input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, offsets, order, num_rows, length,
        num_tokens, vocab_size, num_types, num_positions, width, BLOCK_TOKENS: tl.constexpr):
    """A counting sort of the tokens by id, in two launches over ``offsets [V + 2]``.

    Without ``order``: how many tokens an id has, added two places behind the id's. Summed up, ``offsets[id + 1]`` is
    where the id's tokens start. With ``order`` every token takes the next place of its id and writes its cell there,
    which leaves ``offsets[id]`` where the id's tokens start, as segments want it. Tokens that are hidden or outside a
    table have no place.
    """
    place = tl.program_id(0).to(tl.int64) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    cell, token_id, _, read = found_tokens(
        place, input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, num_rows, length, num_tokens,
        vocab_size, num_types, num_positions, width)
    one = tl.full((BLOCK_TOKENS,), 1, offsets.dtype.element_ty)
    if order is None:
        tl.atomic_add(offsets + token_id + 2, one, mask=read, sem="relaxed")
    else:
        to = tl.atomic_add(offsets + token_id + 1, one, mask=read, sem="relaxed")
        tl.store(order + to, cell.to(order.dtype.element_ty), mask=read)


@triton.jit
def segment_rows(segment, read, word_ids, word_embeddings, position_embeddings, token_type_embeddings, token_type_ids,
                 num_positions, HIDDEN_SIZE: tl.constexpr, BLOCK_H: tl.constexpr, BY_WORD: tl.constexpr):
    """What the embeddings of a segment's tokens have in common ``[R, 1, H]``: the word, or position and type."""
    if BY_WORD:
        token_id = segment if word_ids is None else tl.load(word_ids + segment)
        # No other program reads it, but for a frequent id's pieces.
        rows = table_rows(word_embeddings, token_id[:, None], read[:, None], HIDDEN_SIZE, BLOCK_H, "evict_first")
        if token_type_ids is None:
            rows += table_rows(token_type_embeddings, segment[:, None] * 0, read[:, None], HIDDEN_SIZE, BLOCK_H)
    else:
        token_type = segment // num_positions
        rows = table_rows(position_embeddings, (segment - token_type * num_positions)[:, None], read[:, None],
                          HIDDEN_SIZE, BLOCK_H)
        rows += table_rows(token_type_embeddings, token_type[:, None], read[:, None], HIDDEN_SIZE, BLOCK_H)
    return rows


@kernel(do_not_specialize=[*SIZES, "embed_threshold", "num_segments", "num_pieces", "width"])
def segment_gradients_kernel(
        input_ids, cu_seqlens, token_type_ids, position_ids, word_embeddings, position_embeddings,
        token_type_embeddings, ln_weight, seed, rstd, grad_rows, row_share, order, offsets, word_ids, sums, cut_sums,
        d_context, num_segments, num_pieces, num_tokens, vocab_size, num_types, num_positions, width, embed_threshold,
        embed_scale, HIDDEN_SIZE: tl.constexpr, DROP_EMBED: tl.constexpr, BLOCK_H: tl.constexpr,
        BLOCK_ROWS: tl.constexpr, BLOCK_TOKENS: tl.constexpr, CHUNK: tl.constexpr, BY_WORD: tl.constexpr):
    """Sums of ``d e_t`` over segments: the token of cell ``order[i]`` for i from ``offsets[s]`` to
    ``offsets[s + 1] - 1``. With BY_WORD those of one id, ``word_ids[s]`` or s, else those of one row of the combined
    position and type table.

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
    common = segment_rows(segment, begin < stop, word_ids, word_embeddings, position_embeddings, token_type_embeddings,
                          token_type_ids, num_positions, HIDDEN_SIZE, BLOCK_H, BY_WORD)
    gamma = tl.load(ln_weight + h, mask=h < HIDDEN_SIZE, other=0.0).to(tl.float32)[None, :, :]
    total = tl.zeros((BLOCK_ROWS, BLOCK_TOKENS, BLOCK_H), tl.float32)
    for offset in tl.range(0, tl.max(stop - begin), BLOCK_TOKENS):
        i = begin[:, None] + offset + tl.arange(0, BLOCK_TOKENS)[None, :]
        read = i < stop[:, None]
        place = tl.load(order + i, mask=read, other=0)
        row = place // width
        column = (place - row * width).to(tl.int64)
        row, place = row.to(tl.int64), place.to(tl.int64)
        if cu_seqlens is not None:
            # Of a cell that no row has, where cu_seqlens makes no sense, any token will do.
            place = tl.load(cu_seqlens + row, mask=read, other=0).to(tl.int64) + column
            place = tl.minimum(tl.maximum(place, 0), num_tokens - 1)
        if BY_WORD:
            token_type, position, inside = context_indices(place, column, read, token_type_ids, position_ids, num_types,
                                                           num_positions)
            read = read & inside
            x = common + table_rows(position_embeddings, position, read, HIDDEN_SIZE, BLOCK_H)
            if token_type_ids is not None:
                x += table_rows(token_type_embeddings, token_type, read, HIDDEN_SIZE, BLOCK_H)
        else:
            token_id = tl.load(input_ids + place, mask=read, other=0).to(tl.int64)
            read = read & (token_id >= 0) & (token_id < vocab_size)
            x = common + table_rows(word_embeddings, token_id, read, HIDDEN_SIZE, BLOCK_H)
        x -= (tl.sum(x, axis=2) / HIDDEN_SIZE)[:, :, None]
        gradient = gamma * table_rows(grad_rows, row, read, HIDDEN_SIZE, BLOCK_H)
        if DROP_EMBED:
            keep = dropout_keep(seed, row, column, embed_threshold, EMBED_STREAM, BLOCK_H)
            gradient = tl.where(keep, gradient * embed_scale, 0.0)
        factor = tl.load(rstd + place, mask=read, other=0.0)
        share = tl.load(row_share + row, mask=read, other=0.0)
        gradient = token_gradients(x, factor, share, gradient, HIDDEN_SIZE)
        total += gradient
        if d_context is not None:
            context = token_type * num_positions + position
            tl.atomic_add(d_context + context[:, :, None] * HIDDEN_SIZE + h[None, :, :], gradient, sem="relaxed",
                          mask=read[:, :, None] & (h < HIDDEN_SIZE)[None, :, :])
    result = tl.sum(total, axis=1)
    first = number == 0
    whole = (piece < num_pieces) & first & (end - start <= CHUNK)
    cut = (begin < stop) & (whole == 0)
    tl.store(sums + segment[:, None] * HIDDEN_SIZE + h, result.to(sums.dtype.element_ty), eviction_policy="evict_first",
             mask=whole[:, None] & (h < HIDDEN_SIZE))
    tl.store(cut_sums + (2 * chunk + first.to(tl.int64))[:, None] * HIDDEN_SIZE + h, result,
             mask=cut[:, None] & (h < HIDDEN_SIZE))


@kernel(do_not_specialize=["num_segments"])
def segment_combine_kernel(offsets, sums, cut_sums, num_segments, HIDDEN_SIZE: tl.constexpr, BLOCK_H: tl.constexpr,
                           CHUNK: tl.constexpr):
    """The segments that ``segment_gradients_kernel`` cut: their pieces, added in their order, into ``sums [S, H]``. A
    program for every ``CHUNK`` places of the order: where a segment that was cut starts, it is the last to start there.
    """
    first = tl.program_id(0).to(tl.int64) + tl.zeros((1,), tl.int64)
    segment = row_of(first * CHUNK + CHUNK - 1, offsets, num_segments, 0)
    start = tl.load(offsets + segment).to(tl.int64)
    end = tl.load(offsets + segment + 1).to(tl.int64)
    cut = (start // CHUNK == first) & (end - start > CHUNK)
    chunks = tl.where(cut, (end - start + CHUNK - 1) // CHUNK, 0)
    h = tl.arange(0, BLOCK_H)[None, :]
    total = tl.zeros((1, BLOCK_H), tl.float32)
    for k in range(0, tl.max(chunks)):
        place = 2 * (first + k) + tl.where(k == 0, 1, 0)
        total += tl.load(cut_sums + place[:, None] * HIDDEN_SIZE + h, mask=h < HIDDEN_SIZE, other=0.0)
    tl.store(sums + segment[:, None] * HIDDEN_SIZE + h, total.to(sums.dtype.element_ty),
             mask=cut[:, None] & (h < HIDDEN_SIZE))

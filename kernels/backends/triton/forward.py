"""The forward kernels in Triton: the contract of ``reference`` for NVIDIA and AMD GPUs, and for Triton's interpreter.

How a launch is put together (``triton_launch`` does it):

* One program serves ``BLOCK_ROWS`` rows of the batch, all at the same columns, ``BLOCK_TOKENS`` columns at a time: its
  tile is ``[BLOCK_ROWS, BLOCK_TOKENS, BLOCK_H]``, with ``BLOCK_H`` the hidden size rounded up to a power of two. Every
  element of the tile keeps its own float32 sum; tokens are summed across the tile once, after the loop.
* ``dsn_logits_kernel`` takes rows from ids to logits in one launch, ``embed_pool_kernel`` is the differentiable op's
  forward. Where a row may be long and rows are few, their ``_pieces_kernel`` sums pieces of ``CHUNK`` columns and their
  ``_combine_kernel`` adds a row's pieces in their order, so that the result never depends on what ran first.
  ``dsn_token_logits_kernel`` applies the head to every token.
* An optional tensor that is absent is passed as None, which makes a kernel of its own without it.
* Table sizes are checked in the kernel: a token whose id, type or position lies outside, and a row whose bounds in
  cu_seqlens make no sense, is read nowhere and turns its row's result into NaN. So does a piece that went to another
  row, as it may where rows overlap: a row that is not NaN is right, whatever its neighbours are. What is written for
  every token is written once: where rows may overlap, logits of a token that two of them hold are NaN, and nothing is
  kept for the backward pass, whose gradients are NaN.

All loads are widened to float32 at once; every offset that can pass 2^31 elements is int64. Why no mean is taken of a
"centred" token, and what ``beta_share`` is, stands at the head of ``weights``.
"""

import triton
import triton.language as tl

from .kernel import kernel

# The place of a name in reference.ACTIVATIONS.
SIGMOID = tl.constexpr(0)
TANH = tl.constexpr(1)
RELU = tl.constexpr(2)
# reference.EMBED_STREAM and reference.POOL_STREAM.
EMBED_STREAM = tl.constexpr(0)
POOL_STREAM = tl.constexpr(1)

# Sizes of a batch and of tables change from call to call: a kernel made for one value of them would be made anew.
SIZES = ["num_rows", "length", "num_tokens", "num_rising", "vocab_size", "num_types", "num_positions"]
LOOKED_AT = tl.constexpr(64)  # bounds of rows at a time, by a program that looks at all of them


@triton.jit
def row_bounds(row, num_rows, length, num_tokens, cu_seqlens):
    """Of rows ``[R]``: the first token, the number of columns (0 past the last row), and what to add to the row's sum,
    which is NaN where cu_seqlens makes no sense and 0 everywhere else."""
    inside = row < num_rows
    if cu_seqlens is None:
        start = row * length
        count = tl.where(inside, length, 0).to(tl.int64)
        poison = tl.zeros_like(row).to(tl.float32)
    else:
        start = tl.load(cu_seqlens + row, mask=inside, other=0).to(tl.int64)
        end = tl.load(cu_seqlens + row + 1, mask=inside, other=0).to(tl.int64)
        sound = (start >= 0) & (start <= end) & (end <= num_tokens)
        sound = sound & ((row > 0) | (start == 0)) & ((row < num_rows - 1) | (end == num_tokens))
        count = tl.where(inside & sound, end - start, 0)
        poison = tl.where(inside & (sound == 0), float("nan"), 0.0)
    return start, count, poison


@triton.jit
def falls(bounds, first, end, COUNT: tl.constexpr):
    """Which of ``bounds[first:end]`` ``[COUNT]`` are above the one behind them."""
    i = first + tl.arange(0, COUNT)
    here = tl.load(bounds + i, mask=i < end, other=0)
    return here > tl.load(bounds + i + 1, mask=i < end, other=0)


@triton.jit
def is_sound(cu_seqlens, rising, num_rows, num_rising, num_tokens):
    """Whether cu_seqlens rises from 0 to T, so that every token lies in one row.

    ``rising [num_rising + 1]`` is cu_seqlens, or of many rows what ``rising_kernel`` makes of it. A program looks at
    all of it: less would not do, since rows that overlap may be any two.
    """
    fallen = tl.zeros((LOOKED_AT,), tl.int1)
    for first in range(0, num_rising, LOOKED_AT):
        fallen = fallen | falls(rising, first, num_rising, LOOKED_AT)
    whole = (tl.load(cu_seqlens) == 0) & (tl.load(cu_seqlens + num_rows) == num_tokens)
    return whole & (tl.max(fallen.to(tl.int32)) == 0)


@kernel(do_not_specialize=["num_rows"])
def rising_kernel(cu_seqlens, rising, num_rows, CHUNK: tl.constexpr):
    """A program for every ``CHUNK`` rows: 0, 1, 2 ... in ``rising``, with -1 behind the chunks in which cu_seqlens
    falls, so that one falls where the other does."""
    chunk = tl.program_id(0)
    first = chunk.to(tl.int64) * CHUNK
    fallen = tl.max(falls(cu_seqlens, first, num_rows, CHUNK).to(tl.int32))
    tl.store(rising, 0, mask=chunk == 0)
    tl.store(rising + chunk + 1, tl.where(fallen != 0, -1, chunk + 1))


@triton.jit
def row_of(place, cu_seqlens, num_rows, CHUNK: tl.constexpr):
    """The row of a token, or with CHUNK the row of a piece; the last one that starts at or before ``place``.

    Row b's pieces start at ``cu_seqlens[b] // CHUNK + b``, which leaves room for all of them and needs no count.
    """
    low = place * 0
    size = num_rows
    while size > 1:
        half = size // 2
        middle = low + half
        first = tl.load(cu_seqlens + middle).to(tl.int64)
        if CHUNK > 0:
            first = first // CHUNK + middle
        low = tl.where(first <= place, middle, low)
        size -= half
    return low


@triton.jit
def holding_rows(place, row, sound, cu_seqlens, num_rows, length, num_tokens):
    """Of tokens ``[T]`` and the row that a search has found for each: the column, and whether that row holds the token
    and no other does. Where cu_seqlens is not ``sound`` the search may be wrong, and all rows are looked at."""
    holders = tl.where(sound, place * 0 + 1, 0)
    for other in range(0, tl.where(sound, 0, num_rows)):
        holds = (tl.load(cu_seqlens + other) <= place) & (place < tl.load(cu_seqlens + other + 1))
        holders += holds.to(tl.int64)
        row = tl.where(holds, other, row)
    start, count, _ = row_bounds(row, num_rows, length, num_tokens, cu_seqlens)
    column = place - start
    return column, sound | ((holders == 1) & (column >= 0) & (column < count))


@triton.jit
def context_indices(place, column, shown, token_type_ids, position_ids, num_types, num_positions):
    """Of tokens: type, position, and whether both lie inside their tables.

    Without types and positions all have the shape of ``column``, which may be that of one row for all.
    """
    position = column
    token_type = column * 0
    if position_ids is not None:
        position = tl.load(position_ids + place, mask=shown, other=0).to(tl.int64)
    if token_type_ids is not None:
        token_type = tl.load(token_type_ids + place, mask=shown, other=0).to(tl.int64)
    inside = (position >= 0) & (position < num_positions) & (token_type >= 0) & (token_type < num_types)
    return token_type, position, inside


@triton.jit
def token_indices(place, column, shown, input_ids, token_type_ids, position_ids, vocab_size, num_types, num_positions):
    """Of tokens: id, what ``context_indices`` finds, and whether the id lies inside its table as well."""
    token_id = tl.load(input_ids + place, mask=shown, other=0).to(tl.int64)
    token_type, position, inside = context_indices(place, column, shown, token_type_ids, position_ids, num_types,
                                                   num_positions)
    return token_id, token_type, position, inside, (token_id >= 0) & (token_id < vocab_size) & inside


@triton.jit
def widened(values):
    """To float32. Bytes are float8_e4m3fn on a GPU that does not read it: shifted they are float16, but for NaN and a
    bias of 7 where float16's is 15."""
    if values.dtype == tl.uint8:
        bits = values.to(tl.uint16)
        half = (((bits & 0x80) << 8) | ((bits & 0x7F) << 7)).to(tl.float16, bitcast=True)
        result = tl.where((bits & 0x7F) == 0x7F, float("nan"), half.to(tl.float32) * 256.0)
    else:
        result = values.to(tl.float32)
    return result


@triton.jit
def centred_tokens(place, column, shown, input_ids, token_type_ids, position_ids, word, word_scale, context, vocab_size,
                   num_types, num_positions, eps, HIDDEN_SIZE: tl.constexpr, BLOCK_H: tl.constexpr):
    """From centred tables: ``e_t`` ``[R, T, H]`` and what LayerNorm multiplies it by ``[R, T]``.

    The factor is 0 where a token is not shown and NaN where it is shown and outside a table.
    """
    token_id, token_type, position, inside, readable = token_indices(
        place, column, shown, input_ids, token_type_ids, position_ids, vocab_size, num_types, num_positions)
    h = tl.arange(0, BLOCK_H)[None, None, :]
    read = shown & readable
    e = widened(tl.load(word + token_id[:, :, None] * HIDDEN_SIZE + h, mask=read[:, :, None] & (h < HIDDEN_SIZE),
                        other=0.0))
    if word_scale is not None:
        e *= tl.load(word_scale + token_id, mask=read, other=0.0)[:, :, None]
    # One row of the context serves all rows of the tile where it depends on the column alone.
    context_row = token_type * num_positions + position
    e += tl.load(context + context_row[:, :, None] * HIDDEN_SIZE + h, mask=inside[:, :, None] & (h < HIDDEN_SIZE),
                 other=0.0)
    rstd = tl.rsqrt(tl.sum(e * e, axis=2) / HIDDEN_SIZE + eps)
    return e, tl.where(shown, tl.where(readable, rstd, float("nan")), 0.0)


@triton.jit
def shown_tokens(place, column, end, attention_mask):
    """Which tokens ``[R, T]`` the pooling takes in: those before ``end`` ``[R, 1]`` that the mask does not hide."""
    shown = column < end
    if attention_mask is not None:
        shown = shown & (tl.load(attention_mask + place, mask=shown, other=0) != 0)
    return shown


@triton.jit
def pool_centred(start, begin, end, input_ids, attention_mask, token_type_ids, position_ids, word, word_scale, context,
                 vocab_size, num_types, num_positions, eps, HIDDEN_SIZE: tl.constexpr, BLOCK_H: tl.constexpr,
                 BLOCK_ROWS: tl.constexpr, BLOCK_TOKENS: tl.constexpr, NUM_STAGES: tl.constexpr):
    """Columns ``begin`` to ``end[r] - 1`` of each row: the sum of what LayerNorm makes of them ``[R, H]``, and how many
    were kept ``[R]``."""
    total = tl.zeros((BLOCK_ROWS, BLOCK_TOKENS, BLOCK_H), tl.float32)
    kept = tl.zeros((BLOCK_ROWS, BLOCK_TOKENS), tl.int32)
    for offset in tl.range(begin, tl.max(end), BLOCK_TOKENS, num_stages=NUM_STAGES):
        column = (offset + tl.arange(0, BLOCK_TOKENS)[None, :]).to(tl.int64)
        place = start[:, None] + column
        shown = shown_tokens(place, column, end[:, None], attention_mask)
        e, factor = centred_tokens(place, column, shown, input_ids, token_type_ids, position_ids, word, word_scale,
                                   context, vocab_size, num_types, num_positions, eps, HIDDEN_SIZE, BLOCK_H)
        total += e * factor[:, :, None]
        kept += shown.to(tl.int32)
    return tl.sum(total, axis=1), tl.sum(kept, axis=1)


@triton.jit
def divided(total, kept, SUM: tl.constexpr):
    """The pooled rows ``[R, H]``, and how often each holds beta: 1 for a mean, 0 for an empty row, a sum's tokens."""
    if SUM:
        pooled, beta_share = total, kept.to(tl.float32)
    else:
        pooled = total / tl.maximum(kept, 1).to(tl.float32)[:, None]
        beta_share = tl.where(kept > 0, 1.0, 0.0)
    return pooled, beta_share


@triton.jit
def piece_bounds(piece, num_rows, length, num_tokens, cu_seqlens, CHUNK: tl.constexpr):
    """Of a piece ``[1]``: its row, that row's first token, the piece's first column and the one behind its last.

    Row b's pieces start at ``b * ceil(L / CHUNK)`` in the padded layout, at ``cu_seqlens[b] // CHUNK + b`` packed.
    """
    if cu_seqlens is None:
        pieces = tl.cdiv(length, CHUNK)
        row = piece // pieces
        first = row * pieces
    else:
        row = row_of(piece, cu_seqlens, num_rows, CHUNK)
        first = tl.load(cu_seqlens + row).to(tl.int64) // CHUNK + row
    start, count, _ = row_bounds(row, num_rows, length, num_tokens, cu_seqlens)
    begin = tl.maximum(piece - first, 0) * CHUNK
    return row, start, begin, tl.minimum(begin + CHUNK, count)


@triton.jit
def store_piece(piece, row, total, kept, beta_kept, piece_sums, piece_beta, piece_kept, piece_row,
                HIDDEN_SIZE: tl.constexpr, BLOCK_H: tl.constexpr):
    """What was summed over a piece, and in the packed layout for which row."""
    h = tl.arange(0, BLOCK_H)[None, :]
    places = piece[:, None] * HIDDEN_SIZE + h
    tl.store(piece_sums + places, total, mask=h < HIDDEN_SIZE)
    if piece_beta is not None:
        tl.store(piece_beta + places, beta_kept, mask=h < HIDDEN_SIZE)
    tl.store(piece_kept + piece, kept)
    if piece_row is not None:
        tl.store(piece_row + piece, row)


@triton.jit
def add_pieces(row, num_rows, length, num_tokens, cu_seqlens, piece_sums, piece_beta, piece_kept, piece_row,
               HIDDEN_SIZE: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_ROWS: tl.constexpr, CHUNK: tl.constexpr):
    """The pieces of rows ``[R]``, added in their order: sums ``[R, H]``, numbers of tokens ``[R]``, how often each
    channel kept beta ``[R, H]``. A row that makes no sense, or that lacks a piece of its own, is NaN."""
    start, count, poison = row_bounds(row, num_rows, length, num_tokens, cu_seqlens)
    pieces = (count + CHUNK - 1) // CHUNK
    first = row * tl.cdiv(length, CHUNK) if cu_seqlens is None else start // CHUNK + row
    h = tl.arange(0, BLOCK_H)[None, :]
    total = tl.zeros((BLOCK_ROWS, BLOCK_H), tl.float32) + poison[:, None]
    beta_kept = tl.zeros((BLOCK_ROWS, BLOCK_H), tl.float32)
    kept = tl.zeros((BLOCK_ROWS,), tl.int32)
    for k in range(0, tl.max(pieces)):
        there = k < pieces
        places = (first + k)[:, None] * HIDDEN_SIZE + h
        known = there[:, None] & (h < HIDDEN_SIZE)
        total += tl.load(piece_sums + places, mask=known, other=0.0)
        if piece_beta is not None:
            beta_kept += tl.load(piece_beta + places, mask=known, other=0.0)
        kept += tl.load(piece_kept + first + k, mask=there, other=0)
        if piece_row is not None:
            served = tl.load(piece_row + first + k, mask=there, other=0)
            total += tl.where(there & (served != row), float("nan"), 0.0)[:, None]
    return total, kept, beta_kept


@triton.jit
def activated(z, ACTIVATION: tl.constexpr):
    if ACTIVATION == SIGMOID:
        a = tl.sigmoid(z)
    elif ACTIVATION == TANH:
        a = 2 * tl.sigmoid(2 * z) - 1
    elif ACTIVATION == RELU:
        a = tl.where(z < 0, 0.0, z)  # a maximum would hide NaN
    else:
        a = 0.5 * z * (1 + tl.erf(z * 0.7071067811865476))
    return a


@triton.jit
def layer(x, beta_share, first, c, weight, bias, beta_bias, HIDDEN_SIZE: tl.constexpr, NUM_LABELS: tl.constexpr,
          BLOCK_H: tl.constexpr):
    """Labels ``c [C]`` of the layer whose first row in the stacked head is ``first``, on ``x [R, H]`` -> ``[R, C]``.

    In float32 without tensor cores: tf32 costs 4e-4 to 3e-3 in the logits.
    """
    h = tl.arange(0, BLOCK_H)
    known = c < NUM_LABELS
    w = tl.load(weight + (first + c)[:, None] * HIDDEN_SIZE + h[None, :],
                mask=known[:, None] & (h < HIDDEN_SIZE)[None, :], other=0.0)
    z = tl.sum(x[:, None, :] * w[None, :, :], axis=2)
    return (z + tl.load(bias + first + c, mask=known, other=0.0)[None, :]
            + beta_share[:, None] * tl.load(beta_bias + first + c, mask=known, other=0.0)[None, :])


@triton.jit
def store_logits(x, beta_share, row, stored, weight, bias, beta_bias, lateral, top, logits, HIDDEN_SIZE: tl.constexpr,
                 NUM_LABELS: tl.constexpr, NUM_DENDRITES: tl.constexpr, ACTIVATION: tl.constexpr,
                 BLOCK_H: tl.constexpr, BLOCK_C: tl.constexpr):
    """The dendritic head on rows ``x [R, H]``, written to rows ``row [R]`` of the logits where ``stored``."""
    for label in range(0, NUM_LABELS, BLOCK_C):
        c = label + tl.arange(0, BLOCK_C)
        known = c < NUM_LABELS
        y = layer(x, beta_share, 0, c, weight, bias, beta_bias, HIDDEN_SIZE, NUM_LABELS, BLOCK_H)
        activations = ()
        for k in tl.static_range(NUM_DENDRITES):
            z = layer(x, beta_share, (1 + k) * NUM_LABELS, c, weight, bias, beta_bias, HIDDEN_SIZE, NUM_LABELS,
                      BLOCK_H)
            for j in tl.static_range(k):
                below = lateral + (k * NUM_DENDRITES + j) * NUM_LABELS
                z += tl.load(below + c, mask=known, other=0.0)[None, :] * activations[j]
            a = activated(z, ACTIVATION)
            y += a * tl.load(top + k * NUM_LABELS + c, mask=known, other=0.0)[None, :]
            activations = activations + (a,)  # type: ignore[assignment]
        tl.store(logits + row[:, None] * NUM_LABELS + c[None, :], y, mask=stored[:, None] & known[None, :])


@kernel(do_not_specialize=SIZES)
def dsn_logits_kernel(
        input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, word, word_scale, context, weight, bias,
        beta_bias, lateral, top, logits, num_rows, length, num_tokens, vocab_size, num_types, num_positions, eps,
        HIDDEN_SIZE: tl.constexpr, NUM_LABELS: tl.constexpr, NUM_DENDRITES: tl.constexpr, ACTIVATION: tl.constexpr,
        SUM: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_ROWS: tl.constexpr,
        BLOCK_TOKENS: tl.constexpr, NUM_STAGES: tl.constexpr):
    """Token ids -> logits ``[B, C]``, a program for every ``BLOCK_ROWS`` rows."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    start, count, poison = row_bounds(row, num_rows, length, num_tokens, cu_seqlens)
    total, kept = pool_centred(start, 0, count, input_ids, attention_mask, token_type_ids, position_ids, word,
                               word_scale, context, vocab_size, num_types, num_positions, eps, HIDDEN_SIZE, BLOCK_H,
                               BLOCK_ROWS, BLOCK_TOKENS, NUM_STAGES)
    pooled, beta_share = divided(total + poison[:, None], kept, SUM)
    store_logits(pooled, beta_share, row, row < num_rows, weight, bias, beta_bias, lateral, top, logits, HIDDEN_SIZE,
                 NUM_LABELS, NUM_DENDRITES, ACTIVATION, BLOCK_H, BLOCK_C)


@kernel(do_not_specialize=SIZES)
def dsn_pieces_kernel(
        input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, word, word_scale, context, piece_sums,
        piece_kept, piece_row, num_rows, length, num_tokens, vocab_size, num_types, num_positions, eps,
        HIDDEN_SIZE: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_TOKENS: tl.constexpr, CHUNK: tl.constexpr,
        NUM_STAGES: tl.constexpr):
    """Pieces of ``CHUNK`` columns: sums ``[pieces, H]`` and numbers of tokens ``[pieces]``, a program a piece."""
    piece = tl.program_id(0).to(tl.int64) + tl.zeros((1,), tl.int64)
    row, start, begin, end = piece_bounds(piece, num_rows, length, num_tokens, cu_seqlens, CHUNK)
    total, kept = pool_centred(start, tl.max(begin), end, input_ids, attention_mask, token_type_ids, position_ids, word,
                               word_scale, context, vocab_size, num_types, num_positions, eps, HIDDEN_SIZE, BLOCK_H, 1,
                               BLOCK_TOKENS, NUM_STAGES)
    store_piece(piece, row, total, kept, total, piece_sums, None, piece_kept, piece_row, HIDDEN_SIZE, BLOCK_H)


@kernel(do_not_specialize=SIZES)
def dsn_combine_kernel(
        cu_seqlens, piece_sums, piece_kept, piece_row, weight, bias, beta_bias, lateral, top, logits, num_rows, length,
        num_tokens, HIDDEN_SIZE: tl.constexpr, NUM_LABELS: tl.constexpr, NUM_DENDRITES: tl.constexpr,
        ACTIVATION: tl.constexpr, SUM: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_C: tl.constexpr,
        BLOCK_ROWS: tl.constexpr, CHUNK: tl.constexpr):
    """The pieces of ``dsn_pieces_kernel`` -> logits ``[B, C]``."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    total, kept, _ = add_pieces(row, num_rows, length, num_tokens, cu_seqlens, piece_sums, None, piece_kept, piece_row,
                                HIDDEN_SIZE, BLOCK_H, BLOCK_ROWS, CHUNK)
    pooled, beta_share = divided(total, kept, SUM)
    store_logits(pooled, beta_share, row, row < num_rows, weight, bias, beta_bias, lateral, top, logits, HIDDEN_SIZE,
                 NUM_LABELS, NUM_DENDRITES, ACTIVATION, BLOCK_H, BLOCK_C)


@kernel(do_not_specialize=SIZES)
def dsn_token_logits_kernel(
        input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, rising, word, word_scale, context, weight,
        bias, beta_bias, lateral, top, logits, num_rows, length, num_tokens, num_rising, vocab_size, num_types,
        num_positions, eps, HIDDEN_SIZE: tl.constexpr, NUM_LABELS: tl.constexpr, NUM_DENDRITES: tl.constexpr,
        ACTIVATION: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_TOKENS: tl.constexpr):
    """Token ids -> logits of every token ``[B * L, C]`` or ``[T, C]``, 0 where the mask hides it, NaN where no row
    holds it or more than one."""
    place = tl.program_id(0).to(tl.int64) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    inside = place < num_tokens
    column = place * 0
    if cu_seqlens is not None:
        row = row_of(place, cu_seqlens, num_rows, 0) if position_ids is None else place * 0
        sound = is_sound(cu_seqlens, rising, num_rows, num_rising, num_tokens)
        column, held = holding_rows(place, row, sound, cu_seqlens, num_rows, length, num_tokens)
    elif position_ids is None:
        column = place % length
    shown = shown_tokens(place, place, num_tokens, attention_mask)
    e, factor = centred_tokens(place[:, None], column[:, None], shown[:, None], input_ids, token_type_ids, position_ids,
                               word, word_scale, context, vocab_size, num_types, num_positions, eps, HIDDEN_SIZE,
                               BLOCK_H)
    if cu_seqlens is not None:
        factor = tl.where(held[:, None], factor, float("nan"))
    x = tl.reshape(e * factor[:, :, None], (BLOCK_TOKENS, BLOCK_H))
    store_logits(x, shown.to(tl.float32), place, shown, weight, bias, beta_bias, lateral, top, logits, HIDDEN_SIZE,
                 NUM_LABELS, NUM_DENDRITES, ACTIVATION, BLOCK_H, BLOCK_C)
    if attention_mask is not None:
        for label in range(0, NUM_LABELS, BLOCK_C):
            c = label + tl.arange(0, BLOCK_C)
            tl.store(logits + place[:, None] * NUM_LABELS + c[None, :], tl.zeros((BLOCK_TOKENS, BLOCK_C), tl.float32),
                     mask=(inside & (shown == 0))[:, None] & (c < NUM_LABELS)[None, :])


@triton.jit
def table_rows(table, index, wanted, HIDDEN_SIZE: tl.constexpr, BLOCK_H: tl.constexpr, EVICT: tl.constexpr = "",
               WIDE: tl.constexpr = False):
    """Rows ``index [R, T]`` of a table ``[., H]`` in float32 -> ``[R, T, H]``, 0 where one is not wanted.

    A thread loads no more than four channels at once, so that a warp's load is of 128 channels of any table, as it is
    of float32: with 16 bytes of bfloat16 a thread half of the second load of a row of 384 lies behind its end. WIDE: 16
    bytes all the same, where more than two warps may share a row.
    """
    h = tl.arange(0, BLOCK_H)
    if not WIDE and HIDDEN_SIZE < BLOCK_H:
        h = tl.max_contiguous(h, 4)
    h = h[None, None, :]
    return tl.load(table + index[:, :, None] * HIDDEN_SIZE + h, mask=wanted[:, :, None] & (h < HIDDEN_SIZE), other=0.0,
                   eviction_policy=EVICT).to(tl.float32)


@triton.jit
def embedded_tokens(read, token_id, token_type, position, inside, word_embeddings, position_embeddings,
                    token_type_embeddings, HIDDEN_SIZE: tl.constexpr, BLOCK_H: tl.constexpr):
    """From the parameters: ``e_t - mean(e_t)`` ``[R, T, H]``, 0 where a token is not read."""
    h = tl.arange(0, BLOCK_H)[None, None, :]
    e = table_rows(word_embeddings, token_id, read, HIDDEN_SIZE, BLOCK_H, WIDE=True)
    e += table_rows(position_embeddings, position, inside, HIDDEN_SIZE, BLOCK_H, WIDE=True)
    e += table_rows(token_type_embeddings, token_type, inside, HIDDEN_SIZE, BLOCK_H, WIDE=True)
    mean = tl.sum(e, axis=2) / HIDDEN_SIZE
    return tl.where(read[:, :, None] & (h < HIDDEN_SIZE), e - mean[:, :, None], 0.0)


@triton.jit
def dropout_keep(seed, row, column, threshold, STREAM: tl.constexpr, BLOCK_H: tl.constexpr):
    """Which channels dropout keeps, for tokens ``row + column`` ``[R, T]`` -> ``[R, T, H]``: reference.dropout_keep."""
    block = tl.arange(0, BLOCK_H // 4)[None, None, :]
    zero = (row + column)[:, :, None] * 0 + block * 0
    w0, w1, w2, w3 = tl.philox(tl.load(seed), (zero + block).to(tl.uint32), (zero + column[:, :, None]).to(tl.uint32),
                               (zero + row[:, :, None]).to(tl.uint32), (zero + STREAM).to(tl.uint32))
    words = tl.interleave(tl.interleave(w0, w2), tl.interleave(w1, w3))  # word channel % 4 of block channel // 4
    return words.to(tl.int64) >= threshold


@triton.jit
def pool_embedded(row, start, begin, end, input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, rising,
                  word_embeddings, position_embeddings, token_type_embeddings, seed, rstd, num_rows, num_tokens,
                  num_rising, vocab_size, num_types, num_positions, eps, embed_threshold, embed_scale,
                  HIDDEN_SIZE: tl.constexpr, DROP_EMBED: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_ROWS: tl.constexpr,
                  BLOCK_TOKENS: tl.constexpr, NUM_STAGES: tl.constexpr):
    """``pool_centred`` from the parameters and with dropout; third, how often each channel kept beta: ``[R, H]``, or
    ``[R, 1]`` without dropout. Stores ``rstd`` of every token where cu_seqlens is sound: elsewhere two rows may."""
    stored_end = end
    if cu_seqlens is not None:
        stored_end = tl.where(is_sound(cu_seqlens, rising, num_rows, num_rising, num_tokens), end, 0)
    total = tl.zeros((BLOCK_ROWS, BLOCK_TOKENS, BLOCK_H), tl.float32)
    kept = tl.zeros((BLOCK_ROWS, BLOCK_TOKENS), tl.int32)
    if DROP_EMBED:
        beta_kept = tl.zeros((BLOCK_ROWS, BLOCK_TOKENS, BLOCK_H), tl.float32)
    for offset in tl.range(begin, tl.max(end), BLOCK_TOKENS, num_stages=NUM_STAGES):
        column = (offset + tl.arange(0, BLOCK_TOKENS)[None, :]).to(tl.int64)
        place = start[:, None] + column
        shown = shown_tokens(place, column, end[:, None], attention_mask)
        token_id, token_type, position, inside, readable = token_indices(
            place, column, shown, input_ids, token_type_ids, position_ids, vocab_size, num_types, num_positions)
        x = embedded_tokens(shown & readable, token_id, token_type, position, inside, word_embeddings,
                            position_embeddings, token_type_embeddings, HIDDEN_SIZE, BLOCK_H)
        factor = tl.rsqrt(tl.sum(x * x, axis=2) / HIDDEN_SIZE + eps)
        factor = tl.where(shown, tl.where(readable, factor, float("nan")), 0.0)
        tl.store(rstd + place, factor, mask=column < stored_end[:, None])
        x = x * factor[:, :, None]
        if DROP_EMBED:
            keep = dropout_keep(seed, row[:, None], column, embed_threshold, EMBED_STREAM, BLOCK_H)
            keep = tl.where(keep, embed_scale, 0.0)
            x = x * keep
            beta_kept += tl.where(shown[:, :, None], keep, 0.0)
        total += x
        kept += shown.to(tl.int32)
    row_kept = tl.sum(kept, axis=1)
    row_beta = tl.sum(beta_kept, axis=1) if DROP_EMBED else row_kept.to(tl.float32)[:, None]
    return tl.sum(total, axis=1), row_kept, row_beta


@triton.jit
def store_pooled(row, total, kept, beta_kept, num_rows, ln_weight, ln_bias, seed, pooled, pooled_hat, pool_threshold,
                 pool_scale, HIDDEN_SIZE: tl.constexpr, SUM: tl.constexpr, DROP_EMBED: tl.constexpr,
                 DROP_POOL: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_ROWS: tl.constexpr):
    """Sums of normalised tokens ``[R, H]`` -> ``pooled``, and ``pooled_hat`` before gamma, beta and p_pool."""
    h = tl.arange(0, BLOCK_H)
    hat, beta_share = divided(total, kept, SUM)
    beta_share = beta_share[:, None]
    if DROP_EMBED:
        beta_share, _ = divided(beta_kept, kept, SUM)
    gamma = tl.load(ln_weight + h, mask=h < HIDDEN_SIZE, other=0.0).to(tl.float32)[None, :]
    beta = tl.load(ln_bias + h, mask=h < HIDDEN_SIZE, other=0.0).to(tl.float32)[None, :]
    result = hat * gamma + beta_share * beta
    if DROP_POOL:
        keep = dropout_keep(seed, row[:, None], row[:, None] * 0, pool_threshold, POOL_STREAM, BLOCK_H)
        result = tl.where(tl.reshape(keep, (BLOCK_ROWS, BLOCK_H)), result * pool_scale, 0.0)
    stored = (row < num_rows)[:, None] & (h < HIDDEN_SIZE)[None, :]
    places = row[:, None] * HIDDEN_SIZE + h[None, :]
    tl.store(pooled_hat + places, hat, mask=stored)
    tl.store(pooled + places, result.to(pooled.dtype.element_ty), mask=stored)


@kernel(do_not_specialize=[*SIZES, "embed_threshold", "pool_threshold"])
def embed_pool_kernel(
        input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, rising, word_embeddings,
        position_embeddings, token_type_embeddings, ln_weight, ln_bias, seed, pooled, pooled_hat, rstd, num_rows,
        length, num_tokens, num_rising, vocab_size, num_types, num_positions, eps, embed_threshold, embed_scale,
        pool_threshold, pool_scale, HIDDEN_SIZE: tl.constexpr, SUM: tl.constexpr, DROP_EMBED: tl.constexpr,
        DROP_POOL: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_TOKENS: tl.constexpr,
        NUM_STAGES: tl.constexpr):
    """Token ids -> ``pooled [B, H]``, ``pooled_hat [B, H]`` before gamma, beta and p_pool, and ``rstd [T]`` a token.

    Dropout keeps a channel whose word is at least ``threshold`` and multiplies it by ``scale = 1 / (1 - p)``; gamma and
    beta leave the loop all the same: ``sum_t k_t (gamma x_t + beta) = gamma sum_t k_t x_t + beta sum_t k_t``.
    """
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    start, count, poison = row_bounds(row, num_rows, length, num_tokens, cu_seqlens)
    total, kept, beta_kept = pool_embedded(
        row, start, 0, count, input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, rising,
        word_embeddings, position_embeddings, token_type_embeddings, seed, rstd, num_rows, num_tokens, num_rising,
        vocab_size, num_types, num_positions, eps, embed_threshold, embed_scale, HIDDEN_SIZE, DROP_EMBED, BLOCK_H,
        BLOCK_ROWS, BLOCK_TOKENS, NUM_STAGES)
    store_pooled(row, total + poison[:, None], kept, beta_kept, num_rows, ln_weight, ln_bias, seed, pooled, pooled_hat,
                 pool_threshold, pool_scale, HIDDEN_SIZE, SUM, DROP_EMBED, DROP_POOL, BLOCK_H, BLOCK_ROWS)


@kernel(do_not_specialize=[*SIZES, "embed_threshold"])
def embed_pool_pieces_kernel(
        input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, rising, word_embeddings,
        position_embeddings, token_type_embeddings, seed, piece_sums, piece_beta, piece_kept, piece_row, rstd, num_rows,
        length, num_tokens, num_rising, vocab_size, num_types, num_positions, eps, embed_threshold, embed_scale,
        HIDDEN_SIZE: tl.constexpr, DROP_EMBED: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_TOKENS: tl.constexpr,
        CHUNK: tl.constexpr, NUM_STAGES: tl.constexpr):
    """``dsn_pieces_kernel`` from the parameters; with dropout also how often each channel kept beta ``[pieces, H]``."""
    piece = tl.program_id(0).to(tl.int64) + tl.zeros((1,), tl.int64)
    row, start, begin, end = piece_bounds(piece, num_rows, length, num_tokens, cu_seqlens, CHUNK)
    total, kept, beta_kept = pool_embedded(
        row, start, tl.max(begin), end, input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, rising,
        word_embeddings, position_embeddings, token_type_embeddings, seed, rstd, num_rows, num_tokens, num_rising,
        vocab_size, num_types, num_positions, eps, embed_threshold, embed_scale, HIDDEN_SIZE, DROP_EMBED, BLOCK_H, 1,
        BLOCK_TOKENS, NUM_STAGES)
    store_piece(piece, row, total, kept, beta_kept, piece_sums, piece_beta, piece_kept, piece_row, HIDDEN_SIZE, BLOCK_H)


@kernel(do_not_specialize=[*SIZES, "pool_threshold"])
def embed_pool_combine_kernel(
        cu_seqlens, ln_weight, ln_bias, seed, piece_sums, piece_beta, piece_kept, piece_row, pooled, pooled_hat,
        num_rows, length, num_tokens, pool_threshold, pool_scale, HIDDEN_SIZE: tl.constexpr, SUM: tl.constexpr,
        DROP_EMBED: tl.constexpr, DROP_POOL: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_ROWS: tl.constexpr,
        CHUNK: tl.constexpr):
    """The pieces of ``embed_pool_pieces_kernel`` -> ``pooled [B, H]`` and ``pooled_hat [B, H]``."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    total, kept, beta_kept = add_pieces(row, num_rows, length, num_tokens, cu_seqlens, piece_sums, piece_beta,
                                        piece_kept, piece_row, HIDDEN_SIZE, BLOCK_H, BLOCK_ROWS, CHUNK)
    store_pooled(row, total, kept, beta_kept, num_rows, ln_weight, ln_bias, seed, pooled, pooled_hat, pool_threshold,
                 pool_scale, HIDDEN_SIZE, SUM, DROP_EMBED, DROP_POOL, BLOCK_H, BLOCK_ROWS)

"""Dendrites on windows of tokens in Triton: from token ids to logits, the layers of windows on chip.

``launch_windows`` launches these kernels. A tile is ``BLOCK_ROWS`` rows of the batch by ``BLOCK_COLUMNS`` columns, one
token after the other: ``[T, M']`` with T their product, where M' is the number of channels, padded. Where a row of a
packed batch turns out to be longer, the rows of its program take the whole tile one after the other.

* Layer 0 adds up, for each tap, the row of ``taps`` of the token at that offset. A token's place in the tables, its
  ``entry``, is found once and then shifted.
* In a further layer the product comes before the shift, which is exact: a matrix acts on each token by itself. Hence a
  layer has R products ``[T, M'] x [M', M']`` of one left side, for tensor cores where the weights are bfloat16.
* Tokens change places by ``tl.gather``, which Triton lowers to shared memory. A scratch in global memory would move
  2 (J - 1) M' floats a token more, 1,024 bytes at M' = 32 and J = 5, beside the 384 of its taps. A product with a
  matrix of zeros and ones would carry a NaN from one row of the tile into the others.

A row that fits into a tile has no halo. A longer one goes tile by tile, and each begins and ends with ``HALO`` columns
of its neighbours, on which its other columns depend. Where rows are few, a longer one is cut into splits, as in
``splits``.

Tensors travel as described in ``tokens``, and further:

    tables      (values, gate, taps), as ``contract.WindowedDsn``
    layers      (window_bias, window_weight, gate_weight)
    head        (weight, bias, lateral, top)
    splits      (split_values, split_windows, split_gates, split_row), see ``store_window_split``
"""

import triton
import triton.language as tl

from .head import add_dendrite
from .kernel import kernel
from .splits import find_split
from .tokens import SIZES, load_row_bounds


@triton.jit
def load_entries(place, column, count, tokens, sizes):
    """The place of each token in a table ``[K * V, .]``, and whether it is valid. Tokens that are not valid, and valid
    ones whose id or type lies outside its table, have entry -1."""
    input_ids, attention_mask, _, token_type_ids, _ = tokens
    vocab_size, num_types, _ = sizes
    valid = (column >= 0) & (column < count)
    if attention_mask is not None:
        valid = valid & (tl.load(attention_mask + place, mask=valid, other=0) != 0)
    entry = tl.load(input_ids + place, mask=valid, other=0).to(tl.int64)
    inside = (entry >= 0) & (entry < vocab_size)
    if token_type_ids is not None:
        token_type = tl.load(token_type_ids + place, mask=valid, other=0).to(tl.int64)
        inside = inside & (token_type >= 0) & (token_type < num_types)
        entry = token_type * vocab_size + entry
    return tl.where(valid & inside, entry, -1), valid


@triton.jit
def shift(x, offset, other, columns):
    """For each token of the tile, the row of ``x [T, .]`` of the token ``offset`` columns to its right, or ``other``
    where that column lies outside the tile, in which a row has ``columns`` columns, a power of two."""
    token = tl.arange(0, x.shape[0])
    column = (token & (columns - 1)) + offset
    inside = (column >= 0) & (column < columns)
    source = tl.where(inside, token + offset, token).to(tl.int32)
    return tl.where(inside[:, None], tl.gather(x, tl.broadcast_to(source[:, None], x.shape), 0), other)


@triton.jit
def activate_windows(z, entry):
    """ReLU, through which NaN passes; 0 for tokens that are not there."""
    return tl.where(entry >= 0, tl.where(z < 0, 0.0, z), 0.0)


@triton.jit
def apply_windows(entry, columns, taps, layers, NUM_LAYERS: tl.constexpr, RADIUS: tl.constexpr,
                  CHANNELS: tl.constexpr, PRECISION: tl.constexpr, BLOCK_M: tl.constexpr):
    """Entries ``[T, 1]`` -> the last layer's output ``[T, M']``, which is 0 where an entry is -1."""
    window_bias, window_weight, _ = layers
    m = tl.arange(0, BLOCK_M)
    known = m < CHANNELS
    z = tl.zeros((entry.shape[0], BLOCK_M), tl.float32) + tl.load(window_bias + m, mask=known, other=0.0)[None, :]
    for tap in tl.static_range(2 * RADIUS + 1):
        near = entry if tap == RADIUS else tl.where(entry >= 0, shift(entry, tap - RADIUS, -1, columns), -1)
        z += tl.load(taps + (near * (2 * RADIUS + 1) + tap) * CHANNELS + m[None, :],
                     mask=(near >= 0) & known[None, :], other=0.0)
    u = activate_windows(z, entry)
    for layer in tl.range(1, NUM_LAYERS):
        z = tl.zeros((entry.shape[0], BLOCK_M), tl.float32)
        z += tl.load(window_bias + layer * CHANNELS + m, mask=known, other=0.0)[None, :]
        left = u.to(window_weight.dtype.element_ty)
        for tap in tl.static_range(2 * RADIUS + 1):
            matrix = window_weight + ((layer - 1) * (2 * RADIUS + 1) + tap) * CHANNELS * CHANNELS
            right = tl.load(matrix + m[:, None] * CHANNELS + m[None, :], mask=known[:, None] & known[None, :],
                            other=0.0)
            product = tl.dot(left, right, input_precision=PRECISION)
            z += product if tap == RADIUS else shift(product, (tap - RADIUS) * (1 << layer), 0.0, columns)
        u += activate_windows(z, entry)
    return u


@triton.jit
def gate_tokens(entry, valid, u, gate, gate_weight, NUM_LAYERS: tl.constexpr, CHANNELS: tl.constexpr,
                BLOCK_M: tl.constexpr):
    """The gate g of each token ``[T, 1]``: 0 for one that is not valid, NaN for one that lies outside the tables."""
    g = tl.where(entry >= 0, 1.0, 0.0)
    if gate is not None:
        z = tl.load(gate + entry, mask=entry >= 0, other=0.0)
        if NUM_LAYERS > 0:
            m = tl.arange(0, BLOCK_M)
            v = tl.load(gate_weight + m, mask=m < CHANNELS, other=0.0)
            z += tl.sum(u * v[None, :], axis=1)[:, None]
        z = tl.where(z < -8.0, -8.0, tl.where(z > 8.0, 8.0, z))
        g = tl.where(entry >= 0, tl.exp(z), 0.0)
    return tl.where(valid & (entry < 0), float("nan"), g)


@triton.jit
def add_values(entry, g, values, VALUES: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_ROWS: tl.constexpr,
               BLOCK_COLUMNS: tl.constexpr, VALUE_COLUMNS: tl.constexpr):
    """The sum of ``g`` times the tokens' rows of ``values`` ``[R, D']``, ``VALUE_COLUMNS`` columns at a time."""
    total = tl.zeros((BLOCK_ROWS, BLOCK_D), tl.float32)
    d = tl.arange(0, BLOCK_D)[None, :]
    for first in range(0, BLOCK_COLUMNS, VALUE_COLUMNS):
        part_entry, part_g = entry, g
        if VALUE_COLUMNS < BLOCK_COLUMNS:
            part = tl.arange(0, BLOCK_ROWS * VALUE_COLUMNS)
            token = (part // VALUE_COLUMNS) * BLOCK_COLUMNS + first + part % VALUE_COLUMNS
            part_entry = tl.gather(entry, token[:, None], 0)
            part_g = tl.gather(g, token[:, None], 0)
        there = part_entry >= 0
        x = tl.load(values + part_entry * VALUES + d, mask=there & (d < VALUES), other=0.0)
        x = tl.where(part_g == 0, 0.0, part_g * x)
        total += tl.sum(tl.reshape(x, (BLOCK_ROWS, VALUE_COLUMNS, BLOCK_D)), axis=1)
    return total


@triton.jit
def pool_windows(start, count, begin, end, column, columns, tokens, sizes, tables, layers, VALUES: tl.constexpr,
                 NUM_LAYERS: tl.constexpr, RADIUS: tl.constexpr, CHANNELS: tl.constexpr, PRECISION: tl.constexpr,
                 BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr,
                 VALUE_COLUMNS: tl.constexpr):
    """The sums of a tile, whose token at ``[r, c]`` has column ``column[r, c]`` of the row that starts at ``start[r]``
    and has ``count[r]`` columns: of g times the values ``[R, D']``, of g times the windows ``[R, M']``, and of g
    ``[R]``. The columns ``begin[r]`` to ``end[r] - 1`` are added; the others are there for their neighbours."""
    values, gate, taps = tables
    _, _, gate_weight = layers
    added = tl.reshape((column >= begin[:, None]) & (column < end[:, None]), (BLOCK_ROWS * BLOCK_COLUMNS, 1))
    entry, valid = load_entries(start[:, None] + column, column, count[:, None], tokens, sizes)
    entry = tl.reshape(entry, (BLOCK_ROWS * BLOCK_COLUMNS, 1))
    valid = tl.reshape(valid, (BLOCK_ROWS * BLOCK_COLUMNS, 1))
    u = entry
    if NUM_LAYERS > 0:
        u = apply_windows(entry, columns, taps, layers, NUM_LAYERS, RADIUS, CHANNELS, PRECISION, BLOCK_M)
    g = tl.where(added, gate_tokens(entry, valid, u, gate, gate_weight, NUM_LAYERS, CHANNELS, BLOCK_M), 0.0)
    gate_sum = tl.sum(tl.reshape(g, (BLOCK_ROWS, BLOCK_COLUMNS)), axis=1)
    window_sum = tl.zeros((BLOCK_ROWS, BLOCK_M), tl.float32)
    if NUM_LAYERS > 0:
        weighted = tl.where(added, g * u, 0.0)
        window_sum = tl.sum(tl.reshape(weighted, (BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_M)), axis=1)
    value_sum = add_values(tl.where(added, entry, -1), g, values, VALUES, BLOCK_D, BLOCK_ROWS, BLOCK_COLUMNS,
                           VALUE_COLUMNS)
    return value_sum, window_sum, gate_sum


@triton.jit
def apply_window_layer(value_mean, window_mean, first, c, head, FOLDED: tl.constexpr, VALUES: tl.constexpr,
                       NUM_LAYERS: tl.constexpr, CHANNELS: tl.constexpr, NUM_LABELS: tl.constexpr,
                       BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_C: tl.constexpr):
    """Labels ``c [C]`` of the layer whose first output is ``first``, on pooled rows -> ``[R, C]``. Folded values have
    been through the head's matrix."""
    weight, bias, _, _ = head
    known = c < NUM_LABELS
    output = tl.where(known, first + c, 0)
    z = tl.zeros((BLOCK_ROWS, BLOCK_C), tl.float32) + tl.load(bias + output, mask=known, other=0.0)[None, :]
    WIDTH: tl.constexpr = CHANNELS if FOLDED else VALUES + CHANNELS
    of_output = weight + output.to(tl.int64)[:, None] * WIDTH
    if FOLDED:
        z += tl.gather(value_mean, tl.broadcast_to(output[None, :], (BLOCK_ROWS, BLOCK_C)), 1)
    else:
        d = tl.arange(0, BLOCK_D)
        w = tl.load(of_output + d[None, :], mask=known[:, None] & (d < VALUES)[None, :],
                    other=0.0)
        z += tl.sum(value_mean[:, None, :] * w[None, :, :], axis=2)
    if NUM_LAYERS > 0:
        m = tl.arange(0, BLOCK_M)
        w = tl.load(of_output + (WIDTH - CHANNELS) + m[None, :],
                    mask=known[:, None] & (m < CHANNELS)[None, :], other=0.0)
        z += tl.sum(window_mean[:, None, :] * w[None, :, :], axis=2)
    return z


@triton.jit
def store_window_logits(sums, row, num_rows, head, logits, FOLDED: tl.constexpr, VALUES: tl.constexpr,
                        NUM_LAYERS: tl.constexpr, CHANNELS: tl.constexpr, NUM_LABELS: tl.constexpr,
                        NUM_DENDRITES: tl.constexpr, ACTIVATION: tl.constexpr, BLOCK_D: tl.constexpr,
                        BLOCK_M: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_C: tl.constexpr):
    """Divide the sums of rows ``row [R]`` by that of the gates, apply the head and write the logits."""
    value_sum, window_sum, gate_sum = sums
    _, _, lateral, top = head
    total = tl.where(gate_sum == 0, 1.0, gate_sum)[:, None]  # 0 in an empty row, whose other sums are 0 too
    value_mean, window_mean = value_sum / total, window_sum / total
    for label in range(0, NUM_LABELS, BLOCK_C):
        c = label + tl.arange(0, BLOCK_C)
        known = c < NUM_LABELS
        y = apply_window_layer(value_mean, window_mean, 0, c, head, FOLDED, VALUES, NUM_LAYERS, CHANNELS, NUM_LABELS,
                               BLOCK_D, BLOCK_M, BLOCK_ROWS, BLOCK_C)
        activations = ()
        for k in tl.static_range(NUM_DENDRITES):
            z = apply_window_layer(value_mean, window_mean, (1 + k) * NUM_LABELS, c, head, FOLDED, VALUES, NUM_LAYERS,
                                   CHANNELS, NUM_LABELS, BLOCK_D, BLOCK_M, BLOCK_ROWS, BLOCK_C)
            y, activations = add_dendrite(y, z, activations, k, c, lateral, top, NUM_LABELS, NUM_DENDRITES, ACTIVATION)
        tl.store(logits + row[:, None] * NUM_LABELS + c[None, :], y, mask=(row < num_rows)[:, None] & known[None, :])


@triton.jit
def pool_tiles(row, count, batch, tokens, sizes, tables, layers, VALUES: tl.constexpr, NUM_LAYERS: tl.constexpr,
               RADIUS: tl.constexpr, CHANNELS: tl.constexpr, HALO: tl.constexpr, PRECISION: tl.constexpr,
               BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr,
               VALUE_COLUMNS: tl.constexpr):
    """The sums of rows ``row [R]`` of any length. Unless all of them fit into a tile together, it is given to one after
    the other, in as many steps as that takes."""
    _, _, cu_seqlens, _, _ = tokens
    BLOCK_TOKENS: tl.constexpr = BLOCK_ROWS * BLOCK_COLUMNS
    together = tl.max(count) <= BLOCK_COLUMNS
    longest_step = tl.where(tl.max(count) <= BLOCK_TOKENS, BLOCK_TOKENS, BLOCK_TOKENS - 2 * HALO)
    num_steps = tl.where(together, 1, tl.cdiv(tl.max(count), longest_step))
    place = tl.arange(0, BLOCK_ROWS)
    first_row = tl.min(row)
    value_total = tl.zeros((BLOCK_ROWS, BLOCK_D), tl.float32)
    window_total = tl.zeros((BLOCK_ROWS, BLOCK_M), tl.float32)
    gate_total = tl.zeros((BLOCK_ROWS,), tl.float32)
    for step in range(0, tl.where(together, 1, BLOCK_ROWS * num_steps)):
        own = place * 0 + step // num_steps
        start, length, _guard = load_row_bounds(first_row + tl.where(together, place, own), batch, cu_seqlens)
        whole = length <= BLOCK_TOKENS
        size = tl.where(whole, BLOCK_TOKENS, BLOCK_TOKENS - 2 * HALO)
        begin = (step % num_steps) * size
        column = tl.where(whole, begin, begin - HALO) + tl.where(together, 0, place * BLOCK_COLUMNS)
        value_sum, window_sum, gate_sum = pool_windows(
            start, length, begin, tl.minimum(begin + size, length), column[:, None] + tl.arange(0, BLOCK_COLUMNS)[None],
            tl.where(together, BLOCK_COLUMNS, BLOCK_TOKENS), tokens, sizes, tables, layers, VALUES, NUM_LAYERS, RADIUS,
            CHANNELS, PRECISION, BLOCK_D, BLOCK_M, BLOCK_ROWS, BLOCK_COLUMNS, VALUE_COLUMNS)
        is_own = (place == own)[:, None]
        value_total += tl.where(together, value_sum, tl.where(is_own, tl.sum(value_sum, axis=0)[None, :], 0.0))
        window_total += tl.where(together, window_sum, tl.where(is_own, tl.sum(window_sum, axis=0)[None, :], 0.0))
        gate_total += tl.where(together, gate_sum, tl.where(place == own, tl.sum(gate_sum), 0.0))
    return value_total, window_total, gate_total


@kernel(do_not_specialize=SIZES)
def window_logits_kernel(
        input_ids, attention_mask, cu_seqlens, token_type_ids, values, gate, taps, window_bias, window_weight,
        gate_weight, weight, bias, lateral, top, logits, num_rows, length, num_tokens, vocab_size, num_types,
        FOLDED: tl.constexpr, VALUES: tl.constexpr, NUM_LAYERS: tl.constexpr, RADIUS: tl.constexpr,
        CHANNELS: tl.constexpr, HALO: tl.constexpr, PRECISION: tl.constexpr, NUM_LABELS: tl.constexpr,
        NUM_DENDRITES: tl.constexpr, ACTIVATION: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr,
        BLOCK_C: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr, VALUE_COLUMNS: tl.constexpr,
        ONE_TILE: tl.constexpr):
    """Token ids -> logits ``[B, C]``. One program per ``BLOCK_ROWS`` rows. ``ONE_TILE``: no row is longer than its
    ``BLOCK_COLUMNS``. A loop would hold 60 to 140 registers more per thread, which Triton and ptxas compute ahead."""
    tokens = (input_ids, attention_mask, cu_seqlens, token_type_ids, None)
    batch = (num_rows, length, num_tokens)
    sizes = (vocab_size, num_types, 0)
    tables = (values, gate, taps)
    layers = (window_bias, window_weight, gate_weight)
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    start, count, nan_guard = load_row_bounds(row, batch, cu_seqlens)
    if ONE_TILE:
        column = (row * 0)[:, None] + tl.arange(0, BLOCK_COLUMNS)[None, :]
        value_sum, window_sum, gate_sum = pool_windows(
            start, count, row * 0, count, column, BLOCK_COLUMNS, tokens, sizes, tables, layers, VALUES, NUM_LAYERS,
            RADIUS, CHANNELS, PRECISION, BLOCK_D, BLOCK_M, BLOCK_ROWS, BLOCK_COLUMNS, VALUE_COLUMNS)
    else:
        value_sum, window_sum, gate_sum = pool_tiles(
            row, count, batch, tokens, sizes, tables, layers, VALUES, NUM_LAYERS, RADIUS, CHANNELS, HALO, PRECISION,
            BLOCK_D, BLOCK_M, BLOCK_ROWS, BLOCK_COLUMNS, VALUE_COLUMNS)
    store_window_logits(
        (value_sum, window_sum, gate_sum + nan_guard), row, num_rows, (weight, bias, lateral, top), logits, FOLDED,
        VALUES, NUM_LAYERS, CHANNELS, NUM_LABELS, NUM_DENDRITES, ACTIVATION, BLOCK_D, BLOCK_M, BLOCK_ROWS, BLOCK_C)


@triton.jit
def store_window_split(split, row, sums, splits, VALUES: tl.constexpr, CHANNELS: tl.constexpr, BLOCK_D: tl.constexpr,
                       BLOCK_M: tl.constexpr):
    """Store the sums of a split, float32: ``split_values [S, D]``, ``split_windows [S, M']``, ``split_gates [S]``; and
    in the packed layout the row that it was summed for, ``split_row [S]`` int32."""
    split_values, split_windows, split_gates, split_row = splits
    value_sum, window_sum, gate_sum = sums
    d, m = tl.arange(0, BLOCK_D)[None, :], tl.arange(0, BLOCK_M)[None, :]
    tl.store(split_values + split[:, None] * VALUES + d, value_sum, mask=d < VALUES)
    tl.store(split_windows + split[:, None] * CHANNELS + m, window_sum, mask=m < CHANNELS)
    tl.store(split_gates + split, gate_sum)
    if split_row is not None:
        tl.store(split_row + split, row)


@kernel(do_not_specialize=SIZES)
def window_splits_kernel(
        input_ids, attention_mask, cu_seqlens, token_type_ids, values, gate, taps, window_bias, window_weight,
        gate_weight, split_values, split_windows, split_gates, split_row, num_rows, length, num_tokens, vocab_size,
        num_types, VALUES: tl.constexpr, NUM_LAYERS: tl.constexpr, RADIUS: tl.constexpr, CHANNELS: tl.constexpr,
        HALO: tl.constexpr, PRECISION: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr,
        BLOCK_COLUMNS: tl.constexpr, VALUE_COLUMNS: tl.constexpr, SPLIT_COLUMNS: tl.constexpr):
    """Token ids -> the sums of each split. One program per split of ``SPLIT_COLUMNS``, which is a tile without its
    halo."""
    tokens = (input_ids, attention_mask, cu_seqlens, token_type_ids, None)
    batch = (num_rows, length, num_tokens)
    split = tl.program_id(0).to(tl.int64) + tl.zeros((1,), tl.int64)
    row, start, begin, end = find_split(split, batch, cu_seqlens, SPLIT_COLUMNS)
    _, count, _ = load_row_bounds(row, batch, cu_seqlens)
    column = (begin - HALO)[:, None] + tl.arange(0, BLOCK_COLUMNS)[None, :]
    sums = pool_windows(
        start, count, begin, end, column, BLOCK_COLUMNS, tokens, (vocab_size, num_types, 0), (values, gate, taps),
        (window_bias, window_weight, gate_weight), VALUES, NUM_LAYERS, RADIUS, CHANNELS, PRECISION, BLOCK_D, BLOCK_M, 1,
        BLOCK_COLUMNS, VALUE_COLUMNS)
    store_window_split(split, row, sums, (split_values, split_windows, split_gates, split_row), VALUES, CHANNELS,
                       BLOCK_D, BLOCK_M)


@triton.jit
def add_window_splits(row, batch, cu_seqlens, splits, VALUES: tl.constexpr, CHANNELS: tl.constexpr,
                      BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_ROWS: tl.constexpr,
                      SPLIT_COLUMNS: tl.constexpr):
    """Add the splits of rows ``[R]`` in their order, as ``splits.add_splits`` does. A row with invalid bounds, or
    without a split of its own, is NaN."""
    _, length, _ = batch
    split_values, split_windows, split_gates, split_row = splits
    start, count, nan_guard = load_row_bounds(row, batch, cu_seqlens)
    num_splits = (count + SPLIT_COLUMNS - 1) // SPLIT_COLUMNS
    first = row * tl.cdiv(length, SPLIT_COLUMNS) if cu_seqlens is None else start // SPLIT_COLUMNS + row
    d, m = tl.arange(0, BLOCK_D)[None, :], tl.arange(0, BLOCK_M)[None, :]
    value_sum = tl.zeros((BLOCK_ROWS, BLOCK_D), tl.float32)
    window_sum = tl.zeros((BLOCK_ROWS, BLOCK_M), tl.float32)
    gate_sum = tl.zeros((BLOCK_ROWS,), tl.float32)
    for k in range(0, tl.max(num_splits)):
        exists = k < num_splits
        split = first + k
        value_sum += tl.load(split_values + split[:, None] * VALUES + d, mask=exists[:, None] & (d < VALUES), other=0.0)
        window_sum += tl.load(split_windows + split[:, None] * CHANNELS + m, mask=exists[:, None] & (m < CHANNELS),
                              other=0.0)
        gate_sum += tl.load(split_gates + split, mask=exists, other=0.0)
        if split_row is not None:
            owner = tl.load(split_row + split, mask=exists, other=0)
            gate_sum += tl.where(exists & (owner != row), float("nan"), 0.0)
    return value_sum, window_sum, gate_sum + nan_guard


@kernel(do_not_specialize=SIZES)
def window_combine_kernel(
        cu_seqlens, split_values, split_windows, split_gates, split_row, weight, bias, lateral, top, logits, num_rows,
        length, num_tokens, FOLDED: tl.constexpr, VALUES: tl.constexpr, NUM_LAYERS: tl.constexpr,
        CHANNELS: tl.constexpr, NUM_LABELS: tl.constexpr, NUM_DENDRITES: tl.constexpr, ACTIVATION: tl.constexpr,
        BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_ROWS: tl.constexpr,
        SPLIT_COLUMNS: tl.constexpr):
    """What ``window_splits_kernel`` stored -> logits ``[B, C]``. One program per ``BLOCK_ROWS`` rows."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    sums = add_window_splits(
        row, (num_rows, length, num_tokens), cu_seqlens, (split_values, split_windows, split_gates, split_row), VALUES,
        CHANNELS, BLOCK_D, BLOCK_M, BLOCK_ROWS, SPLIT_COLUMNS)
    store_window_logits(
        sums, row, num_rows, (weight, bias, lateral, top), logits, FOLDED, VALUES, NUM_LAYERS, CHANNELS, NUM_LABELS,
        NUM_DENDRITES, ACTIVATION, BLOCK_D, BLOCK_M, BLOCK_ROWS, BLOCK_C)

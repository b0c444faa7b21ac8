"""Long rows: where rows are few, each is cut into splits, which are summed by programs of their own.

A split is ``SPLIT_COLUMNS`` columns of a row. One kernel sums the tokens of every split and stores the sums; a second
adds the splits of a row in their order, so that the result never depends on which program ran first. The stored tensors
are ``split_sums [S, H]`` float32, ``split_beta [S, H]`` float32 (with dropout: how often each channel kept beta),
``split_valid [S]`` int32 (numbers of valid tokens) and, in the packed layout, ``split_row [S]`` int32 (the row that the
split was summed for).

The splits of row b are numbered from ``b * ceil(L / SPLIT_COLUMNS)`` in the padded layout, and from
``cu_seqlens[b] // SPLIT_COLUMNS + b`` in the packed one, which needs no count. Where rows overlap, as in an invalid
cu_seqlens, two of them may claim one number. A row that lacks a split of its own becomes NaN, so that a row that is not
NaN is right whatever its neighbours are.
"""

import triton
import triton.language as tl

from .tokens import find_row, load_row_bounds


@triton.jit
def find_split(split, batch, cu_seqlens, SPLIT_COLUMNS: tl.constexpr):
    """The row of a split ``[1]``, that row's first token, the split's first column, and the column behind its last."""
    num_rows, length, _ = batch
    if cu_seqlens is None:
        num_splits = tl.cdiv(length, SPLIT_COLUMNS)
        row = split // num_splits
        first = row * num_splits
    else:
        row = find_row(split, cu_seqlens, num_rows, SPLIT_COLUMNS)
        first = tl.load(cu_seqlens + row).to(tl.int64) // SPLIT_COLUMNS + row
    start, count, _ = load_row_bounds(row, batch, cu_seqlens)
    begin = tl.maximum(split - first, 0) * SPLIT_COLUMNS
    return row, start, begin, tl.minimum(begin + SPLIT_COLUMNS, count)


@triton.jit
def store_split(split, row, total, num_valid, beta_kept, splits, HIDDEN_SIZE: tl.constexpr, BLOCK_H: tl.constexpr):
    """Store the sum of a split, how often its channels kept beta, its number of valid tokens, and its row."""
    split_sums, split_beta, split_valid, split_row = splits
    h = tl.arange(0, BLOCK_H)[None, :]
    places = split[:, None] * HIDDEN_SIZE + h
    tl.store(split_sums + places, total, mask=h < HIDDEN_SIZE)
    if split_beta is not None:
        tl.store(split_beta + places, beta_kept, mask=h < HIDDEN_SIZE)
    tl.store(split_valid + split, num_valid)
    if split_row is not None:
        tl.store(split_row + split, row)


@triton.jit
def add_splits(row, batch, cu_seqlens, splits, HIDDEN_SIZE: tl.constexpr, BLOCK_H: tl.constexpr,
               BLOCK_ROWS: tl.constexpr, SPLIT_COLUMNS: tl.constexpr):
    """Add the splits of rows ``[R]`` in their order: sums ``[R, H]``, numbers of valid tokens ``[R]``, and how often
    each channel kept beta ``[R, H]``. A row with invalid bounds, or without a split of its own, is NaN."""
    _, length, _ = batch
    split_sums, split_beta, split_valid, split_row = splits
    start, count, nan_guard = load_row_bounds(row, batch, cu_seqlens)
    num_splits = (count + SPLIT_COLUMNS - 1) // SPLIT_COLUMNS
    first = row * tl.cdiv(length, SPLIT_COLUMNS) if cu_seqlens is None else start // SPLIT_COLUMNS + row
    h = tl.arange(0, BLOCK_H)[None, :]
    total = tl.zeros((BLOCK_ROWS, BLOCK_H), tl.float32) + nan_guard[:, None]
    beta_kept = tl.zeros((BLOCK_ROWS, BLOCK_H), tl.float32)
    num_valid = tl.zeros((BLOCK_ROWS,), tl.int32)
    for k in range(0, tl.max(num_splits)):
        exists = k < num_splits
        places = (first + k)[:, None] * HIDDEN_SIZE + h
        read = exists[:, None] & (h < HIDDEN_SIZE)
        total += tl.load(split_sums + places, mask=read, other=0.0)
        if split_beta is not None:
            beta_kept += tl.load(split_beta + places, mask=read, other=0.0)
        num_valid += tl.load(split_valid + first + k, mask=exists, other=0)
        if split_row is not None:
            owner = tl.load(split_row + first + k, mask=exists, other=0)
            total += tl.where(exists & (owner != row), float("nan"), 0.0)[:, None]
    return total, num_valid, beta_kept

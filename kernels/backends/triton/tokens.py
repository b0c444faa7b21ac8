"""Which tokens a program reads: the bounds of rows, the mask, and the indices of a token into the tables.

How arguments travel. A kernel takes every pointer and every size as an argument of its own, because
``torch.library.wrap_triton``, which shows the launches to torch.compile, knows no tensors inside a tuple. A helper
takes them in plain tuples, which the kernel packs and the helper unpacks:

    tokens      (input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids), as ``contract.Tokens``
    batch       (num_rows, length, num_tokens); length is 0 in the packed layout
    sizes       (vocab_size, num_types, num_positions), the numbers of rows of the tables
    table       (word, word_scale, context, eps), as ``contract.DsnTable``
    head        (weight, bias, beta_bias, lateral, top), as ``contract.DsnHead``
    embeddings  (word_embeddings, position_embeddings, token_type_embeddings), the parameters
    dropout     (seed, threshold, scale)
    splits      (split_sums, split_beta, split_valid, split_row), see ``splits``

They have no named fields because inductor copies the source of a kernel, with the functions and the constants that it
names, into the code that it generates, but no classes. For the same reason a helper is imported by its name, and no two
helpers of this folder share one. An optional tensor that is absent is None, which compiles a kernel without it.
"""

import triton
import triton.language as tl

from .kernel import kernel

# Sizes of a batch and of its tables change from call to call. A kernel that were specialised on one value of them would
# be compiled again for the next.
SIZES = ["num_rows", "length", "num_tokens", "num_bounds", "vocab_size", "num_types", "num_positions"]
BOUNDS_AT_ONCE = tl.constexpr(64)  # bounds that a program compares in one step when it compares all of them


@triton.jit
def load_row_bounds(row, batch, cu_seqlens):
    """The first token of each row ``[R]``, its number of columns ``[R]``, which is 0 behind the last row, and its nan
    guard ``[R]``, which is to be added to the row's sum: NaN where the row's bounds in cu_seqlens are invalid, else 0.
    """
    num_rows, length, num_tokens = batch
    inside = row < num_rows
    if cu_seqlens is None:
        start = row * length
        count = tl.where(inside, length, 0).to(tl.int64)
        nan_guard = tl.zeros_like(row).to(tl.float32)
    else:
        start = tl.load(cu_seqlens + row, mask=inside, other=0).to(tl.int64)
        end = tl.load(cu_seqlens + row + 1, mask=inside, other=0).to(tl.int64)
        valid = (start >= 0) & (start <= end) & (end <= num_tokens)
        valid = valid & ((row > 0) | (start == 0)) & ((row < num_rows - 1) | (end == num_tokens))
        count = tl.where(inside & valid, end - start, 0)
        nan_guard = tl.where(inside & (valid == 0), float("nan"), 0.0)
    return start, count, nan_guard


@triton.jit
def find_decreases(bounds, first, end, COUNT: tl.constexpr):
    """Which of ``bounds[first:end]`` ``[COUNT]`` are greater than their successors."""
    i = first + tl.arange(0, COUNT)
    here = tl.load(bounds + i, mask=i < end, other=0)
    return here > tl.load(bounds + i + 1, mask=i < end, other=0)


@triton.jit
def cu_seqlens_is_valid(cu_seqlens, bounds, num_bounds, batch):
    """Whether cu_seqlens rises from 0 to T without a decrease, so that every token lies in exactly one row.

    ``bounds [num_bounds + 1]`` is cu_seqlens itself or, where rows are many, the summary that ``bounds_kernel`` makes
    of it. Every program compares all of it, because any two rows may overlap.
    """
    num_rows, _, num_tokens = batch
    decreases = tl.zeros((BOUNDS_AT_ONCE,), tl.int1)
    for first in range(0, num_bounds, BOUNDS_AT_ONCE):
        decreases = decreases | find_decreases(bounds, first, num_bounds, BOUNDS_AT_ONCE)
    ends_match = (tl.load(cu_seqlens) == 0) & (tl.load(cu_seqlens + num_rows) == num_tokens)
    return ends_match & (tl.max(decreases.to(tl.int32)) == 0)


@kernel(do_not_specialize=["num_rows"])
def bounds_kernel(cu_seqlens, bounds, num_rows, ROWS: tl.constexpr):
    """A summary of cu_seqlens that decreases if and only if cu_seqlens does: ``bounds`` is 0, 1, 2, ..., with -1 after
    every group of ``ROWS`` rows in which cu_seqlens decreases. One program per group."""
    group = tl.program_id(0)
    first = group.to(tl.int64) * ROWS
    decreases = tl.max(find_decreases(cu_seqlens, first, num_rows, ROWS).to(tl.int32))
    tl.store(bounds, 0, mask=group == 0)
    tl.store(bounds + group + 1, tl.where(decreases != 0, -1, group + 1))


@triton.jit
def find_row(place, starts, num_rows, PART: tl.constexpr):
    """By binary search, the last row that starts at or before ``place``: ``starts`` holds the first token of each row.

    With PART > 0, ``place`` numbers parts of ``PART`` tokens (splits of rows, chunks of segments). Those of row b are
    numbered from ``starts[b] // PART + b``, which leaves room for all of them and needs no count.
    """
    low = place * 0
    size = num_rows
    while size > 1:
        half = size // 2
        middle = low + half
        first = tl.load(starts + middle).to(tl.int64)
        if PART > 0:
            first = first // PART + middle
        low = tl.where(first <= place, middle, low)
        size -= half
    return low


@triton.jit
def find_columns(place, row, all_valid, cu_seqlens, batch):
    """The columns of tokens ``[T]``, given the rows that ``find_row`` returned, and whether exactly one row holds each.

    Unless cu_seqlens is valid throughout (``all_valid``), the search may have failed, and all rows are looked at.
    """
    num_rows, _, _ = batch
    holders = tl.where(all_valid, place * 0 + 1, 0)
    for other in range(0, tl.where(all_valid, 0, num_rows)):
        holds = (tl.load(cu_seqlens + other) <= place) & (place < tl.load(cu_seqlens + other + 1))
        holders += holds.to(tl.int64)
        row = tl.where(holds, other, row)
    start, count, _ = load_row_bounds(row, batch, cu_seqlens)
    column = place - start
    return column, all_valid | ((holders == 1) & (column >= 0) & (column < count))


@triton.jit
def is_valid(place, column, end, attention_mask):
    """Which tokens ``[R, T]`` are valid: those before column ``end [R, 1]`` that the mask, if any, does not hide."""
    valid = column < end
    if attention_mask is not None:
        valid = valid & (tl.load(attention_mask + place, mask=valid, other=0) != 0)
    return valid


@triton.jit
def load_context_indices(place, column, valid, token_type_ids, position_ids, sizes):
    """Token types, positions, and whether both lie inside their tables.

    Without token_type_ids and position_ids all have the shape of ``column``, which may be ``[1, T]`` for all rows.
    """
    _, num_types, num_positions = sizes
    position = column
    token_type = column * 0
    if position_ids is not None:
        position = tl.load(position_ids + place, mask=valid, other=0).to(tl.int64)
    if token_type_ids is not None:
        token_type = tl.load(token_type_ids + place, mask=valid, other=0).to(tl.int64)
    inside = (position >= 0) & (position < num_positions) & (token_type >= 0) & (token_type < num_types)
    return token_type, position, inside


@triton.jit
def load_token_indices(place, column, valid, tokens, sizes):
    """Ids, the three results of ``load_context_indices``, and whether the id too lies inside its table."""
    input_ids, _, _, token_type_ids, position_ids = tokens
    vocab_size, _, _ = sizes
    token_id = tl.load(input_ids + place, mask=valid, other=0).to(tl.int64)
    token_type, position, context_inside = load_context_indices(place, column, valid, token_type_ids, position_ids,
                                                                sizes)
    inside = (token_id >= 0) & (token_id < vocab_size) & context_inside
    return token_id, token_type, position, context_inside, inside

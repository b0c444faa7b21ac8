"""From the tensors of a call to the arguments that all kernels share. Their order is that of the kernels' signatures.

Nothing here reads a value of a tensor, so that nothing waits for the GPU. Strided views are copied.
"""

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from ...contract import Tokens
from . import configs
from .kernel import INTERPRETED, launch
from .tokens import bounds_kernel


class Batch(NamedTuple):
    """``length`` is the number of columns in the padded layout, and 0 in the packed one."""

    num_rows: int
    length: int
    num_tokens: int


class Sizes(NamedTuple):
    """The numbers of rows of the word, the token type and the position tables."""

    vocab_size: int
    num_types: int
    num_positions: int


class Bounds(NamedTuple):
    """What ``cu_seqlens_is_valid`` compares: ``bounds [num_bounds + 1]``; None and 0 in the padded layout."""

    bounds: Tensor | None
    num_bounds: int


class Splits(NamedTuple):
    """The tensors that ``store_split`` writes, float32 and int32; ``beta`` only with dropout, ``row`` only packed."""

    sums: Tensor
    beta: Tensor | None
    num_valid: Tensor
    row: Tensor | None


class Dropout(NamedTuple):
    """A channel is dropped if its random word of 32 bits is below ``threshold``; the others are multiplied by
    ``scale``."""

    threshold: int
    scale: float


def dropout_of(p: float) -> Dropout:
    return Dropout(int(p * 2**32), 1 / (1 - p))


def batch_of(tokens: Tokens) -> Batch:
    if tokens.cu_seqlens is not None:
        return Batch(tokens.cu_seqlens.shape[0] - 1, 0, tokens.input_ids.numel())
    num_rows, length = tokens.input_ids.shape
    return Batch(num_rows, length, tokens.input_ids.numel())


def readable_tokens(tokens: Tokens, pooling: str) -> Tokens:
    """The tokens as kernels read them: contiguous, and with a mask of bytes if it was boolean.

    ``mean_all`` and ``sum_all`` pool padding too, so they run the kernels of a batch without a mask.
    """
    mask = tokens.attention_mask if pooling == "mean_masked" else None
    if mask is not None and mask.dtype == torch.bool:
        mask = mask.view(torch.uint8)
    tensors = tokens._replace(attention_mask=mask)
    return Tokens(*(None if tensor is None else tensor.contiguous() for tensor in tensors))  # type: ignore[arg-type]


def bounds_of(cu_seqlens: Tensor | None, num_rows: int) -> Bounds:
    """cu_seqlens itself or, where rows are many, a summary with one number per group of rows, for which it launches
    ``bounds_kernel``."""
    if cu_seqlens is None:
        return Bounds(None, 0)
    if num_rows <= configs.FEW_BOUNDS:
        return Bounds(cu_seqlens, num_rows)
    groups = triton.cdiv(num_rows, configs.BOUNDS_ROWS)
    bounds = torch.empty((groups + 1,), dtype=torch.int32, device=cu_seqlens.device)
    launch(bounds_kernel, groups, cu_seqlens, bounds, num_rows, ROWS=configs.BOUNDS_ROWS)
    return Bounds(bounds, groups)


def longest_row(tokens: Tokens, batch: Batch, num_positions: int) -> int:
    """The most columns that a row can have. A packed row is no longer than the batch nor, where positions are columns,
    than the position table."""
    if tokens.cu_seqlens is None:
        return batch.length
    return batch.num_tokens if tokens.position_ids is not None else min(batch.num_tokens, num_positions)


def num_splits(batch: Batch, longest: int, split_columns: int) -> int:
    """The number of splits of all rows together, or 0 where rows stay whole: because none is long, or because they are
    so many that they leave no GPU idle."""
    return 0 if longest <= split_columns or batch.num_rows > configs.FEW_ROWS else count_splits(batch, split_columns)


def count_splits(batch: Batch, split_columns: int) -> int:
    """The number of splits of all rows together: in the packed layout the most that there can be."""
    if batch.length > 0:
        return batch.num_rows * triton.cdiv(batch.length, split_columns)
    return batch.num_rows + batch.num_tokens // split_columns


def empty_splits(count: int, packed: bool, like: Tensor, *, dropout: bool = False) -> Splits:
    """``like``: any tensor ``[., H]`` of the device."""
    sums = like.new_empty((count, like.shape[1]), dtype=torch.float32)
    num_valid = torch.empty((count,), dtype=torch.int32, device=like.device)
    return Splits(sums, torch.empty_like(sums) if dropout else None, num_valid,
                  torch.empty_like(num_valid) if packed else None)


def block_h(hidden_size: int) -> int:
    """The hidden size of a tile: a power of two, as Triton requires."""
    return max(16, triton.next_power_of_2(hidden_size))


def written_dtype(dtype: torch.dtype) -> torch.dtype:
    """What a kernel writes where ``dtype`` is wanted. The interpreter truncates to bfloat16, so there torch rounds."""
    return torch.float32 if INTERPRETED and dtype == torch.bfloat16 else dtype

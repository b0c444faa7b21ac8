"""Dropout by the counter-based generator Philox: the same seed drops the same channels in every backend.

The counter is (block of four channels, column, row, stream), the key is the seed, as in ``reference.dropout_keep``.
"""

import triton
import triton.language as tl

# As in ``reference``: dropout of tokens and dropout of pooled rows draw from streams of their own.
EMBED_STREAM = tl.constexpr(0)
POOL_STREAM = tl.constexpr(1)


@triton.jit
def keep_channels(seed, row, column, threshold, STREAM: tl.constexpr, BLOCK_H: tl.constexpr):
    """Which channels ``[R, T, H]`` dropout keeps, for tokens whose row and column broadcast to ``[R, T]``: those whose
    random word is at least ``threshold``."""
    block = tl.arange(0, BLOCK_H // 4)[None, None, :]
    zero = (row + column)[:, :, None] * 0 + block * 0
    w0, w1, w2, w3 = tl.philox(tl.load(seed), (zero + block).to(tl.uint32), (zero + column[:, :, None]).to(tl.uint32),
                               (zero + row[:, :, None]).to(tl.uint32), (zero + STREAM).to(tl.uint32))
    words = tl.interleave(tl.interleave(w0, w2), tl.interleave(w1, w3))  # word channel % 4 of block channel // 4
    return words.to(tl.int64) >= threshold


@triton.jit
def keep_pooled_channels(row, dropout, BLOCK_H: tl.constexpr, BLOCK_ROWS: tl.constexpr):
    """Which channels ``[R, H]`` the dropout of pooled rows keeps."""
    seed, threshold, _ = dropout
    keep = keep_channels(seed, row[:, None], row[:, None] * 0, threshold, POOL_STREAM, BLOCK_H)
    return tl.reshape(keep, (BLOCK_ROWS, BLOCK_H))

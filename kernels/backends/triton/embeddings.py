"""A token's embedding, from the tables into registers and widened to float32.

Inference reads tables whose rows are centred, so that no mean has to be subtracted (the identity stands at the head of
``prepare``). Training reads the parameters as they are and subtracts the mean.
"""

import triton
import triton.language as tl

from .tokens import load_token_indices


@triton.jit
def widen(values):
    """Widen to float32. Bytes are float8_e4m3fn on a GPU that cannot read that format: shifted they are float16, but
    for NaN and for an exponent bias of 7 where that of float16 is 15."""
    if values.dtype == tl.uint8:
        bits = values.to(tl.uint16)
        half = (((bits & 0x80) << 8) | ((bits & 0x7F) << 7)).to(tl.float16, bitcast=True)
        result = tl.where((bits & 0x7F) == 0x7F, float("nan"), half.to(tl.float32) * 256.0)
    else:
        result = values.to(tl.float32)
    return result


@triton.jit
def load_centred_tokens(place, column, valid, tokens, sizes, table, HIDDEN_SIZE: tl.constexpr, BLOCK_H: tl.constexpr):
    """Tokens from the centred tables: ``e_t`` ``[R, T, H]`` and ``rstd`` ``[R, T]``, which makes x_hat of it.

    ``rstd`` is 0 where a token is not valid, and NaN where it is valid and one of its indices lies outside its table.
    """
    word, word_scale, context, eps = table
    _, _, num_positions = sizes
    token_id, token_type, position, context_inside, inside = load_token_indices(place, column, valid, tokens, sizes)
    h = tl.arange(0, BLOCK_H)[None, None, :]
    read = valid & inside
    e = widen(tl.load(word + token_id[:, :, None] * HIDDEN_SIZE + h, mask=read[:, :, None] & (h < HIDDEN_SIZE),
                      other=0.0))
    if word_scale is not None:
        e *= tl.load(word_scale + token_id, mask=read, other=0.0)[:, :, None]
    # Where the context depends on the column alone, all rows of the tile share one row of it.
    context_row = token_type * num_positions + position
    e += tl.load(context + context_row[:, :, None] * HIDDEN_SIZE + h,
                 mask=context_inside[:, :, None] & (h < HIDDEN_SIZE), other=0.0)
    rstd = tl.rsqrt(tl.sum(e * e, axis=2) / HIDDEN_SIZE + eps)
    return e, tl.where(valid, tl.where(inside, rstd, float("nan")), 0.0)


@triton.jit
def load_rows(table, index, wanted, HIDDEN_SIZE: tl.constexpr, BLOCK_H: tl.constexpr, EVICT: tl.constexpr = "",
              WIDE: tl.constexpr = False):
    """Rows ``index [R, T]`` of a table ``[., H]`` in float32 -> ``[R, T, H]``, 0 where a row is not wanted.

    A thread loads at most four channels at once, so that one load of a warp covers 128 channels of a table of any
    dtype. With 16 bytes of bfloat16 per thread, half of the second load of a row of 384 would lie behind its end. WIDE
    loads 16 bytes nevertheless, for kernels in which more than two warps may share a row.
    """
    h = tl.arange(0, BLOCK_H)
    if not WIDE and HIDDEN_SIZE < BLOCK_H:
        h = tl.max_contiguous(h, 4)
    h = h[None, None, :]
    return tl.load(table + index[:, :, None] * HIDDEN_SIZE + h, mask=wanted[:, :, None] & (h < HIDDEN_SIZE), other=0.0,
                   eviction_policy=EVICT).to(tl.float32)


@triton.jit
def centre_tokens(read, token_id, token_type, position, context_inside, embeddings, HIDDEN_SIZE: tl.constexpr,
                  BLOCK_H: tl.constexpr):
    """Tokens from the parameters: ``e_t - mean(e_t)`` ``[R, T, H]``, 0 where a token is not read."""
    word_embeddings, position_embeddings, token_type_embeddings = embeddings
    h = tl.arange(0, BLOCK_H)[None, None, :]
    e = load_rows(word_embeddings, token_id, read, HIDDEN_SIZE, BLOCK_H, WIDE=True)
    e += load_rows(position_embeddings, position, context_inside, HIDDEN_SIZE, BLOCK_H, WIDE=True)
    e += load_rows(token_type_embeddings, token_type, context_inside, HIDDEN_SIZE, BLOCK_H, WIDE=True)
    mean = tl.sum(e, axis=2) / HIDDEN_SIZE
    return tl.where(read[:, :, None] & (h < HIDDEN_SIZE), e - mean[:, :, None], 0.0)

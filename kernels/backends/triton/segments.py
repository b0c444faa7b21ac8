"""The gradients of tokens in the order of their ids, or of their contexts, in Triton.

A segment is the tokens of one id, or of one context (one row of the combined position and type table). One program sums
it: it reads the word once and writes the word's gradient once, without atomics and without reading what it adds to. A
segment is cut into chunks of ``CHUNK`` tokens, so that a frequent id does not keep one program busy for long;
``segment_combine_kernel`` adds the chunks of a segment in their order. There are two ways to put tokens in order:

* ``order_tokens_kernel`` sorts by counting, for which a token's cell is written and read, 4 bytes each. The tokens of
  an id come in any order. The gradients of their positions and types are added by atomics on the way.
* ``token_keys_kernel`` writes the keys by which torch sorts the tokens, stably: once by id, and once by context. The
  result has the same bits in every run.

An order holds the cells of tokens, ``row * width + column`` where no row is longer than ``width``. In the padded layout
that is the token's place; in the packed layout it is a number from which the row can be computed without a search.
"""

import triton
import triton.language as tl

from .backward import differentiate_tokens
from .dropout import EMBED_STREAM, keep_channels
from .embeddings import load_rows
from .kernel import kernel
from .tokens import SIZES, find_row, is_valid, load_context_indices, load_token_indices


@triton.jit
def load_cells(place, tokens, batch, sizes, width):
    """Cells of tokens ``[T]``, their ids, their contexts, and whether they are valid and inside all tables."""
    _, attention_mask, cu_seqlens, _, _ = tokens
    num_rows, length, num_tokens = batch
    _, _, num_positions = sizes
    if cu_seqlens is None:
        cell, column = place, place % length
    else:
        row = find_row(place, cu_seqlens, num_rows, 0)
        column = place - tl.load(cu_seqlens + row).to(tl.int64)
        # A column that lies in no row comes from an invalid cu_seqlens: every gradient is NaN, whatever the cell.
        cell = row * width + tl.minimum(tl.maximum(column, 0), width - 1)
    valid = is_valid(place, place, num_tokens, attention_mask)
    token_id, token_type, position, _, inside = load_token_indices(place, column, valid, tokens, sizes)
    return cell, token_id, token_type * num_positions + position, valid & inside


@kernel(do_not_specialize=[*SIZES, "width"])
def token_keys_kernel(
        input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids, word_keys, context_keys, cells, num_rows,
        length, num_tokens, vocab_size, num_types, num_positions, width, BLOCK_TOKENS: tl.constexpr):
    """The id, the context and the cell of every token ``[T]``. One program per ``BLOCK_TOKENS`` tokens.

    A token that is not valid, or outside a table, gets the first keys that no row has: ``V``, and ``K * P``.
    """
    tokens = (input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids)
    place = tl.program_id(0).to(tl.int64) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    cell, token_id, context, read = load_cells(place, tokens, (num_rows, length, num_tokens),
                                               (vocab_size, num_types, num_positions), width)
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
    """A counting sort of the tokens by id, in two launches over ``offsets [V + 2]``. One program per ``BLOCK_TOKENS``
    tokens.

    Without ``order``, the number of tokens of each id is added two places behind the id's own. After a cumulative sum,
    ``offsets[id + 1]`` is where the tokens of the id start. With ``order``, every token takes the next place of its id
    and writes its cell there, which leaves in ``offsets[id]`` where the tokens of the id start, as segments need it.
    Tokens that are not valid, or outside a table, get no place.
    """
    tokens = (input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids)
    place = tl.program_id(0).to(tl.int64) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    cell, token_id, _, read = load_cells(place, tokens, (num_rows, length, num_tokens),
                                         (vocab_size, num_types, num_positions), width)
    one = tl.full((BLOCK_TOKENS,), 1, offsets.dtype.element_ty)
    if order is None:
        tl.atomic_add(offsets + token_id + 2, one, mask=read, sem="relaxed")
    else:
        target = tl.atomic_add(offsets + token_id + 1, one, mask=read, sem="relaxed")
        tl.store(order + target, cell.to(order.dtype.element_ty), mask=read)


@triton.jit
def load_common_rows(segment, read, word_ids, embeddings, token_type_ids, num_positions, HIDDEN_SIZE: tl.constexpr,
                     BLOCK_H: tl.constexpr, BY_WORD: tl.constexpr):
    """What the embeddings of a segment's tokens have in common ``[R, 1, H]``: the word, or the position and type."""
    word_embeddings, position_embeddings, token_type_embeddings = embeddings
    if BY_WORD:
        token_id = segment if word_ids is None else tl.load(word_ids + segment)
        # Evicted first because no other program reads it, except for the chunks of a frequent id.
        rows = load_rows(word_embeddings, token_id[:, None], read[:, None], HIDDEN_SIZE, BLOCK_H, "evict_first")
        if token_type_ids is None:
            rows += load_rows(token_type_embeddings, segment[:, None] * 0, read[:, None], HIDDEN_SIZE, BLOCK_H)
    else:
        token_type = segment // num_positions
        rows = load_rows(position_embeddings, (segment - token_type * num_positions)[:, None], read[:, None],
                         HIDDEN_SIZE, BLOCK_H)
        rows += load_rows(token_type_embeddings, token_type[:, None], read[:, None], HIDDEN_SIZE, BLOCK_H)
    return rows


@kernel(do_not_specialize=[*SIZES, "embed_threshold", "num_segments", "num_chunks", "width"])
def segment_gradients_kernel(
        input_ids, cu_seqlens, token_type_ids, position_ids, word_embeddings, position_embeddings,
        token_type_embeddings, ln_weight, seed, rstd, grad_rows, row_share, order, offsets, word_ids, sums, chunk_sums,
        d_context, num_segments, num_chunks, num_tokens, vocab_size, num_types, num_positions, width, embed_threshold,
        embed_scale, HIDDEN_SIZE: tl.constexpr, DROP_EMBED: tl.constexpr, BLOCK_H: tl.constexpr,
        BLOCK_ROWS: tl.constexpr, BLOCK_TOKENS: tl.constexpr, CHUNK: tl.constexpr, BY_WORD: tl.constexpr):
    """Sums of ``d e_t`` over segments. Segment s is the tokens of cells ``order[offsets[s]:offsets[s + 1]]``: with
    BY_WORD those of the id ``word_ids[s]``, or s where there are no word_ids, otherwise those of context s. One program
    per ``BLOCK_ROWS`` chunks.

    Every chunk of a segment has ``CHUNK`` tokens, except for the last. The chunks of segment s are numbered from
    ``offsets[s] // CHUNK + s``, which leaves room for all of them; those numbers behind its end are empty. The only
    chunk of a segment is written to ``sums [S, H]``. Of several, chunk k goes to row 2j of ``chunk_sums``, or for k = 0
    to row 2j + 1, where j = ``offsets[s] // CHUNK + k``: no two share a row. Where there is ``d_context [K * P, H]``,
    every ``d e_t`` is added to it as well, by atomics.
    """
    sizes = (vocab_size, num_types, num_positions)
    embeddings = (word_embeddings, position_embeddings, token_type_embeddings)
    chunk = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    segment = find_row(chunk, offsets, num_segments, CHUNK)
    start = tl.load(offsets + segment).to(tl.int64)
    end = tl.load(offsets + segment + 1).to(tl.int64)
    slot = chunk - segment
    number = slot - start // CHUNK
    begin = start + number * CHUNK
    stop = tl.where(chunk < num_chunks, tl.minimum(end, begin + CHUNK), 0)
    h = tl.arange(0, BLOCK_H)[None, :]
    common = load_common_rows(segment, begin < stop, word_ids, embeddings, token_type_ids, num_positions, HIDDEN_SIZE,
                              BLOCK_H, BY_WORD)
    gamma = tl.load(ln_weight + h, mask=h < HIDDEN_SIZE, other=0.0).to(tl.float32)[None, :, :]
    total = tl.zeros((BLOCK_ROWS, BLOCK_TOKENS, BLOCK_H), tl.float32)
    for offset in tl.range(0, tl.max(stop - begin), BLOCK_TOKENS):
        i = begin[:, None] + offset + tl.arange(0, BLOCK_TOKENS)[None, :]
        read = i < stop[:, None]
        cell = tl.load(order + i, mask=read, other=0)
        row = cell // width
        column = (cell - row * width).to(tl.int64)
        row, place = row.to(tl.int64), cell.to(tl.int64)
        if cu_seqlens is not None:
            # The cell of a token that no row holds comes from an invalid cu_seqlens, and any token will do.
            place = tl.load(cu_seqlens + row, mask=read, other=0).to(tl.int64) + column
            place = tl.minimum(tl.maximum(place, 0), num_tokens - 1)
        if BY_WORD:
            token_type, position, inside = load_context_indices(place, column, read, token_type_ids, position_ids,
                                                                sizes)
            read = read & inside
            e = common + load_rows(position_embeddings, position, read, HIDDEN_SIZE, BLOCK_H)
            if token_type_ids is not None:
                e += load_rows(token_type_embeddings, token_type, read, HIDDEN_SIZE, BLOCK_H)
        else:
            token_id = tl.load(input_ids + place, mask=read, other=0).to(tl.int64)
            read = read & (token_id >= 0) & (token_id < vocab_size)
            e = common + load_rows(word_embeddings, token_id, read, HIDDEN_SIZE, BLOCK_H)
        e -= (tl.sum(e, axis=2) / HIDDEN_SIZE)[:, :, None]
        gradient = gamma * load_rows(grad_rows, row, read, HIDDEN_SIZE, BLOCK_H)
        if DROP_EMBED:
            keep = keep_channels(seed, row, column, embed_threshold, EMBED_STREAM, BLOCK_H)
            gradient = tl.where(keep, gradient * embed_scale, 0.0)
        token_rstd = tl.load(rstd + place, mask=read, other=0.0)
        share = tl.load(row_share + row, mask=read, other=0.0)
        gradient = differentiate_tokens(e, token_rstd, share, gradient, HIDDEN_SIZE)
        total += gradient
        if d_context is not None:
            context = token_type * num_positions + position
            tl.atomic_add(d_context + context[:, :, None] * HIDDEN_SIZE + h[None, :, :], gradient, sem="relaxed",
                          mask=read[:, :, None] & (h < HIDDEN_SIZE)[None, :, :])
    result = tl.sum(total, axis=1)
    first = number == 0
    whole = (chunk < num_chunks) & first & (end - start <= CHUNK)
    cut = (begin < stop) & (whole == 0)
    tl.store(sums + segment[:, None] * HIDDEN_SIZE + h, result.to(sums.dtype.element_ty), eviction_policy="evict_first",
             mask=whole[:, None] & (h < HIDDEN_SIZE))
    tl.store(chunk_sums + (2 * slot + first.to(tl.int64))[:, None] * HIDDEN_SIZE + h, result,
             mask=cut[:, None] & (h < HIDDEN_SIZE))


@kernel(do_not_specialize=["num_segments"])
def segment_combine_kernel(offsets, sums, chunk_sums, num_segments, HIDDEN_SIZE: tl.constexpr, BLOCK_H: tl.constexpr,
                           CHUNK: tl.constexpr):
    """Add the chunks of the segments that ``segment_gradients_kernel`` cut, in their order, into ``sums [S, H]``. One
    program per ``CHUNK`` places of the order: a segment that was cut is the last one to start in its program's places.
    """
    slot = tl.program_id(0).to(tl.int64) + tl.zeros((1,), tl.int64)
    segment = find_row(slot * CHUNK + CHUNK - 1, offsets, num_segments, 0)
    start = tl.load(offsets + segment).to(tl.int64)
    end = tl.load(offsets + segment + 1).to(tl.int64)
    cut = (start // CHUNK == slot) & (end - start > CHUNK)
    num_chunks = tl.where(cut, (end - start + CHUNK - 1) // CHUNK, 0)
    h = tl.arange(0, BLOCK_H)[None, :]
    total = tl.zeros((1, BLOCK_H), tl.float32)
    for k in range(0, tl.max(num_chunks)):
        place = 2 * (slot + k) + tl.where(k == 0, 1, 0)
        total += tl.load(chunk_sums + place[:, None] * HIDDEN_SIZE + h, mask=h < HIDDEN_SIZE, other=0.0)
    tl.store(sums + segment[:, None] * HIDDEN_SIZE + h, total.to(sums.dtype.element_ty),
             mask=cut[:, None] & (h < HIDDEN_SIZE))

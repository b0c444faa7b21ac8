"""From tensors to launches of the backward kernels: the gradients of ``embed_pool``, by its schema in ``registration``.

They are computed in one of three forms:

* scattered: everything by atomics, in one launch;
* by id: words in the order of their ids, everything else by atomics;
* sorted: words in the order of their ids and contexts in theirs, to the same bits in every run.

Only the sparse gradient waits for the GPU, because its size depends on the ids.
"""

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from ... import validation
from ...contract import POOLINGS, Tokens, WordGrad
from . import configs
from .arguments import (
    Batch,
    Bounds,
    Dropout,
    Sizes,
    batch_of,
    block_h,
    bounds_of,
    dropout_of,
    longest_row,
    num_splits,
    readable_tokens,
    written_dtype,
)
from .backward import row_gradients_kernel, scatter_gradients_kernel
from .configs import Config
from .kernel import architecture, launch, launch_options
from .segments import order_tokens_kernel, segment_combine_kernel, segment_gradients_kernel, token_keys_kernel


def embed_pool_backward(
        grad_pooled: Tensor, pooled_hat: Tensor, rstd: Tensor, input_ids: Tensor, word_embeddings: Tensor,
        position_embeddings: Tensor, token_type_embeddings: Tensor, ln_weight: Tensor, ln_bias: Tensor,
        attention_mask: Tensor | None, cu_seqlens: Tensor | None, token_type_ids: Tensor | None,
        position_ids: Tensor | None, eps: float, pooling: int, p_embed: float, p_pool: float, seed: Tensor | None,
        word_grad: int) -> tuple[Tensor, ...]:
    """The gradients of the word table, its ids if it is sparse, and the gradients of positions, types, gamma and beta.

    The dense word gradient is scattered where that moves the fewest bytes (``configs.adds_in_cache``); otherwise it is
    computed by id, as the sparse one is. With torch's deterministic algorithms everything is sorted.
    """
    validation.check_embed_pool(input_ids, word_embeddings, position_embeddings, token_type_embeddings, ln_weight,
                                ln_bias, attention_mask, cu_seqlens, token_type_ids, position_ids, POOLINGS[pooling],
                                values=False)
    given = Tokens(input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids)
    tokens, batch = readable_tokens(given, POOLINGS[pooling]), batch_of(given)
    (vocab_size, hidden_size), dtype = word_embeddings.shape, word_embeddings.dtype
    sizes = Sizes(vocab_size, token_type_embeddings.shape[0], position_embeddings.shape[0])
    longest = longest_row(tokens, batch, sizes.num_positions)
    key = configs.key_of("embed_pool_backward", hidden_size, longest, batch.num_rows, dtype,
                         architecture(word_embeddings))
    config = configs.choose_backward(key)
    config = configs.halve(config) if p_embed > 0 else config

    def constants(config: Config) -> dict[str, Any]:
        return {"HIDDEN_SIZE": hidden_size, "BLOCK_H": block_h(hidden_size), "DROP_EMBED": p_embed > 0,
                "BLOCK_ROWS": config.rows, "BLOCK_TOKENS": config.tokens,
                **launch_options(config, word_embeddings, dropout=p_embed > 0)}

    embeddings = _Embeddings(*(tensor.contiguous()
                               for tensor in (word_embeddings, position_embeddings, token_type_embeddings)))
    call = _Call(
        tokens=tokens, batch=batch, bounds=bounds_of(tokens.cu_seqlens, batch.num_rows),
        grad_pooled=grad_pooled.contiguous(), pooled_hat=pooled_hat, rstd=rstd, embeddings=embeddings,
        ln_weight=ln_weight.contiguous(), sizes=sizes, seed=seed, embed_dropout=dropout_of(p_embed),
        pool_dropout=dropout_of(p_pool), width=longest, split_columns=config.split_columns,
        row_constants=constants(config),
        pool_constants={"SUM": POOLINGS[pooling] == "sum_all", "DROP_POOL": p_pool > 0},
        segment_constants=constants(configs.choose_segments(key)))
    if torch.are_deterministic_algorithms_enabled():
        form = _sorted_gradients
    elif word_grad == WordGrad.NONE or (word_grad == WordGrad.DENSE and configs.adds_in_cache(key, vocab_size)):
        form = _scattered_gradients
    else:
        form = _gradients_by_id
    word, word_ids, context, gamma, beta = form(call, word_grad)
    context = context.view(-1, sizes.num_positions, hidden_size)
    position = context[0] if context.shape[0] == 1 else context.sum(0)
    token_type = torch.nn.functional.pad(context.sum(1), (0, 0, 0, sizes.num_types - context.shape[0]))
    return word.to(dtype), word_ids, *(tensor.to(dtype) for tensor in (position, token_type, gamma, beta))


class _Embeddings(NamedTuple):
    word: Tensor
    position: Tensor
    token_type: Tensor


class _Call(NamedTuple):
    """What the three forms are given. ``width``: the most columns that a row can have. ``row_constants``: of kernels
    that go through rows; ``pool_constants``: of those among them that read pooled rows; ``segment_constants``: of the
    kernel that goes through segments."""

    tokens: Tokens
    batch: Batch
    bounds: Bounds
    grad_pooled: Tensor
    pooled_hat: Tensor
    rstd: Tensor
    embeddings: _Embeddings
    ln_weight: Tensor
    sizes: Sizes
    seed: Tensor | None
    embed_dropout: Dropout
    pool_dropout: Dropout
    width: int
    split_columns: int
    row_constants: dict[str, Any]
    pool_constants: dict[str, Any]
    segment_constants: dict[str, Any]

    @property
    def cell_dtype(self) -> torch.dtype:
        """The dtype of cells, and of places in an order."""
        return torch.int32 if self.batch.num_rows * self.width < 2**31 else torch.int64

    @property
    def num_contexts(self) -> int:
        """Rows of the combined position and type table. Without token_type_ids all tokens are of the first type."""
        return self.sizes.num_positions * (1 if self.tokens.token_type_ids is None else self.sizes.num_types)

    @property
    def row_programs(self) -> int:
        return triton.cdiv(self.batch.num_rows, self.row_constants["BLOCK_ROWS"])

    def zeros(self, *shape: int) -> Tensor:
        """Float32 zeros ``[*shape, H]``."""
        return self.rstd.new_zeros((*shape, self.embeddings.word.shape[1]))

    def empty_integers(self, count: int, dtype: torch.dtype) -> Tensor:
        return self.rstd.new_empty((count,), dtype=dtype)


class _Gradients(NamedTuple):
    """``word_ids``: the ids of the rows of ``word`` if it is sparse, otherwise empty. ``context``: of the combined
    position and type table."""

    word: Tensor
    word_ids: Tensor
    context: Tensor
    gamma: Tensor
    beta: Tensor


class _RowGradients(NamedTuple):
    """``before_dropout``: the gradient of each row before the dropout of pooled rows. ``share``: the share of it that
    each token gets. ``gamma``, ``beta``: ``[parts, H]``, to be summed."""

    before_dropout: Tensor
    share: Tensor
    gamma: Tensor
    beta: Tensor


def _scattered_gradients(call: _Call, word_grad: int) -> _Gradients:
    word = call.zeros(call.sizes.vocab_size) if word_grad == WordGrad.DENSE else None
    context, gamma, beta = call.zeros(call.num_contexts), call.zeros(), call.zeros()
    if call.batch.num_rows > 0:
        split_count = num_splits(call.batch, call.width, call.split_columns)
        split_constants = {"SPLIT_COLUMNS": 0}
        if split_count > 0:
            split_constants = {"SPLIT_COLUMNS": call.split_columns, "BLOCK_ROWS": 1}
        launch(scatter_gradients_kernel, split_count or call.row_programs, *call.tokens, call.bounds.bounds,
               call.grad_pooled, call.pooled_hat, *call.embeddings, call.ln_weight, call.seed, call.rstd, word, context,
               gamma, beta, *call.batch, call.bounds.num_bounds, *call.sizes, *call.embed_dropout, *call.pool_dropout,
               **call.pool_constants, **call.row_constants | split_constants)
    no_ids = call.empty_integers(0, torch.int64)
    return _Gradients(call.zeros(0) if word is None else word, no_ids, context, gamma, beta)


def _gradients_by_id(call: _Call, word_grad: int) -> _Gradients:
    order = call.empty_integers(call.batch.num_tokens, call.cell_dtype)
    offsets = order.new_zeros(call.sizes.vocab_size + 2)
    _launch_over_tokens(order_tokens_kernel, call, offsets, None)
    offsets.cumsum_(0)
    _launch_over_tokens(order_tokens_kernel, call, offsets, order)
    offsets = offsets[:-1]
    word_ids = None
    if word_grad == WordGrad.SPARSE:
        word_ids = (offsets[1:] > offsets[:-1]).nonzero()[:, 0]
        offsets = torch.cat([offsets[word_ids], offsets[-1:]])
    rows = _row_gradients(call, parts=1)
    context = call.zeros(call.num_contexts)
    word = _sum_segments(call, rows, order, offsets, call.embeddings.word.dtype, word_ids, context, by_word=True)
    return _Gradients(word, call.empty_integers(0, torch.int64) if word_ids is None else word_ids, context,
                      rows.gamma[0], rows.beta[0])


def _sorted_gradients(call: _Call, word_grad: int) -> _Gradients:
    num_tokens, (vocab_size, num_types, num_positions) = call.batch.num_tokens, call.sizes
    rows = _row_gradients(call, parts=call.row_programs)
    cells = call.empty_integers(num_tokens, call.cell_dtype)
    word_keys = call.empty_integers(num_tokens, _key_dtype(vocab_size))
    context_keys = call.empty_integers(num_tokens, _key_dtype(num_types * num_positions))
    _launch_over_tokens(token_keys_kernel, call, word_keys, context_keys, cells)

    def sum_by(keys: Tensor, num_values: int, values: Tensor | None, dtype: torch.dtype, by_word: bool) -> Tensor:
        """One segment for each of ``values`` or, without them, for each key below ``num_values``. Keys from there on
        belong to tokens that have no gradient."""
        sorted_keys, order = keys.sort(stable=True)
        starts = torch.arange(num_values, device=keys.device) if values is None else values
        starts = torch.cat([starts.to(keys.dtype), keys.new_full((1,), num_values)])
        offsets = torch.searchsorted(sorted_keys, starts)
        return _sum_segments(call, rows, cells[order], offsets, dtype, values, None, by_word=by_word)

    word, word_ids = call.zeros(0), None
    if word_grad == WordGrad.SPARSE:
        word_ids = word_keys[word_keys < vocab_size].unique().long()
    if word_grad != WordGrad.NONE:
        word = sum_by(word_keys, vocab_size, word_ids, call.embeddings.word.dtype, by_word=True)
    context = sum_by(context_keys, call.num_contexts, None, torch.float32, by_word=False)
    return _Gradients(word, call.empty_integers(0, torch.int64) if word_ids is None else word_ids, context,
                      rows.gamma.sum(0), rows.beta.sum(0))


def _row_gradients(call: _Call, parts: int) -> _RowGradients:
    """``parts`` of the gradients of gamma and beta: one, or one for each program."""
    dropped = torch.empty_like(call.pooled_hat) if call.pool_constants["DROP_POOL"] else None
    share = call.rstd.new_empty(call.batch.num_rows)
    gamma, beta = call.zeros(parts), call.zeros(parts)
    if call.batch.num_rows > 0:
        launch(row_gradients_kernel, call.row_programs, call.tokens.attention_mask, call.tokens.cu_seqlens,
               call.bounds.bounds, call.grad_pooled, call.pooled_hat, call.seed, share, dropped, gamma, beta,
               *call.batch, call.bounds.num_bounds, *call.embed_dropout, *call.pool_dropout, **call.pool_constants,
               **call.row_constants, ATOMIC=parts < call.row_programs)
    return _RowGradients(call.grad_pooled if dropped is None else dropped, share, gamma, beta)


def _sum_segments(call: _Call, rows: _RowGradients, order: Tensor, offsets: Tensor, dtype: torch.dtype,
                  word_ids: Tensor | None, context: Tensor | None, *, by_word: bool) -> Tensor:
    """Sums ``[S, H]`` of the gradients of the tokens in ``order[offsets[s]:offsets[s + 1]]``, which have a word in
    common (``by_word``) or a context. Adds all of them to ``context`` too, if there is one."""
    (num_rows, _, num_tokens), hidden_size = call.batch, call.embeddings.word.shape[1]
    num_segments, chunk = offsets.shape[0] - 1, configs.SEGMENT_CHUNK
    sums = call.rstd.new_empty((num_segments, hidden_size), dtype=written_dtype(dtype))
    if num_segments == 0 or num_tokens == 0 or num_rows == 0:
        return sums.zero_()
    slots = triton.cdiv(num_tokens, chunk)
    num_chunks = num_segments + num_tokens // chunk
    chunk_sums = call.rstd.new_empty((2 * slots, hidden_size))
    input_ids, _, cu_seqlens, token_type_ids, position_ids = call.tokens
    launch(segment_gradients_kernel, triton.cdiv(num_chunks, call.segment_constants["BLOCK_ROWS"]), input_ids,
           cu_seqlens, token_type_ids, position_ids, *call.embeddings, call.ln_weight, call.seed, call.rstd,
           rows.before_dropout, rows.share, order, offsets, word_ids, sums, chunk_sums, context, num_segments,
           num_chunks, num_tokens, *call.sizes, call.width, *call.embed_dropout, **call.segment_constants, CHUNK=chunk,
           BY_WORD=by_word)
    launch(segment_combine_kernel, slots, offsets, sums, chunk_sums, num_segments, HIDDEN_SIZE=hidden_size,
           BLOCK_H=block_h(hidden_size), CHUNK=chunk, num_warps=2)
    return sums


def _launch_over_tokens(kernel: Any, call: _Call, *outputs: Tensor | None) -> None:
    num_tokens, block = call.batch.num_tokens, configs.KEY_TOKENS
    if num_tokens > 0:
        launch(kernel, triton.cdiv(num_tokens, block), *call.tokens, *outputs, *call.batch, *call.sizes, call.width,
               BLOCK_TOKENS=block)


def _key_dtype(num_keys: int) -> torch.dtype:
    """16 bits hold keys up to ``num_keys`` if it is small, as BERT's 30,522 words are: then a radix sort makes two
    passes over them instead of four."""
    return torch.int16 if num_keys <= torch.iinfo(torch.int16).max else torch.int32

"""From tensors to launches of the Triton kernels: the ops' implementations, each with the schema of ``ops``.

Nothing here reads a value of a tensor, so nothing waits for the GPU and a CUDA graph captures every call, but for the
sparse gradient's, whose size only the data tell. Strided views are copied; what does not fit raises the RuntimeError of
``checks``, but for indices, which the kernels check.
"""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from ... import validation
from ...contract import ACTIVATIONS, POOLINGS, DsnHead, DsnTable, WordGrad
from . import configs
from .backward import (
    order_tokens_kernel,
    row_gradients_kernel,
    scatter_gradients_kernel,
    segment_combine_kernel,
    segment_gradients_kernel,
    token_keys_kernel,
)
from .configs import Config
from .forward import (
    dsn_combine_kernel,
    dsn_logits_kernel,
    dsn_pieces_kernel,
    dsn_token_logits_kernel,
    embed_pool_combine_kernel,
    embed_pool_kernel,
    embed_pool_pieces_kernel,
    rising_kernel,
)

INTERPRETED = triton.knobs.runtime.interpret
if INTERPRETED:

    def wrap_triton(kernel: Any) -> Any:
        return kernel

else:
    from torch.library import wrap_triton  # type: ignore[assignment]

_ACTIVATIONS = tuple(ACTIVATIONS)
_MEAN_MASKED, _, _SUM_ALL = range(len(POOLINGS))


def architecture(tensor: Tensor) -> str:
    """Of the tensor's device: "sm_90", "gfx942" and the like, or "interpreter"."""
    if INTERPRETED:
        return "interpreter"
    with _current(tensor):
        target = triton.runtime.driver.active.get_current_target()
    return f"sm_{target.arch}" if target.backend == "cuda" else target.arch


def _current(tensor: Tensor) -> Any:
    """Makes the device of ``tensor`` the current one. Nothing for a GPU that is not here: code is traced for it."""
    here = torch.cuda.is_initialized() or torch.cuda.is_available()
    return torch.cuda.device_of(tensor) if here else contextlib.nullcontext()


def _configuration(op: str, word: Tensor, length: int, num_rows: int, launch: Callable[[Config], Any]) -> Config:
    key = configs.key_of(op, word.shape[1], length, num_rows, word.dtype, architecture(word))
    if not configs.AUTOTUNE:
        return configs.choose(key)
    with _current(word):
        if not _can_be_timed(word):
            return configs.choose(key)
        return configs.choose(key, lambda config: triton.testing.do_bench(lambda: launch(config)))


def _can_be_timed(tensor: Tensor) -> bool:
    """Not while a graph is traced or captured, and not where every run is to sum in the same order."""
    return (type(tensor) in (Tensor, torch.nn.Parameter) and tensor.is_cuda
            and not torch.are_deterministic_algorithms_enabled() and not torch.cuda.is_current_stream_capturing())


def _launch_options(config: Config, tensor: Tensor, *, dropout: bool = False) -> dict[str, int]:
    """Warps, and on NVIDIA's GPUs a ceiling for registers of 128, 16 warps on a multiprocessor (with dropout 168, 12):
    left to itself, ptxas spills a word or two to fit in more. A traced graph has no such option."""
    options = {"num_warps": config.num_warps}
    if architecture(tensor).startswith("sm_") and type(tensor) in (Tensor, torch.nn.Parameter):
        options["maxnreg"] = 168 if dropout else 128
    return options


def _readable(word: Tensor) -> Tensor:
    """Triton reads float8_e4m3fn on sm_89 and later; the kernels take its bytes apart themselves anywhere else."""
    arch = architecture(word)
    native = word.dtype != torch.float8_e4m3fn or (arch.startswith("sm_") and int(arch[3:]) >= 89)
    return word if native else word.view(torch.uint8)


def _stored(dtype: torch.dtype) -> torch.dtype:
    """What a kernel writes where ``dtype`` is wanted: the interpreter cuts bfloat16 off, so there torch rounds it."""
    return torch.float32 if INTERPRETED and dtype == torch.bfloat16 else dtype


def _block_h(hidden_size: int) -> int:
    return max(16, triton.next_power_of_2(hidden_size))


def block_c(num_labels: int, num_dendrites: int, rows: int, hidden_size: int, config: Config) -> int:
    """How many labels a kernel takes at a time. The weights of all layers are loaded ahead: with a whole tile of each,
    dsn_logits spills 64 bytes for 256 labels and 2 dendrites (int8, H = 384, sm_100), up to 520 with 8."""
    tile = config.head_tile * config.num_warps // triton.next_power_of_2(max(1, num_dendrites))
    return min(triton.next_power_of_2(num_labels), max(1, tile // (rows * _block_h(hidden_size))))


def _tokens(input_ids: Tensor, attention_mask: Tensor | None, cu_seqlens: Tensor | None, token_type_ids: Tensor | None,
            position_ids: Tensor | None, pooling: int) -> tuple[tuple[Tensor | None, ...], int, int, int]:
    """The kernels' token pointers, and the numbers of rows, of columns (0 where packed) and of tokens.

    ``mean_all`` and ``sum_all`` take padding in: their kernels are those of a batch without a mask.
    """
    if attention_mask is not None:
        attention_mask = attention_mask.view(torch.uint8) if attention_mask.dtype == torch.bool else attention_mask
        attention_mask = attention_mask if pooling == _MEAN_MASKED else None
    pointers = tuple(None if tensor is None else tensor.contiguous()
                     for tensor in (input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids))
    if cu_seqlens is None:
        num_rows, length = input_ids.shape
    else:
        num_rows, length = cu_seqlens.shape[0] - 1, 0
    return pointers, num_rows, length, input_ids.numel()


def _rising(cu_seqlens: Tensor | None, num_rows: int) -> tuple[Tensor | None, int]:
    """What ``is_sound`` looks at, and how much of it: cu_seqlens, or of many rows one number for a chunk of them."""
    if cu_seqlens is None or num_rows <= configs.FEW_BOUNDS:
        return cu_seqlens, 0 if cu_seqlens is None else num_rows
    chunks = triton.cdiv(num_rows, configs.BOUNDS_CHUNK)
    rising = torch.empty((chunks + 1,), dtype=torch.int32, device=cu_seqlens.device)
    wrap_triton(rising_kernel)[(chunks,)](cu_seqlens, rising, num_rows, CHUNK=configs.BOUNDS_CHUNK)
    return rising, chunks


def _longest(tokens: tuple[Tensor | None, ...], length: int, num_tokens: int, num_positions: int) -> int:
    """A packed row is no longer than the batch, nor, where positions are columns, than the position table."""
    if tokens[2] is None:
        return length
    return num_tokens if tokens[4] is not None else min(num_tokens, num_positions)


def _num_pieces(tokens: tuple[Tensor | None, ...], num_rows: int, length: int, num_tokens: int, longest: int,
                chunk: int) -> int:
    """0 where rows stay whole: none is long, or they are so many that they leave no device idle."""
    if longest <= chunk or num_rows > configs.FEW_ROWS:
        return 0
    return num_rows * triton.cdiv(length, chunk) if tokens[2] is None else num_rows + num_tokens // chunk


def _piece_tensors(num_pieces: int, cu_seqlens: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Sums, numbers of tokens and, packed, rows of pieces, as ``store_piece`` writes them."""
    sums = like.new_empty((num_pieces, like.shape[1]), dtype=torch.float32)
    kept = torch.empty((num_pieces,), dtype=torch.int32, device=like.device)
    return sums, kept, None if cu_seqlens is None else torch.empty_like(kept)


def dsn_logits(input_ids: Tensor, word: Tensor, word_scale: Tensor | None, context: Tensor, eps: float, weight: Tensor,
               bias: Tensor, beta_bias: Tensor, lateral: Tensor, top: Tensor, activation: int,
               attention_mask: Tensor | None, cu_seqlens: Tensor | None, token_type_ids: Tensor | None,
               position_ids: Tensor | None, pooling: int) -> Tensor:
    """Logits ``[B, C]`` float32 of ``ops.dsn_logits``'s tokens ``[B, L]`` or ``[T]``, table and head. One launch; two,
    pieces and their sums, where rows are few and one of them may be longer than a piece."""
    validation.check_dsn_logits(
        input_ids, DsnTable(word, word_scale, context, eps),
        DsnHead(weight, bias, beta_bias, lateral, top, _ACTIVATIONS[activation]), attention_mask, cu_seqlens,
        token_type_ids, position_ids, POOLINGS[pooling], values=False)
    tokens, num_rows, length, num_tokens = _tokens(input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids,
                                                   pooling)
    num_types, num_positions, hidden_size = context.shape
    num_dendrites, num_labels = top.shape
    logits = weight.new_empty((num_rows, num_labels))
    longest = _longest(tokens, length, num_tokens, num_positions)
    tables = [None if tensor is None else tensor.contiguous() for tensor in (_readable(word), word_scale, context)]
    head = [tensor.contiguous() for tensor in (weight, bias, beta_bias, lateral, top)]
    batch = (num_rows, length, num_tokens)
    sizes = (*batch, word.shape[0], num_types, num_positions, eps)
    constants = {"HIDDEN_SIZE": hidden_size, "BLOCK_H": _block_h(hidden_size)}
    head_constants = {"NUM_LABELS": num_labels, "NUM_DENDRITES": num_dendrites, "ACTIVATION": activation,
                      "SUM": pooling == _SUM_ALL}

    def launch(config: Config) -> None:
        config = configs.with_head(config, hidden_size, num_dendrites)
        options = _launch_options(config, word)
        gather = {"BLOCK_TOKENS": config.tokens, "NUM_STAGES": config.num_stages}
        rows = {"BLOCK_ROWS": config.rows,
                "BLOCK_C": block_c(num_labels, num_dendrites, config.rows, hidden_size, config)}
        programs = (triton.cdiv(num_rows, config.rows),)
        num_pieces = _num_pieces(tokens, *batch, longest, config.chunk)
        if num_pieces == 0:
            wrap_triton(dsn_logits_kernel)[programs](*tokens, *tables, *head, logits, *sizes, **constants,
                                                     **head_constants, **gather, **rows, **options)
            return
        pieces = _piece_tensors(num_pieces, cu_seqlens, weight)
        wrap_triton(dsn_pieces_kernel)[(num_pieces,)](*tokens, *tables, *pieces, *sizes, **constants, **gather,
                                                      CHUNK=config.chunk, **options)
        wrap_triton(dsn_combine_kernel)[programs](tokens[2], *pieces, *head, logits, *batch, **constants,
                                                  **head_constants, **rows, CHUNK=config.chunk, **options)

    if num_rows > 0:
        launch(_configuration("dsn_logits", word, longest, num_rows, launch))
    return logits


def dsn_token_logits(input_ids: Tensor, word: Tensor, word_scale: Tensor | None, context: Tensor, eps: float,
                     weight: Tensor, bias: Tensor, beta_bias: Tensor, lateral: Tensor, top: Tensor, activation: int,
                     attention_mask: Tensor | None, cu_seqlens: Tensor | None, token_type_ids: Tensor | None,
                     position_ids: Tensor | None) -> Tensor:
    """Logits ``[B, L, C]`` or ``[T, C]`` float32 of ``ops.dsn_token_logits``, in one launch."""
    validation.check_dsn_logits(
        input_ids, DsnTable(word, word_scale, context, eps),
        DsnHead(weight, bias, beta_bias, lateral, top, _ACTIVATIONS[activation]), attention_mask, cu_seqlens,
        token_type_ids, position_ids, POOLINGS[_MEAN_MASKED], values=False)
    tokens, num_rows, length, num_tokens = _tokens(input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids,
                                                   _MEAN_MASKED)
    num_types, num_positions, hidden_size = context.shape
    num_dendrites, num_labels = top.shape
    logits = weight.new_empty((*input_ids.shape, num_labels))
    tables = [None if tensor is None else tensor.contiguous() for tensor in (_readable(word), word_scale, context)]
    head = [tensor.contiguous() for tensor in (weight, bias, beta_bias, lateral, top)]
    rising, num_rising = _rising(tokens[2], num_rows)

    def launch(config: Config) -> None:
        config = configs.with_head(config, hidden_size, num_dendrites)
        block_tokens = config.rows * config.tokens
        wrap_triton(dsn_token_logits_kernel)[(triton.cdiv(num_tokens, block_tokens),)](
            *tokens, rising, *tables, *head, logits, num_rows, length, num_tokens, num_rising, word.shape[0], num_types,
            num_positions, eps, HIDDEN_SIZE=hidden_size, NUM_LABELS=num_labels, NUM_DENDRITES=num_dendrites,
            ACTIVATION=activation, BLOCK_H=_block_h(hidden_size), BLOCK_TOKENS=block_tokens,
            BLOCK_C=block_c(num_labels, num_dendrites, block_tokens, hidden_size, config),
            **_launch_options(config, word))

    if num_tokens > 0:
        launch(_configuration("dsn_token_logits", word, 1, num_tokens, launch))
    return logits


def embed_pool(input_ids: Tensor, word_embeddings: Tensor, position_embeddings: Tensor, token_type_embeddings: Tensor,
               ln_weight: Tensor, ln_bias: Tensor, attention_mask: Tensor | None, cu_seqlens: Tensor | None,
               token_type_ids: Tensor | None, position_ids: Tensor | None, eps: float, pooling: int, p_embed: float,
               p_pool: float, seed: Tensor | None, word_grad: int) -> tuple[Tensor, Tensor, Tensor]:
    validation.check_embed_pool(input_ids, word_embeddings, position_embeddings, token_type_embeddings, ln_weight,
                                ln_bias, attention_mask, cu_seqlens, token_type_ids, position_ids, POOLINGS[pooling],
                                values=False)
    tokens, num_rows, length, num_tokens = _tokens(input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids,
                                                   pooling)
    hidden_size = word_embeddings.shape[1]
    pooled = word_embeddings.new_empty((num_rows, hidden_size), dtype=_stored(word_embeddings.dtype))
    pooled_hat = torch.empty_like(pooled, dtype=torch.float32)
    rstd = pooled_hat.new_empty((num_tokens,))
    parameters = [tensor.contiguous() for tensor in (word_embeddings, position_embeddings, token_type_embeddings,
                                                     ln_weight, ln_bias)]

    longest = _longest(tokens, length, num_tokens, position_embeddings.shape[0])
    batch = (num_rows, length, num_tokens)
    rising, num_rising = _rising(tokens[2], num_rows)
    sizes = (*batch, num_rising, word_embeddings.shape[0], token_type_embeddings.shape[0],
             position_embeddings.shape[0], eps, *dropout_arguments(p_embed))
    constants = {"HIDDEN_SIZE": hidden_size, "BLOCK_H": _block_h(hidden_size), "DROP_EMBED": p_embed > 0}
    row_constants = {"SUM": pooling == _SUM_ALL, "DROP_POOL": p_pool > 0}

    def launch(config: Config) -> None:
        # How often beta was kept is a second sum of the tile's size.
        config = configs.halved(config) if p_embed > 0 else config
        options = _launch_options(config, word_embeddings, dropout=p_embed > 0)
        gather = {"BLOCK_TOKENS": config.tokens, "NUM_STAGES": config.num_stages}
        programs = (triton.cdiv(num_rows, config.rows),)
        num_pieces = _num_pieces(tokens, *batch, longest, config.chunk)
        if num_pieces == 0:
            wrap_triton(embed_pool_kernel)[programs](
                *tokens, rising, *parameters, seed, pooled, pooled_hat, rstd, *sizes, *dropout_arguments(p_pool),
                **constants, **row_constants, **gather, BLOCK_ROWS=config.rows, **options)
            return
        sums, kept, row = _piece_tensors(num_pieces, cu_seqlens, pooled)
        pieces = (sums, torch.empty_like(sums) if p_embed > 0 else None, kept, row)
        wrap_triton(embed_pool_pieces_kernel)[(num_pieces,)](
            *tokens, rising, *parameters[:3], seed, *pieces, rstd, *sizes, **constants, **gather, CHUNK=config.chunk,
            **options)
        wrap_triton(embed_pool_combine_kernel)[programs](
            tokens[2], *parameters[3:], seed, *pieces, pooled, pooled_hat, *batch, *dropout_arguments(p_pool),
            **constants, **row_constants, BLOCK_ROWS=config.rows, CHUNK=config.chunk, **options)

    if num_rows > 0:
        launch(_configuration("embed_pool", word_embeddings, longest, num_rows, launch))
    return pooled.to(word_embeddings.dtype), pooled_hat, rstd


def dropout_arguments(p: float) -> tuple[int, float]:
    """The word below which a channel is dropped, and what the others are multiplied by."""
    return int(p * 2**32), 1 / (1 - p)


def embed_pool_backward(
        grad_pooled: Tensor, pooled_hat: Tensor, rstd: Tensor, input_ids: Tensor, word_embeddings: Tensor,
        position_embeddings: Tensor, token_type_embeddings: Tensor, ln_weight: Tensor, ln_bias: Tensor,
        attention_mask: Tensor | None, cu_seqlens: Tensor | None, token_type_ids: Tensor | None,
        position_ids: Tensor | None, eps: float, pooling: int, p_embed: float, p_pool: float, seed: Tensor | None,
        word_grad: int) -> tuple[Tensor, ...]:
    """The dense word gradient is added up by atomics where that moves the least (``configs.adds_in_cache``),
    else, as the sparse one is, in the order of ids. The other gradients are added up by atomics. Where torch is to use
    deterministic algorithms nothing is: everything goes in a sorted order."""
    validation.check_embed_pool(input_ids, word_embeddings, position_embeddings, token_type_embeddings, ln_weight,
                                ln_bias, attention_mask, cu_seqlens, token_type_ids, position_ids, POOLINGS[pooling],
                                values=False)
    tokens, num_rows, length, num_tokens = _tokens(input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids,
                                                   pooling)
    (vocab_size, hidden_size), dtype = word_embeddings.shape, word_embeddings.dtype
    num_types, num_positions = token_type_embeddings.shape[0], position_embeddings.shape[0]
    longest = _longest(tokens, length, num_tokens, num_positions)
    key = configs.key_of("embed_pool_backward", hidden_size, longest, num_rows, dtype,
                                architecture(word_embeddings))
    config, segments = configs.choose_backward(key), configs.choose_segments(key)
    config = configs.halved(config) if p_embed > 0 else config

    def gather(config: Config) -> dict[str, Any]:
        return {"HIDDEN_SIZE": hidden_size, "BLOCK_H": _block_h(hidden_size), "DROP_EMBED": p_embed > 0,
                "BLOCK_ROWS": config.rows, "BLOCK_TOKENS": config.tokens,
                **_launch_options(config, word_embeddings, dropout=p_embed > 0)}

    rising, num_rising = _rising(tokens[2], num_rows)
    call = _Backward(
        tokens, (rising, grad_pooled.contiguous(), pooled_hat),
        [tensor.contiguous() for tensor in (word_embeddings, position_embeddings, token_type_embeddings, ln_weight)],
        seed, rstd, (num_rows, length, num_tokens), num_rising, (vocab_size, num_types, num_positions),
        dropout_arguments(p_embed), dropout_arguments(p_pool), longest, config.chunk, gather(config), gather(segments),
        {"SUM": pooling == _SUM_ALL, "DROP_POOL": p_pool > 0})
    if torch.are_deterministic_algorithms_enabled():
        form = _sorted_gradients
    elif word_grad == WordGrad.NONE or (word_grad == WordGrad.DENSE and configs.adds_in_cache(key, vocab_size)):
        form = _scattered_gradients
    else:
        form = _gradients_by_id
    d_word, d_word_ids, d_context, d_gamma, d_beta = form(call, word_grad)
    d_context = d_context.view(-1, num_positions, hidden_size)
    d_position = d_context[0] if d_context.shape[0] == 1 else d_context.sum(0)
    d_token_type = torch.nn.functional.pad(d_context.sum(1), (0, 0, 0, num_types - d_context.shape[0]))
    return d_word.to(dtype), d_word_ids, *(tensor.to(dtype) for tensor in (d_position, d_token_type, d_gamma, d_beta))


class _Backward(NamedTuple):
    """What the three forms of the backward pass are given. tokens: of ``_tokens``. rows: what ``is_sound`` looks at,
    ``num_rising`` long, grad_pooled and pooled_hat. tables: word, position, token type, gamma. batch: rows, columns,
    tokens. sizes: rows of the first three tables. embed_dropout, pool_dropout: of ``dropout_arguments``. gather,
    segments: how kernels are cut that go through rows, and through segments."""

    tokens: tuple[Tensor | None, ...]
    rows: tuple[Tensor | None, Tensor, Tensor]
    tables: list[Tensor]
    seed: Tensor | None
    rstd: Tensor
    batch: tuple[int, int, int]
    num_rising: int
    sizes: tuple[int, int, int]
    embed_dropout: tuple[int, float]
    pool_dropout: tuple[int, float]
    longest: int
    chunk: int
    gather: dict[str, Any]
    segments: dict[str, Any]
    pooled: dict[str, Any]

    @property
    def index_dtype(self) -> torch.dtype:
        """Of cells, and of places among them."""
        return torch.int32 if self.batch[0] * self.longest < 2**31 else torch.int64

    @property
    def num_contexts(self) -> int:
        """Rows of the combined table of types and positions; without types all are of the first."""
        return self.sizes[2] * (1 if self.tokens[3] is None else self.sizes[1])

    @property
    def row_programs(self) -> int:
        return triton.cdiv(self.batch[0], self.gather["BLOCK_ROWS"])

    def zeros(self, *shape: int) -> Tensor:
        return self.rstd.new_zeros((*shape, self.tables[0].shape[1]))

    def integers(self, *shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
        return self.rstd.new_empty(shape, dtype=dtype)


def _scattered_gradients(call: _Backward, word_grad: int) -> tuple[Tensor, ...]:
    """Everything by atomics, in one launch."""
    num_rows = call.batch[0]
    d_word = call.zeros(call.sizes[0]) if word_grad == WordGrad.DENSE else None
    d_context, d_gamma, d_beta = call.zeros(call.num_contexts), call.zeros(), call.zeros()
    if num_rows > 0:
        num_pieces = _num_pieces(call.tokens, *call.batch, call.longest, call.chunk)
        cut = {"CHUNK": call.chunk, "BLOCK_ROWS": 1} if num_pieces else {"CHUNK": 0}
        wrap_triton(scatter_gradients_kernel)[(num_pieces or call.row_programs,)](
            *call.tokens, *call.rows, *call.tables, call.seed, call.rstd, d_word, d_context, d_gamma, d_beta,
            *call.batch, call.num_rising, *call.sizes, *call.embed_dropout, *call.pool_dropout, **call.pooled,
            **call.gather | cut)
    return call.zeros(0) if d_word is None else d_word, call.integers(0, dtype=torch.int64), d_context, d_gamma, d_beta


def _gradients_by_id(call: _Backward, word_grad: int) -> tuple[Tensor, ...]:
    """Words in the order of ids, the rest by atomics."""
    vocab_size = call.sizes[0]
    order = call.integers(call.batch[2], dtype=call.index_dtype)
    offsets = order.new_zeros(vocab_size + 2)
    _each_token(order_tokens_kernel, call, offsets, None)
    offsets.cumsum_(0)
    _each_token(order_tokens_kernel, call, offsets, order)
    offsets = offsets[:-1]
    d_word_ids = call.integers(0, dtype=torch.int64)
    if word_grad == WordGrad.SPARSE:
        d_word_ids = (offsets[1:] > offsets[:-1]).nonzero()[:, 0]
        offsets = torch.cat([offsets[d_word_ids], offsets[-1:]])
    rows, d_gamma, d_beta = _row_gradients(call, 1)
    d_context = call.zeros(call.num_contexts)
    word_ids = d_word_ids if word_grad == WordGrad.SPARSE else None
    d_word = _segment_sums(call, rows, order, offsets, call.tables[0].dtype, word_ids, d_context, by_word=True)
    return d_word, d_word_ids, d_context, d_gamma[0], d_beta[0]


def _sorted_gradients(call: _Backward, word_grad: int) -> tuple[Tensor, ...]:
    """Words in the order of ids, positions and types in theirs, to the same bits in every run."""
    num_tokens, (vocab_size, num_types, num_positions) = call.batch[2], call.sizes
    rows, d_gamma, d_beta = _row_gradients(call, call.row_programs)
    cells = call.integers(num_tokens, dtype=call.index_dtype)
    word_keys = _keys(num_tokens, vocab_size, cells)
    context_keys = _keys(num_tokens, num_types * num_positions, cells)
    _each_token(token_keys_kernel, call, word_keys, context_keys, cells)

    def sums_of(keys: Tensor, num_values: int, values: Tensor | None, dtype: torch.dtype, by_word: bool) -> Tensor:
        """Of the tokens with a key of ``values``, or of all below ``num_values``; keys from there on are no token's."""
        sorted_keys, order = keys.sort(stable=True)
        starts = torch.arange(num_values, device=keys.device) if values is None else values
        bounds = torch.cat([starts.to(keys.dtype), keys.new_full((1,), num_values)])
        offsets = torch.searchsorted(sorted_keys, bounds)
        return _segment_sums(call, rows, cells[order], offsets, dtype, values, None, by_word=by_word)

    d_word, d_word_ids = call.zeros(0), call.integers(0, dtype=torch.int64)
    if word_grad == WordGrad.SPARSE:
        d_word_ids = word_keys[word_keys < vocab_size].unique().long()
    if word_grad != WordGrad.NONE:
        word_ids = d_word_ids if word_grad == WordGrad.SPARSE else None
        d_word = sums_of(word_keys, vocab_size, word_ids, call.tables[0].dtype, by_word=True)
    d_context = sums_of(context_keys, call.num_contexts, None, torch.float32, by_word=False)
    return d_word, d_word_ids, d_context, d_gamma.sum(0), d_beta.sum(0)


def _row_gradients(call: _Backward, shares: int) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
    """The gradients of pooled rows before p_pool and which part of them a token gets; and the gradients of gamma and
    beta in so many parts: one, or one for each program."""
    _, grad_pooled, pooled_hat = call.rows
    dropped = torch.empty_like(pooled_hat) if call.pooled["DROP_POOL"] else None
    row_share = call.rstd.new_empty(call.batch[0])
    d_gamma, d_beta = call.zeros(shares), call.zeros(shares)
    if call.batch[0] > 0:
        wrap_triton(row_gradients_kernel)[(call.row_programs,)](
            call.tokens[1], call.tokens[2], *call.rows, call.seed, row_share, dropped, d_gamma, d_beta, *call.batch,
            call.num_rising, *call.embed_dropout, *call.pool_dropout, **call.pooled, **call.gather,
            ATOMIC=shares < call.row_programs)
    return (grad_pooled if dropped is None else dropped, row_share), d_gamma, d_beta


def _segment_sums(call: _Backward, rows: tuple[Tensor, Tensor], order: Tensor, offsets: Tensor, dtype: torch.dtype,
                  word_ids: Tensor | None, d_context: Tensor | None, *, by_word: bool) -> Tensor:
    """Sums of the gradients of the tokens in ``order[offsets[s]:offsets[s + 1]]``, which have a word in common or a
    position and type; adds all of them to ``d_context``."""
    (num_rows, _, num_tokens), hidden_size = call.batch, call.tables[0].shape[1]
    num_segments, chunk = offsets.shape[0] - 1, configs.SEGMENT_CHUNK
    sums = call.rstd.new_empty((num_segments, hidden_size), dtype=_stored(dtype))
    if num_segments == 0 or num_tokens == 0 or num_rows == 0:
        return sums.zero_()
    chunks = triton.cdiv(num_tokens, chunk)
    num_pieces = num_segments + num_tokens // chunk
    cut_sums = call.rstd.new_empty((2 * chunks, hidden_size))
    wrap_triton(segment_gradients_kernel)[(triton.cdiv(num_pieces, call.segments["BLOCK_ROWS"]),)](
        call.tokens[0], *call.tokens[2:], *call.tables, call.seed, call.rstd, *rows, order, offsets, word_ids, sums,
        cut_sums, d_context, num_segments, num_pieces, num_tokens, *call.sizes, call.longest, *call.embed_dropout,
        **call.segments, CHUNK=chunk, BY_WORD=by_word)
    wrap_triton(segment_combine_kernel)[(chunks,)](offsets, sums, cut_sums, num_segments, HIDDEN_SIZE=hidden_size,
                                                   BLOCK_H=_block_h(hidden_size), CHUNK=chunk, num_warps=2)
    return sums


def _each_token(kernel: Any, call: _Backward, *outputs: Tensor | None) -> None:
    num_tokens, block = call.batch[2], configs.KEY_TOKENS
    if num_tokens > 0:
        wrap_triton(kernel)[(triton.cdiv(num_tokens, block),)](*call.tokens, *outputs, *call.batch, *call.sizes,
                                                               call.longest, BLOCK_TOKENS=block)


def _keys(num_tokens: int, num_keys: int, like: Tensor) -> Tensor:
    """Room for keys up to ``num_keys``. In 16 bits where they fit, as BERT's 30,522 words do: a radix sort goes over
    them twice and not four times."""
    return like.new_empty(num_tokens, dtype=torch.int16 if num_keys <= torch.iinfo(torch.int16).max else torch.int32)

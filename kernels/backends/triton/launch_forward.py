"""From tensors to launches of the forward kernels: implementations of ops, each with the schema of ``registration``.

Nothing here reads a value of a tensor: nothing waits for the GPU, and a CUDA graph captures every call. Strided views
are copied. Calls that do not fit raise the RuntimeError of ``validation``, except for indices, which kernels check.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from ... import validation
from ...contract import ACTIVATIONS, POOLINGS, DsnHead, DsnTable, Tokens
from . import configs
from .arguments import (
    Batch,
    Sizes,
    batch_of,
    block_h,
    bounds_of,
    dropout_of,
    empty_splits,
    longest_row,
    num_splits,
    readable_tokens,
    written_dtype,
)
from .configs import Config, WindowConfig
from .forward import (
    dsn_combine_kernel,
    dsn_logits_kernel,
    dsn_splits_kernel,
    dsn_token_logits_kernel,
    embed_pool_combine_kernel,
    embed_pool_kernel,
    embed_pool_splits_kernel,
)
from .kernel import architecture, current_device, launch, launch_options

_ACTIVATIONS = tuple(ACTIVATIONS)


def _choose_config(op: str, word: Tensor, length: int, num_rows: int, launch_with: Callable[[Config], Any]) -> Config:
    """The table's configuration or, with autotuning, the fastest."""
    key = configs.key_of(op, word.shape[1], length, num_rows, word.dtype, architecture(word))
    if not configs.AUTOTUNE:
        return configs.choose(key)
    with current_device(word):
        if not _can_be_timed(word):
            return configs.choose(key)
        return configs.choose(key, lambda config: triton.testing.do_bench(lambda: launch_with(config)))


def _can_be_timed(tensor: Tensor) -> bool:
    """Not while a graph is traced or captured, and not where every run has to sum in the same order."""
    return (type(tensor) in (Tensor, torch.nn.Parameter) and tensor.is_cuda
            and not torch.are_deterministic_algorithms_enabled() and not torch.cuda.is_current_stream_capturing())


def _readable_words(word: Tensor) -> Tensor:
    """Triton reads float8_e4m3fn on sm_89 and later. Everywhere else the kernels are given its bytes and widen them."""
    arch = architecture(word)
    native = word.dtype != torch.float8_e4m3fn or (arch.startswith("sm_") and int(arch[3:]) >= 89)
    return word if native else word.view(torch.uint8)


def block_c(num_labels: int, num_dendrites: int, rows: int, hidden_size: int,
            config: Config | WindowConfig) -> int:
    """The number of labels that a kernel computes at a time. The weights of all layers are loaded ahead: with a whole
    tile of each, dsn_logits spills 64 bytes for 256 labels and 2 dendrites (int8, H = 384, sm_100), up to 520 with 8.
    """
    tile = config.head_tile * config.num_warps // triton.next_power_of_2(max(1, num_dendrites))
    return min(triton.next_power_of_2(num_labels), max(1, tile // (rows * block_h(hidden_size))))


class _DsnCall(NamedTuple):
    """A checked call on prepared tables, as its kernels take it. ``tables``: word, word_scale, context. ``head``: the
    tensors of ``DsnHead``. ``constants``: of every kernel that reads a table; ``head_constants``: of every kernel that
    applies the head."""

    tokens: Tokens
    batch: Batch
    tables: list[Tensor | None]
    head: list[Tensor]
    sizes: Sizes
    constants: dict[str, int]
    head_constants: dict[str, int]


def _check_dsn_call(tokens: Tokens, table: DsnTable, head: DsnHead, pooling: str) -> _DsnCall:
    validation.check_dsn_logits(
        tokens.input_ids, table, head, tokens.attention_mask, tokens.cu_seqlens, tokens.token_type_ids,
        tokens.position_ids, pooling, values=False)
    num_types, num_positions, hidden_size = table.context.shape
    num_dendrites, num_labels = head.top.shape
    tables = [None if tensor is None else tensor.contiguous()
              for tensor in (_readable_words(table.word), table.word_scale, table.context)]
    return _DsnCall(
        readable_tokens(tokens, pooling), batch_of(tokens), tables, [tensor.contiguous() for tensor in head[:5]],
        Sizes(table.word.shape[0], num_types, num_positions),
        {"HIDDEN_SIZE": hidden_size, "BLOCK_H": block_h(hidden_size)},
        {"NUM_LABELS": num_labels, "NUM_DENDRITES": num_dendrites, "ACTIVATION": _ACTIVATIONS.index(head.activation)})


def dsn_logits(input_ids: Tensor, word: Tensor, word_scale: Tensor | None, context: Tensor, eps: float, weight: Tensor,
               bias: Tensor, beta_bias: Tensor, lateral: Tensor, top: Tensor, activation: int,
               attention_mask: Tensor | None, cu_seqlens: Tensor | None, token_type_ids: Tensor | None,
               position_ids: Tensor | None, pooling: int) -> Tensor:
    """Logits ``[B, C]`` float32 of the tokens ``[B, L]`` or ``[T]``, the table and the head of ``ops.dsn_logits``. One
    launch; two, over splits and over rows, where rows are few and one of them may be longer than a split."""
    call = _check_dsn_call(Tokens(input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids),
                           DsnTable(word, word_scale, context, eps),
                           DsnHead(weight, bias, beta_bias, lateral, top, _ACTIVATIONS[activation]), POOLINGS[pooling])
    num_rows, hidden_size, (num_dendrites, num_labels) = call.batch.num_rows, word.shape[1], top.shape
    logits = weight.new_empty((num_rows, num_labels))
    longest = longest_row(call.tokens, call.batch, call.sizes.num_positions)
    head_constants = call.head_constants | {"SUM": POOLINGS[pooling] == "sum_all"}

    def launch_with(config: Config) -> None:
        config = configs.fit_head(config, hidden_size, num_dendrites)
        options = launch_options(config, word)
        gather = {"BLOCK_TOKENS": config.tokens, "NUM_STAGES": config.num_stages}
        rows = {"BLOCK_ROWS": config.rows,
                "BLOCK_C": block_c(num_labels, num_dendrites, config.rows, hidden_size, config)}
        programs = triton.cdiv(num_rows, config.rows)
        split_count = num_splits(call.batch, longest, config.split_columns)
        if split_count == 0:
            launch(dsn_logits_kernel, programs, *call.tokens, *call.tables, *call.head, logits, *call.batch,
                   *call.sizes, eps, **call.constants, **head_constants, **gather, **rows, **options)
            return
        splits = empty_splits(split_count, cu_seqlens is not None, weight)
        split_tensors = (splits.sums, splits.num_valid, splits.row)
        launch(dsn_splits_kernel, split_count, *call.tokens, *call.tables, *split_tensors, *call.batch, *call.sizes,
               eps, **call.constants, **gather, SPLIT_COLUMNS=config.split_columns, **options)
        launch(dsn_combine_kernel, programs, call.tokens.cu_seqlens, *split_tensors, *call.head, logits, *call.batch,
               **call.constants, **head_constants, **rows, SPLIT_COLUMNS=config.split_columns, **options)

    if num_rows > 0:
        launch_with(_choose_config("dsn_logits", word, longest, num_rows, launch_with))
    return logits


def dsn_token_logits(input_ids: Tensor, word: Tensor, word_scale: Tensor | None, context: Tensor, eps: float,
                     weight: Tensor, bias: Tensor, beta_bias: Tensor, lateral: Tensor, top: Tensor, activation: int,
                     attention_mask: Tensor | None, cu_seqlens: Tensor | None, token_type_ids: Tensor | None,
                     position_ids: Tensor | None) -> Tensor:
    """Logits ``[B, L, C]`` or ``[T, C]`` float32 of ``ops.dsn_token_logits``, in one launch; two where a packed batch
    has many rows, whose bounds are summarised first."""
    call = _check_dsn_call(Tokens(input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids),
                           DsnTable(word, word_scale, context, eps),
                           DsnHead(weight, bias, beta_bias, lateral, top, _ACTIVATIONS[activation]), "mean_masked")
    num_tokens, hidden_size, (num_dendrites, num_labels) = call.batch.num_tokens, word.shape[1], top.shape
    logits = weight.new_empty((*input_ids.shape, num_labels))
    bounds, num_bounds = bounds_of(call.tokens.cu_seqlens, call.batch.num_rows)

    def launch_with(config: Config) -> None:
        config = configs.fit_head(config, hidden_size, num_dendrites)
        block_tokens = config.rows * config.tokens
        launch(dsn_token_logits_kernel, triton.cdiv(num_tokens, block_tokens), *call.tokens, bounds, *call.tables,
               *call.head, logits, *call.batch, num_bounds, *call.sizes, eps, **call.constants, **call.head_constants,
               BLOCK_TOKENS=block_tokens, BLOCK_C=block_c(num_labels, num_dendrites, block_tokens, hidden_size, config),
               **launch_options(config, word))

    if num_tokens > 0:
        launch_with(_choose_config("dsn_token_logits", word, 1, num_tokens, launch_with))
    return logits


def embed_pool(input_ids: Tensor, word_embeddings: Tensor, position_embeddings: Tensor, token_type_embeddings: Tensor,
               ln_weight: Tensor, ln_bias: Tensor, attention_mask: Tensor | None, cu_seqlens: Tensor | None,
               token_type_ids: Tensor | None, position_ids: Tensor | None, eps: float, pooling: int, p_embed: float,
               p_pool: float, seed: Tensor | None, word_grad: int) -> tuple[Tensor, Tensor, Tensor]:
    """``pooled [B, H]`` of ``ops.embed_pool``, and what the backward pass needs: ``pooled_hat [B, H]`` float32, which
    is pooled before gamma, beta and its dropout, and ``rstd [T]`` float32. One launch, or two as ``dsn_logits``."""
    validation.check_embed_pool(input_ids, word_embeddings, position_embeddings, token_type_embeddings, ln_weight,
                                ln_bias, attention_mask, cu_seqlens, token_type_ids, position_ids, POOLINGS[pooling],
                                values=False)
    given = Tokens(input_ids, attention_mask, cu_seqlens, token_type_ids, position_ids)
    tokens, batch = readable_tokens(given, POOLINGS[pooling]), batch_of(given)
    (vocab_size, hidden_size), num_rows = word_embeddings.shape, batch.num_rows
    sizes = Sizes(vocab_size, token_type_embeddings.shape[0], position_embeddings.shape[0])
    pooled = word_embeddings.new_empty((num_rows, hidden_size), dtype=written_dtype(word_embeddings.dtype))
    pooled_hat = torch.empty_like(pooled, dtype=torch.float32)
    rstd = pooled_hat.new_empty((batch.num_tokens,))
    embeddings = [tensor.contiguous() for tensor in (word_embeddings, position_embeddings, token_type_embeddings)]
    layer_norm = (ln_weight.contiguous(), ln_bias.contiguous())
    longest = longest_row(tokens, batch, sizes.num_positions)
    bounds, num_bounds = bounds_of(tokens.cu_seqlens, num_rows)
    embed_dropout, pool_dropout = dropout_of(p_embed), dropout_of(p_pool)
    constants = {"HIDDEN_SIZE": hidden_size, "BLOCK_H": block_h(hidden_size), "DROP_EMBED": p_embed > 0}
    row_constants = {"SUM": POOLINGS[pooling] == "sum_all", "DROP_POOL": p_pool > 0}

    def launch_with(config: Config) -> None:
        # With dropout, the number of times that each channel kept beta is a second sum of the tile's size.
        config = configs.halve(config) if p_embed > 0 else config
        options = launch_options(config, word_embeddings, dropout=p_embed > 0)
        gather = {"BLOCK_TOKENS": config.tokens, "NUM_STAGES": config.num_stages}
        programs = triton.cdiv(num_rows, config.rows)
        split_count = num_splits(batch, longest, config.split_columns)
        if split_count == 0:
            launch(embed_pool_kernel, programs, *tokens, bounds, *embeddings, *layer_norm, seed, pooled, pooled_hat,
                   rstd, *batch, num_bounds, *sizes, eps, *embed_dropout, *pool_dropout, **constants, **row_constants,
                   **gather, BLOCK_ROWS=config.rows, **options)
            return
        splits = empty_splits(split_count, cu_seqlens is not None, pooled, dropout=p_embed > 0)
        launch(embed_pool_splits_kernel, split_count, *tokens, bounds, *embeddings, seed, *splits, rstd, *batch,
               num_bounds, *sizes, eps, *embed_dropout, **constants, **gather, SPLIT_COLUMNS=config.split_columns,
               **options)
        launch(embed_pool_combine_kernel, programs, tokens.cu_seqlens, *layer_norm, seed, *splits, pooled, pooled_hat,
               *batch, *pool_dropout, **constants, **row_constants, BLOCK_ROWS=config.rows,
               SPLIT_COLUMNS=config.split_columns, **options)

    if num_rows > 0:
        launch_with(_choose_config("embed_pool", word_embeddings, longest, num_rows, launch_with))
    return pooled.to(word_embeddings.dtype), pooled_hat, rstd

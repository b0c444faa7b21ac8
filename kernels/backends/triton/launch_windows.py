"""From tensors to launches of ``windows``: ``dsn_window_logits``, with its schema in ``registration``.

As in ``launch_forward``, nothing here reads a value of a tensor.
"""

import torch
import triton
from torch import Tensor

from ... import validation
from ...contract import ACTIVATIONS, Tokens, WindowedDsn
from . import configs
from .arguments import batch_of, count_splits, readable_tokens
from .kernel import INTERPRETED, architecture, launch
from .launch_forward import block_c
from .windows import window_combine_kernel, window_logits_kernel, window_splits_kernel

_ACTIVATIONS = tuple(ACTIVATIONS)
# How float32 is multiplied: as three bfloat16 each, on tensor cores, without the three of nine products that are below
# 2^-24 of their sum. Triton's "ieee" keeps whole rows of both sides in registers, and spills from M' = 32 on.
PRECISION = "ieee" if INTERPRETED else "bf16x6"


def dsn_window_logits(input_ids: Tensor, values: Tensor, gate: Tensor | None, taps: Tensor, window_bias: Tensor,
                      window_weight: Tensor, gate_weight: Tensor, weight: Tensor, bias: Tensor, lateral: Tensor,
                      top: Tensor, activation: int, attention_mask: Tensor | None, cu_seqlens: Tensor | None,
                      token_type_ids: Tensor | None) -> Tensor:
    """Logits ``[B, C]`` float32 of ``ops.dsn_window_logits``. One launch; two, over splits and over rows, where
    rows are longer than a tile or, being packed and few, may be."""
    windowed = WindowedDsn(values, gate, taps, window_bias, window_weight, gate_weight, weight, bias, lateral, top,
                           _ACTIVATIONS[activation])
    validation.check_dsn_window_logits(input_ids, windowed, attention_mask, cu_seqlens, token_type_ids, values=False)
    given = Tokens(input_ids, attention_mask, cu_seqlens, token_type_ids)
    tokens, batch = readable_tokens(given, "mean_masked"), batch_of(given)
    num_types, vocab_size, num_taps, channels = taps.shape
    num_layers, radius, width = window_bias.shape[0], num_taps // 2, values.shape[2]
    num_dendrites, num_labels = top.shape
    halo = radius * (2**num_layers - 1)
    logits = weight.new_empty((batch.num_rows, num_labels))
    if batch.num_rows == 0:
        return logits
    if INTERPRETED:  # the products of the interpreter are wrong in bfloat16
        window_weight = window_weight.float()
    config = configs.choose_windows(*batch, _tile_size(channels), _tile_size(width), halo, window_weight.dtype,
                                    architecture(values))
    tables = [None if table is None else table.contiguous() for table in (values, gate, taps)]
    layers = [layer.contiguous() for layer in (window_bias, window_weight, gate_weight)]
    head = [tensor.contiguous() for tensor in (weight, bias, lateral, top)]
    options = {"num_warps": config.num_warps, "num_stages": 1}
    gathered, sizes = (*tokens[:4], *tables, *layers), (*batch, vocab_size, num_types)
    sums = {"VALUES": width, "NUM_LAYERS": num_layers, "CHANNELS": channels, "BLOCK_D": _tile_size(width),
            "BLOCK_M": _tile_size(channels)}
    tile = {"RADIUS": radius, "HALO": halo, "PRECISION": PRECISION, "VALUE_COLUMNS": config.value_columns}
    rows = {"FOLDED": weight.shape[1] == channels, "NUM_LABELS": num_labels, "NUM_DENDRITES": num_dendrites,
            "ACTIVATION": activation, "BLOCK_ROWS": config.rows}
    rows["BLOCK_C"] = block_c(num_labels, num_dendrites, config.rows, max(channels, width), config)
    programs = triton.cdiv(batch.num_rows, config.rows)
    longest = batch.length if cu_seqlens is None else batch.num_tokens
    split_columns = config.tokens - 2 * halo
    # Many packed rows of unknown lengths take their tiles one after the other: few of them need more than one.
    if longest <= config.tokens or (cu_seqlens is not None and batch.num_rows > configs.FEW_ROWS):
        launch(window_logits_kernel, programs, *gathered, *head, logits, *sizes, **sums, **tile, **rows,
               BLOCK_COLUMNS=config.columns, ONE_TILE=longest <= config.columns, **options)
        return logits
    split_count = count_splits(batch, split_columns)
    splits = _empty_splits(split_count, width, channels, cu_seqlens is not None, logits)
    launch(window_splits_kernel, split_count, *gathered, *splits, *sizes, **sums, **tile, BLOCK_COLUMNS=config.tokens,
           SPLIT_COLUMNS=split_columns, **options)
    launch(window_combine_kernel, programs, tokens.cu_seqlens, *splits, *head, logits, *batch, **sums, **rows,
           SPLIT_COLUMNS=split_columns, **options)
    return logits


def _tile_size(size: int) -> int:
    """A power of two, and the 16 that ``tl.dot`` asks for."""
    return max(16, triton.next_power_of_2(size))


def _empty_splits(count: int, width: int, channels: int, packed: bool, like: Tensor) -> tuple[Tensor | None, ...]:
    row = torch.empty((count,), dtype=torch.int32, device=like.device) if packed else None
    return like.new_empty((count, width)), like.new_empty((count, channels)), like.new_empty((count,)), row

"""The tables that inference reads instead of the parameters, and the ops that read them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..kernels import ops
from ..kernels.contract import (
    TABLE_DTYPES,
    WINDOW_DTYPES,
    DsnHead,
    DsnTable,
    FoldedDsn,
    QuantisedWindowedDsn,
    WindowedDsn,
    padded_outputs,
)
from ..kernels.prepare import fold, prepare_head, prepare_table, prepare_windows
from ..kernels.prepare_int8 import quantise_windows
from .configuration import DendriticBertConfig
from .window_modules import no_windows

# LayerNorm's factors of every id at 64 positions take half the memory of BERT's word table at H = 128, and most texts
# have no more tokens.
FIRST_POSITIONS = 64
LARGEST_RSTD = 2**28  # bytes; all 512 positions and both token types of BERT's vocabulary take half of it


def table_dtypes(config: DendriticBertConfig, is_pooled: bool = True) -> tuple[torch.dtype, ...]:
    """The dtypes that ``make_tables`` takes; none where the model runs in PyTorch. ``is_pooled`` is whether its head
    reads pooled rows, not tokens."""
    if config.head_hidden is not None:
        return ()
    if config.pools_windows and is_pooled:
        return (*WINDOW_DTYPES, torch.int8) if config.window_layers else WINDOW_DTYPES
    return TABLE_DTYPES if config.pools_embeddings else ()


def served_window_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype in which windows are computed on ``device`` that are to be in ``dtype``: float32 for int8 where kernels
    serve that alone, as on a GPU, since the reference takes many times as long in int8."""
    if dtype != torch.int8 or ops.is_served("dsn_window_logits_int8", device, torch.int8):
        return dtype
    return torch.float32 if ops.is_served("dsn_window_logits", device, torch.float32) else torch.int8


def make_tables(config: DendriticBertConfig, tensors: Mapping[str, Tensor], head: str, eps: float, activation: str,
                dtype: torch.dtype | None) -> "InferenceTables | WindowTables":
    """The tables of a DSN with a head of one layer, which one op serves.

    ``tensors`` are those of its state dict, by name; the head's begin with ``head``, "classifier" or "qa_outputs".
    ``dtype`` is that of the word table, or with window layers that of theirs; None is the dtype of the parameters.
    """
    words, types = (tensors[f"bert.embeddings.{name}_embeddings.weight"] for name in ("word", "token_type"))
    positions, ln_weight, ln_bias, gate_weight, gate_bias = (tensors.get(f"bert.{name}") for name in (
        "embeddings.position_embeddings.weight", "embeddings.LayerNorm.weight", "embeddings.LayerNorm.bias",
        "gate.weight", "gate.word_bias"))
    layer: Any = {name: tensors.get(f"{head}.{name}") for name in ("weight", "bias", "lateral", "top")}
    if config.pools_windows and head == "classifier":
        if dtype is None:
            dtype = torch.bfloat16 if words.dtype == torch.bfloat16 else torch.float32
        dtype = served_window_dtype(dtype, words.device)
        windows = no_windows(config, words) if config.window_layers == 0 else (
            tensors["bert.windows.input_weight"], tensors["bert.windows.weight"], tensors["bert.windows.bias"])
        windowed = prepare_windows(
            words, types, ln_weight, ln_bias, *windows, gate_weight, gate_bias, **layer, activation=activation, eps=eps,
            dtype=torch.float32 if dtype == torch.int8 else dtype)
        # No integer stands for NaN: a model that has diverged is computed in float32, whose logits say so.
        is_finite = all(value.isfinite().all() for value in windowed if isinstance(value, Tensor))
        return WindowTables(quantise_windows(windowed) if dtype == torch.int8 and is_finite else windowed)
    table = prepare_table(words, words.new_zeros(1, words.shape[1]) if positions is None else positions, types, eps,
                          dtype)
    ln_weight, ln_bias = tensors["bert.embeddings.LayerNorm.weight"], tensors["bert.embeddings.LayerNorm.bias"]
    return InferenceTables(table, prepare_head(ln_weight, ln_bias, **layer, activation=activation),
                           has_positions=positions is not None)


class WindowTables:
    """What ``ops.dsn_window_logits`` reads, of a model without positions, or ``ops.dsn_window_logits_int8``."""

    def __init__(self, windowed: WindowedDsn | QuantisedWindowedDsn) -> None:
        self.windowed = windowed

    def logits(self, input_ids: Tensor, cu_seqlens: Tensor | None, pooling: str,
               tokens: dict[str, Tensor | None]) -> Tensor:
        """As ``InferenceTables.logits``; the windows know the pooling."""
        rest: Any = {"attention_mask": tokens["attention_mask"], "cu_seqlens": cu_seqlens,
                     "token_type_ids": tokens["token_type_ids"]}
        if isinstance(self.windowed, QuantisedWindowedDsn):
            return ops.dsn_window_logits_int8(input_ids, self.windowed, **rest)
        return ops.dsn_window_logits(input_ids, self.windowed, **rest)


class InferenceTables:
    """The full-width table and head of a model, and the folded tables where they are faster.

    Folded tables are made for the row lengths and token types that have occurred, and are made larger when needed.
    """

    def __init__(self, table: DsnTable, head: DsnHead, has_positions: bool = True) -> None:
        self.table, self.head, self.has_positions = table, head, has_positions
        self.folded: FoldedDsn | None = None
        # Folding serves where a folded row is less than half as long as a word's and the backend has the op. It is
        # faster up to the same length (1024 x 32 tokens, H = 128: 3.0 times at 32 outputs, 2.3 at 48, 1.7 at 128), but
        # then its tables are as large as the word table, and the first call of a model waits for them.
        self._is_foldable = 2 * padded_outputs(head.weight.shape[0]) < table.word.shape[1] and ops.is_served(
            "dsn_logits_folded", table.word.device, torch.float32)

    def logits(self, input_ids: Tensor, cu_seqlens: Tensor | None, pooling: str,
               tokens: dict[str, Tensor | None]) -> Tensor:
        """The logits ``[B, C]`` of token ids; ``tokens`` are the other token arguments of ``ops.dsn_logits``."""
        tokens = self._at_positions(input_ids, tokens)
        folded = self._folded_for(input_ids, cu_seqlens, tokens) if self._is_foldable else None
        if folded is not None:
            return ops.dsn_logits_folded(input_ids, folded, cu_seqlens=cu_seqlens, pooling=pooling, **tokens)
        return ops.dsn_logits(input_ids, self.table, self.head, cu_seqlens=cu_seqlens, pooling=pooling, **tokens)

    def token_logits(self, input_ids: Tensor, cu_seqlens: Tensor | None, tokens: dict[str, Tensor | None]) -> Tensor:
        """The logits of every token, ``[B, L, C]`` or ``[T, C]``."""
        return ops.dsn_token_logits(input_ids, self.table, self.head, cu_seqlens=cu_seqlens,
                                    **self._at_positions(input_ids, tokens))

    def _at_positions(self, input_ids: Tensor, tokens: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
        """The context table of a model without positions has one, at which every token is."""
        return tokens if self.has_positions else tokens | {"position_ids": torch.zeros_like(input_ids)}

    def _folded_for(self, input_ids: Tensor, cu_seqlens: Tensor | None,
                    tokens: dict[str, Tensor | None]) -> FoldedDsn | None:
        if tokens["position_ids"] is not None:
            return None
        folded = self.folded
        num_types, num_positions = (1, 0) if folded is None else (folded.rstd.shape[0], folded.num_positions)
        all_types, all_positions, _ = self.table.context.shape
        if tokens["token_type_ids"] is not None:
            num_types = all_types
        longest = _longest_row(input_ids, cu_seqlens, num_positions)
        if longest > all_positions:
            return None  # dsn_logits raises the error that names the row
        if longest > num_positions:
            num_positions = self._positions_for(longest)
        if folded is None or (num_types, num_positions) != (folded.rstd.shape[0], folded.num_positions):
            if self._are_too_large(num_types, num_positions):
                return None
            folded = self.folded = fold(self.table, self.head, num_positions, num_types)
        return folded

    def folded_for_rows(self, longest: int, has_types: bool) -> FoldedDsn | None:
        """The folded tables of rows of up to ``longest`` tokens, which are not kept; None where ``logits`` takes the
        full-width tables for them. All tokens are of type 0 unless the rows have types."""
        num_positions, num_types = self._positions_for(longest), self.table.context.shape[0] if has_types else 1
        if not self._is_foldable or not self.has_positions or self._are_too_large(num_types, num_positions):
            return None
        return fold(self.table, self.head, num_positions, num_types)

    def _positions_for(self, longest: int) -> int:
        return min(self.table.context.shape[1], max(FIRST_POSITIONS, 2 ** (longest - 1).bit_length()))

    def _are_too_large(self, num_types: int, num_positions: int) -> bool:
        return 4 * num_types * num_positions * self.table.word.shape[0] > LARGEST_RSTD


def _longest_row(input_ids: Tensor, cu_seqlens: Tensor | None, enough: int) -> int:
    """The number of tokens of the longest row; any number up to ``enough`` if no row can be longer than that."""
    if cu_seqlens is None:
        return input_ids.shape[-1]
    if input_ids.numel() <= enough or cu_seqlens.numel() < 2:
        return 0
    return int(cu_seqlens.diff().max())

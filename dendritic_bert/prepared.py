"""The inference tables of a model: made once, known to be current, and run."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .kernels import backends, ops
from .kernels.folding import FoldedDsn, fold, padded_outputs
from .kernels.weights import DsnHead, DsnTable

# LayerNorm's factors of every id at 64 positions are half of BERT's word table at H = 128; most texts have no more.
FIRST_POSITIONS = 64
LARGEST_RSTD = 2**28  # bytes; all 512 positions and both types of BERT's vocabulary are half of it


class Tables:
    """What ids are run through: the head folded into the tables where that serves, else table and head.

    Folded tables are made for the rows and token types that occur, and grow with them.
    """

    def __init__(self, table: DsnTable, head: DsnHead) -> None:
        self.table, self.head = table, head
        self.folded: FoldedDsn | None = None
        # Where a folded row is less than half of a word's, and the backend has the op. Up to a whole one it is faster
        # (1024 x 32 tokens, H = 128: 3.0 times at 32 outputs, 2.3 at 48, 1.7 at 128), but its tables are as large as
        # the words' then, and the first call of a model waits for them.
        self._is_foldable = 2 * padded_outputs(head.weight.shape[0]) < table.word.shape[1] and backends.refusal(
            backends.FORCED or "cpu", "dsn_logits_folded", table.word.device, torch.float32) is None

    def logits(self, input_ids: Tensor, cu_seqlens: Tensor | None, pooling: str,
               tokens: dict[str, Tensor | None]) -> Tensor:
        """Token ids, and the other token arguments of ``ops.dsn_logits``, to logits ``[B, C]``."""
        folded = self._folded_for(input_ids, cu_seqlens, tokens) if self._is_foldable else None
        if folded is not None:
            return ops.dsn_logits_folded(input_ids, folded, cu_seqlens=cu_seqlens, pooling=pooling, **tokens)
        return ops.dsn_logits(input_ids, self.table, self.head, cu_seqlens=cu_seqlens, pooling=pooling, **tokens)

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
            return None  # dsn_logits says which row
        if longest > num_positions:
            num_positions = min(all_positions, max(FIRST_POSITIONS, 2 ** (longest - 1).bit_length()))
        if folded is None or (num_types, num_positions) != (folded.rstd.shape[0], folded.num_positions):
            if 4 * num_types * num_positions * self.table.word.shape[0] > LARGEST_RSTD:
                return None
            folded = self.folded = fold(self.table, self.head, num_positions, num_types)
        return folded


def _longest_row(input_ids: Tensor, cu_seqlens: Tensor | None, enough: int) -> int:
    """Tokens of the longest row; where no row can be longer than ``enough``, any number up to that."""
    if cu_seqlens is None:
        return input_ids.shape[-1]
    if input_ids.numel() <= enough or cu_seqlens.numel() < 2:
        return 0
    return int(cu_seqlens.diff().max())


class Prepared(NamedTuple):
    """Inference tables, and what they were made of: every module and parameter where it hung, its memory, its version.

    ``tables`` is None where no fused op serves the parameters. A version is None where torch counts none (a tensor
    made in inference mode).
    """

    tables: Tables | None
    places: list[tuple[dict[str, Any], str, Any]]
    parameters: list[tuple[Tensor, int, int | None]]

    def is_current(self) -> bool:
        """Whether every parameter still is the same tensor with the same contents; 2 us, in every call."""
        for members, name, member in self.places:
            if members.get(name) is not member:
                return False
        for parameter, pointer, version in self.parameters:
            if parameter.data_ptr() != pointer or (version is not None and parameter._version != version):
                return False
        return True

"""The tables that inference reads instead of the parameters, and the ops that read them."""

import torch
from torch import Tensor

from ..kernels import ops
from ..kernels.contract import DsnHead, DsnTable, FoldedDsn, padded_outputs
from ..kernels.prepare import fold

# LayerNorm's factors of every id at 64 positions take half the memory of BERT's word table at H = 128, and most texts
# have no more tokens.
FIRST_POSITIONS = 64
LARGEST_RSTD = 2**28  # bytes; all 512 positions and both token types of BERT's vocabulary take half of it


class InferenceTables:
    """The full-width table and head of a model, and the folded tables where they are faster.

    Folded tables are made for the row lengths and token types that have occurred, and are made larger when needed.
    """

    def __init__(self, table: DsnTable, head: DsnHead) -> None:
        self.table, self.head = table, head
        self.folded: FoldedDsn | None = None
        # Folding serves where a folded row is less than half as long as a word's and the backend has the op. It is
        # faster up to the same length (1024 x 32 tokens, H = 128: 3.0 times at 32 outputs, 2.3 at 48, 1.7 at 128), but
        # then its tables are as large as the word table, and the first call of a model waits for them.
        self._is_foldable = 2 * padded_outputs(head.weight.shape[0]) < table.word.shape[1] and ops.is_served(
            "dsn_logits_folded", table.word.device, torch.float32)

    def logits(self, input_ids: Tensor, cu_seqlens: Tensor | None, pooling: str,
               tokens: dict[str, Tensor | None]) -> Tensor:
        """The logits ``[B, C]`` of token ids; ``tokens`` are the other token arguments of ``ops.dsn_logits``."""
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
            return None  # dsn_logits raises the error that names the row
        if longest > num_positions:
            num_positions = min(all_positions, max(FIRST_POSITIONS, 2 ** (longest - 1).bit_length()))
        if folded is None or (num_types, num_positions) != (folded.rstd.shape[0], folded.num_positions):
            if 4 * num_types * num_positions * self.table.word.shape[0] > LARGEST_RSTD:
                return None
            folded = self.folded = fold(self.table, self.head, num_positions, num_types)
        return folded


def _longest_row(input_ids: Tensor, cu_seqlens: Tensor | None, enough: int) -> int:
    """The number of tokens of the longest row; any number up to ``enough`` if no row can be longer than that."""
    if cu_seqlens is None:
        return input_ids.shape[-1]
    if input_ids.numel() <= enough or cu_seqlens.numel() < 2:
        return 0
    return int(cu_seqlens.diff().max())

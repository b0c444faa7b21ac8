"""Rows of text with labels, as text and as token ids, and the data set that a training reads.

    Rows (text) -> encode_rows -> EncodedRows (packed ids) -> RowDataset -> pad_rows -> the arguments of a model
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..inference.tokenization import PackedTokenizer

# Tokens whose masks are drawn at once. The generator makes two numbers of a step, so with an even number the draws are
# those of a single call.
MASK_CHUNK = 1 << 20


class Rows(NamedTuple):
    """n rows of text.

    columns: for each text column, a list of n str.
    labels: ``[n]``, int64 classes, or float32 for a regression.
    source: where the rows come from, in words.
    """

    columns: tuple[list[str], ...]
    labels: np.ndarray
    source: str


def hold_out(rows: Rows, share: float) -> tuple[Rows, Rows]:
    """Rows to train on, and a random ``share`` to score on, the same at every call: for a task without training rows.

    Raises ValueError if one side would be empty.
    """
    order = np.random.default_rng(0).permutation(len(rows.labels))
    num_held = round(share * len(order))
    if not 0 < num_held < len(order):
        raise ValueError(f"hold_out is {share}, which of {len(order)} rows leaves none on one side: change it.")
    return take_rows(rows, np.sort(order[num_held:])), take_rows(rows, np.sort(order[:num_held]))


def take_fraction(rows: Rows, fraction: float) -> Rows:
    """A random ``fraction`` of the rows, at least one row, the same at every call."""
    order = np.random.default_rng(0).permutation(len(rows.labels))
    return take_rows(rows, np.sort(order[:max(1, round(fraction * len(order)))]))


def take_rows(rows: Rows, indices: np.ndarray) -> Rows:
    """The rows at ``indices``, in that order."""
    return Rows(tuple([column[index] for index in indices] for column in rows.columns), rows.labels[indices],
                rows.source)


class EncodedRows(NamedTuple):
    """Token ids of n rows, packed: one row after another without padding.

    input_ids: ``[T]`` int32, or another integer type that holds the vocabulary; an array or a memory map.
    cu_seqlens: ``[n + 1]`` int64, where each row starts, and T.
    token_type_ids: ``[T]`` integers; None where all of them are 0, as those of BERT's single texts are.
    labels: ``[n]``, or ``[n, ...]``.
    num_truncated: number of texts that were cut.
    """

    input_ids: np.ndarray
    cu_seqlens: np.ndarray
    token_type_ids: np.ndarray | None
    labels: np.ndarray
    num_truncated: int


def encode_rows(rows: Rows, tokenizer: PackedTokenizer, max_length: int) -> EncodedRows:
    """Tokenize single texts, or pairs as the tokenizer frames them: BERT's as [CLS] first [SEP] second [SEP].

    Rows of more than ``max_length`` tokens are cut on the tokenizer's ``truncation_side``; the longer text of a pair
    is cut first. Raises ValueError if ``max_length`` has no room for the special tokens.
    """
    if len(rows.columns) == 1:
        batch = tokenizer(rows.columns[0], max_length)
    else:
        first, second = rows.columns
        batch = tokenizer.pairs(first, second, max_length)
    return EncodedRows(batch.input_ids, batch.cu_seqlens, batch.token_type_ids, rows.labels, batch.num_truncated)


class RowDataset(Dataset[dict[str, Any]]):
    """Rows for a ``DataLoader``: each is a dict of ``input_ids``, ``attention_mask`` (and ``token_type_ids``) and
    ``labels``.

    Args:
        rows: the rows.
        word_dropout: probability that a token is masked out. Every ``set_epoch`` draws anew, from ``seed`` and the
            epoch alone, so that a resumed training sees what an uninterrupted one sees.
        never_dropped: ids whose tokens are never masked out. With [CLS] and [SEP] among them no row is ever empty.
        seed: seed of the draws.
    """

    def __init__(self, rows: EncodedRows, word_dropout: float = 0.0, never_dropped: list[int] | None = None,
                 seed: int = 0):
        if not 0 <= word_dropout < 1:
            raise ValueError(f"word_dropout is {word_dropout}, expected 0 <= word_dropout < 1.")
        self.rows, self.word_dropout, self.seed = rows, word_dropout, seed
        self.never_dropped = np.array(never_dropped or [], np.int64)
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the tokens that are masked out in this epoch."""
        ids = self.rows.input_ids
        if not self.word_dropout:
            self.mask = np.ones(np.diff(self.rows.cu_seqlens).max(initial=0), np.bool_)  # of one row, for all
            return
        self.mask = np.empty(len(ids), np.bool_)  # 150 MB for 5 million rows of 30 tokens
        generator = np.random.default_rng([self.seed, epoch])
        for start in range(0, len(ids), MASK_CHUNK):
            part = ids[start:start + MASK_CHUNK]
            kept = generator.random(len(part), np.float32) >= self.word_dropout
            self.mask[start:start + MASK_CHUNK] = kept | np.isin(part, self.never_dropped)

    def __len__(self) -> int:
        return len(self.rows.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids, cu_seqlens, types, labels, _ = self.rows
        start, end = cu_seqlens[index], cu_seqlens[index + 1]
        mask = self.mask[start:end] if self.word_dropout else self.mask[:end - start]
        row = {"input_ids": ids[start:end], "labels": labels[index], "attention_mask": mask}
        if types is not None:
            row["token_type_ids"] = types[start:end]
        return row


def pad_rows(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Collate rows of a ``RowDataset`` into int64 tensors ``[B, L]``, padded with 0, and ``labels`` ``[B]``."""
    lengths = np.array([len(row["input_ids"]) for row in rows])
    is_token = np.arange(lengths.max()) < lengths[:, None]
    batch = {"labels": torch.from_numpy(np.array([row["labels"] for row in rows]))}
    for name in rows[0].keys() - {"labels"}:
        padded = np.zeros(is_token.shape, np.int64)
        padded[is_token] = np.concatenate([row[name] for row in rows])
        batch[name] = torch.from_numpy(padded)
    return batch

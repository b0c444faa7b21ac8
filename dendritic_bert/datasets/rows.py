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

    input_ids: ``[T]`` int32.
    cu_seqlens: ``[n + 1]`` int64, where each row starts, and T.
    token_type_ids: ``[T]`` int32; None for single texts, whose types are all 0.
    labels: ``[n]``, or ``[n, ...]``.
    num_truncated: number of texts that were cut.
    """

    input_ids: np.ndarray
    cu_seqlens: np.ndarray
    token_type_ids: np.ndarray | None
    labels: np.ndarray
    num_truncated: int


def encode_rows(rows: Rows, tokenizer: PackedTokenizer, max_length: int) -> EncodedRows:
    """Tokenize single texts, or pairs as [CLS] first [SEP] second [SEP] with types 0 and 1, as BERT's tokenizer does.

    Rows of more than ``max_length`` tokens are cut on the tokenizer's ``truncation_side``; the longer text of a pair
    is cut first. Raises ValueError if ``max_length`` has no room for a pair.
    """
    if len(rows.columns) == 1:
        ids, cu_seqlens, num_truncated = tokenizer(rows.columns[0], max_length=max_length)
        return EncodedRows(ids, cu_seqlens, None, rows.labels, num_truncated)
    prefix, suffix = (np.array(ids, np.int32) for ids in (tokenizer.prefix, tokenizer.suffix))
    num_special = len(prefix) + 2 * len(suffix)
    if max_length < num_special + 2:
        raise ValueError(f"max_length is {max_length}, but two texts take at least {num_special + 2}: raise it.")
    (first_ids, first_cu, _), (second_ids, second_cu, _) = map(tokenizer, rows.columns)
    first_lengths, second_lengths = (np.diff(cu) - len(prefix) - len(suffix) for cu in (first_cu, second_cu))
    room = max_length - num_special
    shares = np.stack(_share_room(first_lengths, second_lengths, room), axis=1)
    first_starts, second_starts = first_cu[:-1] + len(prefix), second_cu[:-1] + len(prefix)
    if tokenizer.truncation_side == "left":
        first_starts += first_lengths - shares[:, 0]
        second_starts += second_lengths - shares[:, 1]
    parts = []
    for first_start, second_start, (first, second) in zip(first_starts, second_starts, shares):
        parts += [prefix, first_ids[first_start:first_start + first], suffix,
                  second_ids[second_start:second_start + second], suffix]
    lengths = shares + [len(prefix) + len(suffix), len(suffix)]
    types = np.repeat(np.tile(np.array([0, 1], np.int32), len(lengths)), lengths.ravel())
    return EncodedRows(np.concatenate(parts), np.concatenate([[0], np.cumsum(lengths.sum(axis=1))]), types,
                       rows.labels, int(np.sum(first_lengths + second_lengths > room)))


def _share_room(first: np.ndarray, second: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    """Lengths after "longest_first" truncation: the longer text is cut until both are equal, then both are."""
    shorter, longer = np.minimum(first, second), np.maximum(first, second)
    shorter = np.minimum(shorter, room // 2)
    longer = np.minimum(longer, room - shorter)
    return np.where(first > second, longer, shorter), np.where(first > second, shorter, longer)


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
        self.is_never_dropped = np.isin(rows.input_ids, never_dropped or [])
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the tokens that are masked out in this epoch."""
        num_tokens = len(self.rows.input_ids)
        self.mask = np.ones(num_tokens, np.bool_)
        if self.word_dropout:
            generator = np.random.default_rng([self.seed, epoch])
            self.mask = (generator.random(num_tokens, np.float32) >= self.word_dropout) | self.is_never_dropped

    def __len__(self) -> int:
        return len(self.rows.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids, cu_seqlens, types, labels, _ = self.rows
        tokens = slice(cu_seqlens[index], cu_seqlens[index + 1])
        row = {"input_ids": ids[tokens], "labels": labels[index], "attention_mask": self.mask[tokens]}
        if types is not None:
            row["token_type_ids"] = types[tokens]
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

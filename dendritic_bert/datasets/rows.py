"""The GLUE tasks: rows of text and label, from the tab-separated files of the GLUE download or from the hub.

    read_rows -> Rows (text) -> encode_rows -> EncodedRows (packed ids) -> pad_rows -> what a model takes

The files are read as what they are: fields between tabs, one row a line, a quotation mark is a character like any
other. A CSV reader that honours quotes silently swallows rows of MRPC, QNLI and STS-B.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..inference.tokenization import PackedTokenizer
from .glue_tasks import Task, find_task

HUB_DATASET = "nyu-mll/glue"


class Rows(NamedTuple):
    """n rows: for each text column a list of n str, labels ``[n]`` (int64 classes, float32 for a regression), and
    where they came from, in words."""

    columns: tuple[list[str], ...]
    labels: np.ndarray
    source: str


def read_rows(name: str, split: str, data_dir: str | None = None) -> Rows:
    """The rows of a task's ``split``: "train" or one of the task's ``dev_splits``.

    Args:
        name: one of ``tasks.TASKS``.
        data_dir: the folder of the GLUE download, or the task's folder in it; None asks the hub through ``datasets``.

    Raises:
        ValueError: an unknown task or split, or a file with a missing column, a short row, an unknown label, or bytes
            that are not UTF-8; it names file and line.
        FileNotFoundError: ``data_dir`` does not hold the task.
    """
    task = find_task(name)
    if split not in ("train", *task.dev_splits):
        raise ValueError(f"split is {split!r}, task {name!r} has train, {', '.join(task.dev_splits)}.")
    return _read_hub(name, task, split) if data_dir is None else _read_file(name, task, split, Path(data_dir))


def hold_out(rows: Rows, share: float) -> tuple[Rows, Rows]:
    """Rows to train on and a random ``share`` of them, the same at every call, to score on: for a task whose training
    rows are not there."""
    order = np.random.default_rng(0).permutation(len(rows.labels))
    num_held = round(share * len(order))
    if not 0 < num_held < len(order):
        raise ValueError(f"hold_out is {share}, which of {len(order)} rows leaves none on one side: change it.")
    held, kept = np.sort(order[:num_held]), np.sort(order[num_held:])
    return take_rows(rows, kept), take_rows(rows, held)


def take_fraction(rows: Rows, fraction: float) -> Rows:
    """A random ``fraction`` of the rows, at least one, the same at every call."""
    order = np.random.default_rng(0).permutation(len(rows.labels))
    return take_rows(rows, np.sort(order[:max(1, round(fraction * len(order)))]))


def take_rows(rows: Rows, places: np.ndarray) -> Rows:
    """The rows at ``places``, in that order."""
    return Rows(tuple([column[place] for place in places] for column in rows.columns), rows.labels[places], rows.source)


def _read_file(name: str, task: Task, split: str, data_dir: Path) -> Rows:
    path = data_dir / task.folder / f"{split}.tsv"
    if not path.is_file() and data_dir.name == task.folder:
        path = data_dir / f"{split}.tsv"
    if not path.is_file():
        raise FileNotFoundError(f"data_dir {data_dir} holds no {task.folder}/{split}.tsv, which task {name!r} needs: "
                                "pass the folder of the GLUE download, or no data_dir to fetch it from the hub"
                                f"{', or hold_out to train on dev rows' if split == 'train' else ''}.")
    try:
        # Only \n ends a line: a stray \r or U+2028 in a sentence does not. MRPC begins with a byte order mark.
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 at byte {error.start}: convert it.") from error
    lines = [line.removesuffix("\r") for line in lines]
    has_header = isinstance(task.label, str)
    header = lines[0].split("\t") if has_header else []
    width = lines[0].count("\t") + 1
    *texts, label = (_place(column, header, path) for column in (*task.texts, task.label))
    columns: tuple[list[str], ...] = tuple([] for _ in texts)
    labels = []
    for number, line in enumerate(lines[has_header:], start=1 + has_header):
        if not line:
            continue
        fields = line.split("\t")
        if len(fields) != width:
            if task.has_broken_rows:
                continue
            raise ValueError(f"{path} line {number} has {len(fields)} fields, the first has {width}: fetch the file "
                             "again.")
        for column, place in zip(columns, texts):
            column.append(fields[place])
        labels.append(_parse_label(fields[label], task, f"{path} line {number}"))
    return _rows(columns, labels, task, f"{task.folder}/{split}.tsv")


def _place(column: str | int, header: list[str], path: Path) -> int:
    if isinstance(column, int):
        return column
    if column not in header:
        raise ValueError(f"{path} has no column {column!r}, only {', '.join(map(repr, header))}: is it another task's?")
    return header.index(column)


def _parse_label(text: str, task: Task, where: str) -> float:
    if task.labels:
        spellings = task.spellings or tuple(map(str, range(len(task.labels))))
        if text in spellings:
            return spellings.index(text)
        raise ValueError(f"{where} has the label {text!r}, expected one of {', '.join(spellings)}.")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{where} has the label {text!r}, expected a number.")
    return value


def _read_hub(name: str, task: Task, split: str) -> Rows:
    try:
        import datasets
    except ImportError as error:
        raise ImportError("data_dir is not given and datasets is not installed: pass the folder of the GLUE download, "
                          "or pip install 'dendritic-bert[train]' to fetch it from the hub.") from error
    hub_split = split.replace("dev", "validation")
    try:
        table = datasets.load_dataset(HUB_DATASET, name, split=hub_split)
    except (OSError, ValueError) as error:
        raise OSError(f"{HUB_DATASET} ({name}) cannot be fetched from the hub ({type(error).__name__}): check the "
                      "network, or pass data_dir, the folder of the GLUE download.") from error
    columns = tuple(list(table[column]) for column in task.hub_texts)
    return _rows(columns, list(table["label"]), task, f"{HUB_DATASET} ({name}, {hub_split})")


def _rows(columns: tuple[list[str], ...], labels: list[Any], task: Task, source: str) -> Rows:
    if not labels:
        raise ValueError(f"{source} holds no row: fetch it again.")
    return Rows(columns, np.array(labels, np.int64 if task.labels else np.float32), source)


# ---- rows of ids -----------------------------------------------------------------------------------------------------


class EncodedRows(NamedTuple):
    """Token ids of n rows, one after another, no padding.

    input_ids: ``[T]`` int32. cu_seqlens: ``[n + 1]`` int64. token_type_ids: ``[T]`` int32, None for single texts (all
    0). labels: ``[n]``. num_truncated: rows that were cut.
    """

    input_ids: np.ndarray
    cu_seqlens: np.ndarray
    token_type_ids: np.ndarray | None
    labels: np.ndarray
    num_truncated: int


def encode_rows(rows: Rows, tokenizer: PackedTokenizer, max_length: int) -> EncodedRows:
    """Tokenize single texts, or pairs as [CLS] first [SEP] second [SEP] with types 0 and 1, as BERT's tokenizer does.

    Rows of more than ``max_length`` tokens are cut on the tokenizer's ``truncation_side``; of a pair, the longer text
    first.
    """
    if len(rows.columns) == 1:
        ids, cu_seqlens, num_truncated = tokenizer(rows.columns[0], max_length=max_length)
        return EncodedRows(ids, cu_seqlens, None, rows.labels, num_truncated)
    prefix, suffix = (np.array(ids, np.int32) for ids in (tokenizer.prefix, tokenizer.suffix))
    num_special = len(prefix) + 2 * len(suffix)
    if max_length < num_special + 2:
        raise ValueError(f"max_length is {max_length}, two texts take at least {num_special + 2}: raise it.")
    (first_ids, first_cu, _), (second_ids, second_cu, _) = map(tokenizer, rows.columns)
    first_lengths, second_lengths = (np.diff(cu) - len(prefix) - len(suffix) for cu in (first_cu, second_cu))
    room = max_length - num_special
    shares = np.stack(_share_room(first_lengths, second_lengths, room), axis=1)
    first_starts, second_starts = first_cu[:-1] + len(prefix), second_cu[:-1] + len(prefix)
    if tokenizer.truncation_side == "left":
        first_starts += first_lengths - shares[:, 0]
        second_starts += second_lengths - shares[:, 1]
    pieces = []
    for first_start, second_start, (first, second) in zip(first_starts, second_starts, shares):
        pieces += [prefix, first_ids[first_start:first_start + first], suffix,
                   second_ids[second_start:second_start + second], suffix]
    lengths = shares + [len(prefix) + len(suffix), len(suffix)]
    types = np.repeat(np.tile(np.array([0, 1], np.int32), len(lengths)), lengths.ravel())
    return EncodedRows(np.concatenate(pieces), np.concatenate([[0], np.cumsum(lengths.sum(axis=1))]), types,
                       rows.labels, int(np.sum(first_lengths + second_lengths > room)))


def _share_room(first: np.ndarray, second: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    """Lengths after "longest_first" truncation: the longer text gives way until both are equal, then both do."""
    shorter, longer = np.minimum(first, second), np.maximum(first, second)
    shorter = np.minimum(shorter, room // 2)
    longer = np.minimum(longer, room - shorter)
    return np.where(first > second, longer, shorter), np.where(first > second, shorter, longer)


class RowDataset(Dataset[dict[str, Any]]):
    """Rows for a ``DataLoader``: a row is a dict of ``input_ids``, ``attention_mask`` (and ``token_type_ids``) and
    ``labels``.

    ``word_dropout``: the probability with which a token is masked out of the pool, drawn anew by every ``set_epoch``,
    from ``seed`` and the epoch alone, so that a resumed training sees what an uninterrupted one does. Tokens of
    ``keep_ids`` stay: with [CLS] and [SEP] among them no row is ever empty.
    """

    def __init__(self, rows: EncodedRows, word_dropout: float = 0.0, keep_ids: list[int] | None = None, seed: int = 0):
        if not 0 <= word_dropout < 1:
            raise ValueError(f"word_dropout is {word_dropout}, expected 0 <= word_dropout < 1.")
        self.rows, self.word_dropout, self.seed = rows, word_dropout, seed
        self.kept = np.isin(rows.input_ids, keep_ids or [])
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the tokens that are dropped in this epoch."""
        self.mask = np.ones(len(self.kept), np.bool_)
        if self.word_dropout:
            generator = np.random.default_rng([self.seed, epoch])
            self.mask = (generator.random(len(self.kept), np.float32) >= self.word_dropout) | self.kept

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
    """Collate rows of ``RowDataset`` into int64 ``[B, L]`` (padded with 0) and ``labels`` ``[B]``."""
    lengths = np.array([len(row["input_ids"]) for row in rows])
    places = np.arange(lengths.max()) < lengths[:, None]
    batch = {"labels": torch.from_numpy(np.array([row["labels"] for row in rows]))}
    for name in rows[0].keys() - {"labels"}:
        padded = np.zeros(places.shape, np.int64)
        padded[places] = np.concatenate([row[name] for row in rows])
        batch[name] = torch.from_numpy(padded)
    return batch

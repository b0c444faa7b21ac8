"""GLUE: its rows, from the tab-separated files of the GLUE download or from the hub, and the benchmark made of them.

The files are fields between tabs with one row per line, where a quotation mark is an ordinary character: a CSV reader
that honours quotes silently loses rows of MRPC, QNLI and STS-B.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ..inference.tokenization import PackedTokenizer
from ..model.modeling import DendriticBertForSequenceClassification
from .benchmark import Benchmark, label_fields
from .glue_tasks import Task, find_task
from .hub import load_dataset
from .rows import EncodedRows, Rows, encode_rows, hold_out, take_fraction

HUB_DATASET = "nyu-mll/glue"


class Glue(Benchmark):
    """A task of GLUE.

    Args:
        name: one of ``glue_tasks.TASKS``.
        data_dir: as in ``read_rows``.
        share: if given, "train" is not read; the model is trained on the first dev split but for this share, and
            scored on the share.
        with_train: whether training rows are needed.
        splits: the dev splits to score; None stands for all.
        fraction: share of the training rows to train on.

    Raises as ``read_rows`` does.
    """

    model_class = DendriticBertForSequenceClassification

    def __init__(self, name: str, data_dir: str | None, share: float | None = None, with_train: bool = True,
                 splits: tuple[str, ...] | None = None, fraction: float = 1.0) -> None:
        self.task = task = find_task(name)
        reads_train = with_train and share is None
        self.train: Rows | None = read_rows(name, "train", data_dir) if reads_train else None
        self.dev = {split: read_rows(name, split, data_dir) for split in splits or task.dev_splits}
        first = next(iter(self.dev))
        if share is not None:
            self.train, self.dev[first] = hold_out(self.dev[first], share)
        if self.train and fraction < 1:
            self.train = take_fraction(self.train, fraction)
        self.settings: dict[str, Any] = {
            "num_labels": task.num_labels,
            "problem_type": "single_label_classification" if task.labels else "regression",
            **label_fields(task.labels),
        }
        self.main_metric = task.main_metric
        self.source = (self.train or self.dev[first]).source
        self.num_train, self.num_dev = len(self.train.labels) if self.train else 0, len(self.dev[first].labels)
        counts = np.bincount(self.dev[first].labels) if task.labels else None
        self.majority = None if counts is None else float(counts.max() / counts.sum())
        if self.train and task.labels:
            self.class_counts = np.bincount(self.train.labels, minlength=task.num_labels)

    def texts(self) -> Iterable[str]:
        return chain.from_iterable(self.train.columns if self.train else ())

    def encode(self, tokenizer: Any, max_length: int) -> tuple[EncodedRows | None, dict[str, EncodedRows]]:
        packed = PackedTokenizer(tokenizer)
        dev = {split: encode_rows(rows, packed, max_length) for split, rows in self.dev.items()}
        return self.train and encode_rows(self.train, packed, max_length), dev

    def scores(self, logits: Any, split: str) -> dict[str, float]:
        return self.task.scores(np.asarray(logits), self.dev[split].labels, split)


# ---- reading ---------------------------------------------------------------------------------------------------------


def read_rows(name: str, split: str, data_dir: str | None = None) -> Rows:
    """The rows of a task's ``split``: "train" or one of the task's ``dev_splits``.

    Args:
        name: one of ``glue_tasks.TASKS``.
        data_dir: the folder of the GLUE download, or the task's folder in it; None asks the hub through ``datasets``.

    Raises:
        ValueError: an unknown task or split, or a file with a missing column, a short row, an unknown label, or bytes
            that are not UTF-8; the message names file and line.
        FileNotFoundError: ``data_dir`` does not hold the task.
        OSError: the hub cannot be reached.
        ImportError: ``data_dir`` is None and ``datasets`` is not installed.
    """
    task = find_task(name)
    if split not in ("train", *task.dev_splits):
        raise ValueError(f"split is {split!r}, task {name!r} has train, {', '.join(task.dev_splits)}.")
    return _read_hub(name, task, split) if data_dir is None else _read_file(name, task, split, Path(data_dir))


def _read_file(name: str, task: Task, split: str, data_dir: Path) -> Rows:
    path = data_dir / task.folder / f"{split}.tsv"
    if not path.is_file() and data_dir.name == task.folder:
        path = data_dir / f"{split}.tsv"
    if not path.is_file():
        raise FileNotFoundError(f"data_dir {data_dir} holds no {task.folder}/{split}.tsv, which task {name!r} needs: "
                                "pass the folder of the GLUE download, or no data_dir to fetch it from the hub"
                                f"{', or hold_out to train on dev rows' if split == 'train' else ''}.")
    try:
        # Only \n ends a line: a stray \r or U+2028 within a sentence does not. MRPC starts with a byte order mark.
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 at byte {error.start}: convert it.") from error
    lines = [line.removesuffix("\r") for line in lines]
    has_header = isinstance(task.label, str)
    header = lines[0].split("\t") if has_header else []
    width = lines[0].count("\t") + 1
    *texts, label = (_find_column(column, header, path) for column in (*task.texts, task.label))
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
        for column, index in zip(columns, texts):
            column.append(fields[index])
        labels.append(_parse_label(fields[label], task, f"{path} line {number}"))
    return _make_rows(columns, labels, task, f"{task.folder}/{split}.tsv")


def _find_column(column: str | int, header: list[str], path: Path) -> int:
    if isinstance(column, int):
        return column
    if column not in header:
        raise ValueError(f"{path} has no column {column!r}, only {', '.join(map(repr, header))}: is it the file of "
                         "another task?")
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
    hub_split = split.replace("dev", "validation")
    table = load_dataset(HUB_DATASET, name, hub_split, what=f"{HUB_DATASET} ({name})", check="the network",
                         instead="data_dir, the folder of the GLUE download")
    columns = tuple(list(table[column]) for column in task.hub_texts)
    return _make_rows(columns, list(table["label"]), task, f"{HUB_DATASET} ({name}, {hub_split})")


def _make_rows(columns: tuple[list[str], ...], labels: list[Any], task: Task, source: str) -> Rows:
    if not labels:
        raise ValueError(f"{source} holds no row: fetch it again.")
    return Rows(columns, np.array(labels, np.int64 if task.labels else np.float32), source)

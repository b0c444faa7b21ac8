"""One's own rows as a benchmark: files, or a data set of the hub, with the columns and labels found in them.

    records -> columns -> survey (labels, digests) -> report, split -> texts -> packed ids on disk

Texts are read from the source in every pass and never all in memory: one pass finds labels and equal texts, one (two,
if rows are held out) tokenizes, and two make a vocabulary where that is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..inference.columns import recall_text_columns, warn_of_other_texts
from ..inference.readers import KEYED_OBJECTS, open_records
from ..inference.tokenization import PackedTokenizer
from ..model.modeling import DendriticBertForSequenceClassification
from ..training.evaluation import MAIN_METRIC, majority_share, scores
from .benchmark import Benchmark, digest_of, label_fields
from .column_choice import Columns
from .column_values import MIN_ROWS
from .held_out import HOLD_OUT, draw_held_out
from .hub import load_from_hub
from .label_collector import LabelCollector
from .labels import CLASSES, REGRESSION, SEVERAL
from .other_records import AnyRecords, KeptRecords, NamedRecords
from .packed_files import pack_rows
from .row_checks import DataReport, report_rows
from .rows import EncodedRows, Rows, encode_rows
from .survey import Table, find_columns, survey
from .word_counter import WordCounter


class OwnRows(Benchmark):
    """Rows that a user brings.

    Beside the attributes of ``Benchmark``:

    labels: names of the classes in the order of their ids, empty for a regression.
    class_counts: ``[C]``, training rows of each class; ``[0]`` for a regression.
    report: what was counted in the rows; ``encode`` adds how many of the words the vocabulary does not hold. None if
        there are no training rows.
    columns: the columns that were taken.

    Args:
        train: the rows to train on; None if the dev rows are only scored.
        dev: the rows to score; None if they are held out of ``train``.
        text_column, text_pair_column, label_column: names of columns; what is not given is found (``choose_columns``).
        label_separator: what stands between the labels of one row, where a row may have several.
        problem_type: one of ``labels.PROBLEM_TYPES``; None to tell from the labels.
        known_labels: names of classes that come first, in this order: those of the model that training goes on from. If
            ``train`` is None, other labels are an error.
        trained: the ``training_columns`` of the model that is scored: what is not given is taken from there, where the
            rows have these columns.
        hold_out: share of the rows that is held out if ``dev`` is None, stratified by class.
        fraction: share of the training rows to train on.
        seed: seed of the two draws.
        folder: for files of token ids, which the system removes by itself; None is the system's temporary folder.
        on_error: what a row without a text or a label does: "stop" is an error, "skip" leaves it out.

    Raises ValueError, which names file, row, column and remedy, for rows that cannot be trained on.
    """

    model_class = DendriticBertForSequenceClassification

    def __init__(self, train: AnyRecords | None, dev: AnyRecords | None = None, *,
                 text_column: str | None = None, text_pair_column: str | None = None, label_column: str | None = None,
                 label_separator: str | None = None, problem_type: str | None = None, known_labels: Sequence[str] = (),
                 trained: Mapping[str, str] | None = None, hold_out: float = HOLD_OUT, fraction: float = 1.0,
                 seed: int = 0, folder: str | Path | None = None, on_error: str = "stop") -> None:
        first = dev if train is None else train
        if first is None:
            raise ValueError("train_file and dev_file are not given: name one of the two.")
        self.folder = folder
        asked_separator = label_separator
        if label_separator is None:
            label_separator = (trained or {}).get("label_separator")
        self.columns = find_columns(first, *_recall_columns(trained, first.names, text_column, text_pair_column,
                                                            label_column))
        warn_of_other_texts(trained, first.name, first.names, self.columns.text, self.columns.text_pair)
        column = str(self.columns.label)
        collector = LabelCollector(column, first.name, label_separator, problem_type, known_labels,
                                   is_closed=train is None and problem_type != REGRESSION,
                                   is_training=train is not None)
        table = survey(first, self.columns, collector, on_error)
        labels = table.labels
        if train is not None:
            _expect_classes(table, is_chosen=label_column is None and not known_labels)
        if dev is None:
            is_held = draw_held_out(labels, table.digests, hold_out, seed)
            self.train: tuple[Table, np.ndarray] | None = (table, ~is_held)
            self.dev = (table, is_held)
        elif train is None:
            self.train, self.dev = None, (table, np.ones(len(table), np.bool_))
        else:
            of_dev = LabelCollector(column, dev.name, label_separator, labels.problem_type, labels.names,
                                    is_closed=labels.problem_type != REGRESSION, is_training=False)
            dev_table = survey(dev, self.columns, of_dev, on_error)
            if dev_table.labels.num_labels != labels.num_labels:
                raise ValueError(f"{dev.name} has {dev_table.labels.num_labels} numbers for each row, the training "
                                 f"rows have {labels.num_labels}: give every row as many.")
            self.train = (table, np.ones(len(table), np.bool_))
            self.dev = (dev_table, np.ones(len(dev_table), np.bool_))
        if self.train is not None and fraction < 1:
            self.train = (table, _take_fraction(self.train[1], fraction, seed))
        self.source = first.name
        self.labels = list(labels.names)
        self._describe(labels.problem_type, labels.num_labels, hold_out, asked_separator)
        self.settings["training_columns"] = _training_columns(self.columns, label_separator)

    @classmethod
    def open(cls, train_file: Any = None, dev_file: Any = None, *, input_format: str | None = None,
             delimiter: str = ",", on_error: str = "stop", **options: Any) -> OwnRows:
        """The rows of files: for each a path, a pattern, "-" for standard input, a stream, or a list of these.

        ``input_format`` and ``delimiter`` are those of ``open_records``, ``options`` those of the class.

        Raises OSError for a file that cannot be read, ``MalformedRecord`` for a record that does not follow the file's
        format, and ValueError as the class does.
        """
        def read(files: Any) -> AnyRecords:
            records = open_records(files, input_format, on_error, delimiter, num_keyed=KEYED_OBJECTS)
            names = records.class_names()
            found = records if records.can_resume else KeptRecords(records, options.get("folder"))
            return NamedRecords(found, names) if any(names) else found

        train, dev = (None if files is None else read(files) for files in (train_file, dev_file))
        return cls(train, dev, on_error=on_error, **options)

    @classmethod
    def from_hub(cls, dataset_name: str, dataset_config: str | None = None, *, hold_out: float | None = None,
                 **options: Any) -> OwnRows:
        """The rows of a data set that the library ``datasets`` loads; a ``hold_out`` is drawn even if it has dev rows.

        Raises as ``load_from_hub`` and the class do.
        """
        train, dev = load_from_hub(dataset_name, dataset_config)
        return cls(train, dev if hold_out is None else None, hold_out=hold_out or HOLD_OUT, **options)

    def texts(self) -> Iterable[str]:
        """The training texts; they can be gone through more than once, and are read from the source each time."""
        return _Texts(self.train)

    def rows(self, split: str = "dev") -> Iterator[tuple[str, ...]]:
        """The texts of "train" or "dev" row by row: one text, or two for pairs, in the order of the encoded rows."""
        for columns in _texts(self._part(split)):
            yield from zip(*columns)

    def places(self, split: str = "dev") -> Iterator[str]:
        """Where each row of "train" or "dev" stands, such as "reviews.csv, line 17"."""
        part = self._part(split)
        return iter(()) if part is None else part[0].places(part[1])

    def targets(self, split: str = "dev") -> np.ndarray:
        """The labels of "train" or "dev": ``[n]`` int64 classes, ``[n, C]`` bool for multi-label, float32 numbers."""
        part = self._part(split)
        return np.zeros(0, np.int64) if part is None else part[0].labels.of_rows(part[1]).dense()

    def encode(self, tokenizer: Any, max_length: int, dev_length: int | None = None
               ) -> tuple[EncodedRows | None, dict[str, EncodedRows]]:
        """As in ``Benchmark``; dev rows are cut to ``dev_length`` tokens, None to ``max_length``."""
        packed, counter = PackedTokenizer(tokenizer), WordCounter(tokenizer)
        train = None if self.train is None else self._encode("train", packed, max_length, counter)
        dev = {"dev": self._encode("dev", packed, dev_length or max_length, counter)}
        if self.report is not None:
            self.report.num_words, self.report.num_unknown = counter.num_words, counter.num_unknown
        return train, dev

    def _encode(self, split: str, tokenizer: PackedTokenizer, max_length: int, counter: WordCounter) -> EncodedRows:
        def batches() -> Iterator[EncodedRows]:
            for columns in _texts(self._part(split)):
                encoded = encode_rows(Rows(columns, np.empty(len(columns[0])), self.source), tokenizer, max_length)
                counter.add(encoded.input_ids)
                yield encoded

        return pack_rows(batches(), self.targets(split), counter.vocab_size, self.folder)

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = super().collate(rows)
        if self.settings["problem_type"] == SEVERAL:
            batch["labels"] = batch["labels"].to(torch.float32)
        return batch

    def scores(self, logits: Any, split: str = "dev") -> dict[str, float]:
        """The metrics of ``training.evaluation.scores``."""
        return scores(np.asarray(logits), self.targets(split), self.settings["problem_type"])

    def _part(self, split: str) -> tuple[Table, np.ndarray] | None:
        """The table of "train" or "dev", and which of its rows belong to it."""
        return self.train if split == "train" else self.dev

    def _describe(self, problem_type: str, num_labels: int, hold_out: float, label_separator: str | None) -> None:
        """Set the attributes that follow from the rows."""
        self.settings: dict[str, Any] = {"num_labels": num_labels, "problem_type": problem_type,
                                         **label_fields(self.labels)}
        self.main_metric = MAIN_METRIC[problem_type]
        self.num_train = 0 if self.train is None else int(self.train[1].sum())
        self.num_dev = int(self.dev[1].sum())
        self.majority = majority_share(self.targets("dev"), problem_type)
        self.report: DataReport | None = None
        self.class_counts = np.zeros(0, np.int64)
        if self.train is not None:
            self.report = report_rows(*self.train, *self.dev, hold_out, label_separator)
            self.class_counts = np.array(list(self.report.class_counts.values()), np.int64)
        self.digest = digest_of(self.labels, *_key_arrays(self.train), *_key_arrays(self.dev))


class _Texts:
    """Texts that are read anew by every loop over them."""

    def __init__(self, part: tuple[Table, np.ndarray] | None) -> None:
        self.part = part

    def __iter__(self) -> Iterator[str]:
        for columns in _texts(self.part):
            for column in columns:
                yield from column


def _texts(part: tuple[Table, np.ndarray] | None) -> Iterator[tuple[list[str], ...]]:
    return iter(()) if part is None else part[0].texts(part[1])


def _key_arrays(part: tuple[Table, np.ndarray] | None) -> list[np.ndarray]:
    """Arrays that tell the texts and labels of a table's rows, and which of them are taken, from those of any other."""
    if part is None:
        return []
    table, is_taken = part
    starts = table.labels.starts
    return [table.digests, is_taken, table.labels.values, *([] if starts is None else [starts])]


def _training_columns(columns: Columns, label_separator: str | None) -> dict[str, str]:
    """``training_columns`` of the configuration of a model."""
    found = {"text_column": columns.text, "text_pair_column": columns.text_pair, "label_column": columns.label,
             "label_separator": label_separator}
    return {name: value for name, value in found.items() if value is not None}


def _recall_columns(trained: Mapping[str, str] | None, names: Sequence[str], text: str | None, text_pair: str | None,
                    label: str | None) -> tuple[str | None, str | None, str | None]:
    """The columns that are given, else those that a model was trained on, where they are there and of no other use."""
    text, text_pair = recall_text_columns(trained, [name for name in names if name != label], text, text_pair)
    remembered = (trained or {}).get("label_column")
    if label is None and remembered in names and remembered not in (text, text_pair):
        label = remembered
    return text, text_pair, label


def _take_fraction(is_row: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    rows = np.flatnonzero(is_row)
    taken = np.zeros_like(is_row)
    taken[np.random.default_rng(seed).permutation(rows)[:max(1, round(fraction * len(rows)))]] = True
    return taken


def _expect_classes(table: Table, is_chosen: bool) -> None:
    """Raise ValueError for labels from which nothing can be learnt, and for a column that nobody named (``is_chosen``)
    where most classes have one row, as they have where a column holds customers."""
    labels, column = table.labels, table.columns.label
    if labels.problem_type == REGRESSION:
        if len(np.unique(labels.values)) < 2:
            raise ValueError(f"{table.source}: all {len(table)} rows have the number {labels.values.flat[0]:g} in "
                             f"column {column!r}: name another label_column, or add rows with others.")
        return
    counts = labels.counts()
    if len(labels.names) < 2:
        label, num_rows = "".join(labels.names), int(counts.sum())
        found = (f"all {num_rows} rows have the label {label!r}" if num_rows == len(table) else
                 f"{num_rows} of {len(table)} rows have the label {label!r}, the others none," if num_rows else
                 "no row has a label")
        raise ValueError(f"{table.source}: {found} in column {column!r}: name another label_column, or add rows of "
                         "another class.")
    num_found, num_single = int((counts > 0).sum()), int((counts == 1).sum())
    if num_found >= len(table) and counts.max() < 2:  # rows with several labels may have more than rows
        raise ValueError(f"{table.source}: column {column!r} has {num_found} different labels in {len(table)} rows: "
                         "name another label_column, or add rows, two or more of each class.")
    if is_chosen and labels.problem_type == CLASSES and len(table) >= MIN_ROWS and num_single > num_found / 2:
        raise ValueError(f"{table.source}: {num_single} of the {num_found} different labels in column {column!r} have "
                         "one row each: name the column of the labels with label_column, be it this one, or add rows.")

"""The first of the passes over a table: every row's label, and a digest of its text, but no text stays in memory.

    records -> survey -> Table -> rows of the table once more, batch by batch, as often as they are needed
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from functools import partial
from hashlib import blake2b
from itertools import compress
from typing import Any

import numpy as np

from ..inference.records import Position, RecordBatch
from .column_choice import Columns, choose_columns
from .label_collector import LabelCollector
from .labels import Labels
from .other_records import AnyRecords
from .row_sample import RowSample, draw_sample

BATCH_ROWS = 4096


class Table:
    """The rows of some records, without those that have no label.

    labels: the labels of the n rows.
    digests: ``[n]`` uint64, equal for equal texts, without the spaces around them.
    num_empty: rows without a text. num_skipped: records that were left out, as they are malformed or have no text, no
        label or one that may not be. num_replaced: bytes that were not UTF-8 and became U+FFFD.
    """

    def __init__(self, records: AnyRecords, columns: Columns, is_row: np.ndarray, labels: Labels,
                 digests: np.ndarray, num_empty: int, num_malformed: int = 0, num_replaced: int = 0) -> None:
        self.records, self.source, self.columns, self.is_row = records, records.name, columns, is_row
        self.labels, self.digests, self.num_empty, self.num_replaced = labels, digests, num_empty, num_replaced
        self.num_skipped = len(is_row) - len(digests) + num_malformed

    def __len__(self) -> int:
        return len(self.digests)

    def texts(self, is_wanted: np.ndarray) -> Iterator[tuple[list[str], ...]]:
        """The wanted ones of the n rows in batches: a list of texts for each text column."""
        for batch, kept in self._batches(is_wanted):
            yield tuple([value or "" for value in compress(batch.columns[name], kept)] for name in self.columns.texts)

    def places(self, is_wanted: np.ndarray) -> Iterator[str]:
        """Where each of the wanted rows stands, in words."""
        for batch, kept in self._batches(is_wanted):
            yield from (batch.place(int(row)) for row in np.flatnonzero(kept))

    def _batches(self, is_wanted: np.ndarray) -> Iterator[tuple[RecordBatch, np.ndarray]]:
        wanted = self.is_row.copy()
        wanted[self.is_row] = is_wanted
        first = 0
        for batch in self.records.batches(BATCH_ROWS, self.columns.texts):
            size = len(batch.columns[self.columns.text])
            kept = wanted[first:first + size]
            first += size
            if kept.any():
                yield batch, kept
        if first != len(wanted):
            raise ValueError(f"{self.source} has {first} rows, it had {len(wanted)} when it was read before: leave it "
                             "as it is while a model is trained on it.")


def find_columns(records: AnyRecords, text: str | None = None, text_pair: str | None = None,
                 label: str | None = None) -> Columns:
    """The columns of some records, as ``choose_columns`` finds them by the names and by a sample of the rows.

    Raises ValueError as it does, and for records that have no columns.
    """
    names = records.names
    _expect_columns(names, records.name, getattr(records, "format", ""))
    once = [name for name in names if names.count(name) == 1]  # the others cannot be read by their names
    sample = RowSample({}, True, Position())
    if once and len(names) > 1 and (text is None or label is None):
        sample = draw_sample(records, once)
        if not any(sample.columns.values()):
            _expect_well_formed(records.name, sample.position)
    return choose_columns(names, sample.columns, records.name, text, text_pair, label, is_whole=sample.is_whole)


def _expect_columns(names: list[str], source: str, input_format: str) -> None:
    """Raise ValueError for files that are no table, such as an empty one or a JSON list, and for TSV in quotes."""
    if input_format == "text":
        raise ValueError(f"{source} is read as lines of text, and a table to train on has texts and labels: pass "
                         "input_format, such as csv, and delimiter if it is no comma.")
    if not names:
        what = ("holds no JSON object in its first lines: every line must be one object, so write a list, or objects "
                "over several lines, as one object a line" if input_format == "jsonl" else
                "is empty: name a file with a line of names and with rows")
        raise ValueError(f"{source} {what}.")
    if input_format == "tsv" and all(len(name) > 1 and name[0] == name[-1] == '"' for name in names):
        raise ValueError(f"{source} seems to be quoted, as its first name is {names[0]}, and TSV has no quotes: pass "
                         "input_format csv and delimiter tab.")


def _expect_well_formed(source: str, position: Position) -> None:
    """Raise ValueError for records of which none is left, if malformed ones were left out."""
    if position.num_malformed:
        raise ValueError(f"{source} holds no row that can be read, all {position.num_malformed:,} are malformed: "
                         f"{position.first_malformed}")


def survey(records: AnyRecords, columns: Columns, collector: LabelCollector, on_error: str = "stop") -> Table:
    """Read every row once.

    ``on_error``: "stop" raises ValueError for a row without a text or a label, or with a label that is not among those
    that may be, which names its place; "skip" and "null" leave it out. An empty text is a text, and a word such as NA
    is no label where all others are numbers.

    Raises ValueError for a table without these columns or without a row, and as ``LabelCollector.add`` does.
    """
    names, source = records.names, records.name
    missing = [name for name in columns.all if name not in names]
    if missing:
        raise ValueError(f"{source} has no column {missing[0]!r}, which the training rows have: its columns are "
                         f"{', '.join(map(repr, names))}, rename the one that is meant.")
    all_digests, is_whole = array("Q"), array("b")
    position = Position()
    for batch in records.batches(BATCH_ROWS, columns.all):
        texts = [batch.columns[name] for name in columns.texts]
        labels = collector.read(batch.columns[columns.label] if columns.label else [0] * len(texts[0]))
        whole = [_check_row(batch, row, values, columns, collector, on_error)
                 for row, values in enumerate(zip(*texts, labels))]
        is_whole.extend(whole)
        position = batch.position
        collector.add(list(compress(labels, whole)), partial(_place, batch, np.flatnonzero(whole)))
        all_digests.extend(_digest(values) for values in compress(zip(*texts), whole))
    is_missing = collector.take_out_missing()
    if is_missing.any() and on_error == "stop" and collector.first_missing:
        place, label = collector.first_missing
        raise ValueError(f"{place}: the label in column {columns.label!r} is {label!r}, and all others are numbers: "
                         "give the row one, or leave such rows out with on_error skip.")
    is_row, digests = np.array(is_whole, np.bool_), np.array(all_digests, np.uint64)[~is_missing]
    is_row[is_row] = ~is_missing
    if not len(is_row):
        _expect_well_formed(source, position)
        raise ValueError(f"{source} holds no row: name a file that does.")
    if not len(digests):
        wanted = (f"one of the labels of the training, such as {collector.known[0]!r}"
                  if collector.is_closed and collector.known else "a label")
        raise ValueError(f"{source} holds no row with a text and {wanted}: name another label_column, or pass on_error "
                         "stop, which says what is wrong with its first row.")
    num_empty = int((digests == _digest([""] * len(columns.texts))).sum())
    return Table(records, columns, is_row, collector.finish(), digests, num_empty,
                 position.num_malformed if on_error == "skip" else 0, position.num_replaced)


def _place(batch: RecordBatch, rows: np.ndarray, row: int) -> str:
    """Where one of the ``rows`` of a batch stands."""
    return batch.place(int(rows[row]))


def _check_row(batch: RecordBatch, row: int, values: Sequence[Any], columns: Columns, collector: LabelCollector,
               on_error: str) -> bool:
    """Whether a row is whole. Raises ValueError if it is not and ``on_error`` is "stop"."""
    *texts, label = values
    if all(isinstance(text, str) for text in texts) and not collector.is_missing(label):
        return on_error == "stop" or collector.knows(label, row, batch.place)  # with "stop" the collector raises
    if on_error == "stop":
        place = batch.place(row)
        for flag, name, text in zip(("text_column", "text_pair_column"), columns.texts, texts):
            if not isinstance(text, str):
                found = next((cell for cell in batch.columns[name] if cell is not None), None)
                if found is not None and not any(isinstance(cell, str) for cell in batch.columns[name]):
                    raise ValueError(f"{batch.name}: {flag} is {name!r}, which holds values of type "
                                     f"{type(found).__name__} and no strings, such as {found!r:.40}: make strings of "
                                     f"them, or name another {flag}.")
                what = "is null" if text is None else f"is {text!r:.40}, a {type(text).__name__} and not a string"
                raise ValueError(f"{place}: column {name!r} {what}: mend the row, or leave such rows out with on_error "
                                 "skip.")
        remedy = "give the row one" if label is None or isinstance(label, (str, float)) else "mend the list"
        raise ValueError(f"{place}: the label in column {columns.label!r} is {label!r:.60}: {remedy}, or leave such "
                         "rows out with on_error skip.")
    return False


def _digest(texts: Sequence[str]) -> int:
    text = "\x1f".join([text.strip() for text in texts]).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little")

"""What is counted in own rows before a model is trained on them, and said."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal

import numpy as np

from .column_choice import has_known_name, is_sentence
from .column_values import is_number
from .label_numbers import are_numbers, value_of
from .label_spelling import are_tags, folded, likely_separator, on_one_line, says_missing, shown
from .labels import CLASSES, REGRESSION, SEVERAL
from .survey import Table

MOST_UNKNOWN = 1 / 20  # share of words that may be [UNK] before a vocabulary of one's own is advised
ENOUGH_HELD = 3 / 4  # part of the share to hold out; it is said where fewer rows are held out, or as many more
SHOWN = 6  # labels that a line lists


@dataclass
class DataReport:
    """What stands in the rows.

    source, dev_source: the files; dev_source is None if the dev rows were held out.
    columns: which columns were taken, in words. unused: names of the others.
    problem_type: one of ``labels.PROBLEM_TYPES``.
    class_counts: for each class the number of training rows, in the order of the ids; empty for a regression.
    label_range: the least and the largest number of a regression. are_lists: whether each row has a list of these.
    num_train, num_dev: rows. num_rows: rows of the training file, with those that are held out of it.
    num_skipped: rows that were left out, as they have no text or no label, or, among dev rows, a label that no training
        row has.
    num_replaced: bytes that were not UTF-8 and became U+FFFD.
    num_empty: rows whose text is empty. num_duplicates: rows with the text of an earlier row.
    num_contradicting: rows whose text stands in the file with other labels too.
    num_shared: training rows whose text stands in the dev rows too.
    small_classes: names of the classes with fewer than two training rows.
    idle_separator: the label separator that was asked for, if it gives no row more than one label.
    is_header_doubtful: whether the names of the columns may be those of a first row.
    num_words, num_unknown: words of all texts, and those of them that the vocabulary does not hold; both None before
        the texts are tokenized.
    """

    source: str
    dev_source: str | None
    columns: str
    unused: list[str]
    problem_type: str
    num_train: int
    num_dev: int
    hold_out: float
    class_counts: dict[str, int] = field(default_factory=dict)
    label_range: tuple[float, float] | None = None
    are_lists: bool = False
    num_rows: int = 0
    num_skipped: int = 0
    num_replaced: int = 0
    num_empty: int = 0
    num_duplicates: int = 0
    num_contradicting: int = 0
    num_shared: int = 0
    idle_separator: str | None = None
    is_header_doubtful: bool = False
    num_words: int | None = None
    num_unknown: int | None = None

    @property
    def small_classes(self) -> list[str]:
        return [name for name, count in self.class_counts.items() if count < 2]

    @property
    def similar_classes(self) -> list[str]:
        """The names of classes that look like another's, or are the same number."""
        first: dict[Decimal | str, str] = {}  # the first name with a value
        looks = {}
        for name in self.class_counts:
            value = value_of(name)
            looks[name] = folded(name if value is None else first.setdefault(value, name))
        counts = Counter(looks.values())
        return sorted((name for name in looks if counts[looks[name]] > 1), key=looks.__getitem__)

    @property
    def missing_classes(self) -> list[str]:
        """The classes, with their rows, whose names are words for a missing label, such as NA."""
        return [f"{name} {count:,}" for name, count in self.class_counts.items() if says_missing(name)]

    @property
    def several_in_one(self) -> str | None:
        """The remedy for labels that seem to be several in one; None where they are not."""
        if self.problem_type != CLASSES and self.idle_separator is None:
            return None
        if are_tags(self.class_counts):
            return "write <a><b> as a;b and pass --label_separator ';'"
        separator = likely_separator(self.class_counts)
        return separator and f"pass --label_separator {separator!r}"

    def lines(self) -> list[str]:
        """The report in a few lines, what is wrong with the rows last."""
        drawn = "of each class" if self.problem_type == CLASSES else "drawn at random"
        where = self.dev_source or f"held out, a share of {self.hold_out:g} {drawn}"
        wanted = self.hold_out * self.num_rows
        is_other = not ENOUGH_HELD * wanted <= self.num_dev <= wanted / ENOUGH_HELD
        if self.dev_source is None and self.num_duplicates and is_other:
            where = (f"held out, {self.num_dev / self.num_rows:.2g} of the rows and not {self.hold_out:g}, as rows "
                     "with the same text stay on one side")
        others = [on_one_line(name) or repr(name) for name in self.unused]
        unused = f"; not used: {_some(others)}" if others else ""
        train, dev = _count(self.num_train, "training row"), _count(self.num_dev, "dev row")
        return [f"{train} ({self.source}), {dev} ({where})",
                f"columns: {self.columns}{unused}", self._labels(), *self.warnings()]

    def warnings(self) -> list[str]:
        """What a user should look at, one sentence each."""
        unknown = self.num_unknown or 0
        share = unknown / max(1, self.num_words or 0)
        found = (
            (self.is_header_doubtful, "the first line was taken for the names of the columns: if it is a row, put a "
                                      "line such as text,label before it"),
            (self.idle_separator, f"no row has several labels: --label_separator {self.idle_separator!r} stands "
                                  "between none, leave it out or pass another one"),
            (self.several_in_one, f"the labels seem to hold several each: {self.several_in_one}"),
            (len(self.missing_classes), "labels that look like missing ones were taken for classes: "
                                        f"{_some(self.missing_classes)}; empty them and pass --on_error skip, or "
                                        "give these classes other names"),
            (len(self.small_classes), f"{_count(len(self.small_classes), 'class')} with fewer than two training rows: "
                                      f"{_some(list(map(on_one_line, self.small_classes)))}"),
            (len(self.similar_classes), "classes whose names differ in case, spaces, invisible characters or the "
                                        "spelling of a number alone: "
                                        f"{_some([shown(name) for name in self.similar_classes])}"),
            (self.num_replaced, replaced_bytes(self.num_replaced)),
            (self.num_skipped, f"{_count(self.num_skipped, 'row')} left out, which are malformed or have no text, no "
                               "label, or one that no training row has"),
            (self.num_empty, f"{_count(self.num_empty, 'row')} with an empty text"),
            (self.num_contradicting, f"{_count(self.num_contradicting, 'row')} whose text stands in the file with "
                                     "another label too"),
            (self.num_duplicates, f"{_count(self.num_duplicates, 'row')} with the text of an earlier row"),
            (self.num_shared, f"{_count(self.num_shared, 'training row')} whose text stands in the dev rows too: the "
                              "scores will be too high"),
            (share > MOST_UNKNOWN, f"{unknown:,} of {self.num_words or 0:,} words ({share:.0%}) are not in the "
                                   "vocabulary: --vocabulary train makes one of these texts"),
        )
        return [f"warning: {text}" for is_found, text in found if is_found]

    def _labels(self) -> str:
        if self.problem_type == REGRESSION:
            low, high = self.label_range or (0.0, 0.0)
            other = SEVERAL if self.are_lists else CLASSES
            return (f"labels: numbers from {low:g} to {high:g}, taken as a regression (problem_type {other} makes them "
                    "classes)")
        kind = "classes of which a row may have several" if self.problem_type == SEVERAL else "classes"
        most_first = sorted(self.class_counts.items(), key=lambda item: -item[1])
        note = (f" (problem_type {REGRESSION} takes them as numbers)"
                if self.problem_type == CLASSES and are_numbers(self.class_counts) else "")
        return (f"labels: {len(self.class_counts)} {kind}{note}, with their training rows: "
                f"{_some([f'{on_one_line(name)} {count:,}' for name, count in most_first])}")

    def __str__(self) -> str:
        return "\n".join(self.lines())


def report_rows(train: Table, train_rows: np.ndarray, dev: Table, dev_rows: np.ndarray, hold_out: float,
                label_separator: str | None = None) -> DataReport:
    """Count what stands in the training rows and the dev rows, given as ``[n]`` bool; ``dev`` is ``train`` if they are
    held out of it. ``label_separator`` is the one that was asked for."""
    tables = [train] if dev is train else [train, dev]
    _, first, text_of = np.unique(train.digests, return_index=True, return_inverse=True)
    keys = train.labels.keys()
    contradicts = np.zeros(len(first), np.bool_)
    contradicts[text_of[keys != keys[first][text_of]]] = True
    labels = train.labels
    numbers = labels.values[train_rows] if labels.problem_type == REGRESSION else None
    counts = labels.of_rows(train_rows).counts().tolist()
    return DataReport(
        train.source, None if dev is train else dev.source, str(train.columns),
        [name for name in train.records.names if name not in train.columns.all], labels.problem_type,
        int(train_rows.sum()), int(dev_rows.sum()), hold_out, dict(zip(labels.names, counts)),
        None if numbers is None else (float(numbers.min()), float(numbers.max())), labels.values.ndim == 2,
        num_rows=len(train), num_skipped=sum(table.num_skipped for table in tables),
        num_replaced=sum(table.num_replaced for table in tables), num_empty=sum(table.num_empty for table in tables),
        num_duplicates=len(text_of) - len(first), num_contradicting=int(contradicts[text_of].sum()),
        num_shared=int(np.isin(train.digests[train_rows], dev.digests[dev_rows]).sum()),
        idle_separator=None if labels.starts is None or np.diff(labels.starts).max() > 1 else label_separator,
        is_header_doubtful=_is_header_doubtful(train))


def _is_header_doubtful(table: Table) -> bool:
    """Whether the names may be a first row: that of a text is a sentence, or that of the labels a label or a number."""
    columns = table.columns
    if getattr(table.records, "format", "") not in ("csv", "tsv") or has_known_name(columns.all):
        return False
    label = str(columns.label)
    return any(map(is_sentence, columns.texts)) or label in table.labels.names or is_number(label)


def replaced_bytes(number: int) -> str:
    """What is said of bytes that were not UTF-8."""
    return (f"{_count(number, 'byte')} not of UTF-8, replaced by U+FFFD: where a file has another encoding, "
            "convert it (iconv -f WINDOWS-1252 -t UTF-8)")


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _count(number: int, noun: str) -> str:
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{number:,} {noun if number == 1 else plural}"

"""The labels of a column, collected batch by batch: classes, several classes of a row, or numbers.

    values of the column, batch by batch -> LabelCollector -> Labels (an id or a number for each row, and the names)

Lists and separated strings are several classes of one row (multi-label), and so are lists of zeros and ones, one for
each class; other lists of floats are several targets of a regression. Whether single values are classes or numbers,
``label_kinds`` says. Names of classes stand in sorted order, numbers in the order of their values. They are as the rows
spell them, 2.50 stays 2.50; only whole numbers that were written as floats lose their zero, 2 for 2.0.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from decimal import Decimal
from itertools import compress, islice
from typing import Any

import numpy as np

from .label_kinds import expect_no_odd_numbers, expect_no_texts, is_regression
from .label_numbers import are_numbers, as_numbers, percentages, value_of, without_zero
from .label_spelling import as_list, says_missing
from .labels import CLASSES, PROBLEM_TYPES, REGRESSION, SEVERAL, Labels, is_missing

MAX_CLASSES = 100_000  # more different strings are not the names of classes
# A regression whose numbers lie closer together than so many steps of float32 learns from the steps.
LEAST_STEPS = 100

Place = Callable[[int], str]  # says in words where the row of a batch stands


class LabelCollector:
    """Collects the labels of a column, 4 bytes for a row and class.

    Args:
        column, source: names of the column and of the file, for errors.
        separator: what stands between the classes of one row; None if a row has one class.
        problem_type: one of ``PROBLEM_TYPES``, None to tell from the values.
        known: names of classes that come first, in this order, such as those of a saved model.
        is_closed: whether other classes than ``known`` are an error, as in rows that are only scored.
        is_training: whether a model learns from these rows, whose numbers it must be able to tell apart.

    Raises ValueError, which names place, value and remedy, for a label that does not fit.
    """

    def __init__(self, column: str, source: str, separator: str | None = None, problem_type: str | None = None,
                 known: Sequence[str] = (), is_closed: bool = False, is_training: bool = True) -> None:
        if problem_type not in (None, *PROBLEM_TYPES):
            raise ValueError(f"problem_type is {problem_type!r}, expected one of {', '.join(PROBLEM_TYPES)}.")
        if separator == "":
            raise ValueError("label_separator is '', expected the character between the labels of a row, such as ';'.")
        if separator is not None and problem_type not in (None, SEVERAL):
            raise ValueError(f"label_separator is {separator!r} and problem_type is {problem_type}, and only {SEVERAL} "
                             "has several labels to separate: leave label_separator out, or train with problem_type "
                             f"{SEVERAL}.")
        self.column, self.source, self.separator, self.problem_type = column, source, separator, problem_type
        self.known, self.is_closed, self.is_training = tuple(known), is_closed, is_training
        self.ids = {name: number for number, name in enumerate(self.known)}
        self.known_names = frozenset(self.known)
        self.has_known_numbers = is_closed and bool(known) and are_numbers(known)
        self.known_by_value: dict[Decimal, str | None] = {}  # None where several have the value
        for name in self.known:
            if (value := value_of(name)) is not None:
                self.known_by_value[value] = None if value in self.known_by_value else name
        self.values: array[Any] = array("d" if problem_type == REGRESSION else "i")
        self.lengths = array("i")  # of each row's list
        self.has_lists = separator is not None
        self.num_targets = 0  # of each row's list of floats
        self.num_indicators = 0  # of each row's list of zeros and ones, while all rows are such; 0 if they are not
        self.num_rows = 0
        self.first_missing: tuple[str, str] | None = None  # place and name of a class that is called NA or the like

    def read(self, values: list[Any]) -> list[Any]:
        """The labels as they are meant: the list for a string that spells one, if no separator stands in strings."""
        return list(map(as_list, values)) if self.separator is None else values

    def add(self, values: list[Any], place: Place) -> None:
        """Take the labels of some rows, none of them missing; ``place(i)`` says in words where row i stands."""
        values = self.read(values)
        if not self.num_rows and values and not self.has_lists:
            self._begin(values[0], place)
        self.num_rows += len(values)
        if self.num_indicators:
            if all(_are_indicators(value, self.num_indicators) for value in values):
                self._add_indicators(values)
                return
            self._leave_indicators(values)
        rows: Sequence[int] = range(len(values))  # where each value stands
        if self.has_lists:
            values, rows = self._flatten(values, place)
        if self.values.typecode == "d":
            self.values.extend([self._number(value, row, place) for value, row in zip(values, rows)])
            return
        names = [self._name(value, row, place) for value, row in zip(values, rows)]
        if self.is_closed:
            self.values.extend([self._known_id(name, row, place) for name, row in zip(names, rows)])
        else:
            ids, num_known = self.ids, len(self.ids)
            self.values.extend([ids.setdefault(name, len(ids)) for name in names])
            self._find_missing(islice(reversed(ids), len(ids) - num_known), names, rows, place)
            if len(ids) > MAX_CLASSES:
                self._leave_names()

    def is_missing(self, value: Any) -> bool:
        """Whether a label is missing, or a word such as NA where all others are known to be numbers."""
        if is_missing(value, self.separator):
            return True
        has_numbers = self.values.typecode == "d" or (self.has_known_numbers and not self.has_lists)
        return has_numbers and isinstance(value, str) and value not in self.known_names and says_missing(value)

    def take_out_missing(self) -> np.ndarray:
        """Take out the labels that are words such as NA where all others are numbers: ``[n]`` bool, the rows of these.
        """
        values = np.array(self.values)
        missing = self._missing_names()
        if self.values.typecode == "d" and not self.has_lists:
            is_missing = np.isnan(values)
        elif missing:
            is_kept = np.array([name not in missing for name in self.ids])
            is_missing = ~is_kept[values]
            values = (np.cumsum(is_kept) - 1).astype(np.int32)[values]
            self.ids = {name: number for number, name in enumerate(name for name in self.ids if name not in missing)}
        else:
            return np.zeros(self.num_rows, np.bool_)
        self.values = array(self.values.typecode, values[~is_missing].tobytes())
        self.num_rows -= int(is_missing.sum())
        return is_missing

    def knows(self, value: Any, row: int, place: Place) -> bool:
        """Whether ``add`` can take a label as far as its classes are concerned; False only if it ``is_closed``."""
        if not self.is_closed or self.values.typecode == "d":
            return True
        parts = self._parts(*self.read([value]))
        if _are_indicators(parts, len(self.known)):
            return True
        names = [self._name(part, row, place)
                 for part in (parts if isinstance(parts, (list, tuple, np.ndarray)) else [parts])]
        return None not in map(self._find, names)

    def finish(self) -> Labels:
        """The labels of all rows."""
        if self.values.typecode == "d":
            shape = (-1, self.num_targets) if self.num_targets else -1
            return Labels(REGRESSION, (), self._targets(np.array(self.values).reshape(shape)))
        if self.num_indicators:
            names = self.known or tuple(map(str, range(self.num_indicators)))
            return Labels(SEVERAL, names, np.array(self.values, np.int32), self._starts())
        found = list(self.ids)
        numbers = as_numbers(found)
        if not self.is_closed:
            expect_no_texts(found, self.num_rows, self.column, self.source)
        ids = np.array(self.values, np.int32)
        if not (self.problem_type or self.has_lists or self.known):
            expect_no_odd_numbers(found, self.column, self.source)
            if numbers is not None and is_regression(found, numbers, self.num_rows, self.column):
                return Labels(REGRESSION, (), self._targets(numbers[ids]))
        classes = self._classes(found, ids, numbers is not None)
        new = set(classes) - self.known_names
        names = (*self.known, *sorted(new, key=None if numbers is None else lambda name: (Decimal(name), name)))
        number_of = {name: number for number, name in enumerate(names)}
        ids = np.array([number_of[name] for name in classes], np.int32)[ids] if found else ids
        problem_type = self.problem_type or (SEVERAL if self.has_lists else CLASSES)
        return Labels(problem_type, names, ids, self._starts() if self.has_lists else None)

    def _targets(self, numbers: np.ndarray) -> np.ndarray:
        """The numbers of a regression, ``[n]`` or ``[n, C]``, in float32."""
        for target, values in enumerate(np.atleast_2d(numbers.T) if len(numbers) else ()):
            low, high = values.min(), values.max()
            largest = max(low, high, key=abs)
            if abs(largest) > np.finfo(np.float32).max:
                raise ValueError(f"{self.source}: column {self.column!r} holds {largest:g}, and float32 ends at "
                                 "3.4e+38: divide its numbers by a constant.")
            step = float(np.spacing(np.float32(abs(largest))))
            if self.is_training and 0 < high - low < LEAST_STEPS * step:
                which = f", target {target + 1} of {self.num_targets}," if self.num_targets else ""
                raise ValueError(f"{self.source}: the numbers of column {self.column!r}{which} lie between {low:.17g} "
                                 f"and {high:.17g}, where float32 has steps of {step:g}: subtract {low:.17g} from "
                                 "them.")
        return numbers.astype(np.float32)

    def _classes(self, found: list[str], ids: np.ndarray, is_numeric: bool) -> list[str]:
        """The class of each name that was found: the known one that it names, else the name itself.

        A known class of the same value but another spelling is meant only where the rows spell this value in one way:
        rows with 901.1 and 901.10 have two classes.
        """
        names = [without_zero(name) if is_numeric and name not in self.known_names else name for name in found]
        if not self.known:
            return names
        is_there = np.bincount(ids, minlength=len(found)) > 0
        num_spellings = Counter(map(value_of, {name for name, there in zip(names, is_there) if there}))
        classes = []
        for name in names:
            known = self._known_name(name)
            is_meant = known in (name, without_zero(name)) or num_spellings[value_of(name)] < 2
            classes.append(known if known is not None and is_meant else name)
        return classes

    def _starts(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])

    def _begin(self, value: Any, place: Place) -> None:
        """What the first label says of all: lists or not, and lists of zeros and ones, of floats or of names."""
        is_list = isinstance(value, (list, tuple, np.ndarray))
        if is_list and self.problem_type == CLASSES:
            raise ValueError(f"{place(0)}: the label {value!r:.60} of column {self.column!r} is a list, where "
                             f"{CLASSES} has one label for each row: write one, or train on lists with problem_type "
                             f"{SEVERAL}.")
        self.has_lists = is_list or self.problem_type == SEVERAL
        if not is_list or not len(value):
            return
        self.has_floats = all(isinstance(part, (float, np.floating)) for part in value) or _has_fractions(value)
        if (self.problem_type != REGRESSION and _are_indicators(value, len(value))
                and len(self.known) in (0, len(value))):
            self.num_indicators = len(value)
            self.zero_and_one = ("False", "True") if isinstance(value[0], (bool, np.bool_)) else ("0", "1")
        elif self.problem_type == REGRESSION or (self.has_floats and self.problem_type is None):
            self.num_targets, self.values = len(value), array("d")

    def _add_indicators(self, values: list[Any]) -> None:
        row, number = np.array(values, np.bool_).nonzero()
        self.values.frombytes(number.astype(np.int32).tobytes())
        self.lengths.frombytes(np.bincount(row, minlength=len(values)).astype(np.int32).tobytes())

    def _leave_indicators(self, values: list[Any]) -> None:
        """Take the rows so far for lists of classes, or of targets of a regression: one of ``values`` is not of zeros
        and ones."""
        starts, width = self._starts(), self.num_indicators
        self.num_indicators = 0
        if self.problem_type is None and not self.known and (self.has_floats or any(map(_has_fractions, values))):
            targets = np.zeros((len(starts) - 1, width))
            targets[np.repeat(np.arange(len(targets)), np.diff(starts)), self.values] = 1
            self.num_targets, self.values = width, array("d", targets.ravel())
            return
        ones = np.diff(starts)
        holds = np.stack([ones < width, ones > 0], axis=1)  # whether a row holds a zero, and a one
        for number, name in enumerate(self.zero_and_one):
            if not holds[:, number].any():
                continue
            if self.is_closed:
                self._known_id(name, 0, lambda _: self.source)
            self.ids.setdefault(name, len(self.ids))
        numbers = np.array([self.ids.get(name, -1) for name in self.zero_and_one], np.int32)
        self.values = array("i", np.broadcast_to(numbers, holds.shape)[holds])
        self.lengths = array("i", holds.sum(axis=1))

    def _flatten(self, values: list[Any], place: Place) -> tuple[list[Any], list[int]]:
        """The entries of all lists, one after another, and the row of each; a class that a row names twice counts once.
        """
        flat: list[Any] = []
        rows: list[int] = []
        for number, value in enumerate(values):
            value = self._parts(value)
            if not isinstance(value, (list, tuple, np.ndarray)):
                why = f"as problem_type {SEVERAL} needs" if self.problem_type == SEVERAL else "as the labels above are"
                raise ValueError(f"{place(number)}: the label {value!r:.60} of column {self.column!r} is not a list, "
                                 f"{why}: write all as lists, or pass label_separator for strings.")
            if self.num_targets and len(value) != self.num_targets:
                raise ValueError(f"{place(number)}: column {self.column!r} has {len(value)} numbers, the rows above "
                                 f"have {self.num_targets}: give every row as many.")
            parts = value
            if not (self.num_targets or self.problem_type or self.known) and _has_fractions(value):
                raise ValueError(f"{place(number)}: the label {value!r:.60} of column {self.column!r} has numbers with "
                                 "a fractional part, and the lists above have none: pass problem_type "
                                 f"{REGRESSION} if they are several targets of a row, else {SEVERAL}.")
            if not self.num_targets:
                parts = list(dict.fromkeys(self._name(part, number, place) for part in value))
            self.lengths.append(len(parts))
            flat.extend(parts)
            rows.extend([number] * len(parts))
        return flat, rows

    def _parts(self, value: Any) -> Any:
        """The parts of a separated string or a list, without the empty strings; another value as it is."""
        if isinstance(value, str) and self.separator is not None:
            value = value.split(self.separator)
        if not isinstance(value, (list, tuple, np.ndarray)):
            return value
        return [part for part in value if not isinstance(part, str) or part.strip()]

    def _name(self, value: Any, row: int, place: Place) -> str:
        if isinstance(value, str):
            return value.strip()
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, (bool, int)):
            return str(value)
        if isinstance(value, float):
            return str(int(value)) if value.is_integer() else repr(value)
        raise ValueError(f"{place(row)}: column {self.column!r} holds {value!r:.60}, a {type(value).__name__}, "
                         "expected a string, a number or a list of these: mend the row, or name another label_column.")

    def _number(self, value: Any, row: int, place: Place) -> float:
        found = math.nan
        if not isinstance(value, (bool, np.bool_)) and not (isinstance(value, str) and "_" in value):
            with suppress(TypeError, ValueError):  # float takes True and 1_000 for numbers, too
                found = float(value)
        if not math.isfinite(found):
            remedy = "mend the row or take it out" if percentages([value]) is None else "take the percent signs off"
            raise ValueError(f"{place(row)}: the label {value!r:.60} of column {self.column!r} is not a finite number, "
                             f"as a regression needs: {remedy}.")
        return found

    def _known_name(self, name: str) -> str | None:
        """The known class that a name means: the one that is spelled so, else the only one of the same value."""
        for spelling in (name, without_zero(name)):
            if spelling in self.known_names:
                return spelling
        value = value_of(name)
        return None if value is None else self.known_by_value.get(value)

    def _find(self, name: str) -> int | None:
        known = self._known_name(name)
        return None if known is None else self.ids[known]

    def _known_id(self, name: str, row: int, place: Place) -> int:
        found = self._find(name)
        if found is None:
            some = ", ".join(self.known[:5]) + (", ..." if len(self.known) > 5 else "")
            raise ValueError(f"{place(row)}: the label {name!r:.60} is none of the {len(self.known)} labels of the "
                             f"training ({some}): mend it, leave such rows out with on_error skip, or add training "
                             "rows with it.")
        return found

    def _find_missing(self, new: Iterable[str], names: list[str], rows: Sequence[int], place: Place) -> None:
        """Note where the first word such as NA stands, among the ``new`` ones of ``names``."""
        found = [names.index(name) for name in new if says_missing(name)]
        if found and self.first_missing is None:
            self.first_missing = place(rows[min(found)]), names[min(found)]

    def _missing_names(self) -> set[str]:
        """The names that are words such as NA, if all others are numbers."""
        found = {name for name in self.ids if name not in self.known_names and says_missing(name)}
        others = self.ids.keys() - found
        return found if found and others and not self.has_lists and are_numbers(others) else set()

    def _leave_names(self) -> None:
        """Go on with numbers alone, where there are too many different ones to be kept as names; NaN is missing."""
        missing = self._missing_names()
        is_number = np.array([name not in missing for name in self.ids])
        found = None if self.problem_type or self.has_lists else as_numbers(list(compress(self.ids, is_number)))
        if found is None:
            expect_no_texts(self.ids, self.num_rows, self.column, self.source)
            raise ValueError(f"{self.source}: column {self.column!r} has more than {MAX_CLASSES:,} different labels: "
                             "name another label_column.")
        numbers = np.full(len(is_number), np.nan)
        numbers[is_number] = found
        self.values = array("d", numbers[np.array(self.values)])
        self.ids = {}


def _has_fractions(value: Any) -> bool:
    """Whether a label is a list of numbers of which one has a fractional part."""
    return (isinstance(value, (list, tuple, np.ndarray))
            and all(isinstance(part, (int, float, np.number)) and not isinstance(part, bool) for part in value)
            and any(part != part // 1 for part in value))


def _are_indicators(value: Any, width: int) -> bool:
    """Whether a label is a list of ``width`` zeros and ones, two or more: of two classes each row would have both."""
    try:
        return isinstance(value, (list, tuple, np.ndarray)) and 1 < width == len(value) and set(value) <= {0, 1}
    except TypeError:  # a part that has no hash, such as a list
        return False

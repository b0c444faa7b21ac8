"""What the different labels of a column say of their kind, where nobody has said it.

Strings, bools, whole numbers with few different values and ids of classes, which count from 0 or 1 without a gap, are
classes; numbers with a fractional part, and other whole numbers, are a regression. Texts are no labels at all, and
numbers in a spelling that a regression cannot read would be classes: both are errors.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import numpy as np

from .label_numbers import are_comma_numbers, are_numbers, percentages, without_zero
from .labels import CLASSES

FEW_NUMBERS = 20  # up to so many different whole numbers are classes, whatever the number of rows
ROWS_PER_NUMBER = 10  # more of them are classes if each stands for so many rows on average
ROWS_PER_ID = 2  # ids of classes need but so many
CLASS_NAMES = frozenset(("label", "labels", "class", "classes", "intent", "intents", "category", "categories"))
QUANTITY_WORDS = frozenset((  # in the names of columns whose numbers are no ids, even if they leave no gap
    "score", "scores", "rating", "ratings", "stars", "points", "count", "counts", "num", "votes", "upvotes", "likes",
    "comments", "price", "prices", "amount", "age", "year", "years", "days", "hours", "minutes", "length", "rank"))
TEXT_WORDS, TEXT_CHARACTERS = 4, 40  # labels with so many words or characters on average are texts
MIN_ROWS_OF_TEXTS = 10  # fewer rows do not show that a label column holds texts

_INFINITE = frozenset(("inf", "infinity"))  # in lower case, without a sign


def is_regression(names: Collection[str], numbers: np.ndarray, num_rows: int, column: str) -> bool:
    """Whether the labels of ``num_rows`` rows are numbers to learn, and not classes.

    ``names`` are the different labels, one or more, and ``numbers`` their values; ``column`` is the name of theirs.
    """
    has_fractions = bool((numbers != np.round(numbers)).any())
    different = len(set(map(without_zero, names)))
    rows_per_number = ROWS_PER_ID if _are_ids(numbers, different, column) else ROWS_PER_NUMBER
    return has_fractions or different > max(FEW_NUMBERS, num_rows / rows_per_number)


def _are_ids(numbers: np.ndarray, different: int, column: str) -> bool:
    """Whether whole numbers are ids of classes: the column is called so, or they count from 0 or 1 without a gap.

    Numbers of which some are not there, as where a class has but a few rows, are told by the column's name alone.
    """
    words = re.findall(r"[^\W_]+", column.lower())
    if words and words[0] in CLASS_NAMES and words[1:] in ([], ["id"]):
        return True
    has_no_gap = numbers.min() in (0, 1) and numbers.max() - numbers.min() + 1 == different
    return bool(has_no_gap and QUANTITY_WORDS.isdisjoint(words))


def expect_no_texts(names: Collection[str], num_rows: int, column: str, source: str) -> None:
    """Raise ValueError if the labels are texts: more than half of the rows have a long one of their own."""
    if num_rows < MIN_ROWS_OF_TEXTS or len(names) <= num_rows / 2:
        return
    words, characters = (sum(map(size, names)) / len(names) for size in (lambda name: name.count(" ") + 1, len))
    if words >= TEXT_WORDS or characters >= TEXT_CHARACTERS:
        raise ValueError(f"{source}: the label column {column!r} looks like text, {len(names):,} different values in "
                         f"{num_rows:,} rows, {words:.0f} words each: name the column of the labels with "
                         "label_column.")


def expect_no_odd_numbers(names: Collection[str], column: str, source: str) -> None:
    """Raise ValueError for numbers that would be names of classes: those with a comma, percentages that are more than
    a few or have a fraction, and infinite ones among finite ones."""
    if are_comma_numbers(names):
        found = next(name for name in names if "," in name)
        raise ValueError(f"{source}: the labels of column {column!r} look like numbers with a comma, such as "
                         f"{found!r}: write a point for a decimal comma and nothing for one of thousands, pass "
                         f"label_separator ',' if they are several labels, or problem_type {CLASSES}.")
    numbers = percentages(names)
    if numbers is not None and (len(numbers) > FEW_NUMBERS or (numbers % 1).any()):
        raise ValueError(f"{source}: the labels of column {column!r} look like percentages, such as "
                         f"{next(iter(names))!r}: take the percent signs off for a regression, or pass problem_type "
                         f"{CLASSES}.")
    infinite = {name for name in names if name.lstrip("+-").lower() in _INFINITE}
    if infinite and are_numbers(set(names) - infinite):
        raise ValueError(f"{source}: column {column!r} holds numbers and {min(infinite)!r}, and a regression needs "
                         f"finite ones: mend these rows, or pass problem_type {CLASSES}.")

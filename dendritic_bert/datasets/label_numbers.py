"""Labels that are numbers, as tables spell them: as Python does, with commas, or as percentages."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from decimal import Decimal
from typing import Any

import numpy as np

MIN_HALVES = 2  # one such as 1,5 beside whole numbers may be two labels

_NUMBER = re.compile(r"[+-]?(0|[1-9]\d*|\d+\.\d*|\.\d+)([eE][+-]?\d{1,8})?")  # "007" is a name
_WHOLE_AS_FLOAT = re.compile(r"([+-]?(?:0|[1-9]\d*))\.0?")  # as pandas writes whole numbers beside an empty cell
_COMMA_NUMBER = re.compile(r"[+-]?\d+,(\d+)")
_WHOLE_NUMBER = re.compile(r"[+-]?\d+")
# With a mark in front of each three digits and another one, or two of the first: 1,234.50, 1.234,5 and 1,234,567.
_GROUPED_NUMBER = re.compile(r"[+-]?\d{1,3}((,\d{3})+\.\d+|(\.\d{3})+,\d+|(,\d{3}){2,})")
ANY_NUMBER = re.compile(r"[+-]?\d[\d.,]*")
_PERCENTAGE = re.compile(r"([+-]?\d+(?:[.,]\d+)?)\s*%")


def are_numbers(names: Iterable[str]) -> bool:
    """Whether all names are spelled as numbers."""
    return all(map(_NUMBER.fullmatch, names))


def as_numbers(names: list[str]) -> np.ndarray | None:
    """The names as float64, None if one of them is not a number."""
    return np.array(names, np.float64) if names and are_numbers(names) else None


def value_of(name: str) -> Decimal | None:
    """The value of a name that is spelled as a number, with all of its digits."""
    return Decimal(name) if _NUMBER.fullmatch(name) else None


def without_zero(name: str) -> str:
    """2 for 2.0; another name as it is."""
    found = _WHOLE_AS_FLOAT.fullmatch(name)
    return name if found is None else "0" if found[1] == "-0" else found[1]


def percentages(names: Collection[Any]) -> np.ndarray | None:
    """The numbers before the percent signs, None if a name is no percentage."""
    found = [_PERCENTAGE.fullmatch(name) if isinstance(name, str) else None for name in names]
    if not found or None in found:
        return None
    return np.array([match[1].replace(",", ".") for match in found if match], np.float64)


def are_comma_numbers(names: Collection[str]) -> bool:
    """Whether names are numbers such as 0,385, half of them or more with a comma, or all of those with a half: 1,5; or
    numbers of which one has marks for thousands that can be nothing else, such as 1,234.50."""
    if any(map(_GROUPED_NUMBER.fullmatch, names)) and all(map(ANY_NUMBER.fullmatch, names)):
        return True
    fractions = [found[1] for name in names if (found := _COMMA_NUMBER.fullmatch(name))]
    num_whole = sum(_WHOLE_NUMBER.fullmatch(name) is not None for name in names)
    are_halves = len(fractions) >= MIN_HALVES and all(fraction.rstrip("0") == "5" for fraction in fractions)
    return (len(fractions) >= len(names) / 2 > 0 or are_halves) and len(fractions) + num_whole == len(names)

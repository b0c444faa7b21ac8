"""What the values of a column look like: texts, numbers, dates, ids, or nothing at all."""

from __future__ import annotations

import datetime
import math
import numbers
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from .labels import is_missing

LONG_CHARACTERS, LONG_WORDS = 20, 3  # a column whose values have so many on average looks like text
FEW_VALUES, ROWS_PER_VALUE = 3, 20  # texts have more different values, and no more rows for each
MOST = 0.9  # share of the values that says what all are
MOST_CHARACTERS_OF_A_DATE = 60
MOST_CHARACTERS = 500  # of a number, an address or a code; the patterns may take the square of the characters
MIN_ROWS = 10  # fewer rows do not show that values differ, or that there are few of them

_NUMBER = re.compile(r"[+-]?[.,]?\d[\d.,']*([eE][+-]?\d+)?\s*%?")
_FRACTION = re.compile(r"[+-]?\d*[.,]\d+([eE][+-]?\d+)?")
_CLOCK = r"\d{1,2}:\d{2}(:\d{2})?"
_DIGITS_OF_A_DATE = re.compile(rf"(\d{{4}}[-/.]\d{{1,2}}[-/.]\d{{1,2}}|\d{{1,2}}[-/.]\d{{1,2}}[-/.]\d{{2,4}})"
                               rf"([T\s,]+{_CLOCK}.{{0,16}})?|{_CLOCK}")
_MONTH = "(jan(uary)?|feb(ruary)?|mar(ch)?|apr(il)?|may|june?|july?|aug(ust)?|sept?(ember)?|oct(ober)?|" \
         "(nov|dec)(ember)?)"
_DAY = "(mon|tues?|wed(nes)?|thu(rs?)?|fri|sat(ur)?|sun)(day)?"
_WORDS_OF_A_DATE = re.compile(rf"(?i:{_MONTH}|{_DAY}|\d+(st|nd|rd|th)?|[ap]m)|[A-Z]{{3,4}}|[\s,.:/+-]")
_HAS_MONTH = re.compile(rf"\b{_MONTH}\b", re.IGNORECASE)
_ADDRESS = re.compile(r"(https?://|www\.)\S+|\S+@\S+\.\w+")
_CODE = re.compile(r"(?=\S*\d)[\w.-]+", re.ASCII)  # doc_0001


def looks_like_text(values: list[Any]) -> bool:
    """Whether values are mostly different strings of several words."""
    texts = [value for value in values if isinstance(value, str)]
    if not texts or len(set(texts)) <= len(texts) / 2 or not are_words(values):
        return False
    words = sum(text.count(" ") + 1 for text in texts) / len(texts)
    return words >= LONG_WORDS and mean_length(values) >= LONG_CHARACTERS


def mean_length(values: list[Any]) -> float:
    """Characters of the strings, on average."""
    lengths = [len(value) for value in values if isinstance(value, str)]
    return sum(lengths) / max(1, len(lengths))


def are_words(values: list[Any]) -> bool:
    """Whether values can be texts: half of them are there, strings and neither numbers, dates, addresses nor codes."""
    return not is_mostly_empty(values) and not _are_mostly(
        values, lambda value: not isinstance(value, str) or is_number(value) or _is_date(value)
        or _matches(_ADDRESS, value) or _matches(_CODE, value))


def are_few(values: list[Any]) -> bool:
    """Whether values are so few different ones that they are choices and no texts."""
    return len(values) >= MIN_ROWS and num_different(values) <= max(FEW_VALUES, len(values) / ROWS_PER_VALUE)


def are_dates(values: list[Any]) -> bool:
    return _are_mostly(values, _is_date)


def are_ids(values: list[Any]) -> bool:
    """Whether values name the rows: whole numbers, or strings, that differ in every row."""
    if len(values) < MIN_ROWS or num_different(values) < len(values):
        return False
    return not any(isinstance(value, (list, tuple)) or _has_fraction(value) for value in values)


def are_compound(values: list[Any]) -> bool:
    """Whether values are bytes, objects of JSON, or lists of these or of lists, none of which can be labels."""
    return _are_mostly(values, lambda value: isinstance(value, (bytes, dict)) or (
        isinstance(value, (list, tuple)) and any(isinstance(part, (bytes, dict, list, tuple)) for part in value)))


def is_mostly_empty(values: list[Any]) -> bool:
    return len(_filled(values)) < len(values) / 2


def is_empty(values: list[Any]) -> bool:
    """Whether there are values and all of them are missing."""
    return bool(values) and not _filled(values)


def num_different(values: list[Any]) -> int:
    """The number of different values that are there."""
    return len(set(map(str, _filled(values))))


def _filled(values: list[Any]) -> list[Any]:
    return [value for value in values if not is_missing(value)]


def _are_mostly(values: list[Any], test: Callable[[Any], bool]) -> bool:
    filled = _filled(values)
    return bool(filled) and sum(map(test, filled)) >= MOST * len(filled)


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MOST_CHARACTERS and pattern.fullmatch(value.strip()) is not None


def is_number(value: Any) -> bool:
    """Whether a value is a number, or a string that is one, such as "1,000" and "5 %"."""
    return isinstance(value, numbers.Number) or _matches(_NUMBER, value)


def _has_fraction(value: Any) -> bool:
    if isinstance(value, (numbers.Real, Decimal)):
        return math.isfinite(value) and not float(value).is_integer()
    return _matches(_FRACTION, value)


def _is_date(value: Any) -> bool:
    if not isinstance(value, str):
        return isinstance(value, (datetime.date, datetime.time))
    value = value.strip()
    if len(value) > MOST_CHARACTERS_OF_A_DATE:
        return False
    if _DIGITS_OF_A_DATE.fullmatch(value):
        return True
    return bool(_HAS_MONTH.search(value) and any(map(str.isdigit, value)) and not _WORDS_OF_A_DATE.sub("", value))

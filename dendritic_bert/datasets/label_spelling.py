"""Labels that a table spells as something else: lists as strings, several names in one, words for a missing label, and
names that look alike."""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from collections.abc import Collection
from typing import Any

from .label_numbers import ANY_NUMBER, are_comma_numbers

SEPARATORS = (";", "|", ",")
SEPARATORS_IN_NAMES = ("/", " ")  # which stand in names of single classes too, such as sci-fi/fantasy
MOST = 0.8  # share of the parts that are names themselves, where names are several in one
MIN_JOINED = 2  # one name with a separator may be the name of a class
MISSING_WORDS = frozenset(("na", "n/a", "#n/a", "null", "none", "<na>", "nan", r"\n"))  # in lower case; R, Excel, SQL

_LIST = re.compile(r"\[.*\]|\{.*\}|\(.*\)|set\(\)", re.DOTALL)
_JOINED_STRINGS = re.compile(r"""(['"])\s+\1""")  # ['a' 'b'], as numpy writes, is ['ab'] in Python
_TAGS = re.compile(r"(<[^<>]+>)+")  # <a><b>, as Stack Overflow writes


def as_list(value: Any) -> Any:
    """The list that a string such as "['a', 'b']" is, written by Python or as JSON; another value as it is.

    So are a set and a tuple of Python, "{'a', 'b'}" and "('a', 'b')".
    """
    if not isinstance(value, str) or not _LIST.fullmatch(value) or _JOINED_STRINGS.search(value):
        return value
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(value)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(found, set):
            found = sorted(found, key=repr)  # a set has another order in every process
        return list(found) if isinstance(found, (list, tuple)) else value
    return value


def likely_separator(names: Collection[str]) -> str | None:
    """What stands between the labels of a row, if names are several in one: their parts mostly are names themselves,
    stand in another order elsewhere, or recur in many combinations.

    None for numbers with a decimal comma, such as 1, 1,5, 2, ..., 5.
    """
    if are_comma_numbers(names):
        return None
    known = {name.strip() for name in names}
    for separator in SEPARATORS:
        joined = [[part.strip() for part in name.split(separator)] for name in names if separator in name]
        parts = [part for row in joined for part in row]
        are_known = len(joined) >= MIN_JOINED and sum(part in known for part in parts) >= MOST * len(parts)
        rows = {row for row in map(tuple, joined) if all(row)}
        if are_known or len({tuple(sorted(row)) for row in rows}) < len(rows) or _recur(rows):
            return separator
    for separator in SEPARATORS_IN_NAMES:
        rows = {tuple(name.split(separator)) for name in names if separator in name.strip()}
        if _recur(rows) and not any(ANY_NUMBER.fullmatch(part) for row in rows for part in row):
            return separator
    return None


def are_tags(names: Collection[str]) -> bool:
    """Whether names are tags in angle brackets, several in one: <a>, <b>, <a><b>, <b><c>."""
    return sum("><" in name for name in names) >= MIN_JOINED and all(map(_TAGS.fullmatch, names))


def _recur(rows: set[tuple[str, ...]]) -> bool:
    """Whether rows are combinations of a few labels: there are fewer parts than rows, and half of them or more stand
    both first and behind another. Of shoes/men, shoes/women, shirts/men, ... each part has its place."""
    first, behind = {row[0] for row in rows}, {part for row in rows for part in row[1:]}
    parts = first | behind
    return len(parts) < len(rows) and len(first & behind) >= len(parts) / 2


def says_missing(name: str) -> bool:
    """Whether a name is a word that programs write where there is no label, such as NA."""
    return name.strip().casefold() in MISSING_WORDS


def folded(name: str) -> str:
    """What names that look alike have in common: no case, no invisible characters, one kind and number of spaces."""
    composed = unicodedata.normalize("NFKC", name)
    visible = "".join(character for character in composed if unicodedata.category(character) != "Cf")
    return " ".join(visible.casefold().split())


def shown(name: str) -> str:
    """A name as it can be told from one that looks alike: with escapes for what cannot be seen."""
    return name if name.isprintable() and unicodedata.is_normalized("NFC", name) else ascii(name)


def on_one_line(name: str) -> str:
    """A name with escapes for line ends and other control characters, which would break a line or a list of names."""
    return "".join(ascii(character)[1:-1] if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") else character
                   for character in name)

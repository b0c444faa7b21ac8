"""What values look like: the kinds of a real table's columns, and the values that are like another kind."""

import datetime
from decimal import Decimal

import pytest

from dendritic_bert.datasets.column_values import (
    are_compound,
    are_dates,
    are_few,
    are_ids,
    are_words,
    is_mostly_empty,
    is_number,
)

DATES = ["2024-01-05", "2024-01-05 10:20:30", "2024-01-05T10:20:30.123Z", "1/5/24", "05.01.2024", "10:20",
         "Wed Jan 01 00:00:00 +0000 2020", "Mon Apr 06 22:19:45 PDT 2009", "January 5, 2020", "5 Sept 2020",
         datetime.date(2024, 1, 5), datetime.datetime(2024, 1, 5, 10)]
TEXTS = ["may I go at 3", "the fifth of May", "march on", "2024 was a year", "no date"]


@pytest.mark.parametrize("value", DATES)
def test_dates(value):
    assert are_dates([value] * 3 + [None])
    assert not are_words([value] * 3)


@pytest.mark.parametrize("value", TEXTS)
def test_texts_are_no_dates(value):
    assert not are_dates([value] * 3)
    assert are_words([value] * 3)


@pytest.mark.parametrize(("value", "expected"), [
    ("1", True), ("-1.5", True), (".5", True), ("1,234", True), ("5 %", True), ("1e-3", True), (2, True), (0.5, True),
    (Decimal("1.5"), True), ("v1", False), ("one", False), ("", False), (None, False)])
def test_numbers(value, expected):
    assert is_number(value) == expected


@pytest.mark.parametrize(("values", "expected"), [
    (list(range(10)), True), ([f"c{number}" for number in range(10)], True), (list(range(9)), False),
    ([*range(9), 0], False), ([number / 4 for number in range(10)], False), ([f"{i}.5" for i in range(10)], False),
    ([float(number) for number in range(10)], True), ([Decimal(number) / 4 for number in range(10)], False),
    ([[str(number)] for number in range(10)], False)])
def test_ids(values, expected):
    assert are_ids(values) == expected


@pytest.mark.parametrize(("values", "expected"), [
    (["yes", "no"] * 5, True), (["yes", "no"] * 4, False), (["a", "b", "c", "d"] * 3, False),
    ([str(number) for number in range(10)] * 20, True), ([str(number) for number in range(11)] * 19, False)])
def test_few_values(values, expected):
    assert are_few(values) == expected


@pytest.mark.parametrize("value", ["doc_00001", "a5-3f", "https://example.org/a b"[:21], "www.example.org", "a@b.org"])
def test_what_is_no_text(value):
    assert not are_words([value] * 3)
    assert are_words([value, "a text", "a text"])


@pytest.mark.parametrize(("value", "expected"), [
    (b"a text", True), ({"a": "a text"}, True), ([{"role": "user"}], True), ([["a", 1]], True), ([("a", 1)], True),
    ([b"a"], True), (["a", "text"], False), ([0.5, 1.5], False), ("a text", False), (1, False)])
def test_compound_values(value, expected):
    assert are_compound([value] * 3 + [None]) == expected
    assert are_words([value] * 3) == (value == "a text")


def test_long_texts_are_words_at_once():
    assert are_words(["@" * 300_000, "x." * 300_000, "1," * 300_000])


@pytest.mark.parametrize(("values", "expected"), [
    (["", None, float("nan"), "x"], True), (["", "x"], False), ([], False)])
def test_mostly_empty(values, expected):
    assert is_mostly_empty(values) == expected
    assert are_words(values) != expected

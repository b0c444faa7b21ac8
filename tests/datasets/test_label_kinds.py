"""Ids of classes are told from numbers to learn, and what is no label is refused."""

import re

import numpy as np
import pytest

from dendritic_bert.datasets.label_kinds import expect_no_odd_numbers, expect_no_texts, is_regression
from dendritic_bert.datasets.labels import CLASSES, REGRESSION

GAPS = [number * 7 % 101 for number in range(60)] * 2


@pytest.mark.parametrize(("column", "values", "expected"), [
    ("team", list(range(150)) * 2, CLASSES), ("team", [str(number) for number in range(1, 41)] * 2, CLASSES),
    ("team", [float(number) for number in range(77)] * 5, CLASSES),
    ("team", list(range(150)), REGRESSION),  # one row each
    ("team", list(range(2, 42)) * 5, REGRESSION), ("team", GAPS, REGRESSION),
    ("Label", GAPS, CLASSES), ("category", GAPS, CLASSES), ("intent", GAPS[:90], REGRESSION),
    ("label", [number / 2 for number in range(60)] * 5, REGRESSION),
    ("score", list(range(101)) * 5, REGRESSION), ("year", list(range(1980, 2020)) * 5, REGRESSION),
    ("helpful_votes", list(range(60)) * 5, REGRESSION), ("Num comments", list(range(60)) * 5, REGRESSION),
    ("class_id", GAPS, CLASSES), ("Intent ID", GAPS, CLASSES), ("class size", GAPS, REGRESSION), ("", GAPS, REGRESSION),
    ("stars", [1, 2, 3, 4, 5] * 5, CLASSES),
])
def test_ids_of_classes(column, values, expected):
    """Whole numbers without a gap, or in a column that is called so, are classes with two rows each."""
    names = list(dict.fromkeys(map(str, values)))
    found = is_regression(names, np.array(names, np.float64), len(values), column)
    assert (REGRESSION if found else CLASSES) == expected


TEXTS = [f"this is the text of row {number}" for number in range(20)]


@pytest.mark.parametrize(("names", "num_rows", "is_text"), [
    (TEXTS, 20, True), (TEXTS, 39, True), (TEXTS, 40, False), (TEXTS[:9], 9, False),
    ([f"in row {number}" for number in range(20)], 20, False), ([f"{number:040}" for number in range(20)], 20, True)])
def test_texts_are_no_labels(names, num_rows, is_text):
    """Where more than half of ten rows or more have a label of their own, of 4 words or 40 characters."""
    if not is_text:
        expect_no_texts(names, num_rows, "a", "f.csv")
        return
    message = f"f.csv: the label column 'a' looks like text, 20 different values in {num_rows} rows, "
    with pytest.raises(ValueError, match=rf"^{re.escape(message)}\d words each: name the column of the labels with "):
        expect_no_texts(names, num_rows, "a", "f.csv")


@pytest.mark.parametrize(("names", "message"), [
    (["1,5", "2,5"], "the labels of column 'a' look like numbers with a comma, such as '1,5': write a point for a "),
    (["12.5%", "3 %"], "the labels of column 'a' look like percentages, such as '12.5%': take the percent signs off "),
    (["0.5", "+Inf", "-infinity"], "column 'a' holds numbers and '+Inf', and a regression needs finite ones: mend "),
    (["0.5", "inf", "high"], None), (["10%", "20%", "50%"], None), (["a", "b"], None), ([], None)])
def test_numbers_that_would_be_names(names, message):
    if message is None:
        expect_no_odd_numbers(names, "a", "f.csv")
        return
    with pytest.raises(ValueError, match=rf"^f\.csv: {re.escape(message)}"):
        expect_no_odd_numbers(names, "a", "f.csv")

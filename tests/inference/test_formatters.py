"""Rows of every format read back as they were, by json, csv and pyarrow themselves."""

import csv
import datetime
import io
import json
import math

import pyarrow as pa
import pytest

from dendritic_bert.inference.formatters import ArrowFormatter, Column, LineFormatter, to_json

COLUMNS = [Column("id", "value"), Column('a "name", 100 %', "value"), Column("text", "text"), Column("label", "label"),
           Column("score", "score")]
VALUES = [
    [1, "2", None, True, 5.5],
    ["plain", "", None, "comma, \"quote\"", "two\r\nlines"],
    ["a", "", None, "世 😀", '"'],
    ["good", "good", None, 'b,"ad"', "x"],
    [0.5, 1 / 3, None, 0.0, 1.0],
]
SCORES = ["0.500000", "0.333333", None, "0.000000", "1.000000"]


def test_json():
    lines = LineFormatter("json", COLUMNS).rows(VALUES).split("\n")
    assert lines.pop() == ""
    assert [list(json.loads(line).values()) for line in lines] == [
        [*row[:4], None if score is None else float(score)] for row, score in zip(map(list, zip(*VALUES)), SCORES)]
    assert list(json.loads(lines[0])) == [column.name for column in COLUMNS]


def test_csv():
    """Null is an empty field, an empty string a quoted one; every other value is text or JSON."""
    formatter = LineFormatter("csv", COLUMNS)
    data = formatter.header + formatter.rows(VALUES)
    header, *rows = csv.reader(io.StringIO(data, newline=""))
    assert header == [column.name for column in COLUMNS]
    expected = [["1", "2", "", "true", "5.5"], *([cell or "" for cell in column] for column in VALUES[1:4]),
                [score or "" for score in SCORES]]
    assert rows == list(map(list, zip(*expected)))
    assert data.splitlines()[2] == '2,"","",good,0.333333'
    assert ",,,," in data.splitlines()


def test_tsv():
    formatter = LineFormatter("tsv", COLUMNS[:4])
    lines = (formatter.header + formatter.rows(VALUES[:4])).removesuffix("\n").split("\n")
    assert lines[0] == 'id\ta "name", 100 %\ttext\tlabel'
    assert lines[5] == '5.5\ttwo  lines\t"\tx'


@pytest.mark.parametrize(("value", "expected"), [
    ([1, None, "é"], [1, None, "é"]), ({"a": [math.nan, math.inf]}, {"a": [None, None]}), (math.nan, None),
    (datetime.date(2024, 2, 29), "2024-02-29"), (b"\xff\x00", "ff00"), ([datetime.time(1)], ["01:00:00"])])
def test_values_that_json_does_not_have(value, expected):
    def no_constant(name):
        raise AssertionError(name)

    assert json.loads(to_json(value), parse_constant=no_constant) == expected


def test_arrow():
    """A stream of Arrow that can be cut off behind any message; values without a type are text, and JSON."""
    columns = [*COLUMNS, Column("n", "value", pa.int16()), Column("tags", "value", pa.list_(pa.string()))]
    formatter = ArrowFormatter(columns)
    values = [*VALUES, pa.array(range(5), pa.int16()), pa.array([["x"], [], None, ["y", None], ["z"]])]
    data = formatter.header + formatter.rows(values) + formatter.rows([column[:2] for column in values])
    table = pa.ipc.open_stream(data).read_all()
    assert [str(type) for type in table.schema.types] == [
        "string", "string", "string", "string", "float", "int16", "list<item: string>"]
    expected = [["1", "2", None, "true", "5.5"], *VALUES[1:4], [0.5, pytest.approx(1 / 3), None, 0.0, 1.0],
                list(range(5)), [["x"], [], None, ["y", None], ["z"]]]
    assert list(table.to_pydict().values()) == [column + column[:2] for column in expected]

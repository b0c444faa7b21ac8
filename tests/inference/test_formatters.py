"""Rows of every format read back as they were, by json, csv and pyarrow themselves."""

import csv
import datetime
import io
import json
import math

import numpy as np
import pyarrow as pa
import pytest
from cases import SEED

from dendritic_bert._files import TextColumn
from dendritic_bert.inference import formatters
from dendritic_bert.inference.formatters import ArrowFormatter, Column, Labels, LineFormatter, to_json

COLUMNS = [Column("id", "value"), Column('a "name", 100 %', "value"), Column("text", "text"), Column("label", "label"),
           Column("score", "score")]
TEXTS = ["a", "", None, "世 😀", '"']
LABELS = ["good", "good", None, 'b,"ad"', "x"]
VALUES = [
    [1, "2", None, True, 5.5],
    ["plain", "", None, "comma, \"quote\"", "two\r\nlines"],
    pa.array(TEXTS),
    Labels(np.array([0, 0, -1, 1, 2], np.int32), ["good", 'b,"ad"', "x"]),
    np.array([0.5, 1 / 3, np.nan, 0.0, 1.0], np.float32),
]
CELLS = [*VALUES[:2], TEXTS, LABELS]
SCORES = ["0.500000", "0.333333", None, "0.000000", "1.000000"]


@pytest.fixture(params=["C++", "Python"])
def either_way(request, monkeypatch):
    if request.param == "Python":
        monkeypatch.setattr(formatters, "files", None)


@pytest.mark.usefixtures("either_way")
def test_json():
    lines = LineFormatter("json", COLUMNS).rows(VALUES).decode().split("\n")
    assert lines.pop() == ""
    assert [list(json.loads(line).values()) for line in lines] == [
        [*row[:4], None if score is None else float(score)] for row, score in zip(map(list, zip(*CELLS)), SCORES)]
    assert list(json.loads(lines[0])) == [column.name for column in COLUMNS]


@pytest.mark.usefixtures("either_way")
def test_csv():
    """Null is an empty field, an empty string a quoted one; every other value is text or JSON."""
    formatter = LineFormatter("csv", COLUMNS)
    data = (formatter.header + formatter.rows(VALUES)).decode()
    header, *rows = csv.reader(io.StringIO(data, newline=""))
    assert header == [column.name for column in COLUMNS]
    expected = [["1", "2", "", "true", "5.5"], *([cell or "" for cell in column] for column in CELLS[1:]),
                [score or "" for score in SCORES]]
    assert rows == list(map(list, zip(*expected)))
    assert data.splitlines()[2] == '2,"","",good,0.333333'
    assert ",,,," in data.splitlines()


@pytest.mark.usefixtures("either_way")
def test_tsv():
    formatter = LineFormatter("tsv", COLUMNS[:4])
    lines = (formatter.header + formatter.rows(VALUES[:4])).decode().removesuffix("\n").split("\n")
    assert lines[0] == 'id\ta "name", 100 %\ttext\tlabel'
    assert lines[5] == '5.5\ttwo  lines\t"\tx'


def any_text(rng: np.random.Generator) -> str:
    """Of every length around 16, with whatever a format must escape at any place."""
    parts = [chr(code) for code in range(0x80)] + ["é", "世", "😀", "\u2028", "\x85", "a" * 15, "b" * 7] * 4
    return "".join(rng.choice(parts, rng.integers(0, 40)))


@pytest.mark.parametrize("format", ["json", "csv", "tsv"])
@pytest.mark.parametrize("kind", ["text", "value"])
@pytest.mark.parametrize("hold", [list, TextColumn, pa.array,
                                  lambda texts: pa.array(["x", *texts], pa.large_string())[1:]],
                         ids=["list", "TextColumn", "string", "large_string"])
def test_cpp_writes_what_python_writes(monkeypatch, format, kind, hold):
    """Of texts of every kind, also where they are longer than what is copied at once."""
    rng = np.random.default_rng(SEED)
    texts = [*(any_text(rng) for _ in range(200)), None, "x" * 4095 + '"\n"' + "y" * 5000, ""]
    formatter = LineFormatter(format, [Column("a", kind), Column("b", kind)])
    native = formatter.rows([hold(texts), hold(texts[::-1])])
    monkeypatch.setattr(formatters, "files", None)
    assert native == formatter.rows([texts, texts[::-1]])


@pytest.mark.parametrize("format", ["json", "csv", "tsv"])
@pytest.mark.parametrize("kind", ["text", "value"])
@pytest.mark.parametrize("first", range(4))
def test_long_lines_are_written_in_parts(format, kind, first):
    """Parts of about a MiB that end where a character does are the lines that are made at once."""
    texts = ["x" * first + "é世😀" * 300_000, "short", None, "plain " * 200_000, '"\n\x01' * 200_000]
    formatter, parts = LineFormatter(format, [Column("a", kind), Column("b", "text")]), []
    parts.append(formatter.rows([pa.array(texts), pa.array(texts[::-1])], parts.append))
    assert max(map(len, parts)) < 1.1 * 2**20
    assert len(parts) > 8
    assert "".join(part.decode() for part in parts).encode() == formatter.rows([pa.array(texts), pa.array(texts[::-1])])


def test_an_error_while_a_part_is_written():
    def write(part: bytes) -> None:
        raise OSError("No space left")

    with pytest.raises(OSError, match="No space left"):
        LineFormatter("json", [Column("a", "text")]).rows([pa.array(["x" * (3 << 20)])], write)


@pytest.mark.parametrize("texts", [pa.array([], pa.string()), pa.array([], pa.large_string()), TextColumn([]), []])
def test_no_rows(texts):
    assert LineFormatter("json", [Column("a", "text")]).rows([texts]) == b""


def test_six_decimals_of_a_float32():
    """Those of Python, which rounds the exact value: of any bits, and where two decimals are equally near."""
    rng = np.random.default_rng(SEED)
    ties = np.arange(-300, 300, dtype=np.float32) / 128  # 0.0078125 has seven decimals
    near = (rng.integers(0, 2_000_001, 20_000) / 2_000_000).astype(np.float32)
    bits = rng.integers(0, 1 << 32, 20_000, dtype=np.uint32).view(np.float32)
    scores = np.concatenate([ties, near, np.nextafter(near, np.float32(2)), bits[~np.isnan(bits)],
                             np.array([0, -0.0, 1, 2**23, 2**24 - 1, 2**24, 3.4e38, np.inf], np.float32)])
    lines = LineFormatter("tsv", [Column("score", "score")]).rows([scores]).decode().splitlines()
    assert lines == [f"{score:.6f}" for score in scores.tolist()]


@pytest.mark.parametrize(("value", "expected"), [
    ([1, None, "é"], [1, None, "é"]), ({"a": [math.nan, math.inf]}, {"a": [None, None]}), (math.nan, None),
    (datetime.date(2024, 2, 29), "2024-02-29"), (b"\xff\x00", "ff00"), ([datetime.time(1)], ["01:00:00"])])
def test_values_that_json_does_not_have(value, expected):
    def no_constant(name):
        raise AssertionError(name)

    assert json.loads(to_json(value), parse_constant=no_constant) == expected


def first_two(column):
    return column._replace(numbers=column.numbers[:2]) if isinstance(column, Labels) else column[:2]


def test_arrow():
    """A stream of Arrow that can be cut off behind any message; values without a type are text, and JSON."""
    columns = [*COLUMNS, Column("n", "value", pa.int16()), Column("tags", "value", pa.list_(pa.string()))]
    formatter = ArrowFormatter(columns)
    values = [*VALUES, pa.array(range(5), pa.int16()), pa.array([["x"], [], None, ["y", None], ["z"]])]
    data = formatter.header + formatter.rows(values) + formatter.rows([first_two(column) for column in values])
    table = pa.ipc.open_stream(data).read_all()
    assert [str(type) for type in table.schema.types] == [
        "string", "string", "string", "string", "float", "int16", "list<item: string>"]
    expected = [["1", "2", None, "true", "5.5"], *CELLS[1:], [0.5, pytest.approx(1 / 3), None, 0.0, 1.0],
                list(range(5)), [["x"], [], None, ["y", None], ["z"]]]
    assert list(table.to_pydict().values()) == [column + column[:2] for column in expected]

"""What C++ reads is what Python reads: the same cells, lines, positions and errors for any bytes."""

import io
import json
import random

import numpy as np
import pyarrow as pa
import pytest
from cases import SEED

from dendritic_bert._files import RecordScanner, TextColumn
from dendritic_bert.inference import line_reader, record_collector
from dendritic_bert.inference.readers import open_records

TEXTS = ["", "fox", "the quick brown fox, and so on", "世界", "😀", "café", '"', "\\", "\t", "\r", "\n", "\0", "\x7f",
         "\x1c", "\x85", "\u2028", "\ufeff", ",", ";", '""', '","', "x" * 40]
# What stands where JSON has a value: of every kind, and what is none.
VALUES = ["1", "-0", "01", "1.5e3", "1.", "-", "1e999", "1" * 4301, "NaN", "-Infinity", "nul", "true", "null", "[]",
          "{}", "[1, {}, [[]]]", "[1,]", '{"a": 1, "a": 2}', "[" * 70 + "]" * 70, "[" * 5000, '{"text": "inside"}',
          '"\\ud800"', '["\\udfff"]', '"\\ud83d\\ude00"', '"\\ud83d\\ud83d"',
          '"\\u00e9\\u4E16\\/\\b\\f\\n\\r\\t\\"\\\\"',
          '"\\x"', '"\\u12"', '"a\tb"', '""']


def any_text(rng: random.Random) -> str:
    return "".join(rng.choices(TEXTS, k=rng.randrange(6)))


def json_line(rng: random.Random) -> str:
    """An object, most often a plain one."""
    if rng.random() < 0.3:
        return json.dumps({"id": 3, "text": any_text(rng), "more": any_text(rng)}, ensure_ascii=rng.random() < 0.5)
    space = rng.choice(["", " ", "\t", " \r "])
    keys = rng.choices(["text", "id", "more", "te\\u0078t", "", "é"], k=rng.randrange(5))
    values = [json.dumps(any_text(rng)) if rng.random() < 0.8 else rng.choice(VALUES) for _ in keys]
    members = ",".join(f'{space}"{key}"{space}:{space}{value}' for key, value in zip(keys, values))
    return f"{space}{{{members}{space}}}{space}" + rng.choices(["", "x", "}"], [96, 2, 2])[0]


def field(rng: random.Random) -> str:
    text = any_text(rng)
    if rng.random() < 0.5 or set(text) & set(',"\r\n'):
        text = '"' + text.replace('"', '""') + '"'
    return text if rng.random() < 0.97 else text[:-1]


def row(rng: random.Random, delimiter: str) -> str:
    return delimiter.join(field(rng) for _ in range(3 if rng.random() < 0.95 else 2))


LINES = {"text": any_text, "jsonl": json_line, "csv": lambda rng: row(rng, ","), "tsv": lambda rng: row(rng, "\t")}


def any_file(rng: random.Random, format: str, num_lines: int) -> bytes:
    """Lines with and without CR, blank ones among them, and in some places a byte that is not UTF-8."""
    lines = [] if format in ("text", "jsonl") else [{"csv": ",", "tsv": "\t"}[format].join(["id", "text", "more"])]
    for _ in range(num_lines):
        lines.append(rng.choice(["", " ", "\x0b"]) if rng.random() < 0.05 else LINES[format](rng))
    data = bytearray("".join(line + rng.choice(["\n", "\r\n"]) for line in lines).encode())
    for _ in range(len(data) // 500):
        data[rng.randrange(20, len(data))] = rng.randrange(256)
    return (b"\xef\xbb\xbf" if rng.random() < 0.5 else b"") + bytes(data)


class Parts(io.RawIOBase):
    """Gives its bytes in parts of any size."""

    def __init__(self, data: bytes, rng: random.Random):
        self.data, self.rng = data, rng

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        count = min(len(buffer), len(self.data), self.rng.choice([1, 50, 3000]))
        buffer[:count], self.data = self.data[:count], self.data[count:]
        return count


def read(stream, format: str, on_error: str, batch_size: int) -> tuple[list, list, str]:
    """The cells and lines of all records, the positions behind each batch, and the error that ended it."""
    rows, positions, error = [], [], ""
    with open_records(stream, format, on_error) as records:
        columns, texts = ([], ["text"]) if format == "text" else (["id", "more"], ["text"])
        try:
            for batch in records.batches(batch_size, columns, texts):
                rows += zip(batch.lines, *(map(repr, batch.columns[name]) for name in (*texts, *columns)))
                positions.append(batch.position)
        except ValueError as raised:
            error = str(raised)
    return rows, positions, error


def check_fuzz(monkeypatch, format: str, on_error: str, num_lines: int, seed: int) -> None:
    rng = random.Random(SEED + seed)
    data, batch_size = any_file(rng, format, num_lines), rng.choice([1, 7, 4096])
    found = read(io.BufferedReader(Parts(data, rng)), format, on_error, batch_size)
    with monkeypatch.context() as patch:
        patch.setattr(record_collector, "files", None)
        assert found == read(io.BytesIO(data), format, on_error, batch_size)


@pytest.mark.parametrize("on_error", ["stop", "skip", "null"])
@pytest.mark.parametrize("format", LINES)
def test_any_bytes(monkeypatch, format, on_error):
    """Now and then with a limit of bytes that many lines exceed."""
    for seed in range(8):
        monkeypatch.setattr(line_reader, "MAX_LINE_BYTES", 60 if seed == 7 else 1 << 26)
        check_fuzz(monkeypatch, format, on_error, 300 if on_error == "stop" else 80, seed)


def test_most_lines_are_plain():
    """All of what json.dumps writes, with escapes or without, is read in C++."""
    rng = random.Random(SEED)
    texts = [any_text(rng) for _ in range(500)]
    lines = "".join(json.dumps({"id": number, "text": text, "more": [text]}, ensure_ascii=number % 2 == 0) + "\n"
                    for number, text in enumerate(texts)).encode()
    scanner = RecordScanner("jsonl", ",", 0, ("text", "more"), 1, 1 << 20)
    assert scanner.scan(lines, 0, 10, 1000, len(lines) + 1) == (len(lines), len(texts), "more")
    (found, more), numbers = scanner.take()
    assert found.to_pylist() == texts
    assert [json.loads(value) for value in more] == [[text] for text in texts]
    assert np.frombuffer(numbers, np.int64).tolist() == list(range(11, 511))


@pytest.mark.parametrize("texts", [[], ["a"], [None], ["", None, "世界", "\0"] * 20, [None] * 9 + ["a"] * 9])
def test_columns_are_arrays_of_arrow(texts):
    column = TextColumn(texts)
    array = pa.array(column)
    array.validate(full=True)
    assert (len(column), column.null_count) == (len(texts), texts.count(None))
    del column
    assert array.type == pa.string()
    assert array.to_pylist() == texts


def test_what_the_scanner_refuses():
    for wrong in (("xml", ",", 1, (0,), 1, 10), ("csv", ",", 1, (1,), 1, 10), ("csv", "é", 1, (0,), 1, 10)):
        with pytest.raises(ValueError, match=r"expected|known are"):
            RecordScanner(*wrong)
    scanner = RecordScanner("csv", ",", 1, (0,), 1, 10)
    with pytest.raises(ValueError, match="begin is 3, expected 0 to 1"):
        scanner.scan(b"a", 3, 0, 1, 1)
    with pytest.raises(ValueError, match="cells has 2, expected one for each of 1 columns"):
        scanner.append(["a", "b"], 1)
    with pytest.raises(TypeError):
        scanner.append([3], 1)
    assert len(scanner) == 0

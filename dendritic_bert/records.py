"""Texts out of text, CSV, TSV and JSONL files of any size, and classified texts into JSONL, CSV and TSV."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import sys
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

from .tokenization import without_surrogates

INPUT_FORMATS = {"text": (".txt",), "csv": (".csv",), "tsv": (".tsv",), "jsonl": (".jsonl", ".ndjson", ".json")}
OUTPUT_FORMATS = {"json": (".json", ".jsonl", ".ndjson"), "csv": (".csv",), "tsv": (".tsv",)}
MAX_LINE_BYTES = 1 << 26  # what one line may take of the memory
BATCH_BYTES = 1 << 22  # a batch of long texts ends here, before it has its number of rows

PathOrStream: TypeAlias = "str | os.PathLike[str] | BinaryIO | io.TextIOBase"
Formatter = Callable[[Iterable[str], Sequence[str], Iterable[float]], str]


def choose_format(argument: str, wanted: str | None, path: object, formats: dict[str, tuple[str, ...]]) -> str:
    """``wanted``, else what the suffix of ``path`` stands for, else the first of ``formats``; ValueError if unknown."""
    if wanted is None:
        suffix = Path(path).suffix.lower() if isinstance(path, (str, os.PathLike)) else ""
        return next((name for name, suffixes in formats.items() if suffix in suffixes), next(iter(formats)))
    if wanted not in formats:
        raise ValueError(f"{argument} is {wanted!r}, known are {', '.join(formats)}.")
    return wanted


def open_input(input: PathOrStream, stack: ExitStack) -> tuple[BinaryIO, str, int | None]:
    """A binary stream that ``stack`` closes, its name, and its size in bytes where it is a file.

    ``input`` is a path, "-" for standard input, or a stream. Raises OSError where it cannot be read.
    """
    if input == "-":
        return sys.stdin.buffer, "standard input", None
    if not isinstance(input, (str, os.PathLike)):
        return binary_stream("input", input, "read"), "input", None
    try:
        stream = stack.enter_context(open(input, "rb"))  # noqa: SIM115
    except FileNotFoundError:
        raise FileNotFoundError(f"input {input} does not exist.") from None
    except OSError as error:
        raise type(error)(f"input {input} cannot be read ({error.strerror}).") from None
    return stream, str(input), os.fstat(stream.fileno()).st_size if Path(input).is_file() else None


def binary_stream(argument: str, stream: Any, method: str) -> BinaryIO:
    """``stream`` or the binary one beneath it; TypeError where there is none."""
    binary = getattr(stream, "buffer", stream)
    if isinstance(binary, io.TextIOBase) or not hasattr(binary, method):
        raise TypeError(f"{argument} is a {type(stream).__name__}, pass a path or a binary stream.")
    return binary


class Position(NamedTuple):
    """How far a run has come; enough to go on from there."""

    records: int
    lines: int
    input_bytes: int
    input_sha256: str  # of the input up to input_bytes
    num_replaced: int
    num_truncated: int = 0
    output_bytes: int = 0


class RecordReader:
    """The texts of a binary stream, in batches.

    Lines end in LF or CRLF. "text" has a text a line, an empty line is the empty text; "csv" is RFC 4180 with a header
    line; "tsv" has a header line and no quoting; "jsonl" has an object a line. Blank lines of the last three are no
    records. Bytes that are not UTF-8, and lone surrogates of JSON escapes, become U+FFFD and are counted.
    Raises ValueError, naming the line, for what is not of the format.
    """

    def __init__(self, stream: BinaryIO, name: str, input_format: str, column: str):
        self.stream, self.name, self.column = stream, name, column
        self._records = self._lines = self._bytes = self._replaced = 0
        self._digest = hashlib.sha256()
        self._unhashed: list[bytes] = []
        self._texts: Iterator[str] = {"text": self._read_text, "csv": self._read_csv, "tsv": self._read_tsv,
                                      "jsonl": self._read_jsonl}[input_format]()

    def position(self) -> Position:
        """Where the reader stands: behind the last record given out, or behind the header."""
        self._digest.update(b"".join(self._unhashed))
        self._lines += len(self._unhashed)
        self._unhashed.clear()
        return Position(self._records, self._lines, self._bytes, self._digest.hexdigest(), self._replaced)

    def go_to(self, done: Position) -> bool:
        """Move a seekable stream to ``done``; False where the bytes before it are not those that were read then."""
        self.stream.seek(0)
        self._digest, self._unhashed = hashlib.sha256(), []
        left = done.input_bytes
        while left and (block := self.stream.read(min(left, BATCH_BYTES))):
            self._digest.update(block)
            left -= len(block)
        self._records, self._lines, self._bytes, self._replaced = done.records, done.lines, done.input_bytes, \
            done.num_replaced
        return not left and self._digest.hexdigest() == done.input_sha256

    def batches(self, batch_size: int) -> Iterator[tuple[list[str], Position]]:
        """Up to ``batch_size`` texts or about ``BATCH_BYTES`` at a time, with the position behind them."""
        texts: list[str] = []
        full = self._bytes + BATCH_BYTES
        for text in self._texts:
            texts.append(text)
            if len(texts) == batch_size or self._bytes > full:
                self._records += len(texts)
                yield texts, self.position()
                texts, full = [], self._bytes + BATCH_BYTES
        if texts:
            self._records += len(texts)
            yield texts, self.position()

    def _error(self, what: str) -> ValueError:
        return ValueError(f"{self.name}, line {self._lines + len(self._unhashed)}: {what}")

    def _decoded_lines(self) -> Iterator[str]:
        at_start = not self._bytes
        for line in iter(partial(self.stream.readline, MAX_LINE_BYTES + 1), b""):
            self._unhashed.append(line)
            self._bytes += len(line)
            if len(line) > MAX_LINE_BYTES:
                raise self._error(f"longer than {MAX_LINE_BYTES >> 20} MiB, split it into several texts.")
            if at_start:
                line, at_start = line.removeprefix(BOM_UTF8), False
            try:
                text = line.decode()
            except UnicodeDecodeError:
                # surrogateescape makes each bad byte one lone surrogate, which no valid UTF-8 holds.
                text, count = re.subn("[\udc80-\udcff]", "\ufffd", line.decode(errors="surrogateescape"))
                self._replaced += count
            yield text

    def _read_text(self) -> Iterator[str]:
        return (line.rstrip("\r\n") for line in self._decoded_lines())

    def _read_tsv(self) -> Iterator[str]:
        return self._column_of(line.rstrip("\r\n").split("\t") if line.strip("\r\n") else []
                               for line in self._decoded_lines())

    def _read_csv(self) -> Iterator[str]:
        csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))  # the module's default is 128 KiB
        return self._column_of(csv.reader(self._decoded_lines(), strict=True))

    def _column_of(self, rows: Iterator[list[str]]) -> Iterator[str]:
        header = self._next_row(rows) or []
        if self.column not in header:
            there = f"the columns are {', '.join(header)}" if header else "the file has no header line"
            raise ValueError(f"column is {self.column!r}, which {self.name} does not have: {there}.")
        return self._cells(rows, header.index(self.column), len(header))

    def _cells(self, rows: Iterator[list[str]], index: int, width: int) -> Iterator[str]:
        while (row := self._next_row(rows)) is not None:
            if len(row) > index:
                yield row[index]
            elif row:
                raise self._error(f"column {self.column!r} is missing, {len(row)} columns for the header's {width}.")

    def _next_row(self, rows: Iterator[list[str]]) -> list[str] | None:
        try:
            return next(rows, None)
        except csv.Error as error:
            raise self._error(f"not valid CSV ({error}), mend the quotes or pass input_format.") from None

    def _read_jsonl(self) -> Iterator[str]:
        for line in self._decoded_lines():
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise self._error(f"not valid JSON ({error.msg} at character {error.pos + 1}), every line must be one "
                                  "object.") from None
            except (ValueError, RecursionError) as error:  # a number of 5000 digits, brackets 1000 deep
                raise self._error(f"not to be read as JSON ({error}), every line must be one object.") from None
            if not isinstance(record, dict):
                raise self._error(f"a JSON {type(record).__name__}, every line must be one object.")
            text = record.get(self.column)
            if not isinstance(text, str):
                raise self._error(f"column {self.column!r} is {text!r:.60}, not a string; the object has "
                                  f"{', '.join(record) or 'no columns'}.")
            if "\\ud" in line.lower():
                whole = without_surrogates(text)
                self._replaced += whole.count("\ufffd") - text.count("\ufffd")
                text = whole
            yield text


# ---- the other way: a header, and a function (texts, labels, scores) -> lines ----------------------------------------


def _json_lines(texts: Iterable[str], labels: Sequence[str], scores: Iterable[float]) -> str:
    quoted = {label: encode_basestring(label) for label in set(labels)}
    return "".join([f'{{"text": {encode_basestring(text)}, "label": {quoted[label]}, "score": {score:.6f}}}\n'
                    for text, label, score in zip(texts, labels, scores)])


def _csv_lines(texts: Iterable[str], labels: Sequence[str], scores: Iterable[float]) -> str:
    # csv.writer leaves a lone CR unquoted before Python 3.13, and csv.reader then ends the row there.
    def quote(field: str) -> str:
        return '"' + field.replace('"', '""') + '"'

    quoted = {label: quote(label) if re.search('[",\r\n]', label) else label for label in set(labels)}
    return "".join([f"{quote(text)},{quoted[label]},{score:.6f}\n"
                    for text, label, score in zip(texts, labels, scores)])


def _tsv_lines(texts: Iterable[str], labels: Sequence[str], scores: Iterable[float]) -> str:
    def on_one_line(field: str) -> str:
        return field.replace("\t", " ").replace("\r", " ").replace("\n", " ")

    return "".join([f"{on_one_line(text)}\t{on_one_line(label)}\t{score:.6f}\n"
                    for text, label, score in zip(texts, labels, scores)])


FORMATTERS: dict[str, tuple[str, Formatter]] = {
    "json": ("", _json_lines), "csv": ("text,label,score\n", _csv_lines), "tsv": ("text\tlabel\tscore\n", _tsv_lines),
}

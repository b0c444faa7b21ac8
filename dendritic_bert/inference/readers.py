"""Reads texts from lines, CSV, TSV and JSON Lines, in batches, with the position in the input after each batch."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from codecs import BOM_UTF8
from collections import deque
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from .texts import without_surrogates

MAX_LINE_BYTES = 1 << 26  # a longer line is a malformed record, so that memory is bounded
BATCH_BYTES = 1 << 22  # a batch of long texts ends here, even if it has fewer texts than asked for
ON_ERROR = ("stop", "skip", "null")


class MalformedRecord(ValueError):
    """A record that does not follow the format of the input; the message names the input and the line."""


class Position(NamedTuple):
    """How far a run has come: all that is needed to continue from there.

    records: texts read. lines, input_bytes, input_sha256: size and digest of the input up to there. num_replaced: bytes
    that could not be decoded. num_malformed: malformed records; first_malformed: what was wrong with the first of them.
    num_truncated: texts that were cut. output_bytes: size of the output.
    """

    records: int
    lines: int
    input_bytes: int
    input_sha256: str
    num_replaced: int
    num_malformed: int = 0
    first_malformed: str = ""
    num_truncated: int = 0
    output_bytes: int = 0


class RecordReader:
    """The texts of a stream of UTF-8, in batches.

    Lines end in LF or CRLF. "text" has one text per line, and an empty line is an empty text. "csv" is RFC 4180 with a
    header line. "tsv" has a header line and no quoting. "jsonl" has one object per line. In the last three a blank line
    is not a record. Bytes that are not UTF-8, and lone surrogates in JSON escapes, become U+FFFD and are counted.

    A record is malformed if its width is not that of the header, if its line is not JSON or too long, or if its text is
    missing or null. Then ``on_error`` "stop" raises MalformedRecord, which names the line; "skip" leaves the record
    out; "null" gives None for it.
    """

    def __init__(self, stream: BinaryIO, name: str, input_format: str, column: str, on_error: str = "stop"):
        if on_error not in ON_ERROR:
            raise ValueError(f"on_error is {on_error!r}, known are {', '.join(ON_ERROR)}.")
        self.stream, self.name, self.column, self.on_error = stream, name, column, on_error
        self._done = Position(0, 0, 0, "", 0)  # its digest is brought up to date by position()
        self._digest = hashlib.sha256()
        self._lines: list[bytes] = []  # the lines read since the digest was brought up to date
        self._given_out = 0  # how many of them belong to records that were given out; the rest is being read
        self._bytes = self._bytes_hashed = 0  # size of all lines read, and of those in the digest
        self._replaced = 0  # replaced bytes of the record that is being read
        self._at_start = True
        self._put_back: deque[bytes] = deque()
        self._next_text = {"text": self._next_line, "csv": self._next_of_csv, "tsv": self._next_of_tsv,
                           "jsonl": self._next_of_jsonl}[input_format]
        if input_format in ("csv", "tsv"):
            csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))  # the module's default is 128 KiB
            self._csv_rows = self._read_csv()
            self._index, self._width = self._read_header(self._csv_row if input_format == "csv" else self._tsv_row)

    def position(self) -> Position:
        """The position after the last record that was given out, or after the header."""
        lines = b"".join(self._lines[:self._given_out])
        self._digest.update(lines)
        self._done = self._done._replace(
            lines=self._done.lines + self._given_out, input_bytes=self._done.input_bytes + len(lines),
            input_sha256=self._digest.hexdigest())
        del self._lines[:self._given_out]
        self._given_out = 0
        self._bytes_hashed = self._bytes
        return self._done

    def go_to(self, done: Position) -> bool:
        """Move a stream that can be read again to ``done``; False if the bytes before it have changed since."""
        self.stream.seek(0)
        self._digest = hashlib.sha256()
        self._lines.clear()
        self._put_back.clear()
        self._given_out, self._at_start = 0, not done.lines
        left = done.input_bytes
        while left and (block := self.stream.read(min(left, BATCH_BYTES))):
            self._digest.update(block)
            left -= len(block)
        self._done = done
        return not left and self._digest.hexdigest() == done.input_sha256

    def batches(self, batch_size: int) -> Iterator[tuple[list[str | None], Position]]:
        """Batches of up to ``batch_size`` texts or about ``BATCH_BYTES``, each with the position after it.

        Before an error is raised, the texts before it are given out.
        """
        texts: list[str | None] = []
        given, full = self.position(), self._bytes + BATCH_BYTES
        try:
            for text in self._records():
                texts.append(text)
                if len(texts) == batch_size or self._bytes > full:
                    given = self._count(texts)
                    yield texts, given
                    texts, full = [], self._bytes + BATCH_BYTES
        except Exception:
            if texts:
                yield texts, self._count(texts)
            raise
        if (last := self._count(texts)) != given:
            yield texts, last

    def _count(self, texts: list[str | None]) -> Position:
        nulls = texts.count(None) if self.on_error == "null" else 0  # 20 ns a text, a twentieth of reading it
        self._done = self._done._replace(records=self._done.records + len(texts) - nulls)
        return self.position()

    def _records(self) -> Iterator[str | None]:
        next_text = self._next_text
        while True:
            try:
                text = next_text()
            except MalformedRecord as error:
                if self.on_error == "stop":
                    raise
                self._leave_out(error)
                if self.on_error == "null":
                    yield None
                continue
            if text is None:
                return
            self._give_out()
            yield text

    def _give_out(self) -> None:
        self._given_out = len(self._lines)
        if self._replaced:
            self._done = self._done._replace(num_replaced=self._done.num_replaced + self._replaced)
            self._replaced = 0

    def _leave_out(self, error: MalformedRecord) -> None:
        part, self._replaced = self._lines[-1], 0
        self._count_blank()
        self._done = self._done._replace(num_malformed=self._done.num_malformed + 1,
                                         first_malformed=self._done.first_malformed or str(error))
        while len(part) > MAX_LINE_BYTES and not part.endswith(b"\n"):  # skip the rest of a line that is too long
            self.position()
            part = self.stream.readline(MAX_LINE_BYTES + 1)
            self._digest.update(part)
            self._done = self._done._replace(input_bytes=self._done.input_bytes + len(part))

    def _count_blank(self) -> None:
        """Count the lines just read, which gave no text, as done, and do not keep many of them in memory."""
        self._give_out()
        if len(self._lines) > 1 << 14 or self._bytes - self._bytes_hashed > BATCH_BYTES:
            self.position()

    def _malformed(self, what: str) -> MalformedRecord:
        return MalformedRecord(f"{self.name}, line {self._done.lines + len(self._lines)}: {what}")

    def _line(self) -> str | None:
        """The next line with its end, decoded; None at the end of the input."""
        line = self._put_back.popleft() if self._put_back else self.stream.readline(MAX_LINE_BYTES + 1)
        if not line:
            return None
        size = len(line)
        self._lines.append(line)
        self._bytes += size
        if size > MAX_LINE_BYTES:
            raise self._malformed(f"longer than {MAX_LINE_BYTES >> 20} MiB, split it into several texts.")
        if self._at_start:
            line, self._at_start = line.removeprefix(BOM_UTF8), False
        try:
            return line.decode()
        except UnicodeDecodeError:
            # surrogateescape turns each bad byte into a lone surrogate, which valid UTF-8 never holds.
            text, count = re.subn("[\udc80-\udcff]", "\ufffd", line.decode(errors="surrogateescape"))
            self._replaced += count
            return text

    def _next_line(self) -> str | None:
        line = self._line()
        return None if line is None else line.rstrip("\r\n")

    # ---- tables ------------------------------------------------------------------------------------------------------

    def _read_header(self, next_row: Callable[[], list[str] | None]) -> tuple[int, int]:
        """The index of the column, and the number of columns."""
        header = next_row() or []
        self._give_out()
        if self.column not in header:
            there = f"the columns are {', '.join(header)}" if header else "the file has no header line"
            raise ValueError(f"column is {self.column!r}, which {self.name} does not have: {there}.")
        if header.count(self.column) > 1:
            raise ValueError(f"column is {self.column!r}, which {self.name} has {header.count(self.column)} times: "
                             "rename the others.")
        return header.index(self.column), len(header)

    def _next_of_csv(self) -> str | None:
        return self._cell(self._csv_row(), "quote a text that holds a comma or a line end")

    def _next_of_tsv(self) -> str | None:
        return self._cell(self._tsv_row(), "take tabs and line ends out of the texts")

    def _cell(self, row: list[str] | None, remedy: str) -> str | None:
        if row is None:
            return None
        if len(row) <= self._index:
            raise self._malformed(f"column {self.column!r} is missing, {len(row)} columns for the header's "
                                  f"{self._width}, {remedy}.")
        if len(row) != self._width:
            raise self._malformed(f"{len(row)} columns for the header's {self._width}, {remedy}.")
        return row[self._index]

    def _tsv_row(self) -> list[str] | None:
        while (line := self._line()) is not None:
            if fields := line.rstrip("\r\n"):
                return fields.split("\t")
            self._count_blank()
        return None

    def _read_csv(self) -> Iterator[list[str]]:
        return csv.reader(iter(self._line, None), strict=True)

    def _csv_row(self) -> list[str] | None:
        try:
            while (row := next(self._csv_rows, None)) == []:
                self._count_blank()
            return row
        except csv.Error as error:
            lines = len(self._lines) - self._given_out
            where = f" in the record that begins {lines - 1} lines above" if lines > 1 else ""
            malformed = self._malformed(f"not valid CSV ({error}{where}), mend the quotes or pass input_format.")
        except MalformedRecord as error:
            malformed = error
        if self.on_error != "stop":
            # A stray quote makes one record of all lines that follow, so only the first of them is left out.
            self._put_back.extendleft(reversed(self._lines[self._given_out + 1:]))
            del self._lines[self._given_out + 1:]
            self._csv_rows = self._read_csv()  # because a csv reader that has raised or ended reads no more
        raise malformed

    # ---- JSON Lines --------------------------------------------------------------------------------------------------

    def _next_of_jsonl(self) -> str | None:
        while (line := self._line()) is not None:
            if not line.isspace():
                return self._text_of(line)
            self._count_blank()
        return None

    def _text_of(self, line: str) -> str:
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise self._malformed(f"not valid JSON ({error.msg} at character {error.pos + 1}), every line must be one "
                                  "object.") from None
        except (ValueError, RecursionError) as error:  # such as a number of 5000 digits, or brackets nested 1000 deep
            raise self._malformed(f"not readable as JSON ({error}), every line must be one object.") from None
        if not isinstance(record, dict):
            raise self._malformed(f"a JSON {type(record).__name__}, every line must be one object.")
        text = record.get(self.column)
        if not isinstance(text, str):
            raise self._malformed(f"column {self.column!r} is {text!r:.60}, not a string; the object has "
                                  f"{', '.join(record) or 'no columns'}.")
        if "\\ud" in line.lower():
            whole = without_surrogates(text)
            self._replaced += whole.count("\ufffd") - text.count("\ufffd")
            return whole
        return text

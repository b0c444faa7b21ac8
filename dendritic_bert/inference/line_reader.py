"""Reads the records of lines, CSV, TSV and JSON Lines, in batches, with the position in the input after each batch."""

from __future__ import annotations

import csv
import json
import re
from codecs import BOM_UTF8
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any, BinaryIO

from .records import BATCH_BYTES, MAX_LINE_BYTES, MalformedRecord, Position, RecordBatch, check_columns
from .texts import without_surrogates

END = object()  # what is read behind the last record


class LineReader:
    """The records of a stream of UTF-8, in batches.

    Lines end in LF or CRLF. "text" has one text per line, and an empty line is an empty text. "csv" is RFC 4180 with a
    header line, and with ``delimiter`` between the fields. "tsv" has a header line and no quoting. "jsonl" has one
    object per line. In the last three a blank line is not a record. Bytes that are not UTF-8, and lone surrogates in
    JSON escapes, become U+FFFD and are counted.

    A record is malformed if its width is not that of the header, if its line is not JSON or too long, or if its text is
    missing or null. Then ``on_error`` "stop" raises MalformedRecord, which names the line; "skip" leaves the record
    out; "null" gives None for its text, and for all that could not be read of it.

    ``done`` and ``digest`` are position and digest of the inputs before this one.
    """

    def __init__(self, stream: BinaryIO, name: str, input_format: str, *, on_error: str, delimiter: str,
                 done: Position, digest: Any):
        self.stream, self.name, self.on_error = stream, name, on_error
        self._done = done  # its digest is brought up to date by position()
        self._digest = digest
        self._lines: list[bytes] = []  # the lines read since the digest was brought up to date
        self._given_out = 0  # how many of them belong to records that were given out; the rest is being read
        self._bytes = self._bytes_hashed = 0  # size of all lines read, and of those in the digest
        self._replaced = 0  # replaced bytes of the record that is being read
        self._nulls = 0  # malformed records among those of the batch
        self._ends: list[int] = []  # for each record of the batch, len(self._lines) behind it
        self._line_numbers: list[int] = []  # those that were among _ends before the digest was brought up to date
        self._at_start = True
        self._put_back: deque[bytes] = deque()
        self._delimiter = {"csv": delimiter, "tsv": "\t"}.get(input_format)
        self._next_record = {"text": self._next_line, "csv": self._next_of_csv, "tsv": self._next_of_tsv,
                             "jsonl": self._next_of_jsonl}[input_format]
        self._columns: list[str] = []
        self._num_texts = 0  # how many of the columns, the first of them, must hold strings
        self._width = 0
        # The cells of the selected columns in a record: a single one as it is, several as a tuple. Records are not kept
        # as lists, which the garbage collector would look through again and again (250 ns a record).
        self._pick: Callable[[Any], Any] = _pick_none
        self._null: Any = ()  # the same of a record of which nothing could be read
        self._header: list[str] | None = ["text"] if input_format == "text" else None
        if self._delimiter:
            csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))  # the module's default is 128 KiB
            self._csv_rows = self._read_csv()
            self._header = (self._csv_row() if input_format == "csv" else self._tsv_row()) or []
            self._width = len(self._header)
            self._give_out()

    @property
    def names(self) -> list[str]:
        """The names of the columns; those of JSON Lines are the keys of the first object."""
        if self._header is None:
            self._header = self._peek_at_keys()
        return self._header

    def select(self, columns: Sequence[str], text_columns: Sequence[str] = ()) -> None:
        """Say which columns the batches are to have, and which of them must hold strings.

        Raises ValueError for a column that a table does not have. Objects of JSON may lack a column, which is null.
        """
        self._columns, self._num_texts = list(dict.fromkeys([*text_columns, *columns])), len({*text_columns})
        if self._next_record == self._next_of_jsonl:
            indices = list(range(len(self._columns)))
        else:
            check_columns(self.names, self._columns, self.name, self._delimiter)
            indices = [self.names.index(column) for column in self._columns]
        self._pick = itemgetter(*indices) if indices else _pick_none
        self._null = self._pick([None] * (max(indices, default=0) + 1))

    def position(self) -> Position:
        """The position after the last record that was given out, or after the header."""
        if self._ends:
            before = self._done.lines
            self._line_numbers += [before + end for end in self._ends]
            self._ends.clear()
        lines = b"".join(self._lines[:self._given_out])
        self._digest.update(lines)
        self._done = self._done._replace(
            lines=self._done.lines + self._given_out, input_bytes=self._done.input_bytes + len(lines),
            input_sha256=self._digest.hexdigest())
        del self._lines[:self._given_out]
        self._given_out = 0
        self._bytes_hashed = self._bytes
        return self._done

    def start_from(self, done: Position, digest: Any) -> None:
        """Take position and digest of the inputs before this one, of which nothing but the header was read."""
        self._done, self._digest = done, digest

    def go_to(self, done: Position) -> bool:
        """Move a stream that can be read again to ``done``; False if the bytes before it have changed since."""
        self.stream.seek(0)
        self._lines.clear()
        self._put_back.clear()
        self._given_out, self._at_start = 0, not done.lines
        left = done.input_bytes
        while left and (block := self.stream.read(min(left, BATCH_BYTES))):
            self._digest.update(block)
            left -= len(block)
        self._done = done
        return not left and self._digest.hexdigest() == done.input_sha256

    def batches(self, batch_size: int) -> Iterator[RecordBatch]:
        """Batches of up to ``batch_size`` records or about ``BATCH_BYTES``, each with the position after it.

        Before an error is raised, the records before it are given out. After the last record comes a batch without
        any, if lines followed that belong to none.
        """
        next_record, lines, ends = self._next_record, self._lines, self._ends  # looked up once: 30 ns each a record
        records: list[Any] = []
        given, full = self.position(), self._bytes + BATCH_BYTES
        while True:
            try:
                record = next_record()
                if record is END:
                    break
                self._given_out = end = len(lines)
                if self._replaced:
                    self._give_out()
            except MalformedRecord as error:
                if self.on_error == "stop":
                    if records:
                        yield self._batch(records)
                    raise
                self._leave_out(error)
                if self.on_error == "skip":
                    continue
                record = self._null if error.cells is None else self._pick(error.cells)
                end = self._given_out
                self._nulls += 1
            except Exception:
                if records:
                    yield self._batch(records)
                raise
            records.append(record)
            ends.append(end)
            if len(records) == batch_size or self._bytes > full:
                batch = self._batch(records)
                given = batch.position
                yield batch
                records, full = [], self._bytes + BATCH_BYTES
        last = self._batch(records)
        if last.position != given:
            yield last

    def _batch(self, records: list[Any]) -> RecordBatch:
        self._done = self._done._replace(records=self._done.records + len(records) - self._nulls)
        is_single = len(self._columns) == 1 or not records
        columns = dict(zip(self._columns, [records] * len(self._columns) if is_single else map(list, zip(*records))))
        self._nulls = 0
        position, numbers = self.position(), self._line_numbers
        self._line_numbers = []
        is_whole = numbers and numbers[-1] - numbers[0] == len(numbers) - 1  # no blank lines, none of several lines
        return RecordBatch(columns, position, self.name,
                           range(numbers[0], numbers[-1] + 1) if is_whole else numbers)

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

    def _malformed(self, what: str, cells: list[Any] | None = None) -> MalformedRecord:
        return MalformedRecord(f"{self.name}, line {self._done.lines + len(self._lines)}: {what}", cells)

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

    def _next_line(self) -> Any:
        line = self._line()
        return END if line is None else line.rstrip("\r\n")

    # ---- tables ------------------------------------------------------------------------------------------------------

    def _next_of_csv(self) -> Any:
        row = self._csv_row()
        if row is None:
            return END
        if len(row) == self._width:
            return self._pick(row)
        raise self._wrong_width(row, "quote a text that holds a comma or a line end")

    def _next_of_tsv(self) -> Any:
        row = self._tsv_row()
        if row is None:
            return END
        if len(row) == self._width:
            return self._pick(row)
        raise self._wrong_width(row, "take tabs and line ends out of the texts")

    def _wrong_width(self, row: list[str], remedy: str) -> MalformedRecord:
        missing = next((f"column {column!r} is missing, " for column in self._columns
                        if self.names.index(column) >= len(row)), "")
        return self._malformed(f"{missing}{len(row)} columns for the header's {self._width}, {remedy}.")

    def _tsv_row(self) -> list[str] | None:
        while (line := self._line()) is not None:
            if fields := line.rstrip("\r\n"):
                return fields.split("\t")
            self._count_blank()
        return None

    def _read_csv(self) -> Iterator[list[str]]:
        # pyarrow's reader takes a quarter of the time, but takes `"a"b` for ab, and what follows a quote that is never
        # closed for one field: it would give out other records, without an error.
        return csv.reader(iter(self._line, None), delimiter=self._delimiter or ",", strict=True)

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

    def _peek_at_keys(self) -> list[str]:
        """The keys of the first object, whose line is put back; [] if it is none, or behind too many blank lines."""
        lines, line, left = [], b"", BATCH_BYTES
        while left > 0 and not line.strip() and (line := self.stream.readline(MAX_LINE_BYTES + 1)):
            lines.append(line)
            left -= len(line)
        self._put_back.extend(lines)
        try:
            record = json.loads(line.removeprefix(BOM_UTF8).decode(errors="replace"))
        except (ValueError, RecursionError):
            return []
        return list(record) if isinstance(record, dict) else []

    def _next_of_jsonl(self) -> Any:
        while (line := self._line()) is not None:
            if not line.isspace():
                return self._pick(self._cells_of(line))
            self._count_blank()
        return END

    def _cells_of(self, line: str) -> list[Any]:
        try:
            record = _from_json(line)
        except json.JSONDecodeError as error:
            raise self._malformed(f"not valid JSON ({error.msg} at character {error.pos + 1}), every line must be one "
                                  "object.") from None
        except (ValueError, RecursionError) as error:  # such as a number of 5000 digits, or brackets nested 1000 deep
            raise self._malformed(f"not readable as JSON ({error}), every line must be one object.") from None
        if not isinstance(record, dict):
            raise self._malformed(f"a JSON {type(record).__name__}, every line must be one object.")
        cells = list(map(record.get, self._columns))
        if "\\ud" in line.lower():
            cells = [self._whole(cell) for cell in cells]
        for text in cells[:self._num_texts]:
            if not isinstance(text, str):
                raise self._no_string(record, cells)
        return cells

    def _no_string(self, record: dict[str, Any], cells: list[Any]) -> MalformedRecord:
        number = self._num_texts
        column, text = next(pair for pair in zip(self._columns, cells) if not isinstance(pair[1], str))
        return self._malformed(f"column {column!r} is {text!r:.60}, not a string; the object has "
                               f"{', '.join(record) or 'no columns'}.", [None] * number + cells[number:])

    def _whole(self, cell: Any) -> Any:
        """A value without lone surrogates, which are replaced and counted."""
        if not isinstance(cell, str):
            return json.loads(without_surrogates(json.dumps(cell, ensure_ascii=False)))
        whole = without_surrogates(cell)
        self._replaced += whole.count("\ufffd") - cell.count("\ufffd")
        return whole


def _from_json(line: str) -> Any:
    """What json.loads makes of a line, and its errors; without looking for white space, a fifth of the time."""
    try:
        record, end = _DECODE(line)
        if line[end:] in ("\n", "\r\n", ""):
            return record
    except ValueError:
        pass
    return json.loads(line)


_DECODE = json.JSONDecoder().raw_decode


def _pick_none(record: Any) -> tuple[()]:
    return ()

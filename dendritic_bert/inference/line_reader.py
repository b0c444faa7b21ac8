"""Reads the records of lines, CSV, TSV and JSON Lines, in batches, with the position in the input after each batch.

``RecordScanner`` in C++ reads the records that are plain, a block of bytes at a time. All others, and every record
where it is not built, are read here one by one.
"""

from __future__ import annotations

import csv
import json
import re
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from .line_blocks import LineBlocks
from .record_collector import RecordCollector
from .records import BATCH_BYTES, MAX_LINE_BYTES, MalformedRecord, Position, RecordBatch, check_columns
from .texts import without_surrogates

NAMED_DELIMITER = rb"(?:\xef\xbb\xbf)?sep=([ -!#-~\t])[\r\n]*"  # the whole first line
END = object()  # what is read behind the last record


class LineReader:
    """The records of a stream of UTF-8, in batches.

    Lines end in LF or CRLF. "text" has one text per line, and an empty line is an empty text. "csv" is RFC 4180 with a
    header line, and with ``delimiter`` between the fields, or what a line such as sep=; before the header names, which
    Excel reads, too. "tsv" has a header line and no quoting. "jsonl" has one
    object per line. In the last three a blank line is not a record. Bytes that are not UTF-8, and lone surrogates in
    JSON escapes, become U+FFFD and are counted.

    A record is malformed if its width is not that of the header, if its line is not JSON or too long, or if its text is
    missing or null. Then ``on_error`` "stop" raises MalformedRecord, which names the line; "skip" leaves the record
    out; "null" gives None for its text, and for all that could not be read of it.

    ``done`` and ``digest`` are position and digest of the inputs before this one. The columns of JSON Lines are the
    keys of the first ``num_keyed`` objects.
    """

    def __init__(self, stream: BinaryIO, name: str, input_format: str, *, on_error: str, delimiter: str,
                 done: Position, digest: Any, num_keyed: int = 1):
        self.stream, self.name, self.on_error, self._num_keyed = stream, name, on_error, num_keyed
        self._format = input_format
        self._blocks = LineBlocks(stream, BATCH_BYTES, MAX_LINE_BYTES)
        self._done = done  # position() brings its lines, bytes and digest up to date
        self._digest = digest
        self._num_lines, self._num_bytes = done.lines, done.input_bytes  # those that were given out
        self._given_out: list[bytes] = []  # the last of those lines, which are not in the digest yet
        self._lines: list[bytes] = []  # those of the record that is being read, or that could not be read
        self._replaced = 0  # replaced bytes of the record that is being read
        self._nulls = 0  # malformed records among those of the batch
        self._at_start = True
        self._delimiter = {"csv": delimiter, "tsv": "\t"}.get(input_format)
        self._columns: list[str] = []
        self._num_texts = 0  # how many of the columns, the first of them, must hold strings
        self._fields: list[int] = []  # the columns as numbers of fields
        self._width = 0
        self._header: list[str] | None = ["text"] if input_format == "text" else None
        if self._delimiter:
            csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))  # the module's default is 128 KiB
            self._csv_rows = self._read_csv()
            self._header = (self._csv_row() if input_format == "csv" else self._tsv_row()) or []
            if input_format == "csv" and (named := re.fullmatch(NAMED_DELIMITER, b"".join(self._lines))):
                self._delimiter = named[1].decode()
                self._give_out()
                self._csv_rows = self._read_csv()
                self._header = self._csv_row() or []
            self._width = len(self._header)
            self._give_out()
        self._header_lines = self._num_lines - done.lines
        self._header_replaced = self._done.num_replaced - done.num_replaced

    @property
    def names(self) -> list[str]:
        """The names of the columns; those of JSON Lines are the keys of the first objects."""
        if self._header is None:
            self._header = self._peek_at_keys()
        return self._header

    def select(self, columns: Sequence[str], text_columns: Sequence[str] = ()) -> None:
        """Say which columns the batches are to have, and which of them must hold strings.

        Raises ValueError for a column that a table does not have. Objects of JSON may lack a column, which is null.
        """
        self._columns, self._num_texts = list(dict.fromkeys([*text_columns, *columns])), len({*text_columns})
        if self._format != "jsonl":
            check_columns(self.names, self._columns, self.name, self._delimiter)
            self._fields = [self.names.index(column) for column in self._columns]

    def position(self) -> Position:
        """The position after the last record that was given out, or after the header."""
        self._hash_lines()
        self._done = self._done._replace(lines=self._num_lines, input_bytes=self._num_bytes,
                                         input_sha256=self._digest.hexdigest())
        return self._done

    def start_from(self, done: Position, digest: Any) -> None:
        """Take position and digest of the inputs before this one, of which nothing but the header was read."""
        self._digest = digest
        self._done = done._replace(num_replaced=done.num_replaced + self._header_replaced)
        self._num_lines = done.lines + len(self._given_out)
        self._num_bytes = done.input_bytes + sum(map(len, self._given_out))

    def go_to(self, done: Position) -> bool:
        """Move a stream that can be read again to ``done``; False if the bytes before it have changed since."""
        self.stream.seek(0)
        self._blocks = LineBlocks(self.stream, BATCH_BYTES, MAX_LINE_BYTES)
        self._lines.clear()
        self._given_out.clear()
        self._at_start = not done.lines
        self._header_replaced = 0  # they are counted in the position
        left = done.input_bytes
        while left and (block := self.stream.read(min(left, BATCH_BYTES))):
            self._digest.update(block)
            left -= len(block)
        self.start_from(done, self._digest)
        return not left and self._digest.hexdigest() == done.input_sha256

    def batches(self, batch_size: int) -> Iterator[RecordBatch]:
        """Batches of up to ``batch_size`` records or about ``BATCH_BYTES``, each with the position after it.

        Before an error is raised, the records before it are given out. After the last record comes a batch without
        any, if lines followed that belong to none.
        """
        collector = RecordCollector(self._format, self._columns, self._num_texts, self._fields, self._width,
                                    self._delimiter or ",", MAX_LINE_BYTES)
        given, is_end, error = self.position(), False, None
        while not is_end and error is None:
            try:
                is_end = self._collect(collector, batch_size)
            except Exception as raised:
                error = raised
            if len(collector) or (is_end and self.position() != given):
                batch = self._batch(collector)
                given = batch.position
                yield batch
                del batch  # before the next one is in memory
        if error is not None:
            raise error

    def _collect(self, collector: RecordCollector, batch_size: int) -> bool:
        """Collect the records of a batch; True if they are the last."""
        full = self._num_bytes + BATCH_BYTES
        while len(collector) < batch_size and self._num_bytes <= full:
            if not self._scan(collector, batch_size, full):
                continue
            try:
                record = _NEXT_RECORD[self._format](self)
                if record is END:
                    return True
                self._give_out()
            except MalformedRecord as error:
                if self.on_error == "stop":
                    raise
                self._leave_out(error)
                if self.on_error == "skip":
                    continue
                record = error.cells or [None] * len(self._columns)
                self._nulls += 1
            collector.append(record, self._num_lines)
        return False

    def _scan(self, collector: RecordCollector, most_records: int, full: int) -> bool:
        """Collect the plain records that follow; True if the next one, or the end, is to be read one by one."""
        self._hash_lines()
        blocks = self._blocks
        if self._at_start:
            if not blocks.block:
                blocks.fill()
            self._at_start = blocks.block.startswith(BOM_UTF8, blocks.place)
            if self._at_start:
                return True
        while True:
            first = blocks.place
            end, num_lines, stop = collector.scan(blocks.block, first, self._num_lines, most_records,
                                                  full + 1 - self._num_bytes)
            self._digest.update(memoryview(blocks.block)[first:end])
            self._num_lines += num_lines
            self._num_bytes += end - first
            blocks.go_to(end)
            if stop != "more":
                return stop == "odd"
            if not blocks.fill():
                return True

    def _batch(self, collector: RecordCollector) -> RecordBatch:
        self._done = self._done._replace(records=self._done.records + len(collector) - self._nulls)
        self._nulls = 0
        arrays, columns, lines = collector.take()
        return RecordBatch(columns, self.position(), self.name, lines, "line", arrays)

    def _give_out(self) -> None:
        """Count the lines just read, those of a record or those that gave none, as done."""
        self._num_lines += len(self._lines)
        self._num_bytes += sum(map(len, self._lines))
        self._given_out += self._lines
        self._lines.clear()
        if self._replaced:
            self._done = self._done._replace(num_replaced=self._done.num_replaced + self._replaced)
            self._replaced = 0
        if len(self._given_out) > 1 << 14:  # blank lines, of which not many are to be in memory
            self._hash_lines()

    def _hash_lines(self) -> None:
        self._digest.update(b"".join(self._given_out))
        self._given_out.clear()

    def _leave_out(self, error: MalformedRecord) -> None:
        part, self._replaced = self._lines[-1], 0
        self._give_out()
        self._done = self._done._replace(num_malformed=self._done.num_malformed + 1,
                                         first_malformed=self._done.first_malformed or str(error))
        while len(part) > MAX_LINE_BYTES and not part.endswith(b"\n"):  # skip the rest of a line that is too long
            self._hash_lines()
            part = self._blocks.readline()
            self._digest.update(part)
            self._num_bytes += len(part)

    def _malformed(self, what: str, cells: list[Any] | None = None) -> MalformedRecord:
        return MalformedRecord(f"{self.name}, line {self._num_lines + len(self._lines)}: {what}", cells)

    def _line(self) -> str | None:
        """The next line with its end, decoded; None at the end of the input."""
        line = self._blocks.readline()
        if not line:
            return None
        self._lines.append(line)
        if len(line) > MAX_LINE_BYTES:
            raise self._malformed(f"longer than {MAX_LINE_BYTES >> 20} MiB, split it into several texts.")
        if self._at_start:
            line, self._at_start = line.removeprefix(BOM_UTF8), False
            if not line:  # the mark is all that there is
                self._give_out()
                return None
        try:
            return line.decode()
        except UnicodeDecodeError:
            # surrogateescape turns each bad byte into a lone surrogate, which valid UTF-8 never holds.
            text, count = re.subn("[\udc80-\udcff]", "\ufffd", line.decode(errors="surrogateescape"))
            self._replaced += count
            return text

    def _next_line(self) -> Any:
        line = self._line()
        return END if line is None else [line.rstrip("\r\n")] * len(self._columns)

    # ---- tables ------------------------------------------------------------------------------------------------------

    def _next_of_csv(self) -> Any:
        row = self._csv_row()
        if row is None:
            return END
        if len(row) == self._width:
            return [row[field] for field in self._fields]
        raise self._wrong_width(row, "quote a text that holds a comma or a line end",
                                "quote a text that holds a line end")

    def _next_of_tsv(self) -> Any:
        row = self._tsv_row()
        if row is None:
            return END
        if len(row) == self._width:
            return [row[field] for field in self._fields]
        raise self._wrong_width(row, "take tabs and line ends out of the texts", "take line ends out of the texts")

    def _wrong_width(self, row: list[str], if_long: str, if_short: str) -> MalformedRecord:
        missing = next((f"column {column!r} is missing, " for column in self._columns
                        if self.names.index(column) >= len(row)), "")
        remedy = if_long
        if len(row) < self._width:
            remedy = f"add the fields that are missing, be they empty, or {if_short}"
        elif len(row) == self._width + 1 and self._num_lines == self._header_lines:  # the first record
            remedy = ("if the header lacks a name for the first column, as R's write.table leaves it out, write the "
                      f"file with col.names=NA or row.names=FALSE; else {if_long}")
        return self._malformed(f"{missing}{len(row)} columns for the header's {self._width}, {remedy}.")

    def _tsv_row(self) -> list[str] | None:
        while (line := self._line()) is not None:
            if fields := line.rstrip("\r\n"):
                return fields.split("\t")
            self._give_out()
        return None

    def _read_csv(self) -> Iterator[list[str]]:
        # pyarrow's reader takes a quarter of the time, but takes `"a"b` for ab, and what follows a quote that is never
        # closed for one field: it would give out other records, without an error.
        return csv.reader(iter(self._line, None), delimiter=self._delimiter or ",", strict=True)

    def _csv_row(self) -> list[str] | None:
        try:
            while (row := next(self._csv_rows, None)) == []:
                self._give_out()
            return row
        except csv.Error as error:
            lines = len(self._lines)
            where = f" in the record that begins {lines - 1} lines above" if lines > 1 else ""
            malformed = self._malformed(
                "lines end in CR alone, save the table with LF or CRLF." if "universal-newline" in str(error) else
                f"not valid CSV ({error}{where}), mend the quotes or pass input_format.")
        except MalformedRecord as error:
            malformed = error
        if self.on_error != "stop":
            # A stray quote makes one record of all lines that follow, so only the first of them is left out.
            self._blocks.put_back(b"".join(self._lines[1:]))
            del self._lines[1:]
            self._csv_rows = self._read_csv()  # because a csv reader that has raised or ended reads no more
        raise malformed

    # ---- JSON Lines --------------------------------------------------------------------------------------------------

    def _peek_at_keys(self) -> list[str]:
        """The keys of the first objects, whose lines are put back; [] if there is none in the first lines."""
        lines: list[bytes] = []
        keys: dict[str, None] = {}
        num_peeked, left = 0, BATCH_BYTES
        while left > 0 and num_peeked < self._num_keyed and (line := self._blocks.readline()):
            lines.append(line)
            left -= len(line)
            num_peeked += not line.isspace()
            keys.update(dict.fromkeys(keys_of(line)))
        self._blocks.put_back(b"".join(lines))
        return list(keys)

    def _next_of_jsonl(self) -> Any:
        while (line := self._line()) is not None:
            if not line.isspace():
                return self._with_json(self._cells_of(line))
            self._give_out()
        return END

    def _cells_of(self, line: str) -> list[Any]:
        try:
            record = json.loads(line)
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
            for name in record.keys() & self._columns[self._num_texts:]:
                self._whole(name)  # counted here, replaced where it is written
        for text in cells[:self._num_texts]:
            if not isinstance(text, str):
                raise self._no_string(record, cells)
        return cells

    def _no_string(self, record: dict[str, Any], cells: list[Any]) -> MalformedRecord:
        number = self._num_texts
        column, text = next(pair for pair in zip(self._columns, cells) if not isinstance(pair[1], str))
        known = self._with_json([None] * number + cells[number:])
        return self._malformed(f"column {column!r} is {text!r:.60}, not a string; the object has "
                               f"{', '.join(record) or 'no columns'}.", known)

    def _with_json(self, cells: list[Any]) -> list[str]:
        """The cells, with the JSON of those that need not be texts."""
        return [*cells[:self._num_texts], *map(json.dumps, cells[self._num_texts:])]

    def _whole(self, cell: Any) -> Any:
        """A value without lone surrogates, which are replaced and counted."""
        text = cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False)
        whole = without_surrogates(text)
        self._replaced += whole.count("\ufffd") - text.count("\ufffd")
        return whole if isinstance(cell, str) else json.loads(whole)


def keys_of(line: bytes) -> list[str]:
    """The keys of the object that a line of JSON is; [] if it is none."""
    try:
        record = json.loads(line.removeprefix(BOM_UTF8).decode(errors="replace"))
    except (ValueError, RecursionError):
        return []
    return list(record) if isinstance(record, dict) else []


# No reader keeps its own: it would refer to itself, and hold its block of up to 64 MiB until the garbage is collected.
_NEXT_RECORD = {"text": LineReader._next_line, "csv": LineReader._next_of_csv, "tsv": LineReader._next_of_tsv,
                "jsonl": LineReader._next_of_jsonl}

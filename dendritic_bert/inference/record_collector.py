"""The records of a batch as columns: those that C++ has scanned, and between them those that Python has read."""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from functools import partial
from typing import Any

from .files_extension import files
from .records import LazyColumns


class RecordCollector:
    """Collects the records of one batch after another, for a ``LineReader`` of the same format and columns.

    ``columns`` are its columns, the first ``num_texts`` of which hold texts, and ``fields`` their numbers among the
    ``width`` fields of a record. ``longest`` is the number of bytes that a record may have for C++ to read it.

    scan(block, place, num_lines, most_records, most_bytes) collects the plain records of ``block`` from ``place`` on,
    before which ``num_lines`` were read. It gives the place behind them, how many lines they have, and why it stopped:
    "full", "more" if the block ends within a record, "odd" if the next record is for Python to read.
    append(cells, line) collects that one: a str or None for each column, and the number of its last line. Of JSON, the
    cells of columns that need not be texts are the JSON of their values.
    """

    def __init__(self, format: str, columns: Sequence[str], num_texts: int, fields: Sequence[int], width: int,
                 delimiter: str, longest: int):
        self._columns, self._num_texts = columns, num_texts if format == "jsonl" else len(columns)
        self._records = _scanner(format, columns, num_texts, fields, width, delimiter, longest)
        self.scan, self.append = self._records.scan, self._records.append

    def __len__(self) -> int:
        return len(self._records)

    def take(self) -> tuple[dict[str, Any], LazyColumns, Sequence[int]]:
        """The columns of texts, all columns as lists, and the number of each record's last line; forgets them all."""
        taken, numbers = self._records.take()
        lines = array("q")
        lines.frombytes(numbers)
        is_whole = lines and lines[-1] - lines[0] == len(lines) - 1  # no blank lines, none of several lines
        texts = dict(zip(self._columns[:self._num_texts], taken))
        values = dict(zip(self._columns[self._num_texts:], taken[self._num_texts:]))
        return texts, LazyColumns({name: partial(list, column) for name, column in texts.items()} |
                                  {name: partial(_from_json, column) for name, column in values.items()}), (
            range(lines[0], lines[-1] + 1) if is_whole else lines)


class _OneByOne:
    """What ``RecordScanner`` is where it is not built: it scans nothing, and all records are appended."""

    def __init__(self, num_columns: int):
        self._num_columns = num_columns
        self._clear()

    def _clear(self) -> None:
        self._columns: list[list[str | None]] = [[] for _ in range(self._num_columns)]
        self._lines = array("q")

    def __len__(self) -> int:
        return len(self._lines)

    def scan(self, block: bytes, place: int, *limits: int) -> tuple[int, int, str]:
        return place, 0, "odd"

    def append(self, cells: Sequence[str | None], line: int) -> None:
        for column, cell in zip(self._columns, cells):
            column.append(cell)
        self._lines.append(line)

    def take(self) -> tuple[list[list[str | None]], bytes]:
        taken = self._columns, self._lines.tobytes()
        self._clear()
        return taken


def _scanner(format: str, columns: Sequence[str], num_texts: int, fields: Sequence[int], width: int, delimiter: str,
             longest: int) -> Any:
    if files is None or not delimiter.isascii():
        return _OneByOne(len(columns))
    try:
        return files.RecordScanner(format, delimiter, width, tuple(fields or columns), num_texts, longest)
    except UnicodeEncodeError:  # a name with a lone surrogate, which is no key of JSON in UTF-8
        return _OneByOne(len(columns))


def _from_json(column: Any) -> list[Any]:
    """The values of a column of JSON, None for null; all at once, which takes a third of the time."""
    return json.loads(f"[{','.join('null' if value is None else value for value in column)}]")

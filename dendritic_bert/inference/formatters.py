"""Rows of results as lines of JSON, CSV or TSV, or as messages of an Arrow stream."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from json.encoder import encode_basestring
from typing import Any, NamedTuple

import numpy as np

from .file_formats import TABLE_FORMATS
from .files_extension import files
from .texts import without_surrogates

Quote = Callable[[str], str]
Write = Callable[[bytes], None]


class Column(NamedTuple):
    """A column of the output.

    kind: what its cells are: "text", a list of str or an array of strings of ``TextColumn`` or pyarrow; "label",
    ``Labels``; "score", ``[B]`` float32, NaN for null (six decimals; float32 in a table); or "value", as "text" or a
    list of any values of JSON or Arrow. Each may be None, for null. type: pyarrow's type of a "value", None for text: a
    str as it is, and JSON of any other value.
    """

    name: str
    kind: str
    type: Any = None


class Labels(NamedTuple):
    """The labels of B rows. numbers: ``[B]`` int32, each the index of one of ``names``, or -1 for null."""

    numbers: np.ndarray
    names: Sequence[str]


def open_formatter(format: str, columns: Sequence[Column]) -> LineFormatter | ArrowFormatter:
    """The formatter of a format of output; a table is a stream of Arrow until it is finished.

    Lone surrogates in the names of columns, as keys of JSON may have them, become U+FFFD.
    """
    columns = [column._replace(name=without_surrogates(column.name)) for column in columns]
    return ArrowFormatter(columns) if format in TABLE_FORMATS else LineFormatter(format, columns)


class LineFormatter:
    """Rows as lines of UTF-8; ``format`` is "json", "csv" or "tsv".

    Null is null in JSON and an empty field elsewhere. In CSV a text is always quoted, and another field if it must be,
    or if it is an empty string. In TSV nothing is quoted, and a tab or line end becomes a space.
    """

    def __init__(self, format: str, columns: Sequence[Column]):
        self._quote_text, self._quote, delimiter, self._null = _LINES[format]
        self._format, self._kinds = format, [column.kind for column in columns]
        names = [self._quote(column.name) for column in columns]
        self.header = b"" if format == "json" else f"{delimiter.join(names)}\n".encode()
        keys = [f"{name}: " if format == "json" else "" for name in names]
        first, self._row_end = ("{", "}\n") if format == "json" else ("", "\n")
        self._before = [f"{delimiter if number else first}{key}" for number, key in enumerate(keys)]

    def rows(self, values: Sequence[Any], write: Write | None = None) -> bytes:
        """The lines of some rows; ``values`` has the cells of each column.

        Of lines that take more than a MiB the first may go to ``write``, if it is given, in parts; the others follow.
        """
        if files is None:
            row = "".join(f"{before.replace('%', '%%')}%s" for before in self._before) + self._row_end
            return "".join(map(row.__mod__, zip(*map(self._fields, self._kinds, values)))).encode()
        columns = [(before, *self._native(kind, cells)) for before, kind, cells in
                   zip(self._before, self._kinds, values)]
        first = values[0].numbers if isinstance(values[0], Labels) else values[0]
        return files.format_rows(len(first), tuple(columns), self._row_end, self._null, write)

    def _native(self, kind: str, cells: Any) -> tuple[str, Any, tuple[str, ...]]:
        """A column as ``format_rows`` takes it."""
        if isinstance(cells, Labels):
            return "label", cells.numbers.astype(np.int32).tobytes(), tuple(map(self._quote, cells.names))
        if isinstance(cells, np.ndarray):
            return "score", cells.astype(np.float32).tobytes(), ()
        if hasattr(cells, "__arrow_c_array__"):
            style = "csv_quoted" if (self._format, kind) == ("csv", "text") else self._format
            return style, cells, ()
        return "plain", files.TextColumn(self._fields(kind, cells)), ()

    def _fields(self, kind: str, cells: Any) -> Iterable[str]:
        """The cells as they are written."""
        null, quote = self._null, self._quote_text if kind == "text" else self._quote
        if isinstance(cells, Labels):
            names = [*map(quote, cells.names), null]
            return [names[number] for number in cells.numbers.tolist()]
        if isinstance(cells, np.ndarray):
            return [null if cell != cell else f"{cell:.6f}" for cell in cells.tolist()]
        if hasattr(cells, "to_pylist"):
            cells = cells.to_pylist()
        if kind == "value" and self._format == "json":
            return [encode_basestring(cell) if type(cell) is str else to_json(cell) for cell in cells]
        return [null if cell is None else quote(to_text(cell)) for cell in cells]


def _quote_csv(field: str) -> str:
    return '"' + field.replace('"', '""') + '"'


def _quote_csv_if_it_must_be(field: str) -> str:
    # Before Python 3.13 csv.writer leaves a lone CR unquoted, at which csv.reader ends the row.
    return _quote_csv(field) if not field or re.search('[",\r\n]', field) else field


def _on_one_line(field: str) -> str:
    return field.replace("\t", " ").replace("\r", " ").replace("\n", " ")


# format -> how a text and how another field is quoted, what is between two, and null
_LINES: dict[str, tuple[Quote, Quote, str, str]] = {
    "json": (encode_basestring, encode_basestring, ", ", "null"),
    "csv": (_quote_csv, _quote_csv_if_it_must_be, ",", ""),
    "tsv": (_on_one_line, _on_one_line, "\t", "")}


def to_json(value: Any) -> str:
    """A value as JSON: null for a number that JSON does not have, and text for what is not of JSON, such as a date."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_to_json_type)
    except ValueError:
        return json.dumps(_without_nan(value), ensure_ascii=False, default=_to_json_type)


def to_text(value: Any) -> str:
    """A value as the text of a field: a str as it is, and JSON of any other."""
    return value if isinstance(value, str) else to_json(value)


def _to_json_type(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(cell) for name, cell in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(cell) for cell in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class ArrowFormatter:
    """Rows as record batches of an Arrow stream, which can be cut off behind any of them."""

    def __init__(self, columns: Sequence[Column]):
        import pyarrow as pa

        types = {"text": pa.string(), "label": pa.string(), "score": pa.float32()}
        self._columns = columns
        given = [column.type if column.kind == "value" else types[column.kind] for column in columns]
        # An empty struct is a type, though it is False.
        self._schema = pa.schema([(column.name, pa.string() if type is None else type)
                                  for column, type in zip(columns, given)])
        self.header: bytes = self._schema.serialize().to_pybytes()

    def rows(self, values: Sequence[Any], write: Write | None = None) -> bytes:
        """The message of some rows, as a whole; those of a type as pyarrow's array."""
        import pyarrow as pa

        arrays = [self._array(field.type, cells, column) for field, cells, column in
                  zip(self._schema, values, self._columns)]
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema).serialize().to_pybytes()

    def _array(self, type: Any, cells: Any, column: Column) -> Any:
        import pyarrow as pa

        if isinstance(cells, Labels):
            return pa.array(cells.names, type).take(pa.array(cells.numbers, mask=cells.numbers < 0))
        if isinstance(cells, np.ndarray):
            return pa.array(cells, type, from_pandas=True)  # which makes null of NaN
        if isinstance(cells, pa.Array) or hasattr(cells, "__arrow_c_array__"):
            array = pa.array(cells)
            return array if column.kind == "value" and column.type is not None else array.cast(type)
        if column.kind == "value" and column.type is None:
            cells = [None if cell is None else to_text(cell) for cell in cells]
        return pa.array(cells, type)

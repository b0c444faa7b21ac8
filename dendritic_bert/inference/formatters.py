"""Rows of results as lines of JSON, CSV or TSV, or as messages of an Arrow stream."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from json.encoder import encode_basestring
from typing import Any, NamedTuple

from .file_formats import TABLE_FORMATS

Quote = Callable[[str], str]


class Column(NamedTuple):
    """A column of the output.

    kind: "text", "label" (a str of few different ones), "score" (six decimals; float32 in a table) or "value" (any
    value of JSON or Arrow). Each may be None, for null. type: pyarrow's type of a "value", None for text: a str as it
    is, and JSON of any other value.
    """

    name: str
    kind: str
    type: Any = None


def open_formatter(format: str, columns: Sequence[Column]) -> LineFormatter | ArrowFormatter:
    """The formatter of a format of output; a table is a stream of Arrow until it is finished."""
    return ArrowFormatter(columns) if format in TABLE_FORMATS else LineFormatter(format, columns)


class LineFormatter:
    """Rows as lines of text; ``format`` is "json", "csv" or "tsv".

    Null is null in JSON and an empty field elsewhere. In CSV a text is always quoted, and another field if it must be,
    or if it is an empty string. In TSV nothing is quoted, and a tab or line end becomes a space.
    """

    def __init__(self, format: str, columns: Sequence[Column]):
        self._quote_text, self._quote, delimiter, self._null = _LINES[format]
        self._format, self._kinds = format, [column.kind for column in columns]
        names = [self._quote(column.name) for column in columns]
        self.header = "" if format == "json" else delimiter.join(names) + "\n"
        keys = [name.replace("%", "%%") + ": " if format == "json" else "" for name in names]
        row = delimiter.join(f"{key}%s" for key in keys), delimiter.join(
            f"{key}{'%.6f' if kind == 'score' else '%s'}" for key, kind in zip(keys, self._kinds))
        # Of rows without nulls, and of others: as a format, numbers take half the time that they take one by one.
        self._row_with_nulls, self._row = (f"{{{one}}}\n" if format == "json" else f"{one}\n" for one in row)

    def rows(self, values: Sequence[Sequence[Any]]) -> str:
        """The lines of some rows; ``values`` has the cells of each column."""
        try:
            return self._lines(values, self._row, may_be_null=False)
        except (TypeError, AttributeError):  # to look for None first would take 20 ns a cell
            return self._lines(values, self._row_with_nulls, may_be_null=True)

    def _lines(self, values: Sequence[Sequence[Any]], row: str, may_be_null: bool) -> str:
        fields = [self._fields(kind, cells, may_be_null) for kind, cells in zip(self._kinds, values)]
        return "".join(map(row.__mod__, zip(*fields)))

    def _fields(self, kind: str, cells: Sequence[Any], may_be_null: bool) -> Iterable[Any]:
        null, quote = self._null, self._quote_text if kind == "text" else self._quote
        if kind == "score":
            return [null if cell is None else f"{cell:.6f}" for cell in cells] if may_be_null else cells
        if kind == "label":
            return map({cell: null if cell is None else quote(cell) for cell in set(cells)}.__getitem__, cells)
        if kind == "text":
            return [null if cell is None else quote(cell) for cell in cells] if may_be_null else map(quote, cells)
        if self._format == "json":
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
        self._schema = pa.schema([(column.name, types.get(column.kind) or column.type or pa.string())
                                  for column in columns])
        self.header: bytes = self._schema.serialize().to_pybytes()

    def rows(self, values: Sequence[Sequence[Any]]) -> bytes:
        """The message of some rows; ``values`` has the cells of each column, as a list or as pyarrow's array."""
        import pyarrow as pa

        arrays = [self._array(field.type, cells, column) for field, cells, column in
                  zip(self._schema, values, self._columns)]
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema).serialize().to_pybytes()

    def _array(self, type: Any, cells: Any, column: Column) -> Any:
        import pyarrow as pa

        if isinstance(cells, pa.Array):
            return cells.dictionary_decode() if pa.types.is_dictionary(cells.type) else cells
        if column.kind == "value" and column.type is None:
            cells = [None if cell is None else to_text(cell) for cell in cells]
        return pa.array(cells, type)

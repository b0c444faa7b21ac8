"""Reads the records of Parquet and Arrow files in batches, by columns, with the row after each batch."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.ipc
import pyarrow.parquet

from .records import BATCH_BYTES, MAX_LINE_BYTES, LazyColumns, MalformedRecord, Position, RecordBatch, check_columns

PAGE_BYTES = 1 << 20  # read from each column of a row group at a time
HEADER_BYTES = 1 << 20  # at most, of what a column of a row group holds beside its cells


def is_text(type: pa.DataType) -> bool:
    """Whether a column of this type holds strings."""
    value = plain_type(type)
    return pa.types.is_string(value) or pa.types.is_large_string(value)


def plain_type(type: pa.DataType) -> pa.DataType:
    """The type in which the values of a column are given out: without a dictionary or run ends, and without views, for
    which pyarrow has few functions."""
    if pa.types.is_dictionary(type) or pa.types.is_run_end_encoded(type):
        return plain_type(type.value_type)
    return _without_views(type)


def _without_views(type: pa.DataType) -> pa.DataType:
    if pa.types.is_string_view(type):
        return pa.large_string()
    if pa.types.is_binary_view(type):
        return pa.large_binary()
    if pa.types.is_struct(type):
        return pa.struct([field.with_type(_without_views(field.type)) for field in type])
    if pa.types.is_list(type) or pa.types.is_large_list(type) or pa.types.is_fixed_size_list(type):
        field = type.value_field.with_type(_without_views(type.value_type))
        return pa.large_list(field) if pa.types.is_large_list(type) else pa.list_(field, getattr(type, "list_size", -1))
    if pa.types.is_map(type):
        return pa.map_(*(field.with_type(_without_views(field.type)) for field in (type.key_field, type.item_field)),
                       type.keys_sorted)
    return type


def _plain(array: pa.Array) -> pa.Array:
    """The values of a column in their ``plain_type``; a null inside of a dictionary is one of them."""
    if pa.types.is_dictionary(array.type):
        return pa.DictionaryArray.from_arrays(array.indices, _plain(array.dictionary), safe=False).dictionary_decode()
    if pa.types.is_run_end_encoded(array.type):
        return _plain(pa.compute.run_end_decode(array))
    type = plain_type(array.type)
    return array if type == array.type else array.cast(type)


def class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """The names of the classes of columns that hold their numbers, or lists of these, as the library ``datasets``
    writes them beside a schema (ClassLabel)."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        inner = {name: feature[0] if isinstance(feature, list) else feature.get("feature", feature)
                 for name, feature in features.items()}
        return {name: list(feature["names"]) for name, feature in inner.items() if feature["_type"] == "ClassLabel"}
    except (KeyError, TypeError, IndexError, AttributeError, ValueError):  # written by something else
        return {}


class TableReader:
    """The records of a Parquet or Arrow file (or an Arrow stream in a file), in batches of few bytes.

    A record is malformed if its text is null or longer than a line of the other formats may be; ``on_error`` is that of
    ``LineReader``. The digest of a position is that of the whole file, because its parts stand in no order.
    """

    def __init__(self, stream: BinaryIO, name: str, input_format: str, *, on_error: str, done: Position, digest: Any):
        self.stream, self.name, self.on_error = stream, name, on_error
        self._done, self._digest, self._is_hashed = done, digest, False
        self._columns: list[str] = []
        self._texts: tuple[str, ...] = ()
        self._valid: dict[str, bool] = {}  # for each column of the table that is being given out, _is_valid()
        self._file: Any = None
        stream.seek(0)
        start = stream.read(6)
        self._size = stream.seek(0, 2)
        stream.seek(0)
        try:
            if input_format == "parquet":
                self._file = pa.parquet.ParquetFile(stream, buffer_size=PAGE_BYTES, pre_buffer=False)
                self.schema, self._num_rows = self._file.schema_arrow, self._file.metadata.num_rows
            else:
                self._is_stream = start != b"ARROW1"
                self.schema, self._num_rows = self._open_arrow([]).schema, None
        except (pa.ArrowException, OSError) as error:
            kind = "Parquet" if input_format == "parquet" else "Arrow"
            raise ValueError(f"{name} cannot be read as {kind} ({_first_line(error)}): pass the input_format that it "
                             "has, or fetch it again if it is cut off.") from None
        self.names: list[str] = self.schema.names

    def _open_arrow(self, columns: Sequence[str]) -> Any:
        self.stream.seek(0)
        fields = [self.names.index(column) for column in columns] if columns else []
        options = pa.ipc.IpcReadOptions(included_fields=fields)
        opened = pa.ipc.open_stream if self._is_stream else pa.ipc.open_file
        return opened(pa.PythonFile(self.stream, "r"), options=options)

    def select(self, columns: Sequence[str], text_columns: Sequence[str] = ()) -> None:
        """Say which columns the batches are to have, and which of them must hold strings; ValueError if they cannot."""
        self._columns, self._texts = list(dict.fromkeys([*text_columns, *columns])), tuple(text_columns)
        check_columns(self.names, self._columns, self.name)
        for column in text_columns:
            type = self.schema.field(column).type
            if not is_text(type):
                kind = "nested values" if pa.types.is_nested(type) else "no strings"
                there = [field.name for field in self.schema if is_text(field.type)]
                raise ValueError(f"column {column!r} of {self.name} holds {kind} ({type!s:.60}), name a column of "
                                 f"strings: {', '.join(there) or 'it has none'}.")

    def start_from(self, done: Position, digest: Any) -> None:
        """Take position and digest of the inputs before this one."""
        self._done, self._digest = done, digest

    def position(self) -> Position:
        """The position after the last record that was given out."""
        if not self._is_hashed:
            self.stream.seek(0)
            while block := self.stream.read(BATCH_BYTES):
                self._digest.update(block)
            self._is_hashed = True
        return self._done._replace(input_sha256=self._digest.hexdigest())

    def go_to(self, done: Position) -> bool:
        """Move to ``done``; False if the file has changed since."""
        self._done = done
        return self.position().input_sha256 == done.input_sha256

    def batches(self, batch_size: int) -> Iterator[RecordBatch]:
        """Batches of up to ``batch_size`` records or about ``BATCH_BYTES``, each with the position after it.

        Before an error is raised, the records before it are given out.
        """
        self.position()
        for table in self._tables(batch_size, self._done.lines):
            yield from self._checked(table)

    def _tables(self, batch_size: int, first: int) -> Iterator[pa.RecordBatch]:
        """The rows from ``first`` on. Raises ValueError where the file is damaged."""
        try:
            for table in self._parquet_tables(batch_size, first) if self._file else self._arrow_tables(first):
                # Before the size of a part is asked for, which follows the offsets of nested values.
                self._valid = {name: self._is_valid(table.column(name)) for name in self._columns}
                for start in range(0, len(table), batch_size):
                    part = table[start:start + batch_size]
                    yield from _small(pa.RecordBatch.from_arrays(
                        [_plain(part.column(name)) for name in self._columns], self._columns))
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> ValueError:
        return ValueError(f"{self.name} is damaged behind row {self._done.lines} ({_first_line(error)}): fetch it "
                          "again.")

    def _parquet_tables(self, batch_size: int, first: int) -> Iterator[pa.RecordBatch]:
        # iter_batches takes the leaves of a nested column by their path, and no name with a dot in it.
        paths = (self._file.schema.column(leaf).path for leaf in range(len(self._file.schema.names)))
        leaves = [path for path, root in zip(paths, _roots(self.schema)) if root in self._columns]
        for index in range(self._file.metadata.num_row_groups):
            group = self._file.metadata.row_group(index)
            if first >= group.num_rows:
                first -= group.num_rows
                continue
            if self.on_error == "stop":
                self._expect_short_cells(group, self._done.lines - first)
            size = max(1, group.total_byte_size // max(1, group.num_rows))
            rows = max(1, min(batch_size, BATCH_BYTES // size))
            for table in self._file.iter_batches(rows, row_groups=[index], columns=leaves, use_threads=False):
                yield table[first:]
                first = max(0, first - len(table))

    def _expect_short_cells(self, group: Any, before: int) -> None:
        """Raise MalformedRecord, before anything is decoded, for a row group so large that one of its cells is too
        long."""
        for leaf, column in enumerate(_roots(self.schema)):
            size = group.column(leaf).total_uncompressed_size
            if size > group.num_rows * MAX_LINE_BYTES + HEADER_BYTES and column in (self._texts or self._columns):
                rows = f"row {before + 1}" if group.num_rows == 1 else f"rows {before + 1} to {before + group.num_rows}"
                raise MalformedRecord(f"{self.name}, {rows}: column {column!r} holds {size >> 20} MiB, so that a cell "
                                      f"is longer than {MAX_LINE_BYTES >> 20} MiB, split it into several texts.")

    def _arrow_tables(self, first: int) -> Iterator[pa.RecordBatch]:
        reader = self._open_arrow(self._columns)
        tables = reader if self._is_stream else map(reader.get_batch, range(reader.num_record_batches))
        for table in tables:
            table.validate()  # that its buffers are as large as its rows ask for
            yield table[first:]
            first = max(0, first - len(table))

    def _checked(self, table: pa.RecordBatch) -> Iterator[RecordBatch]:
        """A batch without its malformed records or with null for them; or what is before the first, and an error."""
        faults: dict[int, str] = {}
        for column in self._texts:
            texts = table.column(column)
            lengths = pa.compute.binary_length(texts).fill_null(0).to_numpy(zero_copy_only=False)
            for row in np.flatnonzero(lengths > MAX_LINE_BYTES).tolist():
                faults.setdefault(row, f"column {column!r} is longer than {MAX_LINE_BYTES >> 20} MiB, split it into "
                                       "several texts.")
            for row in np.flatnonzero(texts.is_null().to_numpy(zero_copy_only=False)).tolist() if texts.null_count \
                    else ():
                faults.setdefault(row, f"column {column!r} is null, fill it in or leave the row out.")
        if not faults:
            yield self._batch(table, range(len(table)), len(table))
            return
        places = sorted(faults)
        first = f"{self.name}, row {self._done.lines + places[0] + 1}: {faults[places[0]]}"
        if self.on_error == "stop":
            if places[0]:
                yield self._batch(table[:places[0]], range(places[0]), places[0])
            raise MalformedRecord(first)
        sound = [row for row in range(len(table)) if row not in faults]
        self._done = self._done._replace(num_malformed=self._done.num_malformed + len(faults),
                                         first_malformed=self._done.first_malformed or first)
        if self.on_error == "skip":
            yield self._batch(table.take(pa.array(sound, pa.int64())), sound, len(table))
        else:
            yield self._batch(table, range(len(table)), len(table), set(places))

    def _batch(self, table: pa.RecordBatch, rows: Sequence[int], num_rows: int, nulls: set[int] | None = None
               ) -> RecordBatch:
        """The batch of ``table``, whose records are ``rows`` of the ``num_rows`` that were read."""
        before, makers, arrays = self._done.lines, {}, {}
        for name in self._columns:
            array = table.column(name)
            if nulls and name in self._texts:
                array = pa.compute.if_else(pa.array([row not in nulls for row in range(len(table))]), array, None)
            arrays[name], makers[name] = self._column(name, array, self._valid[name])
        lines = before + num_rows
        size = self._size * lines // self._num_rows if self._num_rows else self.stream.tell()
        self._done = self._done._replace(records=self._done.records + len(rows) - len(nulls or ()), lines=lines,
                                         input_bytes=size)
        numbers = range(before + 1, before + 1 + len(rows)) if isinstance(rows, range) else [
            before + 1 + row for row in rows]
        return RecordBatch(LazyColumns(makers), self.position(), self.name, numbers, "row", arrays)

    def _column(self, name: str, array: pa.Array, is_valid: bool) -> tuple[pa.Array, Callable[[], list[Any]]]:
        """A column, and what makes a list of it."""
        if is_text(array.type) and not is_valid:
            values = self._values(name, array)  # now, because the position counts what is replaced
            return pa.array(values, array.type), lambda: values
        return array, partial(self._values, name, array)

    def _is_valid(self, array: pa.Array) -> bool:
        """Whether the strings of a column are UTF-8, and its values in the range of its type.

        No reader of these formats checks that, nor what leads elsewhere, offsets and indices: wrong ones raise
        ValueError, and so do strings inside of nested values, behind which nothing is checked.
        """
        try:
            array.validate(full=True)
        except pa.ArrowException as error:
            if pa.types.is_primitive(array.type) or pa.types.is_decimal(array.type):
                return False
            if "UTF8" not in str(error):
                raise self._damaged(error) from None
            if not is_text(array.type):
                raise self._not_utf8(array.type) from None
            try:
                _as_bytes(array)
            except pa.ArrowException as error:
                raise self._damaged(error) from None
            return False
        return True

    def _not_utf8(self, type: pa.DataType) -> ValueError:
        return ValueError(f"{self.name} holds strings that are not UTF-8 in a column of {type!s:.60}: leave the column "
                          "out.")

    def _values(self, name: str, array: pa.Array) -> list[Any]:
        """The cells of a column as Python has them; dates, times and decimals as text, which keeps all their digits,
        and float32 without digits of float64.

        Raises ValueError for values that Python does not have, such as a date behind the year 9999 in a list, and for
        dates that have no text.
        """
        type = array.type
        try:
            if (pa.types.is_temporal(type) and not pa.types.is_interval(type)) or pa.types.is_decimal(type):
                array = array.cast(pa.string())
                is_none = pa.compute.starts_with(array, "<value out of range").index(True).as_py()
                if is_none >= 0:
                    raise ValueError(array[is_none].as_py().strip("<>"))
            elif pa.types.is_float32(type):
                array = array.cast(pa.string()).cast(pa.float64())
            return array.to_pylist()
        except UnicodeDecodeError:
            return [None if cell is None else self._decoded(cell) for cell in _as_bytes(array).to_pylist()]
        except (pa.ArrowException, ValueError, OverflowError, LookupError) as error:
            raise ValueError(f"{self.name} holds values of {type!s:.60} in column {name!r} that have no text or JSON "
                             f"({_first_line(error)}): cast the column to strings, or leave it out of keep_columns "
                             "(--keep-columns).") from None

    def _decoded(self, cell: bytes) -> str:
        text, count = re.subn("[\udc80-\udcff]", "\ufffd", cell.decode(errors="surrogateescape"))
        self._done = self._done._replace(num_replaced=self._done.num_replaced + count)
        return text


def _small(table: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The rows of ``table`` in parts of at most about ``BATCH_BYTES``."""
    if table.nbytes <= BATCH_BYTES or len(table) == 1:
        yield table
        return
    half = len(table) // 2
    yield from _small(table[:half])
    yield from _small(table[half:])


def _as_bytes(texts: pa.Array) -> pa.Array:
    """The bytes of strings. Raises ArrowInvalid for a dictionary's index that leads elsewhere: pyarrow checks them
    behind the strings, and so not where these are not UTF-8."""
    if pa.types.is_dictionary(texts.type):
        return pa.DictionaryArray.from_arrays(texts.indices, texts.dictionary.cast(pa.large_binary()))
    return texts.cast(pa.large_binary())


def _roots(schema: pa.Schema) -> list[str]:
    """The column to which each leaf of a Parquet file of this schema belongs; of paths, "a.b" may be two."""
    return [field.name for field in schema for _ in range(_num_leaves(field.type))]


def _num_leaves(type: pa.DataType) -> int:
    type = getattr(type, "storage_type", type)
    if pa.types.is_struct(type):
        return sum(_num_leaves(field.type) for field in type)
    if pa.types.is_map(type):
        return _num_leaves(type.key_type) + _num_leaves(type.item_type)
    return _num_leaves(type.value_type) if hasattr(type, "value_type") else 1


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".")

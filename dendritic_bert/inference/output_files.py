"""What is done with the lines or rows of an output when all are there: compress them, or make a table of them."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice
from typing import Any, BinaryIO

from .file_formats import TABLE_FORMATS, compression_of

Finish = Callable[[BinaryIO, BinaryIO], None]

CHUNK = 1 << 20
GZIP_LEVEL = 6  # that of the program gzip
# A row group ends behind so many rows, or so many bytes of strings: what is in memory while it is written.
GROUP_ROWS = 1 << 16
GROUP_BYTES = 1 << 25


def finish_of(path: str | os.PathLike[str], format: str) -> Finish | None:
    """What makes the file ``path`` (its second argument) of a stream of its lines or rows; None if they are the file.

    The same rows give the same bytes, whatever batches they were written in.
    """
    if format in TABLE_FORMATS:
        return partial(_write_table, format)
    return {None: None, "gzip": _write_gzip, "zstd": _write_zstd}[compression_of(path)]


def _write_gzip(lines: BinaryIO, target: BinaryIO) -> None:
    with gzip.GzipFile("", "wb", GZIP_LEVEL, target, mtime=0) as file:
        shutil.copyfileobj(lines, file, CHUNK)


def _write_zstd(lines: BinaryIO, target: BinaryIO) -> None:
    import pyarrow as pa

    # pyarrow closes what it writes to.
    with open(os.dup(target.fileno()), "wb") as copy, pa.output_stream(copy, compression="zstd") as file:
        shutil.copyfileobj(lines, file, CHUNK)


def _write_table(format: str, rows: BinaryIO, target: BinaryIO) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    with pa.ipc.open_stream(rows) as reader:
        # Pages of Parquet would end where chunks do.
        groups = (pa.Table.from_batches(parts).combine_chunks() for parts in _groups(reader))
        first = list(islice(groups, 1))
        if format == "parquet":
            repeated = [name for group in first for name in _repeated(group)]
            writer: Any = pa.parquet.ParquetWriter(target, reader.schema, compression="zstd", use_dictionary=repeated)
        else:
            writer = pa.ipc.new_file(target, reader.schema, options=pa.ipc.IpcWriteOptions(compression="lz4"))
        with writer:
            for group in chain(first, groups):
                writer.write_table(group if format == "parquet" else _copy(group), len(group))


def _repeated(table: Any) -> list[str]:
    """The columns whose values repeat, which Parquet writes as numbers of a dictionary. For others, as texts and scores
    mostly are, the dictionary takes time, 0.08 of 0.67 us a row, and makes the file larger, by 4 %."""
    import pyarrow as pa
    import pyarrow.compute

    def repeats(column: Any) -> bool:
        return not (pa.types.is_nested(column.type) or pa.types.is_null(column.type)) and (
            2 * pa.compute.count_distinct(column, "all").as_py() <= len(column))

    head = table[:1000]
    return [name for name, column in zip(head.column_names, head.columns) if repeats(column)]


def _groups(batches: Any) -> Iterator[list[Any]]:
    """The rows of ``batches`` in groups of batches, whose ends depend on the rows alone."""
    import numpy as np

    parts: list[Any] = []
    rows = size = 0
    for batch in batches:
        while len(batch):
            sizes = size + np.cumsum(_string_bytes(batch))
            end = min(GROUP_ROWS - rows, int(np.searchsorted(sizes, GROUP_BYTES)) + 1)
            parts.append(batch[:end])
            rows, size = rows + len(parts[-1]), int(sizes[len(parts[-1]) - 1])
            batch = batch[end:]
            if rows == GROUP_ROWS or size >= GROUP_BYTES:
                yield parts
                parts, rows, size = [], 0, 0
    if parts:
        yield parts


def _copy(table: Any) -> Any:
    """A table in buffers of its own: a slice's have sizes of what it was cut from, which Arrow writes."""
    import numpy as np
    import pyarrow as pa

    return table.take(pa.array(np.arange(len(table))))


def _string_bytes(batch: Any) -> Any:
    """The bytes of the strings of each row."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute

    sizes = np.zeros(len(batch), np.int64)
    for column in batch.columns:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            sizes += pa.compute.binary_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    return sizes

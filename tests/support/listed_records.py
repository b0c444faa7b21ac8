"""Columns in memory as records, in the place of those of a file."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from dendritic_bert.inference.records import Position, RecordBatch


class ListedRecords:
    """Columns of equal length as the ``Records`` of a file; rows are numbered from 0, as Python does."""

    def __init__(self, columns: dict[str, Sequence[Any]], name: str = "rows") -> None:
        self.columns, self.names, self.name = columns, list(columns), name

    def batches(self, batch_size: int, columns: Sequence[str]) -> Iterator[RecordBatch]:
        size = len(self.columns[self.names[0]])
        for first in range(0, size, batch_size):
            rows = range(first, min(size, first + batch_size))
            yield RecordBatch({name: list(self.columns[name][first:first + batch_size]) for name in columns},
                              Position(), self.name, rows, "row")

    def heads(self, columns: Sequence[str]) -> list[Callable[[int], Iterator[RecordBatch]]]:
        return [partial(self.batches, columns=columns)]

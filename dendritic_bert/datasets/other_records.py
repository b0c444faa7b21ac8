"""Records of a stream, which are kept on disk, and records whose classes have their names in the place of numbers."""

from __future__ import annotations

import pickle
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from ..inference.readers import Records
from ..inference.records import RecordBatch
from .hub import Head, HubRecords, name_classes


class KeptRecords:
    """The records of a stream, which can be read but once, kept in a file without a name in ``folder``."""

    def __init__(self, records: Records, folder: str | Path | None) -> None:
        self.names, self.name = records.names, records.name
        self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 -- closed with the object
        self.places: dict[int, list[int]] = defaultdict(list)  # of each input those of its batches in the file
        for batch in records.batches(1024, self.names):
            self.places[batch.position.input].append(self.file.tell())
            pickle.dump(batch._replace(columns=dict(batch.columns), arrays={}), self.file)

    def batches(self, batch_size: int, columns: Sequence[str]) -> Iterator[RecordBatch]:
        """The batches as they were read, whatever ``batch_size`` is."""
        for head in self.heads(columns):
            yield from head(batch_size)

    def heads(self, columns: Sequence[str]) -> list[Head]:
        return [partial(self._batches, places, columns) for places in self.places.values()]

    def _batches(self, places: list[int], columns: Sequence[str], batch_size: int) -> Iterator[RecordBatch]:
        for place in places:
            self.file.seek(place)
            batch = pickle.load(self.file)
            yield batch._replace(columns={name: batch.columns[name] for name in columns})


class NamedRecords:
    """Records whose classes have their names, for each input those of its ``names_of``, in the place of their numbers.
    """

    def __init__(self, records: Records | KeptRecords, names_of: list[dict[str, list[str]]]) -> None:
        self.records, self.names, self.name = records, records.names, records.name
        self.names_of = names_of

    def batches(self, batch_size: int, columns: Sequence[str]) -> Iterator[RecordBatch]:
        """Raises ValueError for a column of which some inputs have the names and others do not."""
        first = None
        for batch in self.records.batches(batch_size, columns):
            names_of = self.names_of[batch.position.input]
            first = first or (batch.name, names_of)
            for column in columns:
                if (column in names_of) != (column in first[1]):
                    has, lacks = (batch.name, first[0]) if column in names_of else (first[0], batch.name)
                    raise ValueError(f"{has} holds the names of the classes in column {column!r} beside their numbers, "
                                     f"{lacks} does not: write the names into the column of both, as strings.")
            named = {column: name_classes(batch.columns[column], names_of.get(column)) for column in columns}
            yield batch._replace(columns=named, arrays={})

    def heads(self, columns: Sequence[str]) -> list[Head]:
        """With the numbers of the classes, which tell as well that a column may hold labels."""
        return self.records.heads(columns)


AnyRecords = Records | KeptRecords | NamedRecords | HubRecords

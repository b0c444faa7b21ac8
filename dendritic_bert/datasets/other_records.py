"""Records that do not lie in files: streams, which are kept on disk, and data sets of the hub."""

from __future__ import annotations

import pickle
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..inference.readers import Records
from ..inference.records import Position, RecordBatch

DEV_SPLITS = ("validation", "dev", "valid", "test")  # names on the hub; the first that is there is scored
Head = Callable[[int], Iterator[RecordBatch]]  # gives the records of an input in batches of a size, as Records.heads


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


def name_classes(values: list[Any], names: Sequence[str] | None) -> list[Any]:
    """The names of classes that are given as numbers, or lists of numbers; -1 is no class, and what has no
    name stays. Without ``names`` the values as they are."""
    if names is None:
        return values

    def name(value: Any) -> Any:
        if isinstance(value, list):
            return [name(part) for part in value]
        if not isinstance(value, int) or value >= len(names):
            return value
        return None if value < 0 else names[value]

    return [name(value) for value in values]


class HubRecords:
    """A split of a data set of the library ``datasets`` as ``Records``; classes have their names, not their numbers."""

    def __init__(self, table: Any, name: str) -> None:
        self.table, self.names, self.name = table, list(table.column_names), name

    def batches(self, batch_size: int, columns: Sequence[str]) -> Iterator[RecordBatch]:
        return self._batches(range(0, len(self.table), batch_size), columns, batch_size)

    def heads(self, columns: Sequence[str]) -> list[Head]:
        """Its batches in a random order, as any row can be read at once."""
        def head(batch_size: int) -> Iterator[RecordBatch]:
            starts = range(0, len(self.table), batch_size)
            return self._batches(np.random.default_rng(0).permutation(starts).tolist(), columns, batch_size)

        return [head]

    def _batches(self, starts: Sequence[int], columns: Sequence[str], batch_size: int) -> Iterator[RecordBatch]:
        table = self.table.select_columns(list(columns))
        for first in starts:
            part = table[first:first + batch_size]
            rows = range(first, first + len(part[columns[0]]))
            yield RecordBatch({name: self._named(name, part[name]) for name in columns}, Position(), self.name, rows,
                              "row")

    def _named(self, column: str, values: list[Any]) -> list[Any]:
        """The values of a column; those of a ``ClassLabel`` as names."""
        feature = self.table.features[column]
        inner = getattr(feature, "feature", feature)
        return name_classes(values, inner.names if hasattr(inner, "int2str") else None)


AnyRecords = Records | KeptRecords | NamedRecords | HubRecords


def load_from_hub(name: str, config: str | None = None) -> tuple[HubRecords, HubRecords | None]:
    """The training rows and the dev rows of a data set of the hub, or of a folder that ``datasets`` can load.

    The dev rows are those of the first of ``DEV_SPLITS`` that there is, None if there is none.

    Raises ImportError if ``datasets`` is not installed, OSError if the data set cannot be loaded, ValueError if it has
    no training rows.
    """
    try:
        import datasets
    except ImportError as error:
        raise ImportError("datasets is not installed, which dataset_name needs: pip install 'dendritic-bert[train]', "
                          "or pass train_file.") from error
    words = f"{name} ({config})" if config else name
    try:
        table = datasets.load_dataset(name, config)
    except (OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise OSError(f"dataset_name {words} cannot be loaded ({type(error).__name__}: {reason:.120}): check name, "
                      "dataset_config and network, or pass train_file.") from error
    if "train" not in table:
        raise ValueError(f"dataset_name {words} has no split train, but {', '.join(table)}: pass train_file.")
    train, *dev = (HubRecords(table[split], f"{words}, split {split}") for split in ("train", *DEV_SPLITS)
                   if split in table)
    return train, dev[0] if dev else None

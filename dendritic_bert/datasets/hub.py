"""Data sets of the library ``datasets``, from the hub or from a folder: one way to load them, and splits as records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..inference.records import Position, RecordBatch

DEV_SPLITS = ("validation", "dev", "valid", "test")  # names on the hub; the first that is there is scored
Head = Callable[[int], Iterator[RecordBatch]]  # gives the records of an input in batches of a size, as Records.heads


def load_dataset(name: str, config: str | None = None, split: str | None = None, *, what: str, check: str,
                 instead: str) -> Any:
    """What ``datasets.load_dataset`` gives for a data set, its ``config`` and one ``split`` of it, or all.

    Args:
        what: the data set as the errors name it.
        check: what may be wrong if it cannot be loaded; instead: what to pass in its place.

    Raises ImportError if ``datasets`` is not installed, OSError if the data set cannot be loaded.
    """
    try:
        import datasets
    except ImportError as error:
        raise ImportError(f"datasets is not installed, which {what} needs: pip install 'dendritic-bert[train]', or "
                          f"pass {instead}.") from error
    try:
        return datasets.load_dataset(name, config, split=split)
    except (OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise OSError(f"{what} cannot be loaded ({type(error).__name__}: {reason:.120}): check {check}, or pass "
                      f"{instead}.") from error


def load_from_hub(name: str, config: str | None = None) -> tuple[HubRecords, HubRecords | None]:
    """The training rows and the dev rows of the data set ``dataset_name``.

    The dev rows are those of the first of ``DEV_SPLITS`` that there is, None if there is none.

    Raises as ``load_dataset`` does, and ValueError if the data set has no training rows.
    """
    words = f"{name} ({config})" if config else name
    table = load_dataset(name, config, what=f"dataset_name {words}", check="name, dataset_config and network",
                         instead="train_file")
    if "train" not in table:
        raise ValueError(f"dataset_name {words} has no split train, but {', '.join(table)}: pass train_file.")
    train, *dev = (HubRecords(table[split], f"{words}, split {split}") for split in ("train", *DEV_SPLITS)
                   if split in table)
    return train, dev[0] if dev else None


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

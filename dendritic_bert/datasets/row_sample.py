"""Some rows of a table, from all of its files, by whose values its columns are chosen."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..inference.records import Position
from .labels import is_missing
from .other_records import AnyRecords

SAMPLE_ROWS = 1000
HEAD_BATCHES, BATCH_ROWS = 64, 4096  # read at most, in all files together, but one batch of each


class RowSample(NamedTuple):
    """Values of rows, by columns; None where a file lacks a column.

    is_whole: whether every row of the table was read, be it among these or not. position: what was left out.
    """

    columns: dict[str, list[Any]]
    is_whole: bool
    position: Position


def draw_sample(records: AnyRecords, names: list[str]) -> RowSample:
    """``SAMPLE_ROWS`` rows, drawn from the first ones of every file, so that neither the order of rows nor their split
    over files decides what is in them.

    Of each column the first two different values that were read are among them: a column with one value in the sample
    has no other in all that was read, however rare.
    """
    heads = records.heads(names)
    num_heads = max(1, len(heads))
    batch_rows = max(1, min(BATCH_ROWS, HEAD_BATCHES * BATCH_ROWS // num_heads))
    most_batches = max(1, HEAD_BATCHES // num_heads)
    rng = np.random.default_rng(0)
    columns: dict[str, list[Any]] = {name: [] for name in names}
    found: dict[str, set[str]] = {name: set() for name in names}
    keys = np.zeros(0)  # random numbers, the rows with the least of which stay
    is_whole, num_malformed, first_malformed = True, 0, ""
    for head in heads:
        position = Position()
        for number, batch in enumerate(head(batch_rows)):
            if number == most_batches:
                is_whole = False
                break
            position = batch.position
            new_keys = rng.random(len(batch.lines))
            cells_of = {name: batch.columns.get(name) or [None] * len(new_keys) for name in names}
            for name, cells in cells_of.items():
                new_keys[_rows_of_two_values(cells, found[name])] = 0
            keys = np.concatenate([keys, new_keys])
            kept = np.sort(np.argsort(keys, kind="stable")[:SAMPLE_ROWS])
            keys = keys[kept]
            for name, cells in cells_of.items():
                both = columns[name] + cells
                columns[name] = [both[row] for row in kept]
        num_malformed += position.num_malformed
        first_malformed = first_malformed or position.first_malformed
    return RowSample(columns, is_whole, Position(num_malformed=num_malformed, first_malformed=first_malformed))


def _rows_of_two_values(cells: list[Any], found: set[str]) -> list[int]:
    """The rows of values that are not in ``found`` yet, which takes two."""
    rows = []
    for row, cell in enumerate(cells):
        if len(found) == 2:
            break
        if not is_missing(cell) and str(cell) not in found:
            found.add(str(cell))
            rows.append(row)
    return rows

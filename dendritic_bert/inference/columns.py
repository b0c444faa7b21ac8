"""Which columns of an input are classified and carried through, and under which names they are written."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from .file_formats import TABLE_FORMATS
from .formatters import Column
from .readers import Records
from .records import DELIMITERS, RecordBatch

TEXT = "text"
ALL = "all"


def choose_text_columns(records: Records, column: str | None, text_pair_column: str | None,
                        trained: Mapping[str, str] | None) -> tuple[str, ...]:
    """The column of the texts and, for pairs, that of the second ones.

    They are those that are given; or those of ``trained``, the ``training_columns`` of a model; or "text", or where
    there is none the only column of strings. Warns where the model was trained on pairs and the texts are single, or
    the reverse. Raises ValueError, which says what to pass, where none of these is there.
    """
    column, text_pair_column = recall_text_columns(trained, records.names, column, text_pair_column)
    text = text_column(records, column, trained)
    warn_of_other_texts(trained, records.name, records.names, text, text_pair_column)
    return (text,) if text_pair_column is None else (text, text_pair_column)


def recall_text_columns(trained: Mapping[str, str] | None, names: Sequence[str], text: str | None,
                        text_pair: str | None) -> tuple[str | None, str | None]:
    """``text`` and ``text_pair`` if they are given, else the columns that a model was trained on and ``names`` hold. A
    ``text`` that is given alone is no pair."""
    remembered = (trained or {}).get("text_column")
    if text is not None or remembered not in names or remembered == text_pair:
        return text, text_pair
    second = (trained or {}).get("text_pair_column")
    return remembered, text_pair or (second if second in names else None)


def text_column(records: Records, column: str | None, trained: Mapping[str, str] | None = None) -> str:
    """The column of the texts: ``column``; or "text", or where there is none the only column of strings, of JSON Lines
    if every object has it. Raises ValueError where there are others alone, and for a ``column`` of lines of text."""
    names = records.names
    if column is not None:
        if records.is_text and column != TEXT:
            raise ValueError(f"column is {column!r}, but {records.name} is read as lines of text, which have none: "
                             "leave it out, or pass input_format (--input-format), such as csv.")
        return column
    # A header that is one column of several names, by a delimiter that was not given, is no column of strings.
    if TEXT in names or not names or (len(names) == 1 and set(names[0]) & set(DELIMITERS)):
        return TEXT
    strings = records.string_columns()
    if len(strings) == 1 and records.every_object_has(strings[0]):
        return strings[0]
    if "jsonl" in records.format:  # whose later objects may have other keys, and whose first may be malformed
        return TEXT
    missing = f"{trained['text_column']!r}, on which the model was trained" if trained else repr(TEXT)
    raise ValueError(f"{records.name} has no column {missing}: pass column (--column), one of {', '.join(names)}.")


def warn_of_other_texts(trained: Mapping[str, str] | None, source: str, names: Sequence[str], text: str,
                        text_pair: str | None) -> None:
    """Warn where a model was trained on pairs and single texts are read, or the reverse; ``names`` are the columns of
    the source."""
    if text_pair is not None:
        read, remedy = f"of the columns {text!r} and {text_pair!r}", "name one column of texts alone"
    elif set(names) <= {text}:  # as of lines of text
        read, remedy = "which has no second column", "pass an input with both columns (--file)"
    else:
        read, remedy = f"of the column {text!r}", "name the second column with text_pair_column (--text-pair-column)"
    warn_of_other_kind(trained, text_pair is not None, f"read from {source}, {read}", remedy)


def warn_of_other_kind(trained: Mapping[str, str] | None, is_pair: bool, done: str, remedy: str) -> None:
    """Warn where a model was trained on pairs and a text is single, or the reverse; ``done`` is what is done with it,
    such as "explained"."""
    second = (trained or {}).get("text_pair_column")
    if not trained or (second is not None) == is_pair:
        return
    first, given = repr(trained["text_column"]), "pairs" if is_pair else "single texts"
    known = f"single texts, of the column {first}" if is_pair else f"pairs, of the columns {first} and {second!r}"
    warnings.warn(f"the model was trained on {known}, but {given} are {done}: {remedy}.", stacklevel=4)


class KeptColumns:
    """The columns of an input that are written before the results, in a ``format`` of output.

    ``keep`` is a list of names, a single name, "all" for every column but those of ``text_columns``, or None. One with
    the name of a result, such as a "label" that was there before, is written as "input_label", or with another
    "input_" where that is kept, too. Raises ValueError for a name that an input does not have.
    """

    def __init__(self, records: Records, keep: str | Sequence[str] | None, text_columns: Sequence[str],
                 results: Sequence[str], format: str):
        text, self._format = text_columns[0], format
        if keep == ALL:
            names = [name for name in records.names if name not in text_columns]
        else:
            names = list(dict.fromkeys([keep] if isinstance(keep, str) else keep or ()))
        self.names = [name for name in names if name != TEXT or text != TEXT]  # that one is written as the text
        if self.names:
            records.check(self.names)
        types = [_kept_type(type, format) for type in records.types(self.names)]
        self.columns = [Column(name, "value", type) for name, type in zip(_written_names(self.names, results), types)]

    def written_types(self) -> dict[str, str]:
        """The types with which columns are written to a table, beside the settings of a run: a file that has not been
        read yet may be replaced between two runs, and rows of one type cannot be read as those of another."""
        return {f"type of {name!r}": str(column.type) for name, column in zip(self.names, self.columns)
                if column.type is not None and self._format in TABLE_FORMATS}

    def cells(self, batch: RecordBatch) -> list[Any]:
        """The cells of these columns: as arrays where these are written as they are, else as lists. Raises ValueError
        for one that the format cannot hold."""
        if self._format == "parquet":
            for name, column in zip(self.names, self.columns):
                if str(column.type).startswith("timestamp[s"):
                    _expect_milliseconds(batch, name)
        return [batch.arrays[name] if _is_written(batch.arrays.get(name), column, self._format) else batch.columns[name]
                for name, column in zip(self.names, self.columns)]


def _written_names(names: Sequence[str], results: Sequence[str]) -> list[str]:
    """The names under which columns are written, all different and none that of a result."""
    taken, written = {*names, *results}, []
    for name in names:
        if name in results:
            while name in taken:
                name = f"input_{name}"
            taken.add(name)
        written.append(name)
    return written


def _is_written(array: Any, column: Column, format: str) -> bool:
    """Whether an array of a column is written as it is: texts that were read from lines; of a table, what keeps its
    type in another, and strings in lines."""
    if array is None or not hasattr(array, "type"):
        return array is not None
    return column.type is not None if format in TABLE_FORMATS else str(array.type) in ("string", "large_string")


def _kept_type(type: Any, format: str) -> Any:
    """The type with which a column of a table is written to a table; None for text, also of what cannot be cut off, and
    of what Parquet does not have, such as a union.

    A dictionary would stand in messages of its own, so its values are written, and those of run ends and views.
    """
    if type is None:
        return None
    from .table_reader import plain_type

    type = plain_type(type)
    is_text = "dictionary<" in str(type) or "extension<" in str(type)
    return None if is_text or (format == "parquet" and not _is_in_parquet(type)) else type


def _is_in_parquet(type: Any) -> bool:
    """Whether pyarrow writes values of a type to Parquet, which it says before the first of them."""
    import pyarrow as pa
    import pyarrow.parquet

    try:
        pa.parquet.ParquetWriter(pa.BufferOutputStream(), pa.schema([("value", type)])).close()
    except (pa.ArrowNotImplementedError, OSError):
        return False
    return True


def _expect_milliseconds(batch: RecordBatch, name: str) -> None:
    """Raise ValueError for a time in seconds so far away that Parquet, which has milliseconds, cannot hold it: pyarrow
    would notice at the end, and name no row."""
    import numpy as np
    import pyarrow as pa

    seconds = batch.arrays[name].cast(pa.int64()).fill_null(0).to_numpy()
    most = np.iinfo(np.int64).max // 1000
    for row in np.flatnonzero((seconds > most) | (seconds < -most)).tolist():
        raise ValueError(f"{batch.place(row)}: column {name!r} is {seconds[row]} seconds, which Parquet cannot hold in "
                         "its milliseconds: mend it, or leave the column out of keep_columns (--keep-columns).")

"""What the readers of every format give: batches of records by column, their places, and the position behind each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

MAX_LINE_BYTES = 1 << 26  # a longer line or cell is a malformed record, so that memory is bounded
BATCH_BYTES = 1 << 22  # a batch of long texts ends here, even if it has fewer texts than asked for
DELIMITERS = (";", "\t", "|", ",")  # those that are likely where a header is one column
ON_ERROR = ("stop", "skip", "null")


class MalformedRecord(ValueError):
    """A record that does not follow the format of the input; the message names the input and the line.

    cells: what could be read of it, one cell a selected column; None if nothing could.
    """

    def __init__(self, message: str, cells: list[Any] | None = None):
        super().__init__(message)
        self.cells = cells


class Position(NamedTuple):
    """How far a run has come: all that is needed to continue from there.

    records: texts read, in all inputs. lines, input_bytes: lines (or rows of a table) and bytes read of the present
    input. input_sha256: digest of what was read of all inputs. num_replaced: bytes that could not be decoded.
    num_malformed: malformed records; first_malformed: what was wrong with the first of them. num_truncated: texts that
    were cut. output_bytes: size of the output. input: the present input, counted from 0.
    """

    records: int = 0
    lines: int = 0
    input_bytes: int = 0
    input_sha256: str = ""
    num_replaced: int = 0
    num_malformed: int = 0
    first_malformed: str = ""
    num_truncated: int = 0
    output_bytes: int = 0
    input: int = 0


class LazyColumns(Mapping[str, list[Any]]):
    """Columns as lists, each of which ``makers`` make when it is first asked for."""

    def __init__(self, makers: Mapping[str, Callable[[], list[Any]]]):
        self._makers, self._made = makers, dict[str, list[Any]]()

    def __getitem__(self, name: str) -> list[Any]:
        if name not in self._made:
            self._made[name] = self._makers[name]()
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


class RecordBatch(NamedTuple):
    """Some records of one input.

    columns: the cells of each selected column: str of CSV, TSV and text; the values of JSON and Arrow; None for null
    and for a record that is malformed. position: that behind the last record. name: the input. lines: for each record
    the number of its last line, or of its row in a table. unit: "line" or "row". arrays: the same columns as arrays, as
    far as there are any: those of strings as ``TextColumn`` or, where that is not built, as lists; of a table all, as
    pyarrow's.
    """

    columns: Mapping[str, list[Any]]
    position: Position
    name: str
    lines: Sequence[int]
    unit: str = "line"
    arrays: dict[str, Any] = {}  # noqa: RUF012

    def texts(self, column: str) -> Any:
        """The cells of a column of strings: its array, or a list if there is none."""
        return self.arrays[column] if column in self.arrays else self.columns[column]

    def place(self, row: int) -> str:
        """Where a record of this batch stands, such as "reviews.csv, line 17"."""
        return f"{self.name}, {self.unit} {self.lines[row]}"


def check_columns(names: Sequence[str], columns: Sequence[str], name: str, delimiter: str | None = None) -> None:
    """Raise ValueError unless the input ``name`` with the columns ``names`` has each of ``columns`` exactly once.

    ``delimiter`` is that of the input, if it has one: where another is likely, the message says so.
    """
    for column in columns:
        if column not in names:
            raise ValueError(f"column is {column!r}, which {name} does not have: "
                             f"{_likely_delimiter(names, delimiter) or _shown(names)}.")
        if names.count(column) > 1:
            raise ValueError(f"column is {column!r}, which {name} has {names.count(column)} times: rename the others.")


def _shown(names: Sequence[str]) -> str:
    if not names:
        return "the file has no header line"
    return (f"the columns are {', '.join(names)}, rename the one that is meant, or name another column that every file "
            "has")


def _likely_delimiter(names: Sequence[str], delimiter: str | None) -> str:
    """What to do if the header is one column, and another delimiter would make several of it; "" otherwise."""
    others = [other for other in DELIMITERS if other != delimiter and other in names[0]] if names else []
    if delimiter is None or len(names) > 1 or not others:
        return ""
    likely = max(others, key=names[0].count)
    with_format = "" if delimiter == "," else "input_format='csv' and "
    return (f"its header {names[0]!r:.60} is one column, whose names {likely!r} seems to separate: pass {with_format}"
            f"delimiter={likely!r} (--delimiter {likely!r})")

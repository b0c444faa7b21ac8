"""The C++ extension that reads and writes files of texts. It knows no torch, numpy or pyarrow."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

class TextColumn:
    """Texts, some of which may be null, in Arrow's layout; immutable."""

    null_count: int
    nbytes: int

    def __new__(cls, texts: Sequence[str | None]) -> TextColumn:
        """Raises UnicodeEncodeError for a lone surrogate, TypeError for what is no str, ValueError for 2 GiB."""
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[str | None]: ...
    def to_pylist(self) -> list[str | None]: ...
    def __arrow_c_array__(self, requested_schema: Any = None) -> tuple[Any, Any]:
        """Capsules of the Arrow C data interface, "u" (32-bit offsets) whatever is asked for; nothing is copied."""

class RecordScanner:
    """Collects the plain records of lines, CSV, TSV or JSON Lines; for one thread at a time.

    format: "text", "csv", "tsv" or "jsonl". columns: for CSV and TSV the number of each one's field, of ``width``; for
    JSON Lines their keys, the first ``num_texts`` of which must have strings; for lines of text, any one object. A
    record of more than ``longest`` bytes is not plain.
    """

    def __new__(
        cls, format: str, delimiter: str, width: int, columns: tuple[Any, ...], num_texts: int, longest: int
    ) -> RecordScanner: ...
    def __len__(self) -> int: ...
    def scan(
        self, block: bytes, place: int, lines_before: int, most_records: int, most_bytes: int
    ) -> tuple[int, int, str]:
        """Collect the records of ``block`` from ``place`` on, before which there are ``lines_before`` lines, up to
        ``most_records`` in all, or about ``most_bytes``. The place and the number of the lines behind them, and why it
        ended: "full", "more" where the block ends within a record, "odd" where a record follows that is not plain."""
    def append(self, cells: Sequence[str | None], line: int) -> None:
        """Collect a record that was read elsewhere, whose last line is ``line``."""
    def take(self) -> tuple[tuple[TextColumn, ...], bytes]:
        """The columns, and int64 numbers of each record's last line; forgets them."""

def format_rows(
    num_rows: int, columns: tuple[tuple[str, str, Any, tuple[str, ...]], ...], row_end: str, null: str,
    write: Callable[[bytes], object] | None = None,
) -> bytes:
    """The lines of ``num_rows`` rows; those that come before the last MiB or so go to ``write`` in parts, if given.

    A column is what stands before each of its cells; a kind; data; and names. The kinds "plain", "json", "csv_quoted",
    "csv" and "tsv" take an array of strings by ``__arrow_c_array__`` (formats u and U, of valid UTF-8), "label" bytes
    of int32 numbers of ``names``, -1 for null, and "score" bytes of float32, NaN for null. ``null`` stands for a null.
    """

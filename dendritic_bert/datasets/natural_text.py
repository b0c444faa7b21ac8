"""Texts that somebody wrote, for a teacher to label; and texts that come with a teacher's logits.

Files of texts are whatever ``open_records`` reads, one text a record, and the same files compressed by xz. A file of
logits has a text a line, after the logits of its classes and a tab behind each of them; for two classes one number may
stand for both, the margin: the logit of the second class minus that of the first.
"""

from __future__ import annotations

import lzma
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..inference.readers import open_records
from ..inference.records import Position
from .near_duplicates import DevSentences
from .row_checks import replaced_bytes

BATCH = 4096


def read_texts(files: Sequence[str], column: str | None = None) -> list[str]:
    """The distinct texts of ``files`` in their order, without empty ones.

    ``column`` is that of the texts in a table; by default the only one of strings, or the one called "text". Lines of
    text have no columns, and are read whatever it is. Raises OSError and ValueError as ``open_records`` does, and
    ValueError if it cannot be told which column it is.
    """
    return list(dict.fromkeys(stream_texts(files, column)))


def stream_texts(files: Sequence[str], column: str | None = None) -> Iterator[str]:
    """The texts of ``files`` in their order, without empty ones; raises as ``read_texts`` does."""
    count = 0
    for file in files:
        position = Position()
        with open_records(_opened(file), *_format_of(file)) as records:
            name = "text" if records.is_text else column or _text_column(records, file)
            for batch in records.batches(BATCH, [], [name]):
                texts = [stripped for text in batch.columns[name] if (stripped := text.strip())]
                count += len(texts)
                position = batch.position
                yield from texts
        if position.num_replaced:
            warnings.warn(f"{file}: {replaced_bytes(position.num_replaced)}.", stacklevel=2)
    if files and not count:
        raise ValueError(f"{', '.join(files)}: no text is found there: name another file.")


def read_logits(files: Sequence[str], num_labels: int) -> dict[str, tuple[float, ...]]:
    """Each text of ``files`` with its ``num_labels`` logits; of a text that comes twice the last.

    Raises ValueError, which names file and line, for a line of another form.
    """
    logits: dict[str, tuple[float, ...]] = {}
    for file in files:
        with open_records(_opened(file), "text") as records:
            number = 0
            for batch in records.batches(BATCH, [], ["text"]):
                for line in batch.columns["text"]:
                    number += 1
                    *fields, text = line.split("\t")
                    logits[text.strip()] = _parse(fields, num_labels, f"{file}, line {number}")
    return logits


def away_from_dev(texts: Iterable[str], dev_texts: Iterable[str]) -> list[str]:
    """The texts that come close to no dev sentence."""
    dev = DevSentences(dev_texts)
    return [text for text in texts if not dev.are_close_to(text)]


def _opened(file: str) -> Any:
    """The file, or a stream of what xz has compressed."""
    return lzma.open(file) if file.endswith(".xz") else file


def _format_of(file: str) -> Iterator[str]:
    """The format of a stream, whose name does not tell it; nothing for a file."""
    if file.endswith(".xz"):
        from ..inference.file_formats import INPUT_FORMATS, choose_format

        yield choose_format("input_format", None, file.removesuffix(".xz"), INPUT_FORMATS)


def _text_column(records: Any, file: str) -> str:
    names = records.string_columns()
    if "text" in names:
        return "text"
    if len(names) != 1:
        raise ValueError(f"{file} has {len(names)} columns of strings ({', '.join(names)}): name one as text_column.")
    return str(names[0])


def _parse(fields: list[str], num_labels: int, where: str) -> tuple[float, ...]:
    try:
        numbers = tuple(map(float, fields))
    except ValueError:
        numbers = ()
    if num_labels == 2 and len(numbers) == 1:
        numbers = (-numbers[0] / 2, numbers[0] / 2)
    if len(numbers) != num_labels or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{where} is not {'a margin' if num_labels == 2 else f'{num_labels} logits'}, a tab and a "
                         "text: name files of that form in extra_margins.")
    return numbers

"""One reader for files of every format: several files, patterns and streams, as batches of records in order."""

from __future__ import annotations

import glob
import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import cached_property, partial
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO

from .file_formats import INPUT_FORMATS, TABLE_FORMATS, choose_format
from .line_reader import LineReader, keys_of
from .records import BATCH_BYTES, ON_ERROR, MalformedRecord, Position, RecordBatch
from .streams import Input, PathOrStream, open_input

if TYPE_CHECKING:
    from .table_reader import TableReader

    Reader = LineReader | TableReader

SAMPLE = 100  # records that are looked at for the columns of strings
KEYED_OBJECTS = 1000  # of a file of JSON Lines, whose keys are the names of the columns


def open_records(
    inputs: PathOrStream | Sequence[PathOrStream],
    input_format: str | None = None,
    on_error: str = "stop",
    delimiter: str = ",",
    *,
    num_keyed: int | None = None,
) -> Records:
    """Open one input or several, whose records are read one after another; a context manager, which closes them.

    Args:
        inputs: paths, patterns such as "part-*.csv" (their files in the order of their names), "-" for standard input,
            and streams.
        input_format: "text", "csv", "tsv", "jsonl", "parquet" or "arrow" (Feather, too); None is what the suffix of
            each says, and "text" without one. The first four may be compressed by gzip or zstd.
        on_error: "stop" raises MalformedRecord at a malformed record, "skip" leaves the record out, and "null" gives
            None for what could not be read of it.
        delimiter: the character between the fields of CSV; "tab" is one, and so is "\\t" in two characters, as a shell
            passes it.
        num_keyed: of how many objects of JSON Lines the keys are the names of the columns; None is ``KEYED_OBJECTS``
            of a file, and the first of a stream, whose next ones may be long in coming.

    Raises:
        OSError: an input cannot be read; ValueError: an unknown format or suffix, or bytes that are not text. Every
            input is tried before the first is read.
    """
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error is {on_error!r}, known are {', '.join(ON_ERROR)}.")
    delimiter = "\t" if delimiter in ("\\t", "tab") else delimiter
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n':
        raise ValueError(f"delimiter is {delimiter!r}, pass the one character between the fields, such as ';'.")
    return Records(expand_patterns(inputs), input_format, on_error, delimiter, num_keyed)


def open_reader(source: Input, input_format: str, *, on_error: str, delimiter: str, done: Position, digest: Any,
                num_keyed: int = 1) -> Reader:
    """The reader of one opened input, with the arguments of ``LineReader``."""
    if input_format not in TABLE_FORMATS:
        return LineReader(source.stream, source.name, input_format, on_error=on_error, delimiter=delimiter, done=done,
                          digest=digest, num_keyed=num_keyed)
    from .table_reader import TableReader  # imports pyarrow, 0.1 s

    return TableReader(source.stream, source.name, input_format, on_error=on_error, done=done, digest=digest)


class Records:
    """The records of some inputs; made by ``open_records``.

    name: what messages call the inputs. size: the bytes of all inputs, None if unknown. format: that of the inputs, or
    all that they have. is_text: whether all are lines of text. can_resume: whether all are files, which can be read
    again. statuses: those of the files. delimiter: the character between the fields of CSV.
    """

    def __init__(self, inputs: list[PathOrStream], input_format: str | None, on_error: str, delimiter: str,
                 num_keyed: int | None = None):
        self._inputs, self._on_error, self.delimiter, self._num_keyed = inputs, on_error, delimiter, num_keyed
        self._formats = [choose_format("input_format", input_format, input, INPUT_FORMATS) for input in inputs]
        self._stack = ExitStack()
        self._digest = hashlib.sha256()
        self._opened: dict[int, tuple[Input, Reader]] = {}  # those that were opened and not yet read
        self._done = Position()
        self._sources: list[Input] = []
        self._unknown: set[tuple[int, str]] = set()  # input and key of which a warning was given
        self._files: dict[int, BinaryIO | None] = {}  # the ``file`` of each input whose records are read
        try:
            for index in range(len(inputs)):
                self._try(index)
        except BaseException:
            self._stack.close()
            raise
        sizes = [source.size for source in self._sources]
        self.name = self._sources[0].name if len(inputs) == 1 else f"{len(inputs)} inputs"
        self.size = None if None in sizes else sum(size or 0 for size in sizes)
        self.format = "+".join(dict.fromkeys(self._formats))
        self.is_text = set(self._formats) == {"text"}
        self.can_resume = all(source.is_file for source in self._sources)
        self.statuses = [source.status for source in self._sources]

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _try(self, index: int) -> None:
        """Open an input and read its header, so that what is wrong with it is found before anything is read."""
        with ExitStack() as stack:
            source, reader = self._open(index, stack, Position())
            if not source.is_file:  # it cannot be opened again
                self._opened[index] = source, reader
                self._stack.push(stack.pop_all())
        self._sources.append(source)

    def _open(self, index: int, stack: ExitStack, done: Position) -> tuple[Input, Reader]:
        format = self._formats[index]
        source = open_input(self._inputs[index], stack, format in TABLE_FORMATS)
        num_keyed = self._num_keyed or (KEYED_OBJECTS if source.is_file else 1)
        return source, open_reader(source, format, on_error=self._on_error, delimiter=self.delimiter, done=done,
                                   digest=self._digest, num_keyed=num_keyed)

    @cached_property
    def names(self) -> list[str]:
        """The columns of the first input: ["text"] of lines of text, the keys of the first objects of JSON Lines."""
        with ExitStack() as stack:
            return self._peek(0, stack).names

    def _peek(self, index: int, stack: ExitStack) -> Reader:
        """A reader of an input whose header can be looked at; of a stream the one that will read it."""
        return (self._opened.get(index) or self._open(index, stack, Position()))[1]

    def check(self, columns: Sequence[str], text_columns: Sequence[str] = ()) -> None:
        """Raise ValueError unless every table has each column once, and strings in ``text_columns``."""
        for index in range(len(self._inputs)):
            with ExitStack() as stack:
                self._select(index, self._peek(index, stack), columns, text_columns)

    def _select(self, index: int, reader: Reader, columns: Sequence[str], text_columns: Sequence[str]) -> None:
        """Let a reader select columns, and warn once of those that none of the first objects of JSON Lines has."""
        reader.select(columns, text_columns)
        unknown = [column for column in (*text_columns, *columns)
                   if column not in reader.names and (index, column) not in self._unknown]
        if unknown and reader.names:
            self._unknown.update((index, column) for column in unknown)
            some = ", ".join(map(repr, reader.names[:10])) + (", ..." if len(reader.names) > 10 else "")
            warnings.warn(f"none of the first objects of {reader.name} has the key {unknown[0]!r}; their keys are "
                          f"{some}.", stacklevel=3)

    def types(self, columns: Sequence[str]) -> list[Any]:
        """The type of pyarrow that each column has in all inputs; None where one is no table or has another type."""
        types: list[list[Any]] = []
        for index in range(len(self._inputs)):
            with ExitStack() as stack:
                schema = getattr(self._peek(index, stack), "schema", None)
                types.append([schema.field(schema.names.index(column)).type if schema is not None else None
                              for column in columns])
        return [found[0] if found.count(found[0]) == len(found) else None for found in zip(*types)]

    def class_names(self) -> list[dict[str, list[str]]]:
        """For each input the names of the classes of columns that hold their numbers, as ``table_reader.class_names``
        gives them; none for what is no table."""
        found: list[dict[str, list[str]]] = [{} for _ in self._inputs]
        for index, format in enumerate(self._formats):
            if format in TABLE_FORMATS:
                from .table_reader import class_names

                with ExitStack() as stack:
                    found[index] = class_names(self._peek(index, stack).schema)  # type: ignore[union-attr]
        return found

    def string_columns(self) -> list[str]:
        """The columns that hold strings: by the types of a table, else by up to 100 records, without numbers.

        The records of a stream cannot be looked at before they are read: all columns of its header are given.
        """
        names = self.names
        types = self.types(names)
        if self._formats[0] in TABLE_FORMATS:
            from .table_reader import is_text

            return [name for name, type in zip(names, types) if type is not None and is_text(type)]
        if not self._sources[0].is_file or not names:
            return names if self._formats[0] != "jsonl" else []
        with ExitStack() as stack:
            reader = self._open(0, stack, Position())[1]
            reader.select(names)
            with suppress(MalformedRecord):  # reading itself will say so
                for batch in reader.batches(SAMPLE):
                    if len(batch.lines):  # the last batch may hold blank lines alone
                        return [name for name in names if any(map(_is_string, batch.columns[name]))]
        return names

    def every_object_has(self, column: str) -> bool:
        """Whether each of up to 100 objects has the key ``column``; of other formats than JSON Lines every record has.
        """
        if self._formats[0] != "jsonl" or not self._sources[0].is_file:
            return True
        with ExitStack() as stack:
            lines = iter(partial(open_input(self._inputs[0], stack).stream.readline, BATCH_BYTES), b"")
            return all(column in keys for line in islice(lines, SAMPLE) if (keys := keys_of(line)))

    def batches(self, batch_size: int, columns: Sequence[str], text_columns: Sequence[str] = ()
                ) -> Iterator[RecordBatch]:
        """The records from the start, or from where ``go_to`` was told, in batches of up to ``batch_size``.

        Each batch has ``columns`` and ``text_columns``; a record whose cell in one of the latter is not a string is
        malformed. No batch has records of two inputs. Files can be read several times, streams once.

        Raises ValueError for a column that an input does not have, and for a stream that was read before; and
        MalformedRecord, as ``on_error`` says, after the records before it.
        """
        done, self._done = self._done, Position()
        if not done.input_sha256:
            self._digest = hashlib.sha256()
        for index in range(done.input, len(self._inputs)):
            if index > done.input:
                done = done._replace(input=index, lines=0, input_bytes=0)
            with ExitStack() as stack:
                reader = self._reader(index, stack, done)
                self._select(index, reader, columns, text_columns)
                for batch in reader.batches(batch_size):
                    done = batch.position
                    yield batch
                    del batch  # before the next one is in memory

    def heads(self, columns: Sequence[str]) -> list[Callable[[int], Iterator[RecordBatch]]]:
        """For each input what gives its records from the start, in batches of a size, so that one can look at all
        inputs and read none to its end; with those of ``columns`` that the input has once. Not for streams."""
        return [partial(self._head, index, columns) for index in range(len(self._inputs))]

    def _head(self, index: int, columns: Sequence[str], batch_size: int) -> Iterator[RecordBatch]:
        with ExitStack() as stack:
            reader = self._open(index, stack, Position())[1]
            known = [column for column in columns if reader.names.count(column) == 1]
            reader.select(known)
            if known:
                yield from reader.batches(batch_size)

    def _reader(self, index: int, stack: ExitStack, done: Position) -> Reader:
        if index in self._opened:
            source, reader = self._opened.pop(index)
            reader.start_from(done, self._digest)
        elif not self._sources[index].is_file:
            raise ValueError(f"{self._sources[index].name} is a stream and was read already: pass a file.")
        else:
            source, reader = self._open(index, stack, done)
        self._files[index] = source.file
        return reader

    def go_to(self, done: Position) -> bool:
        """Let ``batches`` begin behind ``done``; False if what is before it has changed since."""
        self._digest = hashlib.sha256()
        if done.input >= len(self._inputs):
            return False
        for index in range(done.input):
            with ExitStack() as stack:
                stream = open_input(self._inputs[index], stack, self._formats[index] in TABLE_FORMATS).stream
                for block in iter(lambda stream=stream: stream.read(BATCH_BYTES), b""):  # type: ignore[misc]
                    self._digest.update(block)
        stack = self._stack.enter_context(ExitStack())
        source, reader = self._open(done.input, stack, done)
        if not reader.go_to(done):
            stack.close()
            return False
        self._opened[done.input], self._files[done.input], self._done = (source, reader), source.file, done
        return True

    def bytes_before(self, position: Position) -> int:
        """The bytes of all inputs before a position, for a progress bar; of a compressed input those read by now."""
        before = sum(source.size or 0 for source in self._sources[:position.input])
        file = self._files.get(position.input)
        if file is None:
            return before + position.input_bytes
        try:
            return before + file.tell()
        except ValueError:  # it was read to its end, and is closed
            return before + (self._sources[position.input].size or 0)


def _is_string(cell: Any) -> bool:
    """Whether a cell is a str that is not empty and no number."""
    if not isinstance(cell, str) or not cell.strip():
        return False
    try:
        float(cell)
    except ValueError:
        return True
    return False


def expand_patterns(inputs: PathOrStream | Sequence[PathOrStream]) -> list[PathOrStream]:
    """The inputs, with the files of each pattern in the order of their names.

    Raises ValueError for an empty list, and FileNotFoundError for a pattern that no file matches.
    """
    listed: list[Any] = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    if not listed:
        raise ValueError("input is an empty list, pass at least one file.")
    expanded: list[PathOrStream] = []
    for input in listed:
        is_pattern = isinstance(input, (str, os.PathLike)) and glob.has_magic(os.fspath(input))
        if not is_pattern or os.path.exists(input):
            expanded.append(input)
            continue
        files = sorted(path for path in glob.glob(os.fspath(input), recursive=True) if not os.path.isdir(path))
        if not files:
            raise FileNotFoundError(f"input {input} is a pattern that no file matches.")
        expanded += files
    return expanded

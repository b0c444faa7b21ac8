"""Files of texts to files of labels, with pyarrow (the extra ``files``): lines of text, CSV, TSV, JSON Lines, Parquet
and Arrow, those of lines plain or compressed by gzip or zstd. Records and results are those of dendritic-bert's
``classify_file``; an interrupted run starts over."""

from __future__ import annotations

import csv
import fcntl
import gzip
import io
import json
import os
import re
import shutil
import stat
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet

from .classifier import without_surrogates
from .lines import BATCH_SIZE, BLOCK_BYTES, decode, decode_lines, decode_whole_lines, in_batches, json_line

if TYPE_CHECKING:
    from .classifier import TextClassifier

SUFFIXES = {".txt": "text", ".text": "text", ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl",
            ".ndjson": "jsonl", ".json": "jsonl", ".parquet": "parquet", ".pq": "parquet", ".arrow": "arrow",
            ".feather": "arrow", ".ipc": "arrow"}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
MOST_FIELD_BYTES = 1 << 26
KEYED_OBJECTS = 1000  # of JSON Lines, whose keys are the names of the columns
NAMED_DELIMITER = r"sep=([ -!#-~\t])[\r\n]*"  # the whole first line of CSV, which Excel reads, too
SCHEMA = pa.schema([("text", pa.string()), ("label", pa.string()), ("score", pa.float32())])


def classify_file(classifier: TextClassifier, input: str | os.PathLike[str], output: str | os.PathLike[str] | IO[bytes],
                  column: str | None = None, threads: int | None = None) -> int:
    """Write text, label and score of each record of ``input`` to ``output``, in order, and return their number.

    The suffixes of the paths say what they hold; a stream takes lines of JSON. ``column`` holds the texts; None is the
    column that the model was trained on, where the input has it, or ``text``, or the only one of strings: the only key
    with a string in each of the first 1,000 objects of JSON Lines, the only column of CSV or TSV. A path gets its file
    when that is complete, with the mode and the owner of one that it replaces; a pipe or a device gets lines as they
    come. Bytes that are not UTF-8 become U+FFFD.

    Raises ValueError for what cannot be read, a record without text, a model of pairs without ``column``, a regression
    of several targets, a ``column`` of lines of text, or a file that is input and output; OSError if a file cannot be
    opened or written, or another process writes the output.
    """
    count, trained = 0, classifier.text_columns
    if column is None:
        classifier.expect_single_texts()
    classifier.expect_one_score()
    with ExitStack() as stack:
        batches = open_texts(Path(input), Columns(column, trained[0] if trained else None), stack)
        if isinstance(output, (str, os.PathLike)):
            write = stack.enter_context(_open_output(Path(output), Path(input)))
        else:
            write = LineWriter("jsonl", output)
        for texts in batches:
            numbers, scores = classifier.predict_array(texts, threads)
            labels = pa.array(classifier.labels).take(pa.array(numbers))
            write(pa.record_batch([texts, labels, scores.max(axis=1)], SCHEMA))
            count += len(texts)
    return count


# ---- input -----------------------------------------------------------------------------------------------------------


class Columns(NamedTuple):
    """The column of texts that is ``given``, or None, and the one that the model was ``trained`` on, if it is known."""

    given: str | None
    trained: str | None

    def choose(self, names: Collection[str], text_columns: Sequence[str]) -> str:
        """The one that is given; or else, of ``names``, the trained one, or ``text``, or the only one of
        ``text_columns``."""
        if self.given:
            return self.given
        if self.trained is not None and self.trained in names:
            return self.trained
        return "text" if "text" in names or len(text_columns) != 1 else text_columns[0]


def open_texts(path: Path, columns: Columns, stack: ExitStack) -> Iterator[pa.Array]:
    """The texts of a file in batches, as arrays of strings; ``stack`` closes it."""
    format, compression = kind_of("input", path)
    file = stack.enter_context(path.open("rb"))
    if compression == "gzip":  # pyarrow's reader fails at zeros behind a member, which gzip itself passes over
        stream: Any = stack.enter_context(gzip.GzipFile(fileobj=file, mode="rb"))
    else:
        stream = stack.enter_context(pa.input_stream(file, compression=compression))
    readers: dict[str, Callable[..., Iterator[Any]]] = {
        "text": _lines, "csv": _csv, "tsv": _tsv, "jsonl": _json_lines, "parquet": _parquet, "arrow": _arrow}
    batches = readers[format](stream, path, columns)

    def read() -> Iterator[pa.Array]:
        count = 0
        try:
            for texts in map(_as_strings, batches):
                if texts.null_count:
                    record = count + texts.is_null().to_pylist().index(True) + 1
                    raise ValueError(f"record {record} of {path} has no text: fill it or leave it out.")
                count += len(texts)
                if len(texts):
                    yield texts
        except (pa.ArrowException, EOFError, OSError, zlib.error) as error:
            first_line = str(error).partition("\n")[0].rstrip(".")
            raise ValueError(f"{path} cannot be read as {format} ({first_line}): give it the suffix of what it is, or "
                             "fetch it again if it is cut off.") from None

    return read()


def kind_of(which: str, path: Path) -> tuple[str, str | None]:
    """Format and compression that the suffixes of a path name."""
    compression = COMPRESSIONS.get(path.suffix.lower())
    suffix = (Path(path.stem) if compression else path).suffix.lower()
    format = SUFFIXES.get(suffix)
    if format is None or (compression and format in ("parquet", "arrow")):
        raise ValueError(f"the suffix of {which} {path} is none of {', '.join(SUFFIXES)}, or of these with "
                         f"{', '.join(COMPRESSIONS)} where they hold lines: rename or convert it.")
    return format, compression


def _lines(stream: Any, path: Path, columns: Columns) -> Iterator[pa.Array]:
    if columns.given not in (None, "text"):
        raise ValueError(f"column is {columns.given!r}, but {path} is read as lines of text, which have none: leave it "
                         "out, or give the file the suffix of what it is, such as .csv.")
    return _as_arrays(decode_lines(io.BufferedReader(stream, BLOCK_BYTES), path))


def _json_lines(stream: Any, path: Path, columns: Columns) -> Iterator[pa.Array]:
    records = _json_objects(stream, path)

    def texts() -> Iterator[str]:
        first = [] if columns.given else _first_objects(records)
        names = dict.fromkeys(key for _, record in first for key in record)
        key = columns.choose(names, [name for name in names
                                     if all(isinstance(record.get(name), str) for _, record in first)])
        for number, record in chain(first, records):
            text = record.get(key)
            if not isinstance(text, str):
                raise ValueError(f"line {number} of {path} has no text under {key!r}: mend it, or pass --column.")
            yield text if text.isascii() else without_surrogates(text)

    return _as_arrays(texts())


def _json_objects(stream: Any, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The number of each line that is not blank, and its object; {} for another value."""
    for number, line in enumerate(decode_lines(io.BufferedReader(stream, BLOCK_BYTES), path), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number} of {path} is not JSON ({error}): mend it.") from None
        yield number, record if isinstance(record, dict) else {}


def _first_objects(records: Iterator[tuple[int, dict[str, Any]]]) -> list[tuple[int, dict[str, Any]]]:
    """The objects whose keys are the names of the columns; fewer of very long ones."""
    first, size = [], 0
    for record in islice(records, KEYED_OBJECTS):
        first.append(record)
        size += sum(len(value) for value in record[1].values() if isinstance(value, str))
        if size > BLOCK_BYTES:
            break
    return first


def _csv(stream: Any, path: Path, columns: Columns) -> Iterator[pa.Array]:
    # pyarrow's reader is faster, but takes `"a"b` for ab, and what follows a quote that is never closed for one field.
    csv.field_size_limit(max(csv.field_size_limit(), MOST_FIELD_BYTES))
    lines = decode_whole_lines(io.BufferedReader(stream, BLOCK_BYTES), path)
    first = next(lines, "")
    named = re.fullmatch(NAMED_DELIMITER, first)
    delimiter, before = (named[1], 1) if named else (",", 0)
    rows = csv.reader(lines if named else chain([first], lines), delimiter=delimiter, strict=True)

    def read() -> Iterator[tuple[int, list[str]]]:
        try:
            for row in rows:
                yield before + rows.line_num, row
        except csv.Error as error:
            number = before + rows.line_num
            raise ValueError(f"line {number} of {path} is not CSV ({error}): mend its quotes.") from None

    yield from _of_fields(read(), path, columns, delimiter)


def _tsv(stream: Any, path: Path, columns: Columns) -> Iterator[pa.Array]:
    lines = decode_lines(io.BufferedReader(stream, BLOCK_BYTES), path)
    rows = ((number, line.split("\t") if line else []) for number, line in enumerate(lines, 1))
    yield from _of_fields(rows, path, columns, "\t")


def _of_fields(rows: Iterator[tuple[int, list[str]]], path: Path, columns: Columns,
               delimiter: str) -> Iterator[pa.Array]:
    """The texts of a table, of which each row comes with the number of its last line; the first has the names.

    Raises ValueError for a header that is one column, where another delimiter would make several of it.
    """
    whole = ((number, row) for number, row in rows if row)
    _, names = next(whole, (0, []))
    others = [other for other in ";\t|," if other != delimiter and other in names[0]] if len(names) == 1 else []
    if others and names[0] not in columns:
        likely, wanted = max(others, key=names[0].count), "tabs" if delimiter == "\t" else "commas"
        raise ValueError(f"{path} has a header of one column, {names[0]!r:.60}, whose names {likely!r} seems to "
                         f"separate: save it with {wanted}, or use dendritic-bert classify --input-format csv "
                         f"--delimiter {likely!r}.")
    place = names.index(_choose(names, names, columns, path))

    def texts() -> Iterator[str]:
        for number, row in whole:
            if len(row) != len(names):
                raise ValueError(f"line {number} of {path} ends a record of {len(row)} fields, the header has "
                                 f"{len(names)}: mend it.")
            yield row[place]

    return _as_arrays(texts())


def _parquet(stream: Any, path: Path, columns: Columns) -> Iterator[pa.Array]:
    file = pa.parquet.ParquetFile(stream)
    name = _choose(file.schema_arrow.names, _text_columns(file.schema_arrow), columns, path)
    for batch in file.iter_batches(BATCH_SIZE, columns=[name]):
        yield batch.column(name)  # beside it is a leaf of another column whose path it is


def _arrow(stream: Any, path: Path, columns: Columns) -> Iterator[pa.Array]:
    if stream.read(6) == b"ARROW1":
        file = pa.ipc.open_file(stream)
        batches = map(file.get_batch, range(file.num_record_batches))
    else:
        stream.seek(0)
        file = batches = pa.ipc.open_stream(stream)
    name = _choose(file.schema.names, _text_columns(file.schema), columns, path)
    for batch in batches:
        yield batch.column(name)


def _as_arrays(texts: Iterator[str]) -> Iterator[pa.Array]:
    return (pa.array(batch, pa.string()) for batch in in_batches(texts))


def _as_strings(texts: pa.Array) -> pa.Array:
    """The texts as an array of strings, in which each byte that is not UTF-8 has become U+FFFD.

    Raises ArrowException where offsets or indices lead elsewhere, which no reader of these formats checks.
    """
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid as error:
        if "UTF8" not in str(error):
            raise
        if pa.types.is_dictionary(texts.type):  # whose indices come behind its strings, and are checked here
            texts = pa.DictionaryArray.from_arrays(texts.indices, texts.dictionary.cast(pa.large_binary()))
            texts = texts.dictionary_decode()
        cells = texts.cast(pa.large_binary()).to_pylist()
        return pa.array([None if cell is None else decode(cell) for cell in cells], pa.string())
    return texts.cast(pa.string())


def _text_columns(schema: pa.Schema) -> list[str]:
    """The columns that hold strings, dictionaries of strings included."""
    types = {field.name: field.type.value_type if pa.types.is_dictionary(field.type) else field.type
             for field in schema}
    return [name for name, type in types.items() if str(type) in ("string", "large_string", "string_view")]


def _choose(names: list[str], text_columns: list[str], columns: Columns, path: Path) -> str:
    """The column of the texts. Raises ValueError where there is none of its name, or none of strings."""
    wanted = columns.choose(names, text_columns)
    if names.count(wanted) != 1 or wanted not in text_columns:
        raise ValueError(f"{path} has no column {wanted!r} of texts, or two of them; columns that may hold texts: "
                         f"{', '.join(text_columns) or 'none'}. Pass --column.")
    return wanted


# ---- output ----------------------------------------------------------------------------------------------------------

Write = Callable[[pa.RecordBatch], object]


class LineWriter:
    """Writes records as lines of JSON, CSV or TSV to a stream."""

    def __init__(self, format: str, stream: IO[bytes]):
        self._stream, self._make_line = stream, _LINES[format]
        if format != "jsonl":
            stream.write(("\t" if format == "tsv" else ",").join(SCHEMA.names).encode() + b"\n")

    def __call__(self, batch: pa.RecordBatch) -> None:
        cells = zip(*(column.to_pylist() for column in batch.columns))
        self._stream.write("".join(self._make_line(*record) for record in cells).encode())
        self._stream.flush()


def _csv_line(text: str, label: str, score: float) -> str:
    def quote(field: str) -> str:
        return '"' + field.replace('"', '""') + '"'

    must_be_quoted = not label or re.search('[",\r\n]', label)
    return f"{quote(text)},{quote(label) if must_be_quoted else label},{score:.6f}\n"


def _tsv_line(text: str, label: str, score: float) -> str:
    return "\t".join(re.sub("[\t\r\n]", " ", field) for field in (text, label)) + f"\t{score:.6f}\n"


_LINES = {"jsonl": json_line, "csv": _csv_line, "tsv": _tsv_line}


@contextmanager
def _open_output(path: Path, input: Path) -> Iterator[Write]:
    """What writes records to ``path``, which has them when all are there; a pipe or a device has them at once."""
    format, compression = kind_of("output", path)
    target = Path(os.path.realpath(path))  # a link stays a link
    if target.is_dir():
        raise IsADirectoryError(f"output {path} is a folder: name a file.")
    if target.exists() and target.samefile(input):
        raise ValueError(f"output {path} is the input, choose another.")
    is_file = target.is_file() or not target.exists()
    if not is_file and format in ("parquet", "arrow"):
        raise ValueError(f"output {path} is a pipe or a device, which takes no {format}: name a file, or write lines.")
    opened: AbstractContextManager[IO[bytes]] = _replacing(target, path) if is_file else target.open("wb")
    with ExitStack() as stack:
        file = stack.enter_context(opened)
        if format == "parquet":
            yield stack.enter_context(pa.parquet.ParquetWriter(file, SCHEMA)).write_batch
        elif format == "arrow":
            yield stack.enter_context(pa.ipc.new_file(file, SCHEMA)).write_batch
        else:
            stream = stack.enter_context(pa.output_stream(file, compression=compression))
            yield LineWriter("jsonl" if format == "text" else format, stream)


@contextmanager
def _replacing(target: Path, name: Path) -> Iterator[IO[bytes]]:
    """A file beside ``target``, which takes its place at the end, with its mode and its owner, and is removed after an
    error. The next run writes over what a killed one has left; ``name`` is that of the output in messages."""
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(f"output {name} is write-protected, choose another path.")
    unfinished = target.with_name(f".{target.name}.tmp")
    try:
        held = unfinished.open("ab")  # not truncated, because it may be another run's
    except OSError as error:
        raise OSError(f"output {name} cannot be written ({error.strerror}): name a file that can.") from None
    with held:
        if not _is_ours_alone(held, unfinished):
            raise BlockingIOError(f"output {name} is being written by another process, wait for it or choose another "
                                  "path.")
        try:
            held.truncate(0)
            has_owner = not target.exists() or _take_over(target, unfinished)
            with open(os.dup(held.fileno()), "wb") as file:  # pyarrow closes what it writes to
                yield file
            os.fsync(held.fileno())
            if has_owner:
                os.replace(unfinished, target)
            else:
                shutil.copyfile(unfinished, target)
                unfinished.unlink()
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise


def _is_ours_alone(file: IO[bytes], path: Path) -> bool:
    """Lock the file at ``path``; False if another run has it, or has just given it the name of its output."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # of a file system without locks, where a second run is not noticed
        pass
    return path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())


def _take_over(old: Path, new: Path) -> bool:
    """Give ``new`` the mode and the owner of ``old``; False if it cannot have the same owner."""
    status = old.stat()
    os.chmod(new, stat.S_IMODE(status.st_mode))
    try:
        os.chown(new, status.st_uid, status.st_gid)
    except PermissionError:
        return False
    return True

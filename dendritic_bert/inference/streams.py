"""Inputs of every kind as streams of UTF-8: files, standard input, and any object that can be read.

A text stream is read and written as text, with its own position and encoding. A binary stream holds UTF-8.
"""

from __future__ import annotations

import codecs
import gzip
import io
import os
import shutil
import stat
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

from .file_formats import HEAD_BYTES, compression_of_bytes, encoding_of, refuse_foreign_bytes

PathOrStream: TypeAlias = "str | os.PathLike[str] | BinaryIO | io.TextIOBase"
CHUNK = 1 << 16

# What cannot be decoded becomes a lone surrogate, which valid text never holds, and this becomes a byte that is not
# UTF-8. Thus the reader, which reads UTF-8, counts what could not be decoded in any encoding.
UNDECODABLE = "\udcff"
codecs.register_error("dendritic_bert_undecodable", lambda error: (UNDECODABLE, error.end))  # type: ignore[attr-defined]


class Input(NamedTuple):
    """An opened input: UTF-8 bytes with ``readline``, ``read`` and, if ``is_file``, ``seek(0)``.

    size: the bytes of the file, None if unknown. is_file: whether it can be read again from its start. status: that of
    the file which is read, None if there is none. file: the file as it is, if ``stream`` gives other bytes than it
    holds, decompressed or decoded; else None.
    """

    stream: BinaryIO
    name: str
    size: int | None
    is_file: bool
    status: os.stat_result | None
    file: BinaryIO | None = None


def open_input(input: PathOrStream, stack: ExitStack, is_table: bool = False) -> Input:
    """Open a path, "-" for standard input, or a stream; ``stack`` closes what is opened here.

    gzip and zstd are decompressed if the first bytes are theirs. UTF-16 and UTF-32 are decoded if a byte order mark
    names them. With ``is_table`` the bytes stay as they are, and the stream can be moved about in: what comes through a
    pipe lies in a temporary file. Raises OSError if the input cannot be read, ValueError if its first bytes are not
    those of a text, and TypeError for what is neither a path nor a stream.
    """
    opened = _table if is_table else _opened
    if isinstance(input, str) and input == "-":
        if sys.stdin is None:
            raise OSError("standard input is closed: pass a file.")
        bytes_of_it = getattr(sys.stdin, "buffer", sys.stdin)
        return opened(bytes_of_it if is_table else _standard_input(), "standard input", stack)
    if not isinstance(input, (str, os.PathLike)):
        return opened(input, "input", stack)
    descriptor = descriptor_of(input)
    try:
        stream = stack.enter_context(open(input if descriptor is None else os.dup(descriptor), "rb"))  # noqa: SIM115
    except FileNotFoundError:
        raise FileNotFoundError(f"input {input} does not exist.") from None
    except IsADirectoryError:
        folder = os.fspath(input).rstrip("/")
        raise IsADirectoryError(f"input {input} is a folder: pass its files, such as '{folder}/*.csv'.") from None
    except OSError as error:
        raise type(error)(f"input {input} cannot be read ({error.strerror}).") from None
    source = opened(stream, str(input), stack)
    if descriptor is not None or not Path(input).is_file():
        return source
    return source._replace(size=os.fstat(stream.fileno()).st_size, is_file=True,
                           file=None if source.stream is stream else stream)


def descriptor_of(path: str | os.PathLike[str]) -> int | None:
    """The open file of this process for which ``path`` stands, as /dev/stdout and >(program) do; None for other paths.

    Opening such a path by its name would start at the beginning of a file, even one that was opened to append to it.
    """
    name = os.path.abspath(path)
    folders = ("/dev/fd", os.path.realpath("/proc/self/fd"))
    for _ in range(40):  # Linux follows as many links
        folder, number = os.path.split(name)
        if number.isdecimal() and (folder in folders or os.path.realpath(folder) in folders):
            return int(number)
        if not os.path.islink(name):
            return None
        name = os.path.join(folder, os.readlink(name))
    return None


def gives_text(stream: Any) -> bool:
    """Whether a stream is read as str; found out of one that is not of ``io`` by reading 0 characters."""
    is_text = _is_text_stream(stream)
    if is_text is None:
        return isinstance((stream.read if hasattr(stream, "read") else stream.readline)(0), str)
    return is_text


def takes_text(stream: Any) -> bool:
    """Whether a stream is written as str; found out of one that is not of ``io`` by writing an empty str."""
    is_text = _is_text_stream(stream)
    if is_text is None:
        try:
            stream.write("")
        except TypeError:  # it takes bytes
            return False
    return is_text is not False


def _is_text_stream(stream: Any) -> bool | None:
    if isinstance(stream, (io.TextIOBase, codecs.StreamReader, codecs.StreamWriter, codecs.StreamReaderWriter)):
        return True
    return False if isinstance(stream, (io.RawIOBase, io.BufferedIOBase)) else None


def _standard_input() -> Any:
    """The bytes of standard input; or standard input as text if a program has replaced it, if the environment sets its
    encoding, or if some of it was read already and is in its buffer."""
    stream = sys.stdin
    if is_as_started(stream, sys.__stdin__):
        try:
            stream.reconfigure(errors=stream.errors)  # type: ignore[union-attr]  # raises if text was read ahead
        except (io.UnsupportedOperation, AttributeError):
            return stream
        return stream.buffer
    return stream


def is_as_started(stream: Any, started: Any) -> bool:
    """Whether a standard stream is still the interpreter's own, ``started``, with the default encoding."""
    return stream is started and hasattr(stream, "buffer") and "PYTHONIOENCODING" not in os.environ


def _opened(stream: Any, name: str, stack: ExitStack) -> Input:
    status = _begin(stream, name)
    if gives_text(stream):
        return Input(_as_utf8(lambda: _read_text(stream, name)), name, None, False, status)
    stream, head = _with_head(stream, stack)
    compression = compression_of_bytes(head)
    if compression is not None:
        stream, head = _with_head(_decompressed(stream, name, compression), stack)
    encoding = encoding_of(head)
    if encoding is None:
        refuse_foreign_bytes(head, name)
        return Input(stream, name, None, False, status)
    start = stream.tell() if stream.seekable() else None
    return Input(_as_utf8(lambda: _decode(stream, start, encoding)), name, None, False, status)


def _table(stream: Any, name: str, stack: ExitStack) -> Input:
    status = _begin(stream, name)
    if gives_text(stream):
        raise TypeError(f"{name} is a stream of text, but a table is bytes: open it in binary mode.")
    if not (hasattr(stream, "seekable") and stream.seekable()):
        copy = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        shutil.copyfileobj(stream, copy, CHUNK)
        stream = copy
    return Input(stream, name, None, False, status)


def _begin(stream: Any, name: str) -> os.stat_result | None:
    """The status of the file of a stream that is to be read, None if it has no file; its reads wait from now on.

    Those of a pipe that does not wait, as ssh and asyncio leave one, give b"" for what is not there yet, as they do at
    the end. A socket that is not standard input is one of Python's, which waits as long as its timeout says. Raises
    TypeError for what cannot be read.
    """
    if not hasattr(stream, "readline") and not hasattr(stream, "read"):
        raise TypeError(f"{name} is a {type(stream).__name__}, pass a path or a stream that can be read.")
    status = status_of(stream)
    if status is not None and (stream.fileno() == 0 or not stat.S_ISSOCK(status.st_mode)):
        with suppress(AttributeError, OSError):  # of systems where a pipe always waits
            os.set_blocking(stream.fileno(), True)
    return status


def _decompressed(stream: Any, name: str, compression: str) -> BinaryIO:
    """The stream as it was before it was compressed; ``seek(0)`` goes back to its start."""
    start = stream.tell() if stream.seekable() else None

    def parts() -> Iterator[bytes]:
        if start is not None:
            stream.seek(start)
        try:
            with _DECOMPRESSORS[compression](stream) as file:
                yield from iter(partial(file.read, CHUNK), b"")
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{name} is not whole, its {compression} cannot be decompressed "
                             f"({str(error).rstrip('.')}): fetch it again.") from None

    return io.BufferedReader(_Adapter(parts), CHUNK)


def _open_zstd(stream: Any) -> Any:
    import pyarrow

    return pyarrow.CompressedInputStream(pyarrow.PythonFile(_KeptOpen(stream), "r"), "zstd")


_DECOMPRESSORS: dict[str, Callable[[Any], Any]] = {
    "gzip": lambda stream: gzip.GzipFile(fileobj=stream, mode="rb"), "zstd": _open_zstd}


class _KeptOpen:
    """A stream that pyarrow may read, but not close."""

    def __init__(self, stream: Any):
        self.stream, self.closed = stream, False

    def read(self, size: int) -> bytes:
        return self.stream.read(size)

    def close(self) -> None:
        pass


def status_of(stream: Any) -> os.stat_result | None:
    """The status of the file of a stream, None if it has no file."""
    try:
        return os.fstat(stream.fileno())
    except (AttributeError, OSError, TypeError, ValueError):
        return None


def _with_head(stream: Any, stack: ExitStack) -> tuple[Any, bytes]:
    """The stream, wrapped if necessary so that it can be peeked at, and its first bytes."""
    if not hasattr(stream, "peek"):
        if hasattr(stream, "seekable") and stream.seekable():
            start = stream.tell()
            head = stream.read(HEAD_BYTES)
            stream.seek(start)
            return stream, head
        stream = io.BufferedReader(_Adapter(lambda: iter(partial(some_bytes, stream), b"")))
    return stream, stream.peek(HEAD_BYTES)[:HEAD_BYTES]


def some_bytes(stream: Any, size: int = CHUNK) -> bytes:
    """The next bytes; if the stream has a method for it, without waiting for more than are available."""
    if isinstance(stream, io.RawIOBase):  # its readline takes a byte at a time
        return stream.read(size) or b""
    read = next(getattr(stream, name) for name in ("read1", "readline", "read") if hasattr(stream, name))
    return read(size)


def _as_utf8(texts: Callable[[], Iterator[str]]) -> BinaryIO:
    return io.BufferedReader(_Adapter(lambda: map(_to_utf8, texts())))


def _to_utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate, or a pair of them, which stands for one character
        marked = text.encode("utf-16", "surrogatepass").decode("utf-16", "dendritic_bert_undecodable")
        return marked.encode("utf-8", "surrogateescape")


def _read_text(stream: Any, name: str) -> Iterator[str]:
    # The readers of codecs also end a line at U+2028 and others.
    by_line = hasattr(stream, "readline") and not isinstance(stream, (codecs.StreamReader, codecs.StreamReaderWriter))
    read = partial(stream.readline if by_line else stream.read, CHUNK)
    try:
        yield from iter(read, "")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not in its encoding, {error.encoding} ({error.reason}): open it with the one that "
                         "it has, or with errors='replace'.") from None


def _decode(stream: Any, start: int | None, encoding: str) -> Iterator[str]:
    if start is not None:
        stream.seek(start)
    decoder = codecs.getincrementaldecoder(encoding)("dendritic_bert_undecodable")
    for block in iter(partial(some_bytes, stream), b""):
        yield decoder.decode(block)
    yield decoder.decode(b"", final=True)


class _Adapter(io.RawIOBase):
    """The bytes that ``parts()`` gives, as a stream; ``seek(0)`` calls ``parts()`` again."""

    def __init__(self, parts: Callable[[], Iterator[bytes]]):
        self._parts = parts
        self._start()

    def _start(self) -> None:
        self._iterator, self._rest, self._position = self._parts(), b"", 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if (offset, whence) != (0, os.SEEK_SET):
            raise io.UnsupportedOperation("only back to the start")
        self._start()
        return 0

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            part = next(self._iterator, None)
            if part is None:
                return 0
            self._rest = part
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        self._position += count
        return count

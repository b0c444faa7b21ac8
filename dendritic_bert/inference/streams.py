"""Where bytes come from and go to: files, standard streams, and whatever a program hands over that reads or writes.

Text streams are read and written as text, with their own position and encoding; binary ones hold UTF-8.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

from .file_formats import HEAD_BYTES, encoding_of, refuse_foreign_bytes

PathOrStream: TypeAlias = "str | os.PathLike[str] | BinaryIO | io.TextIOBase"
CHUNK = 1 << 16

# What cannot be decoded becomes a lone surrogate, which stands in no valid text, and that a byte that is not UTF-8. So
# the reader of UTF-8 counts what was undecodable in any encoding.
UNDECODABLE = "\udcff"
codecs.register_error("dendritic_bert_undecodable", lambda error: (UNDECODABLE, error.end))  # type: ignore[attr-defined]


class Input(NamedTuple):
    """An opened input: UTF-8 bytes with ``readline``, ``read`` and, where ``is_file``, ``seek(0)``.

    size: of ``stream`` in bytes, None where it is not known. is_file: it can be read again from its start. status: of
    the file behind it, None where there is none.
    """

    stream: BinaryIO
    name: str
    size: int | None
    is_file: bool
    status: os.stat_result | None


def open_input(input: PathOrStream, stack: ExitStack) -> Input:
    """Open a path, "-" for standard input, or a stream; what is opened is closed by ``stack``.

    UTF-16 and UTF-32 are decoded where a byte order mark names them. Raises OSError where it cannot be read, ValueError
    where its first bytes are those of no text, TypeError for what is neither a path nor a stream.
    """
    if isinstance(input, str) and input == "-":
        if sys.stdin is None:
            raise OSError("standard input is closed: pass a file.")
        return _opened(_standard_input(), "standard input", stack)
    if not isinstance(input, (str, os.PathLike)):
        return _opened(input, "input", stack)
    descriptor = descriptor_of(input)
    try:
        stream = stack.enter_context(open(input if descriptor is None else os.dup(descriptor), "rb"))  # noqa: SIM115
    except FileNotFoundError:
        raise FileNotFoundError(f"input {input} does not exist.") from None
    except OSError as error:
        raise type(error)(f"input {input} cannot be read ({error.strerror}).") from None
    opened = _opened(stream, str(input), stack)
    if descriptor is not None or not Path(input).is_file():
        return opened
    size = None if opened.stream is not stream else os.fstat(stream.fileno()).st_size
    return opened._replace(size=size, is_file=True)


def descriptor_of(path: str | os.PathLike[str]) -> int | None:
    """The open file of this process that ``path`` stands for, as /dev/stdout and >(program) do; None for other paths.

    To open such a path by its name would start at the beginning of a file that was opened to go on at its end.
    """
    name = os.path.abspath(path)
    folders = ("/dev/fd", os.path.realpath("/proc/self/fd"))
    for _ in range(40):  # as many links as Linux follows
        folder, number = os.path.split(name)
        if number.isdecimal() and (folder in folders or os.path.realpath(folder) in folders):
            return int(number)
        if not os.path.islink(name):
            return None
        name = os.path.join(folder, os.readlink(name))
    return None


def gives_text(stream: Any) -> bool:
    """Whether a stream is read as str; one that is not of ``io`` is asked for nothing."""
    is_text = _is_text_stream(stream)
    if is_text is None:
        return isinstance((stream.read if hasattr(stream, "read") else stream.readline)(0), str)
    return is_text


def takes_text(stream: Any) -> bool:
    """Whether a stream is written as str; one that is not of ``io`` is given nothing."""
    is_text = _is_text_stream(stream)
    if is_text is None:
        try:
            stream.write("")
        except TypeError:  # of those that take bytes
            return False
    return is_text is not False


def _is_text_stream(stream: Any) -> bool | None:
    if isinstance(stream, (io.TextIOBase, codecs.StreamReader, codecs.StreamWriter, codecs.StreamReaderWriter)):
        return True
    return False if isinstance(stream, (io.RawIOBase, io.BufferedIOBase)) else None


def _standard_input() -> Any:
    """The bytes beneath standard input, or standard input as text: where a program has replaced it, the environment
    says its encoding, or some of it was read already and stands in its buffer."""
    stream = sys.stdin
    if is_as_started(stream, sys.__stdin__):
        try:
            stream.reconfigure(errors=stream.errors)  # type: ignore[union-attr]  # refused where text was read ahead
        except (io.UnsupportedOperation, AttributeError):
            return stream
        return stream.buffer
    return stream


def is_as_started(stream: Any, started: Any) -> bool:
    """Whether a standard stream is the interpreter's own, ``started``, with an encoding that nobody chose."""
    return stream is started and hasattr(stream, "buffer") and "PYTHONIOENCODING" not in os.environ


def _opened(stream: Any, name: str, stack: ExitStack) -> Input:
    if not hasattr(stream, "readline") and not hasattr(stream, "read"):
        raise TypeError(f"{name} is a {type(stream).__name__}, pass a path or a stream that can be read.")
    status = status_of(stream)
    if gives_text(stream):
        return Input(_as_utf8(lambda: _read_text(stream, name)), name, None, False, status)
    stream, head = _with_head(stream, stack)
    encoding = encoding_of(head)
    if encoding is None:
        refuse_foreign_bytes(head, name)
        return Input(stream, name, None, False, status)
    start = stream.tell() if stream.seekable() else None
    return Input(_as_utf8(lambda: _decode(stream, start, encoding)), name, None, False, status)


def status_of(stream: Any) -> os.stat_result | None:
    """What the system says of the file behind a stream, None where there is none."""
    try:
        return os.fstat(stream.fileno())
    except (AttributeError, OSError, TypeError, ValueError):
        return None


def _with_head(stream: Any, stack: ExitStack) -> tuple[Any, bytes]:
    """The stream, wrapped where it needs it, and what it will give first."""
    if not hasattr(stream, "peek"):
        if hasattr(stream, "seekable") and stream.seekable():
            start = stream.tell()
            head = stream.read(HEAD_BYTES)
            stream.seek(start)
            return stream, head
        stream = io.BufferedReader(_Adapter(lambda: iter(partial(_some_bytes, stream), b"")))
    return stream, stream.peek(HEAD_BYTES)[:HEAD_BYTES]


def _some_bytes(stream: Any) -> bytes:
    """The next bytes, without waiting for more than there are where the stream can say that."""
    read = next(getattr(stream, name) for name in ("read1", "readline", "read") if hasattr(stream, name))
    return read(CHUNK)


def _as_utf8(texts: Callable[[], Iterator[str]]) -> BinaryIO:
    return io.BufferedReader(_Adapter(lambda: map(_to_utf8, texts())))


def _to_utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate, or a pair of them, which is a character
        marked = text.encode("utf-16", "surrogatepass").decode("utf-16", "dendritic_bert_undecodable")
        return marked.encode("utf-8", "surrogateescape")


def _read_text(stream: Any, name: str) -> Iterator[str]:
    # Those of codecs end a line at U+2028 and others too.
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
    for block in iter(partial(_some_bytes, stream), b""):
        yield decoder.decode(block)
    yield decoder.decode(b"", final=True)


class _Adapter(io.RawIOBase):
    """The bytes that ``parts()`` gives, as a stream; ``seek(0)`` calls it anew."""

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

"""Opens what results are written to: a stream, or a file that can be resumed."""

from __future__ import annotations

import io
import os
import stat
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ..system_errors import NO_SPACE
from .file_formats import compression_of
from .output_files import finish_of
from .records import Position
from .resumable_output import NotWritableHere, ResumableOutput
from .streams import PathOrStream, descriptor_of, is_as_started, status_of, takes_text


class StreamOutput:
    """An output that is a stream: flushed after every batch, for whoever reads the other end, and never resumed."""

    done = None

    def __init__(self, stream: Any, name: str, format: str):
        self.stream, self.name = stream, name
        self._takes_text = takes_text(stream)
        if format == "parquet" or (format == "arrow" and self._takes_text):
            raise ValueError(f"{name} is a stream, which takes no {format}: name a file, or pass format "
                             f"{'arrow and a binary stream' if format == 'arrow' else 'arrow'}.")

    def begin(self, position: Position, header: bytes) -> None:
        """Write ``header``; ``position`` is ignored, because a stream is not resumed."""
        self.write(header, position)

    def write(self, rows: bytes, position: Position) -> None:
        """Append the lines or rows of one batch, or what parts have left of them."""
        self.write_part(rows)
        if hasattr(self.stream, "flush"):
            self.stream.flush()

    def write_part(self, rows: bytes) -> None:
        """Append some bytes of one batch, which end where a character does."""
        if self._takes_text:
            self._write_text(rows.decode())
        else:
            self._write_bytes(rows)

    def _write_text(self, lines: str) -> None:
        try:
            self.stream.write(lines)
        except UnicodeEncodeError as error:
            character = error.object[error.start]
            raise ValueError(f"{self.name} is a stream in {error.encoding}, which has no {character!a}: open it with "
                             "encoding='utf-8'.") from None

    def _write_bytes(self, data: bytes) -> None:
        while data:
            count = self.stream.write(data)
            if count is None and isinstance(self.stream, io.RawIOBase):
                raise BlockingIOError(f"{self.name} takes no more at the moment: pass a stream that waits.")
            data = data[count:] if isinstance(count, int) else b""  # a raw stream may take only a part

    def __enter__(self) -> StreamOutput:
        return self

    def __exit__(self, *error: object) -> None:
        if hasattr(self.stream, "flush"):
            self.stream.flush()


def open_output(
    output: PathOrStream | None, format: str, inputs: dict[tuple[int, int], str], run: dict[str, Any], resume: bool,
    overlap: bool, stack: ExitStack,
) -> StreamOutput | ResumableOutput:
    """Open ``output``: a path, "-" or None for standard output, or a stream; ``stack`` closes it.

    A path gets what its suffix and ``format`` ask for; a stream takes lines, and Arrow as a stream of Arrow.

    ``inputs`` maps the ``file_id`` of each file that must not be written to its name; ``run``, ``resume`` and
    ``overlap`` are those of ``ResumableOutput``. Raises OSError if the output cannot be written, ValueError if it is
    one of ``inputs``, and TypeError for what is neither a path nor a stream.
    """
    stack.enter_context(_naming_the_output(output))  # entered first, so that it also sees errors of closing
    descriptor = descriptor_of(output) if isinstance(output, (str, os.PathLike)) and output != "-" else None
    if descriptor is None and isinstance(output, (str, os.PathLike)) and output != "-":
        sink = _open_path(output, format, inputs, run, resume, overlap, stack)
    else:
        sink = _open_stream(output, descriptor, format, stack)
        if file_id(status_of(sink.stream)) in inputs:
            raise ValueError(f"{sink.name} is the input, choose another.")
    stack.enter_context(sink)  # type: ignore[arg-type]
    return sink


def file_id(status: os.stat_result | None) -> tuple[int, int] | None:
    """Device and inode of a regular file, which are the same under all of its names; None for anything else."""
    return (status.st_dev, status.st_ino) if status is not None and stat.S_ISREG(status.st_mode) else None


def _open_stream(output: Any, descriptor: int | None, format: str, stack: ExitStack) -> StreamOutput:
    if sys.stdout is not None:
        sys.stdout.flush()  # so that what the program has printed comes first
    if descriptor is not None:
        return StreamOutput(stack.enter_context(open(os.dup(descriptor), "wb")), f"output {output}", format)
    if output is None or isinstance(output, str):
        if sys.stdout is None:
            raise OSError("standard output is closed: pass the path of an output.")
        binary = is_as_started(sys.stdout, sys.__stdout__)
        return StreamOutput(sys.stdout.buffer if binary else sys.stdout, "standard output", format)
    if not hasattr(output, "write"):
        raise TypeError(f"output is a {type(output).__name__}, pass a path or a stream that can be written.")
    return StreamOutput(output, "output", format)


def _open_path(output: str | os.PathLike[str], format: str, inputs: dict[tuple[int, int], str], run: dict[str, Any],
               resume: bool, overlap: bool, stack: ExitStack) -> StreamOutput | ResumableOutput:
    path = Path(os.path.realpath(output))  # a link stays a link
    if path.is_dir():
        raise IsADirectoryError(f"output {output} is a directory, name a file.")
    if path.exists() and not path.is_file():  # a pipe or a device
        _refuse_compression(output, "is no file")
        return StreamOutput(stack.enter_context(open(path, "wb")), f"output {output}", format)
    for written in (path, *ResumableOutput.beside(path)):
        name = inputs.get(file_id(written.stat())) if written.exists() else None  # type: ignore[arg-type]
        if name is not None:
            how = "is" if written == path else f"keeps what it has so far in {written}, which is"
            raise ValueError(f"output {output} {how} {name}, choose another path.")
    try:
        return ResumableOutput(path, run, resume, finish_of(output, format), overlap)
    except NotWritableHere as error:
        _refuse_compression(output, str(error))
        warnings.warn(f"output {output} is written in place and not resumed: {error}.", stacklevel=5)
        return StreamOutput(stack.enter_context(open(path, "wb")), f"output {output}", format)


def _refuse_compression(output: str | os.PathLike[str], why: str) -> None:
    if compression_of(output):
        raise ValueError(f"output {output} cannot be compressed in place ({why}): choose another path.")


@contextmanager
def _naming_the_output(output: PathOrStream | None) -> Iterator[None]:
    """Name the output in the error of a write that found no room, which does not name it itself."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        name = "standard output" if output is None or output == "-" else output
        raise OSError(f"output {name} cannot be written ({error.strerror}): make room for it.") from error

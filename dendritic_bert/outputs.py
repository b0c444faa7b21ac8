"""Where results go: a stream, or a file that a killed run can go on with.

A file is written to ``OUTPUT.partial``. About once a second the partial is made durable and ``OUTPUT.partial.json``,
the journal, is replaced by one that says how far it has come. The next run with the same input, model and options cuts
the partial back to what the journal vouches for and goes on from there. The finished file gets its name by a rename.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from .checkpoints import NO_SPACE
from .records import PathOrStream, Position, binary_stream

try:
    import fcntl
except ImportError:  # Windows has no flock: there, two runs into one output are not noticed
    fcntl = None  # type: ignore[assignment]

JOURNAL_SECONDS = 1.0  # a journal costs two fsyncs, some ms


class StreamOutput:
    """A binary stream, flushed after every batch so that what reads the other end can go on."""

    done = None

    def __init__(self, stream: BinaryIO):
        self.stream = stream

    def begin(self, position: Position, header: bytes) -> None:
        """Write ``header``; ``position`` is the reader's, which a stream has no use for."""
        self.stream.write(header)

    def write(self, data: bytes, position: Position) -> None:
        """Append the lines of one batch."""
        self.stream.write(data)
        self.stream.flush()

    def __enter__(self) -> StreamOutput:
        return self

    def __exit__(self, *error: object) -> None:
        self.stream.flush()


class FileOutput:
    """A file that appears whole under its name, with a journal to resume it by; a context manager.

    ``run`` is what must be the same in a resumed run: name -> JSON value. ``done`` is the position an earlier
    run vouches for, None where there is nothing to go on with or ``resume`` is False. Leaving the context finishes the
    file, or after an exception saves the journal. Raises OSError where ``path`` cannot be written, ValueError where an
    earlier run was another.
    """

    def __init__(self, path: Path, run: dict[str, Any], resume: bool):
        self.path, self.run = path, run
        self.partial, self.journal = Path(f"{path}.partial"), Path(f"{path}.partial.json")
        try:
            # Neither truncated, since it may be resumed, nor in append mode, since it is cut back.
            self._file = open(os.open(self.partial, os.O_RDWR | os.O_CREAT, 0o666), "r+b")  # noqa: SIM115
        except OSError as error:
            raise type(error)(f"output {path} cannot be written ({error.strerror}), choose another path.") from None
        try:
            self._lock()
            self.done = self._read_journal() if resume else None
        except BaseException:
            self._file.close()
            raise
        self._position: Position | None = None
        self._saved_at = 0.0

    def begin(self, position: Position, header: bytes) -> None:
        """Cut back to ``done``, or start anew with ``header``; ``position`` is the reader's."""
        if self.done is None:
            self.journal.unlink(missing_ok=True)
            self._file.truncate(0)
            self._file.write(header)
            position = position._replace(output_bytes=len(header))
        else:
            position = self.done
            self._file.truncate(position.output_bytes)
            self._file.seek(position.output_bytes)
        self._position, self._saved_at = position, time.monotonic()

    def write(self, data: bytes, position: Position) -> None:
        """Append the lines of one batch; ``position`` is the reader's behind that batch."""
        assert self._position is not None, "begin() comes first"
        self._file.write(data)
        self._position = position._replace(output_bytes=self._position.output_bytes + len(data))
        if time.monotonic() - self._saved_at >= JOURNAL_SECONDS:
            self._save()

    def __enter__(self) -> FileOutput:
        return self

    def __exit__(self, error_type: type[BaseException] | None, *rest: object) -> None:
        position = self._position
        with self._file:
            if position is not None:
                self._save()
            empty = not os.fstat(self._file.fileno()).st_size
        if error_type is None:
            os.replace(self.partial, self.path)
            self.journal.unlink()
        elif empty if position is None else not position.records:  # nothing is worth keeping
            self.partial.unlink()
            self.journal.unlink(missing_ok=True)

    def _lock(self) -> None:
        if fcntl is not None:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise BlockingIOError(f"output {self.path} is being written by another process, wait for it or choose "
                                      "another path.") from None

    def _read_journal(self) -> Position | None:
        try:
            journal = json.loads(self.journal.read_bytes())
            run, done = journal["run"], Position(**journal["position"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{self.journal} is not a journal of this program, delete it to start over.") from None
        if os.fstat(self._file.fileno()).st_size < done.output_bytes:
            return None  # the finished partial got its name, and the end came before the journal was removed
        changed = [name for name, value in self.run.items() if run.get(name) != value]
        if changed:
            raise self.mismatch(" and ".join(changed))
        return done

    def mismatch(self, what: str) -> ValueError:
        """The error that says the earlier run was another, and what to do."""
        return ValueError(f"output {self.path} was begun with another {what}: finish that run as it was begun, or "
                          f"start over with resume=False (or by deleting {self.partial}).")

    def _save(self) -> None:
        assert self._position is not None, "begin() comes first"
        self._file.flush()
        os.fsync(self._file.fileno())
        new = Path(f"{self.journal}.new")
        with open(new, "w", encoding="utf-8") as file:
            json.dump({"run": self.run, "position": self._position._asdict()}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, self.journal)
        self._saved_at = time.monotonic()


def open_output(
    output: PathOrStream | None, input: PathOrStream, run: dict[str, Any], resume: bool, stack: ExitStack
) -> StreamOutput | FileOutput:
    """Where ``output`` points: a path, "-" or None for standard output, or a stream; closed by ``stack``.

    ``run`` and ``resume`` are ``FileOutput``'s. Raises OSError where it cannot be written, ValueError where it is the
    input.
    """
    stack.enter_context(_naming_what_has_no_room(output))  # left last, so that it sees what closing meets
    sink: StreamOutput | FileOutput
    if output is None or output == "-":
        sys.stdout.flush()  # what the program printed before comes first
        sink = StreamOutput(sys.stdout.buffer)
    elif not isinstance(output, (str, os.PathLike)):
        sink = StreamOutput(binary_stream("output", output, "write"))
    else:
        path = Path(os.path.realpath(output))  # a link stays a link
        if path.is_dir():
            raise IsADirectoryError(f"output {output} is a directory, name a file.")
        if isinstance(input, (str, os.PathLike)) and path == Path(os.path.realpath(input)):
            raise ValueError(f"output {output} is the input, choose another path.")
        if path.exists() and not path.is_file():  # a pipe or a device
            sink = StreamOutput(stack.enter_context(open(path, "wb")))  # noqa: SIM115
        else:
            sink = FileOutput(path, run, resume)
    stack.enter_context(sink)  # type: ignore[arg-type]
    return sink


@contextmanager
def _naming_what_has_no_room(output: PathOrStream | None) -> Iterator[None]:
    """A write that finds no room does not say of what: put the output into its error."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        name = "standard output" if output is None or output == "-" else output
        raise OSError(f"output {name} cannot be written ({error.strerror}): make room for it.") from error

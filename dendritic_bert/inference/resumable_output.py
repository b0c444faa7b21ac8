"""An output file that appears under its name only when it is complete, and that can be resumed after a killed run.

The lines are written to ``OUTPUT.partial``. Before it, the journal ``OUTPUT.partial.json`` is made, which shows that
the partial file is ours. Its first line of JSON says which run it is. Once a second, and every 8 MiB, a thread puts
everything on the disk, and adds a line that says how far the run had come. The next run with the same settings cuts the
partial file back to what the last line says, and continues from there. The finished file gets its name by a rename,
with the mode and the owner of the file that it replaces.

A compressed output, or a table, is made of the partial file, and is called ``OUTPUT.partial.whole`` until it has all
lines or rows. A run with several threads makes it while the partial file grows.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import time
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ..system_errors import NO_LOCKS
from .growing_file import GrowingFile
from .output_files import Finish
from .records import Position

try:
    import fcntl
except ImportError:  # Windows has no flock, so that two runs into one output are not noticed there
    fcntl = None  # type: ignore[assignment]

# A line is added to the journal when so much time has passed, or so many bytes are new. It takes two fsyncs, which last
# some milliseconds; 50 MB that are left to the end take 20 ms or more, for which the caller has to wait.
JOURNAL_SECONDS, JOURNAL_BYTES = 1.0, 1 << 23
MARK = "dendritic-bert"
TAIL_BYTES = 4096  # the journal has a digest of so many of the last bytes of the partial file


class NotWritableHere(OSError):
    """The output exists and can be written, but no file can be made beside it."""


class _Entry(NamedTuple):
    """What a journal says: the run, its position (None at first), and a digest of the end of the partial file."""

    run: dict[str, Any]
    position: Position | None
    tail: str


class ResumableOutput:
    """An output file with its partial file and its journal; a context manager.

    ``run`` maps names to JSON values that must be the same in a resumed run. ``finish`` makes the output of the partial
    file, which is the output if it is None; ``overlap`` lets a thread do so while the file grows. ``done`` is the
    position up to which an earlier run's output is known to be good; None if there is nothing to resume or ``resume``
    is False. Leaving the context finishes the file, or saves the journal after an exception. Raises OSError if ``path``
    cannot be written or the files beside it are not ours, and ValueError if the earlier run had other settings; nothing
    is changed then.
    """

    def __init__(self, path: Path, run: dict[str, Any], resume: bool, finish: Finish | None = None,
                 overlap: bool = False):
        self.path, self.run, self._finish, self._overlap = path, run, finish, overlap
        self._threads = ThreadPoolExecutor(2)
        self._saving: Future[None] | None = None  # the journal, in a thread
        self._making: Future[Path] | None = None  # the whole file, in a thread, of the growing partial file
        self._growing: GrowingFile | None = None
        self.partial, self.journal, self.whole = self.beside(path)
        self.done: Position | None = None
        self._file: Any = None
        self._position: Position | None = None
        self._tail, self._saved_at, self._journal_length = b"", 0.0, 0  # the tail is that before the position
        self._saved_bytes = 0
        self._num_bytes, self._last_bytes = 0, b""  # of the file, with the parts of a batch that is being written
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(f"output {path} is write-protected, choose another path.")
        self._is_new = self._open_journal()
        try:
            if self._is_new:
                self._refuse_another_partial()
            else:
                self._read_journal(resume)
        except BaseException:
            self._close_journal(remove=self._is_new)
            raise

    @staticmethod
    def beside(path: Path) -> tuple[Path, Path, Path]:
        """The partial file, the journal and the finished file of an output."""
        return Path(f"{path}.partial"), Path(f"{path}.partial.json"), Path(f"{path}.partial.whole")

    def begin(self, position: Position, header: bytes) -> None:
        """Cut the partial file back to ``done``, or start over with ``header``; ``position`` is that of the reader."""
        try:
            if self.done is None:
                self._write_journal({"journal": MARK, "run": self.run})
            # Not truncated, because it may be resumed; not in append mode, because it is cut back.
            self._file = self._create(self.partial)
        except OSError as error:
            raise self._cannot_write(error) from None
        _sync_folder(self.path.parent)
        if self.done is None:
            self._file.truncate(0)
            self._tail = b""
            self._append(header, position)
        else:
            self._position = self.done
            self._num_bytes, self._last_bytes = self.done.output_bytes, self._tail
            self._file.truncate(self.done.output_bytes)
            self._file.seek(self.done.output_bytes)
        self._saved_at, self._saved_bytes = time.monotonic(), self._num_bytes
        if self._finish and self._overlap:
            self._growing = GrowingFile(self.partial)
            self._making = self._threads.submit(self._make_whole, io.BufferedReader(self._growing))
            self._let_it_grow()

    def write(self, rows: bytes, position: Position) -> None:
        """Append the lines or rows of one batch, or what parts have left of them; ``position`` is that of the reader
        after the batch."""
        assert self._position is not None, "begin() comes first"
        self._append(rows, position)
        is_due = (time.monotonic() - self._saved_at >= JOURNAL_SECONDS or
                  self._num_bytes - self._saved_bytes >= JOURNAL_BYTES)
        if is_due and (self._saving is None or self._saving.done()):
            self._start_saving()
        self._let_it_grow()

    def write_part(self, rows: bytes) -> None:
        """Append some bytes of one batch, which is resumed as a whole."""
        self._file.write(rows)
        self._last_bytes = (self._last_bytes + rows[-TAIL_BYTES:])[-TAIL_BYTES:]
        self._num_bytes += len(rows)

    def _let_it_grow(self, is_whole: bool = False) -> None:
        if self._growing is not None and self._position is not None:
            self._file.flush()
            self._growing.grow_to(self._position.output_bytes, is_whole)

    def mismatch(self, what: str) -> ValueError:
        """The error which says that the earlier run had another ``what``, and what to do."""
        return ValueError(f"output {self.path} was begun with another {what}: finish that run as it was begun, or "
                          f"start over with resume=False (or by deleting {self.partial} and its journal).")

    def __enter__(self) -> ResumableOutput:
        return self

    def __exit__(self, error_type: type[BaseException] | None, *rest: object) -> None:
        if self._position is None:
            if self._file is not None:
                self._file.close()
            if self._is_new:  # there was no partial file before, so this one is ours
                self.partial.unlink(missing_ok=True)
            self._close_journal(remove=self._is_new)
            return
        try:
            with self._file:
                self._let_it_grow(is_whole=error_type is None)
                self._start_saving()
                try:  # the finished file is made while the disk takes the partial one
                    finished = self._finished() if error_type is None else None
                finally:
                    self._saving.result()  # type: ignore[union-attr]
            if finished is not None:
                self._publish(finished)
        except BaseException:
            if self._finish:
                self.whole.unlink(missing_ok=True)
            self._close_journal(remove=False)
            raise
        finally:
            if self._growing is not None:
                self._growing.give_up()
            self._threads.shutdown()
        is_empty = error_type is not None and not self._position.records + self._position.num_malformed
        if is_empty:
            self.partial.unlink()
        self._close_journal(remove=error_type is None or is_empty)

    def _create(self, path: Path) -> Any:
        """Open a file beside the output; nobody else may read one that may replace a private file."""
        return open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600 if self.path.exists() else 0o666), "r+b")

    def _append(self, data: bytes, position: Position) -> None:
        self.write_part(data)
        self._tail, self._position = self._last_bytes, position._replace(output_bytes=self._num_bytes)

    def _start_saving(self) -> None:
        """Let a thread put everything up to the position on the disk, and say so in the journal, because a disk takes
        milliseconds. Raises the error of the time before."""
        assert self._position is not None, "begin() comes first"
        before, self._saving = self._saving, None
        if before is not None:
            before.result()
        self._file.flush()
        self._saving = self._threads.submit(self._sync, self._position, self._tail)
        self._saved_at, self._saved_bytes = time.monotonic(), self._num_bytes

    def _sync(self, position: Position, tail: bytes) -> None:
        os.fsync(self._file.fileno())
        self._write_journal({"position": position._asdict(), "tail": hashlib.sha256(tail).hexdigest()})

    # ---- the journal -------------------------------------------------------------------------------------------------

    def _open_journal(self) -> bool:
        """Open and lock the journal; True if it is empty: it is new, or the run that made it was killed at once."""
        for _ in range(10):
            try:
                try:
                    descriptor = os.open(self.journal, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
                except FileExistsError:
                    descriptor = os.open(self.journal, os.O_RDWR)
            except OSError as error:
                if isinstance(error, FileNotFoundError) and self.path.parent.is_dir():
                    continue  # another run has just finished and removed it
                in_place = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and not self.journal.exists()
                if in_place and self.path.exists():
                    raise NotWritableHere(f"no file can be made beside it ({error.strerror})") from None
                raise self._cannot_write(error) from None
            self._journal_file = open(descriptor, "r+b", buffering=0)  # noqa: SIM115
            self._lock()
            status = os.fstat(descriptor)
            if self.journal.exists() and os.path.samestat(status, os.stat(self.journal)):
                return status.st_size == 0  # another run that made it may not have got the lock
            self._journal_file.close()  # another run has just finished and removed it
        raise self._being_written()

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._journal_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._journal_file.close()
            raise self._being_written() from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                self._journal_file.close()
                raise self._cannot_write(error) from None
            warnings.warn(f"the file system of output {self.path} has no locks ({error.strerror}): a second run into "
                          "it would not be noticed.", stacklevel=7)

    def _refuse_another_partial(self) -> None:
        for path in (self.partial, self.whole):
            if os.path.lexists(path):
                raise FileExistsError(f"{path} is no file of this program, for it has no journal: move it away, or "
                                      "choose another output.")

    def _read_journal(self, resume: bool) -> None:
        """Set ``done``. What follows the last whole line, torn when a run was killed, will be overwritten."""
        entry, self._journal_length = _last_entry(self._journal_file.read())
        if entry is None:
            raise FileExistsError(f"{self.journal} is not a journal of this program: move it away with {self.partial}, "
                                  "or choose another output.")
        if entry.position is None or not self.partial.exists():
            return  # the run ended before anything could be resumed, or after the partial file got its name
        self._tail = self._read_tail(entry.position.output_bytes)
        if hashlib.sha256(self._tail).hexdigest() != entry.tail:
            raise FileExistsError(f"{self.partial} is not what its journal describes: move both away, or choose "
                                  "another output.")
        if resume:
            changed = [name for name in {**entry.run, **self.run} if entry.run.get(name) != self.run.get(name)]
            if changed:
                raise self.mismatch(" and ".join(changed))
            self.done = entry.position

    def _read_tail(self, end: int) -> bytes:
        with open(self.partial, "rb") as file:
            start = max(0, end - TAIL_BYTES)
            file.seek(start)
            return file.read(end - start)

    def _write_journal(self, entry: dict[str, Any]) -> None:
        line = json.dumps(entry).encode() + b"\n"
        self._journal_file.seek(self._journal_length)
        self._journal_file.write(line)
        self._journal_file.truncate()
        os.fsync(self._journal_file.fileno())
        self._journal_length += len(line)

    def _close_journal(self, remove: bool) -> None:
        if remove:
            self.journal.unlink(missing_ok=True)  # while it is still locked
        self._journal_file.close()

    # ---- the end -----------------------------------------------------------------------------------------------------

    def _publish(self, finished: Path) -> None:
        """Give the finished file its name, or copy it if it cannot be renamed, as onto a file that is a mount point."""
        keeps_owner = not self.path.exists() or _take_over(self.path, finished)
        try:
            if keeps_owner:
                os.replace(finished, self.path)
                _sync_folder(self.path.parent)
                self.partial.unlink(missing_ok=True)
                return
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.EXDEV, errno.EPERM, errno.EACCES) or not self.path.exists():
                raise
        with open(finished, "rb") as source, open(self.path, "r+b") as target:
            shutil.copyfileobj(source, target, 1 << 20)
            target.truncate()
            target.flush()
            os.fsync(target.fileno())
        finished.unlink()
        self.partial.unlink(missing_ok=True)

    def _finished(self) -> Path:
        """The file that gets the name of the output."""
        if self._making is not None:
            return self._making.result()
        return self._make_whole(open(self.partial, "rb")) if self._finish else self.partial

    def _make_whole(self, partial: BinaryIO) -> Path:
        """The finished file, made of the partial one; where that fails nothing but the latter is left."""
        assert self._finish is not None
        try:
            with partial, self._create(self.whole) as target:
                target.truncate(0)
                self._finish(partial, target)
                target.flush()
                os.fsync(target.fileno())
        except BaseException:
            self.whole.unlink(missing_ok=True)
            raise
        return self.whole

    def _being_written(self) -> OSError:
        return BlockingIOError(f"output {self.path} is being written by another process, wait for it or choose another "
                               "path.")

    def _cannot_write(self, error: OSError) -> OSError:
        return type(error)(f"output {self.path} cannot be written ({error.strerror}), choose another path.")


def _last_entry(journal: bytes) -> tuple[_Entry | None, int]:
    """What the whole lines of a journal say, None if it is not a journal; and the number of their bytes."""
    entry, length = None, 0
    for line in journal.splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        try:
            said = json.loads(line)
            if said.get("journal") == MARK:
                entry = _Entry(said["run"], None, "")
            elif entry is not None:
                entry = entry._replace(position=Position(**said["position"]), tail=said["tail"])
            else:
                break
        except (ValueError, KeyError, TypeError, AttributeError):
            break
        length += len(line)
    return entry, length


def _take_over(old: Path, new: Path) -> bool:
    """Give ``new`` the owner, mode and attributes of ``old``; False if it cannot have the same owner."""
    status = old.stat()
    if hasattr(os, "chown"):
        try:
            os.chown(new, status.st_uid, status.st_gid)
        except PermissionError:
            return False
    shutil.copystat(old, new)
    os.utime(new)
    return True


def _sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk, on systems that can do so."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # the folder can be written, but not read
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)

"""Folders that cannot be written and disks without room, as errors of one sentence that names the option."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..system_errors import NO_SPACE

# How safetensors, torch.save and SQLite report a full disk, as they give no errno.
NO_SPACE_WORDS = ("os error 28", "os error 27", "No space left", "PytorchStreamWriter failed writing",
                  "iostream error", ". unexpected pos ", "disk I/O error", "database or disk is full")


def expect_writable(folder: Path, option: str) -> None:
    """Raise OSError, which names the option, if nothing can be written to ``folder``, or it cannot be made. Nothing is
    left behind: what fails later leaves no empty folder."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise OSError(f"{option} {folder} cannot be written ({error.strerror}): name a folder that can.") from error


def expect_no_other_files(folder: Path, names: Iterable[str], owner: str) -> None:
    """Raise FileExistsError if an ``output_dir``, which holds no ``owner``, holds one of the names that are written
    there."""
    for name in names:
        if (folder / name).exists():
            raise FileExistsError(f"output_dir {folder} holds {name} but no {owner}, which would replace that: name "
                                  "another folder.")


@contextmanager
def expecting_room(folder: Path, option: str) -> Iterator[None]:
    """Name the option in the error where the disk becomes full."""
    try:
        yield
    except Exception as error:
        if is_disk_full(error):
            raise OSError(f"{option} {folder} has no room: free some space and run the same command again.") from error
        raise


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one that caused it, is a write for which the disk had no room."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            return True
        if any(words in str(error) for words in NO_SPACE_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False

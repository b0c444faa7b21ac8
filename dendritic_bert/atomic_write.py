"""Files and folders that are whole or not there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write a file or a folder to, which takes its place at the end, and is removed after an
    error. A folder can take the place of an empty one alone."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        if unfinished.is_dir():
            shutil.rmtree(unfinished, ignore_errors=True)
        elif unfinished.exists():
            unfinished.unlink()


def expect_new(output: Path) -> None:
    """Raise ValueError unless ``output``, an ``output_dir``, does not exist or is an empty folder."""
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise ValueError(f"output_dir {output} holds something already: name a new folder or empty this one.")


@contextmanager
def atomic_folder(output: Path) -> Iterator[Path]:
    """A folder to write to, which becomes ``output``, an ``output_dir``, at the end. Raises OSError if it cannot be
    made."""
    with atomic_path(output) as unfinished:
        try:
            unfinished.mkdir(parents=True)
        except OSError as error:
            raise OSError(f"output_dir {output} cannot be written ({error.strerror}): name a folder that can."
                          ) from error
        yield unfinished

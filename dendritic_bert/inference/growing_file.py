"""A file that one thread appends to, and another reads as it grows."""

from __future__ import annotations

import io
import os
import threading
from typing import Any


class GivenUp(Exception):
    """The file will not be whole."""


class GrowingFile(io.RawIOBase):
    """Reads a file up to the size that the writer has said it has, and waits there until it is larger or whole.

    Closing it is up to the reader; ``grow_to`` and ``give_up`` are for the writer.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 -- closed with the object
        self._changed = threading.Condition()
        self._size, self._is_whole, self._is_given_up = 0, False, False

    def grow_to(self, size: int, is_whole: bool = False) -> None:
        """Say that the first ``size`` bytes are there, and whether they are all."""
        with self._changed:
            self._size, self._is_whole = size, is_whole
            self._changed.notify()

    def give_up(self) -> None:
        """Let whoever reads get GivenUp."""
        with self._changed:
            self._is_given_up = True
            self._changed.notify()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        place = self._file.tell()
        with self._changed:
            self._changed.wait_for(lambda: self._size > place or self._is_whole or self._is_given_up)
            if self._is_given_up:
                raise GivenUp
            size = self._size
        return self._file.readinto(memoryview(buffer)[:size - place]) or 0

    def close(self) -> None:
        self._file.close()
        super().close()

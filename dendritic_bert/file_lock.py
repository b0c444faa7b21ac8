"""A file that says that a folder or a file is being written, so that a second process does not write it as well."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from .system_errors import NO_LOCKS


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock ``path``, a file that is gone when the block ends; ``what`` is in use then, as messages call it.

    Raises BlockingIOError if another process or thread holds it. On a file system without locks it warns.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BlockingIOError(f"{what} is in use by another training: wait for it or name another folder.") from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        warnings.warn(f"the file system of {what} has no locks ({error.strerror}): a second training there would not "
                      "be noticed.", stacklevel=5)
    try:
        yield
    finally:
        lock.release()
        path.unlink(missing_ok=True)

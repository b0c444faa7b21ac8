"""A teacher's embeddings of a list of texts in a file that is a float16 matrix and nothing else.

The file grows by whole batches, so that its length says how many texts are done. An interruption at any point loses at
most the batch at hand, and what is written afterwards is what would have been written without it.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..file_lock import locked
from ..training.output_folders import expecting_room
from .sentence_encoder import SentenceEncoder
from .texts import Texts

BATCH_TEXTS = 1024  # in a batch that is sorted by length: 2 s of all-MiniLM-L6-v2 on one thread
LINE_SECONDS = 60.0  # between lines of progress where no terminal shows a bar


def embed_texts(teacher: SentenceEncoder, texts: Texts, folder: Path) -> np.ndarray:
    """The embeddings ``[len(texts), D]``, a float16 memory map of a file in ``folder``.

    The name of the file is made of the digests of teacher and texts: the same ones find what an earlier call has left
    there. Progress goes to standard error. Raises OSError if the disk becomes full, and BlockingIOError if another
    process embeds the same texts there.
    """
    key = hashlib.sha256(f"{teacher.digest} {texts.digest} {BATCH_TEXTS}".encode()).hexdigest()
    path = folder / f"embeddings-{key[:16]}.f16"
    folder.mkdir(parents=True, exist_ok=True)
    shape = len(texts), teacher.dimension
    size = len(texts) * teacher.dimension * np.dtype(np.float16).itemsize

    def is_whole() -> bool:
        return path.exists() and path.stat().st_size >= size

    if not is_whole():  # else several trainings may read them at the same time
        with expecting_room(folder, "teacher_dir"), locked(path.with_suffix(".lock"), f"teacher_dir {folder}"):
            if not is_whole():
                _append_missing(teacher, texts, path)
    return np.asarray(np.memmap(path, np.float16, "r", shape=shape))


def _append_missing(teacher: SentenceEncoder, texts: Texts, path: Path) -> None:
    batch_bytes = BATCH_TEXTS * teacher.dimension * np.dtype(np.float16).itemsize
    with open(path, "ab") as file:
        done = file.tell() // batch_bytes
        os.ftruncate(file.fileno(), done * batch_bytes)
        progress = _Progress(done * BATCH_TEXTS, len(texts))
        for batch in texts.batches(BATCH_TEXTS, done * BATCH_TEXTS):
            file.write(teacher.encode(batch).astype(np.float16).tobytes())
            file.flush()
            progress.add(len(batch))
        progress.bar.close()


class _Progress:
    """A bar on a terminal, and elsewhere a line a minute: texts done, their rate, and the minutes that are left."""

    def __init__(self, done: int, total: int) -> None:
        self.start, self.done, self.total = done, done, total
        self.started = self.said = time.monotonic()
        self.bar = tqdm(desc="teacher", initial=done, total=total, unit="text", leave=False, dynamic_ncols=True,
                        file=sys.stderr, disable=None)

    def add(self, count: int) -> None:
        self.done += count
        self.bar.update(count)
        now = time.monotonic()
        if self.bar.disable and now - self.said >= LINE_SECONDS:
            rate = (self.done - self.start) / (now - self.started)
            print(f"teacher: {self.done:,} of {self.total:,} texts, {rate:.0f} a second, "
                  f"{(self.total - self.done) / rate / 60:.0f} min left", file=sys.stderr, flush=True)
            self.said = now

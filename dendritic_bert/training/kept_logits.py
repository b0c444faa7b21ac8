"""Logits that a teacher has given for texts, kept in a file, so that no text is ever labelled twice.

The file only grows: a record for each text, its digest and its float32 logits. What an interruption leaves of a last
record is cut off by whoever appends next.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

DIGEST_BYTES = 16


class KeptLogits:
    """The logits in the file ``path``, ``[num_labels]`` float32 for each text; the file need not be there yet."""

    def __init__(self, path: Path, num_labels: int) -> None:
        self.path = path
        self._record = np.dtype([("text", f"V{DIGEST_BYTES}"), ("logits", "<f4", (num_labels,))])
        self._records = np.zeros(0, self._record)
        if path.exists():
            whole = path.stat().st_size // self._record.itemsize
            self._records = np.fromfile(path, self._record, whole)
        self._places = {digest: place for place, digest in enumerate(self._digests())}

    def _digests(self) -> list[bytes]:
        data = np.ascontiguousarray(self._records["text"]).tobytes()
        return [data[start:start + DIGEST_BYTES] for start in range(0, len(data), DIGEST_BYTES)]

    def missing(self, texts: Iterable[str]) -> list[str]:
        """The distinct texts that have no logits yet, in their order."""
        return [text for text in dict.fromkeys(texts) if _digest(text) not in self._places]

    def append(self, texts: list[str], logits: np.ndarray) -> None:
        """Keep ``logits [n, num_labels]`` of n texts that are missing."""
        records = np.zeros(len(texts), self._record)
        records["logits"] = logits
        records["text"] = np.frombuffer(b"".join(map(_digest, texts)), f"V{DIGEST_BYTES}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab") as file:
            os.ftruncate(file.fileno(), file.tell() // self._record.itemsize * self._record.itemsize)
            file.write(records.tobytes())
        self._places.update((_digest(text), len(self._records) + place) for place, text in enumerate(texts))
        self._records = np.concatenate([self._records, records])

    def of(self, texts: Iterable[str]) -> np.ndarray:
        """The logits of ``texts``, none of which is missing: ``[n, num_labels]``."""
        places = np.fromiter((self._places[_digest(text)] for text in texts), np.int64)
        return np.array(self._records["logits"][places])


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()

"""The principal axes of a teacher's embeddings, and the embeddings on the first of them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from ..datasets.packed_files import map_file
from ..inference.text_encoder import normalized

MOST_TEXTS = 50_000  # of which axes are taken: covariances of 384 numbers are known to 1 % from these
ROWS_AT_ONCE = 16_384  # 50 MB of 768 numbers


def spread_sample(embeddings: np.ndarray) -> np.ndarray:
    """At most twice ``MOST_TEXTS`` of the rows in float32, evenly spread, and read in order: they may lie on a disk."""
    return embeddings[::max(1, len(embeddings) // MOST_TEXTS)].astype(np.float32)


def principal_axes(rows: np.ndarray, count: int) -> np.ndarray:
    """The first ``count`` principal axes of ``rows [n, D]``, about 0, as columns ``[D, min(count, D)]``; each points to
    where its largest entry is above 0."""
    _, vectors = np.linalg.eigh(rows.T @ rows)
    axes = vectors[:, ::-1][:, :count]
    largest = axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])]
    return np.ascontiguousarray(axes * np.sign(largest))


def on_axes(embeddings: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """The coordinates of ``embeddings [n, D]`` on ``axes [D, d]``, ``[n, d]`` float32, of length 1 again."""
    return normalized(embeddings.astype(np.float32) @ axes.astype(np.float32))


def keep_on_axes(embeddings: np.ndarray, axes: np.ndarray, folder: Path) -> np.ndarray:
    """``on_axes`` as a float16 memory map of a file in ``folder`` that has no name and goes with the array.

    Raises OSError if the disk becomes full.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        for start in range(0, len(embeddings), ROWS_AT_ONCE):
            file.write(on_axes(embeddings[start:start + ROWS_AT_ONCE], axes).astype(np.float16).tobytes())
        return map_file(file, np.dtype(np.float16)).reshape(-1, axes.shape[1])

"""Token ids that stay packed on disk: written batch by batch, read through a memory map."""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np

from .rows import EncodedRows

SMALL_VOCABULARY = 1 << 16  # ids below it take two bytes


def pack_rows(batches: Iterable[EncodedRows], labels: np.ndarray, vocab_size: int,
              folder: str | Path | None = None) -> EncodedRows:
    """The rows of all batches as one, with ``labels`` in place of theirs.

    ``input_ids`` (uint16 for a vocabulary of up to 65,536, else int32) and ``token_type_ids`` (uint8) are memory maps
    of files in ``folder``, by default the system's folder for temporary files. The files have no name: the system
    removes them with the arrays, or with the process however that ends.

    Raises OSError if the disk becomes full.
    """
    lengths = array("i")
    num_truncated = 0
    dtype = np.dtype(np.uint16 if vocab_size <= SMALL_VOCABULARY else np.int32)
    with tempfile.TemporaryFile(dir=folder) as ids_file, tempfile.TemporaryFile(dir=folder) as types_file:
        for batch in batches:
            ids_file.write(batch.input_ids.astype(dtype).tobytes())
            if batch.token_type_ids is not None:
                types_file.write(batch.token_type_ids.astype(np.uint8).tobytes())
            lengths.frombytes(np.diff(batch.cu_seqlens).astype(np.int32).tobytes())
            num_truncated += batch.num_truncated
        cu_seqlens = np.concatenate([[0], np.cumsum(np.array(lengths), dtype=np.int64)])
        ids, types = map_file(ids_file, dtype), map_file(types_file, np.dtype(np.uint8))
        return EncodedRows(ids, cu_seqlens, types if len(types) else None, labels, num_truncated)


def map_file(file: IO[bytes], dtype: np.dtype[Any]) -> np.ndarray:
    """What a file holds, as a plain array: a slice of a ``memmap`` takes 2.3 us, one of an array 0.08 us."""
    file.flush()
    return np.asarray(np.memmap(file, dtype, "r")) if file.tell() else np.empty(0, dtype)  # an empty file has no map

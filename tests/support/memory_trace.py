"""Counts the bytes that kernels read and write under Triton's interpreter, by the tensor that an address lies in.

It replaces the module of Triton 3.8 that performs the interpreter's loads and stores.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from triton.runtime import interpreter


@dataclass
class MemoryTrace:
    """Bytes by the name of the tensor; those of tensors that a launcher allocates itself are "other".

    ``touched`` holds the address and the size of every distinct element, from which ``distinct`` is computed.
    """

    read: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    written: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    touched: dict[str, set[tuple[int, int]]] = field(default_factory=lambda: defaultdict(set))

    def distinct(self, name: str) -> int:
        return sum(size for _, size in self.touched[name])


class _Counting:
    """Performs memory instructions as Triton's interpreter does, and counts them."""

    def __init__(self, memory: Any, count: Any) -> None:
        self._memory, self._count = memory, count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memory, name)

    def load(self, addresses: np.ndarray, mask: np.ndarray, other: np.ndarray, dtype: Any) -> np.ndarray:
        self._count("read", addresses, mask, np.dtype(dtype).itemsize)
        return self._memory.load(addresses, mask, other, dtype)

    def store(self, addresses: np.ndarray, values: np.ndarray, mask: np.ndarray) -> None:
        self._count("written", addresses, mask, values.dtype.itemsize)
        self._memory.store(addresses, values, mask)

    def atomic_rmw(self, operation: Any, addresses: np.ndarray, values: np.ndarray, mask: np.ndarray, order: Any
                   ) -> np.ndarray:
        self._count("written", addresses, mask, values.dtype.itemsize)
        return self._memory.atomic_rmw(operation, addresses, values, mask, order)


@contextmanager
def traced_memory(tensors: dict[str, torch.Tensor]) -> Iterator[MemoryTrace]:
    """Inside, every interpreted kernel is counted. ``tensors``: those to be told apart, which must be contiguous."""
    trace = MemoryTrace()
    ranges = [(name, tensor.data_ptr(), tensor.data_ptr() + tensor.numel() * tensor.element_size())
              for name, tensor in tensors.items()]

    def count(kind: str, addresses: np.ndarray, mask: np.ndarray, size: int) -> None:
        used = addresses[np.broadcast_to(mask, addresses.shape).astype(bool)].astype(np.int64)
        for name, start, end in ranges:
            inside = (start <= used) & (used < end)
            add(kind, name, used[inside], size)
            used = used[~inside]
        add(kind, "other", used, size)

    def add(kind: str, name: str, addresses: np.ndarray, size: int) -> None:
        getattr(trace, kind)[name] += addresses.size * size
        trace.touched[name].update((address, size) for address in np.unique(addresses).tolist())

    with patch.object(interpreter, "_interpreter", _Counting(interpreter._interpreter, count)):
        yield trace

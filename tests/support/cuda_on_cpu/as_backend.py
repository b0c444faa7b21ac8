"""The backend "cuda" on CPU tensors: its binding, checks and launches, with the executor in place of a device."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

import pytest
import torch

from dendritic_bert.kernels import backends, ops  # noqa: F401  ops defines the operators that load() serves
from dendritic_bert.kernels.backends import cuda

from . import build

FORWARD, REVERSE, SHUFFLED = range(3)
# A library that watches every access takes ten times as long, and one schedule shows it as much as three do. Its tests
# have fewer and smaller cases.
WATCHED = "CUDA_ON_CPU_LIBRARY" in os.environ
SCHEDULES = [(SHUFFLED, 1)] if WATCHED else [(FORWARD, 0), (REVERSE, 0), (SHUFFLED, 1)]

_library = torch.library.Library("dendritic_bert", "FRAGMENT")


@cache
def load() -> ctypes.CDLL:
    """Build the library, unless CUDA_ON_CPU_LIBRARY names one, and register its ops for CPU tensors."""
    path = os.environ.get("CUDA_ON_CPU_LIBRARY") or str(build.kernels())
    torch.ops.load_library(path)
    _library.impl("embed_pool_backward_cuda", cuda.embed_pool_backward, "CPU")
    library = ctypes.CDLL(path)
    library.cuda_on_cpu_schedule.argtypes = [ctypes.c_int, ctypes.c_uint64]
    library.cuda_on_cpu_max_shared_bytes.argtypes = [ctypes.c_size_t]
    library.cuda_on_cpu_launches.restype = ctypes.c_int64
    return library


@contextmanager
def served() -> Iterator[None]:
    """CPU tensors may choose the backend "cuda"."""
    load()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backends.KERNEL_BACKENDS, "cuda", replace(cuda.BACKEND, missing=None, device_type="cpu"))
        yield


@contextmanager
def scheduled(schedule: int, seed: int) -> Iterator[None]:
    load().cuda_on_cpu_schedule(schedule, seed)
    yield
    load().cuda_on_cpu_schedule(FORWARD, 0)


@contextmanager
def shared_memory_of(num_bytes: int) -> Iterator[None]:
    """A device whose blocks have less shared memory."""
    load().cuda_on_cpu_max_shared_bytes(num_bytes)
    yield
    load().cuda_on_cpu_max_shared_bytes(227 * 1024)

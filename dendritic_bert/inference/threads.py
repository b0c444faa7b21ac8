"""Torch's threads, one thread of Python's at a time."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from typing import TypeVar

import torch

Argument = TypeVar("Argument")
Result = TypeVar("Result")
_IMPORTED_IN = os.getpid()
# OpenMP's setting and MKL's are the calling thread's own. torch.set_num_threads sets both, and beside them what every
# thread starts with that comes later: that is the user's. Windows finds no function of a library's libraries; there,
# and in a torch without OpenMP, workers are not limited, which costs time alone.
_TORCH_LIBRARIES = ctypes.CDLL(torch._C.__file__)
_SETTERS = [getattr(_TORCH_LIBRARIES, name) for name in ("omp_set_num_threads", "MKL_Set_Num_Threads_Local")
            if hasattr(_TORCH_LIBRARIES, name)]


def limit_threads(count: int) -> None:
    """Let torch's ops use ``count`` threads on the calling thread, and on no other."""
    torch.get_num_threads()  # a thread's first use of torch sets what is set here
    for set_threads in _SETTERS:
        set_threads(count)


def without_lost_threads(function: Callable[[Argument], Result], argument: Argument) -> Result:
    """``function(argument)``, on this thread alone where it is the one that this process was forked on.

    GNU's OpenMP would wait there for ever, for threads that stayed in the parent. Other threads start new ones.
    """
    if os.getpid() == _IMPORTED_IN or threading.current_thread() is not threading.main_thread():
        return function(argument)
    before = torch.get_num_threads()
    limit_threads(1)
    try:
        return function(argument)
    finally:
        limit_threads(before)

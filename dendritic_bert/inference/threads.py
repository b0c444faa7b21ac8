"""Worker threads of Python, and how many threads torch uses within each."""

from __future__ import annotations

import ctypes
import operator
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Argument = TypeVar("Argument")
Item = TypeVar("Item")
Result = TypeVar("Result")
_IMPORTED_IN = os.getpid()
# The settings of OpenMP and MKL belong to the calling thread. torch.set_num_threads sets both, but also the number with
# which every later thread starts, and that is for the user to set. On Windows, where a function of a library's own
# libraries is not found, and in a torch without OpenMP, the workers are not limited, which only costs time.
_TORCH_LIBRARIES = ctypes.CDLL(torch._C.__file__)
_SETTERS = [getattr(_TORCH_LIBRARIES, name) for name in ("omp_set_num_threads", "MKL_Set_Num_Threads_Local")
            if hasattr(_TORCH_LIBRARIES, name)]


def check_positive(name: str, value: int) -> int:
    """Return ``value`` as an int. Raises TypeError unless it is a whole number, ValueError if it is below 1."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}, it must be a whole number.") from None
    if number < 1:
        raise ValueError(f"{name} is {number}, it must be at least 1.")
    return number


def thread_count(threads: int | None) -> int:
    """Return the number of threads to run with: ``threads``, or torch's own number for None."""
    return torch.get_num_threads() if threads is None else check_positive("threads", threads)


def limit_threads(count: int) -> None:
    """Let torch's ops use ``count`` threads when the calling thread runs them; other threads keep their number."""
    torch.get_num_threads()  # because the first use of torch on a thread sets the number, too
    for set_threads in _SETTERS:
        set_threads(count)


def without_lost_threads(function: Callable[[Argument], Result], argument: Argument) -> Result:
    """Return ``function(argument)``, with one thread of torch if this is the thread on which the process was forked.

    There, OpenMP of GNU would wait for ever for threads that exist only in the parent. Other threads start new ones.
    """
    if os.getpid() == _IMPORTED_IN or threading.current_thread() is not threading.main_thread():
        return function(argument)
    before = torch.get_num_threads()
    limit_threads(1)
    try:
        return function(argument)
    finally:
        limit_threads(before)


def map_in_order(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int, num_items: int | None = None,
    reads_ahead: bool = True, is_large: Callable[[Item], bool] = lambda item: False,
) -> Generator[tuple[Item, Result]]:
    """Yield each item with its result, in order.

    Worker threads take whole batches and run torch on one thread each, since tokenizer and kernel both release the GIL.
    A single item gets all threads inside the kernel. Torch's number of threads, as the caller has set it, stays as it
    is; if it is the number to run with, the calling thread does the work. ``reads_ahead`` False asks a single worker
    for each result before the next item is read, and so does an item that ``is_large``.
    """
    is_alone = threads == 1 or num_items == 1
    if is_alone and threads == torch.get_num_threads():
        for item in items:
            yield item, function(item)
            del item
        return
    workers, torch_threads = (1, threads) if is_alone else (threads, 1)
    most_running = workers if reads_ahead or not is_alone else 0  # beside the item that waits for the next free worker
    with ThreadPoolExecutor(workers, initializer=limit_threads, initargs=(torch_threads,)) as pool:
        running: deque[tuple[Item, Future[Result]]] = deque()
        for item in items:
            running.append((item, pool.submit(function, item)))
            while len(running) > (0 if is_large(item) else most_running):
                done, future = running.popleft()
                yield done, future.result()
                del done, future  # which may be large, before the next item is made
            del item
        for done, future in running:
            yield done, future.result()

"""Worker threads of Python, and how many threads torch uses within each."""

from __future__ import annotations

import ctypes
import operator
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

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
        number = None
    if number is None or isinstance(value, bool):  # Python counts True as 1
        raise TypeError(f"{name} is {value!r}, it must be a whole number.")
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


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """In the block, ops of torch on the calling thread use ``count`` threads: one for many small operations, in which
    threads wait for each other longer than they work."""
    before = torch.get_num_threads()
    if count == before:
        yield
        return
    limit_threads(count)
    try:
        yield
    finally:
        limit_threads(before)


def without_lost_threads(function: Callable[[Item], Result], argument: Item) -> Result:
    """Return ``function(argument)``, with one thread of torch if this is the thread on which the process was forked.

    There, OpenMP of GNU would wait for ever for threads that exist only in the parent. Other threads start new ones.
    """
    if os.getpid() == _IMPORTED_IN or threading.current_thread() is not threading.main_thread():
        return function(argument)
    with torch_threads(1):
        return function(argument)


def map_in_order(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int, num_items: int | None = None,
    is_large: Callable[[Item], bool] = lambda item: False,
) -> Generator[tuple[Item, Result]]:
    """Yield each item with its result, in order.

    Each of ``threads`` threads takes whole items and runs torch on one thread, since tokenizer and kernel both release
    the GIL. The calling thread is one of them: it makes the items, takes the results, and works on an item whenever the
    next result is not there. A single item gets all threads inside the kernel. Torch's number of threads, as the caller
    has set it, stays as it is. After an item that ``is_large`` none is made until its result is taken.
    """
    if threads == 1 or num_items == 1:
        for item in items:
            with torch_threads(threads):
                result = function(item)
            yield item, result
            del item, result
        return
    with ThreadPoolExecutor(threads - 1, initializer=limit_threads, initargs=(1,)) as pool:
        running: deque[tuple[Item, Future[Result]]] = deque()
        for item in items:
            running.append((item, pool.submit(function, item)))
            # Two for each thread, so that the workers have enough while the calling thread is busy with one.
            while len(running) > (0 if is_large(item) else 2 * threads - 1):
                yield _take_first(running, function)
            del item
        while running:
            yield _take_first(running, function)


def _take_first(running: deque[tuple[Item, Future[Result]]], function: Callable[[Item], Result]) -> tuple[Item, Result]:
    """Take the first item with its result; until that is there, work on items that no worker has begun."""
    while not running[0][1].done():
        number = next((number for number, (_, future) in enumerate(running) if future.cancel()), None)
        if number is None:
            break
        item, future = running[number][0], Future[Result]()
        try:
            with torch_threads(1):
                future.set_result(function(item))
        except Exception as error:
            future.set_exception(error)
        running[number] = item, future
    item, future = running.popleft()
    return item, future.result()

"""Work on several pieces at a time, one on each of PyTorch's threads, from beginning to end.

Dividing every operation among threads, as PyTorch does, gains less, and takes many times as long if another process
uses one of the cores. The result of a piece does not depend on the number of threads.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

import torch

__all__ = ["single_threads", "stopped", "thread_count"]

T = TypeVar("T")
R = TypeVar("R")


class Run(Protocol):
    """The type of a function that applies ``work`` to each piece and yields the results in order."""

    def __call__(self, work: Callable[[T], R], pieces: Iterable[T], /) -> Iterator[R]: ...


_lock = threading.Lock()
_users, _before = 0, 1  # blocks at work, and PyTorch's threads before the first of them
_local = threading.local()  # its attribute stop is the event that ends the work of this thread


def thread_count(device: torch.device) -> int:
    """Return the number of pieces to work on at a time: PyTorch's threads on a CPU, 1 on a GPU, which has one queue."""
    return torch.get_num_threads() if device.type == "cpu" else 1


@contextmanager
def single_threads(count: int) -> Iterator[Run]:
    """Yield run(work, pieces), which yields the result of `work` for each piece, in order, on `count` threads.

    Within a piece PyTorch uses a single thread. If the block ends with an exception, such as an interrupt, no further
    pieces begin, and running ones end when their work next checks :func:`stopped`. `work` may divide a piece into
    pieces in the same way.
    """
    stop: threading.Event = getattr(_local, "stop", None) or threading.Event()

    def run(work: Callable[[T], R], pieces: Iterable[T]) -> Iterator[R]:
        def one(piece: T) -> R:
            _local.stop = stop
            return work(piece)

        return pool.map(one, pieces)

    _one_thread()
    try:
        with ThreadPoolExecutor(count) as pool:
            try:
                yield run
            except BaseException:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        _as_before()


def _one_thread() -> None:
    """Let PyTorch use one thread in this thread, and in those that start from now on."""
    global _users, _before
    with _lock:
        if not _users:
            _before = torch.get_num_threads()
        _users += 1
        torch.set_num_threads(1)


def _as_before() -> None:
    """Let PyTorch use as many threads as before the first of the blocks that are at work at once."""
    global _users
    with _lock:
        _users -= 1
        torch.set_num_threads(1 if hasattr(_local, "stop") else _before)  # within a piece it stays 1


def stopped() -> bool:
    """Return whether the work of this thread should end, because its result is no longer needed."""
    stop: threading.Event | None = getattr(_local, "stop", None)
    return stop is not None and stop.is_set()

"""Work in pieces: as many at once as PyTorch has threads, each on one thread from its beginning to its end.

To share out every operation, as PyTorch does, gains less, and takes many times as long where another process holds one
of the cores. And what becomes of a piece does not depend on how many threads there are.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

import torch

__all__ = ["at_once", "stopped", "threads_of_one"]

T = TypeVar("T")
R = TypeVar("R")


class Run(Protocol):
    """What works on pieces."""

    def __call__(self, work: Callable[[T], R], pieces: Iterable[T], /) -> Iterator[R]: ...


_here = threading.local()  # .stop: the event that ends the work of this thread


def at_once(device: torch.device) -> int:
    """How many pieces are worked on at once: a GPU has one queue for all of them."""
    return torch.get_num_threads() if device.type == "cpu" else 1


@contextmanager
def threads_of_one(count: int) -> Iterator[Run]:
    """Yield run(work, pieces), which gives what `work` makes of each piece, in order; `count` of them at once.

    Where the block ends by an exception, an interrupt among them, pieces that have begun end as soon as their work asks
    whether it is :func:`stopped`; no others begin. Within a piece `work` may cut its own work into pieces likewise.
    """
    stop: threading.Event = getattr(_here, "stop", None) or threading.Event()

    def run(work: Callable[[T], R], pieces: Iterable[T]) -> Iterator[R]:
        def one(piece: T) -> R:
            _here.stop = stop
            return work(piece)

        return pool.map(one, pieces)

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # what threads that start from now on take for their own
    try:
        with ThreadPoolExecutor(count) as pool:
            try:
                yield run
            except BaseException:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        torch.set_num_threads(before)


def stopped() -> bool:
    """Whether nobody waits for the piece that this thread works on any more."""
    stop: threading.Event | None = getattr(_here, "stop", None)
    return stop is not None and stop.is_set()

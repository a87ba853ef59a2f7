"""A batch on several CPU threads. Each solves whole problems, so results do not depend on how many there are."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar

import torch

from deepemd.emd._solve import OK, solve_range
from deepemd.emd._workspace import kind

# Below this much work (problems times n times m) for each, waking a further thread costs more than it saves.
_WORK_FOR_A_THREAD = 8_000

_VARIABLE = "DEEPEMD_NUM_THREADS"
_limit: ContextVar[int | None] = ContextVar("deepemd threads", default=None)
_pool: ThreadPoolExecutor | None = None


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Solve on at most ``count`` threads inside a ``with`` block; afterwards the limit is what it was before.

    Without it the limit is the environment variable DEEPEMD_NUM_THREADS, else ``torch.get_num_threads()``. Answers do
    not depend on it, and small batches take one thread whatever it says. It holds for the thread (or asyncio task)
    that enters the block and leaves PyTorch's own threads alone. Lower it when several processes share a machine, or
    when threads of your own call ``emd``: the solver's threads are plain threads of one pool, which sleep between
    calls, and no more of them run than the process may use processors.

    After a fork the child starts a pool of its own, so ``emd`` works there; forking while another thread is inside
    ``emd`` is as unsafe as forking any threaded program. Processes started by spawn or forkserver, as PyTorch's
    distributed launchers do, have nothing to watch.

    Raises:
        TypeError, ValueError: count is not a whole number, or not at least 1.

    >>> from deepemd.emd import emd
    >>> with threads(1):
    ...     float(emd(torch.eye(2), torch.ones(2), torch.ones(2)).value)
    0.0
    """
    if not isinstance(count, int) or isinstance(count, bool):
        raise TypeError(f"count must be a whole number of threads, got {count!r}; try threads(1)")
    if count < 1:
        raise ValueError(f"count must be at least 1 thread, got {count}; try threads(1)")
    token = _limit.set(count)
    try:
        yield
    finally:
        _limit.reset(token)


def _most_threads() -> int:
    count = _limit.get()
    if count is not None:
        return count
    text = os.environ.get(_VARIABLE)
    if not text:
        return torch.get_num_threads()
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{_VARIABLE} must be a whole number of threads, at least 1, got {text!r}; try {_VARIABLE}=1")
    return int(text)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _threads() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(_processors(), thread_name_prefix="deepemd")
    return _pool


def _forget_threads() -> None:
    """A forked child inherits the pool but not its threads: it starts a pool of its own."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


def _pieces(batch: int, threads: int) -> Iterator[tuple[int, int]]:
    """Cut a batch into ranges that shrink toward the end: a thread that is held up leaves work to the others."""
    first = 0
    while first < batch:
        last = min(batch, first + max(4, (batch - first) // (2 * threads)))
        yield first, last
        first = last


def solve_batch(
    arrays: Sequence, totals_tolerance: float, outputs: Sequence, kernel: Callable[..., tuple[int, int]] = solve_range
) -> tuple[int, int]:
    """Solve every problem, on as many threads as pay and are allowed. -> the first refused and why, or (-1, OK).

    The kernel releases the interpreter's lock, so plain threads suffice: no OpenMP pool that would abort after a fork.
    """
    cost = arrays[0]
    batch, n, m = cost.shape
    shape = kind(n, m)
    count = min(batch, cost.size // _WORK_FOR_A_THREAD)
    if count > 1:
        count = min(count, _most_threads(), _processors())
    if count <= 1:
        return kernel(*arrays, totals_tolerance, 0, batch, shape, *outputs)

    pieces = iter(list(_pieces(batch, count)))

    def work() -> list[tuple[int, int]]:
        """Take pieces until none is left; what was refused, if anything."""
        refused = []
        for first, last in pieces:  # a list's iterator hands out each item once, to whichever thread asks
            problem, reason = kernel(*arrays, totals_tolerance, first, last, shape, *outputs)
            if reason != OK:
                refused.append((problem, reason))
        return refused

    others = [_threads().submit(work) for _ in range(count - 1)]
    refused = [*work(), *(answer for other in others for answer in other.result())]
    return min(refused, default=(-1, OK))

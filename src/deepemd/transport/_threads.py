"""Solve a batch on several CPU threads. Each thread solves whole problems, so results do not depend on their number."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from queue import SimpleQueue

import torch

from deepemd.transport._tickets import BUSY, refusal, tickets
from deepemd.transport._workspace import kind

# Work is counted in problems times n times m. With less than this for each, waking another thread does not pay.
_WORK_FOR_A_THREAD = 8_000
_WORK_FOR_A_TICKET = 8_000
_PATIENCE = 20_000  # how often to check, in about 100 us, whether the others have finished, before sleeping

_VARIABLE = "DEEPEMD_NUM_THREADS"
_limit: ContextVar[int | None] = ContextVar("deepemd threads", default=None)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Solve on at most ``count`` threads inside a ``with`` block; afterwards restore the old limit.

    By default the limit is the environment variable DEEPEMD_NUM_THREADS, read once, else ``torch.get_num_threads()``.
    Answers do not depend on it, and small batches always use one thread. The limit applies to the thread (or asyncio
    task) that enters the block, and does not change PyTorch's own threads. Lower it when several processes share a
    machine, or when several threads of your own call ``emd``. The solver's threads sleep between calls, and a call
    never uses more of them than the process may use processors.

    After a fork the child starts its own pool, so ``emd`` works there. Forking while another thread is inside ``emd``
    is as unsafe as forking any threaded program. Processes started by spawn or forkserver, as by PyTorch's distributed
    launchers, are safe.

    Raises:
        TypeError, ValueError: `count` is not a whole number of at least 1.

    >>> from deepemd.transport import emd
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
    return _limit.get() or _from_environment() or torch.get_num_threads()


@cache
def _from_environment() -> int | None:
    text = os.environ.get(_VARIABLE)
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{_VARIABLE} must be a whole number of threads, at least 1, got {text!r}; try {_VARIABLE}=1")
    return int(text)


@cache
def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- the threads ------------------------------------------------------------------------------------------------------


class _Pool:
    """Threads that wait for work. The pool of the standard library takes twice as long to wake one."""

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._threads = 0

    def submit(self, work: Callable[[], object], count: int) -> None:
        """Call ``work`` on ``count`` threads. It must not raise an exception."""
        while self._threads < count:
            self._threads += 1
            threading.Thread(target=self._serve, name=f"deepemd-{self._threads}", daemon=True).start()
        for _ in range(count):
            self._work.put(work)

    def _serve(self) -> None:
        while True:
            self._work.get()()


_pool = _Pool()


def _replace_pool() -> None:
    """Start a new pool in a forked child, which inherits the queue but not the threads."""
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_replace_pool)


# --- the batch --------------------------------------------------------------------------------------------------------


def solve(
    kernel: Callable[..., bool], arrays: Sequence, totals_tolerance: float, outputs: Sequence
) -> tuple[int, int] | None:
    """Solve every problem, on as many threads as are useful and allowed.

    The kernel releases the interpreter's lock, so plain threads suffice; an OpenMP pool would abort after a fork.

    Returns:
        The number of the first problem that was refused, and the reason; None if all were solved.
    """
    cost = arrays[0]
    batch, n, m = cost.shape
    count = min(batch, cost.size // _WORK_FOR_A_THREAD)
    if count > 1:
        count = min(count, _most_threads(), _processors())
    if count <= 1:
        shared = tickets(batch, 1)
        kernel(*arrays, totals_tolerance, kind(n, m), shared, 0, *outputs)
        return refusal(shared)

    shared = tickets(max(1, _WORK_FOR_A_TICKET // (n * m)), 2 * count)
    answers: SimpleQueue[BaseException | None] = SimpleQueue()

    def assist() -> None:
        try:
            kernel(*arrays, totals_tolerance, kind(n, m), shared, 0, *outputs)
        except BaseException as error:
            answers.put(error)
        else:
            answers.put(None)

    _pool.submit(assist, count - 1)
    all_done = kernel(*arrays, totals_tolerance, kind(n, m), shared, _PATIENCE, *outputs)
    while not all_done:  # a thread that has drawn a ticket answers when it has finished
        error = answers.get()
        if error is not None:
            raise error
        all_done = shared[BUSY] == 0
    return refusal(shared)

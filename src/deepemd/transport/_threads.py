"""Solve a batch on several CPU threads. Each thread solves whole problems, so results do not depend on their number."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from queue import Empty, SimpleQueue

import numpy as np
import torch

from deepemd.threads import stopped
from deepemd.transport._memory import affordable, workspace_size
from deepemd.transport._tickets import BUSY, refusal, stop, tickets
from deepemd.transport._workspace import kind

# Work is counted in problems times n times m. With less than this for each, waking another thread does not pay.
_WORK_FOR_A_THREAD = 8_000
_WORK_FOR_A_TICKET = 8_000

# A call with so much work, or so much work times n + m, is watched, so that Ctrl-C can end it. It takes 30 to 200 ms or
# more, and watching it 1 ms.
_LONG, _LONG_FOR_LARGE = 2**24, 2_000_000_000
_GLANCE = 0.1  # seconds between two looks at whether a watched call is still wanted
_GRACE = 2.0  # seconds that a stopped batch has to end
_PATIENCE = 20_000  # how often to check, in about 100 us, whether the others have finished, before sleeping

_Answers = SimpleQueue[BaseException | None]  # what threads report when they end: an exception, or None

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
            try:
                threading.Thread(target=self._serve, name=f"deepemd-{self._threads + 1}", daemon=True).start()
            except RuntimeError:  # no more threads are allowed: those that exist do the work
                break
            self._threads += 1
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
    if count > 1 and n + m > 200:
        count = affordable(count, workspace_size(n, m))
    long = cost.size >= _LONG or cost.size * (n + m) >= _LONG_FOR_LARGE
    if count <= 1 and not long:
        shared = tickets(batch, 1)
        kernel(*arrays, totals_tolerance, kind(n, m), shared, 0, *outputs)
        return refusal(shared)

    shared = tickets(batch, 1) if count <= 1 else tickets(max(1, _WORK_FOR_A_TICKET // (n * m)), 2 * count)

    def work(patience: int) -> bool:
        return kernel(*arrays, totals_tolerance, kind(n, m), shared, patience, *outputs)

    if long:
        _watched(lambda: _share(work, shared, count), shared)
    else:
        _share(work, shared, count)
    return refusal(shared)


def _share(work: Callable[[int], bool], shared: np.ndarray, count: int) -> None:
    """Call ``work`` in this thread and ``count`` - 1 others, and wait until all tickets are done."""
    if count <= 1:
        work(0)
        return
    answers: _Answers = SimpleQueue()
    _pool.submit(lambda: _answer(lambda: work(0), answers), count - 1)
    all_done = work(_PATIENCE)
    while not all_done:  # a thread that has drawn a ticket answers when it has finished
        error = answers.get()
        if error is not None:
            raise error
        all_done = shared[BUSY] == 0


def _watched(work: Callable[[], None], shared: np.ndarray) -> None:
    """Call ``work`` in a thread of its own, so that this one notices signals. If one interrupts it, stop the batch.

    Python delivers Ctrl-C to the main thread between two of its instructions, so never within compiled code. Work that
    :func:`deepemd.threads.single_threads` has given up is stopped as well.
    """
    answers: _Answers = SimpleQueue()
    try:
        try:
            threading.Thread(target=_answer, args=(work, answers), name="deepemd-lead", daemon=True).start()
        except RuntimeError:  # no more threads are allowed
            _answer(work, answers)
        error = _wait(answers)
    except BaseException:
        stop(shared)
        with suppress(Empty):
            answers.get(timeout=_GRACE)
        raise
    if error is not None:
        raise error


def _answer(work: Callable[[], object], answers: _Answers) -> None:
    """Call ``work``, and answer with the exception that it raised, or None."""
    try:
        work()
    except BaseException as error:
        answers.put(error)
    else:
        answers.put(None)


def _wait(answers: _Answers) -> BaseException | None:
    """Return the answer of a thread, or raise CancelledError if nobody needs it any more."""
    while True:
        try:
            return answers.get(timeout=_GLANCE)
        except Empty:
            if stopped():
                raise CancelledError("the result of this batch is no longer needed") from None

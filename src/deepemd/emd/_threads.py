"""A batch on several CPU threads. Each solves whole problems, so results do not depend on how many there are."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

from deepemd.emd._solve import OK, solve_range
from deepemd.emd._workspace import kind

# Below this much work (problems times n times m) waking a second thread costs more than it saves.
_WORK_FOR_A_THREAD = 2_000

_pool: ThreadPoolExecutor | None = None


def _threads() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="deepemd")
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
    arrays: tuple, totals_tolerance: float, outputs: tuple, kernel: Callable[..., tuple[int, int]] = solve_range
) -> tuple[int, int]:
    """Solve every problem, on up to ``torch.get_num_threads()`` threads. -> the first refused and why, or (-1, OK).

    The kernel releases the interpreter's lock, so plain threads suffice: no OpenMP pool that would abort after a fork.
    """
    cost = arrays[0]
    batch, n, m = cost.shape
    shape = kind(n, m)
    threads = max(1, min(torch.get_num_threads(), batch, cost.size // _WORK_FOR_A_THREAD))
    pieces = iter([(0, batch)]) if threads == 1 else iter(list(_pieces(batch, threads)))

    def work() -> list[tuple[int, int]]:
        """Take pieces until none is left; what was refused, if anything."""
        refused = []
        for first, last in pieces:  # a list's iterator hands out each item once, to whichever thread asks
            problem, reason = kernel(*arrays, totals_tolerance, first, last, shape, *outputs)
            if reason != OK:
                refused.append((problem, reason))
        return refused

    others = [_threads().submit(work) for _ in range(threads - 1)]
    refused = [*work(), *(answer for other in others for answer in other.result())]
    return min(refused, default=(-1, OK))

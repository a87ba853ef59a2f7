"""A batch on several CPU threads, each with its own share of the problems: results do not depend on their number."""

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import torch

from deepemd.emd._simplex import OK, solve_range

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


def solve_batch(arrays: tuple, totals_tolerance: float, outputs: tuple) -> tuple[int, int]:
    """Solve every problem on at most ``torch.get_num_threads()`` threads. -> the first refused and why, or (-1, OK).

    The kernel releases the interpreter's lock, so plain threads suffice: no OpenMP pool that would abort after a fork.
    """
    cost = arrays[0]
    batch, work = cost.shape[0], cost.size
    shares = max(1, min(torch.get_num_threads(), batch, work // _WORK_FOR_A_THREAD))
    bounds = [batch * k // shares for k in range(shares + 1)]

    def solve(first: int, last: int) -> tuple[int, int]:
        problem, reason = solve_range(*arrays, totals_tolerance, first, last, *outputs)  # type: ignore[call-arg]
        return problem, reason

    mine, *others = pairwise(bounds)
    waiting = [_threads().submit(solve, *share) for share in others]
    answers = [solve(*mine), *(future.result() for future in waiting)]
    return next((answer for answer in answers if answer[1] != OK), (-1, OK))

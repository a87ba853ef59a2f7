"""How threads share a batch: each draws a ticket for the next few problems until none is left.

A turn taken in Python would cost the interpreter's lock, and a thread's waking up as much time as ten problems. So
tickets are drawn in compiled code, by atomic operations on a few numbers that all threads see.
"""

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import types
from numba.extending import intrinsic

from deepemd.transport._vectors import address

# Where in the shared numbers they stand: those that change on a cache line each, lest threads slow one another.
NEXT, BUSY, REFUSED, LEAST, PARTS = 0, 8, 16, 24, 25
_NONE = 2**62
_REASONS = 16  # more than there are reasons to refuse a problem


def tickets(least: int, parts: int) -> np.ndarray:
    """The shared numbers. A ticket is for one of so many parts of the problems left, but ``least`` at least."""
    shared = np.zeros(32, np.int64)
    shared[LEAST], shared[PARTS], shared[REFUSED] = least, parts, _NONE
    return shared


def refusal(shared: np.ndarray) -> tuple[int, int] | None:
    """The first problem refused and why, if any was: problems before it have been solved, whatever the threads did."""
    found = int(shared[REFUSED])
    return None if found == _NONE else divmod(found, _REASONS)


def _atomic(operation):
    def typed(typing, shared, k, value):
        def lower(context, builder, sig, args):
            place = address(context, builder, sig.args[0], args[0], args[1], 1, ir.IntType(64))
            return builder.atomic_rmw(operation, place, args[2], "seq_cst")

        return types.int64(shared, types.intp, types.int64), lower

    return intrinsic(typed)


_add, _lower = _atomic("add"), _atomic("min")  # -> what was there before


@njit(nogil=True, forceinline=True)
def draw(shared, batch):
    """The next problems, first .. last - 1; first == last where none is left. Else ``done`` must follow."""
    _add(shared, BUSY, 1)  # before the ticket: who sees that none is left and nobody busy knows that all is done
    count = max(shared[LEAST], (batch - _add(shared, NEXT, 0)) // shared[PARTS])
    first = _add(shared, NEXT, count)
    if first >= batch:
        _add(shared, BUSY, -1)
        return batch, batch
    return first, min(first + count, batch)


@njit(nogil=True, forceinline=True)
def done(shared):
    _add(shared, BUSY, -1)


@njit(nogil=True, forceinline=True)
def refuse(shared, batch, problem, reason):
    """Note the problem and hand out no more tickets. Problems before it have been handed out already."""
    _lower(shared, REFUSED, problem * _REASONS + reason)
    _add(shared, NEXT, batch)


@njit(nogil=True, forceinline=True)
def all_done(shared, patience):
    """Whether no thread is busy, after looking so many times."""
    while patience > 0 and _add(shared, BUSY, 0) > 0:
        patience -= 1
    return patience > 0

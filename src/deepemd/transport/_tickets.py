"""How threads share a batch: each draws a ticket for the next few problems until none is left.

Drawing in Python would take the interpreter's lock each time, and waking a thread takes as long as solving ten
problems. So tickets are drawn in compiled code, by atomic operations on a few numbers that all threads share.
"""

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from deepemd.transport._compile import inlined
from deepemd.transport._vectors import address

# Places in the array of shared numbers. Those that change have a cache line each, so that threads stay fast.
NEXT, BUSY, REFUSED, LEAST, PARTS, STOP = 0, 8, 16, 24, 25, 26
_NONE = 2**62
_REASONS = 16  # more than there are reasons to refuse a problem


def tickets(least: int, parts: int) -> np.ndarray:
    """Return new shared numbers. A ticket holds 1 / ``parts`` of the problems left, but at least ``least``."""
    shared = np.zeros(32, np.int64)
    shared[LEAST], shared[PARTS], shared[REFUSED] = least, parts, _NONE
    return shared


def refusal(shared: np.ndarray) -> tuple[int, int] | None:
    """Return the first problem refused and the reason, or None. All problems before it have been solved."""
    found = int(shared[REFUSED])
    return None if found == _NONE else divmod(found, _REASONS)


def stop(shared: np.ndarray) -> None:
    """End the batch unfinished: the threads stop within a part of a problem. Its results are then worth nothing."""
    shared[STOP] = 1


@intrinsic
def stopping(typing, shared):
    """Return whether ``stop`` was called. This is a plain load, but the compiler may not move it out of a loop."""

    def lower(context, builder, sig, args):
        place = address(context, builder, sig.args[0], args[0], ir.Constant(ir.IntType(64), STOP), 1, ir.IntType(64))
        return builder.trunc(builder.load_atomic(place, "monotonic", 8), ir.IntType(1))

    return types.boolean(shared), lower


def _atomic(operation):
    """Make the function (shared, k, value) that applies an atomic operation to shared[k]."""

    def typed(typing, shared, k, value):
        def lower(context, builder, sig, args):
            place = address(context, builder, sig.args[0], args[0], args[1], 1, ir.IntType(64))
            return builder.atomic_rmw(operation, place, args[2], "seq_cst")

        return types.int64(shared, types.intp, types.int64), lower

    return intrinsic(typed)


_add, _lower = _atomic("add"), _atomic("min")  # each returns the value from before


@inlined
def draw(shared, batch):
    """Return the next problems, first .. last - 1; if first < last, call ``done`` after them. Modifies shared."""
    _add(shared, BUSY, 1)  # before the ticket, so that "none left and nobody busy" means that all is done
    count = max(shared[LEAST], (batch - _add(shared, NEXT, 0)) // shared[PARTS])
    first = _add(shared, NEXT, count)
    if first >= batch:
        _add(shared, BUSY, -1)
        return batch, batch
    return first, min(first + count, batch)


@inlined
def done(shared):
    """Report that the problems of a ticket are done. Modifies shared."""
    _add(shared, BUSY, -1)


@inlined
def refuse(shared, batch, problem, reason):
    """Record a refused problem and stop handing out tickets. Problems before it have been handed out already."""
    _lower(shared, REFUSED, problem * _REASONS + reason)
    _add(shared, NEXT, batch)


@inlined
def all_done(shared, patience):
    """Check up to ``patience`` times whether no thread is busy. Return whether that was so."""
    while patience > 0 and _add(shared, BUSY, 0) > 0:
        patience -= 1
    return patience > 0

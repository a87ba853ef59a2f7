"""Load a problem into the solver's arrays, write its answer back, and solve the problems of a batch."""

import math
from collections.abc import Callable

import numpy as np

from deepemd.transport._compile import cached_njit, inlined, source_fingerprint, subroutine
from deepemd.transport._simplex import fill_subtrees, optimise, potentials
from deepemd.transport._start import start
from deepemd.transport._tickets import all_done, done, draw, refuse, stopping
from deepemd.transport._vectors import (
    bits,
    first16,
    greatest,
    largest,
    load16,
    load_first,
    narrow,
    numbers16,
    splat16,
    splat_as,
    store,
    total,
    where,
    widen,
)
from deepemd.transport._workspace import shape_of, workspace

# The reasons for refusing a problem; _autograd.py turns them into error messages.
OK, COST_NOT_FINITE, A_NEGATIVE, A_NOT_FINITE, A_ZERO, B_NEGATIVE, B_NOT_FINITE, B_ZERO, TOTALS, PIVOT_CAP = range(10)
STOPPED = 10  # the batch was ended by ``stop``: no message


@inlined
def _load_weights(given, kept, weight, at, width):
    """Copy the positive weights and pad with zeros. Return their number, their sum and a status.

    The status is 0 (valid), 1 (one is negative), 2 (not finite) or 3 (none is positive). Modifies kept, weight.
    """
    size, zero, odd = given.shape[0], splat_as(0.0, given), np.int64(0)
    sums = widen(zero)
    for k in range(0, width, 16):
        w = load_first(given, k, size - k)
        odd |= bits(first16(size - k)) & ~(bits(zero < w) & bits(w - w == zero))  # not positive, or not finite
        store(weight, at + k, widen(w))
        store(kept, k, numbers16() + splat16(np.int32(k)))
        sums += widen(w)
    count, together = size, total(sums)
    if odd:
        for k in range(0, width, 16):
            store(weight, at + k, widen(zero))
        return _pick_weights(given, kept, weight, at)
    return count, together, 0 if together < np.inf else 2


@subroutine
def _pick_weights(given, kept, weight, at):
    """Do as _load_weights if not all weights are positive; the padding is filled already."""
    count, total = 0, 0.0
    for k in range(given.shape[0]):
        w = np.float64(given[k])
        if not w < np.inf:
            return count, total, 2
        if w < 0.0:
            return count, total, 2 if w == -np.inf else 1
        if w > 0.0:
            kept[count] = k
            weight[at + count] = w
            count += 1
            total += w
    if count == 0:
        return count, total, 3
    return count, total, 0 if total < np.inf else 2


@inlined
def _load_whole_costs(cost, sh, exact):
    """Copy all costs. Return max |c| over them, which is not finite if any cost is not."""
    m, row = sh.m, sh.row
    zero, never = splat_as(0.0, exact), splat_as(np.inf, exact)
    top, odd = zero, zero
    for i in range(sh.n):
        given = cost[i]
        for j in range(0, m - 15, 16):
            c = load16(given, j)
            store(exact, i * row + j, c)
            top = greatest(greatest(c, zero - c), top)
            odd += c - c  # NaN for what is not finite
        for j in range(m & -16, row, 16):
            c = load_first(given, j, m - j)
            store(exact, i * row + j, where(first16(m - j), c, never))
            top = greatest(greatest(c, zero - c), top)
            odd += c - c
    return np.float64(largest(top)) + np.float64(total(odd))


@subroutine
def _load_some_costs(cost, sh, ws):
    """Copy the costs of rows and columns with weight. Return max |c| over them, inf if any cost is not finite."""
    bad, top = 0, 0.0
    for i in range(cost.shape[0]):
        for j in range(cost.shape[1]):
            bad += not abs(cost[i, j]) < np.inf
    for i in range(sh.n):
        for j in range(sh.m):
            c = cost[ws.row_of[i], ws.col_of[j]]
            ws.exact[i * sh.row + j] = c
            top = max(top, np.float64(abs(c)))
        for j in range(sh.m, sh.row):
            ws.exact[i * sh.row + j] = np.inf
    return np.inf if bad else top


@subroutine
def _rescale(sh, top, ws):
    """Scale costs of extreme size by a power of two, which is exact. Return the exponent and the new max |c|."""
    exponent = math.frexp(top)[1]
    for k in range(sh.n * sh.row):
        ws.exact[k] = math.ldexp(np.float64(ws.exact[k]), -exponent)
    return exponent, math.ldexp(top, -exponent)


@inlined
def _round_costs(ws, count):
    """Fill price from exact. Modifies price."""
    for k in range(0, count, 16):
        store(ws.price, k, narrow(load16(ws.exact, k)))


@inlined
def load(cost, a, b, totals_tolerance, kind, ws):
    """Check and copy one problem. Return status, shape, total, max |c|, and the exponents of costs and weights."""
    sh = shape_of(a.shape[0], b.shape[0], kind)
    n, total_a, wrong = _load_weights(a, ws.row_of, ws.weight, 0, sh.base)
    if wrong:
        return A_NEGATIVE + wrong - 1, sh, 0.0, 0.0, 0, 0
    sh = shape_of(n, b.shape[0], kind)
    m, total_b, wrong = _load_weights(b, ws.col_of, ws.weight, sh.base, sh.row)
    if wrong:
        return B_NEGATIVE + wrong - 1, sh, 0.0, 0.0, 0, 0
    factor = total_a / total_b
    if abs(factor - 1.0) > totals_tolerance:
        return TOTALS, sh, 0.0, 0.0, 0, 0
    sh = shape_of(n, m, kind)
    for j in range(sh.base, sh.span, 16):
        store(ws.weight, j, load16(ws.weight, j) * splat16(factor))
    lift = 0
    if not 1e-100 < total_a < 1e100:  # by a power of two, so that products with costs stay finite
        lift = math.frexp(total_a)[1]
        total_a = math.ldexp(total_a, -lift)
        for x in range(sh.base + m):
            ws.weight[x] = math.ldexp(ws.weight[x], -lift)
    if n == cost.shape[0] and m == cost.shape[1]:
        top = _load_whole_costs(cost, sh, ws.exact)
    else:
        top = _load_some_costs(cost, sh, ws)
    if not top < np.inf:
        return COST_NOT_FINITE, sh, 0.0, 0.0, 0, 0
    exponent = 0
    if not (1e-12 < top < 1e12 or top == 0.0):
        exponent, top = _rescale(sh, top, ws)
    if cost.itemsize > 4:  # else the two are one array
        _round_costs(ws, n * sh.row)
    return OK, sh, total_a, top, exponent, lift


@inlined
def _lifted(x, exponent):
    """Return x * 2^exponent."""
    return x if exponent == 0 else math.ldexp(x, exponent)


@inlined
def _write_duals(sh, total_weight, exponent, ws, u, v):
    """Write the duals of every row and column with weight, such that sum a u = sum b v. Modifies u, v."""
    n, m, base, pot = sh.n, sh.m, sh.base, ws.pot
    sums = splat16(0.0)
    for x in range(0, sh.span, 16):
        sums += load16(ws.weight, x) * load16(pot, x)
    balance = -total(sums) / (2.0 * total_weight)
    for i in range(n):
        u[ws.row_of[i]] = _lifted(pot[i] + balance, exponent)
    for j in range(m):
        v[ws.col_of[j]] = _lifted(-pot[base + j] - balance, exponent)


@subroutine
def _write_free_duals(cost, sh, ws, u, v):
    """Give nodes of zero weight the largest feasible dual: rows first, then columns against all rows. Modifies u, v."""
    k = 0
    for i in range(u.shape[0]):
        if k < sh.n and ws.row_of[k] == i:
            k += 1
            continue
        low = np.inf
        for j in range(sh.m):
            low = min(low, np.float64(cost[i, ws.col_of[j]]) - v[ws.col_of[j]])
        u[i] = low
    k = 0
    for j in range(v.shape[0]):
        if k < sh.m and ws.col_of[k] == j:
            k += 1
            continue
        low = np.inf
        for i in range(u.shape[0]):
            low = min(low, np.float64(cost[i, j]) - u[i])
        v[j] = low


@inlined
def _write_arcs(sh, lift, ws, columns, arcs, flow):
    """Write the arcs of the tree and their flows, padded with arcs of flow 0. Return the total cost.

    An arc is the number of its cell in the input, counted row by row. Modifies arcs, flow.
    """
    k, spent = 0, 0.0
    for side in range(2):
        for x in range(sh.base * side, sh.base + sh.m if side else sh.n):
            p = np.int64(ws.parent[x])
            if p >= 0:
                i, j = (x, p - sh.base) if side == 0 else (p, x - sh.base)
                shipped = max(ws.flow[x], 0.0)  # rounding may have left it below
                arcs[k], flow[k] = ws.row_of[i] * columns + ws.col_of[j], _lifted(shipped, lift)
                spent += shipped * ws.exact[i * sh.row + j]
                k += 1
    for rest in range(k, arcs.shape[0]):
        arcs[rest], flow[rest] = 0, 0.0
    return spent


@inlined
def write(cost, sh, total_weight, exponent, lift, ws, u, v, arcs, flow):
    """Write an optimal tree into the caller's arrays and return the value. Modifies u, v, arcs, flow."""
    _write_duals(sh, total_weight, exponent, ws, u, v)
    if sh.n < cost.shape[0] or sh.m < cost.shape[1]:
        _write_free_duals(cost, sh, ws, u, v)
    return _lifted(_write_arcs(sh, lift, ws, cost.shape[1], arcs, flow), exponent + lift)


def describe(args: tuple) -> str:
    """Say what the solver is compiled for, from the Numba types of its arguments."""
    words, sixteens = (len(part) for part in args[4])
    size = 16 * sixteens or (128 if words == 4 else 0)
    return f"{args[0].dtype} costs, " + (f"up to {size} x {size}" if size else "larger problems")


def _entry(fingerprint: str) -> Callable[..., bool]:
    @cached_njit(describe)
    def solve_batch(cost, a, b, totals_tolerance, kind, shared, patience, value, u, v, arcs, flow):
        """Solve a batch together with other threads. Return whether all is done after ``patience`` checks.

        cost (B, n, m), a (B, n), b (B, m) share one float type; b counts as scaled to the total of a. value (B,),
        u (B, n), v (B, m) receive the results in their own type; arcs (B, n + m - 1) int32 and flow (B, n + m - 1)
        the basis arcs, padded with arcs of flow 0. A refused problem is recorded in shared. Modifies shared, value,
        u, v, arcs, flow.
        """
        fingerprint  # noqa: B018 - what a function closes over is part of the key of its compiled code
        ws, buffer = workspace(cost.shape[1], cost.shape[2], kind, cost)
        while True:
            first, last = draw(shared, cost.shape[0])
            if first == last:
                break
            for p in range(first, last):
                status, sh, total_weight, top, exponent, lift = load(cost[p], a[p], b[p], totals_tolerance, kind, ws)
                if status == OK and start(sh, total_weight, shared, ws):
                    potentials(sh, ws)
                    if min(sh.n, sh.m) > 1:  # else there is only one tree
                        fill_subtrees(kind[0], sh, ws)
                        cap = 10_000 + 1_000 * (sh.n + sh.m)
                        if optimise(kind[0], top, cap, shared, sh, ws) > cap:
                            status = PIVOT_CAP
                if stopping(shared):
                    status = STOPPED
                if status != OK:
                    refuse(shared, cost.shape[0], p, status)
                    break
                value[p] = write(cost[p], sh, total_weight, exponent, lift, ws, u[p], v[p], arcs[p], flow[p])
            done(shared)
        buffer[0] = 0  # the parts of the buffer are not reference-counted: the buffer must live until here
        return all_done(shared, patience)

    return solve_batch


solve_batch = _entry(source_fingerprint())

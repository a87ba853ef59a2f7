"""From the caller's numbers to the solver's arrays and back: one problem, then a range of a batch."""

import math
from collections.abc import Callable

import numpy as np
from numba import njit

from deepemd.transport._compile import kept, sources
from deepemd.transport._simplex import optimise, plant, potentials
from deepemd.transport._start import start
from deepemd.transport._tickets import all_done, done, draw, refuse
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

# Why a problem was refused; _autograd.py puts these into words.
OK, COST_NOT_FINITE, A_NEGATIVE, A_NOT_FINITE, A_ZERO, B_NEGATIVE, B_NOT_FINITE, B_ZERO, TOTALS, PIVOT_CAP = range(10)


@njit(nogil=True, forceinline=True, error_model="numpy")
def _load_weights(given, kept, weight, at, width):
    """Keep the positive weights and fill up with zeros. -> how many, their sum, and what is wrong.

    That is 0 (nothing), 1 (one is negative), 2 (not finite) or 3 (none is positive). Modifies kept, weight.
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


@njit(nogil=True, error_model="numpy")
def _pick_weights(given, kept, weight, at):
    """As _load_weights where not all weights are positive; the padding is filled."""
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


@njit(nogil=True, forceinline=True, error_model="numpy")
def _load_whole_costs(cost, sh, exact):
    """Copy all costs. -> max |c| over them, or not a finite number where any is not."""
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


@njit(nogil=True, error_model="numpy")
def _load_some_costs(cost, sh, ws):
    """Copy the costs of the rows and columns that have weight. -> max |c| over them; all must be finite."""
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


@njit(nogil=True, error_model="numpy")
def _rescale(sh, top, ws):
    """Bring costs of extreme size near 1 by a power of two, which rounds nothing. -> exponent and new max |c|."""
    exponent = math.frexp(top)[1]
    for k in range(sh.n * sh.row):
        ws.exact[k] = math.ldexp(np.float64(ws.exact[k]), -exponent)
    return exponent, math.ldexp(top, -exponent)


@njit(nogil=True, forceinline=True, error_model="numpy")
def _round_costs(ws, count):
    """Fill price from exact. Modifies price."""
    for k in range(0, count, 16):
        store(ws.price, k, narrow(load16(ws.exact, k)))


@njit(nogil=True, forceinline=True, error_model="numpy")
def load(cost, a, b, totals_tolerance, kind, ws):
    """Check and copy one problem. -> status, shape, total, max |c|, exponents of costs and weights."""
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


@njit(nogil=True, forceinline=True, error_model="numpy")
def _lifted(x, exponent):
    return x if exponent == 0 else math.ldexp(x, exponent)


@njit(nogil=True, forceinline=True, error_model="numpy")
def _write_duals(sh, total_weight, exponent, ws, u, v):
    """Duals of every row and column of the input, with sum a u = sum b v. Modifies u and v."""
    n, m, base, pot = sh.n, sh.m, sh.base, ws.pot
    sums = splat16(0.0)
    for x in range(0, sh.span, 16):
        sums += load16(ws.weight, x) * load16(pot, x)
    balance = -total(sums) / (2.0 * total_weight)
    for i in range(n):
        u[ws.row_of[i]] = _lifted(pot[i] + balance, exponent)
    for j in range(m):
        v[ws.col_of[j]] = _lifted(-pot[base + j] - balance, exponent)


@njit(nogil=True, error_model="numpy")
def _write_free_duals(cost, sh, ws, u, v):
    """A node of zero weight takes the largest dual that is feasible: rows first, then columns against all rows."""
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


@njit(nogil=True, forceinline=True, error_model="numpy")
def _write_arcs(sh, lift, ws, columns, arcs, flow):
    """The arcs of the tree and their flow, filled up with arcs of flow 0. -> the cost of all. Modifies arcs, flow.

    An arc is the number of its cell in the input, row by row of so many columns.
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


@njit(nogil=True, forceinline=True, error_model="numpy")
def write(cost, sh, total_weight, exponent, lift, ws, u, v, arcs, flow):
    """Put an optimal tree into the caller's arrays. -> the value. Modifies u, v, arcs, flow."""
    _write_duals(sh, total_weight, exponent, ws, u, v)
    if sh.n < cost.shape[0] or sh.m < cost.shape[1]:
        _write_free_duals(cost, sh, ws, u, v)
    return _lifted(_write_arcs(sh, lift, ws, cost.shape[1], arcs, flow), exponent + lift)


def describe(args: tuple) -> str:
    """What the solver is compiled for, in words, from the Numba types of its arguments."""
    words, sixteens = (len(part) for part in args[4])
    size = 16 * sixteens or (128 if words == 4 else 0)
    return f"{args[0].dtype} costs, " + (f"up to {size} x {size}" if size else "larger problems")


def _entry(fingerprint: str) -> Callable[..., bool]:
    @kept(describe)
    def solve_batch(cost, a, b, totals_tolerance, kind, shared, patience, value, u, v, arcs, flow):
        """Solve a batch together with other threads, by tickets. -> whether all is done, after waiting with patience.

        cost (B, n, m), a (B, n), b (B, m) share one float type; b counts as scaled to the total of a. value (B,),
        u (B, n), v (B, m) take the results in their own type; arcs (B, n + m - 1) int32 and flow (B, n + m - 1) take
        the basis arcs, filled up with arcs of flow 0. What is refused is noted in shared. Modifies shared, value, u,
        v, arcs, flow.
        """
        fingerprint  # noqa: B018 - what a function closes over is part of the key under which Numba keeps it
        ws, buffer = workspace(cost.shape[1], cost.shape[2], kind, cost)
        while True:
            first, last = draw(shared, cost.shape[0])
            if first == last:
                break
            for p in range(first, last):
                status, sh, total_weight, top, exponent, lift = load(cost[p], a[p], b[p], totals_tolerance, kind, ws)
                if status == OK:
                    start(sh, total_weight, ws)
                    potentials(sh, ws)
                    if min(sh.n, sh.m) > 1:  # else there is only one tree
                        plant(kind[0], sh, ws)
                        cap = 10_000 + 1_000 * (sh.n + sh.m)
                        if optimise(kind[0], top, cap, sh, ws) > cap:
                            status = PIVOT_CAP
                if status != OK:
                    refuse(shared, cost.shape[0], p, status)
                    break
                value[p] = write(cost[p], sh, total_weight, exponent, lift, ws, u[p], v[p], arcs[p], flow[p])
            done(shared)
        buffer[0] = 0  # the parts of the buffer are not counted: it must live until here
        return all_done(shared, patience)

    return solve_batch


solve_batch = _entry(sources())

"""Warm starts: solve a problem from the tree of an earlier one, for problems that change in small steps.

A basis stays a basis when costs and weights change: its arcs still span all rows and columns. On the old tree, the
flows follow from the new weights, leaf by leaf, and the potentials from the new costs. After a small step most flows
and most prices are still positive. Dual pivots remove the negative flows: the arc with the most negative one leaves,
and of the arcs that cross the cut in the other direction, the one of least reduced cost enters. The primal pivots of
_simplex.py then correct the prices and end the search, so the answer is as exact as from a new tree. If the old tree
does not fit, or repairing it takes more pivots than a new one would, the problem is solved from a new tree.

A dual pivot keeps the prices positive only if they were positive before. Here that holds only roughly, so nothing
guarantees that the repair ends. It is a heuristic with a limit.
"""

from collections.abc import Callable

import numpy as np

from deepemd.transport._compile import cached_njit, inlined, source_fingerprint
from deepemd.transport._simplex import INF32, contains, fill_subtrees, optimise, potentials, rehang, sort_tree
from deepemd.transport._solve import OK, PIVOT_CAP, STOPPED, describe, load, write
from deepemd.transport._start import start
from deepemd.transport._tickets import all_done, done, draw, refuse, stopping
from deepemd.transport._vectors import (
    bits,
    greatest,
    lane_bits,
    least,
    load8,
    load16,
    smallest,
    splat8,
    splat16,
    store,
    trailing_zeros,
    where,
)
from deepemd.transport._workspace import workspace

SLACK = 4e-15  # of the total weight: a flow no further below zero counts as rounding
TRACE = 1e-20  # of the total weight: replaces a flow of zero where the tree would not be strongly feasible

# Limits beyond which a new tree is faster, measured from 25 to 100 nodes a side; relative to n + m, except the last.
NEGATIVE = 1 / 6  # flows that the new weights make negative
DUAL = 1 / 3  # dual pivots
ALL = 1 / 2  # pivots
FEW = 8  # negative flows or pivots that any problem may have


# --- the old tree -----------------------------------------------------------------------------------------------------


@inlined
def restore_tree(arcs, rows, columns, sh, ws):
    """Restore parents and ``order`` from the basis arcs of ``write``. Return False if a node with weight has no arc.

    The arcs are in the order of their lower nodes, rows before columns, and the root is a column, so the first n are
    those above the rows. Modifies parent, order; uses partner.
    """
    n, m, base, parent = sh.n, sh.m, sh.base, ws.parent
    row_at, col_at = ws.order, ws.partner  # the node of each row and column of the input
    for i in range(rows):
        row_at[i] = -1
    for j in range(columns):
        col_at[j] = -1
    for i in range(n):
        row_at[ws.row_of[i]] = i
    for j in range(m):
        col_at[ws.col_of[j]] = base + j
        parent[base + j] = -1
    for k in range(n):
        j = arcs[k] - ws.row_of[k] * columns
        if j < 0 or j >= columns or col_at[j] < 0:
            return False
        parent[k] = col_at[j]
    below = -1
    for k in range(n, n + m - 1):
        if arcs[k] < 0 or arcs[k] >= rows * columns:
            return False
        i = arcs[k] // columns
        x, y = col_at[arcs[k] - i * columns], row_at[i]
        if x <= below or y < 0 or parent[y] == x:  # the last two hold only for padding
            return False
        parent[x], below = y, x
    sort_tree(sh, ws)
    return True


@inlined
def restore_flows(total_weight, sh, ws):
    """Compute the flows on the tree from the weights, leaf by leaf. Return False if too many are negative.

    Modifies flow.
    """
    flow, order, parent, nodes, negative = ws.flow, ws.order, ws.parent, sh.n + sh.m, 0
    for k in range(0, sh.span, 8):
        store(flow, k, splat8(0.0))
    for i in range(sh.n):
        flow[i] = ws.weight[i]
    for j in range(sh.base, sh.base + sh.m):
        flow[j] = ws.weight[j]
    for k in range(nodes - 1):
        f = flow[order[k]]
        flow[parent[order[k]]] -= f
        negative += f < -SLACK * total_weight
    flow[order[nodes - 1]] = 0.0
    return negative <= FEW + NEGATIVE * nodes


# --- its repair -------------------------------------------------------------------------------------------------------


@inlined
def _least_flow(sh, ws):
    """Return the most negative flow, and the node below it."""
    low = splat8(0.0)
    for k in range(0, sh.span, 8):
        low = least(load8(ws.flow, k), low)
    value, x = smallest(low), 0
    if value < 0.0:
        for k in range(0, sh.span, 8):
            here = bits(load8(ws.flow, k) == splat8(value))
            if here:
                x = k + trailing_zeros(here)
                break
    return value, x


@inlined
def _cheapest_across(x, sh, ws):
    """Return the row and column of the cheapest arc, in float32, that can replace the one above x; -1, -1 if none.

    A negative flow above a row means that the subtree lacks supply: rows outside can serve its columns. Above a column
    it means that the subtree has supply left over: its rows can serve columns outside. Modifies best_row.
    """
    n, row, base, sub, first, pot32 = sh.n, sh.row, sh.base, ws.sub, x * sh.words, ws.pot32
    flip = np.int64(-1) if x < base else np.int64(0)  # turns the subtree's bits into those of the eligible rows
    value, at_i, at_j = INF32, -1, -1
    for j in range(0, row, 16):
        node = base + j
        columns = (~flip ^ sub[first + (node >> 6)]) >> np.int64(node & 63)
        if columns & 0xFFFF == 0:
            continue
        top, at = splat16(INF32), splat16(np.int32(-1))
        for w in range((n + 63) >> 6):
            rows = flip ^ sub[first + w]
            if n - 64 * w < 64:
                rows &= (np.int64(1) << np.int64(n - 64 * w)) - 1
            while rows:
                i = 64 * w + trailing_zeros(rows)
                rows &= rows - 1
                r = load16(ws.price, i * row + j) - splat16(pot32[i])
                better = r < top
                top, at = where(better, r, top), where(better, splat16(np.int32(i)), at)
        top += load16(pot32, node)
        top = where(lane_bits(columns, top), top, splat16(INF32))
        low = smallest(top)
        if low < value:
            store(ws.best_row, j, at)
            value, at_j = low, j + trailing_zeros(bits(top == splat16(low)))
            at_i = np.int64(ws.best_row[at_j])
    return at_i, at_j


@inlined
def repair(like, total_weight, cap, shared, sh, ws):
    """Make dual pivots until no flow is negative. Return their number, or -1 if ``cap`` of them were not enough.

    Once the batch is to stop, -1 is returned too.

    The resulting tree is strongly feasible, as ``optimise`` requires: a flow of zero from a row down to a column is
    replaced by TRACE. Modifies parent, flow, sub, pot, pot32.
    """
    parent, flow, sub, base = ws.parent, ws.flow, ws.sub, sh.base
    root = np.int64(ws.order[sh.n + sh.m - 1])
    pivots = 0
    while True:
        value, x = _least_flow(sh, ws)
        if value >= -SLACK * total_weight:
            break
        i, j = _cheapest_across(x, sh, ws)
        if pivots == cap or i < 0 or stopping(shared):
            return -1
        j += base
        reduced = ws.exact[i * sh.row + j - base] - ws.pot[i] + ws.pot[j]
        inner, outer, change, shift = (j, i, -value, -reduced) if x < base else (i, j, value, reduced)
        apex = outer
        while not contains(sub, sh.words, apex, x):
            apex = np.int64(parent[apex])
        rehang(inner, x, outer, apex, -value, change, shift, like, sh, ws)
        pivots += 1
    for k in range(0, base, 8):
        store(flow, k, greatest(load8(flow, k), splat8(0.0)))
    for k in range(base, sh.span, 8):
        store(flow, k, greatest(load8(flow, k), splat8(TRACE * total_weight)))
    flow[root] = 0.0
    return pivots


# --- the batch -----------------------------------------------------------------------------------------------


def _entry(fingerprint: str) -> Callable[..., bool]:
    @cached_njit(lambda args: f"warm starts, {describe(args)}")
    def resume_batch(cost, a, b, totals_tolerance, kind, shared, patience, value, u, v, arcs, flow, resumed):
        """Solve a batch as solve_batch does, starting from the basis arcs in ``arcs``.

        resumed (B,) bool receives where the answer came from these. Modifies shared, value, u, v, arcs, flow, resumed.
        """
        fingerprint  # noqa: B018 - what a function closes over is part of the key of its compiled code
        ws, buffer = workspace(cost.shape[1], cost.shape[2], kind, cost)
        while True:
            first, last = draw(shared, cost.shape[0])
            if first == last:
                break
            for p in range(first, last):
                status, sh, total_weight, top, exponent, lift = load(cost[p], a[p], b[p], totals_tolerance, kind, ws)
                if status == OK:
                    nodes, pivots = sh.n + sh.m, 0
                    star = min(sh.n, sh.m) == 1  # there is only one tree
                    warm = restore_tree(arcs[p], cost.shape[1], cost.shape[2], sh, ws)
                    warm = warm and restore_flows(total_weight, sh, ws)
                    while True:
                        if (star or not warm) and not start(sh, total_weight, shared, ws):
                            break
                        potentials(sh, ws)
                        if star:
                            break
                        fill_subtrees(kind[0], sh, ws)
                        if warm:
                            cap = FEW + int(ALL * nodes)
                            pivots = repair(kind[0], total_weight, FEW + int(DUAL * nodes), shared, sh, ws)
                        else:
                            cap, pivots = 10_000 + 1_000 * nodes, 0
                        if pivots >= 0 and optimise(kind[0], top, cap - pivots, shared, sh, ws) <= cap - pivots:
                            break
                        if not warm:
                            status = PIVOT_CAP
                            break
                        warm = False
                    resumed[p] = warm
                if stopping(shared):
                    status = STOPPED
                if status != OK:
                    refuse(shared, cost.shape[0], p, status)
                    break
                value[p] = write(cost[p], sh, total_weight, exponent, lift, ws, u[p], v[p], arcs[p], flow[p])
            done(shared)
        buffer[0] = 0  # the parts of the buffer are not reference-counted: the buffer must live until here
        return all_done(shared, patience)

    return resume_batch


resume_batch = _entry(source_fingerprint())

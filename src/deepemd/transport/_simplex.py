"""One transport problem solved exactly by the network simplex, given a starting tree.

The problem: minimise sum_ij c_ij x_ij over x >= 0 with row sums a and column sums b. A basis of this linear programme
is a spanning tree of the n + m nodes (rows and columns). The tree is kept as four arrays indexed by node:

    parent[x]   the next node toward the root (-1 at the root)
    flow[x]     the flow on the arc between x and its parent
    sub[x]      the nodes below x, x included, as a bitmask of 64-bit words
    pot[x]      the dual potential: u_i at row i and -v_j at column j, so that c_ij = pot[row] - pot[column] on tree
    arcs

Row i is node i and column j is node ``base + j``; the number of a node is also its bit. Walking up from one end of an
arc until the mask contains its other end finds the apex of the cycle. Moving a subtree costs one mask operation for
each node of the cycle, and the potentials change by one masked vector addition. A mask is one vector of 1, 2, 4 or 8
words, as many as the tuple ``like`` has entries; larger problems use several vectors of 8.

Prices are scanned in float32. Flows, potentials and every decision that ends the search are in float64, so the answer
is exact to the rounding of float64, for float32 and float64 costs alike.
"""

import numpy as np

from deepemd.transport._compile import inlined
from deepemd.transport._tickets import stopping
from deepemd.transport._vectors import (
    bits,
    lane_bits,
    least,
    load8,
    load16,
    load_lanes,
    narrow,
    smallest,
    splat8,
    splat16,
    splat_lanes,
    store,
    trailing_zeros,
    where,
    widen,
)

PRICE_TOLERANCE = 1e-6  # of the float32 scan, relative to max |c|
TOLERANCE = 1e-13  # of the float64 passes, relative to max |c|
STALE = 0.6  # the candidates of a scan are used while they are better than this fraction of its best
REFRESH = 128  # after so many pivots the potentials are recomputed before they may end the search
INF32 = np.float32(np.inf)


# --- the tree ---------------------------------------------------------------------------------------------------------


@inlined
def fill_subtrees(like, sh, ws):
    """Compute subtrees from parents and ``order``, which must list all nodes, children before parents. Modifies sub."""
    parent, order, sub = ws.parent, ws.order, ws.sub
    nodes, stride = sh.n + sh.m, sh.words
    for k in range(nodes):
        x = order[k]
        for w in range(0, stride, len(like)):
            store(sub, x * stride + w, splat_lanes(np.int64(0), like))
        sub[x * stride + (x >> 6)] = np.int64(1) << np.int64(x & 63)
    for k in range(nodes - 1):
        x, p = order[k], parent[order[k]]
        for w in range(0, stride, len(like)):
            store(sub, p * stride + w, load_lanes(sub, p * stride + w, like) | load_lanes(sub, x * stride + w, like))


@inlined
def potentials(sh, ws):
    """Compute potentials, root first; ``order`` must list children before parents. Modifies pot, pot32."""
    parent, pot, order = ws.parent, ws.pot, ws.order
    n, m, row, base = sh.n, sh.m, sh.row, sh.base
    pot[order[n + m - 1]] = 0.0
    for k in range(n + m - 2, -1, -1):
        x = order[k]
        p = parent[x]
        pot[x] = pot[p] + ws.exact[x * row + p - base] if x < base else pot[p] - ws.exact[p * row + x - base]
    for x in range(0, sh.span, 8):
        store(ws.pot32, x, narrow(load8(pot, x)))


@inlined
def sort_tree(sh, ws):
    """Fill ``order`` with the nodes, children before parents. Modifies order, done."""
    order, parent, done = ws.order, ws.parent, ws.done
    n, m, base = sh.n, sh.m, sh.base
    place = n + m  # filled from the end: parents first
    done[:] = 0
    for k in range(n + m):
        x = k if k < n else base + k - n
        top = x
        depth = 0
        while top >= 0 and not (done[top >> 6] >> np.int64(top & 63)) & 1:
            done[top >> 6] |= np.int64(1) << np.int64(top & 63)
            depth += 1
            top = parent[top]
        place -= depth
        y = x
        for d in range(depth):
            order[place + d] = y
            y = parent[y]


# --- one pivot --------------------------------------------------------------------------------------------------------


@inlined
def contains(sub, stride, x, y):
    """Return whether the subtree of node x contains node y."""
    return (sub[x * stride + (y >> 6)] >> np.int64(y & 63)) & 1


@inlined
def _move_bits(inner, leave, outer, apex, like, stride, parent, sub):
    """Move the subtree of ``leave`` below ``outer``, turned so that ``inner`` is its top. Modifies sub."""
    # On the path inner .. leave, a node keeps what was below it but not below the node before. The nodes above lose
    # the subtree, and those above its new place gain it.
    for w in range(0, stride, len(like)):
        moved = load_lanes(sub, leave * stride + w, like)
        before = splat_lanes(np.int64(0), like)
        x = inner
        while True:
            old = load_lanes(sub, x * stride + w, like)
            store(sub, x * stride + w, moved ^ before)
            before = old
            if x == leave:
                break
            x = parent[x]
        x = parent[x]
        while x != apex:
            store(sub, x * stride + w, load_lanes(sub, x * stride + w, like) ^ moved)
            x = parent[x]
        x = outer
        while x != apex:
            store(sub, x * stride + w, load_lanes(sub, x * stride + w, like) | moved)
            x = parent[x]


@inlined
def _move_flow(inner, leave, outer, apex, theta, change, base, parent, flow):
    """Send theta round the cycle and reverse the parents on the path inner .. leave. Modifies parent, flow."""
    # The flow above a row on the inner side changes by ``change``, above a column or on the outer side by -``change``.
    x, above, carried = inner, outer, theta
    while True:
        next_x, next_flow = parent[x], flow[x] + (change if x < base else -change)
        parent[x], flow[x] = above, carried
        if x == leave:
            break
        x, above, carried = next_x, x, next_flow
    x = next_x
    while x != apex:
        flow[x] += change if x < base else -change
        x = parent[x]
    x = outer
    while x != apex:
        flow[x] -= change if x < base else -change
        x = parent[x]


@inlined
def move_potentials(top, shift, sh, ws):
    """Add ``shift`` to the potentials of the subtree of ``top``. Modifies pot, pot32."""
    pot, pot32, sub = ws.pot, ws.pot32, ws.sub
    for w in range(sh.words):
        mask = sub[top * sh.words + w]
        if mask:
            for k in range(64 * w, 64 * w + 64, 8):
                p = load8(pot, k)
                p = where(lane_bits(mask, p), p + splat8(shift), p)
                store(pot, k, p)
                store(pot32, k, narrow(p))
                mask >>= 8


@inlined
def rehang(inner, leave, outer, apex, theta, change, shift, like, sh, ws):
    """Replace the arc above ``leave`` by the arc from inner to outer. Modifies parent, flow, sub, pot, pot32."""
    _move_bits(inner, leave, outer, apex, like, sh.words, ws.parent, ws.sub)
    _move_flow(inner, leave, outer, apex, theta, change, sh.base, ws.parent, ws.flow)
    move_potentials(inner, shift, sh, ws)


@inlined
def pivot(i, j, reduced, like, sh, ws):
    """Bring the arc from row i to column node j into the tree. Modifies parent, flow, sub, pot, pot32."""
    parent, flow, sub, base, stride = ws.parent, ws.flow, ws.sub, sh.base, sh.words

    # The cycle: apex .. i -> j .. apex. Flow falls on the rows' arcs below the apex on i's side and on the columns'
    # arcs on j's side. The arc that leaves is the last one, going round the cycle from the apex, whose flow reaches
    # zero: that keeps the tree strongly feasible, so that degenerate pivots cannot cycle.
    theta, leave, on_row_side = np.inf, i, True
    x = i
    while not contains(sub, stride, x, j):
        f = flow[x]
        less = (x < base) & (f < theta)
        theta = f if less else theta
        leave = x if less else leave
        x = parent[x]
    apex = x
    x = j
    while x != apex:
        f = flow[x]
        less = (x >= base) & (f <= theta)
        theta = f if less else theta
        leave = x if less else leave
        on_row_side = on_row_side & (not less)
        x = parent[x]

    inner, outer, shift = (i, j, reduced) if on_row_side else (j, i, -reduced)
    rehang(inner, leave, outer, apex, theta, -theta if on_row_side else theta, shift, like, sh, ws)


# --- pricing ----------------------------------------------------------------------------------------------------------


@inlined
def _scan(sh, ws):
    """Return the least reduced cost, in float32, after finding that of every column. Modifies best, best_row."""
    price, pot32 = ws.price, ws.pot32
    low = splat16(INF32)
    for j in range(0, sh.row, 16):
        top, at = splat16(INF32), splat16(np.int32(0))
        for i in range(sh.n):
            r = load16(price, i * sh.row + j) - splat16(pot32[i])
            better = r < top
            top, at = where(better, r, top), where(better, splat16(np.int32(i)), at)
        top += load16(pot32, sh.base + j)
        store(ws.best, j, top)
        store(ws.best_row, j, at)
        low = least(top, low)
    return np.float64(smallest(low))


@inlined
def _collect(limit, row, ws):
    """Collect the columns whose best is below ``limit`` and return their number. Modifies candidates."""
    count = 0
    for j in range(0, row, 16):
        here = bits(load16(ws.best, j) < splat16(np.float32(limit)))
        while here:
            ws.candidates[count] = j + trailing_zeros(here)
            here &= here - 1
            count += 1
    return count


@inlined
def _choose(count, sh, ws):
    """Return the value, row and column of the candidate of least reduced cost, in float64."""
    value, at_i, at_j = 0.0, 0, 0
    for k in range(count):
        j = np.int64(ws.candidates[k])
        i = np.int64(ws.best_row[j])
        r = ws.exact[i * sh.row + j] - ws.pot[i] + ws.pot[sh.base + j]
        if r < value:
            value, at_i, at_j = r, i, j
    return value, at_i, at_j


@inlined
def _exact_scan(limit, sh, ws):
    """Return the least reduced cost in float64 and, if it is below ``limit``, its row and column."""
    exact, pot, n, m, row, base = ws.exact, ws.pot, sh.n, sh.m, sh.row, sh.base
    low = splat8(np.inf)
    for j in range(0, row, 8):
        top = splat8(np.inf)
        for i in range(n):
            top = least(widen(load8(exact, i * row + j)) - splat8(pot[i]), top)
        low = least(top + load8(pot, base + j), low)
    value, at_i, at_j = smallest(low), 0, 0
    if value < limit:
        value = np.inf
        for i in range(n):
            for j in range(m):
                r = exact[i * row + j] - pot[i] + pot[base + j]
                if r < value:
                    value, at_i, at_j = r, i, j
    return value, at_i, at_j


@inlined
def optimise(like, top, cap, shared, sh, ws):
    """Pivot until no price is negative. Return the number of pivots; more than ``cap`` if they were not enough.

    Once the batch is to stop, more than ``cap`` is returned too.

    While float32 finds prices below its tolerance, the candidates of each scan are used for several pivots. Then
    float64 prices end the search, or name one more arc.
    """
    rough, fine = -PRICE_TOLERANCE * top, -TOLERANCE * top * max(1.0, (sh.n + sh.m) / 64.0)
    pivots, since, fast = 0, 0, True
    while pivots <= cap:
        if fast:
            least_price = _scan(sh, ws)
            limit = min(STALE * least_price, rough)
            count = _collect(limit, sh.row, ws) if least_price < rough else 0
            before = pivots
            while count > 0:
                value, i, j = _choose(count, sh, ws)
                if value > limit:
                    break
                pivot(i, sh.base + j, value, like, sh, ws)
                pivots += 1
            since += pivots - before
            fast = pivots > before
        else:
            if since > REFRESH:
                sort_tree(sh, ws)
                potentials(sh, ws)
                since = 0
            value, i, j = _exact_scan(fine, sh, ws)
            if not value < fine:
                return pivots
            pivot(i, sh.base + j, value, like, sh, ws)
            pivots += 1
            since += 1
            fast = value < rough
        if stopping(shared):
            return cap + 1
    return pivots

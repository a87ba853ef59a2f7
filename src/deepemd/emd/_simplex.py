"""A transport problem solved exactly by the network simplex, then a batch of them.

One problem: minimise sum_ij c_ij x_ij over x >= 0 with row sums a and column sums b. A basis of this linear programme
is a spanning tree of the n + m nodes (rows and columns). The tree is kept as four arrays indexed by node:

    parent[x]   the next node toward the root (-1 at the root)
    flow[x]     the flow on the arc between x and its parent
    sub[x, :]   the nodes below x, x included, as a bitmask of 64-bit words
    pot[x]      the dual potential: u_i at row i and -v_j at column j, so that c_ij = pot[row] - pot[column] on tree
    arcs

Row i is node i and column j is node ``base + j``; a node's number is also its bit. With n, m <= 32 a mask is a single
word. Walking up from one end of an arc until the mask holds its other end finds the apex of the cycle, re-hanging a
subtree costs one mask operation per node of the cycle, and the potentials move by one masked vector addition.

Prices are scanned in float32; flows, potentials and every decision that ends the search are float64, so the answer is
exact (to the rounding of float64) for float32 and float64 costs alike. Zero weights stay outside the tree and get
their duals at the end.

All kernels are in one file on purpose: Numba's cache on disk watches only the file of the function that it compiled,
so a change in another file would go unnoticed.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

# Why a problem was refused; _autograd.py puts these into words.
OK, COST_NOT_FINITE, A_NEGATIVE, A_NOT_FINITE, A_ZERO, B_NEGATIVE, B_NOT_FINITE, B_ZERO, TOTALS, PIVOT_CAP = range(10)

PRICE_TOLERANCE = 1e-6  # of the float32 scan, relative to max |c|
TOLERANCE = 1e-13  # of the float64 passes, relative to max |c|
STALE = 0.4  # a scan's candidates serve while they are better than this fraction of its best
SINKHORN_FROM = 17  # from this many rows and columns on, rough Sinkhorn duals pay for themselves


class Workspace(NamedTuple):
    """The arrays of one thread, used again for every problem; sized for n rows and m columns."""

    exact: np.ndarray  # (n * m,) costs of the kept rows and columns, in the input's type
    price: np.ndarray  # (n * m,) the same in float32 (the same array where the input is float32)
    kernel: np.ndarray  # (n * m,) float32 exp(-cost / eps) of the Sinkhorn start
    row_of: np.ndarray  # (n,) the input's row of each kept row
    col_of: np.ndarray  # (m,)
    a: np.ndarray  # (n,) supplies of the kept rows
    b: np.ndarray  # (m,) demands of the kept columns, scaled to the total of a
    rest_a: np.ndarray  # (n,) what the greedy start has not shipped yet
    rest_b: np.ndarray  # (m,)
    start: np.ndarray  # (m,) float32 the duals under which the greedy start chooses; inf: the column is used up
    scale: np.ndarray  # (n + m,) float32 scratch of the Sinkhorn start
    best32: np.ndarray  # (m,) float32 least reduced cost of each column
    best: np.ndarray  # (m,) the same in float64
    best_row: np.ndarray  # (m,) int32 the row that has it
    parent: np.ndarray  # (64 * words,) int32
    flow: np.ndarray  # (64 * words,)
    pot: np.ndarray  # (64 * words,)
    pot32: np.ndarray  # (64 * words,) float32 copy for the scan
    order: np.ndarray  # (64 * words,) int32 the nodes, children before parents
    sub: np.ndarray  # (64 * words, words) int64
    moved: np.ndarray  # (words,) int64 the subtree that a pivot re-hangs
    before: np.ndarray  # (words,) int64 scratch: subtrees of a pivot, nodes that `order` has already


@njit(cache=True, nogil=True)
def _workspace(n, m, words, like):
    exact, nodes = np.empty(n * m, like.dtype), 64 * words
    return Workspace(
        exact,
        np.asarray(exact, np.float32),
        np.empty(n * m, np.float32),
        np.empty(n, np.int64),
        np.empty(m, np.int64),
        np.empty(n),
        np.empty(m),
        np.empty(n),
        np.empty(m),
        np.empty(m, np.float32),
        np.empty(n + m, np.float32),
        np.empty(m, np.float32),
        np.empty(m),
        np.empty(m, np.int32),
        np.empty(nodes, np.int32),
        np.empty(nodes),
        np.zeros(nodes),
        np.zeros(nodes, np.float32),
        np.empty(nodes, np.int32),
        np.zeros((nodes, words), np.int64),
        np.empty(words, np.int64),
        np.empty(words, np.int64),
    )


# --- loading: validation, zero weights, scale -------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _load_weights(given, kept, weights):
    """Keep the positive weights. -> how many, their sum, and 0, 1 (negative), 2 (not finite) or 3 (none positive)."""
    count, total = 0, 0.0
    for k in range(given.shape[0]):
        w = np.float64(given[k])
        if not w < np.inf:
            return count, total, 2
        if w < 0.0:
            return count, total, 2 if w == -np.inf else 1
        if w > 0.0:
            kept[count] = k
            weights[count] = w
            count += 1
            total += w
    if count == 0:
        return count, total, 3
    return count, total, 0 if total < np.inf else 2


@njit(cache=True, nogil=True)
def _load_costs(cost, n, m, ws):
    """Copy the costs of the kept rows and columns. -> max |c| over them, or inf where any cost is not finite."""
    exact, price, row_of, col_of, top = ws.exact, ws.price, ws.row_of, ws.col_of, ws.best
    whole = m == cost.shape[1]
    bad = 0
    top[:m] = 0.0
    for i in range(n):
        row = cost[row_of[i]]
        for j in range(m):
            c = row[j] if whole else row[col_of[j]]
            exact[i * m + j] = c
            price[i * m + j] = np.float32(c)
            size = np.float64(abs(c))
            bad += not size < np.inf
            top[j] = size if size > top[j] else top[j]
    if n < cost.shape[0] or not whole:  # what was left out must be finite too
        for i in range(cost.shape[0]):
            for j in range(cost.shape[1]):
                bad += not abs(np.float64(cost[i, j])) < np.inf
    return np.inf if bad else top[:m].max()


@njit(cache=True, nogil=True)
def _rescale(n, m, top, ws):
    """Bring costs of extreme size near 1 by a power of two, which rounds nothing. -> exponent and new max |c|."""
    if 1e-12 < top < 1e12 or top == 0.0:
        return 0, top
    exponent = math.frexp(top)[1]
    for k in range(n * m):
        c = math.ldexp(np.float64(ws.exact[k]), -exponent)
        ws.exact[k] = c
        ws.price[k] = c
    return exponent, math.ldexp(top, -exponent)


# --- the starting tree ------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _mean_duals(n, m, ws):
    """Column means, the starting duals of small problems."""
    start = ws.start
    start[:m] = 0.0
    for i in range(n):
        for j in range(m):
            start[j] -= ws.price[i * m + j]
    for j in range(m):
        start[j] /= n


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _sinkhorn_duals(n, m, total_weight, ws):
    """Two rough Sinkhorn steps: duals good enough to start the greedy from. Nothing here needs to be exact."""
    price, kernel, start = ws.price, ws.kernel, ws.start
    x, y = ws.scale[:n], ws.scale[n : n + m]
    total, square, low = np.float32(0), np.float32(0), price[0]
    for k in range(n * m):
        total += price[k]
        square += price[k] * price[k]
        low = min(low, price[k])
    mean = total / np.float32(n * m)
    eps = np.float32(0.25) * np.sqrt(max(square / np.float32(n * m) - mean * mean, np.float32(0)))
    if not eps > np.float32(1e-6) * abs(mean):
        start[:m] = 0.0
        return
    slope = np.float32(1) / (np.float32(64) * eps)
    for k in range(n * m):  # exp(-t) = (1 - t / 64)^64, roughly
        e = max(np.float32(1) - (price[k] - low) * slope, np.float32(0))
        e *= e
        e *= e
        e *= e
        e *= e
        e *= e
        kernel[k] = e * e + np.float32(1e-30)
    y[:] = np.float32(1)
    for _ in range(2):
        for i in range(n):
            s = np.float32(0)
            for j in range(m):
                s += kernel[i * m + j] * y[j]
            x[i] = np.float32(ws.a[i] / total_weight) / s
        start[:m] = 0.0
        for i in range(n):
            for j in range(m):
                start[j] += kernel[i * m + j] * x[i]
        for j in range(m):
            y[j] = np.float32(ws.b[j] / total_weight) / start[j]
    for j in range(m):
        start[j] = -eps * np.log(y[j])
        if not abs(start[j]) < np.float32(1e30):
            start[j] = np.float32(0)


@njit(cache=True, nogil=True)
def _greedy_tree(n, m, base, words, ws):
    """Rows in turn ship to their cheapest open column under the starting duals; the shipments are the first tree.

    Every shipment uses up a row or a column, and the one used up hangs below the other, so children come before
    parents in `order`. The tree is strongly feasible (Cunningham 1976): a flow of zero occurs only from a row up to
    its parent. That is why a tie uses up the column.
    """
    price, start, rest_a, rest_b = ws.price, ws.start, ws.rest_a, ws.rest_b
    parent, flow, order, sub = ws.parent, ws.flow, ws.order, ws.sub
    rest_a[:n] = ws.a[:n]
    rest_b[:m] = ws.b[:m]
    count, open_columns = 0, m
    for i in range(n):
        j = -1
        while True:
            j, least = -1, np.float32(np.inf)
            for k in range(m):
                r = price[i * m + k] + start[k]
                if r < least:
                    least, j = r, k
            last_row, last_column = i == n - 1, open_columns == 1
            if last_column or (not last_row and rest_a[i] < rest_b[j]):
                x = rest_b[j] if last_row else rest_a[i]
                rest_b[j] -= x
                parent[i], flow[i], order[count] = base + j, x, i
                count += 1
                break
            x = rest_b[j]
            rest_a[i] -= x
            start[j] = np.float32(np.inf)
            open_columns -= 1
            parent[base + j], flow[base + j], order[count] = i, x, base + j
            count += 1
    root = base + j
    parent[root], flow[root], order[count] = -1, 0.0, root
    for k in range(n + m):
        x = order[k]
        sub[x] = 0
        sub[x, x >> 6] = np.int64(1) << np.int64(x & 63)
    for k in range(n + m - 1):
        x = order[k]
        for w in range(words):
            sub[parent[x], w] |= sub[x, w]


@njit(cache=True, nogil=True)
def _potentials(n, m, base, ws):
    """Potentials from the tree, root first; `order` must list children before parents."""
    parent, pot, order = ws.parent, ws.pot, ws.order
    pot[order[n + m - 1]] = 0.0
    for k in range(n + m - 2, -1, -1):
        x = order[k]
        p = parent[x]
        if x < base:
            pot[x] = pot[p] + ws.exact[x * m + p - base]
        else:
            pot[x] = pot[p] - ws.exact[p * m + x - base]
    for x in range(ws.pot.shape[0]):
        ws.pot32[x] = np.float32(pot[x])


@njit(cache=True, nogil=True)
def _sort_tree(n, m, base, ws):
    """Fill `order` with the nodes, children before parents: every node after the path above it, reversed."""
    order, parent, done = ws.order, ws.parent, ws.before
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


@njit(cache=True, nogil=True, inline="always")
def _pivot(i, j, reduced, base, words, ws):
    """Bring the arc from row i to column node j into the tree. Modifies parent, flow, sub, pot, pot32."""
    parent, flow, sub, moved, before = ws.parent, ws.flow, ws.sub, ws.moved, ws.before

    # The cycle: apex .. i -> j .. apex. Flow falls on the rows' arcs below the apex on i's side and on the columns'
    # arcs on j's side. The arc that leaves is the last one, going round the cycle from the apex, whose flow reaches
    # zero: that keeps the tree strongly feasible, so that degenerate pivots cannot cycle.
    theta, leave, on_row_side = np.inf, i, True
    x = i
    while not (sub[x, j >> 6] >> np.int64(j & 63)) & 1:
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

    # The subtree below the leaving arc moves over to the other end of the entering arc. The path inner .. leave is
    # turned around: a node there keeps what hung below it but not below the node before. The nodes above lose the
    # subtree, those above its new place gain it, and theta flows round the cycle.
    inner, outer, shift = (i, j, reduced) if on_row_side else (j, i, -reduced)
    change = -theta if on_row_side else theta  # of the flow above a row on the inner side; the opposite elsewhere
    for w in range(words):
        moved[w] = sub[leave, w]
        before[w] = 0
    x, above, carried = inner, outer, theta
    while True:
        next_x, next_flow = parent[x], flow[x] + (change if x < base else -change)
        parent[x], flow[x] = above, carried
        for w in range(words):
            old = sub[x, w]
            sub[x, w] = moved[w] & ~before[w]
            before[w] = old
        if x == leave:
            break
        x, above, carried = next_x, x, next_flow
    x = next_x
    while x != apex:
        flow[x] += change if x < base else -change
        for w in range(words):
            sub[x, w] &= ~moved[w]
        x = parent[x]
    x = outer
    while x != apex:
        flow[x] -= change if x < base else -change
        for w in range(words):
            sub[x, w] |= moved[w]
        x = parent[x]

    for w in range(words):
        mask = moved[w]
        if mask:
            pot, pot32 = ws.pot[64 * w : 64 * w + 64], ws.pot32[64 * w : 64 * w + 64]
            for k in range(64):
                p = pot[k] + (shift if (mask >> np.int64(k)) & 1 else 0.0)
                pot[k] = p
                pot32[k] = np.float32(p)


# --- pricing ----------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _scan(cost, pot, best, best_row, n, m, base):
    """The least reduced cost of every column and its row. Modifies best, best_row. -> the least of all, its column."""
    best[:m] = np.inf
    for i in range(n):
        p = pot[i]
        row = cost[i * m : i * m + m]
        for j in range(m):
            r = row[j] - p
            better = r < best[j]
            best[j] = r if better else best[j]
            best_row[j] = i if better else best_row[j]
    least, column = best[0] + pot[base], 0
    for j in range(1, m):
        r = best[j] + pot[base + j]
        if r < least:
            least, column = r, j
    return least, column


@njit(cache=True, nogil=True)
def _optimise(n, m, base, words, top, cap, ws):
    """Pivot until no price is negative. -> the pivots made; more than cap where that was not enough.

    While float32 finds prices below its tolerance, the candidates of each scan serve for several pivots. Then the
    potentials are computed anew from the tree and float64 prices decide; they end the search, or name one more arc.
    """
    price, exact, pot, pot32, best_row = ws.price, ws.exact, ws.pot, ws.pot32, ws.best_row
    rough, fine = -PRICE_TOLERANCE * top, -TOLERANCE * top * max(1.0, (n + m) / 64.0)
    pivots, fast = 0, True
    while pivots <= cap:
        if fast:
            least32, j = _scan(price, pot32, ws.best32, best_row, n, m, base)
            least = np.float64(least32)
            if not least < rough:
                fast = False
                continue
        else:
            _sort_tree(n, m, base, ws)
            _potentials(n, m, base, ws)
            least, j = _scan(exact, pot, ws.best, best_row, n, m, base)
            if not least < fine:
                return pivots
        limit = min(STALE * least, rough)
        while True:
            i = best_row[j]
            reduced = exact[i * m + j] - pot[i] + pot[base + j]
            if reduced > (0.5 * rough if fast else fine):  # noise of float32: exact prices decide
                fast = False
                break
            _pivot(i, base + j, reduced, base, words, ws)
            pivots += 1
            if not fast:
                fast = least < rough
                break
            least = np.inf
            for k in range(m):
                r = price[best_row[k] * m + k] - pot32[best_row[k]] + pot32[base + k]
                if r < least:
                    least, j = np.float64(r), k
            if not least <= limit:
                break
    return pivots


# --- one problem, a batch ---------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _solve(cost, a, b, ratio, totals_tolerance, ws):
    """Solve one problem in the workspace. -> status, kept rows, kept columns, base, exponent of the scale, pivots."""
    n, total_a, wrong = _load_weights(a, ws.row_of, ws.a)
    if wrong:
        return A_NEGATIVE + wrong - 1, n, 0, 0, 0, 0
    if ratio == np.inf:
        return B_ZERO, n, 0, 0, 0, 0
    if ratio == 0.0 or ratio != ratio:
        return B_NOT_FINITE, n, 0, 0, 0, 0
    m, total_b, wrong = _load_weights(b, ws.col_of, ws.b)
    if wrong:
        return B_NEGATIVE + wrong - 1, n, m, 0, 0, 0
    if ratio < 0.0:
        return B_NEGATIVE, n, m, 0, 0, 0
    if abs(ratio - 1.0) > totals_tolerance:
        return TOTALS, n, m, 0, 0, 0
    for j in range(m):
        ws.b[j] *= total_a / total_b
    top = _load_costs(cost, n, m, ws)
    if top == np.inf:
        return COST_NOT_FINITE, n, m, 0, 0, 0
    exponent, top = _rescale(n, m, top, ws)

    base = 32 if n <= 32 and m <= 32 else 64 * ((n + 63) // 64)
    words = 1 if base == 32 else base // 64 + (m + 63) // 64
    if min(n, m) < SINKHORN_FROM:
        _mean_duals(n, m, ws)
    else:
        _sinkhorn_duals(n, m, total_a, ws)
    _greedy_tree(n, m, base, words, ws)
    _potentials(n, m, base, ws)
    cap = 10_000 + 1_000 * (n + m)
    pivots = _optimise(n, m, base, words, top, cap, ws)
    return OK if pivots <= cap else PIVOT_CAP, n, m, base, exponent, pivots


@njit(cache=True, nogil=True)
def _write_duals(cost, n, m, base, exponent, ws, u, v):
    """Duals of every row and column of the input, with sum a u = sum b v. Modifies u and v (float64)."""
    u[:] = np.inf
    v[:] = np.inf
    balance, total = 0.0, 0.0
    for i in range(n):
        balance -= ws.a[i] * ws.pot[i]
        total += ws.a[i]
    for j in range(m):
        balance -= ws.b[j] * ws.pot[base + j]
    balance /= 2.0 * total
    for i in range(n):
        u[ws.row_of[i]] = math.ldexp(ws.pot[i] + balance, exponent)
    for j in range(m):
        v[ws.col_of[j]] = math.ldexp(-ws.pot[base + j] - balance, exponent)
    # A node of zero weight takes the largest dual that is feasible: rows first, then columns against all rows.
    if n < u.shape[0]:
        for i in range(u.shape[0]):
            if u[i] == np.inf:
                for j in range(m):
                    u[i] = min(u[i], np.float64(cost[i, ws.col_of[j]]) - v[ws.col_of[j]])
    if m < v.shape[0]:
        for j in range(v.shape[0]):
            if v[j] == np.inf:
                for i in range(u.shape[0]):
                    v[j] = min(v[j], np.float64(cost[i, j]) - u[i])


@njit(cache=True, nogil=True)
def solve_range(cost, a, b, ratio, totals_tolerance, first, last, value, u, v, rows, cols, flow):
    """Solve problems first .. last - 1 of a batch on the calling thread. Modifies value, u, v, rows, cols, flow.

    cost (B, n, m), a (B, n), b (B, m) share one float type; ratio (B,) float64 is the total of a over that of the
    weights that b was scaled from. value (B,), u (B, n), v (B, m) take the results in their own type; rows, cols (B,
    n + m - 1) int32 and flow (B, n + m - 1) take the basis arcs, filled up with arcs of flow 0. -> the first problem
    refused and why, or (-1, OK).
    """
    n_all, m_all = cost.shape[1], cost.shape[2]
    words = 1 if n_all <= 32 and m_all <= 32 else (n_all + 63) // 64 + (m_all + 63) // 64
    ws = _workspace(n_all, m_all, words, cost)
    u64, v64 = np.empty(n_all), np.empty(m_all)
    for p in range(first, last):
        status, n, m, base, exponent, _ = _solve(cost[p], a[p], b[p], ratio[p], totals_tolerance, ws)
        if status != OK:
            return p, status
        _write_duals(cost[p], n, m, base, exponent, ws, u64, v64)
        for i in range(n_all):
            u[p, i] = u64[i]
        for j in range(m_all):
            v[p, j] = v64[j]
        total = 0.0
        for k in range(n_all + m_all - 1):
            if k < n + m - 1:
                x = ws.order[k]
                i, j = (x, ws.parent[x] - base) if x < base else (ws.parent[x], x - base)
                rows[p, k], cols[p, k], flow[p, k] = ws.row_of[i], ws.col_of[j], ws.flow[x]
                total += ws.flow[x] * ws.exact[i * m + j]
            else:
                rows[p, k], cols[p, k], flow[p, k] = 0, 0, 0.0
        value[p] = math.ldexp(total, exponent)
    return -1, OK

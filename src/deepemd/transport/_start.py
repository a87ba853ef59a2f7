"""The starting tree: a rough entropic plan, stripped leaf by leaf.

An optimal plan is a tree. Take away a leaf with its arc, again and again, and nothing is left: whoever knows the
order of the leaves knows the tree. Sinkhorn's algorithm gives a plan that is close to the optimal one but dense; in
it a node behaves like a leaf where nearly all it ships goes to a single partner. So the node that is most nearly a
leaf ships what it has to its favourite partner, leaves, and the others are judged anew by what remains. On the
problems of the head this start is three to four times fewer pivots from the optimum than shipping along cheapest arcs.

Nothing in this file needs to be exact: it decides how many pivots follow, not where they end.
"""

import numpy as np
from numba import njit

from deepemd.transport._vectors import (
    bits,
    first16,
    greatest,
    largest,
    least,
    load16,
    narrow,
    numbers16,
    smallest,
    splat16,
    store,
    total,
    trailing_zeros,
    transpose16,
    where,
)

ROUNDS = (3, 3, 4)  # Sinkhorn steps before the first and the second halving of the temperature, and after
TEMPERATURE = np.float32(0.4)  # of the first round, relative to the standard deviation of the costs
RIPE = np.float32(0.08)  # of total / nodes: how much more than the ripest a node stripped with it may leave over
TINY, LARGE = np.float32(1e-30), np.float32(1e15)
ZERO, ONE, NEVER = np.float32(0), np.float32(1), np.float32(-np.inf)  # NEVER: the score of the dead


# --- the plan ---------------------------------------------------------------------------------------------------------


@njit(nogil=True, forceinline=True, error_model="numpy")
def _kernel(sh, ws):
    """Fill links with exp(-(cost - least cost) / temperature), by rows and by columns. -> False if costs are equal."""
    price, links = ws.price, ws.links
    n, m, row, across = sh.n, sh.m, sh.row, sh.across
    columns = across * row
    low, s, q = splat16(np.float32(np.inf)), splat16(ZERO), splat16(ZERO)
    for k in range(0, n * row, 16):
        c = load16(price, k)
        low = least(c, low)
        c = where(c < splat16(np.float32(np.inf)), c, splat16(ZERO))  # the padding
        s += c
        q += c * c
    lowest, size = smallest(low), np.float32(n * m)
    mean = total(s) / size
    deviation = np.sqrt(max(total(q) / size - mean * mean, ZERO))
    if not deviation > np.float32(1e-6) * abs(mean):
        return False
    slope, offset = splat16(ONE / (np.float32(32) * TEMPERATURE * deviation)), splat16(lowest)
    for k in range(0, n * row, 16):
        e = splat16(ONE) - (load16(price, k) - offset) * slope  # exp(-t) = (1 - t / 32)^32, roughly
        e = greatest(e, splat16(ZERO))
        e *= e
        e *= e
        e *= e
        e *= e
        e *= e
        store(links, k, e)
    for k in range(n * row, columns, 16):
        store(links, k, splat16(ZERO))
    for i in range(0, across, 16):
        for j in range(0, row, 16):
            transpose16(links, i * row + j, row, links, columns + j * across + i, across)
    return True


@njit(nogil=True, forceinline=True, error_model="numpy")
def _weighted_sum(links, first, count, width, scale, at):
    """Sixteen columns of links, each row times its scale, summed; count rows of which up to three more are zero."""
    s0, s1, s2, s3 = splat16(TINY), splat16(ZERO), splat16(ZERO), splat16(ZERO)
    for i in range(0, count, 4):
        k = first + i * width
        s0 += load16(links, k) * splat16(scale[at + i])
        s1 += load16(links, k + width) * splat16(scale[at + i + 1])
        s2 += load16(links, k + 2 * width) * splat16(scale[at + i + 2])
        s3 += load16(links, k + 3 * width) * splat16(scale[at + i + 3])
    return (s0 + s1) + (s2 + s3)


@njit(nogil=True, forceinline=True, error_model="numpy")
def _fit_side(links, first, count, width, scale, at, share, to):
    """scale[to:] = share[to:] / (scale[at:] links): the marginals of one side come out right. Modifies scale."""
    for j in range(0, width, 16):
        store(scale, to + j, load16(share, to + j) / _weighted_sum(links, first + j, count, width, scale, at))


@njit(nogil=True, forceinline=True, error_model="numpy")
def _square(values, first, last):
    for k in range(first, last, 16):
        e = least(load16(values, k), splat16(LARGE))
        store(values, k, e * e)


@njit(nogil=True, forceinline=True, error_model="numpy")
def _plan_side(first, count, width, at, to, varied, ws):
    """links times both scales, and the favourites of the nodes from ``to`` on. Modifies links, favour, partner."""
    links, scale = ws.links, ws.scale
    for j in range(0, width, 16):
        y = load16(scale if varied else ws.share, to + j)
        best, who = splat16(ZERO), splat16(np.int32(at))
        for i in range(count):
            k = first + i * width + j
            p = load16(links, k) * splat16(scale[at + i]) * y if varied else y
            p = greatest(least(p, splat16(ONE)), splat16(TINY))  # the NaN of an overflow becomes 1
            store(links, k, p)
            better = best < p
            best, who = where(better, p, best), where(better, splat16(np.int32(at + i)), who)
        store(ws.favour, to + j, best)
        store(ws.partner, to + j, who)


@njit(nogil=True, forceinline=True, error_model="numpy")
def _sinkhorn(sh, total_weight, ws):
    """Fill links, by rows and by columns, with a positive plan that is close to an optimal one."""
    links, scale, share = ws.links, ws.scale, ws.share
    n, m, row, across, base = sh.n, sh.m, sh.row, sh.across, sh.base
    columns = across * row
    part = 1.0 / total_weight
    for k in range(0, sh.span, 16):
        store(share, k, narrow(load16(ws.weight, k) * splat16(part)))
        store(scale, k, where(first16(base + m - k), splat16(ONE), splat16(ZERO)))
    varied = _kernel(sh, ws)
    if varied:
        for k in range(3):
            if k > 0:  # half the temperature: kernel and scales squared
                _square(links, 0, n * row)
                _square(links, columns, columns + m * across)
                _square(scale, base, base + row)
            for _ in range(ROUNDS[k]):
                _fit_side(links, columns, m, across, scale, base, share, 0)
                _fit_side(links, 0, n, row, scale, 0, share, base)
    for i in range(0, across, 16):
        sums = _weighted_sum(links, columns + i, m, across, scale, base) if varied else splat16(ONE)
        store(ws.whole, i, load16(scale, i) * sums if varied else sums)
    for j in range(base, base + row, 16):
        store(ws.whole, j, load16(share, j) if varied else splat16(ONE))
    _plan_side(0, n, row, 0, base, varied, ws)
    _plan_side(columns, m, across, base, 0, varied, ws)


# --- the tree ---------------------------------------------------------------------------------------------------------


@njit(nogil=True, forceinline=True, error_model="numpy")
def _favourite(x, sh, ws):
    """Whom, among those alive, node x ships most to. -> how much, the partner"""
    links, alive = ws.links, ws.alive
    is_row = x < sh.base
    first = x * sh.row if is_row else sh.across * sh.row + (x - sh.base) * sh.across
    other, width = (sh.base, sh.row) if is_row else (0, sh.across)
    top = splat16(ZERO)
    for k in range(0, width, 16):
        top = greatest(load16(links, first + k) * load16(alive, other + k), top)
    best = largest(top)
    found, place = np.int64(0), 0
    for k in range(0, width, 16):
        here = bits(load16(links, first + k) * load16(alive, other + k) == splat16(best))
        if width <= 64:
            found |= here << k
        elif here:
            found, place = here, k
            break
    return best, other + place + trailing_zeros(found)


@njit(nogil=True, forceinline=True, error_model="numpy")
def _judge(gone, sh, ws):
    """Judge the nodes of the other side after ``gone`` has left. Modifies whole, favour, partner, score."""
    links, whole, favour, partner, alive = ws.links, ws.whole, ws.favour, ws.partner, ws.alive
    was_row = gone < sh.base
    first = gone * sh.row if was_row else sh.across * sh.row + (gone - sh.base) * sh.across
    other, width = (sh.base, sh.row) if was_row else (0, sh.across)
    for k in range(0, width, 16):
        at = other + k
        best, who = load16(favour, at), load16(partner, at)
        orphans = bits(who == splat16(np.int32(gone))) & bits(splat16(ZERO) < load16(alive, at))
        while orphans:
            x = trailing_zeros(orphans)
            orphans &= orphans - 1
            b, w = _favourite(at + x, sh, ws)
            here = numbers16() == splat16(np.int32(x))
            best, who = where(here, splat16(b), best), where(here, splat16(np.int32(w)), who)
        rest = greatest(load16(whole, at) - load16(links, first + k), best)
        store(favour, at, best)
        store(partner, at, who)
        store(whole, at, rest)
        store(ws.score, at, where(splat16(ZERO) < load16(alive, at), best - rest, splat16(NEVER)))


@njit(nogil=True, forceinline=True, error_model="numpy")
def _ripest(span, score):
    """The score of the node that is most nearly a leaf."""
    top = splat16(NEVER)
    for k in range(0, span, 16):
        top = greatest(load16(score, k), top)
    return largest(top)


@njit(nogil=True, forceinline=True, error_model="numpy")
def _bury(x, ws):
    """x is alive no more. Whole vectors are written: reading one after writing a part of it would stall."""
    k = x & -16
    here = numbers16() == splat16(np.int32(x - k))
    store(ws.alive, k, where(here, splat16(ZERO), load16(ws.alive, k)))
    store(ws.score, k, where(here, splat16(NEVER), load16(ws.score, k)))


@njit(nogil=True, forceinline=True, error_model="numpy")
def _strip_leaves(sh, ws):
    """Make the first tree of the plan in links: fill parent, flow, and order (children before parents).

    Every shipment uses up a row or a column, and the one used up hangs below the other. The tree is strongly feasible
    (Cunningham 1976): a flow of zero occurs only from a row up to its parent. That is why a tie uses up the column.
    """
    n, m, base = sh.n, sh.m, sh.base
    rest, parent, flow, order, alive, score = ws.rest, ws.parent, ws.flow, ws.order, ws.alive, ws.score
    for k in range(0, sh.span, 16):
        store(rest, k, load16(ws.weight, k))
        here = first16((n if k < base else base + m) - k)  # not where weights are: scaling may have made one 0
        store(alive, k, where(here, splat16(ONE), splat16(ZERO)))
        store(score, k, where(here, load16(ws.favour, k) - load16(ws.whole, k), splat16(NEVER)))

    slack = RIPE / np.float32(n + m)
    rows, columns, count = n, m, 0
    while rows > 1 and columns > 1:
        bar = _ripest(sh.span, score) - slack
        for k in range(0, sh.span, 16):
            ripe = 0xFFFF & ~bits(load16(score, k) < splat16(bar))  # the ripest, at least
            while ripe and rows > 1 and columns > 1:
                x = k + trailing_zeros(ripe)
                ripe &= ripe - 1
                if score[x] < bar:  # no more, since others left
                    continue
                y = np.int64(ws.partner[x])
                i, j = (x, y) if x < base else (y, x)
                row_leaves = rest[i] < rest[j]
                leaf, above = (i, j) if row_leaves else (j, i)
                amount = rest[leaf]
                rest[above] -= amount
                rows, columns = (rows - 1, columns) if row_leaves else (rows, columns - 1)
                parent[leaf], flow[leaf], order[count] = above, amount, leaf
                count += 1
                _bury(leaf, ws)
                _judge(leaf, sh, ws)

    # One row or one column is left: the root is a column, and the others hang from the row or from the root.
    i, j = 0, base
    while alive[i] == ZERO:
        i += 1
    while alive[j] == ZERO:
        j += 1
    if rows > 1:
        for x in range(n):
            if alive[x] > ZERO:
                parent[x], flow[x], order[count] = j, rest[x], x
                count += 1
    else:
        for x in range(j + 1, base + m):
            if alive[x] > ZERO:
                parent[x], flow[x], order[count] = i, rest[x], x
                count += 1
        parent[i], flow[i], order[count] = j, rest[j], i
        count += 1
    parent[j], flow[j], order[count] = -1, 0.0, j


@njit(nogil=True, forceinline=True, error_model="numpy")
def start(sh, total_weight, ws):
    """Make the first tree of a problem: fill parent, flow, and order (children before parents)."""
    if min(sh.n, sh.m) > 1:  # else there is only one tree
        _sinkhorn(sh, total_weight, ws)
    _strip_leaves(sh, ws)

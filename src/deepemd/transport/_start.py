"""The starting tree: a rough entropic plan, reduced to a tree leaf by leaf.

An optimal plan is a tree. Removing a leaf and its arc, again and again, removes the whole tree, so the order of the
leaves determines the tree. Sinkhorn's algorithm gives a plan that is close to the optimal one but dense. In it, a node
is nearly a leaf if it ships nearly everything to a single partner. So the node that is most nearly a leaf ships all it
has to its best partner and is removed, and the scores of the others are updated. On the problems of the head, this
start is three to four times fewer pivots away from the optimum than one that ships along the cheapest arcs.

Nothing in this file needs to be exact: it decides how many pivots follow, not where they end.
"""

import numpy as np

from deepemd.transport._compile import inlined
from deepemd.transport._tickets import stopping
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

ROUNDS = (3, 3, 4)  # Sinkhorn steps before the first halving of the temperature, before the second, and after it
TEMPERATURE = np.float32(0.4)  # of the first round, relative to the standard deviation of the costs
LEAF_SLACK = np.float32(0.08)  # of total / nodes: a node so far below the highest score is removed with it
TINY, LARGE = np.float32(1e-30), np.float32(1e15)
ZERO, ONE, REMOVED = np.float32(0), np.float32(1), np.float32(-np.inf)  # REMOVED: the score of a removed node


# --- the plan ---------------------------------------------------------------------------------------------------------


@inlined
def _kernel(sh, ws):
    """Fill links with exp(-(cost - least cost) / temperature), by rows and by columns. False if costs are equal."""
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


@inlined
def _weighted_sum(links, first, count, width, scale, at):
    """Return the sums of sixteen columns of links, each row times its scale; count is rounded up to a multiple of 4."""
    s0, s1, s2, s3 = splat16(TINY), splat16(ZERO), splat16(ZERO), splat16(ZERO)
    for i in range(0, count, 4):
        k = first + i * width
        s0 += load16(links, k) * splat16(scale[at + i])
        s1 += load16(links, k + width) * splat16(scale[at + i + 1])
        s2 += load16(links, k + 2 * width) * splat16(scale[at + i + 2])
        s3 += load16(links, k + 3 * width) * splat16(scale[at + i + 3])
    return (s0 + s1) + (s2 + s3)


@inlined
def _fit_side(links, first, count, width, scale, at, share, to):
    """Set scale[to:] = share[to:] / (scale[at:] links), which corrects the marginals of one side. Modifies scale."""
    for j in range(0, width, 16):
        store(scale, to + j, load16(share, to + j) / _weighted_sum(links, first + j, count, width, scale, at))


@inlined
def _square(values, first, last):
    """Square the values, at most LARGE before. Modifies values."""
    for k in range(first, last, 16):
        e = least(load16(values, k), splat16(LARGE))
        store(values, k, e * e)


@inlined
def _plan_side(first, count, width, at, to, varied, ws):
    """Multiply links by both scales, and find the best partners of the nodes from ``to`` on.

    Modifies links, best_flow, partner.
    """
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
        store(ws.best_flow, to + j, best)
        store(ws.partner, to + j, who)


@inlined
def _sinkhorn(sh, total_weight, shared, ws):
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
                if stopping(shared):
                    break
                _fit_side(links, columns, m, across, scale, base, share, 0)
                _fit_side(links, 0, n, row, scale, 0, share, base)
    for i in range(0, across, 16):
        sums = _weighted_sum(links, columns + i, m, across, scale, base) if varied else splat16(ONE)
        store(ws.node_total, i, load16(scale, i) * sums if varied else sums)
    for j in range(base, base + row, 16):
        store(ws.node_total, j, load16(share, j) if varied else splat16(ONE))
    _plan_side(0, n, row, 0, base, varied, ws)
    _plan_side(columns, m, across, base, 0, varied, ws)


# --- the tree ---------------------------------------------------------------------------------------------------------


@inlined
def _best_partner(x, sh, ws):
    """Return the largest flow between node x and an active node, and that node."""
    links, active = ws.links, ws.active
    is_row = x < sh.base
    first = x * sh.row if is_row else sh.across * sh.row + (x - sh.base) * sh.across
    other, width = (sh.base, sh.row) if is_row else (0, sh.across)
    top = splat16(ZERO)
    for k in range(0, width, 16):
        top = greatest(load16(links, first + k) * load16(active, other + k), top)
    best = largest(top)
    found, place = np.int64(0), 0
    for k in range(0, width, 16):
        here = bits(load16(links, first + k) * load16(active, other + k) == splat16(best))
        if width <= 64:
            found |= here << k
        elif here:
            found, place = here, k
            break
    return best, other + place + trailing_zeros(found)


@inlined
def _update_scores(removed, sh, ws):
    """Update the nodes of the other side after ``removed`` was removed.

    Modifies node_total, best_flow, partner, score.
    """
    links, node_total, best_flow, partner, active = ws.links, ws.node_total, ws.best_flow, ws.partner, ws.active
    was_row = removed < sh.base
    first = removed * sh.row if was_row else sh.across * sh.row + (removed - sh.base) * sh.across
    other, width = (sh.base, sh.row) if was_row else (0, sh.across)
    for k in range(0, width, 16):
        at = other + k
        best, who = load16(best_flow, at), load16(partner, at)
        stale = bits(who == splat16(np.int32(removed))) & bits(splat16(ZERO) < load16(active, at))
        while stale:
            x = trailing_zeros(stale)
            stale &= stale - 1
            b, w = _best_partner(at + x, sh, ws)
            here = numbers16() == splat16(np.int32(x))
            best, who = where(here, splat16(b), best), where(here, splat16(np.int32(w)), who)
        rest = greatest(load16(node_total, at) - load16(links, first + k), best)
        store(best_flow, at, best)
        store(partner, at, who)
        store(node_total, at, rest)
        store(ws.score, at, where(splat16(ZERO) < load16(active, at), best - rest, splat16(REMOVED)))


@inlined
def _highest_score(span, score):
    """Return the score of the node that is most nearly a leaf."""
    top = splat16(REMOVED)
    for k in range(0, span, 16):
        top = greatest(load16(score, k), top)
    return largest(top)


@inlined
def _remove(x, ws):
    """Mark node x as removed. Whole vectors are written: reading one after writing a part of it would stall."""
    k = x & -16
    here = numbers16() == splat16(np.int32(x - k))
    store(ws.active, k, where(here, splat16(ZERO), load16(ws.active, k)))
    store(ws.score, k, where(here, splat16(REMOVED), load16(ws.score, k)))


@inlined
def _strip_leaves(sh, shared, ws):
    """Make the first tree of the plan in links: fill parent, flow, and order (children before parents).

    Return False, with half a tree, if the batch is to stop.

    Every shipment uses up a row or a column, which becomes a child of the other. The tree is strongly feasible
    (Cunningham 1976): a flow of zero occurs only from a row up to its parent. That is why a tie uses up the column.
    """
    n, m, base = sh.n, sh.m, sh.base
    rest, parent, flow, order, active, score = ws.rest, ws.parent, ws.flow, ws.order, ws.active, ws.score
    for k in range(0, sh.span, 16):
        store(rest, k, load16(ws.weight, k))
        here = first16((n if k < base else base + m) - k)  # by number, not by weight: scaling may have made a weight 0
        store(active, k, where(here, splat16(ONE), splat16(ZERO)))
        store(score, k, where(here, load16(ws.best_flow, k) - load16(ws.node_total, k), splat16(REMOVED)))

    slack = LEAF_SLACK / np.float32(n + m)
    rows, columns, count = n, m, 0
    while rows > 1 and columns > 1:
        if stopping(shared):
            return False
        threshold = _highest_score(sh.span, score) - slack
        for k in range(0, sh.span, 16):
            leaves = 0xFFFF & ~bits(load16(score, k) < splat16(threshold))  # at least one node
            while leaves and rows > 1 and columns > 1:
                x = k + trailing_zeros(leaves)
                leaves &= leaves - 1
                if score[x] < threshold:  # its score has fallen since, because others were removed
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
                _remove(leaf, ws)
                _update_scores(leaf, sh, ws)

    # One row or one column is left. The root is a column; the others become children of the row or of the root.
    i, j = 0, base
    while active[i] == ZERO:
        i += 1
    while active[j] == ZERO:
        j += 1
    if rows > 1:
        for x in range(n):
            if active[x] > ZERO:
                parent[x], flow[x], order[count] = j, rest[x], x
                count += 1
    else:
        for x in range(j + 1, base + m):
            if active[x] > ZERO:
                parent[x], flow[x], order[count] = i, rest[x], x
                count += 1
        parent[i], flow[i], order[count] = j, rest[j], i
        count += 1
    parent[j], flow[j], order[count] = -1, 0.0, j
    return True


@inlined
def start(sh, total_weight, shared, ws):
    """Make the first tree of a problem: fill parent, flow, and order (children before parents).

    Return False, with half a tree, if the batch is to stop.
    """
    if min(sh.n, sh.m) > 1:  # else there is only one tree
        _sinkhorn(sh, total_weight, shared, ws)
    return _strip_leaves(sh, shared, ws)

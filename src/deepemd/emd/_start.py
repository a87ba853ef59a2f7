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

from deepemd.emd._vectors import bits, greatest, largest, least, load16, smallest, splat16, store, total, trailing_zeros
from deepemd.emd._vectors import where

ROUNDS = (3, 3, 4)  # Sinkhorn steps before the first and the second halving of the temperature, and after
TEMPERATURE = np.float32(0.4)  # of the first round, relative to the standard deviation of the costs
TINY, LARGE = np.float32(1e-30), np.float32(1e15)
ZERO, ONE = np.float32(0), np.float32(1)


# --- the plan ---------------------------------------------------------------------------------------------------------


@njit(nogil=True, forceinline=True, error_model="numpy")
def _kernel(sh, ws):
    """Fill links with exp(-(cost - least cost) / temperature), by rows and by columns. -> False if costs are equal."""
    price, links = ws.price, ws.links
    n, m, row, across = sh.n, sh.m, sh.row, sh.across
    columns = (n + 4) * row
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
    for k in range(n * row, (n + 3) * row, 16):
        store(links, k, splat16(ZERO))
    for k in range(columns, columns + (m + 3) * across, 16):
        store(links, k, splat16(ZERO))
    for i in range(n):
        for j in range(m):
            links[columns + j * across + i] = links[i * row + j]
    return True


@njit(nogil=True, forceinline=True, error_model="numpy")
def _fit_side(links, first, count, width, scale, at, share, to):
    """scale[to:] = share[to:] / (scale[at:] links): the marginals of one side come out right. Modifies scale."""
    for j in range(0, width, 16):
        s0, s1, s2, s3 = splat16(TINY), splat16(ZERO), splat16(ZERO), splat16(ZERO)
        for i in range(0, count, 4):
            k = first + i * width + j
            s0 += load16(links, k) * splat16(scale[at + i])
            s1 += load16(links, k + width) * splat16(scale[at + i + 1])
            s2 += load16(links, k + 2 * width) * splat16(scale[at + i + 2])
            s3 += load16(links, k + 3 * width) * splat16(scale[at + i + 3])
        store(scale, to + j, load16(share, to + j) / ((s0 + s1) + (s2 + s3)))


@njit(nogil=True, forceinline=True, error_model="numpy")
def _square(values, first, last):
    for k in range(first, last, 16):
        e = least(load16(values, k), splat16(LARGE))
        store(values, k, e * e)


@njit(nogil=True, forceinline=True, error_model="numpy")
def _plan_side(links, first, count, width, scale, at, share, to, varied, ws):
    """links times both scales, and its sums. Modifies links, whole."""
    for i in range(count):
        x, s = splat16(scale[at + i]), splat16(ZERO)
        for j in range(0, width, 16):
            k = first + i * width + j
            p = load16(links, k) * x * load16(scale, to + j) if varied else load16(share, to + j)
            p = greatest(least(p, splat16(ONE)), splat16(TINY))  # the NaN of an overflow becomes 1
            store(links, k, p)
            s += p
        ws.whole[at + i] = total(s)


@njit(nogil=True, forceinline=True, error_model="numpy")
def sinkhorn(sh, total_weight, ws):
    """Fill links, by rows and by columns, with a positive plan that is close to an optimal one."""
    links, scale, share = ws.links, ws.scale, ws.share
    n, m, row, across, base = sh.n, sh.m, sh.row, sh.across, sh.base
    columns = (n + 4) * row
    for k in range(0, sh.span, 16):
        store(share, k, splat16(ZERO))
        store(scale, k, splat16(ZERO))
        store(ws.whole, k, splat16(ONE))
    part = 1.0 / total_weight
    for i in range(n):
        share[i] = np.float32(ws.weight[i] * part)
    for j in range(m):
        share[base + j], scale[base + j] = np.float32(ws.weight[base + j] * part), ONE
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
    _plan_side(links, 0, n, row, scale, 0, share, base, varied, ws)
    _plan_side(links, columns, m, across, scale, base, share, 0, varied, ws)


# --- the tree ---------------------------------------------------------------------------------------------------------


@njit(nogil=True, forceinline=True, error_model="numpy")
def _find(values, first, last, wanted):
    """Where the first value is that equals ``wanted``, counted from ``first``."""
    if last - first <= 64:
        found = np.int64(0)
        for k in range(first, last, 16):
            found |= bits(load16(values, k) == splat16(wanted)) << (k - first)
        return trailing_zeros(found)
    for k in range(first, last, 16):
        found = bits(load16(values, k) == splat16(wanted))
        if found:
            return k - first + trailing_zeros(found)
    return 0


@njit(nogil=True, forceinline=True, error_model="numpy")
def _favourite(x, sh, ws):
    """Choose anew the partner, among those alive, that node x ships most to. Modifies favour, partner."""
    links, alive = ws.links, ws.alive
    is_row = x < sh.base
    first = x * sh.row if is_row else (sh.n + 4) * sh.row + (x - sh.base) * sh.across
    other, width = (sh.base, sh.row) if is_row else (0, sh.across)
    top = splat16(ZERO)
    for k in range(0, width, 16):
        top = greatest(load16(links, first + k) * load16(alive, other + k), top)
    best = largest(top)
    ws.favour[x] = best
    if width <= 64:
        found = np.int64(0)
        for k in range(0, width, 16):
            found |= bits(load16(links, first + k) * load16(alive, other + k) == splat16(best)) << k
        ws.partner[x] = other + trailing_zeros(found)
    else:
        for k in range(0, width, 16):
            found = bits(load16(links, first + k) * load16(alive, other + k) == splat16(best))
            if found:
                ws.partner[x] = other + k + trailing_zeros(found)
                break


@njit(nogil=True, forceinline=True, error_model="numpy")
def _judge(gone, sh, ws):
    """Judge the nodes of the other side after ``gone`` has left. Modifies whole, favour, partner, score."""
    links, whole, favour, partner, alive = ws.links, ws.whole, ws.favour, ws.partner, ws.alive
    was_row = gone < sh.base
    first = gone * sh.row if was_row else (sh.n + 4) * sh.row + (gone - sh.base) * sh.across
    other, width = (sh.base, sh.row) if was_row else (0, sh.across)
    for k in range(0, width, 16):
        at = other + k
        lost = bits(load16(partner, at) == splat16(np.int32(gone)))
        while lost:
            x = at + trailing_zeros(lost)
            lost &= lost - 1
            if alive[x] > ZERO:
                _favourite(x, sh, ws)
        best = load16(favour, at)
        rest = greatest(load16(whole, at) - load16(links, first + k), best)
        store(whole, at, rest)
        store(ws.score, at, where(splat16(ZERO) < load16(alive, at), best / rest, splat16(-ONE)))


@njit(nogil=True, forceinline=True, error_model="numpy")
def _ripest(span, score):
    """The node that is most nearly a leaf."""
    top = load16(score, 0)
    for k in range(16, span, 16):
        top = greatest(load16(score, k), top)
    return _find(score, 0, span, largest(top))


@njit(nogil=True, forceinline=True, error_model="numpy")
def strip_leaves(sh, ws):
    """Make the first tree of the plan in links: fill parent, flow, and order (children before parents).

    Every shipment uses up a row or a column, and the one used up hangs below the other. The tree is strongly feasible
    (Cunningham 1976): a flow of zero occurs only from a row up to its parent. That is why a tie uses up the column.
    """
    n, m, base = sh.n, sh.m, sh.base
    rest, parent, flow, order, alive, score = ws.rest, ws.parent, ws.flow, ws.order, ws.alive, ws.score
    for k in range(0, sh.span, 16):
        store(alive, k, splat16(ZERO))
        store(score, k, splat16(-ONE))
        store(ws.favour, k, splat16(ONE))
        store(ws.partner, k, splat16(np.int32(-1)))
    for i in range(n):
        rest[i], alive[i] = ws.weight[i], ONE
    for j in range(base, base + m):
        rest[j], alive[j] = ws.weight[j], ONE
    for i in range(n):
        _favourite(i, sh, ws)
        score[i] = ws.favour[i] / max(ws.whole[i], ws.favour[i])
    for j in range(base, base + m):
        _favourite(j, sh, ws)
        score[j] = ws.favour[j] / max(ws.whole[j], ws.favour[j])

    rows, columns, above = n, m, base
    for count in range(n + m - 1):
        x = _ripest(sh.span, score)
        y = np.int64(ws.partner[x])
        i, j = (x, y) if x < base else (y, x)
        row_leaves = (columns == 1) | ((rows > 1) & (rest[i] < rest[j]))
        leaf, above = (i, j) if row_leaves else (j, i)
        amount = rest[leaf] if columns + rows > 2 else max(rest[above], 0.0)
        rest[above] -= amount
        rows, columns = (rows - 1, columns) if row_leaves else (rows, columns - 1)
        parent[leaf], flow[leaf], order[count] = above, amount, leaf
        alive[leaf], score[leaf] = ZERO, -ONE
        _judge(leaf, sh, ws)
    parent[above], flow[above], order[n + m - 1] = -1, 0.0, above

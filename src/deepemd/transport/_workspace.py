"""The arrays in which a thread solves its problems: aligned parts of one buffer, allocated once for a batch."""

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload

from deepemd.transport._compile import inlined


class Shape(NamedTuple):
    """The memory layout of problems of up to n rows and m columns. Up to 64, the compiler knows all but n and m."""

    n: int
    m: int
    row: int  # length of a padded row of costs, a multiple of 16
    across: int  # length of a padded column
    base: int  # the node of the first column
    span: int  # nodes from 0 to the last padded column
    words: int  # 64-bit words of a mask over all nodes


class Workspace(NamedTuple):
    """Flat arrays that are reused for every problem. ``nodes`` below stands for 64 * words."""

    exact: np.ndarray  # (n, row) costs of the kept rows and columns, in the input's type; inf in the padding
    price: np.ndarray  # (n, row) the same in float32 (the same array where the input is float32)
    links: np.ndarray  # (across, row) and (row, across) float32 the rough plan by rows and by columns
    row_of: np.ndarray  # (base,) int32 the input's row of each kept row
    col_of: np.ndarray  # (row,) int32
    weight: np.ndarray  # (nodes,) supplies, and demands scaled to their total; 0 in the padding
    rest: np.ndarray  # (nodes,) what a node has still to ship while the first tree is made
    share: np.ndarray  # (nodes,) float32 weights relative to their total
    scale: np.ndarray  # (nodes,) float32 scalings of Sinkhorn's steps
    active: np.ndarray  # (nodes,) float32 1 until a node is in the first tree, then 0
    node_total: np.ndarray  # (nodes,) float32 the sum of a node's flows to active nodes
    best_flow: np.ndarray  # (nodes,) float32 the largest of these flows
    partner: np.ndarray  # (nodes,) int32 the node that it goes to
    score: np.ndarray  # (nodes,) float32 best_flow - node_total while active: 0 for a leaf
    best: np.ndarray  # (row,) float32 least reduced cost of each column
    best_row: np.ndarray  # (row,) int32 the row that has it
    candidates: np.ndarray  # (row,) int32 columns whose best is worth a pivot
    parent: np.ndarray  # (nodes,) int32
    flow: np.ndarray  # (nodes,)
    pot: np.ndarray  # (nodes,)
    pot32: np.ndarray  # (nodes,) float32 copy for the scan
    order: np.ndarray  # (nodes,) int32 the nodes, children before parents
    sub: np.ndarray  # (nodes, words) int64
    done: np.ndarray  # (words,) int64 scratch of sort_tree


@intrinsic
def _part(typing, buffer, offset, count, kind):
    """Return ``count`` numbers of a type at a byte offset of a byte buffer, as an array without a reference count.

    A reference count costs an atomic operation for each use of an array, several hundred nanoseconds a problem. The
    buffer must outlive its parts.
    """
    array = types.Array(kind.dtype, 1, "C")

    def lower(context, builder, sig, args):
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        size = ir.Constant(args[2].type, kind.dtype.bitwidth // 8)
        part = context.make_array(array)(context, builder)
        context.populate_array(
            part,
            data=builder.bitcast(builder.gep(data, [args[1]]), part.data.type),
            shape=[args[2]],
            strides=[size],
            itemsize=size,
            meminfo=None,
        )
        return part._getvalue()

    return array(buffer, types.intp, types.intp, kind), lower


@intrinsic
def _address(typing, buffer):
    """Return the address of the first byte of a buffer."""

    def lower(context, builder, sig, args):
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        return builder.ptrtoint(data, context.get_value_type(types.intp))

    return types.intp(buffer), lower


def kind(n: int, m: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return tuples whose lengths give the compiler the words of a mask and, up to 64, a row's length over 16."""
    larger = max(n, m)
    if larger <= 64:
        return ((0,), (0,)) if larger <= 16 else ((0,), (0, 0)) if larger <= 32 else ((0, 0), (0, 0, 0, 0))
    words = (n + 63) // 64 + (m + 63) // 64
    return ((0,) * (4 if words <= 4 else 8), ())


@inlined
def shape_of(n, m, kind):
    """Return the layout of an n x m problem in the arrays of this kind."""
    words, sixteens = len(kind[0]), len(kind[1])
    if sixteens:
        row = 16 * sixteens
        return Shape(n, m, row, row, row, 2 * row, words)
    row, across, base = (m + 15) // 16 * 16, (n + 15) // 16 * 16, (n + 63) // 64 * 64
    if words == 8:
        words = (base // 64 + (m + 63) // 64 + 7) // 8 * 8
    return Shape(n, m, row, across, base, base + row, words)


@inlined
def _take(buffer, at, count, kind):
    """Return the next part of the buffer, and the offset, aligned to 64 bytes, of the one after it."""
    part = _part(buffer, at, count, kind)
    return part, at + (count * part.itemsize + 63) // 64 * 64


@inlined
def buffer_size(sh):
    """Return the bytes of the buffer for problems of this layout, in which the masks need (n + m)^2 / 8."""
    nodes, costs, links = 64 * sh.words, sh.n * sh.row, 2 * sh.row * sh.across
    masks = nodes * sh.words if min(sh.n, sh.m) > 1 else 0  # a star is never pivoted
    return 12 * costs + 4 * links + 4 * sh.span + 12 * sh.row + 72 * nodes + 8 * masks + 8 * sh.words + 26 * 64


@inlined
def workspace(n, m, kind, cost):
    """Return the arrays for problems of up to n x m, with costs of the type of ``cost``, and their buffer."""
    sh = shape_of(n, m, kind)
    nodes, costs, links = 64 * sh.words, n * sh.row, 2 * sh.row * sh.across
    masks = nodes * sh.words if min(n, m) > 1 else 0
    buffer = np.zeros(buffer_size(sh), np.uint8)
    exact, at = _take(buffer, (64 - _address(buffer) % 64) % 64, costs, cost)
    price, at = _take(buffer, at, costs, np.float32)
    links, at = _take(buffer, at, links, np.float32)
    row_of, at = _take(buffer, at, sh.base, np.int32)
    col_of, at = _take(buffer, at, sh.row, np.int32)
    weight, at = _take(buffer, at, nodes, np.float64)
    rest, at = _take(buffer, at, nodes, np.float64)
    share, at = _take(buffer, at, nodes, np.float32)
    scale, at = _take(buffer, at, nodes, np.float32)
    active, at = _take(buffer, at, nodes, np.float32)
    node_total, at = _take(buffer, at, nodes, np.float32)
    best_flow, at = _take(buffer, at, nodes, np.float32)
    partner, at = _take(buffer, at, nodes, np.int32)
    score, at = _take(buffer, at, nodes, np.float32)
    best, at = _take(buffer, at, sh.row, np.float32)
    best_row, at = _take(buffer, at, sh.row, np.int32)
    candidates, at = _take(buffer, at, sh.row, np.int32)
    parent, at = _take(buffer, at, nodes, np.int32)
    flow, at = _take(buffer, at, nodes, np.float64)
    pot, at = _take(buffer, at, nodes, np.float64)
    pot32, at = _take(buffer, at, nodes, np.float32)
    order, at = _take(buffer, at, nodes, np.int32)
    sub, at = _take(buffer, at, masks, np.int64)
    done, at = _take(buffer, at, sh.words, np.int64)
    ws = Workspace(
        exact, price32(exact, price), links, row_of, col_of, weight, rest, share, scale, active, node_total,
        best_flow, partner, score, best, best_row, candidates, parent, flow, pot, pot32, order, sub, done,
    )  # fmt: skip
    return ws, buffer


def price32(exact, price):
    """Return the array of float32 prices, which is ``exact`` itself if that is float32."""


@overload(price32)
def _price32(exact, price):
    return (lambda exact, price: exact) if exact == price else (lambda exact, price: price)

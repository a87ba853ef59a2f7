"""The transport problem between two node sets: the cost of moving a node, and the weight of each node."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["NodeSets", "centred_cosine_cost", "compare", "cross_reference_weights", "measured", "uniform_weights"]

_EPS = 1e-8  # the least length


class NodeSets(NamedTuple):
    """Node sets with the mean and length of each node: see :func:`measured`."""

    nodes: Tensor  # (..., n, C), centred or not: products with centred nodes are the same
    mean: Tensor  # (..., n) mean of a node over its channels
    length: Tensor  # (..., n) length of a node minus that mean


class Comparison(NamedTuple):
    """The costs and agreements of Q query sets with S support sets."""

    cost: Tensor  # (..., Q, S, n, m) see centred_cosine_cost
    a: Tensor  # (..., Q, S, n) mean_j u_i . v_j, before the ReLU and the floor
    b: Tensor  # (..., Q, S, m) mean_i u_i . v_j


def unit_centred(nodes: Tensor) -> Tensor:
    """Return nodes (..., C) minus their mean over the channels, scaled to length 1: products are correlations."""
    return F.normalize(_centred(nodes), dim=-1, eps=_EPS)


def _centred(nodes: Tensor) -> Tensor:
    return nodes - nodes.mean(-1, keepdim=True)


def measured(nodes: Tensor) -> NodeSets:
    """Compute the means and lengths of node sets (..., n, C) once, if they are compared many times.

    The nodes are not copied, but the computation temporarily needs as much memory again: measure large sets in parts.

    >>> sets = measured(torch.tensor([[1.0, 0.0, -1.0], [4.0, 4.0, 4.0]]))
    >>> sets.mean, sets.length
    (tensor([0., 4.]), tensor([1.4142, 0.0000]))
    """
    return _split(nodes.to(torch.promote_types(nodes.dtype, torch.float32)))._replace(nodes=nodes)


def _split(nodes: Tensor) -> NodeSets:
    """Return nodes (..., n, C) minus their means, with the means and lengths."""
    mean = nodes.mean(-1)
    centred = nodes - mean[..., None]
    return NodeSets(centred, mean, centred.norm(dim=-1))


def products(query: Tensor, support: Tensor) -> Tensor:
    """Return all dot products of query (..., Q, n, C) and support (..., S, m, C) as (..., Q, n, S, m).

    The support is padded with zeros to whole vectors: a product of 128 columns is faster than one of 125.
    """
    (*_, n, _), (*_, supports, m, _) = query.shape, support.shape
    rows = F.pad(support.flatten(-3, -2), (0, 0, 0, -supports * m % 16))  # (..., S m and some, C)
    flat = query.flatten(-3, -2) @ rows.transpose(-1, -2)  # (..., Q n, S m and some)
    found: Tensor = flat[..., : supports * m].unflatten(-1, (supports, m)).unflatten(-3, (-1, n))
    return found


def compare(query: Tensor | NodeSets, support: Tensor, context: float = 0.0) -> Comparison:
    """Compute costs and agreements of query (..., Q, n, C) with support (..., S, m, C) by one product of matrices.

    A node is its mean over the channels plus the rest, u_i = y_i + mu_i 1 and v_j = w_j + nu_j 1 with y_i . 1 =
    w_j . 1 = 0. So u_i . v_j = y_i . w_j + C mu_i nu_j, and the cosine of the centred nodes is y_i . w_j / |y_i||w_j|.
    With a context c the cost is that of y_i + c y^ and w_j + c w^, where y^ and w^ are the means of their sets, and
    (y_i + c y^) . (w_j + c w^) follows from the same products. Only y and w are of the size of the embeddings,
    here and in the gradient; for a measured query only w, as u_i . w_j = y_i . w_j.
    """
    rows, columns = query if isinstance(query, NodeSets) else _split(query), _split(support)
    w = columns.nodes
    if rows is query:
        w = _centred(w)  # again, because mu_i multiplies the rounding error of w_j . 1
    mu, nu, channels = rows.mean, columns.mean, w.shape[-1]  # (..., Q, n), (..., S, m)
    yw = products(rows.nodes, w)  # (..., Q, n, S, m)
    of_rows, of_columns = yw.mean(-1, keepdim=True), yw.mean(-3, keepdim=True)
    a = of_rows[..., 0].transpose(-1, -2) + channels * mu[..., :, None, :] * nu.mean(-1)[..., None, :, None]
    b = of_columns[..., 0, :, :] + channels * mu.mean(-1)[..., :, None, None] * nu[..., None, :, :]
    if context:
        yw = yw + context * (of_rows + of_columns + context * of_rows.mean(-3, keepdim=True))
    long, wide = (1 / _length(sets, context) for sets in (rows, columns))  # (..., Q, n), (..., S, m)
    scaled = yw * wide[..., None, None, :, :]
    cost = torch.addcmul(scaled.new_ones(()), scaled, long[..., None, None], value=-1)  # (..., Q, n, S, m)
    return Comparison(cost.transpose(-3, -2), a, b)


def _length(sets: NodeSets, context: float) -> Tensor:
    """Return |y_i + c y^| of every node (..., n), at least _EPS; its square is |y_i|^2 + 2 c y_i . y^ + c^2 |y^|^2."""
    if not context:
        return sets.length.clamp_min(_EPS)
    centre = _centred(_centred(sets.nodes.mean(-2)))  # (..., C): y^, twice as in `compare`
    along = (sets.nodes @ centre[..., None])[..., 0]  # (..., n): y_i . y^, whose mean is |y^|^2
    square = sets.length.square() + 2 * context * along + context**2 * along.mean(-1, keepdim=True)
    return square.clamp_min(_EPS**2).sqrt()


def centred_cosine_cost(query: Tensor, support: Tensor) -> Tensor:
    """Return the cost 1 - cos(u_i, v_j) of moving query node i to support node j, both centred over their channels.

    Args:
        query: (..., Q, n, C) float, one row per node set.
        support: (..., S, m, C) float, the same leading dimensions.

    Returns:
        (..., Q, S, n, m), between 0 and 2. No intermediate is larger than the result or the inputs.

    Source: equation 4 of the paper; the authors' code centres the embeddings.

    >>> import torch
    >>> nodes = torch.tensor([[[1.0, 0.0, -1.0], [0.0, 3.0, 0.0]]])
    >>> centred_cosine_cost(nodes, nodes).squeeze().round(decimals=4)
    tensor([[0., 1.],
            [1., 0.]])
    """
    return compare(query, support).cost


def cross_reference_weights(query: Tensor, support: Tensor, floor: float = 1e-3) -> tuple[Tensor, Tensor]:
    """Weigh each node by its agreement with the other image: a_i = max(u_i . mean_j v_j, 0) + floor, and b_j likewise.

    Args:
        query: (..., Q, n, C) raw (uncentred) embeddings.
        support: (..., S, m, C) likewise.
        floor: the weight of a node that does not agree at all. With 0 an image in which no node agrees has no weight.

    Returns:
        a (..., Q, S, n) and b (..., Q, S, m), not scaled to any total.

    Source: equation 6 and section 3.4 of the paper (cross-reference mechanism); the floor is the authors' code's.
    """
    _, a, b = compare(query, support)
    return a.relu() + floor, b.relu() + floor


def uniform_weights(query: Tensor, support: Tensor) -> tuple[Tensor, Tensor]:
    """Return equal weights for all nodes: expanded ones a (..., Q, S, n) and b (..., Q, S, m)."""
    *lead, queries, n, _ = query.shape
    *_, supports, m, _ = support.shape
    one = query.new_ones(())
    return one.expand(*lead, queries, supports, n), one.expand(*lead, queries, supports, m)

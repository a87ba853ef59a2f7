"""What a transport problem between two node sets is made of: the cost of moving a node, and the weight of each node."""

from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import normalize

__all__ = ["centred_cosine_cost", "compare", "cross_reference_weights", "uniform_weights"]

_EPS = 1e-8  # no length counts as less


class Comparison(NamedTuple):
    """All that the head asks of Q query sets beside S support sets."""

    cost: Tensor  # (..., Q, S, n, m) see centred_cosine_cost
    a: Tensor  # (..., Q, S, n) mean_j u_i . v_j, before the ReLU and the floor
    b: Tensor  # (..., Q, S, m) mean_i u_i . v_j


def unit_centred(nodes: Tensor) -> Tensor:
    """Nodes (..., C) less the mean over their channels, scaled to length 1: their product is the correlation."""
    return normalize(nodes - nodes.mean(-1, keepdim=True), dim=-1, eps=_EPS)


def pairwise(query: Tensor, support: Tensor) -> Tensor:
    """All dot products of query (..., Q, n, C) with support (..., S, m, C) as one matrix product: (..., Q, S, n, m)."""
    *_, queries, n, _ = query.shape
    *_, supports, m, _ = support.shape
    flat = query.flatten(-3, -2) @ support.flatten(-3, -2).transpose(-1, -2)  # (..., Q n, S m)
    return flat.view(*flat.shape[:-2], queries, n, supports, m).transpose(-3, -2)  # (..., Q, S, n, m)


def compare(query: Tensor, support: Tensor, context: float = 0.0) -> Comparison:
    """Costs and agreements of query (..., Q, n, C) with support (..., S, m, C) from one product of matrices.

    A node is its mean over the channels and the rest, u_i = y_i + mu_i 1 and v_j = w_j + nu_j 1 with y_i . 1 =
    w_j . 1 = 0. So u_i . v_j = y_i . w_j + C mu_i nu_j, and the cosine of the centred nodes is y_i . w_j / |y_i||w_j|.
    With a context c the cost is that of y_i + c y^ and w_j + c w^, where y^ and w^ are the means of their sets, and
    (y_i + c y^) . (w_j + c w^) follows from the same products. Nothing but y and w is of the size of the embeddings,
    here or in the gradient.
    """
    (*_, n, channels), m = query.shape, support.shape[-2]
    mu, nu = query.mean(-1), support.mean(-1)  # (..., Q, n), (..., S, m)
    y, w = query - mu[..., None], support - nu[..., None]
    flat = y.flatten(-3, -2) @ w.flatten(-3, -2).transpose(-1, -2)  # (..., Q n, S m)
    products = flat.unflatten(-1, (-1, m)).unflatten(-3, (-1, n))  # (..., Q, n, S, m)
    of_rows, of_columns = products.mean(-1, keepdim=True), products.mean(-3, keepdim=True)
    a = of_rows[..., 0].transpose(-1, -2) + channels * mu[..., :, None, :] * nu.mean(-1)[..., None, :, None]
    b = of_columns[..., 0, :, :] + channels * mu.mean(-1)[..., :, None, None] * nu[..., None, :, :]
    if context:
        products = products + context * (of_rows + of_columns + context * of_rows.mean(-3, keepdim=True))
        y, w = (x + context * x.mean(-2, keepdim=True) for x in (y, w))
    long, wide = (1 / x.norm(dim=-1).clamp_min(_EPS) for x in (y, w))  # (..., Q, n), (..., S, m)
    cost = 1 - products * long[..., None, None] * wide[..., None, None, :, :]  # (..., Q, n, S, m)
    return Comparison(cost.transpose(-3, -2), a, b)


def centred_cosine_cost(query: Tensor, support: Tensor) -> Tensor:
    """The cost of moving query node i to support node j: 1 - cos(u_i, v_j), of embeddings centred over their channels.

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
        floor: what a node weighs that does not agree at all; 0 would drop it, and leaves nothing where no node agrees.

    Returns:
        a (..., Q, S, n) and b (..., Q, S, m), not scaled to any total.

    Source: equation 6 and section 3.4 of the paper (cross-reference mechanism); the floor is the authors' code's.
    """
    _, a, b = compare(query, support)
    return a.relu() + floor, b.relu() + floor


def uniform_weights(query: Tensor, support: Tensor) -> tuple[Tensor, Tensor]:
    """The same weight for every node: a (..., Q, S, n) and b (..., Q, S, m) of ones, without storage of their own."""
    *lead, queries, n, _ = query.shape
    *_, supports, m, _ = support.shape
    one = query.new_ones(())
    return one.expand(*lead, queries, supports, n), one.expand(*lead, queries, supports, m)

"""What a transport problem between two node sets is made of: the cost of moving a node, and the weight of each node."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

__all__ = ["centred_cosine_cost", "cross_reference_weights", "uniform_weights"]


def unit_centred(nodes: Tensor) -> Tensor:
    """Nodes (..., C) less the mean over their channels, scaled to length 1: their product is the correlation."""
    return normalize(nodes - nodes.mean(-1, keepdim=True), dim=-1, eps=1e-8)


def pairwise(query: Tensor, support: Tensor) -> Tensor:
    """All dot products of query (..., Q, n, C) with support (..., S, m, C) as one matrix product: (..., Q, S, n, m)."""
    *_, queries, n, _ = query.shape
    *_, supports, m, _ = support.shape
    flat = query.flatten(-3, -2) @ support.flatten(-3, -2).transpose(-1, -2)  # (..., Q n, S m)
    return flat.view(*flat.shape[:-2], queries, n, supports, m).transpose(-3, -2)  # (..., Q, S, n, m)


def centred_cosine_cost(query: Tensor, support: Tensor) -> Tensor:
    """The cost of moving query node i to support node j: 1 - cos(u_i, v_j), of embeddings centred over their channels.

    Args:
        query: (..., Q, n, C) float, one row per node set.
        support: (..., S, m, C) float, the same leading dimensions.

    Returns:
        (..., Q, S, n, m), between 0 and 2. No intermediate is larger than the result or the inputs.

    Source: equation 4 of the paper; the authors' code centres the embeddings.

    >>> nodes = torch.tensor([[[1.0, 0.0, -1.0], [0.0, 3.0, 0.0]]])
    >>> centred_cosine_cost(nodes, nodes).squeeze().round(decimals=4)
    tensor([[0., 1.],
            [1., 0.]])
    """
    return 1 - pairwise(unit_centred(query), unit_centred(support))


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
    query_mean, support_mean = query.mean(-2), support.mean(-2)  # (..., Q, C), (..., S, C)
    a = torch.einsum("...qnc,...sc->...qsn", query, support_mean)  # (..., Q, S, n)
    b = torch.einsum("...qc,...smc->...qsm", query_mean, support)  # (..., Q, S, m)
    return a.relu() + floor, b.relu() + floor


def uniform_weights(query: Tensor, support: Tensor) -> tuple[Tensor, Tensor]:
    """The same weight for every node: a (..., Q, S, n) and b (..., Q, S, m) of ones, without storage of their own."""
    *lead, queries, n, _ = query.shape
    *_, supports, m, _ = support.shape
    one = query.new_ones(())
    return one.expand(*lead, queries, supports, n), one.expand(*lead, queries, supports, m)

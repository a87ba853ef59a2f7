"""The DeepEMD head, which turns two node sets into a logit."""

import math
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from deepemd.matching.cost import NodeSets, compare, uniform_weights
from deepemd.transport import emd

__all__ = ["Problem", "Weights", "emd_logits", "transport_problem"]

Weights = Literal["cross-reference", "uniform"]

# The most cost entries in memory at a time (16 MB in float32), so that the head's memory does not grow with the number
# of queries.
_CHUNK = 4_000_000


class Solution(Protocol):
    """The result of a transport solver, which has at least the value (...)."""

    @property
    def value(self) -> Tensor: ...


class Problem(NamedTuple):
    """The transport problems of Q queries against S supports."""

    cost: Tensor  # (..., Q, S, n, m)
    a: Tensor  # (..., Q, S, n) weights of the query's nodes, of sum 1
    b: Tensor  # (..., Q, S, m) weights of the support's nodes, of sum 1


def transport_problem(
    query: Tensor | NodeSets,
    support: Tensor,
    *,
    weights: Weights = "cross-reference",
    floor: float = 1e-3,
    context: float = 0.0,
) -> Problem:
    """Pose the transport problem of every query with every support; arguments as in :func:`emd_logits`."""
    cost, a, b = compare(query, support, context)
    if weights == "cross-reference":
        a, b = a.relu() + floor, b.relu() + floor
    elif weights == "uniform":
        a, b = uniform_weights(query.nodes if isinstance(query, NodeSets) else query, support)
    else:
        raise ValueError(f"weights must be 'cross-reference' or 'uniform', got {weights!r}")
    return Problem(cost, a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True))


def emd_logits(
    query: Tensor | NodeSets,
    support: Tensor,
    *,
    temperature: float = 12.5,
    weights: Weights = "cross-reference",
    floor: float = 1e-3,
    context: float = 0.0,
    detach_weights: bool = False,
    query_chunk: int | None = None,
    transport: Callable[[Tensor, Tensor, Tensor], Solution] = emd,
) -> Tensor:
    """Compute classification logits by optimal matching: temperature * (1 - EMD) of every query and support.

    Both weight vectors are scaled to sum to 1, so the logit is the paper's (T / N) sum_ij (1 - c_ij) x_ij if both sets
    have N nodes, and is also defined if they differ. Queries are processed in pieces, so memory stays bounded;
    gradients are exact.

    Args:
        query: (..., Q, n, C) float, raw embeddings, one row per node set; leading dimensions are episodes. If images
            are queries many times, measure them once: see :func:`deepemd.matching.cost.measured`.
        support: (..., S, m, C) float, the same leading dimensions; S is n_way where every class is one node set.
        temperature: scales the logits before a softmax; 12.5 in the paper. Raise it for sharper probabilities.
        weights: "cross-reference" (the paper's) or "uniform" (every node counts the same).
        floor: added to every cross-reference weight.
        context: how much of the whole image each node takes into account in the costs: u_i becomes u_i + context
            mean_k u_k. 0 as in the paper, for encoders that are trained for matching; 1 suits an encoder that was only
            trained to classify whole images, see docs/results.md. The larger, the closer to pooled cosine. The weights
            do not change.
        detach_weights: True gives the weights no gradient, as in the authors' OpenCV path (they report it as about 1 %
            worse).
        query_chunk: number of queries of an episode that are matched together, and matched again in the backward pass,
            so that the saved memory does not grow with the queries. By default it is two to three times the size of the
            nodes, which matters for hundreds of queries.
        transport: a solver with the signature of :func:`deepemd.emd`.

    Returns:
        (..., Q, S) logits in float32 (float64 where an input is).

    Raises:
        ValueError: shapes do not match, `weights` is unknown, `query_chunk` is below 1, or embeddings are not finite.

    Source: equations 1-6 of the paper. An image is nearest to itself:

    >>> nodes = torch.randn(3, 25, 64, generator=torch.Generator().manual_seed(0))
    >>> emd_logits(nodes, nodes).argmax(-1)
    tensor([0, 1, 2])
    """
    known: tuple[Tensor, ...] = (
        query if isinstance(query, NodeSets) else (query,)
    )  # the nodes come first, then perhaps means and lengths
    _check(known[0], support)
    if query_chunk is not None and query_chunk < 1:
        raise ValueError(f"query_chunk must be at least 1, got {query_chunk}; leave it out for all queries at once")

    def match(support: Tensor, *query: Tensor) -> Tensor:
        """Match support (e, S, m, C) with the query's nodes (e, q, n, C) and, if measured, means and lengths."""
        sets = NodeSets(*query) if len(query) > 1 else query[0]
        cost, a, b = transport_problem(sets, support, weights=weights, floor=floor, context=context)
        if detach_weights:
            a, b = a.detach(), b.detach()
        distance = transport(cost, a, b).value  # (e, q, S)
        return (temperature * (1 - distance)).flatten(0, 1)

    with torch.autocast(support.device.type, enabled=False):
        if torch.float64 not in (known[0].dtype, support.dtype):
            known, support = tuple(t.float() for t in known), support.float()
        *lead, queries, n, channels = known[0].shape
        *_, supports, m, _ = support.shape
        episodes = math.prod(lead)
        known = tuple(t.reshape(episodes, *t.shape[len(lead) :]) for t in known)  # (E, Q, n, C), and perhaps (E, Q, n)
        support = support.reshape(episodes, supports, m, channels)  # (E, S, m, C)

        rows = []
        for some, part in _pieces(episodes, queries, supports * n * m, query_chunk):
            piece = support[some], *(t[some, part] for t in known)
            try:
                rows.append(checkpoint(match, *piece, use_reentrant=False) if query_chunk else match(*piece))
            except ValueError as error:
                _check_finite(query=known[0], support=support)  # names the caller's arguments
                raise error
        return torch.cat(rows).reshape(*lead, queries, supports)


def _pieces(episodes: int, queries: int, size: int, chunk: int | None = None) -> Iterator[tuple[slice, slice]]:
    """Cut episodes x queries, in order, into pieces of at most _CHUNK cost entries; a query has `size` of them.

    With a `chunk`, a piece has at most that many queries of one episode.
    """
    if size * queries <= _CHUNK and not chunk:
        together = max(1, _CHUNK // max(1, size * queries))
        for e in range(0, max(1, episodes), together):  # one piece even of nothing, for its gradient
            yield slice(e, e + together), slice(None)
        return
    step = min(max(1, _CHUNK // max(1, size)), chunk or queries)
    for e in range(max(1, episodes)):
        for q in range(0, max(1, queries), step):
            yield slice(e, e + 1), slice(q, q + step)


def _check_finite(**nodes: Tensor) -> None:
    for name, tensor in nodes.items():
        bad = (~tensor.isfinite()).nonzero()
        if len(bad):
            place = tuple(bad[0, :3].tolist())
            raise ValueError(
                f"{name} holds NaN or an infinite value, first at (episode, node set, node) {place}; "
                "embeddings must be finite: look for a diverged training or a division by zero in the encoder"
            )


def _check(query: Tensor, support: Tensor) -> None:
    if query.ndim < 3 or support.ndim < 3:
        raise ValueError(
            "query must be (..., Q, n, C) and support (..., S, m, C); "
            f"got {tuple(query.shape)} and {tuple(support.shape)}"
        )
    if query.shape[-1] != support.shape[-1]:
        raise ValueError(
            f"query nodes have {query.shape[-1]} channels but support nodes have {support.shape[-1]}; "
            "use one encoder for both"
        )
    if 0 in (*query.shape[-2:], *support.shape[-2:]):
        raise ValueError(
            "every node set needs at least one node of at least one channel; "
            f"got query {tuple(query.shape)} and support {tuple(support.shape)}"
        )
    if query.shape[:-3] != support.shape[:-3]:
        raise ValueError(
            f"query and support must hold the same episodes, got leading dimensions {tuple(query.shape[:-3])} "
            f"and {tuple(support.shape[:-3])}"
        )

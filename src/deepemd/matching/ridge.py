"""Ridge regression on nodes: every part of an image is evidence for or against each class.

Let x_k in R^C (k = 1 ... N) be all nodes of all shots, m_c the mean node of class c of M, and m the mean of the m_c.
Regressed on the unit vectors of their classes, with a penalty on the squared coefficients B in R^(C x M), a node x has
the evidence

    e(x) = B^T (x - m) + 1/M,        B = (X^T X + penalty I)^-1 X^T Y,

where the rows of X are x_k - m, and those of Y are 1 at the class and 0 elsewhere, minus 1/M. With equally many shots
of each class, column c of X^T Y is N/M (m_c - m). We take this for any numbers of shots, so that a class of many shots
is not preferred to one of few: it is then the discriminant of Fisher, with the total scatter. The evidence sums to 1
over the classes.

The logits of an image are the means of the evidence of its nodes, each weighted by its agreement with the shots, as the
cross-reference weights of DeepEMD: a(x) = max(x . m, 0) + floor. On one node for each image, its mean, this is ridge
regression on pooled embeddings.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from deepemd.matching.moments import NodeMoments

__all__ = ["Ridge", "fit_ridge", "ridge_from", "ridge_logits"]


class Ridge(NamedTuple):
    """The regression of :func:`fit_ridge`, for M classes."""

    mean: Tensor
    """(..., C) m, the mean of the class means."""
    coefficients: Tensor
    """(..., C, M) B."""

    def evidence(self, nodes: Tensor) -> Tensor:
        """Return the evidence of nodes (..., Q, n, C) for each class, (..., Q, n, M); it sums to 1 over the classes."""
        shares = (nodes - self.mean[..., None, None, :].to(nodes)) @ self.coefficients[..., None, :, :].to(nodes)
        return shares + 1 / self.coefficients.shape[-1]

    def weights(self, nodes: Tensor, floor: float = 1e-3) -> Tensor:
        """Return the weight of nodes (..., Q, n, C) by their agreement with the shots, (..., Q, n), of sum 1."""
        agreement = (nodes * self.mean[..., None, None, :].to(nodes)).sum(-1).relu() + floor
        return agreement / agreement.sum(-1, keepdim=True)

    def logits(self, nodes: Tensor, floor: float = 1e-3) -> Tensor:
        """Return the weighted means of the evidence of nodes (..., Q, n, C) for each class, (..., Q, M)."""
        return (self.weights(nodes, floor)[..., None] * self.evidence(nodes)).sum(-2)


def fit_ridge(support: Tensor, labels: Tensor, *, n_way: int | None = None, penalty: float = 1.0) -> Ridge:
    """Fit a ridge regression from nodes to classes to the shots of each episode; its derivation is above.

    Args:
        support: (..., K, m, C) float, the node sets of the shots; leading dimensions are episodes. Nodes of length 1
            are best, see :func:`deepemd.nodes.power_transform`.
        labels: (..., K) int64, their classes, 0 to n_way - 1; each class at least once, not necessarily equally often.
        n_way: number of classes; by default one more than the largest label.
        penalty: weight of the squared coefficients, in units of squared nodes. 1 suits nodes of length 1; 0.1 suits
            one mean node for each image. The larger, the smoother.

    Returns:
        The regression, in float32 (float64 if support is), differentiable in support. Moments are added in float64.

    Raises:
        ValueError: shapes do not match, a label is not a class, a class has no shot, embeddings are not finite, or
            penalty is not above 0.

    >>> shots = torch.eye(3)[:, None]  # three classes of one node each
    >>> fit_ridge(shots, torch.arange(3), penalty=0.01).logits(shots).round(decimals=2).abs()
    tensor([[0.9900, 0.0000, 0.0000],
            [0.0000, 0.9900, 0.0000],
            [0.0000, 0.0000, 0.9900]])

    Source: Bertinetto et al., Meta-learning with differentiable closed-form solvers (ICLR 2019), R2D2, on nodes.
    """
    dtype = torch.float64 if support.dtype == torch.float64 else torch.float32
    return ridge_from(NodeMoments.of(support, labels, n_way), penalty=penalty, dtype=dtype)


def ridge_from(moments: NodeMoments, *, penalty: float = 1.0, dtype: torch.dtype = torch.float32) -> Ridge:
    """Fit a ridge regression to the moments of the shots' nodes; see :func:`fit_ridge`."""
    if not 0 < penalty < torch.inf:
        raise ValueError(f"penalty must be above 0 and finite, got {penalty}; 1 is usual")
    n_way, channels = moments.total.shape[-2:]
    matrix = moments.scatter()
    matrix = matrix + penalty * torch.eye(channels, dtype=matrix.dtype, device=matrix.device)
    share = moments.nodes.sum(-1)[..., None, None] / n_way
    targets = share * (moments.means - moments.mean[..., None, :])  # (..., M, C): X^T Y, transposed
    solved = torch.cholesky_solve(targets.mT.to(dtype), torch.linalg.cholesky(matrix.to(dtype)))
    return Ridge(moments.mean.to(dtype), solved)


def ridge_logits(
    query: Tensor,
    support: Tensor,
    labels: Tensor,
    *,
    n_way: int,
    penalty: float = 1.0,
    pooled: bool = False,
    floor: float = 1e-3,
) -> Tensor:
    """Classify by ridge regression on the nodes, or on pooled embeddings.

    Args:
        query: (..., Q, n, C) nodes.
        support, labels, n_way, penalty: as in :func:`fit_ridge`.
        pooled: True regresses on the mean of each image's nodes, scaled to length 1: the opponent of methods that use
            parts. A penalty of 0.1 suits it.
        floor: weight of a node that does not agree with the shots at all.

    Returns:
        (..., Q, n_way) logits in the dtype of the query (at least float32), differentiable.

    Raises:
        ValueError: as :func:`fit_ridge`, or the query does not match the support.

    >>> shots = torch.eye(2)[:, None]
    >>> ridge_logits(shots, shots, torch.arange(2), n_way=2, pooled=True, penalty=0.1).argmax(-1)
    tensor([0, 1])
    """
    if query.ndim < 3 or query.shape[:-3] != support.shape[:-3] or query.shape[-1] != support.shape[-1]:
        raise ValueError(
            "query must be (..., Q, n, C) with the episodes and channels of support (..., K, m, C); "
            f"got {tuple(query.shape)} and {tuple(support.shape)}"
        )
    with torch.autocast(query.device.type, enabled=False):
        query, support = (x if x.dtype == torch.float64 else x.float() for x in (query, support))
        if pooled:
            query, support = (F.normalize(x.mean(-2, keepdim=True), dim=-1, eps=1e-8) for x in (query, support))
        return fit_ridge(support, labels, n_way=n_way, penalty=penalty).logits(query, floor)

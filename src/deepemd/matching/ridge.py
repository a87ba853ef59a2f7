"""Ridge regression on nodes: every part of an image is evidence for or against each class.

Let x_k in R^C (k = 1 ... N) be all nodes of all shots, and Y_k in R^M the unit vector of their class. With weights w_k
that make all classes count the same, and sum to N, the regression minimises

    sum_k w_k |B^T (x_k - m) - (Y_k - 1/M)|^2 + penalty |B|^2,        m = sum_k w_k x_k / N,

over B in R^(C x M). So a node x has the evidence e(x) = B^T (x - m) + 1/M for the classes, which sums to 1. With the
rows X_k = sqrt(w_k) (x_k - m) and T_k = sqrt(w_k) (Y_k - 1/M), the minimum is

    B = (X^T X + penalty I)^-1 X^T T  =  X^T (X X^T + penalty I)^-1 T,

of which the smaller system is solved. The logits of an image are the means of the evidence of its nodes, each weighted
by its agreement with the shots, as the cross-reference weights of DeepEMD: a(x) = max(x . mean of all shots' nodes, 0)
+ floor. On one node for each image, its mean, this is ridge regression on pooled embeddings.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from deepemd.matching.shots import members_of

__all__ = ["Ridge", "fit_ridge", "ridge_logits"]


class Ridge(NamedTuple):
    """The regression of :func:`fit_ridge`; for M classes."""

    mean: Tensor
    """(..., C) m, the mean node."""
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
            are best, see :func:`deepemd.matching.power_transform`.
        labels: (..., K) int64, their classes, 0 to n_way - 1; each class at least once, not necessarily equally often.
        n_way: number of classes; by default one more than the largest label.
        penalty: weight of the squared coefficients, in units of squared nodes. 1 suits nodes of length 1; 0.1 suits
            one mean node for each image. The larger, the smoother.

    Returns:
        The regression, in float32 (float64 if support is), differentiable in support. The system is solved in float64.

    Raises:
        ValueError: shapes do not match, a label is not a class, a class has no shot, embeddings are not finite, or
            penalty is not above 0.

    >>> shots = torch.eye(3)[:, None]  # three classes of one node each
    >>> fit_ridge(shots, torch.arange(3), penalty=0.01).logits(shots).round(decimals=2)
    tensor([[0.9900, 0.0000, 0.0000],
            [0.0000, 0.9900, 0.0000],
            [0.0000, 0.0000, 0.9900]])

    Source: Bertinetto et al., Meta-learning with differentiable closed-form solvers (ICLR 2019), R2D2, on nodes.
    """
    if not 0 < penalty < torch.inf:
        raise ValueError(f"penalty must be above 0 and finite, got {penalty}; 1 is usual")
    if n_way is None:
        n_way = int(labels.max()) + 1 if labels.numel() else 0
    members = members_of(support, labels, n_way)  # (..., K, n_way)
    with torch.autocast(support.device.type, enabled=False):
        support = support if support.dtype == torch.float64 else support.float()
        if not support.isfinite().all():
            raise ValueError("support holds NaN or an infinite value; embeddings must be finite")
        shots, m, channels = support.shape[-3:]
        member = members.to(support)
        share = member / member.sum(-2, keepdim=True)  # (..., K, n_way), of sum 1 in each class
        weight = share.sum(-1) * shots / n_way  # (..., K) w of each node of a shot
        mean = (weight[..., None] * support.mean(-2)).mean(-2)  # (..., C)
        root = weight.sqrt()[..., None, None]  # (..., K, 1, 1)
        rows = ((support - mean[..., None, None, :]) * root).flatten(-3, -2)  # (..., N, C)
        targets = ((member - 1 / n_way)[..., None, :] * root).expand(*member.shape[:-1], m, n_way)
        targets = targets.flatten(-3, -2)  # (..., N, n_way)
        few = shots * m < channels
        gram = (rows @ rows.mT if few else rows.mT @ rows).double()
        gram.diagonal(dim1=-2, dim2=-1).add_(penalty)
        factor = torch.linalg.cholesky(gram)
        if few:
            coefficients = rows.mT @ torch.cholesky_solve(targets.double(), factor).to(rows)
        else:
            coefficients = torch.cholesky_solve((rows.mT @ targets).double(), factor).to(rows)
    return Ridge(mean, coefficients)


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

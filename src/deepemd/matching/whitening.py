"""Whitening: embeddings in which the differences within classes weigh as little as those between classes.

An encoder that has never seen the classes of a task spends much of its embedding on what varies inside each of them:
light, background, place in the image. The shots show how. Let x_k (k = 1 ... N) be all nodes of all shots, each in R^C,
c(k) the class of a node, m_c the mean node of class c, and m the mean of the class means. The scatter within classes is

    S = sum_k w_k (x_k - m_c(k)) (x_k - m_c(k))^T,        sum_k w_k = 1,

in which all classes have the same weight, however many shots they have. A node becomes

    x -> W (x - m),        W^T W = (S / s + 3 shrinkage I)^-1,        s = trace(S) / rank(S),

so that s is the mean of the non-zero eigenvalues of S. Few nodes show only some directions of variation, and those too
large: the shrinkage stands for all others. Directions in which nodes of one class differ are shortened, the others keep
their length. Any W with this product gives the same cosines, because only inner products of whitened nodes are ever
used; with the Cholesky factor L of the matrix, W = L^-1 needs no eigenvectors, whose gradient is infinite where
eigenvalues are equal.

One node of each class has no scatter. Then S = 0, and only the mean is taken away.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from deepemd.matching.shots import members_of

__all__ = ["Whitening", "whiten"]


class Whitening(NamedTuple):
    """The affine map of :func:`whiten`; call it with nodes (..., K, n, C) of the same episodes."""

    mean: Tensor
    """(..., C) m, the mean of the class means."""
    root: Tensor
    """(..., C, C) W, lower triangular."""

    def __call__(self, nodes: Tensor) -> Tensor:
        """Whiten nodes (..., K, n, C), of images of any kind; returns the same shape and dtype."""
        centred = nodes - self.mean[..., None, None, :].to(nodes)
        whitened = centred.flatten(-3, -2) @ self.root.mT.to(nodes)  # (..., K n, C)
        return whitened.view(nodes.shape)


def whiten(support: Tensor, labels: Tensor, *, n_way: int | None = None, shrinkage: float = 0.3) -> Whitening:
    """Fit a whitening to the shots of each episode; see the top of this file for its derivation.

    Match whitened queries with whitened shots: ``emd_logits(w(query), class_means(w(support), labels, n_way))``.

    Args:
        support: (..., K, m, C) float, the node sets of the shots; leading dimensions are episodes. Nodes of length 1
            are best, see :func:`deepemd.matching.power_transform`.
        labels: (..., K) int64, their classes, 0 to n_way - 1; each class at least once, not necessarily equally often.
        n_way: number of classes; by default one more than the largest label.
        shrinkage: how much all directions are taken to vary, in units of the variation that the shots show. 0.3 suits
            five shots, 1 suits one. The larger, the closer to nodes without whitening.

    Returns:
        The whitening, in float32 (float64 if support is), differentiable in support. The matrix is factored in float64.

    Raises:
        ValueError: shapes do not match, a label is not a class, a class has no shot, embeddings are not finite, or
            shrinkage is not above 0.

    >>> shots = torch.tensor([[[1.0, 9.0], [1.0, -9.0]], [[-1.0, 9.0], [-1.0, -9.0]]])  # classes differ in channel 0
    >>> whitened = whiten(shots, torch.tensor([0, 1]))(shots)
    >>> (whitened / whitened[0, 0, 0]).round(decimals=2)[:, 0]  # where nodes of one class differ, it is shortened
    tensor([[ 1.0000,  6.2400],
            [-1.0000,  6.2400]])

    Source: the scatter within classes of Fisher's discriminant (1936), shrunk as in Friedman, Regularized discriminant
        analysis (1989); for few-shot learning, Bateni et al., Improved few-shot visual classification (CVPR 2020).
    """
    if not 0 < shrinkage < torch.inf:
        raise ValueError(f"shrinkage must be above 0 and finite, got {shrinkage}; 0.3 is usual")
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
        means = share.mT @ support.mean(-2)  # (..., n_way, C)
        of_shot = means.gather(-2, labels.long()[..., None].expand(*labels.shape, channels))  # (..., K, C)
        weight = share.sum(-1) / (n_way * m)  # (..., K) w of each node of a shot; their sum is 1
        spread = (support - of_shot[..., None, :]) * weight.sqrt()[..., None, None]  # (..., K, m, C)
        spread = spread.flatten(-3, -2)  # (..., K m, C)
        scatter = (spread.mT @ spread).double()  # (..., C, C)
        rank = max(min(shots * m - n_way, channels), 1)
        size = scatter.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None] / rank  # (..., 1, 1)
        scaled = scatter / torch.where(size > 0, size, 1)
        matrix = scaled + 3 * shrinkage * torch.eye(channels, dtype=torch.float64, device=support.device)
        factor = torch.linalg.cholesky(matrix)
        unit = torch.eye(channels, dtype=torch.float64, device=support.device)
        root = torch.linalg.solve_triangular(factor, unit, upper=False)
    return Whitening(means.mean(-2), root.to(support.dtype))

"""Whitening: embeddings in which the differences within classes weigh as little as those between classes.

An encoder that has never seen the classes of a task spends much of its embedding on what varies inside each of them:
light, background, place in the image. The shots show how. Let x_k (k = 1 ... N) be all nodes of all shots, each in R^C,
c(k) the class of a node, m_c the mean node of class c, and m the mean of the class means. The scatter within classes is

    S = sum_k (x_k - m_c(k)) (x_k - m_c(k))^T / N,

and a node becomes

    x -> W (x - m),        W^T W = (S / s + 3 shrinkage I)^-1,        s = trace(S) / rank(S),

so that s is the mean of the non-zero eigenvalues of S. Few nodes show only some directions of variation, and those too
large: the shrinkage stands for all others. Directions in which nodes of one class differ are shortened, the others keep
their length. Any W with this product gives the same cosines, because only inner products of whitened nodes are used.
With the Cholesky factor L of the matrix, L^-1 needs no eigenvectors, whose gradient is infinite where eigenvalues are
equal. The head subtracts from each node its mean over the channels. So that this changes nothing, L^-1 (x - m) gets a
further channel of 0 and is reflected by P = I - 2 v v^T, which maps that channel to the direction of equal channels:
v is e_(C+1) - 1 / sqrt(C+1), of length 1, and W has C + 1 rows.

One node of each class has no scatter. Then S = 0, and only the mean is taken away.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from deepemd.matching.moments import NodeMoments

__all__ = ["Whitening", "whiten", "whitening_from"]

_NONE = 1e-6  # scatter, relative to the squared nodes, that is only rounding


class Whitening(NamedTuple):
    """The affine map of :func:`whiten`; call it with nodes (..., K, n, C) of the same episodes."""

    mean: Tensor
    """(..., C) m, the mean of the class means."""
    root: Tensor
    """(..., C + 1, C) W."""

    def __call__(self, nodes: Tensor) -> Tensor:
        """Whiten nodes (..., K, n, C), of images of any kind; returns (..., K, n, C + 1), with a mean channel of 0."""
        centred = nodes - self.mean[..., None, None, :].to(nodes)
        whitened = centred.flatten(-3, -2) @ self.root.mT.to(nodes)  # (..., K n, C + 1)
        found: Tensor = whitened.unflatten(-2, nodes.shape[-3:-1])
        return found


def whiten(support: Tensor, labels: Tensor, *, n_way: int | None = None, shrinkage: float = 0.3) -> Whitening:
    """Fit a whitening to the shots of each episode; see the top of this file for its derivation.

    Match whitened queries with whitened shots: ``emd_logits(w(query), class_means(w(support), labels, n_way))``.

    Args:
        support: (..., K, m, C) float, the node sets of the shots; leading dimensions are episodes. Nodes of length 1
            are best, see :func:`deepemd.nodes.power_transform`.
        labels: (..., K) int64, their classes, 0 to n_way - 1; each class at least once, not necessarily equally often.
        n_way: number of classes; by default one more than the largest label.
        shrinkage: how much all directions are taken to vary, in units of the variation that the shots show. The larger,
            the closer to nodes without whitening: try 1 where classes are close to those of the encoder's training.

    Returns:
        The whitening, in float32 (float64 if support is), differentiable in support. Moments are added in float64.

    Raises:
        ValueError: shapes do not match, a label is not a class, a class has no shot, embeddings are not finite, or
            shrinkage is not above 0.

    >>> shots = torch.tensor([[[1.0, 9.0], [1.0, -9.0]], [[-1.0, 9.0], [-1.0, -9.0]]])  # classes differ in channel 0
    >>> whitened = whiten(shots, torch.tensor([0, 1]))(shots).flatten(0, 1)
    >>> torch.nn.functional.cosine_similarity(shots.flatten(0, 1)[0], shots.flatten(0, 1), dim=-1).round(decimals=2)
    tensor([ 1.0000, -0.9800,  0.9800, -1.0000])
    >>> torch.nn.functional.cosine_similarity(whitened[0], whitened, dim=-1).round(decimals=2)
    tensor([ 1.0000, -0.9200,  0.9200, -1.0000])

    Source: the scatter within classes of Fisher's discriminant (1936), shrunk as in Friedman, Regularized discriminant
        analysis (1989); for few-shot learning, Bateni et al., Improved few-shot visual classification (CVPR 2020).
    """
    dtype = torch.float64 if support.dtype == torch.float64 else torch.float32
    return whitening_from(NodeMoments.of(support, labels, n_way), shrinkage=shrinkage, dtype=dtype)


def whitening_from(moments: NodeMoments, *, shrinkage: float = 0.3, dtype: torch.dtype = torch.float32) -> Whitening:
    """Fit a whitening to the moments of the shots' nodes; see :func:`whiten`."""
    if not 0 < shrinkage < torch.inf:
        raise ValueError(f"shrinkage must be above 0 and finite, got {shrinkage}; 0.3 is usual")
    n_way, channels = moments.total.shape[-2:]
    scatter, nodes = moments.scatter_within(), moments.nodes.sum(-1)  # (..., C, C), (...)
    rank = (nodes - n_way).clamp(1, channels)
    size, squares = (x.diagonal(dim1=-2, dim2=-1).sum(-1) for x in (scatter, moments.square))  # (...)
    varies = size > _NONE * squares
    scale = torch.where(varies, rank / torch.where(varies, size, 1), 0)
    unit = torch.eye(channels, dtype=dtype, device=scatter.device)
    matrix = (scatter * scale[..., None, None]).to(dtype) + 3 * shrinkage * unit  # well conditioned, by the shrinkage
    root = torch.linalg.solve_triangular(torch.linalg.cholesky(matrix), unit, upper=False)  # (..., C, C)
    return Whitening(moments.mean.to(dtype), _reflected(root))


def _reflected(root: Tensor) -> Tensor:
    """Add a row of zeros to (..., C, C) and reflect the columns, so that each sums to 0: (..., C + 1, C)."""
    root = F.pad(root, (0, 0, 0, 1))
    rows = root.shape[-2]
    v = root.new_full((rows,), -(rows**-0.5))
    v[-1] += 1
    v = F.normalize(v, dim=0)
    return root - 2 * v[:, None] * (v @ root)[..., None, :]

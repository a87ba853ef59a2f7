"""First and second moments of the nodes of an episode: all that whitening and ridge regression need to know of them."""

from typing import NamedTuple, Self

import torch
from torch import Tensor

from deepemd.matching.shots import members_of

__all__ = ["NodeMoments"]


class NodeMoments(NamedTuple):
    """Moments of the nodes of n_way classes; leading dimensions are episodes.

    They are sums, so photos can be added and taken away without touching the others: see :meth:`without`.
    """

    square: Tensor
    """(..., C, C) sum of x x^T over all nodes x."""
    total: Tensor
    """(..., n_way, C) sum of the nodes of each class."""
    nodes: Tensor
    """(..., n_way) number of nodes of each class."""

    @classmethod
    def of(cls, support: Tensor, labels: Tensor, n_way: int | None = None) -> Self:
        """Return the moments of node sets.

        Args:
            support: (..., K, m, C) float, node sets of the shots.
            labels: (..., K) int64, their classes, 0 to n_way - 1; each class at least once.
            n_way: number of classes; by default one more than the largest label.

        Raises:
            ValueError: shapes do not match, a label is not a class, a class has no shot, or embeddings are not finite.
        """
        if n_way is None:
            n_way = int(labels.max()) + 1 if labels.numel() else 0
        members = members_of(support, labels, n_way)  # (..., K, n_way)
        return cls._of(support, members)

    @classmethod
    def _of(cls, support: Tensor, members: Tensor) -> Self:
        with torch.autocast(support.device.type, enabled=False):
            support = support if support.dtype == torch.float64 else support.float()
            if not support.isfinite().all():
                raise ValueError("support holds NaN or an infinite value; embeddings must be finite")
            rows = support.flatten(-3, -2)  # (..., K m, C)
            member = members.to(support)
            square = (rows.mT @ rows).double()
            total = (member.mT @ support.sum(-2)).double()
            return cls(square, total, member.sum(-2).double() * support.shape[-2])

    def without(self, support: Tensor, labels: Tensor) -> Self:
        """Return the moments without some of the node sets, support (K, m, C) with their labels (K,)."""
        members = torch.nn.functional.one_hot(labels, self.nodes.shape[-1])
        held = self._of(support, members)
        return type(self)(self.square - held.square, self.total - held.total, self.nodes - held.nodes)

    @property
    def means(self) -> Tensor:
        """The mean node of each class, (..., n_way, C)."""
        return self.total / self.nodes[..., None]

    @property
    def mean(self) -> Tensor:
        """The mean of the class means, (..., C): classes of many shots weigh as much as those of few."""
        return self.means.mean(-2)

    def scatter_within(self) -> Tensor:
        """Return the sum of (x - m)(x - m)^T over all nodes x, where m is the mean node of their class, (..., C, C)."""
        return self.square - (self.total.mT @ self.means)

    def scatter(self) -> Tensor:
        """Return the sum of (x - m)(x - m)^T over all nodes x, where m is :attr:`mean`, (..., C, C)."""
        m, count = self.mean, self.nodes.sum(-1)[..., None]
        apart = (
            self.total.sum(-2) - count * m / 2
        )  # (..., C): the sum of x m^T + m x^T - m m^T is apart m^T + m apart^T
        columns, rows = torch.stack((apart, m), -1), torch.stack((m, apart), -1)
        return self.square - columns @ rows.mT

"""Divide the photos of the classes into groups that are left out in turn.

Photos of one series, such as a burst of a camera, help each other: with one of them left out, the others give it away,
and new photos seem easier to classify than they are. So photos of a class that look like one series are left out
together.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from deepemd.classifier.support import Support
from deepemd.model import DeepEMD

__all__ = ["folds_of", "series_of"]

_FOLDS = 5  # groups; with fewer series of each class, as many as the class of the most has
_ONE_SERIES = 0.94  # cosine of mean nodes: 95 % of simulated bursts are above it, 97 % of separate photos below
_MEASURED = 0.5  # power of the nodes for which this was measured


def series_of(model: DeepEMD, support: Support) -> Tensor:
    """Return the series of each example, (K,) int64, numbered from 0 within its class.

    Two photos are of one series if their mean nodes are nearly the same, or if others link them. For encoders for which
    this similarity is not known, each photo is a series of its own.
    """
    series = torch.zeros_like(support.labels)
    for label in range(len(support.count)):
        mine = (support.labels == label).nonzero()[:, 0]
        if model.power != _MEASURED:
            series[mine] = torch.arange(len(mine))
            continue
        means = F.normalize(support.nodes[mine].mean(1), dim=-1)
        linked = means @ means.mT > _ONE_SERIES
        first = torch.arange(len(mine))  # the first photo of the series of each
        for _ in mine:
            following = torch.where(linked, first, len(mine)).amin(1).minimum(first)
            if torch.equal(following, first):
                break
            first = following
        series[mine] = torch.unique(first, return_inverse=True)[1]
    return series


def folds_of(support: Support, series: Tensor) -> list[Tensor]:
    """Return the examples of each fold, as indices.

    A fold holds every so-many-th series of each class, and never all photos of a class. Classes of one photo or one
    series are in no fold.

    Args:
        support: the support set.
        series: (K,) the series of each example, see :func:`series_of`.
    """
    turn = torch.full_like(series, -1)
    number = 0
    for label, count in enumerate(support.count.tolist()):
        mine = support.labels == label
        several = int(series[mine].max()) + 1 if bool(mine.any()) else 0
        if several > 1 or (several == 1 and count > int(mine.sum())):
            turn[mine] = series[mine]
            number = max(number, several)
    number = min(_FOLDS, number)
    folds = [((turn >= 0) & (turn % max(number, 2) == fold)).nonzero()[:, 0] for fold in range(max(number, 2))]
    return [fold for fold in folds if len(fold)]

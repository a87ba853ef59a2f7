"""Divide the photos of the classes into groups that are left out in turn."""

import torch
from torch import Tensor

from deepemd.classifier.support import Support

__all__ = ["folds_of"]

_FOLDS = 5  # groups of photos; with fewer photos of each class, as many as the largest class has


def folds_of(support: Support) -> list[Tensor]:
    """Return the examples of each fold, as indices.

    A fold holds every so-many-th photo of each class; at least one photo of a class is never in it. A class of one
    photo is in no fold.
    """
    turn = torch.full_like(support.labels, -1)  # place of a photo among those of its class
    for label, count in enumerate(support.count.tolist()):
        mine = support.labels == label
        if count > 1:
            turn[mine] = torch.arange(int(mine.sum()))
    number = min(_FOLDS, int(turn.max()) + 1) if len(turn) else 0
    folds = [((turn >= 0) & (turn % max(number, 1) == fold)).nonzero()[:, 0] for fold in range(number)]
    return [fold for fold in folds if len(fold)]

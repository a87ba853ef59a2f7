"""Remove single photos from a fitted classifier."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from deepemd.classifier.classifier import PhotoClassifier
from deepemd.classifier.support import Support

__all__ = ["remove_photos"]


def remove_photos(classifier: PhotoClassifier, places: Iterable[int]) -> list[Any]:
    """Remove photos of the support set; a class without any photo left is removed too.

    The other classes do not change. The temperature and the threshold are fitted again when photos are added, or by
    :meth:`PhotoClassifier.calibrate`.

    Args:
        classifier: a fitted classifier.
        places: which of its examples, ``classifier.support_.examples``.

    Returns:
        The labels of the classes that were removed.
    """
    support = without_examples(classifier.support_, set(places))
    classes, removed = classifier.classes_, []
    for place in reversed((support.count == 0).nonzero()[:, 0].tolist()):
        removed.append(classes.tolist()[place])
        support, classes = support.without(place), np.delete(classes, place)
    classifier.support_, classifier.classes_ = support, classes
    return removed[::-1]


def without_examples(support: Support, places: set[int]) -> Support:
    """Return a support set without some of its examples; a class may then have no photo."""
    gone = torch.tensor([k in places for k in range(len(support.examples))], dtype=torch.bool)
    total, labels = support.total.clone(), support.labels[gone]
    total.index_add_(0, labels, support.nodes[gone].double(), alpha=-1)
    return replace(
        support,
        total=total,
        count=support.count - labels.bincount(minlength=len(support.count)),
        nodes=support.nodes[~gone],
        labels=support.labels[~gone],
        examples=tuple(example for k, example in enumerate(support.examples) if k not in places),
    )

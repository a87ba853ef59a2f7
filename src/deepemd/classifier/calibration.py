"""Calibration from a few photos: the temperature of the probabilities, and the threshold for unknown images.

Every photo of the support set is classified by the others (leave one out), so it is new to the classifier, and its
label is known.
"""

import math
from collections.abc import Iterable
from numbers import Real

import torch
from torch import Tensor

from deepemd.data.class_names import look_alike, visible
from deepemd.errors import InputError

__all__ = ["TEMPERATURE", "fit_temperature", "refuse_class_named", "unknown_notice", "unknown_threshold"]

TEMPERATURE = 30.0
"""The default temperature: the median of those fitted to the queries of 200 episodes of base classes."""
_SPREAD = 0.56  # standard deviation of the logarithm of these temperatures


def fit_temperature(similarity: Tensor, labels: Tensor, *, prior: float = TEMPERATURE) -> float:
    """Return the temperature T for which softmax(T * similarity) fits the labels best, pulled towards a prior.

    If all photos are classified correctly, as a few often are, the likelihood alone would make T infinite. So log T has
    a normal prior around log `prior`, which weighs as much as a few photos.

    Args:
        similarity: (K, M) 1 - EMD of each photo with each class, where its own class is taken without it.
        labels: (K,) int64, the class of each photo.
        prior: the T without any photos.

    Returns:
        T, above 0.

    >>> certain = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).repeat(20, 1)
    >>> unsure = torch.tensor([[0.6, 0.5], [0.6, 0.5]]).repeat(20, 1)
    >>> labels = torch.arange(40) % 2
    >>> fit_temperature(certain, labels) > 20 > fit_temperature(unsure, labels)
    True

    Source: Guo et al., On calibration of modern neural networks (ICML 2017), section 4.2; the prior is ours.
    """
    grid = torch.logspace(-1, 3, 401, dtype=torch.float64)  # (G,) steps of 2.3 %
    own = similarity.double().gather(1, labels[:, None])  # (K, 1)
    margins = similarity.double() - own  # (K, M), 0 in the own class
    if not len(margins):
        return prior
    losses = torch.stack([(t * margins).logsumexp(1).sum() for t in grid])  # (G,) negative log likelihood
    losses += (grid.log() - math.log(prior)).square() / (2 * _SPREAD**2)
    return float(grid[losses.argmin()])


def unknown_threshold(similarity: Tensor, share: float) -> float:
    """Return the similarity below which an image resembles none of the classes.

    On average over draws of photos, and whatever their distribution, at most this share of the photos that belong to a
    class falls below the threshold. With n photos, the threshold is the floor(share * (n + 1))-th smallest of their
    similarities to their own class. Fewer than 1 / share - 1 photos are too few to call any image unknown.

    Args:
        similarity: (n,) 1 - EMD of each photo with its own class, taken without it.
        share: the share of known photos that may be called unknown; 0.05 is usual.

    Returns:
        The threshold; minus infinity if there are too few photos.

    Raises:
        InputError: `share` is not between 0 and 1.

    >>> round(unknown_threshold(torch.linspace(0.5, 0.88, 20), share=0.1), 2)
    0.52

    Source: Vovk, Gammerman, Shafer: Algorithmic learning in a random world (2005), conformal prediction.
    """
    if not isinstance(share, Real) or not 0 < share < 1:
        raise InputError(
            f"unknown is {share!r}: it is the share of known photos that may be called unknown, between 0 and 1"
        )
    place = _place(share, len(similarity))
    return float(similarity.sort().values[place - 1]) if place else -math.inf


def unknown_notice(share: float, photos: int, label: object) -> str:
    """Return why no image can be labelled unknown, and what is needed; empty if there are enough photos.

    Args:
        share: as for :func:`unknown_threshold`.
        photos: the number of photos of which a similarity is known: those of classes with at least two photos.
        label: the label of unknown images.

    >>> unknown_notice(0.05, 19, "unknown")
    ''
    >>> print(unknown_notice(0.05, 15, "unknown"))  # doctest: +ELLIPSIS
    unknown is 0.05, which takes at least 19 photos ... Add photos, or set unknown to 0.063 or more
    """
    if _place(share, photos):
        return ""
    needed = max(0, math.ceil(1 / share) - 2)  # rounding may be off by one
    while not _place(share, needed):
        needed += 1
    larger = f", or set unknown to {math.ceil(1000 / (photos + 1)) / 1000:g} or more" if photos > 1 else ""
    return (
        f"unknown is {share:g}, which takes at least {needed:,} photos in classes of two or more, and there are"
        f" {photos:,}: no image is labelled {label!r}. Add photos{larger}"
    )


def refuse_class_named(unknown_label: object, classes: Iterable[object]) -> None:
    """Raise an error if a class has the label of unknown images, or one that looks like it.

    Raises:
        InputError: a class has this label.
    """
    for label in classes:
        if look_alike(label, unknown_label):
            shown = f"'{visible(label)}'" if isinstance(label, str) else repr(label)
            raise InputError(
                f"a class is named {shown}, and unknown images are labelled {unknown_label!r}: rename the class"
                " (or pass another unknown_label in Python)"
            )


def _place(share: float, photos: int) -> int:
    """Return which of the sorted similarities is the threshold, counted from 1; 0 if there are too few photos."""
    return math.floor(share * (photos + 1))

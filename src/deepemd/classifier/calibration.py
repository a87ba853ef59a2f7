"""Calibration from a few photos: the temperature of the probabilities, and the threshold for unknown images.

Every photo of the support set is classified by the others, so it is new to the classifier, and its label is known.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from deepemd.data.class_names import look_alike, visible
from deepemd.errors import InputError

__all__ = [
    "conformal_threshold",
    "coverage_notice",
    "fit_temperature",
    "prior_temperature",
    "refuse_class_named",
    "unknown_notice",
]

# For each way of comparison, the median of the temperatures that were fitted to the queries of 5-way episodes of the
# classes that settings are chosen on; with 20 classes it is about 1.4 times as large.
_PRIORS = {"none": 22.0, "whiten": 24.0, "ridge": 17.0}
_ENTRIES = 4_000_000  # numbers in memory at a time
_SPREAD = 0.56  # standard deviation of the logarithm of these temperatures


def prior_temperature(way: str, n_way: int) -> float:
    """Return the temperature without any photos, for a way of comparison ("none", "whiten", "ridge") of n_way classes.

    >>> round(prior_temperature("ridge", 5), 1), round(prior_temperature("ridge", 20), 1)
    (17.0, 24.0)
    """
    return float(_PRIORS[way] * (n_way / 5) ** 0.25)


def fit_temperature(similarity: Tensor, labels: Tensor, *, prior: float) -> float:
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
    >>> fit_temperature(certain, labels, prior=30) > 20 > fit_temperature(unsure, labels, prior=30)
    True

    Source: Guo et al., On calibration of modern neural networks (ICML 2017), section 4.2; the prior is ours.
    """
    grid = torch.logspace(-1, 3, 401, dtype=torch.float64)  # (G,) steps of 2.3 %
    own = similarity.double().gather(1, labels[:, None])  # (K, 1)
    margins = similarity.double() - own  # (K, M), 0 in the own class
    if not len(margins):
        return prior
    step = max(1, _ENTRIES // margins.numel())
    losses = torch.cat(
        [(t[:, None, None] * margins).logsumexp(2).sum(1) for t in grid.split(step)]
    )  # (G,) of the labels
    losses += (grid.log() - math.log(prior)).square() / (2 * _SPREAD**2)
    return float(grid[losses.argmin()])


def conformal_threshold(scores: Tensor, share: float) -> float:
    """Return the score that new photos fall below with at most this probability.

    On average over draws of photos, and whatever their distribution, at most this share of new photos of the same kind
    has a lower score. With n photos, the threshold is the floor(share * (n + 1))-th smallest of their scores. Fewer
    than 1 / share - 1 photos are too few for any threshold.

    Args:
        scores: (n,) of each photo with its own class, taken without it: a similarity or a probability.
        share: between 0 and 1.

    Returns:
        The threshold; minus infinity if there are too few photos.

    >>> round(conformal_threshold(torch.linspace(0.5, 0.88, 20), share=0.1), 2)
    0.52

    Source: Vovk, Gammerman, Shafer: Algorithmic learning in a random world (2005), conformal prediction.
    """
    place = _place(share, len(scores))
    return float(scores.sort().values[place - 1]) if place else -math.inf


def unknown_notice(share: float, photos: int, label: object) -> str:
    """Return why no image can be labelled unknown, and what is needed; empty if there are enough photos.

    Args:
        share: the share of photos of known classes that may be labelled unknown.
        photos: the number of photos of which a similarity is known: those of classes with at least two photos.
        label: the label of unknown images.

    >>> unknown_notice(0.05, 19, "unknown")
    ''
    >>> print(unknown_notice(0.05, 15, "unknown"))  # doctest: +ELLIPSIS
    unknown is 0.05, which takes at least 19 photos ... Add photos, or set unknown to 0.063 or more
    """
    if _place(share, photos):
        return ""
    needed = _needed(share)
    larger = f", or set unknown to {math.ceil(1000 / (photos + 1)) / 1000:g} or more" if photos > 1 else ""
    return (
        f"unknown is {share:g}, which takes at least {needed:,} photos in classes of two or more, and there are"
        f" {photos:,}: no image is labelled {label!r}. Add photos{larger}"
    )


def coverage_notice(coverage: float, photos: int) -> str:
    """Return why prediction sets hold all classes, and what is needed; empty if there are enough photos.

    >>> coverage_notice(0.9, 9)
    ''
    >>> print(coverage_notice(0.95, 15))  # doctest: +ELLIPSIS
    coverage is 0.95, which takes at least 19 photos ... Add photos, or lower the coverage to 0.937
    """
    if _place(1 - coverage, photos):
        return ""
    smaller = f", or lower the coverage to {math.floor(1000 * photos / (photos + 1)) / 1000:g}" if photos > 1 else ""
    return (
        f"coverage is {coverage:g}, which takes at least {_needed(1 - coverage):,} photos in classes of two or more,"
        f" and there are {photos:,}: all classes are in every prediction set. Add photos{smaller}"
    )


def refuse_class_named(reserved: object, classes: Iterable[object], kind: str) -> None:
    """Raise an error if a class has the label of unknown or unsure images, or one that looks like it.

    Args:
        reserved: the label of such images.
        classes: the labels of the classes.
        kind: "unknown" or "unsure".

    Raises:
        InputError: a class has this label.
    """
    for label in classes:
        if look_alike(label, reserved):
            shown = f"'{visible(label)}'" if isinstance(label, str) else repr(label)
            raise InputError(
                f"a class is named {shown}, and {kind} images are labelled {reserved!r}: rename the class"
                f" (or pass another {kind}_label in Python)"
            )


def _place(share: float, photos: int) -> int:
    """Return which of the sorted similarities is the threshold, counted from 1; 0 if there are too few photos."""
    return math.floor(share * (photos + 1) + 1e-9)  # 1 - 0.95 is a little more than 0.05


def _needed(share: float) -> int:
    """Return the smallest number of photos for which there is a threshold."""
    needed = max(0, math.ceil(1 / share) - 2)  # rounding may be off by one
    while not _place(share, needed):
        needed += 1
    return needed

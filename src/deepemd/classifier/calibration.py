"""Calibration from a few photos: the temperature of the probabilities, and when an image resembles no class.

Every photo of the support set is classified by the others (leave one out). So the similarities are those of photos
that the classifier has not seen, and their labels are known.
"""

import math

import torch
from torch import Tensor

from deepemd.errors import InputError

__all__ = ["TEMPERATURE", "fit_temperature", "unknown_threshold"]

TEMPERATURE = 30.0
"""The default: the median of the temperatures fitted to the queries of 200 episodes of base classes."""
_SPREAD = 0.56  # standard deviation of the logarithm of these temperatures


def fit_temperature(similarity: Tensor, labels: Tensor, *, prior: float = TEMPERATURE) -> float:
    """Return the T whose softmax(T * similarity) gives the labels the largest probability, drawn towards a prior.

    Five photos a class are few: where all of them are classified correctly, the likelihood alone would make T infinite.
    So the logarithm of T has a normal prior around that of `prior`, which weighs as much as a few photos.

    Args:
        similarity: (K, M) 1 - EMD of each photo with each class, its own class without it.
        labels: (K,) int64, the class of each photo.
        prior: the T for no photos.

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

    Of photos that do belong to a class, at most this share falls below it (in the mean over draws of photos, whatever
    their distribution): with n photos, it is the floor(share * (n + 1))-th smallest of their similarities to their own
    class. With fewer than 1 / share - 1 photos there is no such photo, and no image can be called unknown.

    Args:
        similarity: (n,) 1 - EMD of each photo with its own class without it.
        share: the share of known photos that may be called unknown; 0.05 is usual.

    Returns:
        The threshold; minus infinity where there are too few photos.

    Raises:
        InputError: a share outside of 0 to 1.

    >>> round(unknown_threshold(torch.linspace(0.5, 0.88, 20), share=0.1), 2)
    0.52

    Source: Vovk, Gammerman, Shafer: Algorithmic learning in a random world (2005), conformal prediction.
    """
    if not 0 < share < 1:
        raise InputError(
            f"unknown is {share}: it is the share of known photos that may be called unknown, between 0 and 1"
        )
    place = math.floor(share * (len(similarity) + 1))
    return float(similarity.sort().values[place - 1]) if place else -math.inf

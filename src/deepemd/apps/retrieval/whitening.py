"""Whiten the nodes of an index by its own images: what varies among images of one thing counts less.

The map is that of :mod:`deepemd.matching.whitening`. Where the folders of the images are classes, it is fitted to
them. Elsewhere nobody knows which images show the same thing, but an image and those that resemble it most often do: so
each image and its nearest neighbours count as a class of their own.

The scatter of all nodes around their mean, without classes, is no substitute: it holds the differences between things
too, so it gains less, and makes a search worse if it is shrunk little (docs/retrieval.md).
"""

from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepemd.errors import InputError
from deepemd.matching.cost import unit_centred
from deepemd.matching.whitening import Whitening, whiten

__all__ = ["SHRINKAGE", "Groups", "fit_whitening", "open_whitening", "whitening_array"]

Groups = Literal["classes", "neighbours"]
"""Which images count as images of one thing."""
SHRINKAGE: dict[Groups, float] = {"classes": 0.03, "neighbours": 0.1}
"""The shrinkage for either, chosen on half of the classes of real photos; see docs/retrieval.md."""
_NEIGHBOURS = 2  # of an image; with more, too many show other things
_MAX_NODES = 40_000  # of a large index, those of evenly spaced images: enough for some thousand channels
_TOGETHER = 256  # images whose neighbours are looked for at a time


def fit_whitening(
    nodes: Tensor, labels: NDArray[np.int64], groups: Groups, *, shrinkage: float | None = None
) -> Whitening:
    """Fit the map to the images of an index.

    Args:
        nodes: (N, n, C) float32.
        labels: (N,) the class of each image; below 0 for none.
        groups: "classes" or "neighbours".
        shrinkage: see :func:`deepemd.matching.whiten`; by default that of :data:`SHRINKAGE`.

    Raises:
        InputError: `groups` is neither of them; or it is "classes", and the images are not in at least two classes, one
            of them with two images.
    """
    if groups not in get_args(Groups):
        raise InputError(f"whiten is {groups!r}: choose one of {', '.join(get_args(Groups))}")
    if groups == "neighbours":
        chosen = _neighbours(nodes)  # (G, k + 1)
        places, ids = chosen.flatten(), torch.arange(len(chosen)).repeat_interleave(chosen.shape[1])
    else:
        found, counts = np.unique(labels[labels >= 0], return_counts=True)
        if len(found) < 2 or counts.max() < 2:
            raise InputError(
                "whiten is 'classes', which needs at least two folders of images, one of them with two images: choose"
                " 'neighbours', or leave it out"
            )
        places = torch.from_numpy(np.flatnonzero(labels >= 0))
        places = places[_spread(len(places), _MAX_NODES // nodes.shape[1])]
        ids = torch.from_numpy(np.unique(labels[places.numpy()], return_inverse=True)[1])
    return whiten(nodes[places], ids, shrinkage=SHRINKAGE[groups] if shrinkage is None else shrinkage)


def _neighbours(nodes: Tensor) -> Tensor:
    """Return some images, each with its nearest neighbours, by the cosine of pooled embeddings: int64 (G, k + 1)."""
    units = unit_centred(nodes.mean(1))  # (N, C)
    some = _spread(len(units), _MAX_NODES // (nodes.shape[1] * (_NEIGHBOURS + 1)))
    count = min(_NEIGHBOURS, len(units) - 1)
    rows = []
    for block in some.split(_TOGETHER):
        cosines = units[block] @ units.T  # (B, N)
        others = cosines.scatter(1, block[:, None], -torch.inf).topk(count, dim=1).indices  # (B, k)
        rows.append(torch.cat((block[:, None], others), dim=1))
    return torch.cat(rows)


def _spread(length: int, most: int) -> Tensor:
    """Return evenly spaced places, `most` of them or all: int64."""
    return torch.linspace(0, length - 1, min(length, max(1, most)), dtype=torch.float64).long()


def whitening_array(whitening: Whitening) -> NDArray[np.float32]:
    """Return the map as one array (C + 2, C): the mean and, below it, the matrix (C + 1, C)."""
    return torch.cat([whitening.mean[None], whitening.root]).float().numpy()


def open_whitening(path: Path, array: np.ndarray, channels: int) -> Whitening:
    """Restore the map from :func:`whitening_array`.

    Args:
        path: the file, for messages.
        array: its content.
        channels: channels C of nodes that are not whitened.

    Raises:
        InputError: it is not such an array.
    """
    if array.dtype != np.float32 or array.shape != (channels + 2, channels) or not np.isfinite(array).all():
        raise InputError(f"{path}: damaged, no whitening of {channels} channels ({array.dtype}, {array.shape})")
    rows = torch.from_numpy(np.array(array))
    return Whitening(rows[0], rows[1:])

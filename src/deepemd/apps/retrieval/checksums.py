"""Check sums of an index, one for each image: a query reads and verifies the nodes of its candidates, and no others."""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

__all__ = ["node_checks", "sampled"]

_MAX_ROWS, _MAX_BYTES = 4096, 64_000_000  # verified when an index is opened, in about 0.05 s


def node_checks(nodes: np.ndarray, images: Iterable[int]) -> NDArray[np.uint64]:
    """Return a check sum for the nodes of each of some images.

    It covers the place of the image, so that nodes in another order do not fit; and their type and shape.

    Args:
        nodes: (N, n, C) the nodes of all images.
        images: K places of images.

    Returns:
        (K,) the first 64 bits of a sha256 each.

    >>> nodes = np.zeros((2, 3, 4), np.float16)
    >>> len(set(node_checks(nodes, [0, 1]).tolist()))
    2
    """
    kind = f" {nodes.dtype.str} {nodes.shape[1:]}"
    digests = (
        hashlib.sha256(f"{i}{kind}".encode() + np.ascontiguousarray(nodes[i]).tobytes()).digest()[:8] for i in images
    )
    return np.frombuffer(b"".join(digests), "<u8")


def sampled(nodes: np.ndarray) -> NDArray[np.int64]:
    """Return the places of the images to verify when an index is opened: all, or evenly spaced ones of a large index.

    Args:
        nodes: (N, n, C) the nodes of all images.
    """
    rows = min(_MAX_ROWS, max(1, _MAX_BYTES * len(nodes) // max(nodes.nbytes, 1)), len(nodes))
    return np.linspace(0, len(nodes) - 1, rows).astype(np.int64)

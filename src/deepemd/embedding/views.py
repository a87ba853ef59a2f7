"""What a model is to see of some images: the whole of each as a square, or the original and the patches to cut."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepemd.data import Images
from deepemd.data.decoding import shrink, to_square
from deepemd.data.images import Originals, pad
from deepemd.model import DeepEMD
from deepemd.nodes import FCN, Grid, Sampling

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["View", "look", "patches", "prepare", "squares", "view"]


class View(NamedTuple):
    """The input of :meth:`deepemd.DeepEMD.embed`."""

    images: Tensor  # uint8 (B, 3, H, W)
    boxes: Tensor | None = None  # int64 (B, M, 4), in pixels of `images`: for Grid and Sampling


def view(model: DeepEMD, images: Images, indices: NDArray[np.int64], *, seed: int = 0, training: bool = False) -> View:
    """Images of a split as a model is to see them.

    Args:
        model: its regions, `resize` and `max_side` say how.
        images: the split.
        indices: which images.
        seed: of the patches; in evaluation Sampling's are a function of (seed, index), the same in every episode.
        training: draw patches as in training, a function of (seed, place in the batch).
    """
    if isinstance(model.regions, FCN):
        return View(squares(images.pixels(model.resize), indices))
    originals = images.originals(indices.tolist(), model.max_side)
    return patches(model.regions, originals, seed=seed, indices=None if training else indices, training=training)


def prepare(model: DeepEMD, *splits: Images) -> None:
    """Make what :func:`view` reads, where it is made once for a whole split."""
    if isinstance(model.regions, FCN):
        for images in splits:
            images.pixels(model.resize)


def look(
    model: DeepEMD, pictures: "Sequence[Image]", *, seed: int = 0, indices: NDArray[np.int64] | None = None
) -> View:
    """Decoded RGB pictures, of any sizes, as a model is to see them in evaluation; seed and indices as for `view`."""
    if isinstance(model.regions, FCN):
        return View(torch.from_numpy(np.stack([to_square(picture, model.resize) for picture in pictures])))
    own = [(picture.height, picture.width) for picture in pictures]
    return patches(model.regions, pad([shrink(p, model.max_side) for p in pictures], own), seed=seed, indices=indices)


def squares(pixels: NDArray[np.uint8], indices: NDArray[np.int64]) -> Tensor:
    """Whole images by index, uint8 (B, 3, S, S), read in the order in which they lie on the disk."""
    unique, places = np.unique(indices, return_inverse=True)
    return torch.from_numpy(np.asarray(pixels[unique]))[torch.from_numpy(places)]


def patches(
    regions: Grid | Sampling,
    originals: Originals,
    *,
    seed: int = 0,
    indices: NDArray[np.int64] | None = None,
    training: bool = False,
) -> View:
    """Originals with the boxes of their patches, which are drawn in pixels of the originals and scaled like them.

    A box is rounded outwards, so that it holds a pixel also where an image was made smaller.
    """
    boxes = regions.boxes(originals.own, seed=seed, indices=indices, training=training)  # (B, M, 4)
    now, own = (np.tile(sides[:, None, ::-1], (1, 1, 2)) for sides in (originals.sizes, originals.own))  # (B, 1, 4)
    down, up = boxes * now // own, -(-boxes * now // own)
    scaled = np.concatenate((down[..., :2], up[..., 2:]), axis=-1)
    return View(torch.from_numpy(originals.pixels), torch.from_numpy(scaled))

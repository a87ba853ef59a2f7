"""The input of a model: each image as a square, or the original with the patches to cut from it."""

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
from deepemd.nodes import Grid, Sampling, WholeImage

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["View", "patches", "prepare", "scale_picture", "squares", "view", "view_pictures"]


class View(NamedTuple):
    """The input of :meth:`deepemd.DeepEMD.embed`."""

    images: Tensor  # uint8 (B, 3, H, W)
    boxes: Tensor | None = None  # int64 (B, M, 4), in pixels of `images`: for Grid and Sampling


def view(model: DeepEMD, images: Images, indices: NDArray[np.int64], *, seed: int = 0, training: bool = False) -> View:
    """Return images of a split as a model's input.

    Args:
        model: the model; its regions, `resize` and `max_side` set the form of the input.
        images: the split.
        indices: indices of the images.
        seed: seed of the patches; in evaluation Sampling's are a function of (seed, index), the same in every episode.
        training: draw patches as in training, as a function of (seed, place in the batch).
    """
    if isinstance(model.regions, WholeImage):
        return View(squares(images.pixels(model.resize), indices))
    originals = images.originals(indices.tolist(), model.max_side)
    return patches(model.regions, originals, seed=seed, indices=None if training else indices, training=training)


def prepare(model: DeepEMD, *splits: Images) -> None:
    """Decode the images that :func:`view` reads, if they are decoded once for a whole split."""
    if isinstance(model.regions, WholeImage):
        for images in splits:
            images.pixels(model.resize)


def scale_picture(model: DeepEMD, picture: "Image") -> "Image":
    """Return a picture at the size at which the model sees it: a square, or no larger than its `max_side`."""
    if isinstance(model.regions, WholeImage):
        return to_square(picture, model.resize)
    return shrink(picture, model.max_side)


def view_pictures(
    model: DeepEMD,
    pictures: "Sequence[Image]",
    *,
    sizes: Sequence[tuple[int, int]] | None = None,
    seed: int = 0,
    indices: NDArray[np.int64] | None = None,
) -> View:
    """Return decoded RGB pictures, of any sizes, as a model's input in evaluation.

    Args:
        model: the model; its regions, `resize` and `max_side` set the form of the input.
        pictures: the originals, or the results of :func:`scale_picture`.
        sizes: (height, width) of the originals, if the pictures are smaller.
        seed, indices: as for :func:`view`.
    """
    scaled = [scale_picture(model, picture) for picture in pictures]
    if isinstance(model.regions, WholeImage):
        return View(torch.from_numpy(np.stack([np.asarray(picture).transpose(2, 0, 1) for picture in scaled])))
    original_sizes = [(picture.height, picture.width) for picture in pictures] if sizes is None else sizes
    return patches(model.regions, pad(scaled, original_sizes), seed=seed, indices=indices)


def squares(pixels: NDArray[np.uint8], indices: NDArray[np.int64]) -> Tensor:
    """Return whole images by index, uint8 (B, 3, S, S), read in their order on disk."""
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
    """Add the boxes of their patches to the originals; they are drawn at the original size and scaled with the images.

    A box is rounded outwards, so that it holds at least one pixel of a smaller copy.
    """
    boxes = regions.boxes(originals.original_sizes, seed=seed, indices=indices, training=training)  # (B, M, 4)
    sizes, original_sizes = (  # (B, 1, 4)
        np.tile(sides[:, None, ::-1], (1, 1, 2)) for sides in (originals.sizes, originals.original_sizes)
    )
    down, up = boxes * sizes // original_sizes, -(-boxes * sizes // original_sizes)
    scaled = np.concatenate((down[..., :2], up[..., 2:]), axis=-1)
    return View(torch.from_numpy(originals.pixels), torch.from_numpy(scaled))

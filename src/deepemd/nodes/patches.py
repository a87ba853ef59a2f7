"""Grid and Sampling: the boxes of the patches of an image, each of which becomes one node."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepemd.checks import real_number, real_numbers, whole_number, whole_numbers
from deepemd.errors import InputError

__all__ = ["Grid", "Sampling"]

_PURPOSE = 3  # a word of the generator's counter, which separates these draws from those of training and episodes
_MAX_LEVEL, _MAX_PATCHES = 64, 4096  # transport between so many nodes takes minutes
Boxes = NDArray[np.int64]  # (B, M, 4): x0, y0, x1, y1 in pixels of the original image


@dataclass(frozen=True)
class Grid:
    """Cut an image into the cells of g x g grids, one grid for each level, each cell enlarged around its centre.

    Args:
        levels: side lengths of the grids. The paper's best is (5, 3, 2), 38 patches; (3, 2) has 13.
        ratio: how many times as wide and high a patch is as its cell, before it is clipped to the image.

    Raises:
        InputError: there is no level, a level is not positive or is named twice, or the ratio is not positive.

    >>> Grid((2,)).boxes([[84, 84]]).tolist()[0][:2]
    [[0, 0, 63, 63], [21, 0, 84, 63]]

    Source: Zhang et al., arXiv 2003.06777, section 4.5; pixels are rounded as in the authors' code.
    """

    levels: tuple[int, ...] = (3, 2)
    ratio: float = 2.0

    def __post_init__(self) -> None:
        hint = "give the side lengths of the grids, each at least 1 and once, such as 3,2"
        levels = whole_numbers("levels", self.levels, 1, _MAX_LEVEL, hint=hint)
        if not levels or len(set(levels)) < len(levels):
            raise InputError(f"levels is {levels}: {hint}")
        hint = "a patch is that many times as wide as its cell; 2 is usual"
        object.__setattr__(self, "ratio", real_number("ratio", self.ratio, 0, 1000, above=True, hint=hint))
        object.__setattr__(self, "levels", levels)

    @property
    def config(self) -> dict[str, Any]:
        """The settings from which :func:`deepemd.nodes.regions_from` rebuilds it."""
        return {"name": "grid", "levels": list(self.levels), "ratio": self.ratio}

    @property
    def patches(self) -> int:
        """The number of patches of an image."""
        return sum(level * level for level in self.levels)

    @property
    def nodes(self) -> int:
        """The number of nodes of an image, one for each patch."""
        return self.patches

    def boxes(
        self, sizes: ArrayLike, *, seed: int = 0, indices: ArrayLike | None = None, training: bool = False
    ) -> Boxes:
        """Return the patches of images, level by level, each row by row.

        Args:
            sizes: (B, 2) height and width of each image, in pixels.
            seed, indices: determine the ratios in training; see :meth:`Sampling.boxes`.
            training: draw the ratio from 1 to 3 for each image and level, as in the paper's training.

        Returns:
            (B, patches, 4) int64 x0, y0, x1, y1: the pixels x0 .. x1 - 1 and y0 .. y1 - 1.

        Raises:
            InputError: a level has more cells than an image has pixels on a side, or a patch is smaller than a pixel.
        """
        height, width = _sides(sizes)
        ratios = np.full((len(height), len(self.levels)), self.ratio)
        if training:
            ratios = 1 + 2 * _uniform(seed, indices, len(height), len(self.levels))
        parts = []
        for k, level in enumerate(self.levels):
            y, x = _spans(height, level, ratios[:, k]), _spans(width, level, ratios[:, k])  # (B, g, 2)
            shape = (len(height), level, level)
            corners = [np.broadcast_to(x[:, None, :, 0], shape), np.broadcast_to(y[:, :, None, 0], shape)]
            corners += [np.broadcast_to(x[:, None, :, 1], shape), np.broadcast_to(y[:, :, None, 1], shape)]
            parts.append(np.stack(corners, axis=-1).reshape(len(height), level * level, 4))
        return np.concatenate(parts, axis=1)  # (B, M, 4)


def _spans(size: NDArray[np.int64], level: int, ratio: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return where the cells of one axis begin and end, (B, level, 2)."""
    if (size < level).any():
        raise InputError(
            f"levels holds {level}, but an image is only {size.min()} pixels wide or high: use coarser levels or larger"
            " images"
        )
    cell, half = size // level, (size / level * ratio).astype(np.int64) // 2  # (B,)
    if (half < 1).any():
        raise InputError(
            f"ratio is {ratio[half < 1][0]:g}: a patch of a {level} x {level} grid would have no pixel; raise it"
        )
    centre = (cell // 2)[:, None] + np.arange(level) * cell[:, None]  # (B, level)
    begin = np.maximum(0, centre - half[:, None])
    return np.stack((begin, np.minimum(size[:, None], centre + half[:, None])), axis=-1)


@dataclass(frozen=True)
class Sampling:
    """Cut random crops out of an image, with an area of 8 % to 100 % and an aspect ratio of 3 : 4 to 4 : 3.

    The crops of an image depend on a seed and on its index alone, so that embeddings can be stored and a run can be
    repeated; the authors' code draws new crops in every episode.

    Args:
        patches: number of crops of an image. 9 is usual in the paper, 25 is best; it helps to use more in tests than in
            training.
        scale: range of a crop's area, as a share of the image's.
        aspect: range of a crop's width over its height.

    Raises:
        InputError: there is no patch, or a range is empty.

    >>> Sampling(2).boxes([[84, 84]], seed=0, indices=[7]).shape
    (1, 2, 4)

    Source: Zhang et al., arXiv 2003.06777, section 4.5.
    """

    patches: int = 9
    scale: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        patches = whole_number("patches", self.patches, 1, _MAX_PATCHES, hint="9 is usual")
        hint = "pass a range of shares of the image, 0 < low <= high <= 1"
        scale = real_numbers("scale", self.scale, 1e-6, 1, count=2, hint=hint)
        if scale[0] > scale[1]:
            raise InputError(f"scale is {scale}: {hint}")
        hint = "pass a range of width over height, 0 < low <= high"
        aspect = real_numbers("aspect", self.aspect, 1e-3, 1e3, count=2, hint=hint)
        if aspect[0] > aspect[1]:
            raise InputError(f"aspect is {aspect}: {hint}")
        for name, value in (("patches", patches), ("scale", scale), ("aspect", aspect)):
            object.__setattr__(self, name, value)

    @property
    def config(self) -> dict[str, Any]:
        """The settings from which :func:`deepemd.nodes.regions_from` rebuilds it."""
        return {
            "name": "sampling",
            "patches": self.patches,
            "scale": list(self.scale),
            "aspect": list(self.aspect),
        }

    @property
    def nodes(self) -> int:
        """The number of nodes of an image, one for each patch."""
        return self.patches

    def boxes(
        self,
        sizes: ArrayLike,
        *,
        seed: int = 0,
        indices: ArrayLike | None = None,
        training: bool = False,  # noqa: ARG002  (the paper draws the same way in training)
    ) -> Boxes:
        """Return the crops of images.

        For each crop, up to ten pairs of area and aspect are drawn. The first that fits into the image is used; if none
        does, the largest central crop whose aspect is allowed.

        Args:
            sizes: (B, 2) height and width of each image, in pixels.
            seed: seed of the random numbers.
            indices: (B,) a number for each image, such as its index in its split; by default 0, 1, ...
            training: has no effect here.

        Returns:
            (B, patches, 4) int64 x0, y0, x1, y1: the pixels x0 .. x1 - 1 and y0 .. y1 - 1.
        """
        height, width = (side[:, None] for side in _sides(sizes))  # (B, 1)
        draws = _uniform(seed, indices, len(height), self.patches, 22)  # (B, M, 22)
        area = (height * width)[..., None] * (self.scale[0] + draws[..., :10] * (self.scale[1] - self.scale[0]))
        low, high = np.log(self.aspect)
        aspect = np.exp(low + draws[..., 10:20] * (high - low))
        w, h = (np.round(np.sqrt(area * a)).astype(np.int64) for a in (aspect, 1 / aspect))  # (B, M, 10)
        fits = (w >= 1) & (w <= width[..., None]) & (h >= 1) & (h <= height[..., None])
        first = fits.argmax(-1)[..., None]
        w, h = (np.take_along_axis(side, first, -1)[..., 0] for side in (w, h))  # (B, M)
        x, y = (draws[..., 20] * (width - w + 1)).astype(np.int64), (draws[..., 21] * (height - h + 1)).astype(np.int64)
        none = ~fits.any(-1)
        full_w = np.clip(np.round(height * self.aspect[1]), 1, width).astype(np.int64)
        full_h = np.clip(np.round(width / self.aspect[0]), 1, height).astype(np.int64)
        w, h = np.where(none, full_w, w), np.where(none, full_h, h)
        x, y = np.where(none, (width - w) // 2, x), np.where(none, (height - h) // 2, y)
        return np.stack((x, y, x + w, y + h), axis=-1)


def _uniform(seed: int, indices: ArrayLike | None, count: int, *shape: int) -> NDArray[np.float64]:
    """Draw numbers from 0 to 1, (count, *shape); on every machine, a row depends only on the seed and its index."""
    places = np.arange(count) if indices is None else np.asarray(indices).reshape(count)
    words = [np.random.Philox(key=seed, counter=[0, int(i), _PURPOSE, 0]).random_raw(math.prod(shape)) for i in places]
    return (np.array(words, np.uint64) >> np.uint64(11)).reshape(count, *shape).astype(np.float64) * 2.0**-53


def _sides(sizes: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return heights and widths, (B,) each."""
    sides = np.asarray(sizes, dtype=np.int64).reshape(-1, 2)
    if (sides < 1).any():
        raise InputError(f"sizes holds {sides[(sides < 1).any(1)][0].tolist()}: an image has at least one pixel")
    return sides[:, 0], sides[:, 1]

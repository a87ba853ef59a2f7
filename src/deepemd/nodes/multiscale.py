"""MultiScale: the image is encoded at several sizes, and the nodes are overlapping windows of each feature map."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from deepemd.checks import real_number, whole_number, whole_numbers
from deepemd.errors import InputError

__all__ = ["MultiScale"]

_MAX_SIDE = 4096  # pixels of the squares that an encoder sees


@dataclass(frozen=True)
class MultiScale:
    """Encode the whole image at several sizes, and make a node of every window of each feature map.

    An encoder recognises things of the size that it was trained with. In a photo of a whole shelf they are small, and a
    large input shows them at that size; where one thing fills the photo, a small input does. With both, each match
    takes what fits. All nodes are one set, in one transport problem.

    Args:
        sizes: sides of the squares to which the image is scaled, in pixels, from small to large; the last must be the
            model's `image_size`. The time grows with their areas.
        window: side of a window, as a share of the side of the feature map, rounded to whole cells.
        step: cells between neighbouring windows.

    Raises:
        InputError: a setting is out of range, or the sizes do not grow.

    >>> from deepemd.nodes import conv4
    >>> MultiScale((40, 84))(conv4(), torch.zeros(3, 3, 84, 84)).shape  # maps of 2 x 2 and 5 x 5: 1 and 4 nodes
    torch.Size([3, 5, 64])

    Source: as the image pyramid of the paper's grid (arXiv 2003.06777, section 4.5), but of whole images.
    """

    sizes: tuple[int, ...] = (224, 416)
    window: float = 0.4
    step: int = 2

    def __post_init__(self) -> None:
        sizes = whole_numbers("sizes", self.sizes, 1, _MAX_SIDE, hint="give sides in pixels, such as 224,416")
        if not sizes or list(sizes) != sorted(set(sizes)):
            raise InputError(f"sizes is {self.sizes}: give different sides in pixels, from small to large")
        object.__setattr__(self, "sizes", sizes)
        object.__setattr__(self, "window", real_number("window", self.window, 0, 1, above=True, hint="0.4 is usual"))
        object.__setattr__(self, "step", whole_number("step", self.step, 1, 256, hint="2 is usual"))

    @property
    def config(self) -> dict[str, Any]:
        """The settings from which :func:`deepemd.nodes.regions_from` rebuilds the regions."""
        return {"name": "multiscale", "sizes": list(self.sizes), "window": self.window, "step": self.step}

    @property
    def nodes(self) -> int | None:
        """The number of nodes of an image: None, as it depends on the encoder's maps."""
        return None

    def __call__(self, backbone: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """Encode normalised images (B, 3, S, S), S the last of the sizes, into nodes (B, N, C), float32."""
        if images.shape[-1] != self.sizes[-1]:
            raise InputError(
                f"images of {images.shape[-2]} x {images.shape[-1]}, but the largest of sizes is {self.sizes[-1]}: make"
                " the model's image_size equal to it"
            )
        found = []
        for size in self.sizes:
            maps = backbone(_resized(images, size)).float()  # (B, C, h, w)
            side = self._window(min(maps.shape[-2:]))
            found.append(F.avg_pool2d(maps, side, self.step).flatten(2))  # (B, C, n)
        return torch.cat(found, dim=2).transpose(1, 2).contiguous()  # -> (B, N, C)

    def counts(self, cells: Mapping[int, tuple[int, int]]) -> tuple[int, ...]:
        """Return the number of nodes of each of the sizes, given the (h, w) of its map."""
        return tuple(len(self._corners(*cells[size])[1]) for size in self.sizes)

    def boxes(self, side: float, cells: Mapping[int, tuple[int, int]]) -> NDArray[np.float64]:
        """Return the boxes of the nodes, (N, 4) as x0, y0, x1, y1, in a square image of this side.

        Args:
            side: side of the image, in any unit.
            cells: for each of the sizes, the (h, w) of the encoder's map.

        >>> MultiScale((224,)).boxes(7, {224: (7, 7)})[:2].tolist()
        [[0.0, 0.0, 3.0, 3.0], [2.0, 0.0, 5.0, 3.0]]
        """
        boxes = []
        for size in self.sizes:
            h, w = cells[size]
            window, corners = self._corners(h, w)
            boxes += [(x / w, y / h, (x + window) / w, (y + window) / h) for y, x in corners]
        return np.array(boxes, dtype=np.float64) * side  # (N, 4)

    def _corners(self, h: int, w: int) -> tuple[int, list[tuple[int, int]]]:
        """Return the side of the windows of an h x w map, and the row and column where each begins."""
        window = self._window(min(h, w))
        rows, columns = (range(0, cells - window + 1, self.step) for cells in (h, w))
        return window, [(row, column) for row in rows for column in columns]

    def _window(self, cells: int) -> int:
        if cells < 1:
            raise InputError(f"the encoder's map is empty: sizes {self.sizes} are too small for it; enlarge them")
        return max(1, round(self.window * cells))


def _resized(images: Tensor, size: int) -> Tensor:
    """Scale square images down, with antialiasing, as Pillow does."""
    if size == images.shape[-1]:
        return images
    smaller = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    return smaller.contiguous(memory_format=torch.channels_last)

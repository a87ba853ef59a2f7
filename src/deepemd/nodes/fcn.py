"""FCN: the cells of the encoder's feature map are the nodes, and where they lie in the image."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from deepemd.errors import InputError

__all__ = ["FCN", "to_original"]


@dataclass(frozen=True)
class FCN:
    """Every cell of the encoder's feature map is a node, and so are the cells of optional coarser maps.

    A pyramid level g adds the g x g adaptive average of the map. The nodes come in the order of the levels as
    given, then the map; each level row by row. The paper's pyramid (5, 2, 1) on a 5 x 5 map is ``FCN((2, 1))``:
    the map itself is always there, once.

    Args:
        pyramid: side lengths of the coarser maps; each smaller than the map and named once.
        dense: False leaves the map's own cells out: a few large, overlapping cells, such as ``FCN((3,), dense=False)``,
            are fast, and serve an encoder that was never trained to be matched, see docs/photos.md.

    Raises:
        InputError: a level that is not positive, is named twice, or (when an image is encoded) is not coarser
            than the map; no cells at all.

    >>> from deepemd.nodes import conv4
    >>> FCN((2, 1))(conv4(), torch.zeros(3, 3, 84, 84)).shape
    torch.Size([3, 30, 64])

    Source: Zhang et al., DeepEMD (CVPR 2020), section 4.5 of the extension arXiv 2003.06777.
    """

    pyramid: tuple[int, ...] = ()
    dense: bool = True

    def __post_init__(self) -> None:
        levels = tuple(int(level) for level in self.pyramid)
        if any(level < 1 for level in levels):
            raise InputError(f"pyramid is {self.pyramid}: a level is the side length of a map, at least 1")
        if len(set(levels)) != len(levels):
            raise InputError(f"pyramid is {self.pyramid}: a level is named twice; keep one of them")
        if not self.dense and not levels:
            raise InputError(
                "pyramid is empty and dense is False: an image would have no nodes; name a level, such as 3"
            )
        object.__setattr__(self, "pyramid", levels)

    @property
    def config(self) -> dict[str, Any]:
        """The settings from which :func:`deepemd.model.deepemd.DeepEMD.load` builds it again."""
        dense = {} if self.dense else {"dense": False}
        return {"name": "fcn", "pyramid": list(self.pyramid), **dense}

    def __call__(self, backbone: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """Encode normalised images (B, 3, H, W) into nodes (B, N, C), float32 whatever the encoder computed in."""
        maps = backbone(images).float()  # (B, 3, H, W) -> (B, C, h, w)
        self._check(maps.shape[-2], maps.shape[-1])
        levels = [F.adaptive_avg_pool2d(maps, level) for level in self.pyramid] + [maps] * self.dense
        nodes = torch.cat([level.flatten(2) for level in levels], dim=2)  # -> (B, C, N)
        return nodes.transpose(1, 2).contiguous()  # -> (B, N, C)

    def boxes(self, height: int, width: int, h: int, w: int) -> NDArray[np.float64]:
        """The boxes of the nodes, (N, 4) as x0, y0, x1, y1 in pixels of the encoder's input.

        A map cell owns the pixels of its share of the input: cell k of w spans k * width / w to
        (k + 1) * width / w. (Its receptive field is larger; this is where it is centred.) Cell k of a pooled level g
        spans the map cells that the adaptive average takes: floor(k * w / g) to ceil((k + 1) * w / g), so
        neighbouring cells overlap where g does not divide w.

        Args:
            height, width: of the encoder's input.
            h, w: of its feature map.

        >>> FCN((1,)).boxes(84, 84, 2, 2).tolist()[:3]
        [[0.0, 0.0, 84.0, 84.0], [0.0, 0.0, 42.0, 42.0], [42.0, 0.0, 84.0, 42.0]]
        """
        self._check(h, w)
        levels = [(level, level) for level in self.pyramid] + [(h, w)] * self.dense
        boxes = [
            (x0 * width / w, y0 * height / h, x1 * width / w, y1 * height / h)
            for rows, columns in levels
            for y0, y1 in _spans(h, rows)
            for x0, x1 in _spans(w, columns)
        ]
        return np.array(boxes, dtype=np.float64)  # (N, 4)

    def _check(self, h: int, w: int) -> None:
        if h < 1 or w < 1:
            raise InputError(f"the encoder's map is {h} x {w}: the images are too small; enlarge them or pool less")
        for level in self.pyramid:
            if level == h == w and self.dense:
                raise InputError(
                    f"pyramid level {level} repeats the {h} x {w} map, which is always there; leave it out"
                )
            if level > min(h, w):
                raise InputError(f"pyramid level {level} is finer than the {h} x {w} map: use coarser levels")


def _spans(size: int, cells: int) -> list[tuple[int, int]]:
    """Where adaptive average pooling of `size` cells into `cells` takes its values: [start, end) of each."""
    return [(k * size // cells, math.ceil((k + 1) * size / cells)) for k in range(cells)]


def to_original(
    boxes: NDArray[np.float64], width: int, height: int, *, resize: int = 92, size: int = 84
) -> NDArray[np.float64]:
    """Map boxes from the encoder's input to pixels of the original image, under the evaluation transform.

    That transform scales the image to `resize` x `resize`, its aspect ignored, and cuts the central `size` x `size`
    square; what lies outside of the square was never seen. So a coordinate p becomes (p + (resize - size) / 2) *
    width / resize (or height / resize).

    Args:
        boxes: (N, 4) x0, y0, x1, y1 as from :meth:`FCN.boxes`.
        width, height: of the original image.
        resize, size: of the transform; a model's ``resize`` and ``image_size``.

    Returns:
        (N, 4) x0, y0, x1, y1; fractions of a pixel are kept.

    >>> to_original(np.array([[0.0, 0.0, 84.0, 84.0]]), 184, 92).tolist()
    [[8.0, 4.0, 176.0, 88.0]]
    """
    scale = np.array([width, height, width, height], dtype=np.float64) / resize
    return (np.asarray(boxes, dtype=np.float64) + (resize - size) / 2) * scale

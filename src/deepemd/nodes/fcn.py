"""FCN: the nodes are the cells of the encoder's feature map, with their boxes in the image."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from deepemd.checks import whole_numbers
from deepemd.errors import InputError

__all__ = ["FCN", "to_original"]

_MAX_LEVEL = 256  # side of a map; transport between so many nodes takes minutes


@dataclass(frozen=True)
class FCN:
    """Make a node of every cell of the encoder's feature map and, optionally, of coarser maps.

    A pyramid level g adds the g x g adaptive average of the map. The nodes are ordered by level as given, then the
    map, each row by row. The paper's pyramid (5, 2, 1) on a 5 x 5 map is ``FCN((2, 1))``: the map itself is always
    included, once.

    Args:
        pyramid: side lengths of the coarser maps; each smaller than the map and named once.
        dense: False omits the map's own cells. A few large, overlapping cells, such as ``FCN((3,), dense=False)``, are
            fast, and suit an encoder that was never trained for matching, see docs/results.md.

    Raises:
        InputError: a level is not positive, is named twice, or (when an image is encoded) is not coarser than the map;
            or there are no cells at all.

    >>> from deepemd.nodes import conv4
    >>> FCN((2, 1))(conv4(), torch.zeros(3, 3, 84, 84)).shape
    torch.Size([3, 30, 64])

    Source: Zhang et al., DeepEMD (CVPR 2020), section 4.5 of the extension arXiv 2003.06777.
    """

    pyramid: tuple[int, ...] = ()
    dense: bool = True

    def __post_init__(self) -> None:
        levels = whole_numbers("pyramid", self.pyramid, 1, _MAX_LEVEL, hint="give side lengths of maps, such as 2,1")
        if not isinstance(self.dense, bool):
            raise InputError(f"dense is {self.dense!r:.80}: give True, or False to omit the map's own cells")
        if len(set(levels)) != len(levels):
            raise InputError(f"pyramid is {self.pyramid}: a level is named twice; name it once")
        if not self.dense and not levels:
            raise InputError(
                "pyramid is empty and dense is False: an image would have no nodes; name a level, such as 3"
            )
        object.__setattr__(self, "pyramid", levels)

    @property
    def config(self) -> dict[str, Any]:
        """The settings from which :func:`deepemd.nodes.regions_from` rebuilds the regions."""
        dense = {} if self.dense else {"dense": False}
        return {"name": "fcn", "pyramid": list(self.pyramid), **dense}

    @property
    def nodes(self) -> int | None:
        """The number of nodes of an image; None where it depends on the encoder's map."""
        return None if self.dense else sum(level * level for level in self.pyramid)

    def __call__(self, backbone: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """Encode normalised images (B, 3, H, W) into nodes (B, N, C), float32 whatever the encoder computed in."""
        maps = backbone(images).float()  # (B, 3, H, W) -> (B, C, h, w)
        self._check(maps.shape[-2], maps.shape[-1])
        levels = [F.adaptive_avg_pool2d(maps, level) for level in self.pyramid] + [maps] * self.dense
        nodes = torch.cat([level.flatten(2) for level in levels], dim=2)  # -> (B, C, N)
        return nodes.transpose(1, 2).contiguous()  # -> (B, N, C)

    def boxes(self, height: int, width: int, h: int, w: int) -> NDArray[np.float64]:
        """Return the boxes of the nodes, (N, 4) as x0, y0, x1, y1 in pixels of the encoder's input.

        A map cell owns its share of the input: cell k of w spans k * width / w to (k + 1) * width / w, at the centre
        of its larger receptive field. Cell k of a pooled level g spans the map cells that the adaptive average uses,
        floor(k * w / g) to ceil((k + 1) * w / g), so neighbouring cells overlap where g does not divide w.

        Args:
            height, width: size of the encoder's input.
            h, w: size of its feature map.

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
            raise InputError(f"the encoder's map is {h} x {w}: the images are too small; enlarge them, or pool less")
        for level in self.pyramid:
            if level == h == w and self.dense:
                raise InputError(
                    f"pyramid level {level} repeats the {h} x {w} map, which is always included; leave it out"
                )
            if level > min(h, w):
                raise InputError(f"pyramid level {level} is finer than the {h} x {w} map: use coarser levels")


def _spans(size: int, cells: int) -> list[tuple[int, int]]:
    """Return the spans [start, end) that adaptive average pooling of `size` cells into `cells` averages."""
    return [(k * size // cells, math.ceil((k + 1) * size / cells)) for k in range(cells)]


def to_original(
    boxes: NDArray[np.float64], width: int, height: int, *, resize: int = 92, size: int = 84
) -> NDArray[np.float64]:
    """Map boxes from the encoder's input to pixels of the original image.

    The evaluation transform scales the image to `resize` x `resize`, ignoring its aspect ratio, and cuts out the
    central `size` x `size` square. So a coordinate p becomes (p + (resize - size) / 2) * width / resize (or
    height / resize).

    Args:
        boxes: (N, 4) x0, y0, x1, y1, from :meth:`FCN.boxes`.
        width, height: size of the original image.
        resize, size: settings of the transform, a model's ``resize`` and ``image_size``.

    Returns:
        (N, 4) x0, y0, x1, y1, not rounded to whole pixels.

    >>> to_original(np.array([[0.0, 0.0, 84.0, 84.0]]), 184, 92).tolist()
    [[8.0, 4.0, 176.0, 88.0]]
    """
    scale = np.array([width, height, width, height], dtype=np.float64) / resize
    return (np.asarray(boxes, dtype=np.float64) + (resize - size) / 2) * scale

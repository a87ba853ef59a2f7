"""Cut patches out of a batch of images on their device, and encode each into one node."""

from collections.abc import Callable

import torch
from torch import Tensor

from deepemd.errors import InputError

__all__ = ["cut", "patch_nodes"]


def cut(images: Tensor, boxes: Tensor, size: int, *, flip: Tensor | None = None) -> Tensor:
    """Cut patches and resize each to a square, ignoring its aspect ratio: bilinear and antialiased, like Pillow.

    Resizing is linear in the pixels and separable: a patch is a matrix times the image times another matrix. So all
    patches of all images are two batched matrix products, on the device of the images.

    Args:
        images: (B, 3, H, W) uint8, or float in 0..1; smaller images are padded, and the boxes stay inside them.
        boxes: (B, M, 4) x0, y0, x1, y1 in pixels of the images.
        size: side of the squares, in pixels.
        flip: (B, M) bool, the patches to mirror.

    Returns:
        (B, M, 3, size, size) float32 in 0..1.

    Raises:
        InputError: a box is empty or reaches outside of its image.

    >>> image = torch.arange(4.0).repeat(1, 3, 4, 1) / 4
    >>> cut(image, torch.tensor([[[0, 0, 4, 4]]]), 2)[0, 0, 0]
    tensor([[0.1786, 0.5714],
            [0.1786, 0.5714]])
    """
    height, width = images.shape[-2:]
    boxes = boxes.to(images.device)
    x0, y0, x1, y1 = boxes.unbind(-1)  # (B, M) each
    if bool(((x0 < 0) | (y0 < 0) | (x1 > width) | (y1 > height) | (x0 >= x1) | (y0 >= y1)).any()):
        raise InputError(f"boxes must have 0 <= x0 < x1 <= {width} and 0 <= y0 < y1 <= {height}; some do not")
    if images.dtype == torch.uint8:
        images = images.float() / 255
    down = _resampling(y0, y1, height, size)  # (B, M, S, H)
    across = _resampling(x0, x1, width, size)  # (B, M, S, W)
    if flip is not None:
        across = torch.where(flip.to(images.device)[..., None, None], across.flip(-2), across)
    with torch.autocast(images.device.type, enabled=False):  # pixels have more steps than bfloat16
        rows = torch.einsum("bmsh,bchw->bmcsw", down, images.float())
        return torch.einsum("bmcsw,bmtw->bmcst", rows, across)


def _resampling(begin: Tensor, end: Tensor, length: int, size: int) -> Tensor:
    """Return the weights (B, M, size, length) by which ``size`` new pixels average the old ones from begin to end - 1.

    begin and end are (B, M). The weights are a triangle as wide as a new pixel, but at least as an old one.
    """
    spans, places = torch.unique(torch.stack((begin, end), -1).flatten(0, 1), dim=0, return_inverse=True)  # (U, 2)
    first, last = spans.float()[..., None, None].unbind(
        1
    )  # (U, 1, 1) each; images of one size share the spans of a grid
    step = (last - first) / size  # old pixels to a new one
    centre = first + (torch.arange(size, device=begin.device)[:, None] + 0.5) * step  # (U, size, 1)
    old = torch.arange(length, device=begin.device) + 0.5  # (length,)
    weight = (1 - (old - centre).abs() / step.clamp_min(1)).clamp_min(0)  # (U, size, length)
    weight = torch.where((old > first) & (old < last), weight, 0)
    matrices: Tensor = weight / weight.sum(-1, keepdim=True)
    return matrices[places].view(*begin.shape, size, length)


def patch_nodes(backbone: Callable[[Tensor], Tensor], patches: Tensor) -> Tensor:
    """Encode each patch on its own and pool it to one node.

    Args:
        backbone: the encoder.
        patches: (B, M, 3, H, W) normalised patches.

    Returns:
        (B, M, C) nodes, float32.

    >>> from deepemd.nodes import conv4
    >>> patch_nodes(conv4(), torch.zeros(2, 9, 3, 84, 84)).shape
    torch.Size([2, 9, 64])

    Source: Zhang et al., arXiv 2003.06777, section 4.5 (grid and sampling).
    """
    maps = backbone(patches.flatten(0, 1)).float()  # (B, M, 3, H, W) -> (B * M, C, h, w)
    return maps.mean(dim=(2, 3)).view(*patches.shape[:2], -1)  # -> (B, M, C)

"""Convert pixels of every kind to 8-bit RGB: all modes of Pillow, arrays, transparency."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deepemd.data.depth import Depth, pieces, to_bytes
from deepemd.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["array_to_rgb", "as_array", "convertible", "is_one_colour", "open_raw_ycc", "to_rgb"]

_MODES = (
    "1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "I", "F"
)  # fmt: skip
_PALE = 64  # of 255; what differs from white by less, on average, is shown on black


def convertible(mode: str) -> bool:
    """Return whether images of this mode of Pillow can be converted to RGB.

    >>> convertible("I;16B"), convertible("BGR;15")
    (True, False)
    """
    return mode in _MODES or mode.startswith("I;16")


def to_rgb(image: "Image", name: str, depth: Depth | None = None) -> "Image":
    """Convert a loaded image of any mode to RGB, its transparency laid on white, or on black if it is pale.

    Args:
        image: the image.
        name: its name in messages.
        depth: what its file says about the depth of its values.

    Raises:
        InputError: the values have no known range.
    """
    from PIL import Image

    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image)
        grey = Image.fromarray(to_bytes(values, name, depth or Depth(), image.mode))
        key = image.info.get("transparency")
        if isinstance(key, int):
            grey.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
            return _on_ground(grey.convert("RGBA"))
        return grey.convert("RGB")
    if image.mode == "LAB":
        return _lab_to_rgb(image)
    return _on_ground(_with_alpha(image)) if _has_alpha(image) else image.convert("RGB")


def as_array(values: Any) -> NDArray[Any]:
    """Return an array, or a tensor of any type and device, as an array of numpy."""
    if hasattr(values, "detach"):  # a tensor of torch
        values = values.detach().cpu()
        return np.asarray(values.float() if str(values.dtype) == "torch.bfloat16" else values)  # numpy has no such type
    return np.asarray(values)


def array_to_rgb(array: object, name: str) -> "Image":
    """Convert an array of pixels to an RGB image.

    Args:
        array: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4): uint8; whole numbers of 8 to 16 bits; floats from 0 to 1; or
            truth values, where true is white.
        name: name of the image in messages.

    Raises:
        InputError: the array is of another shape, type or range.
    """
    from PIL import Image

    pixels = as_array(array)
    if pixels.dtype.kind == "b":
        pixels = pixels * np.uint8(255)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if (
        pixels.dtype.kind not in "uif"
        or pixels.ndim not in (2, 3)
        or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4))
    ):
        hint = ", channels last" if pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4) else ""
        raise InputError(
            f"{name}: {type(array).__name__} of {pixels.dtype} {pixels.shape}: pass a path, a PIL image, or an array"
            f" (height, width) or (height, width, 3){hint}"
        )
    if 0 in pixels.shape:
        raise InputError(f"{name}: an array of shape {pixels.shape} has no pixels: pass one with pixels")
    if pixels.ndim == 2 or pixels.shape[2] == 3:
        return Image.fromarray(to_bytes(pixels, name, Depth())).convert("RGB")
    colour, alpha = to_bytes(pixels[..., :3], name, Depth()), to_bytes(pixels[..., 3], name, Depth(), say=False)
    return _on_ground(Image.fromarray(np.dstack((colour, alpha))))


def is_one_colour(image: "Image") -> bool:
    """Return whether every pixel of a loaded image is of one colour, or invisible."""
    if _has_alpha(image):
        image = _with_alpha(image)
    found: Any = image.getextrema()
    bands: Any = found if isinstance(found[0], tuple) else (found,)
    return bool(all(low == high for low, high in bands) or (image.mode == "RGBA" and bands[3][1] == 0))


def open_raw_ycc(image: "Image") -> bool:
    """Prepare an uncompressed TIFF image of YCbCr, which Pillow opens wrongly as RGB; return whether it is one.

    Its pixels, once loaded, are YCbCr although its mode says RGB.
    """
    waiting, tags = pieces(image), getattr(image, "tag_v2", {})
    known: bool = tags.get(262) == 6 and tags.get(530) == (1, 1)
    known = known and {(piece[0], piece[3][0]) for piece in waiting} == {("raw", "RGBX")}
    if known:
        image.tile = [type(piece)(*piece[:3], ("RGB", *piece[3][1:])) for piece in waiting]  # type: ignore[attr-defined]
    return known


def _has_alpha(image: "Image") -> bool:
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        return True
    palette = image.palette if image.mode == "P" else None
    return (palette is not None and palette.mode.endswith("A")) or (
        "transparency" in image.info and image.mode in ("1", "L", "P", "RGB")
    )


def _with_alpha(image: "Image") -> "Image":
    """Convert an image that has transparency to RGBA."""
    if image.mode == "La":  # Pillow has no direct way
        image = image.convert("LA")
    key = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(key, tuple) and max(key) > 255:  # the colour of an image of 16 bits
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in key)
    try:
        return image.convert("RGBA")
    except (TypeError, ValueError, OverflowError):  # left over from another mode
        image = image.copy()
        del image.info["transparency"]
        return image.convert("RGBA")


def _on_ground(image: "Image") -> "Image":
    """Lay an RGBA image on white, or on black if it would be pale on white; return it as RGB.

    Where every pixel is invisible, the transparency cannot be meant, and is dropped.
    """
    from PIL import Image, ImageChops

    red, green, blue, alpha = image.split()
    colour = Image.merge("RGB", (red, green, blue))
    extremes: Any = alpha.getextrema()
    least, most = extremes
    if least == 255 or most == 0:
        return colour
    darkest = np.asarray(ImageChops.darker(ImageChops.darker(red, green), blue))
    weight = np.asarray(alpha)
    from_white = np.multiply(255 - darkest, weight, dtype=np.uint16).sum(dtype=np.int64)
    ground = Image.new("RGB", image.size, "white" if from_white >= _PALE * weight.sum(dtype=np.int64) else "black")
    ground.paste(colour, mask=alpha)
    return ground


def _lab_to_rgb(image: "Image") -> "Image":
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.applyTransform(image, ImageCms.buildTransform(lab, srgb, "LAB", "RGB"))
    assert converted is not None  # only where it is done in place
    return converted

"""One image, however it comes: a file, its bytes, a PIL image or an array; always RGB and upright."""

import io
import os
import re
import threading
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from deepemd.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Picture", "as_picture", "decode", "measure", "shrink", "thumbnail", "to_square"]

Picture: TypeAlias = "str | os.PathLike[str] | Image | NDArray[np.uint8]"
"""An image as users pass it: a path, a PIL image or an array."""

_OPENING = threading.Lock()
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
_PROGRAMS = ("EPS", "WMF")  # drawing instructions, which Pillow hands to other programs


def decode(source: bytes | Path, name: str) -> "Image":
    """Decode one image to RGB, turned upright by its EXIF orientation.

    Of an animation the first frame is taken; transparency is dropped; 16 bits become 8.

    Args:
        source: the encoded bytes, or the file that holds them.
        name: what to call the image in a message, usually its file name.

    Raises:
        InputError: the file is missing, is no image, is truncated or damaged, has more than 89,478,485 pixels (a
            "decompression bomb" of some bytes could fill the memory), or holds pixels without a known range (float).

    >>> decode(b"GIF?", "cat.gif")
    Traceback (most recent call last):
    deepemd.errors.InputError: cat.gif: not an image that Pillow can read: replace or remove the file
    """
    return read_image(source, name, None)[0]


def read_image(source: bytes | Path, name: str, max_side: int | None) -> "tuple[Image, tuple[int, int]]":
    """One image as :func:`decode` gives it, but no larger than max_side, and its own (height, width)."""
    from PIL import ImageOps

    try:
        with _opened(source, name) as image:
            deep = image.mode.startswith("I")
            width, height = image.size
            turned = image.getexif().get(0x0112, 1) >= 5  # EXIF orientations 5 to 8 swap the sides
            large = max_side is not None and max(width, height) > max_side
            # a JPEG is decoded at a half, a quarter or an eighth where that is still larger than asked
            drafted = large and image.draft("RGB", _within(width, height, max_side or 1)) is not None
            upright = _rgb(ImageOps.exif_transpose(image), deep)
            own = (width, height) if turned else (height, width)
            if not drafted:
                own = (upright.height, upright.width)  # a TIFF turns itself upright while it is read
            return upright if max_side is None else shrink(upright, max_side), own
    except Exception as error:  # Pillow's readers raise every kind of exception for damaged files
        raise _unreadable(error, name) from error


def shrink(image: "Image", max_side: int) -> "Image":
    """An image no wider or higher than max_side, its aspect kept (bilinear, antialiased)."""
    from PIL import Image

    if max(image.size) <= max_side:
        return image
    return image.resize(_within(*image.size, max_side), Image.Resampling.BILINEAR)


def _within(width: int, height: int, max_side: int) -> tuple[int, int]:
    scale = max_side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def measure(encoded: bytes, name: str) -> tuple[int, int]:
    """Width and height of an image, upright, after decoding all of it, so that what is wrong is found here."""
    try:
        with _opened(encoded, name) as image:
            width, height = image.size
            # JPEG: reads every byte, makes fewer pixels
            drafted = image.draft("RGB", (max(1, width // 8), max(1, height // 8)))
            image.load()
            if drafted is None:
                width, height = image.size  # TIFF turns itself upright
            turned = image.getexif().get(0x0112, 1) >= 5  # EXIF orientations 5 to 8 swap the sides
    except Exception as error:
        raise _unreadable(error, name) from error
    return (height, width) if turned else (width, height)


def _opened(source: bytes | Path, name: str) -> "Image":
    """The image with only its header read, after a look at its size and at what its pixels are."""
    from PIL import Image

    _read_heif()
    # Pillow warns of images above Image.MAX_IMAGE_PIXELS and raises above twice that. Both are errors here; the
    # filters of warnings belong to the whole process, hence the lock.
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    deep_grey = image.mode == "I" and image.format in ("PNG", "PPM")  # 16 bits, as older versions of Pillow read them
    if not (image.mode in _MODES or image.mode.startswith("I;16") or deep_grey) or image.format in _PROGRAMS:
        image.close()
        raise InputError(
            f"{name}: a {image.format} image of mode {image.mode}, which has no certain reading as RGB: save it as PNG "
            "or JPEG, or remove it"
        )
    return image


@cache
def _read_heif() -> bool:
    """Let Pillow read telephones' HEIC photos too, where pillow-heif is installed; whether it is."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def _rgb(image: "Image", deep: bool) -> "Image":
    """RGB from any of the modes; of `deep` grey, 0 to 65,535, the upper 8 bits."""
    from PIL import Image

    if deep:
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if "transparency" in image.info:  # converting a palette with transparency straight to RGB makes Pillow warn
        image = image.convert("RGBA")
    return image.convert("RGB")


def _unreadable(error: Exception, name: str) -> InputError:
    """The one clear message for an image that could not be decoded."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, InputError):
        return error
    if isinstance(error, FileNotFoundError):
        return InputError(f"{name}: there is no such file: check the path")
    if isinstance(error, OSError) and error.strerror:  # the disk's, not Pillow's
        return InputError(f"{name}: cannot be read ({error.strerror}): check the file")
    if isinstance(error, UnidentifiedImageError) and name.lower().endswith((".heic", ".heif")) and not _read_heif():
        return InputError(
            f"{name}: a HEIC photo, which needs pillow-heif: pip install 'deepemd[heif]', or save it as JPEG"
        )
    if isinstance(error, UnidentifiedImageError):
        return InputError(f"{name}: not an image that Pillow can read: replace or remove the file")
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        size = re.search(r"\d+ pixels", str(error))  # the limit that Pillow names beside it is at times twice ours
        most = f"{size[0] if size else error}, at most {Image.MAX_IMAGE_PIXELS} are read"
        return InputError(f"{name}: too many pixels to be decoded ({most}): scale it down or remove the file")
    return InputError(f"{name}: truncated or damaged image ({error}): replace or remove the file")


def as_picture(image: "Picture", name: str = "image") -> "Image":
    """An image as RGB: of a file, a PIL image (turned upright) or an array.

    Args:
        image: a path, a PIL image, or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4): uint8, or floats from 0 to 1.
        name: what to call it in a message.

    Raises:
        InputError: a file that is no image, or an array of another shape, type or range.
    """
    from PIL import Image

    if isinstance(image, str | os.PathLike):
        return decode(Path(image), str(image))
    if isinstance(image, Image.Image):
        file = io.BytesIO()
        image.save(file, "PNG", compress_level=0)  # one way for every mode, and EXIF's orientation
        return decode(file.getvalue(), name)
    return Image.fromarray(_as_bytes(image, name)).convert("RGB")


def _as_bytes(image: object, name: str) -> NDArray[np.uint8]:
    """An array's pixels as uint8 (H, W) or (H, W, 3)."""
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.dtype == bool or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)):
        raise InputError(
            f"{name}: {type(image).__name__} of {pixels.dtype} {pixels.shape}: pass a path, a PIL image, or an array"
            " (height, width) or (height, width, 3)"
        )
    if 0 in pixels.shape:
        raise InputError(f"{name}: an array of shape {pixels.shape} has no pixels")
    if pixels.dtype != np.uint8:
        if not np.issubdtype(pixels.dtype, np.floating) or not (pixels.min() >= 0 and pixels.max() <= 1):
            raise InputError(
                f"{name}: {pixels.dtype} from {pixels.min():g} to {pixels.max():g}: pass uint8, or floats from 0 to 1"
            )
        pixels = np.round(255 * pixels).astype(np.uint8)
    return pixels[..., :3] if pixels.ndim == 3 else pixels


def to_square(image: "Image", size: int) -> np.ndarray:
    """The whole image as size x size, whatever its aspect, as the paper's evaluation does: uint8 (3, size, size)."""
    from PIL import Image

    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)  # (size, size, 3) -> (3, size, size)


def thumbnail(picture: "Image", side: int) -> bytes:
    """An image made small, as a JPEG file."""
    file = io.BytesIO()
    small = picture.copy()
    small.thumbnail((side, side))
    small.save(file, "JPEG", quality=85)
    return file.getvalue()

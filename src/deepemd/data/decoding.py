"""Decode an image (a file, its bytes, a PIL image or an array) to upright RGB, and resize it."""

import io
import os
import re
import stat
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

__all__ = ["DECODING", "Picture", "as_picture", "decode", "measure", "read_file", "shrink", "thumbnail", "to_square"]

Picture: TypeAlias = "str | os.PathLike[str] | Image | NDArray[np.uint8]"
"""An image as users pass it: a path, a PIL image or an array."""

DECODING = 2  # version of the pixels that an image is decoded to: a part of the key of whatever is cached of them

_OPENING = threading.Lock()
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
_GREY_16_BITS = ("PNG", "PPM", None)  # formats whose mode "I" holds 16 bits; None is an image made in memory
_MOST_BYTES = 2**30  # largest file that is read: more than an uncompressed image of the most pixels needs
_PROGRAMS = ("EPS", "WMF")  # drawing instructions, which Pillow hands to other programs


def read_file(path: Path, name: str) -> bytes:
    """Return the content of an image file; never wait for a pipe or read a device.

    Args:
        path: the file.
        name: name of the file in messages.

    Raises:
        InputError: the file is missing, cannot be read, is larger than 1 GiB, or is no regular file (a folder, a pipe,
            a socket, a device).
    """
    try:
        found = _checked(path.stat(), name)  # before it is opened, which can act on a device
        with open(path, "rb", opener=_open_without_waiting) as file:
            found = _checked(os.fstat(file.fileno()), name)  # another file may have taken the name
            content = file.read(found.st_size + 1) or b""
            if len(content) > found.st_size:  # the file grows, or is of a kind whose size the system does not say
                content += file.read(_MOST_BYTES) or b""
    except FileNotFoundError as error:
        if path.is_symlink():
            raise InputError(f"{name}: a link to a file that does not exist: replace or remove it") from error
        raise InputError(f"{name}: there is no such file: check the path") from error
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror}): check the file") from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name}: not the path of a file ({error}): check the path") from error
    if len(content) > _MOST_BYTES:
        raise _too_large(name)
    return content


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _checked(found: os.stat_result, name: str) -> os.stat_result:
    """Raise if a file is not a regular one, or is too large to be an image."""
    if not stat.S_ISREG(found.st_mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        kind = kinds.get(stat.S_IFMT(found.st_mode), "a device")
        raise InputError(f"{name}: {kind}, not an image file: pass the path of an image")
    if found.st_size > _MOST_BYTES:
        raise _too_large(name)
    return found


def _too_large(name: str) -> InputError:
    return InputError(f"{name}: larger than 1 GiB, too large for an image: scale it down or remove the file")


def decode(source: bytes | Path, name: str) -> "Image":
    """Decode one image to RGB and turn it upright by its EXIF orientation.

    Only the first frame of an animation is decoded; transparency is dropped; 16 bits become 8.

    Args:
        source: the encoded bytes, or the file that holds them.
        name: name of the image in messages, usually its file name.

    Raises:
        InputError: the file is missing, not an image, truncated or damaged; it has more than 89,478,485 pixels (a
            "decompression bomb" of a few bytes could fill the memory); or its pixels have no known range (float).

    >>> decode(b"GIF?", "cat.gif")
    Traceback (most recent call last):
    deepemd.errors.InputError: cat.gif: not an image that Pillow can read: replace or remove the file
    """
    return read_image(source, name, None)[0]


def read_image(source: bytes | Path, name: str, max_side: int | None) -> "tuple[Image, tuple[int, int]]":
    """Decode one image like :func:`decode`, scaled down to max_side; also return its original (height, width)."""
    from PIL import ImageOps

    try:
        with _opened(source if isinstance(source, bytes) else read_file(source, name), name) as image:
            sixteen_bits = image.mode.startswith("I")
            width, height = image.size
            original = (width, height) if _sides_are_swapped(image) else (height, width)
            large = max_side is not None and max(width, height) > max_side
            # A JPEG is decoded at a half, a quarter or an eighth, where that is still larger than max_side.
            drafted = large and image.draft("RGB", _within(width, height, max_side or 1)) is not None
            upright = _rgb(ImageOps.exif_transpose(image), sixteen_bits)
            if not drafted:
                original = (upright.height, upright.width)  # Pillow turns a TIFF upright while it reads it
            return upright if max_side is None else shrink(upright, max_side), original
    except Exception as error:  # Pillow's readers raise every kind of exception for damaged files
        raise _unreadable(error, name) from error


def shrink(image: "Image", max_side: int) -> "Image":
    """Scale an image down to a longest side of max_side, with the same aspect ratio (bilinear, antialiased)."""
    from PIL import Image

    if max(image.size) <= max_side:
        return image
    return image.resize(_within(*image.size, max_side), Image.Resampling.BILINEAR)


def _sides_are_swapped(image: "Image") -> bool:
    return int(image.getexif().get(0x0112, 1)) >= 5  # EXIF orientations 5 to 8


def _within(width: int, height: int, max_side: int) -> tuple[int, int]:
    scale = max_side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def measure(encoded: bytes, name: str) -> tuple[int, int]:
    """Return width and height of an image, upright; it is fully decoded, so that damage is found."""
    try:
        with _opened(encoded, name) as image:
            width, height = image.size
            # This makes the decoding of a JPEG faster: every byte is read, but fewer pixels are computed.
            drafted = image.draft("RGB", (max(1, width // 8), max(1, height // 8)))
            image.load()
            if drafted is None:
                width, height = image.size  # Pillow turns a TIFF upright while it reads it
            swapped = _sides_are_swapped(image)
    except Exception as error:
        raise _unreadable(error, name) from error
    return (height, width) if swapped else (width, height)


def _opened(encoded: bytes, name: str) -> "Image":
    """Open an image, which reads only its header, and check its size and its type of pixels."""
    from PIL import Image

    _register_heif()
    # Pillow warns of images above Image.MAX_IMAGE_PIXELS and raises above twice that. Here both are errors. Warning
    # filters are shared by all threads, hence the lock.
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image = Image.open(io.BytesIO(encoded))
    try:
        _check_mode(image, name)
    except InputError:
        image.close()
        raise
    return image


def _check_mode(image: "Image", name: str) -> None:
    """Raise if the pixels of an image have no known range, or are drawn by another program."""
    grey_16_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format in _GREY_16_BITS)
    if not (image.mode in _MODES or grey_16_bits) or image.format in _PROGRAMS:
        kind = f"a {image.format} image" if image.format else "an image"
        raise InputError(
            f"{name}: {kind} of mode {image.mode}, which cannot be converted to RGB reliably: save it as PNG or JPEG, "
            "or remove it"
        )


@cache
def _register_heif() -> bool:
    """Let Pillow read the HEIC photos of phones, if pillow-heif is installed; return whether it is."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def _rgb(image: "Image", sixteen_bits: bool) -> "Image":
    """Convert an image of any supported mode to RGB; of 16 bits, the upper 8 are used."""
    from PIL import Image

    if sixteen_bits:
        return Image.fromarray((np.asarray(image).clip(0, 65_535) >> 8).astype(np.uint8)).convert("RGB")
    if "transparency" in image.info:  # converting a palette with transparency straight to RGB makes Pillow warn
        image = image.convert("RGBA")
    return image.convert("RGB")


def _unreadable(error: Exception, name: str) -> InputError:
    """Return the error, with one clear message, for an image that could not be decoded."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, InputError):
        return error
    if isinstance(error, FileNotFoundError):
        return InputError(f"{name}: there is no such file: check the path")
    if isinstance(error, OSError) and error.strerror:  # raised by the disk, not by Pillow
        return InputError(f"{name}: cannot be read ({error.strerror}): check the file")
    if isinstance(error, UnidentifiedImageError) and name.lower().endswith((".heic", ".heif")) and not _register_heif():
        return InputError(
            f"{name}: a HEIC photo, which needs pillow-heif: pip install 'deepemd[heif]', or save it as JPEG"
        )
    if isinstance(error, UnidentifiedImageError):
        return InputError(f"{name}: not an image that Pillow can read: replace or remove the file")
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        size = re.search(r"\d+ pixels", str(error))  # Pillow's message names another limit, sometimes twice this one
        most = f"{size[0] if size else error}, at most {Image.MAX_IMAGE_PIXELS} are read"
        return InputError(f"{name}: too many pixels to be decoded ({most}): scale it down or remove the file")
    return InputError(f"{name}: truncated or damaged image ({error}): replace or remove the file")


def as_picture(image: "Picture", name: str = "image") -> "Image":
    """Return a file, a PIL image or an array as an upright RGB image.

    Args:
        image: a path, a PIL image, or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4): uint8, or floats from 0 to 1.
        name: name of the image in messages.

    Raises:
        InputError: the file or the PIL image cannot be decoded, see :func:`decode`; or the array is of another shape,
            type or range.
    """
    from PIL import Image, ImageOps

    if isinstance(image, str | os.PathLike):
        return decode(Path(image), str(image))
    if isinstance(image, Image.Image):
        _check_mode(image, name)
        try:
            return _rgb(ImageOps.exif_transpose(image), image.mode.startswith("I"))
        except Exception as error:  # it may be a file that Pillow has opened but not read yet
            raise _unreadable(error, name) from error
    return Image.fromarray(_as_bytes(image, name)).convert("RGB")


def _as_bytes(image: object, name: str) -> NDArray[np.uint8]:
    """Return an array's pixels as uint8 (H, W) or (H, W, 3)."""
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.dtype == bool or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)):
        raise InputError(
            f"{name}: {type(image).__name__} of {pixels.dtype} {pixels.shape}: pass a path, a PIL image, or an array"
            " (height, width) or (height, width, 3)"
        )
    if 0 in pixels.shape:
        raise InputError(f"{name}: an array of shape {pixels.shape} has no pixels: pass one with pixels")
    if pixels.dtype != np.uint8:
        if not np.issubdtype(pixels.dtype, np.floating) or not (pixels.min() >= 0 and pixels.max() <= 1):
            raise InputError(
                f"{name}: {pixels.dtype} from {pixels.min():g} to {pixels.max():g}: pass uint8, or floats from 0 to 1"
            )
        pixels = np.round(255 * pixels).astype(np.uint8)
    return pixels[..., :3] if pixels.ndim == 3 else pixels


def to_square(image: "Image", size: int) -> "Image":
    """Resize a whole image to size x size, ignoring its aspect ratio, as in the paper's evaluation."""
    from PIL import Image

    return image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BILINEAR)


def thumbnail(picture: "Image", side: int) -> bytes:
    """Return an image as a small JPEG file.

    Args:
        picture: the image.
        side: longest side of the result, in pixels.
    """
    file = io.BytesIO()
    small = picture.copy()
    small.thumbnail((side, side))
    small.save(file, "JPEG", quality=85)
    return file.getvalue()

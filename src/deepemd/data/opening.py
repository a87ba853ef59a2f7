"""Open an encoded image with Pillow: its limits, its frames, and one clear message for each kind of damage."""

import io
import re
import threading
import warnings
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from deepemd.data.content import kind, without_text
from deepemd.data.pixels import convertible, is_one_colour
from deepemd.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "check_mode", "image_size", "is_blank_start", "register_heif", "skip_blank_frames", "unreadable", "with_image",
]  # fmt: skip

T = TypeVar("T")

_OPENING = threading.Lock()
_PROGRAMS = ("EPS", "WMF")  # drawing instructions, which Pillow hands to other programs
_ANIMATED = ("GIF", "WEBP", "PNG", "AVIF", "TIFF")  # not MPO, whose further pictures show the same scene, nor layers
_MOST_FRAMES = 100  # frames that are looked at to find one that is not blank


def with_image(encoded: bytes, name: str, read: "Callable[[Image, bytes], T]", frame: int | None = 0) -> "T":
    """Open an image, go to its frame, and read it; every error becomes an :class:`InputError`.

    Args:
        encoded: the content of its file.
        name: its name in messages.
        read: called with the opened image and its content.
        frame: number of the frame; 0 for the first that is not of one colour, None to decode nothing.
    """
    try:
        with _opened(encoded, name) as image:
            if frame:
                image.seek(frame)
            elif frame == 0:
                skip_blank_frames(image)
            return read(image, encoded)
    except Exception as error:  # Pillow's readers raise every kind of exception for damaged files
        # Pillow raises a ValueError for large texts, but also for damage: then it raises again.
        is_text = isinstance(error, ValueError) and not isinstance(error, InputError)
        shorter = without_text(encoded) if is_text else encoded
        if len(shorter) == len(encoded):
            raise unreadable(error, name, encoded) from error
    return with_image(shorter, name, read, frame)


def _opened(encoded: bytes, name: str) -> "Image":
    """Open an image, which reads only its header, and check its size and its type of pixels."""
    from PIL import Image

    register_heif()
    # Pillow warns of images above Image.MAX_IMAGE_PIXELS and raises above twice that. Here both are errors. Warning
    # filters are shared by all threads, hence the lock.
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        warnings.simplefilter("ignore", UserWarning)  # of damaged EXIF data
        image = Image.open(io.BytesIO(encoded))
    try:
        check_mode(image, name)
    except InputError:
        image.close()
        raise
    return image


def image_size(encoded: bytes, name: str) -> tuple[int, int, int]:
    """Return width, height and number of frames of an image from its head; no pixel is decoded.

    Args:
        encoded: the content of its file.
        name: its name in messages.

    Returns:
        The width and height as they are stored, not upright, and the number of frames that decoding may look at: more
        than 1 only where the first one may be blank.

    Raises:
        InputError: it is no image, or has more pixels than Pillow decodes.
    """

    def read(image: "Image", _: bytes) -> tuple[int, int, int]:
        frames = min(int(getattr(image, "n_frames", 1)), _MOST_FRAMES) if _has_frames(image) else 1
        return image.width, image.height, frames

    return with_image(encoded, name, read, None)


def check_mode(image: "Image", name: str) -> None:
    """Raise if an image cannot be converted to RGB, or is drawn by another program."""
    if not convertible(image.mode) or image.format in _PROGRAMS:
        what = f"a {image.format} image" if image.format else "an image"
        raise InputError(
            f"{name}: {what} of mode {image.mode}, which cannot be converted to RGB reliably: save it as PNG or JPEG, "
            "or remove it"
        )


def _has_frames(image: "Image") -> bool:
    try:
        return image.format in _ANIMATED and bool(getattr(image, "is_animated", False))
    except Exception:  # the file is closed, or damaged behind the first frame
        return False


def is_blank_start(image: "Image") -> bool:
    """Return whether the first frame or page, which is loaded, is of one colour, and others follow."""
    return _has_frames(image) and is_one_colour(image)


def skip_blank_frames(image: "Image") -> None:
    """Go to the first frame or page that is not of one colour; stay at the first if all are."""
    if not _has_frames(image):
        return
    image.load()
    if not is_one_colour(image):
        return
    try:
        for frame in range(1, _MOST_FRAMES):
            image.seek(frame)
            image.load()
            if not is_one_colour(image):
                return
    except Exception:  # there is no further frame, or it is damaged
        pass
    image.seek(0)


@cache
def register_heif() -> bool:
    """Let Pillow read the HEIC photos of phones, if pillow-heif is installed; return whether it is."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def unreadable(error: Exception, name: str, encoded: bytes = b"") -> InputError:
    """Return the error, with one clear message, for an image that could not be decoded."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, InputError):
        return error
    if isinstance(error, UnidentifiedImageError) and name.lower().endswith((".heic", ".heif")) and not register_heif():
        return InputError(
            f"{name}: a HEIC photo, which needs pillow-heif: pip install 'deepemd[heif]', or save it as JPEG"
        )
    if isinstance(error, UnidentifiedImageError):
        what = kind(encoded)
        known = what and f"{name}: not an image but {what}"
        return InputError(known or f"{name}: not an image that Pillow can read: replace or remove the file")
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        size = re.search(r"\d+ pixels", str(error))  # Pillow's message names another limit, sometimes twice this one
        most = f"{size[0] if size else error}, at most {Image.MAX_IMAGE_PIXELS} are read"
        return InputError(f"{name}: too many pixels to be decoded ({most}): scale it down or remove the file")
    if isinstance(error, MemoryError):
        return InputError(f"{name}: the memory is too small to decode it: scale it down or remove the file")
    return InputError(f"{name}: truncated or damaged image ({error}): replace or remove the file")

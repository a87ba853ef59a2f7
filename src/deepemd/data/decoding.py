"""Decode an image (a file, its bytes, a PIL image or an array) to upright RGB, and resize it."""

import io
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from numpy.typing import NDArray

from deepemd.data.content import read_file
from deepemd.data.depth import Depth, deep_colour, pieces, stated_depth
from deepemd.data.opening import check_mode, is_blank_start, skip_blank_frames, unreadable, with_image
from deepemd.data.pixels import array_to_rgb, open_raw_ycc, to_rgb
from deepemd.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "DECODING", "Picture", "as_picture", "decode", "measure", "read_file", "read_image", "shrink", "thumbnail",
    "to_square",
]  # fmt: skip

Picture: TypeAlias = "str | os.PathLike[str] | Image | NDArray[Any]"
"""An image as users pass it: a path, a PIL image or an array."""

DECODING = 2  # version of the pixels that an image is decoded to: a part of the key of whatever is cached of them

_LOADING = tuple(threading.Lock() for _ in range(64))  # one of them for each PIL image, by its id
_TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # EXIF orientation, and the Image.Transpose that turns it upright


def decode(source: bytes | Path, name: str) -> "Image":
    """Decode one image to RGB and turn it upright by its EXIF orientation.

    A transparent image is laid on white, or on black if it is pale itself. Of values with more than 8 bits, the upper 8
    of those that are used remain: see :mod:`deepemd.data.depth`. Of an animation, or of several pages, the first that
    is not of one colour is decoded.

    Args:
        source: the encoded bytes, or the file that holds them.
        name: name of the image in messages, usually its file name.

    Raises:
        InputError: the file is missing, not an image, truncated or damaged; it has more than 89,478,485 pixels (a
            "decompression bomb" of a few bytes could fill the memory); or its pixels have no known range.

    >>> decode(b"GIF?", "cat.gif")
    Traceback (most recent call last):
    deepemd.errors.InputError: cat.gif: not an image that Pillow can read: replace or remove the file
    """
    return read_image(source, name, None)[0]


def read_image(source: bytes | Path, name: str, max_side: int | None) -> "tuple[Image, tuple[int, int]]":
    """Decode one image like :func:`decode`, scaled down to max_side; also return its original (height, width)."""
    encoded = source if isinstance(source, bytes) else read_file(source, name)

    def read(image: "Image", content: bytes) -> "tuple[Image, tuple[int, int]]":
        width, height = image.size
        # A JPEG is decoded at a half, a quarter or an eighth, where that is still larger than max_side.
        large = max_side is not None and max(width, height) > max_side
        drafted = large and image.draft("RGB", _within(width, height, max_side or 1)) is not None
        upright = _upright_rgb(image, name, content)
        original = (upright.height, upright.width)
        if drafted:
            original = (width, height) if _orientation(image) >= 5 else (height, width)
        return upright if max_side is None else shrink(upright, max_side), original

    return with_image(encoded, name, read)


def measure(encoded: bytes, name: str) -> tuple[int, int]:
    """Return width and height of an image, upright; it is fully decoded, so that damage is found."""

    def read(image: "Image", content: bytes) -> tuple[int, int]:
        if image.format == "TIFF" or image.mode[0] in "IF":  # what can be refused only after it was decoded
            return _upright_rgb(image, name, content).size
        size = image.size
        # This makes the decoding of a JPEG faster: every byte is read, but fewer pixels are computed.
        drafted = image.draft("RGB", (max(1, size[0] // 8), max(1, size[1] // 8))) is not None
        image.load()
        width, height = size if drafted else image.size
        return (height, width) if _orientation(image) >= 5 else (width, height)

    return with_image(encoded, name, read)


def shrink(image: "Image", max_side: int) -> "Image":
    """Scale an image down to a longest side of max_side, with the same aspect ratio (bilinear, antialiased)."""
    from PIL import Image

    if max(image.size) <= max_side:
        return image
    return image.resize(_within(*image.size, max_side), Image.Resampling.BILINEAR)


def _within(width: int, height: int, max_side: int) -> tuple[int, int]:
    scale = max_side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


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


def as_picture(image: "Picture", name: str = "image") -> "Image":
    """Return a file, a PIL image or an array as an upright RGB image; the three give the same pixels.

    Args:
        image: a path; a PIL image of any mode; or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4): uint8, whole
            numbers of 8 to 16 bits, floats from 0 to 1, or truth values.
        name: name of the image in messages.

    Raises:
        InputError: the file or the PIL image cannot be decoded, see :func:`decode`; or the array is of another shape,
            type or range.
    """
    from PIL import Image

    if isinstance(image, str | os.PathLike):
        path = os.fsdecode(image)
        return decode(Path(path), path)
    if isinstance(image, Image.Image):
        return _from_pillow(image, name)
    try:
        return array_to_rgb(image, name)
    except InputError:
        raise
    except Exception as error:  # of numpy, or of the array's own type
        raise InputError(f"{name}: {type(image).__name__} is no image: pass a path, a PIL image or an array") from error


def _from_pillow(image: "Image", name: str) -> "Image":
    """Convert a PIL image, which may be a file that is opened and not loaded yet, to upright RGB."""
    # An image may be given twice: two threads that load one image read its file at the same time.
    with _LOADING[id(image) // 64 % len(_LOADING)]:
        content, frame = b"", image.tell()
        try:
            check_mode(image, name)
            depth = stated_depth(image)
            if image.format in ("PNG", "TIFF") and pieces(image):  # their files hold more than Pillow loads
                content = _file_content(image)
            image.load()
            again = _mapped(image) or (frame == 0 and is_blank_start(image) and (content or _file_content(image)))
            if not again:
                if frame == 0:
                    skip_blank_frames(image)
                try:
                    return _upright_rgb(image, name, content, depth)
                finally:
                    if image.tell() != frame:
                        image.seek(frame)
            content = bytes(again)
        except Exception as error:  # as many kinds as there are kinds of damage
            if not content:
                raise _unloadable(error, image, name) from error
    return with_image(content, name, lambda opened, whole: _upright_rgb(opened, name, whole), frame)


def _mapped(image: "Image") -> Any:
    """Return a TIFF file that Pillow has mapped into the memory, else None: it shears one that is turned by a quarter.

    An image that was drawn on is mapped no longer.
    """
    return getattr(image, "map", None) if image.format == "TIFF" and getattr(image, "readonly", False) else None


def _file_content(image: "Image") -> bytes:
    """Return the content of the file of a PIL image; nothing if it is closed."""
    file: Any = getattr(image, "fp", None) or getattr(image, "_fp", None)  # the second for images with frames
    if getattr(file, "closed", True):
        return b""
    place = file.tell()
    file.seek(0)
    content: bytes = file.read()
    file.seek(place)
    return content


def _unloadable(error: Exception, image: "Image", name: str) -> InputError:
    file, pixels = getattr(image, "fp", None), vars(image).get("_im", vars(image).get("im"))  # the second: Pillow 10
    is_open = file is not None and not file.closed
    if not isinstance(error, InputError) and ("closed image" in str(error) or (pixels is None and not is_open)):
        return InputError(
            f"{name}: a PIL image whose file was closed before it was read: pass its path, or load() it first"
        )
    return unreadable(error, name)


def _upright_rgb(image: "Image", name: str, encoded: bytes, depth: Depth | None = None) -> "Image":
    """Load an opened image, turn it upright, and convert it to RGB.

    Args:
        image: the opened image, which may be loaded.
        name: its name in messages.
        encoded: the content of its file, if it is known.
        depth: what its file says of its values; by default, this is found now, as long as it is not loaded.
    """
    from PIL import Image

    depth, is_ycc = depth or stated_depth(image), open_raw_ycc(image)
    image.load()
    if 0 in image.size:
        raise InputError(f"{name}: an image of {image.width} x {image.height} has no pixels: replace or remove it")
    turn, deep = _TURNS.get(_orientation(image)), deep_colour(image, encoded)
    if deep is not None:
        rgb = array_to_rgb(deep, name)
    else:
        rgb = to_rgb(Image.frombytes("YCbCr", image.size, image.tobytes()) if is_ycc else image, name, depth)
    rgb.info = {}  # its orientation has been applied, and what is made of it carries no comments
    return rgb if turn is None else rgb.transpose(Image.Transpose(turn))


def _orientation(image: "Image") -> int:
    """Return the EXIF orientation, 1 to 8, of a loaded image; 1 where it is damaged, as viewers do."""
    try:
        found = image.getexif().get(0x0112, 1)
    except Exception:  # there are as many kinds as there are kinds of damage
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1

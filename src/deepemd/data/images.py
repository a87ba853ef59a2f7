"""One split of a prepared store: encoded images, their classes, and decoded pixels on demand."""

import io
import logging
import os
import re
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from deepemd.errors import InputError
from deepemd.files import replacing
from deepemd.processes import rank

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Fingerprint", "Images", "Originals", "decode", "fit", "pad", "shrink"]

T = TypeVar("T")
WORKERS = min(8, os.cpu_count() or 1)
BLOCK = 512  # images in flight between reading, decoding and writing
_OPENING = threading.Lock()
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
_PROGRAMS = ("EPS", "WMF")  # drawing instructions, which Pillow hands to other programs


def track(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Iterate with a progress bar on a terminal's standard error, silently elsewhere."""
    from rich.console import Console
    from rich.progress import track as rich_track

    console = Console(stderr=True)
    hidden = not console.is_terminal or rank() > 0
    return iter(rich_track(items, description, total, console=console, transient=True, disable=hidden))


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
    return _decode(source, name, None)[0]


def _decode(source: bytes | Path, name: str, max_side: int | None) -> "tuple[Image, tuple[int, int]]":
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


@dataclass(frozen=True)
class Fingerprint:
    """What was prepared, for every report: a wrong data set is the most frequent cause of wrong figures.

    ``sha256`` covers the class names and, image by image, the label, the group, the name and the encoded bytes.
    """

    name: str
    classes: int
    images: int
    per_class_min: int
    per_class_max: int
    median_width: int
    median_height: int
    order: str
    sha256: str

    def as_dict(self) -> dict[str, str | int]:
        """The fields, ready for JSON."""
        return asdict(self)


class Originals(NamedTuple):
    """Images in their own sizes and shapes, made no larger than asked, in one array."""

    pixels: np.ndarray  # uint8 (B, 3, H, W): each image in the upper left corner, zeros around it
    sizes: np.ndarray  # int64 (B, 2): its height and width there
    own: np.ndarray  # int64 (B, 2): height and width of the original


def pad(images: "Sequence[Image]", own: ArrayLike | None = None) -> Originals:
    """Put RGB images of any sizes into one array; ``own`` (B, 2): heights and widths, where they were made smaller."""
    sizes = np.array([(image.height, image.width) for image in images], dtype=np.int64).reshape(-1, 2)
    pixels = np.zeros((len(images), 3, *sizes.max(0, initial=1)), dtype=np.uint8)
    for array, image, (height, width) in zip(pixels, images, sizes, strict=True):
        array[:, :height, :width] = np.asarray(image).transpose(2, 0, 1)
    return Originals(pixels, sizes, sizes if own is None else np.asarray(own, dtype=np.int64).reshape(-1, 2))


@dataclass(frozen=True)
class Images:
    """The labelled images of one split, in sorted order: by class name, then by file name.

    Attributes:
        name: data set and split, ``"miniimagenet/val"``.
        classes: the class names, sorted.
        labels: int64 (N,), index into ``classes``.
        names: the file that each image came from.
        groups: int64 (N,) or None; images of a class with the same group (a typeface of glyphs) are near copies,
            which an episode must not divide between support and query.
        fingerprint: counts, sizes and hash.
        path: the file with the encoded bytes.
        offsets: int64 (N + 1,), where each image begins in it.
    """

    name: str
    classes: tuple[str, ...]
    labels: np.ndarray = field(repr=False)
    names: tuple[str, ...] = field(repr=False)
    groups: np.ndarray | None = field(repr=False)
    fingerprint: Fingerprint
    path: Path
    offsets: np.ndarray = field(repr=False)

    def __len__(self) -> int:
        return len(self.names)

    def encoded(self, i: int) -> bytes:
        """The bytes of image ``i`` as they came."""
        i = range(len(self))[i]
        with self.path.open("rb") as file:
            file.seek(int(self.offsets[i]))
            return file.read(int(self.offsets[i + 1] - self.offsets[i]))

    def image(self, i: int) -> "Image":
        """Image ``i``, decoded to RGB in its own size."""
        return decode(self.encoded(i), f"{self.name}: {self.names[range(len(self))[i]]}")

    def originals(self, indices: Sequence[int], max_side: int = 256) -> Originals:
        """Some images as they are, decoded in threads now: what patches are cut from.

        Args:
            indices: which.
            max_side: what is higher or wider is scaled down to it, its aspect kept.

        Raises:
            InputError: an image is damaged.
        """

        def read(i: int) -> "tuple[Image, tuple[int, int]]":
            return _decode(self.encoded(i), f"{self.name}: {self.names[i]}", max_side)

        with ThreadPoolExecutor(WORKERS) as pool:
            images, own = zip(*pool.map(read, [int(i) for i in indices]), strict=True)
        return pad(images, own)

    def pixels(self, size: int) -> np.memmap:
        """All images as uint8 (N, 3, size, size), a read-only memory map made on first use.

        An image is resized to the square (bilinear, antialiased, aspect ignored: the paper's evaluation); one of that
        very size is not resampled. The file lies beside the store under a name with the size and the hash; it is
        written under another name first, so one that is interrupted is never taken for whole; one that is cut off later
        is made again.

        Raises:
            InputError: ``size`` is not positive, or the disk is full or not writable.
        """
        if size < 1:
            raise InputError(f"size: an image side of at least 1 pixel is needed, but got {size}")
        path = self.path.with_name(f"{self.path.stem}.{size}.{self.fingerprint.sha256[:12]}.npy")
        shape = (len(self), 3, size, size)
        if not _is_whole(path, shape):
            with replacing(path, needed=int(np.prod(shape))) as file:
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                self._write_pixels(file, size)
        return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]

    def _write_pixels(self, file: BinaryIO, size: int) -> None:
        # Plain writes, not a writable memory map: on a full disk that one dies of SIGBUS instead of raising.
        with ThreadPoolExecutor(WORKERS) as pool:
            starts = range(0, len(self), BLOCK)
            for start in track(starts, f"decoding {self.name} to {size} x {size}", len(starts)):
                block = range(start, min(start + BLOCK, len(self)))
                for array in pool.map(lambda i: fit(self.image(i), size), block):
                    file.write(array.tobytes())


def _is_whole(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether a file of pixels is there, of its full length; what is wrong with one that is not is told."""
    if not path.is_file():
        return False
    try:
        found = np.load(path, mmap_mode="r").shape
    except (ValueError, EOFError) as error:
        found = error
    if found != shape:
        logging.getLogger(__name__).warning("%s: damaged (%s); decoding the images again", path, found)
    return bool(found == shape)


def fit(image: "Image", size: int) -> np.ndarray:
    """The whole image as size x size, whatever its aspect, as the paper's evaluation does: uint8 (3, size, size)."""
    from PIL import Image

    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)  # (size, size, 3) -> (3, size, size)

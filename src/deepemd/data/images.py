"""One split of a prepared data set: encoded images, their classes, and pixels that are decoded on demand."""

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from deepemd.arrays import open_npy
from deepemd.data.decoding import DECODING, decode, read_image, to_square
from deepemd.errors import InputError
from deepemd.files import atomic_file
from deepemd.progress import track

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Fingerprint", "Images", "Originals", "pad"]

T = TypeVar("T")
WORKERS = min(8, os.cpu_count() or 1)
BLOCK = 512  # images held in memory between reading, decoding and writing


@dataclass(frozen=True)
class Fingerprint:
    """A summary of a split, repeated in every report, because wrong figures are most often due to a wrong data set.

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
        """Return the fields, ready for JSON."""
        return asdict(self)


class Originals(NamedTuple):
    """Images with their own aspect ratios, scaled down to a longest side, in one padded array."""

    pixels: np.ndarray  # uint8 (B, 3, H, W): each image in the upper left corner, zeros around it
    sizes: np.ndarray  # int64 (B, 2): height and width of each image in `pixels`
    original_sizes: np.ndarray  # int64 (B, 2): height and width of each original, before scaling


def pad(images: "Sequence[Image]", original_sizes: ArrayLike | None = None) -> Originals:
    """Put RGB images of any sizes into one array.

    Args:
        images: the images.
        original_sizes: (B, 2) height and width of the originals; by default those of the images, if they were not
            scaled down.
    """
    sizes = np.array([(image.height, image.width) for image in images], dtype=np.int64).reshape(-1, 2)
    pixels = np.zeros((len(images), 3, *sizes.max(0, initial=1)), dtype=np.uint8)
    for array, image, (height, width) in zip(pixels, images, sizes, strict=True):
        array[:, :height, :width] = np.asarray(image).transpose(2, 0, 1)
    if original_sizes is None:
        original_sizes = sizes
    return Originals(pixels, sizes, np.asarray(original_sizes, dtype=np.int64).reshape(-1, 2))


@dataclass(frozen=True)
class Images:
    """The labelled images of one split, in sorted order: by class name, then by file name.

    Attributes:
        name: data set and split, ``"miniimagenet/val"``.
        classes: the class names, sorted.
        labels: int64 (N,), index into ``classes``.
        names: the file name of each image.
        groups: int64 (N,) or None; images of a class with the same group (such as a typeface of glyphs) are near
            copies: an episode never has one in its support and another in its query.
        fingerprint: counts, sizes and hash.
        path: the file with the encoded bytes.
        offsets: int64 (N + 1,), where each image begins in the file.
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
        """Return the unchanged bytes of image ``i``."""
        i = range(len(self))[i]
        with self.path.open("rb") as file:
            file.seek(int(self.offsets[i]))
            return file.read(int(self.offsets[i + 1] - self.offsets[i]))

    def image(self, i: int) -> "Image":
        """Return image ``i``, decoded to RGB in its own size."""
        return decode(self.encoded(i), f"{self.name}: {self.names[range(len(self))[i]]}")

    def originals(self, indices: Sequence[int], max_side: int = 256) -> Originals:
        """Decode some images with their own aspect ratios, in threads, to cut patches from them.

        Args:
            indices: indices of the images.
            max_side: longest side, in pixels; larger images are scaled down, with the same aspect ratio.

        Raises:
            InputError: an image is damaged.
        """

        def read(i: int) -> "tuple[Image, tuple[int, int]]":
            return read_image(self.encoded(i), f"{self.name}: {self.names[i]}", max_side)

        with ThreadPoolExecutor(WORKERS) as pool:
            images, original_sizes = zip(*pool.map(read, [int(i) for i in indices]), strict=True)
        return pad(images, original_sizes)

    def pixels(self, size: int) -> np.memmap:
        """Return all images as uint8 (N, 3, size, size): a read-only memory map of a file, written on first use.

        Each image is resized to the square (bilinear, antialiased, aspect ratio ignored, as in the paper's evaluation);
        an image of exactly that size is not resampled. The file is in the store's folder, and its name contains the
        size, the hash and the version of the decoding. It appears only when it is complete, and a damaged file is
        written again.

        Raises:
            InputError: ``size`` is not positive, or the disk is full or read-only.
        """
        if size < 1:
            raise InputError(f"size: an image side of at least 1 pixel is needed, but got {size}")
        path = self.path.with_name(f"{self.path.stem}.{size}.{self.fingerprint.sha256[:12]}-{DECODING}.npy")
        shape = (len(self), 3, size, size)
        if not _is_complete(path, shape):
            with atomic_file(path, needed=int(np.prod(shape))) as file:
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                self._write_pixels(file, size)
        found = open_npy(path)
        assert isinstance(found, np.memmap)
        return found

    def _write_pixels(self, file: BinaryIO, size: int) -> None:
        # Plain writes raise when the disk is full; a writable memory map would end the process with SIGBUS.
        with ThreadPoolExecutor(WORKERS) as pool:
            starts = range(0, len(self), BLOCK)
            for start in track(starts, f"decoding {self.name} to {size} x {size}", len(self), "images", each=BLOCK):
                block = range(start, min(start + BLOCK, len(self)))
                for square in pool.map(lambda i: to_square(self.image(i), size), block):
                    file.write(np.asarray(square).transpose(2, 0, 1).tobytes())  # (size, size, 3) -> (3, size, size)


def _is_complete(path: Path, shape: tuple[int, ...]) -> bool:
    """Return whether a file of pixels exists in its full length; log a warning if it is damaged."""
    if not path.is_file():
        return False
    try:
        pixels = open_npy(path)
        found: object = (pixels.dtype.str, pixels.shape)
    except ValueError as error:
        found = error
    if found != ("|u1", shape):
        logging.getLogger(__name__).warning("%s: damaged (%s); decoding the images again", path, found)
        return False
    return True

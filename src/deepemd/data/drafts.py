"""Turn labelled files or arrays into a draft: a sorted split that is ready to be written."""

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deepemd.data.archives import Archive
from deepemd.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Draft", "from_arrays", "from_files", "png"]


@dataclass(frozen=True)
class Draft:
    """One split before it is written to a store: its images in sorted order, to be read one by one.

    Attributes:
        classes: class names, sorted and unique.
        labels: int64 (N,), index into ``classes``, ascending.
        names: one name for each image, used in messages.
        read: function that returns the encoded bytes of image i; it is called in order, from one thread.
        groups: int64 (N,) or None, see :class:`deepemd.data.Images`.
        size: total bytes of all images, if known, for the message when the disk is full.
        note: a remark for readers of results, for instance that the images are a reduced copy.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    names: tuple[str, ...]
    read: Callable[[int], bytes]
    groups: np.ndarray | None = None
    size: int = 0
    note: str = ""


def from_files(archive: Archive, rows: Iterable[tuple[str, str, str]], note: str = "") -> Draft:
    """Return a split whose images are files of an archive, unchanged.

    Args:
        archive: the archive, which must stay open until the draft has been read.
        rows: class, name and path in the archive of each image, in any order.
        note: see :class:`Draft`.
    """
    ordered = sorted(rows)
    classes, labels = _classes([label for label, _, _ in ordered])
    paths = [path for _, _, path in ordered]
    size = sum(archive.sizes[path] for path in paths)
    names = tuple(name for _, name, _ in ordered)
    return Draft(classes, labels, names, lambda i: archive.read(paths[i]), size=size, note=note)


def array_png(array: np.ndarray, name: str) -> bytes:
    """Encode pixels as a PNG file, without loss.

    Raises:
        InputError: the array is not uint8 (H, W, 3).
    """
    from PIL import Image

    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise InputError(f"{name} is {array.dtype} {array.shape}, not uint8 (height, width, 3): get the file again")
    return png(Image.fromarray(array))


def from_arrays(
    where: str,
    labels: Sequence[str],
    images: Sequence[np.ndarray] | np.ndarray,
    encode: Callable[[np.ndarray, str], bytes] = array_png,
) -> Draft:
    """Return a split whose images are arrays.

    Args:
        where: the file of the arrays, for messages.
        labels: the class of each image.
        images: an array (N, H, W, 3), or a sequence of arrays.
        encode: encodes an array as an image file; its second argument is a name for messages.

    Raises:
        InputError: the numbers of labels and images differ. Arrays that are not images raise an error when read.
    """
    if len(labels) != len(images):
        raise InputError(f"{where}: {len(images):,} images, but {len(labels):,} labels: get it again")
    order = sorted(range(len(labels)), key=lambda i: (labels[i], i))
    classes, indices = _classes([labels[i] for i in order])
    names = tuple(f"{labels[i]}/{i:06}.png" for i in order)
    size = len(images) * np.asarray(images[0]).nbytes if len(images) else 0
    return Draft(
        classes,
        indices,
        names,
        lambda i: encode(np.asarray(images[order[i]]), f"{where}: image {order[i]}"),
        size=size,
    )


def png(image: "Image") -> bytes:
    """Encode an image as a PNG file, with little but fast compression."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _classes(ordered: list[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the sorted classes of some rows, and each row's index into them: int64 (N,)."""
    classes = tuple(sorted(set(ordered)))
    index = {label: i for i, label in enumerate(classes)}
    return classes, np.array([index[label] for label in ordered], dtype=np.int64)

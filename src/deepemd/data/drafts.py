"""Rows become a draft: one split, in sorted order, ready to be written."""

from collections.abc import Iterable

import numpy as np

from deepemd.data.archives import Archive
from deepemd.data.store import Draft

__all__ = ["from_files"]


def from_files(archive: Archive, rows: Iterable[tuple[str, str, str]], note: str = "") -> Draft:
    """The split whose images are files of an archive, kept as they are.

    Args:
        archive: where the files are; it stays open until the draft has been read.
        rows: class, name and path in the archive of each image, in any order.
        note: see :class:`deepemd.data.store.Draft`.
    """
    ordered = sorted(rows)
    classes, labels = _classes([label for label, _, _ in ordered])
    paths = [path for _, _, path in ordered]
    size = sum(archive.sizes[path] for path in paths)
    names = tuple(name for _, name, _ in ordered)
    return Draft(classes, labels, names, lambda i: archive.read(paths[i]), size=size, note=note)


def _classes(ordered: list[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """The classes of sorted rows, and each row's index into them: int64 (N,)."""
    classes = tuple(sorted(set(ordered)))
    index = {label: i for i, label in enumerate(classes)}
    return classes, np.array([index[label] for label in ordered], dtype=np.int64)

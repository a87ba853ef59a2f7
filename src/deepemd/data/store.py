"""The store of a prepared data set: its unchanged image files, an index, and a fingerprint of each split.

A store is a folder with ``store.json`` (name, source, fingerprints) and, for each split, ``<split>.bin`` (the encoded
images one after another) and ``<split>.npz`` (offsets, labels, groups, names). It may also hold cached pixels and
``skipped.txt``, a list of the bad images that were left out.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deepemd.arrays import read_npz
from deepemd.checks import whole_number
from deepemd.data.images import Fingerprint, Images
from deepemd.errors import InputError
from deepemd.files import file_sha256
from deepemd.json_files import read_description
from deepemd.progress import track

__all__ = ["FORMAT", "SKIPPED", "SPLITS", "Store", "is_store_file", "open_store", "update_hash", "verify"]

FORMAT = 1
SKIPPED = "skipped.txt"
SPLITS = ("base", "val", "novel", "all")  # "all": class folders that are not divided into splits
_REMEDY = "prepare it again with --force (force=True)"
_FILES = re.compile(r"store\.json|skipped\.txt|(base|val|novel|all)(\.bin|\.npz|\.[0-9]+\.[0-9a-f]{12}(-[0-9]+)?\.npy)")


@dataclass(frozen=True)
class Store:
    """A prepared data set.

    Attributes:
        name: name of the data set.
        path: folder of the store.
        splits: the existing splits, in the order base, val, novel; or the one split all.
        notes: the source of the data and how it was prepared.
    """

    name: str
    path: Path
    splits: dict[str, Images]
    notes: dict[str, str]

    @property
    def skipped(self) -> list[str]:
        """One line for each image that ``skip_bad`` left out: its split, its name and the reason."""
        file = self.path / SKIPPED
        return file.read_text(encoding="utf-8").splitlines() if file.is_file() else []


def is_store_file(name: str) -> bool:
    """Return whether a name is one that the files of a store have.

    >>> is_store_file("all.84.0123456789ab.npy"), is_store_file("notes.txt")
    (True, False)
    """
    return _FILES.fullmatch(name) is not None


def update_hash(
    digest: "hashlib._Hash", labels: np.ndarray, groups: np.ndarray | None, names: tuple[str, ...], i: int, data: bytes
) -> None:
    """Add image ``i`` to the hash of a split."""
    group = -1 if groups is None else int(groups[i])
    digest.update(f"\0{int(labels[i])}\0{group}\0{names[i]}\0{len(data)}\0".encode())
    digest.update(data)


def open_store(path: Path) -> Store:
    """Open the store of a prepared data set; only its index is read.

    Raises:
        InputError: there is no store, or one of its files is missing, unreadable, of a wrong length, or not the one
            that was written.
    """
    try:
        description = read_description(path / "store.json", "the prepared store cannot be read", remedy=_REMEDY)
        if description["format"] != FORMAT:
            raise InputError(
                f"{path}: a store of format {description['format']!r:.80}, this version reads format {FORMAT}:"
                f" {_REMEDY}"
            )
        name, notes, sums = description["name"], description["notes"], description.get("index_sha256", {})
        if not isinstance(name, str) or not all(isinstance(note, str) for note in notes.values()):
            raise InputError(f"{path}: name or notes of store.json are no text: {_REMEDY}")
        splits = {
            split: _open_split(path, split, _fingerprint(fields), sums.get(split))
            for split, fields in description["splits"].items()
        }
        if not splits:
            raise InputError(f"{path}: a store without splits: {_REMEDY}")
        return Store(name, path, splits, notes)
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: missing from the prepared store {path}: {_REMEDY}") from error
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: the prepared store cannot be read ({error}): {_REMEDY}") from error


def _fingerprint(fields: dict[str, Any]) -> Fingerprint:
    """Restore a fingerprint, and check its types."""
    found = Fingerprint(**fields)
    for name, value in found.as_dict().items():
        if name in ("name", "order", "sha256"):
            if not isinstance(value, str):
                raise InputError(f"{name} of a split is {value!r:.80}, not text: {_REMEDY}")
        else:
            whole_number(name, value, 0, 2**63 - 1)
    if not re.fullmatch("[0-9a-f]{64}", found.sha256):
        raise InputError(f"the sha256 of a split is {found.sha256!r:.80}: {_REMEDY}")
    return found


def _open_split(path: Path, split: str, fingerprint: Fingerprint, sha256: str | None) -> Images:
    """Read the index of a split; check it, and the length of the file of images."""
    if split not in SPLITS:
        raise InputError(f"{path}: has no split {split!r:.80}: {_REMEDY}")
    file, data = path / f"{split}.npz", path / f"{split}.bin"
    index = read_npz(file, ("offsets", "labels", "groups", "names", "classes"))
    if sha256 is not None and file_sha256(file) != sha256:  # older stores have none
        raise InputError(f"{file}: changed since the store was written: {_REMEDY}")
    offsets, labels, groups = index["offsets"], index["labels"], index["groups"]
    names, classes = tuple(index["names"].tolist()), tuple(index["classes"].tolist())
    integers = all(array.ndim == 1 and array.dtype == np.int64 for array in (offsets, labels, groups))
    if not (
        integers
        and all(array.ndim == 1 and array.dtype.kind == "U" for array in (index["names"], index["classes"]))
        and len(names) == len(labels) == len(offsets) - 1 == fingerprint.images > 0
        and len(groups) in (0, len(labels))
        and len(classes) == fingerprint.classes > 0
        and labels.min() >= 0
        and labels.max() < len(classes)
        and offsets[0] == 0
        and (np.diff(offsets) >= 0).all()
    ):
        raise InputError(f"{file}: damaged, its arrays do not fit together: {_REMEDY}")
    size = data.stat().st_size
    if size != offsets[-1]:
        raise InputError(f"{data}: {size:,} bytes, but its index says {offsets[-1]:,}: {_REMEDY}")
    return Images(fingerprint.name, classes, labels, names, groups if len(groups) else None, fingerprint, data, offsets)


def verify(store: Store) -> list[str]:
    """Read every byte of a store and compare it with its fingerprints; return a list of defects."""
    defects = []
    for split, images in store.splits.items():
        digest = hashlib.sha256("\0".join(images.classes).encode())
        try:
            for i in track(range(len(images)), f"verifying {images.name}", len(images), "images"):
                update_hash(digest, images.labels, images.groups, images.names, i, images.encoded(i))
        except OSError as error:
            defects.append(
                f"{images.path}: cannot be read ({error.strerror}): prepare it again with --force (force=True)"
            )
            continue
        if digest.hexdigest() != images.fingerprint.sha256:
            defects.append(
                f"{images.path}: the {split} split has changed since it was prepared (hash {digest.hexdigest()[:12]}, "
                f"its fingerprint says {images.fingerprint.sha256[:12]}): prepare it again with --force (force=True)"
            )
    return defects

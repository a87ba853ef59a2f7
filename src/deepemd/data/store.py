"""The store of a prepared data set: its unchanged image files, an index, and a fingerprint of each split.

A store is a folder with ``store.json`` (name, source, fingerprints) and, for each split, ``<split>.bin`` (the encoded
images one after another) and ``<split>.npz`` (offsets, labels, groups, names). It may also hold cached pixels and
``skipped.txt``, a list of the bad images that were left out.
"""

import hashlib
import re
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deepemd.arrays import read_npz
from deepemd.checks import whole_number
from deepemd.data.decoding import measure
from deepemd.data.images import BLOCK, WORKERS, Fingerprint, Images
from deepemd.errors import InputError
from deepemd.files import atomic_folder, contents
from deepemd.json_files import json_text, read_json
from deepemd.progress import track

__all__ = ["SPLITS", "Draft", "Store", "is_store_file", "open_store", "verify", "write_store"]

FORMAT = 1
SKIPPED = "skipped.txt"
_MAX_HELD = 64_000_000  # encoded bytes in memory between reading and writing
SPLITS = ("base", "val", "novel", "all")  # "all": class folders that are not divided into splits
_REMEDY = "prepare it again with --force (force=True)"
_FILES = re.compile(r"store\.json|skipped\.txt|(base|val|novel|all)(\.bin|\.npz|\.[0-9]+\.[0-9a-f]{12}(-[0-9]+)?\.npy)")


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


def write_store(
    path: Path,
    name: str,
    drafts: dict[str, Draft],
    notes: dict[str, str],
    *,
    skip_bad: bool = False,
) -> Store:
    """Read, check and write every image of every split; the store appears as ``path`` in one step.

    Each image is decoded once, in a pool of threads, so that a damaged file is found now and not during training.

    Args:
        path: the folder to create.
        name: name of the data set.
        drafts: the splits by their names.
        notes: the source of the data.
        skip_bad: leave out bad images; list them in ``skipped.txt``, and their number in the notes.

    Raises:
        InputError: images cannot be decoded (the first is named, the others are counted) and `skip_bad` is not set, a
            class would be empty without them, the folder exists and holds other files than those of a store, or the
            disk is full.
    """
    _refuse_other(path)
    with atomic_folder(path, needed=sum(draft.size for draft in drafts.values())) as folder:
        prints, sums, skipped = {}, {}, list[str]()
        for split in (split for split in SPLITS if split in drafts):
            fingerprint, bad = _write_split(folder, name, split, drafts[split], skip_bad)
            prints[split], sums[split] = fingerprint.as_dict(), _sha256(folder / f"{split}.npz")
            skipped += [f"{split}: {error}" for error in bad]
        if skipped:
            notes = {**notes, "skipped": f"{len(skipped):,} bad images, listed in {SKIPPED}"}
            lines = "".join(" ".join(line.splitlines()) + "\n" for line in skipped)
            (folder / SKIPPED).write_text(lines, encoding="utf-8")
        description = {"format": FORMAT, "name": name, "notes": notes, "splits": prints, "index_sha256": sums}
        text = json_text(description, path / "store.json", indent=1, ascii_only=False)
        (folder / "store.json").write_text(text, encoding="utf-8")
    return open_store(path)


def _refuse_other(path: Path) -> None:
    """Refuse a folder that holds files which no store has, because replacing it would delete them."""
    with suppress(FileNotFoundError, NotADirectoryError):
        other = next((name for name in contents(path) if not is_store_file(name)), None)
        if other is not None:
            raise InputError(f"{path}: holds {other}, which is not a store's: move it away, or choose another folder")


def is_store_file(name: str) -> bool:
    """Return whether a name is one that the files of a store have.

    >>> is_store_file("all.84.0123456789ab.npy"), is_store_file("notes.txt")
    (True, False)
    """
    return _FILES.fullmatch(name) is not None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_split(
    folder: Path, name: str, split: str, draft: Draft, skip_bad: bool
) -> tuple[Fingerprint, list[InputError]]:
    """Write the two files of a split; return its fingerprint, and an error for each image that was left out."""
    if not draft.names:
        raise InputError(f"{name}/{split}: there are no images in it: check the source")
    good, lengths, sizes, bad = list[int](), [], [], list[InputError]()
    digest = hashlib.sha256("\0".join(draft.classes).encode())
    with (folder / f"{split}.bin").open("wb") as file:
        for i, encoded, size in _checked(f"{name}/{split}", draft):
            if isinstance(size, InputError):
                bad.append(size)
                continue
            file.write(encoded)
            good.append(i)
            lengths.append(len(encoded))
            sizes.append(size)
            _update(digest, draft.labels, draft.groups, draft.names, i, encoded)
    if bad and not skip_bad:
        count = f" ({len(bad):,} of {len(draft.names):,} images are bad)" if len(bad) > 1 else ""
        raise InputError(f"{bad[0]}{count}, or pass --skip-bad (skip_bad=True) to leave bad images out")
    counts = np.bincount(draft.labels[good], minlength=len(draft.classes))
    if not counts.all():
        label = draft.classes[int(counts.argmin())]
        raise InputError(f"{name}/{split}: every image of class {label!r} is bad, the first because of {bad[0]}")
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    groups = np.zeros(0, np.int64) if draft.groups is None else draft.groups[good]
    names, classes = np.array([draft.names[i] for i in good]), np.array(draft.classes)
    np.savez(
        folder / f"{split}.npz", offsets=offsets, labels=draft.labels[good], groups=groups, names=names, classes=classes
    )
    width, height = (int(side) for side in np.median(np.array(sizes), axis=0))
    fingerprint = Fingerprint(
        f"{name}/{split}", len(draft.classes), len(good), int(counts.min()), int(counts.max()),
        width, height, "sorted", digest.hexdigest(),
    )  # fmt: skip
    return fingerprint, bad


def _checked(name: str, draft: Draft) -> Iterator[tuple[int, bytes, tuple[int, int] | InputError]]:
    """Decode all images in threads, some megabytes at a time; yield each with its size or its error."""

    def check(i: int, encoded: bytes | InputError) -> tuple[int, bytes, tuple[int, int] | InputError]:
        if isinstance(encoded, InputError):
            return i, b"", encoded
        try:
            return i, encoded, measure(encoded, draft.names[i])
        except InputError as error:
            return i, b"", error

    def read(i: int) -> bytes | InputError:
        try:
            return draft.read(i)
        except InputError as error:
            return error

    waiting: deque[tuple[int, Future[tuple[int, bytes, tuple[int, int] | InputError]]]] = deque()
    held = 0
    with ThreadPoolExecutor(WORKERS) as pool:
        for i in track(range(len(draft.names)), f"preparing {name}", len(draft.names), "images"):
            encoded = read(i)
            size = 0 if isinstance(encoded, InputError) else len(encoded)
            waiting.append((size, pool.submit(check, i, encoded)))
            held += size
            while held > _MAX_HELD or len(waiting) > BLOCK:
                size, oldest = waiting.popleft()
                held -= size
                yield oldest.result()
        yield from (future.result() for _, future in waiting)


def _update(
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
        description = _description(path / "store.json")
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


def _description(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise FileNotFoundError(None, None, str(path))
    try:
        return read_json(path, remedy=_REMEDY)
    except InputError as error:
        raise InputError(f"{path.parent}: the prepared store cannot be read: {error}") from error


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
    if sha256 is not None and _sha256(file) != sha256:  # older stores have none
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
                _update(digest, images.labels, images.groups, images.names, i, images.encoded(i))
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

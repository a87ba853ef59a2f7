"""Find the user's own photos: class folders, photos to classify, and other files among them."""

import hashlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from deepemd.data.archives import open_archive
from deepemd.data.folders import IMAGES
from deepemd.errors import InputError

__all__ = ["Photos", "class_photos", "duplicates", "query_photos"]

_LAYOUT = "put each class into a folder of its own: {path}/<class>/<photo>, such as {path}/daisy/1.jpg"


@dataclass(frozen=True)
class Photos:
    """Photo files, and the other files that were found among them.

    Attributes:
        files: the photos; those of a folder are sorted.
        labels: the class of each photo, for class folders; else empty.
        others: files that are no photos (videos, documents), which are ignored.
        empty: sorted names of the class folders without a photo.
        warnings: what else the user should know of class folders; one sentence each, with the remedy.
    """

    files: list[Path]
    labels: list[str] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def classes(self) -> list[str]:
        """The sorted names of the classes."""
        return sorted(set(self.labels))


def class_photos(folder: Path) -> Photos:
    """Find the photos of class folders; the class of a photo is the first folder below `folder`, at any depth.

    Hidden files are ignored. Files that are not named like photos, and photos outside of any class folder, are returned
    as `others`.

    Raises:
        InputError: there is no such folder, or there are no class folders with photos in it.
    """
    photos, others = _found(folder)
    inside = [file for file in photos if len(file.relative_to(folder).parts) > 1]
    others += [file for file in photos if len(file.relative_to(folder).parts) == 1]
    if not inside:
        raise InputError(f"{folder}: no class folders with photos in them: {_LAYOUT.format(path=folder)}")
    return Photos(inside, [file.relative_to(folder).parts[0] for file in inside], sorted(others))


def query_photos(paths: Sequence[Path]) -> Photos:
    """Find the photos among files and folders, at any depth.

    A file that is passed directly counts as a photo, whatever its name; it may turn out to be missing or damaged when
    it is read.

    Raises:
        InputError: there are no photos.
    """
    files, others = list[Path](), list[Path]()
    for path in paths:
        if path.is_dir():
            inside, rest = _found(path)
            files += inside
            others += rest
        else:
            files.append(path)
    if not files:
        raise InputError(
            f"{', '.join(map(str, paths)) or 'query'}: no photos there ({', '.join(IMAGES)}): check the path"
        )
    return Photos(list(dict.fromkeys(files)), [], others)


def duplicates(files: Sequence[Path], labels: Sequence[str]) -> list[list[Path]]:
    """Find groups of files with the same content in different classes: one of the labels must be wrong."""
    by_size: dict[int, list[int]] = {}
    for i, file in enumerate(files):
        by_size.setdefault(file.stat().st_size, []).append(i)
    by_hash: dict[str, list[int]] = {}
    for group in (group for group in by_size.values() if len(group) > 1):  # equal files have equal sizes
        for i in group:
            by_hash.setdefault(hashlib.sha256(files[i].read_bytes()).hexdigest(), []).append(i)
    return [[files[i] for i in group] for group in by_hash.values() if len({labels[i] for i in group}) > 1]


def _found(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the files below a folder that are named like photos, and the others."""
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder: check the path")
    with closing(open_archive(folder, folder)) as archive:  # listing a folder needs no scratch space
        files = [folder / name for name in archive.sizes]
    photos = [file for file in files if file.suffix.lower() in IMAGES]
    return photos, [file for file in files if file.suffix.lower() not in IMAGES]

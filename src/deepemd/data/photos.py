"""The user's own photos: class folders and query files, found leniently and told about plainly."""

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
    """Photo files, sorted, and what else was found among them.

    Attributes:
        files: the photos.
        labels: the class of each, for class folders; else empty.
        others: files that are no photos by their name (videos, documents), which are left alone.
    """

    files: list[Path]
    labels: list[str] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)

    @property
    def classes(self) -> list[str]:
        """The names of the classes, sorted."""
        return sorted(set(self.labels))


def class_photos(folder: Path) -> Photos:
    """The photos of class folders; the class of a photo is the first folder below `folder`, however deep it lies.

    Hidden files, files that are not named like photos and photos outside of any class folder are left alone.

    Raises:
        InputError: no such folder, or no class folders with photos in them.
    """
    photos, others = _found(folder)
    inside = [file for file in photos if len(file.relative_to(folder).parts) > 1]
    others += [file for file in photos if len(file.relative_to(folder).parts) == 1]
    if not inside:
        raise InputError(f"{folder}: no class folders with photos in them: {_LAYOUT.format(path=folder)}")
    return Photos(inside, [file.relative_to(folder).parts[0] for file in inside], sorted(others))


def query_photos(paths: Sequence[Path]) -> Photos:
    """The photos of files and folders, however deep; a file that is named is taken whatever its name is.

    Raises:
        InputError: a path that is not there, or no photos.
    """
    files, others = list[Path](), list[Path]()
    for path in paths:
        if path.is_dir():
            inside, rest = _found(path)
            files += inside
            others += rest
        else:
            files.append(path)  # what is missing or no photo is told when it is read
    if not files:
        raise InputError(
            f"{', '.join(map(str, paths)) or 'query'}: no photos there ({', '.join(IMAGES)}): check the path"
        )
    return Photos(list(dict.fromkeys(files)), [], others)


def duplicates(files: Sequence[Path], labels: Sequence[str]) -> list[list[Path]]:
    """Groups of files with the same content in different classes: one of the labels must be wrong."""
    same: dict[str, list[int]] = {}
    sizes: dict[int, list[int]] = {}
    for i, file in enumerate(files):
        sizes.setdefault(file.stat().st_size, []).append(i)
    for group in (group for group in sizes.values() if len(group) > 1):  # only equal sizes can be equal files
        for i in group:
            same.setdefault(hashlib.sha256(files[i].read_bytes()).hexdigest(), []).append(i)
    return [[files[i] for i in group] for group in same.values() if len({labels[i] for i in group}) > 1]


def _found(folder: Path) -> tuple[list[Path], list[Path]]:
    """Files below a folder that are named like photos, and the others."""
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder: check the path")
    with closing(open_archive(folder, folder)) as archive:  # a folder is read where it is
        files = [folder / name for name in archive.sizes]
    photos = [file for file in files if file.suffix.lower() in IMAGES]
    return photos, [file for file in files if file.suffix.lower() not in IMAGES]

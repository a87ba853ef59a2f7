"""Find the user's own photos: class folders, photos to classify, and other files among them."""

import hashlib
import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeAlias

from deepemd.data.archives import Archive, open_archive
from deepemd.data.folders import COMMON, class_folders, find_images
from deepemd.data.layout import listed
from deepemd.data.unpacking import UnpackedPhoto
from deepemd.errors import InputError

__all__ = ["Origin", "PhotoFile", "Photos", "class_photos", "duplicates", "query_photos"]

_LAYOUT = "put each class into a folder of its own: {path}/<class>/<photo>, such as {path}/daisy/1.jpg"


PhotoFile: TypeAlias = Path | UnpackedPhoto
"""The file of a photo; it opens by ``os.fspath`` and prints as the name that the user knows."""


class Origin(NamedTuple):
    """Where a photo to classify comes from, which may say its true label.

    Attributes:
        folders: names of the folders that hold it, from the one that was passed, or from the top of the zip.
        label: its label in the table that names it; None if there is none.
    """

    folders: tuple[str, ...] = ()
    label: str | None = None


@dataclass(frozen=True)
class Photos:
    """Photo files, and the other files that were found among them.

    Attributes:
        files: the photos; those of a folder are sorted.
        labels: the class of each photo, for class folders; else empty.
        others: files that are no photos (videos, documents), which are ignored.
        empty: sorted names of the class folders without a photo.
        warnings: what else the user should know of class folders or tables; one sentence each, with the remedy.
        missing: an error for each photo of a table or a zip that is not there or damaged.
        origins: where each photo to classify comes from; empty for photos of classes.
        source: what the user passed, for messages.
    """

    files: list[PhotoFile]
    labels: list[str] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    missing: list[InputError] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)
    source: str = ""

    @property
    def classes(self) -> list[str]:
        """The sorted names of the classes."""
        return sorted(set(self.labels))


def class_photos(folder: Path) -> Photos:
    """Find the photos of class folders; the class of a photo is the first folder below `folder`, at any depth.

    A file is a photo if it is named like one or begins like one. Hidden files, and those that systems, cameras and
    network drives leave behind, are ignored. All other files, and photos outside of any class folder, are returned as
    `others`. Links are followed, but not to another photo of the class.

    Raises:
        InputError: there is no such folder, or it cannot be read; there are no class folders with photos in it; its
            folders are splits such as train and test; or one folder in it holds all the class folders.
    """
    with closing(_listed(folder)) as archive:
        found = class_folders(archive)
    if not found.rows:
        empty = f" (no photos in {listed(found.empty)})" if found.empty else ""
        raise InputError(f"{folder}: no class folders with photos in them: {_LAYOUT.format(path=folder)}{empty}")
    return Photos(
        [folder / name for _, name in found.rows],
        [label for label, _ in found.rows],
        [folder / name for name in sorted(found.others + found.loose)],
        found.empty,
        found.warnings,
        source=str(folder),
    )


def query_photos(paths: Sequence[Path]) -> Photos:
    """Find the photos among files and folders, at any depth.

    In a folder, photos are recognised as by :func:`class_photos`. A file that is passed directly counts as a photo,
    whatever it holds; it may turn out to be missing or damaged when it is read.

    Raises:
        InputError: there are no photos, or a folder cannot be read.
    """
    files, others = dict[Path, Origin](), list[Path]()
    for path in paths:
        if os.path.isdir(path):
            with closing(_listed(path)) as archive:
                inside, rest = find_images(archive)
            top = path.resolve().name
            files |= {path / name: Origin((top, *name.split("/")[:-1])) for name in inside}
            others += [path / name for name in rest]
        else:
            files[path] = Origin((path.absolute().parent.name,))
    if not files:
        raise InputError(f"{', '.join(map(str, paths)) or 'query'}: no photos there ({COMMON}): check the path")
    once: dict[str, Path] = {}  # each photo once, whichever way it was passed
    for file in files:
        once.setdefault(os.path.abspath(file), file)
    return Photos(list(once.values()), [], others, origins=[files[file] for file in once.values()])


def duplicates(files: Sequence[PhotoFile], labels: Sequence[str]) -> list[list[PhotoFile]]:
    """Find groups of files with the same content in different classes: one of the labels must be wrong."""
    by_size: dict[int, list[int]] = {}
    for i, file in enumerate(files):
        by_size.setdefault(os.stat(file).st_size, []).append(i)
    by_hash: dict[str, list[int]] = {}
    for group in (group for group in by_size.values() if len(group) > 1):  # equal files have equal sizes
        for i in group:
            by_hash.setdefault(hashlib.sha256(Path(files[i]).read_bytes()).hexdigest(), []).append(i)
    return [[files[i] for i in group] for group in by_hash.values() if len({labels[i] for i in group}) > 1]


def _listed(folder: Path) -> Archive:
    """List a folder."""
    if not os.path.isdir(folder):
        found = "a file, not a folder" if os.path.exists(folder) else "there is no such folder"
        raise InputError(f"{folder}: {found}: check the path")
    return open_archive(folder, folder)  # which needs no scratch space

"""Sort classified photos into a folder for each label: copy or link them, never move or overwrite."""

import filecmp
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from deepemd.classifier.prediction import Prediction
from deepemd.data.photos import PhotoFile
from deepemd.data.unpacking import UnpackedPhoto
from deepemd.embedding.stream import Embedded
from deepemd.errors import InputError, printable
from deepemd.files import end_of_name, explain_disk_errors, temporary_sibling
from deepemd.progress import track

__all__ = ["Sorter", "safe_name"]

_REMEDY = "free some space or choose another folder with --sort_into; what is sorted stays"
_UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # on Windows
_MOST = 120  # bytes of a name


def safe_name(name: str, empty: str = "no name") -> str:
    """Return a name that every system accepts for a file or folder, and that leads nowhere else.

    >>> [safe_name(name) for name in ("daisy", "a/b", "..", "con", " ", "müsli.")]
    ['daisy', 'a_b', '_', 'con_', 'no name', 'müsli']
    """
    plain = _UNSAFE.sub("_", name).strip().rstrip(".")
    if name.strip() and not plain:
        plain = "_"
    plain = end_of_name(plain, _MOST)
    if plain.startswith("."):
        plain = f"_{plain[1:]}"
    reserved = _RESERVED.fullmatch(plain)
    return f"{reserved[1]}_{reserved[2] or ''}" if reserved else plain or empty


@dataclass
class Sorter:
    """Collects photos with their labels, and sorts them into ``folder/<label>/`` at the end.

    Args:
        folder: the folder; it is made if it does not exist.
        labels: all labels that photos may get; each has a folder of its own.
        links: make symbolic links to the photos instead of copies.
        apart_from: the folders that hold the photos and those of the classes.

    Raises:
        InputError: the folder, or that of a label, is inside one of `apart_from`, or it is a file.
    """

    folder: Path
    labels: Sequence[str]
    links: bool = False
    apart_from: Sequence[Path] = ()
    copied: int = 0
    found: int = 0
    _photos: list[tuple[PhotoFile, str]] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self._places = self._folders()
        for place in (self.folder, *self._places.values()):
            if os.path.lexists(place) and not place.is_dir():
                raise InputError(f"sort_into: {place} is a file: name a folder")
            real = Path(os.path.realpath(place))
            for other in map(Path, map(os.path.realpath, self.apart_from)):
                if real == other or other in real.parents:
                    raise InputError(
                        f"sort_into: {place} is inside of {other}, whose photos are read: choose a folder outside of it"
                    )

    def add(self, image: PhotoFile, _: Embedded, prediction: Prediction) -> None:
        """Note a photo and its label.

        Raises:
            InputError: links are asked for, and the photo is in a zip.
        """
        if self.links and isinstance(image, UnpackedPhoto):
            raise InputError(f"sort_links: {image} is in a zip, to which no link can lead: leave --sort_links out")
        self._photos.append((image, str(prediction.label)))

    def sort(self) -> str:
        """Copy or link the photos that are not there yet; return the result in one line.

        A photo whose name another file has gets a number. A photo that is there with the same content is left as it is,
        so a run that was stopped is completed by the next one.

        Raises:
            InputError: the disk is full, or a folder cannot be written.
        """
        with (
            explain_disk_errors(self.folder, 0, _REMEDY),
            temporary_sibling(self.folder / "new", folder=True) as scratch,
        ):
            for image, label in track(self._photos, "sorting", len(self._photos), "photos"):
                place = self._places.get(label) or self.folder / safe_name(label)
                place.mkdir(parents=True, exist_ok=True)
                source = _source(image)
                for name in _numbered(safe_name(os.path.basename(str(image)), "photo")):
                    done = _link(source, place / name) if self.links else _copy(source, place / name, scratch / "photo")
                    if done is not None:
                        break
                self.copied += done is True
                self.found += done is False
        photos = "1 photo" if self.copied == 1 else f"{self.copied:,} photos"
        there = f", {self.found:,} more were there already" if self.found else ""
        return f"{photos} {'linked' if self.links else 'copied'} into {printable(self.folder)}{there}"

    def _folders(self) -> dict[str, Path]:
        """Return the folder of each label; labels that no system could tell apart get a number."""
        names: dict[str, str] = {}
        used: set[str] = set()
        for label in sorted(self.labels):
            plain = safe_name(label)
            names[label] = next(
                one for k in count(1) if (one := plain if k == 1 else f"{plain}-{k}").casefold() not in used
            )
            used.add(names[label].casefold())
        return {label: self.folder / name for label, name in names.items()}


def _numbered(name: str) -> Iterator[str]:
    """Yield a file's name, then the name with 2, 3, ... before its ending."""
    stem, dot, ending = name.rpartition(".")
    yield name
    for k in count(2):
        yield f"{stem}-{k}{dot}{ending}" if stem else f"{name}-{k}"


def _source(image: PhotoFile) -> str:
    """Return the path of a photo without links.

    Raises:
        InputError: it is no longer there.
    """
    source = os.path.realpath(image)
    if not os.access(source, os.R_OK):
        raise InputError(f"{image}: no longer there, or cannot be read: restore it, and run the command again")
    return source


def _link(source: str, target: Path) -> bool | None:
    """Link to a photo; return False if the link is there, and None if something else has its name."""
    try:
        os.symlink(source, target)
    except FileExistsError:
        return False if os.path.islink(target) and os.path.realpath(target) == source else None
    return True


def _copy(source: str, target: Path, scratch: Path) -> bool | None:
    """Copy a photo; return False if the copy is there, and None if another file has its name."""
    if os.path.lexists(target):
        return False if target.is_file() and filecmp.cmp(source, target, shallow=False) else None
    shutil.copy2(source, scratch)
    try:
        os.link(scratch, target)  # which never replaces a file
    except FileExistsError:
        return None
    except OSError:  # a file system without hard links
        if os.path.lexists(target):
            return None
        scratch.rename(target)
    else:
        scratch.unlink()
    return True

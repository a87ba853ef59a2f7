"""Photos in zip files: each is unpacked into a temporary folder, and keeps its name in the zip."""

import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from deepemd.data.archives import Archive, open_archive
from deepemd.data.folders import COMMON, Found, class_folders, find_images
from deepemd.data.kinds import named_like_image
from deepemd.data.layout import are_splits, listed, top_folders, wrapper
from deepemd.data.tables import SHEETS, TABLES
from deepemd.errors import InputError
from deepemd.files import explain_disk_errors, temporary_sibling
from deepemd.progress import track

__all__ = ["SEPARATOR", "UnpackedPhoto", "Unpacker", "is_zip"]

SEPARATOR = "!/"
"""Separates the path of a zip from the name of a photo in it: photos.zip!/daisy/1.jpg."""
_REMEDY = "free some space, or set TMPDIR to another folder"


@dataclass(frozen=True)
class UnpackedPhoto(os.PathLike[str]):
    """A photo of a zip: it opens as the unpacked file, and prints as its name in the zip.

    Attributes:
        file: the unpacked file.
        archive: the zip.
        inner: name of the photo in it.
    """

    file: Path
    archive: Path
    inner: str

    def __fspath__(self) -> str:
        return str(self.file)

    def __str__(self) -> str:
        return f"{self.archive}{SEPARATOR}{self.inner}"


def is_zip(path: Path) -> bool:
    """Return whether a file is a zip: by its name, or by its content if it is not named like a photo or a sheet."""
    try:
        other = path.suffix.lower() in (*TABLES, *SHEETS) or named_like_image(path.name)
        return path.is_file() and (path.suffix.lower() == ".zip" or (not other and zipfile.is_zipfile(path)))
    except OSError:
        return False


@dataclass
class Unpacker:
    """Unpacks photos of zips into one temporary folder, which is removed when the block ends.

    The folder can be read by its owner alone. What a killed process leaves, the next one removes.
    """

    _stack: ExitStack = field(default_factory=ExitStack)
    _folder: Path | None = None
    _open: dict[Path, Archive] = field(default_factory=dict)
    _count: int = 0

    @classmethod
    @contextmanager
    def within(cls) -> "Iterator[Unpacker]":
        """Return an unpacker whose folder exists until the block ends."""
        made = cls()
        with made._stack:
            yield made

    def class_photos(self, path: Path) -> tuple[Found, list[UnpackedPhoto], list[InputError]]:
        """Unpack the photos of the class folders of a zip; one folder may hold all class folders.

        Returns:
            What was found, with the class of each photo that could be unpacked; these photos; the errors of the others.

        Raises:
            InputError: the zip is damaged or unsafe, its folders are splits, or there is no space.
        """
        archive = self._archive(path)
        images, _ = find_images(archive)
        if are_splits(top_folders(images)):
            raise InputError(
                f"{path}: its folders {listed(top_folders(images))} are splits, not classes: unpack it, and pass the"
                " folder that holds the class folders"
            )
        prefix = wrapper(images)
        found = class_folders(_inside(archive, prefix))
        photos, bad = self._unpacked(path, [prefix + name for _, name in found.rows])
        good = {photo.inner.removeprefix(prefix) for photo in photos}
        found.rows = [row for row in found.rows if row[1] in good]
        return found, photos, bad

    def photos(self, path: Path) -> tuple[list[UnpackedPhoto], list[str], list[InputError]]:
        """Unpack all photos of a zip; return them, the names of its other files, and the errors of damaged ones.

        Raises:
            InputError: the zip is damaged or unsafe, holds no photos, or there is no space.
        """
        images, others = find_images(self._archive(path))
        if not images:
            raise InputError(f"{path}: no photos in it ({COMMON}): check the zip")
        photos, bad = self._unpacked(path, images)
        return photos, others, bad

    def photo(self, path: Path, inner: str) -> UnpackedPhoto | None:
        """Unpack one photo of a zip; return None if the zip holds no such file.

        Raises:
            InputError: the zip is damaged or unsafe, or there is no space.
        """
        if inner not in self._archive(path).sizes:
            return None
        photos, _ = self._unpacked(path, [inner])
        return photos[0]

    def _archive(self, path: Path) -> Archive:
        if path not in self._open:
            archive = open_archive(path, path.parent)  # a zip needs no scratch space
            self._stack.callback(archive.close)
            self._open[path] = archive
        return self._open[path]

    def _unpacked(self, path: Path, names: list[str]) -> tuple[list[UnpackedPhoto], list[InputError]]:
        archive, folder = self._archive(path), self._made_folder()
        photos, bad = list[UnpackedPhoto](), list[InputError]()
        needed = sum(archive.sizes[name] for name in names)
        for name in track(names, f"unpacking {path.name}", len(names), "photos"):
            try:
                content = archive.read(name)
            except InputError as error:
                bad.append(error)
                continue
            file = folder / f"{self._count:07}"
            with explain_disk_errors(folder.parent, needed, _REMEDY):
                file.write_bytes(content)
            self._count += 1
            photos.append(UnpackedPhoto(file, path, name))
        if bad and not photos:
            raise bad[0]
        return photos, bad

    def _made_folder(self) -> Path:
        if self._folder is None:
            try:
                parent = Path(tempfile.gettempdir())
            except OSError as error:
                raise InputError(
                    "no temporary folder can be written, such as /tmp: set TMPDIR to one that can be"
                ) from error
            with explain_disk_errors(parent, 0, _REMEDY):
                made = self._stack.enter_context(temporary_sibling(parent / "deepemd-photos", folder=True))
                made.chmod(0o700)
            self._folder = made
        return self._folder


def _inside(archive: Archive, prefix: str) -> Archive:
    """Return what a folder of an archive holds; `prefix` is its name with a slash, or empty."""
    if not prefix:
        return archive

    def within(names: "Iterator[str]") -> list[str]:
        return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]

    return replace(
        archive,
        path=Path(f"{archive.path}{SEPARATOR}{prefix[:-1]}"),
        sizes={name: archive.sizes[prefix + name] for name in within(iter(archive.sizes))},
        head=lambda name: archive.head(prefix + name),
        read=lambda name: archive.read(prefix + name),
        folders=within(iter(archive.folders)),
    )

"""One way to read the files of a folder, a zip or a tar."""

import os
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from deepemd.errors import InputError
from deepemd.files import writable

__all__ = ["Archive", "open_archive"]

_LITTER = ("__MACOSX", "Thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class Archive:
    """Files by their path inside ``path``, with ``/`` between folders, and their sizes in bytes; close it after use."""

    path: Path
    sizes: dict[str, int]
    read: Callable[[str], bytes]
    close: Callable[[], None] = lambda: None


def open_archive(path: Path, scratch: Path) -> Archive:
    """List a folder, zip or tar; hidden files are left out.

    A compressed tar can only be read from front to end: it is unpacked once into an unnamed file in ``scratch``.

    Raises:
        InputError: there is no such file, it is neither zip nor tar, or it is truncated.
    """
    try:
        if path.is_dir():
            return _folder(path)
        if not path.is_file():
            raise InputError(f"{path}: there is no such file or folder: check source")
        if zipfile.is_zipfile(path):
            return _zip(path)
        if path.suffix.lower() == ".zip":
            raise InputError(f"{path}: not a zip file, or a truncated one: download it again")
        return _tar(path, scratch)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise InputError(f"{path}: not a zip or tar file, or a truncated one ({error}): download it again") from error


def _folder(path: Path) -> Archive:
    def refuse(error: OSError) -> None:  # os.walk would leave the folder out, and its class with it
        raise InputError(f"{error.filename}: the folder cannot be read ({error.strerror}): give yourself access to it")

    walk = os.walk(path, followlinks=True, onerror=refuse)
    found = (Path(folder) / name for folder, _, names in walk for name in names)
    files = {file.relative_to(path).as_posix(): file for file in found}

    def read(name: str) -> bytes:
        try:
            return files[name].read_bytes()
        except OSError as error:
            raise InputError(f"{files[name]}: cannot be read ({error.strerror}): check the file") from error

    return Archive(path, _visible({name: _size(file) for name, file in files.items()}), read)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:  # a link to a file that is gone
        raise InputError(f"{file}: cannot be read ({error.strerror}): restore or remove it") from error


def _zip(path: Path) -> Archive:
    file = zipfile.ZipFile(path)

    def read(name: str) -> bytes:
        try:
            return file.read(name)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:  # RuntimeError: encrypted
            raise InputError(f"{path}: {name} in it cannot be read ({error}): get the zip again") from error

    return Archive(
        path,
        _visible({info.filename: info.file_size for info in file.infolist() if not info.is_dir()}),
        read,
        file.close,
    )


def _tar(path: Path, scratch: Path) -> Archive:
    places: dict[str, tuple[int, int]] = {}  # name -> offset and size in ``file``
    file: IO[bytes]
    try:
        with tarfile.open(path, "r:") as tar:  # not compressed: its files lie in it as they are
            places = {_plain(member): (member.offset_data, member.size) for member in tar if member.isfile()}
        file = path.open("rb")
    except tarfile.ReadError:
        file = _unpacked(path, scratch, places)

    def read(name: str) -> bytes:
        offset, size = places[name]
        file.seek(offset)
        content = file.read(size)
        if len(content) < size:
            raise InputError(f"{path}: truncated within {name}: download it again")
        return content

    return Archive(path, _visible({name: size for name, (_, size) in places.items()}), read, file.close)


def _unpacked(path: Path, scratch: Path, places: dict[str, tuple[int, int]]) -> IO[bytes]:
    """The files of a compressed tar, one after another; fills ``places``."""
    with ExitStack() as undo, writable(scratch, needed=2 * path.stat().st_size):
        file = undo.enter_context(tempfile.TemporaryFile(dir=scratch))
        with tarfile.open(path, "r:*") as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isfile() else None
                if content is not None:
                    places[_plain(member)] = (file.tell(), member.size)
                    file.write(content.read())
        file.flush()
        undo.pop_all()  # all went well: it stays open as long as the archive
    return file


def _plain(member: tarfile.TarInfo) -> str:
    return member.name.removeprefix("./")


def _visible(sizes: dict[str, int]) -> dict[str, int]:
    """Without files that are hidden or that systems leave behind, sorted by name."""
    return {
        name: sizes[name]
        for name in sorted(sizes)
        if not any(part.startswith(".") or part in _LITTER for part in name.split("/"))
    }

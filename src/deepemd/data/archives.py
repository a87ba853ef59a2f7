"""One way to read the files of a folder, a zip or a tar. Nothing is ever written under a name that an archive gives."""

import lzma
import os
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, TypeVar

from deepemd.errors import InputError
from deepemd.files import explain_disk_errors

__all__ = ["Archive", "open_archive"]

_LITTER = ("__MACOSX", "Thumbs.db", "desktop.ini")
_MOST_BYTES, _MOST_TIMES = 1_000_000_000, 20  # what an archive may unpack to: so much, or so many times its own size
T = TypeVar("T")


@dataclass(frozen=True)
class Archive:
    """Files by their path inside ``path``, with ``/`` between folders, and their sizes in bytes; close it after use."""

    path: Path
    sizes: dict[str, int]
    read: Callable[[str], bytes]
    close: Callable[[], None] = lambda: None


def open_archive(path: Path, scratch: Path) -> Archive:
    """List a folder, zip or tar; hidden files are left out.

    A folder is read through its links. A compressed tar can only be read from front to end: it is unpacked once into
    an unnamed file in ``scratch``.

    Raises:
        InputError: there is no such file, it is neither zip nor tar, it is truncated, or it holds what a data set has
            no use for: names that point outside of it, a name twice, links, devices, or far more than its own size.
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
    except InputError:
        raise
    except PermissionError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): give yourself access to it") from error
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError) as error:
        raise InputError(f"{path}: not a zip or tar file, or a truncated one ({error}): download it again") from error


def _folder(path: Path) -> Archive:
    found = {file.relative_to(path).as_posix(): file for file in _walk(path)}
    files = {name: found[name] for name in _visible(path, found)}

    def read(name: str) -> bytes:
        try:
            return files[name].read_bytes()
        except OSError as error:  # a link to a file that is gone, among others
            raise InputError(f"{files[name]}: cannot be read ({error.strerror}): restore or remove it") from error

    return Archive(path, {name: _size(file) for name, file in files.items()}, read)


def _walk(path: Path) -> Iterator[Path]:
    """Every file in a folder, also through links, but never round in a circle of them."""

    def refuse(error: OSError) -> None:  # os.walk would leave the folder out, and its class with it
        raise InputError(f"{error.filename}: the folder cannot be read ({error.strerror}): give yourself access to it")

    real: dict[str, tuple[str, ...]] = {
        str(path): (os.path.realpath(path),)
    }  # a folder and those that it was reached through, without links
    for folder, subfolders, names in os.walk(path, followlinks=True, onerror=refuse):
        through = real.pop(folder)
        for name in subfolders:
            inner = os.path.join(folder, name)
            here = os.path.realpath(inner)
            if here in through:
                raise InputError(f"{inner}: a link back to {here}, which holds it: remove the link")
            real[inner] = (*through, here)
        yield from (Path(folder) / name for name in names)


def _size(file: Path) -> int:
    try:
        status = file.stat()
    except OSError:  # a link to a file that is gone: whoever reads it is told
        return 0
    if not stat.S_ISREG(status.st_mode):  # to read a pipe would be to wait for ever
        raise InputError(f"{file}: a pipe, socket or device, not a file: remove it")
    return status.st_size


def _zip(path: Path) -> Archive:
    with ExitStack() as undo:
        file = undo.enter_context(zipfile.ZipFile(path))
        # Some programs on Windows write backslashes between folders, which the zip format does not allow.
        listed = [(info.filename.replace("\\", "/"), info) for info in file.infolist()]
        entries = _unique(path, [(_plain(name), info) for name, info in listed if not name.endswith("/")])
        for name, info in entries.items():
            if stat.S_ISLNK(info.external_attr >> 16):
                raise InputError(f"{path}: {name} in it is a link: pack the files themselves")
        _refuse_bomb(path, sum(info.file_size for info in entries.values()))
        undo.pop_all()

    def read(name: str) -> bytes:
        try:
            with file.open(entries[name]) as entry:
                return entry.read(entries[name].file_size)  # no more than it claims, whatever it unpacks to
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError) as error:
            # RuntimeError: encrypted, or a compression that Python does not know
            raise InputError(f"{path}: {name} in it cannot be read ({error}): get the zip again") from error

    return Archive(path, {name: info.file_size for name, info in entries.items()}, read, file.close)


def _tar(path: Path, scratch: Path) -> Archive:
    places: dict[str, tuple[int, int]]  # name -> offset and size in ``file``
    file: IO[bytes]
    try:
        with tarfile.open(path, "r:") as tar:  # not compressed: its files lie in it as they are
            places = _places(path, tar, lambda member: member.offset_data)
            end = tar.offset
        file = path.open("rb")
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile takes a damaged header for the end
            file.close()
            raise InputError(f"{path}: truncated or damaged after {len(places):,} files: download it again")
    except tarfile.ReadError:
        places, file = _unpacked(path, scratch)

    def read(name: str) -> bytes:
        offset, size = places[name]
        file.seek(offset)
        content = file.read(size)
        if len(content) < size:
            raise InputError(f"{path}: truncated within {name}: download it again")
        return content

    return Archive(path, {name: size for name, (_, size) in places.items()}, read, file.close)


def _unpacked(path: Path, scratch: Path) -> tuple[dict[str, tuple[int, int]], IO[bytes]]:
    """The files of a compressed tar, one after another, and where each lies."""
    with ExitStack() as undo, explain_disk_errors(scratch, needed=2 * path.stat().st_size):
        file = undo.enter_context(tempfile.TemporaryFile(dir=scratch))

        def keep(member: tarfile.TarInfo) -> int:
            place = file.tell()
            _refuse_bomb(path, place + member.size)
            content = tar.extractfile(member)
            if content is not None:
                shutil.copyfileobj(content, file)
            return place

        try:
            with tarfile.open(path, "r:*") as tar:
                places = _places(path, tar, keep)
                while tar.fileobj is not None and tar.fileobj.read(1 << 20):
                    pass  # to the end, where the checksum is
        except OSError as error:
            if error.errno is None:  # not the disk's error, but that of gzip or bz2
                raise tarfile.ReadError(str(error)) from error
            raise
        file.flush()
        undo.pop_all()  # all went well: it stays open as long as the archive
    return places, file


def _places(path: Path, tar: tarfile.TarFile, keep: Callable[[tarfile.TarInfo], int]) -> dict[str, tuple[int, int]]:
    """Where each file of a tar lies, as `keep` says, and its size; a hard link is the file that it stands for."""
    all_places: list[tuple[str, tuple[int, int]]] = []
    first: dict[str, tuple[int, int]] = {}
    for member in tar:
        if member.isdir() or not _visible(path, [_plain(member.name)]):
            continue
        if member.islnk() and _plain(member.linkname) in first:
            place = first[_plain(member.linkname)]
        elif member.isfile() and not member.issparse():
            place = (keep(member), member.size)
        else:
            kind = f"a link to {member.linkname}" if member.islnk() or member.issym() else "not an ordinary file"
            raise InputError(f"{path}: {member.name} in it is {kind}: pack the files themselves (tar --dereference)")
        first[_plain(member.name)] = place
        all_places.append((_plain(member.name), place))
    _refuse_bomb(path, sum(size for _, (_, size) in all_places))
    return _unique(path, all_places)


def _plain(name: str) -> str:
    """Without what stands for no folder: ./a//b is a/b. A slash at the front stays, to be refused."""
    first, *rest = name.split("/")
    return "/".join(part for part in ([] if first == "." else [first]) + [p for p in rest if p not in ("", ".")])


def _unique(path: Path, entries: list[tuple[str, T]]) -> dict[str, T]:
    """The visible entries by name, sorted; none may be there twice."""
    found = dict(entries)
    names = _visible(path, [name for name, _ in entries])
    twice = next((name for name, after in pairwise(names) if name == after), None)
    if twice is not None:
        raise InputError(f"{path}: holds two files {twice}: pack it again with one of them")
    return {name: found[name] for name in names}


def _visible(path: Path, names: Iterable[str]) -> list[str]:
    """Without files that are hidden or that systems leave behind, sorted.

    Raises:
        InputError: a name points outside of ``path``, or is not text.
    """
    visible = []
    for name in sorted(names):
        parts = name.split("/")
        if ".." in parts or not parts[0] or re.fullmatch("[A-Za-z]:", parts[0]):
            raise InputError(f"{path}: holds a file {name}, a name that points outside of it: do not trust it")
        if any(part.startswith(".") or part in _LITTER for part in parts):
            continue
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{path}: the name of {name!a} in it is not UTF-8: rename the file") from error
        visible.append(name)
    return visible


def _refuse_bomb(path: Path, unpacked: int) -> None:
    """Refuse what unpacks to far more than images can: it would fill the memory or the disk."""
    if unpacked > max(_MOST_BYTES, _MOST_TIMES * path.stat().st_size):
        raise InputError(
            f"{path}: unpacks to {unpacked:,} bytes from {path.stat().st_size:,}, which images do not: do not trust it"
        )

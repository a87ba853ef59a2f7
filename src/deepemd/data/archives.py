"""Read the files of a folder, zip or tar through one interface. No file is written under a name from an archive."""

import lzma
import os
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import IO, TypeVar

from deepemd.data.kinds import HEAD, is_system
from deepemd.data.walk import walk
from deepemd.errors import InputError
from deepemd.files import explain_disk_errors
from deepemd.progress import Progress, track

__all__ = ["Archive", "open_archive"]

_MAX_BYTES, _MAX_RATIO = 1_000_000_000, 20  # an archive may unpack to this size, or to this multiple of its own
# RuntimeError: a zip is of a version, or compressed by a method, that Python does not support.
# ValueError: a name is not text.
_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, ValueError)
T = TypeVar("T")


@dataclass(frozen=True)
class Archive:
    """The files of a folder or archive; close it after use.

    Attributes:
        path: the folder or archive.
        sizes: size in bytes of each file, by its path inside, with ``/`` between folders.
        read: returns the content of a file, given its path inside.
        head: returns the first bytes of a file, nothing if it cannot be read.
        close: closes the archive.
        folders, links, hidden: see :class:`deepemd.data.walk.Tree`; only a folder has links.
    """

    path: Path
    sizes: dict[str, int]
    read: Callable[[str], bytes]
    head: Callable[[str], bytes]
    close: Callable[[], None] = lambda: None
    folders: Collection[str] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    hidden: Sequence[str] = ()


def open_archive(path: Path, scratch: Path) -> Archive:
    """List a folder, zip or tar; hidden files, and those that systems make for themselves, are left out.

    Links in a folder are followed. A compressed tar can only be read from front to end, so it is unpacked once, into an
    unnamed file in ``scratch``.

    Raises:
        InputError: there is no such file; it is neither a zip nor a tar; it is truncated; or it contains things that no
            data set needs: names that point outside of it, duplicate names, links, devices, or far more bytes than its
            own size.
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
    except (tarfile.TarError, *_DAMAGE) as error:
        raise InputError(f"{path}: not a zip or tar file, or a truncated one ({error}): download it again") from error


def _folder(path: Path) -> Archive:
    with Progress(f"listing {path}"):
        tree = walk(path)

    def read(name: str) -> bytes:
        try:
            return (path / name).read_bytes()
        except OSError as error:  # such as a broken link
            raise InputError(f"{path / name}: cannot be read ({error.strerror}): restore or remove it") from error

    def head(name: str) -> bytes:
        with suppress(OSError), open(os.path.join(path, name), "rb", buffering=0) as file:
            return file.read(HEAD)
        return b""

    return Archive(path, tree.sizes, read, head, folders=tree.folders, links=tree.links, hidden=tree.hidden)


def _zip(path: Path) -> Archive:
    with ExitStack() as undo:
        file = undo.enter_context(zipfile.ZipFile(path))
        # Some programs on Windows write backslashes between folders, which the zip format does not allow.
        listed = [(info.filename.replace("\\", "/"), info) for info in file.infolist()]
        entries = _unique(path, [(_plain(name), info) for name, info in listed if not name.endswith("/")])
        for name, info in entries.items():
            if stat.S_ISLNK(info.external_attr >> 16):
                raise InputError(f"{path}: {name} in it is a link: pack the files themselves")
            if info.flag_bits & 1:
                raise InputError(f"{path}: {name} in it is encrypted: unpack it with its password, and pass the folder")
        _refuse_bomb(path, sum(info.file_size for info in entries.values()))
        undo.pop_all()

    def read(name: str) -> bytes:
        try:
            with file.open(entries[name]) as entry:
                return entry.read(entries[name].file_size)  # never more than the stated size
        except _DAMAGE as error:
            raise InputError(f"{path}: {name} in it cannot be read ({error}): get the zip again") from error

    def head(name: str) -> bytes:
        with suppress(*_DAMAGE), file.open(entries[name]) as entry:
            return entry.read(HEAD)
        return b""

    sizes = {name: info.file_size for name, info in entries.items()}
    folders = _folders(sizes, [name for name, _ in listed if name.endswith("/")])
    return Archive(path, sizes, read, head, file.close, folders)


def _tar(path: Path, scratch: Path) -> Archive:
    places: dict[str, tuple[int, int]]  # name -> offset and size in `file`
    file: IO[bytes]
    folders: list[str] = []
    try:
        with tarfile.open(path, "r:") as tar:  # not compressed, so files can be read in place
            places = _places(path, tar, lambda member: member.offset_data, folders)
            end = tar.offset
        file = path.open("rb")
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile takes a damaged header for the end
            file.close()
            raise InputError(f"{path}: truncated or damaged after {len(places):,} files: download it again")
    except tarfile.ReadError:
        places, file = _unpacked(path, scratch, folders)

    def read(name: str) -> bytes:
        offset, size = places[name]
        file.seek(offset)
        content = file.read(size)
        if len(content) < size:
            raise InputError(f"{path}: truncated within {name}: download it again")
        return content

    def head(name: str) -> bytes:
        offset, size = places[name]
        file.seek(offset)
        return file.read(min(size, HEAD))

    sizes = {name: size for name, (_, size) in places.items()}
    return Archive(path, sizes, read, head, file.close, _folders(sizes, folders))


def _unpacked(path: Path, scratch: Path, folders: list[str]) -> tuple[dict[str, tuple[int, int]], IO[bytes]]:
    """Unpack a compressed tar into one unnamed file; return where each of its files begins, its size, and the file.

    The folders in it are added to `folders`.
    """
    with ExitStack() as undo, explain_disk_errors(scratch, needed=2 * path.stat().st_size):
        file = undo.enter_context(tempfile.TemporaryFile(dir=scratch))

        def unpack(member: tarfile.TarInfo) -> int:
            offset = file.tell()
            _refuse_bomb(path, offset + member.size)
            content = tar.extractfile(member)
            if content is not None:
                shutil.copyfileobj(content, file)
            return offset

        try:
            with tarfile.open(path, "r:*") as tar:
                folders.clear()
                members = track(tar, f"unpacking {path.name}", unit="files")
                places = _places(path, members, unpack, folders)
                while tar.fileobj is not None and tar.fileobj.read(1 << 20):
                    pass  # read to the end, to verify the checksum there
        except OSError as error:
            if error.errno is None:  # raised by gzip or bz2, not by the disk
                raise tarfile.ReadError(str(error)) from error
            raise
        file.flush()
        undo.pop_all()  # the file stays open until the archive is closed
    return places, file


def _places(
    path: Path, members: Iterable[tarfile.TarInfo], locate: Callable[[tarfile.TarInfo], int], folders: list[str]
) -> dict[str, tuple[int, int]]:
    """Return the offset, found by `locate`, and the size of each file of a tar; a hard link has those of its target.

    The folders of the tar are added to `folders`.
    """
    all_places: list[tuple[str, tuple[int, int]]] = []
    by_name: dict[str, tuple[int, int]] = {}
    for member in members:
        if member.isdir():
            folders.append(member.name)
        if member.isdir() or not _visible(path, [_plain(member.name)]):
            continue
        if member.islnk() and _plain(member.linkname) in by_name:
            place = by_name[_plain(member.linkname)]
        elif member.isfile() and not member.issparse():
            place = (locate(member), member.size)
        else:
            kind = f"a link to {member.linkname}" if member.islnk() or member.issym() else "not an ordinary file"
            raise InputError(f"{path}: {member.name} in it is {kind}: pack the files themselves (tar --dereference)")
        by_name[_plain(member.name)] = place
        all_places.append((_plain(member.name), place))
    _refuse_bomb(path, sum(size for _, (_, size) in all_places))
    return _unique(path, all_places)


def _plain(name: str) -> str:
    """Simplify a path: ./a//b becomes a/b. A leading slash stays, to be refused later."""
    first, *rest = name.split("/")
    return "/".join(part for part in ([] if first == "." else [first]) + [p for p in rest if p not in ("", ".")])


def _folders(names: Iterable[str], folders: Iterable[str]) -> set[str]:
    """Return the visible folders of an archive: those of its visible files, and the `folders` that it lists."""
    found = {name.rpartition("/")[0] for name in names} | {_plain(name) for name in folders}
    found |= {name[:k] for name in found for k, letter in enumerate(name) if letter == "/"}  # the folders above
    return {name for name in found if name and not any(map(is_system, name.split("/")))}


def _unique(path: Path, entries: list[tuple[str, T]]) -> dict[str, T]:
    """Return the visible entries by name, sorted; raise an error for a duplicate name."""
    found = dict(entries)
    names = _visible(path, [name for name, _ in entries])
    twice = next((name for name, after in pairwise(names) if name == after), None)
    if twice is not None:
        raise InputError(f"{path}: holds two files {twice}: pack it again with one of them")
    return {name: found[name] for name in names}


def _visible(path: Path, names: Iterable[str]) -> list[str]:
    """Return the sorted names, without hidden files and files that operating systems leave behind.

    Raises:
        InputError: a name points outside of ``path``, or is not text.
    """
    visible = []
    for name in sorted(names):
        parts = name.split("/")
        if ".." in parts or not parts[0] or re.fullmatch("[A-Za-z]:", parts[0]):
            raise InputError(f"{path}: holds a file {name}, a name that points outside of it: do not trust it")
        if any(map(is_system, parts)):
            continue
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{path}: the name of {name!a} in it is not UTF-8: rename the file") from error
        visible.append(name)
    return visible


def _refuse_bomb(path: Path, unpacked: int) -> None:
    """Refuse an archive that unpacks to far more than images would: it could fill the memory or the disk."""
    if unpacked > max(_MAX_BYTES, _MAX_RATIO * path.stat().st_size):
        raise InputError(
            f"{path}: unpacks to {unpacked:,} bytes from {path.stat().st_size:,}, far more than images: do not trust it"
        )

"""Write files and folders atomically: under its final name, a file is always complete.

Everything is written under a temporary name in the same folder, flushed to disk, and renamed in one step. If the disk
is full, nothing remains. A killed process leaves at most a ``.tmp-*`` file, which is never read and which the next
writer to that folder removes: each writer holds a lock on its temporary file, and the kernel releases the lock when the
process ends, so it cannot go stale. A temporary name holds a check sum of its random half, so that nothing is removed
that this module has not named, and links are never followed.
"""

import ctypes
import errno
import hashlib
import os
import re
import shutil
import stat
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from deepemd.errors import InputError

__all__ = [
    "atomic_file",
    "atomic_folder",
    "atomic_write",
    "check_current_folder",
    "contents",
    "end_of_name",
    "explain_disk_errors",
    "file_sha256",
    "lock_file",
    "remove_leftovers",
    "sync",
    "temporary_name",
    "temporary_sibling",
]

_TEMPORARY = re.compile(r"\.tmp-([0-9a-f]{16})([0-9a-f]{16})-")
_TAIL = 60  # bytes of a file's name that are part of its temporary name; a name may have no more than 255 in all

_DATA_REMEDY = "free some space or choose another place by root= or the variable DEEPEMD_DATA"


def atomic_write(path: Path, content: bytes, remedy: str = "free some space or choose another folder") -> Path:
    """Write a file, which appears only when it is complete; the folder is created if needed.

    Args:
        path: the file.
        content: its bytes.
        remedy: what to do if it cannot be written, for the message.

    Raises:
        InputError: the disk is full, or the folder cannot be written.
    """
    with atomic_file(path, len(content), remedy) as file:
        file.write(content)
    return path


@contextmanager
def atomic_file(
    path: Path, needed: int, remedy: str = _DATA_REMEDY, *, previous: Path | None = None
) -> Iterator[BinaryIO]:
    """Open a file for writing that appears as ``path`` when the block ends without an error.

    Args:
        path: the file.
        needed: its approximate size in bytes, for the message when the disk is full.
        remedy: what to do if it cannot be written, for the message.
        previous: the name to which an older ``path`` is renamed; at every moment one of the two exists.

    Raises:
        InputError: the disk is full, or the folder cannot be written.
    """
    with explain_disk_errors(path.parent, needed, remedy), temporary_sibling(path) as temporary:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.exists():
            path.replace(previous)
        temporary.replace(path)
        sync(path.parent)


@contextmanager
def atomic_folder(path: Path, needed: int) -> Iterator[Path]:
    """Create a folder to fill that appears as ``path`` when the block ends without an error.

    An older ``path`` stays until then, and is exchanged for the new one in one step if the system supports it (Linux).
    If two processes write the same folder, one of the two results remains.

    Args:
        path: the folder.
        needed: approximate size of its files in bytes, for the message when the disk is full.

    Raises:
        InputError: the disk is full, or the folder cannot be written.
    """
    with explain_disk_errors(path.parent, needed), temporary_sibling(path, folder=True) as temporary:
        yield temporary
        for written in (*temporary.rglob("*"), temporary):
            sync(written)
        if not (path.exists() and _exchange(temporary, path)):
            _replace_in_two_steps(temporary, path)
        sync(path.parent)


@contextmanager
def temporary_sibling(path: Path, *, folder: bool = False) -> Iterator[Path]:
    """Create an empty temporary file or folder next to ``path``; remove it at the end unless it was renamed.

    Leftovers of killed processes are removed first. The parent folder is created if needed.
    """
    remove_leftovers(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path, uuid.uuid4().hex[:16])
    lock = None
    try:
        lock = _locked(temporary, temporary.mkdir if folder else temporary.touch)
        yield temporary
    finally:
        _remove(temporary)
        if lock is not None:
            os.close(lock)


def temporary_name(path: Path, half: str) -> Path:
    """Return a temporary name next to `path`, with the end of its name, such as its suffix.

    Args:
        path: the file or folder.
        half: 16 hexadecimal digits that the name begins with.

    Raises:
        InputError: the path has no name, such as `.` or `/`.
    """
    if not path.name:
        raise InputError(f"{path}: cannot be replaced as a whole: name a file or folder in it, such as {path / 'new'}")
    return path.with_name(f".tmp-{half}{_check_sum(half)}-{end_of_name(path.name, _TAIL)}")


def end_of_name(name: str, limit: int) -> str:
    """Return the end of a file's name, in at most `limit` bytes; the whole name if it is not longer.

    >>> end_of_name("a photo.jpg", 5)
    'o.jpg'
    """
    while len(os.fsencode(name)) > limit:
        name = name[1:]
    return name


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files that killed processes left in a folder, but not those that are being written.

    Only files and folders that :func:`temporary_name` has named are removed, and links are left alone.
    """
    if sys.platform == "win32":  # without locks, nobody knows which writers are alive
        return
    with suppress(OSError):
        for name in filter(_is_temporary, os.listdir(folder)):
            with suppress(OSError):  # its writer is alive, or another process was first
                kind = os.lstat(folder / name).st_mode
                if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
                    continue
                descriptor = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW)
                try:
                    lock_file(descriptor)
                    _remove(folder / name)
                finally:
                    os.close(descriptor)


def check_current_folder() -> None:
    """Raise an InputError if the current folder was removed while it was open."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise InputError("the current folder no longer exists: change to another one with cd") from error


def contents(folder: Path) -> list[str]:
    """Return the sorted names in a folder, without those of temporary files."""
    return sorted(name for name in os.listdir(folder) if not _is_temporary(name))


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lock_file(descriptor: int) -> None:
    """Lock an open file, or a folder on POSIX, until it is closed or this process ends.

    Raises:
        BlockingIOError: another process holds the lock.
        OSError: the file system has no locks.
    """
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(error.errno, error.strerror) from error
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _check_sum(half: str) -> str:
    return hashlib.blake2b(half.encode(), digest_size=8, person=b"deepemd").hexdigest()


def _is_temporary(name: str) -> bool:
    found = _TEMPORARY.match(name)
    return found is not None and found[2] == _check_sum(found[1])


def _locked(path: Path, make: Callable[[], None]) -> int | None:
    """Create a file or folder and lock it; return None on systems without locks, where leftovers are not removed."""
    if sys.platform == "win32":
        make()
        return None
    import fcntl

    while True:
        make()
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:  # another process removed it before it was locked: try again
            continue
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if path.exists():
            return descriptor
        os.close(descriptor)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; return False if the system or the file system does not support it."""
    if sys.platform != "linux":
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except AttributeError:  # a C library older than 2018, or musl
        return False
    return bool(renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def _replace_in_two_steps(temporary: Path, path: Path) -> None:
    old = temporary.with_name(f"{temporary.name}-old")
    try:
        if path.exists():
            path.rename(old)
        try:
            temporary.rename(path)
        except OSError:
            if not path.exists():
                if old.exists():
                    old.rename(path)
                raise
            # Another process was first, and its folder is just as good.
    finally:
        _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def explain_disk_errors(folder: Path, needed: int, remedy: str = _DATA_REMEDY) -> Iterator[None]:
    """Turn disk errors into an InputError with one clear message.

    Args:
        folder: the folder that the block writes to.
        needed: approximate number of bytes that it writes; 0 if that is not known.
        remedy: what to do if it cannot be written, for the message.
    """
    try:
        yield
    except OSError as error:
        if _is_temporary(folder.name):
            folder = folder.parent
        size = f"; about {max(1, round(needed / 1e6)):,} MB ({needed:,} bytes) are needed there" if needed else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            found = "the disk is full" if error.errno == errno.ENOSPC else "a quota or file size limit was reached"
            raise InputError(f"{folder}: {found}{size}: {remedy}; no half-written file is left") from error
        raise InputError(f"{folder}: cannot be written ({error.strerror or error}){size}: {remedy}") from error


def sync(path: Path) -> None:
    """Flush a file to the disk, or the names in a folder, so that they survive a power failure; on POSIX systems."""
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

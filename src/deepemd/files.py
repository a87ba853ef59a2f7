"""Write files and folders atomically: under its final name, a file is always complete.

Everything is written under a temporary name in the same folder, flushed to disk, and renamed in one step. If the disk
is full, nothing remains. A killed process leaves at most a ``.tmp-*`` file, which is never read and which the next
writer to that folder removes: each writer holds a lock on its temporary file, and the kernel releases the lock when the
process ends, so it cannot go stale.
"""

import ctypes
import errno
import os
import re
import shutil
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
    "explain_disk_errors",
    "remove_leftovers",
    "temporary_sibling",
]

_LEFTOVER = re.compile(r"\.tmp-[0-9a-f]{32}-")

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
        _sync_folder(path.parent)


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
        for written in temporary.rglob("*"):
            if written.is_dir():
                _sync_folder(written)
            else:
                with written.open("rb") as file:
                    os.fsync(file.fileno())
        _sync_folder(temporary)
        if not (path.exists() and _exchange(temporary, path)):
            _replace_in_two_steps(temporary, path)
        _sync_folder(path.parent)


@contextmanager
def temporary_sibling(path: Path, *, folder: bool = False) -> Iterator[Path]:
    """Create an empty temporary file or folder next to ``path``; remove it at the end unless it was renamed.

    Leftovers of killed processes are removed first. The parent folder is created if needed.
    """
    remove_leftovers(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex}-{path.name}")
    lock = None
    try:
        lock = _locked(temporary, temporary.mkdir if folder else temporary.touch)
        yield temporary
    finally:
        _remove(temporary)
        if lock is not None:
            os.close(lock)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files that killed processes left in a folder, but not those that are being written."""
    if sys.platform == "win32":  # without locks, nobody knows which writers are alive
        return
    import fcntl

    with suppress(OSError):
        for name in filter(_LEFTOVER.match, os.listdir(folder)):
            with suppress(OSError):  # its writer is alive, or another process was first
                descriptor = os.open(folder / name, os.O_RDONLY)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _remove(folder / name)
                finally:
                    os.close(descriptor)


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
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def explain_disk_errors(folder: Path, needed: int, remedy: str = _DATA_REMEDY) -> Iterator[None]:
    """Turn disk errors into an InputError with one clear message.

    Args:
        folder: the folder that the block writes to.
        needed: approximate number of bytes that it writes.
        remedy: what to do if it cannot be written, for the message.
    """
    try:
        yield
    except OSError as error:
        size = f"about {max(1, round(needed / 1e6)):,} MB ({needed:,} bytes) are needed there"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            found = "the disk is full" if error.errno == errno.ENOSPC else "a quota or file size limit was reached"
            raise InputError(f"{folder}: {found}; {size}: {remedy}; no half-written file is left") from error
        raise InputError(f"{folder}: cannot be written ({error.strerror or error}); {size}: {remedy}") from error


def _sync_folder(folder: Path) -> None:
    """Make a rename in a folder durable, on POSIX systems."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

"""Writing files and folders so that what is there under its name is always whole.

Everything is written under a temporary name beside its place, flushed to the disk, and renamed in one step. A process
that is killed leaves at most a ``.tmp-*`` leftover, which nothing reads; one whose disk is full leaves nothing.
"""

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from deepemd.errors import InputError

__all__ = ["replacing", "replacing_folder", "writable", "write"]

_DATA_REMEDY = "free some space or choose another place by root= or the variable DEEPEMD_DATA"


def write(path: Path, content: bytes, remedy: str = "free some space or choose another folder") -> Path:
    """Put a small file in its place whole or not at all; the folder is made if need be."""
    with writable(path.parent, len(content), remedy):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, len(content), remedy) as file:
        file.write(content)
    return path


@contextmanager
def replacing(path: Path, needed: int, remedy: str = _DATA_REMEDY) -> Iterator[BinaryIO]:
    """Write a file that appears as ``path`` only when the block has ended without an error."""
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex}-{path.name}")
    try:
        with writable(path.parent, needed, remedy):
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path, needed: int) -> Iterator[Path]:
    """Fill a folder that appears as ``path`` only when the block has ended without an error.

    An older ``path`` stays until then. Where two processes write the same folder, one of the two is kept.
    """
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex}-{path.name}")
    old = path.with_name(f".tmp-{uuid.uuid4().hex}-{path.name}-old")
    try:
        with writable(path.parent, needed):
            temporary.mkdir(parents=True)
            yield temporary
            for file in (path for path in temporary.rglob("*") if path.is_file()):
                with file.open("rb") as written:
                    os.fsync(written.fileno())
            _sync_folder(temporary)
            if path.exists():
                path.rename(old)
            try:
                temporary.rename(path)
            except OSError:
                if not path.exists():
                    if old.exists():
                        old.rename(path)
                    raise
                # another process was first: its folder is as good
            _sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def writable(folder: Path, needed: int, remedy: str = _DATA_REMEDY) -> Iterator[None]:
    """Turn the disk's errors into one clear message."""
    try:
        yield
    except OSError as error:
        size = f"about {max(1, round(needed / 1e6)):,} MB ({needed:,} bytes) are needed there"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            found = "the disk is full" if error.errno == errno.ENOSPC else "a quota or file size limit was reached"
            raise InputError(f"{folder}: {found}; {size}: {remedy}; nothing half-written was kept") from error
        raise InputError(f"{folder}: cannot be written ({error.strerror or error}); {size}: {remedy}") from error


def _sync_folder(folder: Path) -> None:
    """Make a rename in a folder durable; only POSIX can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

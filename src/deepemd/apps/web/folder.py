"""The folder of uploaded files, which is removed when the app ends, or else when the next one starts."""

import os
import re
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deepemd.errors import InputError

__all__ = ["scratch_folder", "upload_folder"]

_FOLDER = re.compile(r"deepemd-app-[0-9a-f]{32}")
_FILE = re.compile(r"[0-9a-f]{32}")
_SCRATCH = re.compile(r"scratch-[0-9a-f]{32}")
_MARKER = ".deepemd-app"  # an empty file: the folder is one of ours


@contextmanager
def upload_folder() -> Iterator[Path]:
    """Create an empty folder for uploads in the system's temporary folder; remove it at the end.

    The folders that killed apps left are removed first. Each app holds a lock on its own, which the kernel releases
    when the app ends.

    Raises:
        InputError: the folder cannot be created.
    """
    try:
        parent = Path(tempfile.gettempdir())
    except OSError as error:
        raise InputError("No temporary folder can be written, such as /tmp: set TMPDIR to one that can be") from error
    _remove_left(parent)
    folder, lock = _new_folder(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


@contextmanager
def scratch_folder(uploads: Path) -> Iterator[Path]:
    """Create a folder for files of the moment inside the folder of uploads; remove it at the end."""
    folder = uploads / f"scratch-{uuid.uuid4().hex}"
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _new_folder(parent: Path) -> tuple[Path, int | None]:
    while True:
        folder = parent / f"deepemd-app-{uuid.uuid4().hex}"
        try:
            folder.mkdir(mode=0o700)
            lock = _lock(folder)
            (folder / _MARKER).touch()
            return folder, lock
        except FileNotFoundError as error:  # another app removed it before it was locked: try again
            if not parent.exists():
                raise InputError(f"{parent}: there is no such folder: set TMPDIR to another one") from error
        except BlockingIOError:  # another app is about to remove it
            continue
        except OSError as error:
            raise InputError(f"{parent}: cannot be written ({error.strerror}): set TMPDIR to another folder") from error


def _lock(folder: Path) -> int | None:
    """Lock a folder; return None on systems without locks, where folders of killed apps are not removed.

    Raises:
        BlockingIOError: another process holds the lock.
    """
    if sys.platform == "win32":
        return None
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _remove_left(parent: Path) -> None:
    """Remove the folders of apps that were killed, and in them only what an app writes."""
    if sys.platform == "win32":
        return
    with suppress(OSError):
        for name in filter(_FOLDER.fullmatch, os.listdir(parent)):
            folder = parent / name
            with suppress(OSError):  # its app is alive, it belongs to somebody else, or another process was first
                lock = _lock(folder)
                try:
                    if os.fstat(lock or 0).st_uid == os.getuid():
                        _remove_ours(folder)
                finally:
                    os.close(lock or 0)


def _remove_ours(folder: Path) -> None:
    names = os.listdir(folder)
    if names and _MARKER not in names:  # without anything, its app was killed at the start
        return
    files = [name for name in names if _FILE.fullmatch(name)]
    scratch = [name for name in names if _SCRATCH.fullmatch(name)]
    empty = [name for name in names if name not in (*files, *scratch, _MARKER)]  # gradio makes empty folders
    for name in empty:
        (folder / name).rmdir()  # an error if it is a file or has content, which no app wrote
    for name in files:
        (folder / name).unlink()
    for name in scratch:
        shutil.rmtree(folder / name)
    (folder / _MARKER).unlink(missing_ok=True)
    folder.rmdir()

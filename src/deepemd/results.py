"""The result files of a command: written by one process at a time, and put in place together.

A lock is a temporary file beside the result that the process has locked. The kernel releases the lock when the process
ends, however it ends, so no lock goes stale.
"""

import errno
import hashlib
import json
import logging
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from deepemd.errors import InputError
from deepemd.files import atomic_write, explain_disk_errors, lock_file, sync, temporary_name, temporary_sibling
from deepemd.processes import broadcast, rank

__all__ = ["Output", "ResultFiles", "check_output", "is_lock", "output_lock", "shared_output_lock"]

_REMEDY = "free some space or choose another place"
_ATTEMPTS, _PAUSE = 5, 0.02  # a process that removes leftovers holds a lock for a moment
_held: dict[Path, int] = {}  # the locks of this process and their descriptors


@contextmanager
def output_lock(path: Path, *, option: str = "out") -> Iterator[None]:
    """Let no other process write the same output until the block ends.

    The lock is a temporary file next to `path`. Its folder is made if needed, and then removed at the end if it is
    empty. Within a block for the same path, do nothing. On a file system without locks, log a warning.

    Args:
        path: the file, or a file that the output folder always has, or the folder.
        option: name of the option that names the output, for the message.

    Raises:
        InputError: another process is writing the output, or its folder cannot be written.
    """
    with explain_disk_errors(path.parent, 0, f"choose another place for {option}"):
        made = _missing_folders(path.parent)
        path.parent.mkdir(parents=True, exist_ok=True)
        name = temporary_name(path.parent.resolve() / path.name, _digest(path))
        descriptor = None if name in _held else _acquire(name, path, option)
    if descriptor is None:
        yield
        return
    _held[name] = descriptor
    try:
        yield
    finally:
        del _held[name]
        _release(name, descriptor)
        for folder in made:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


@contextmanager
def shared_output_lock(path: Path, *, option: str = "out") -> Iterator[None]:
    """Like :func:`output_lock`, for a command whose processes share the work: process 0 holds the lock for all.

    Raises:
        InputError: in all processes, if process 0 cannot get the lock.
    """
    with ExitStack() as stack, _raised_in_all():
        if rank() == 0:
            stack.enter_context(output_lock(path, option=option))
        stack = stack.pop_all()
    with stack:
        yield


@contextmanager
def _raised_in_all() -> Iterator[None]:
    """Raise an InputError of process 0 in all processes that share the work."""
    refusal = None
    try:
        yield
    except InputError as error:
        refusal = str(error)
    refusal = broadcast(refusal)
    if refusal is not None:
        raise InputError(refusal)


def check_output(option: str, file: Path | None, example: str, *, force: bool = True) -> None:
    """Check that an output file can be written, and make its folder, before any work is done.

    Args:
        option: name of the option, for messages.
        file: the file to write; None, where the option is not given, is accepted.
        example: name of such a file, for messages.
        force: whether a file that exists already may be replaced; pass the command's --force if it has one.

    Raises:
        InputError: the file is a folder or a device, it exists and `force` is false, or its folder cannot be made or
            written.
    """
    if file is None:
        return
    with explain_disk_errors(file.parent, needed=0, remedy=f"choose another place for --{option}"):
        kind = file.stat().st_mode if file.exists() else stat.S_IFREG
        if stat.S_ISDIR(kind):
            raise InputError(f"{option}: {file} is a folder; name a file in it, such as {file / example}")
        if not stat.S_ISREG(kind):
            raise InputError(f"{option}: {file} is not a regular file; name a file, such as {example}")
        if file.exists() and not force:
            raise InputError(
                f"{option}: {file} already exists: choose another place with --{option}, or pass --force to replace it"
            )
        file.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(file.parent, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _digest(path: Path) -> str:
    """Return 16 hexadecimal digits that depend on the name of a file alone."""
    return hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]


def is_lock(name: str) -> bool:
    """Return whether a temporary file's name is that of a lock."""
    half, _, tail = name.removeprefix(".tmp-").partition("-")
    return name == temporary_name(Path(tail or "-"), half[:16]).name and half[:16] == _digest(Path(tail))


def _missing_folders(folder: Path) -> list[Path]:
    """Return the folders that do not exist yet, the innermost first."""
    return [one for one in (folder, *folder.parents) if not one.exists()]


def _acquire(name: Path, path: Path, option: str) -> int:
    """Create and lock a lock file; return its descriptor."""
    for attempt in range(_ATTEMPTS):
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            lock_file(descriptor)
        except BlockingIOError:
            holder = os.read(descriptor, 100).decode(errors="replace") if os.name == "posix" else ""
            os.close(descriptor)
            if attempt + 1 < _ATTEMPTS:
                time.sleep(_PAUSE)
                continue
            by = f" (process {holder})" if holder.isdecimal() else ""
            raise InputError(
                f"{path}: another run is writing there now{by}: wait until it has ended, or choose another place for"
                f" {option}"
            ) from None
        except OSError as error:
            logging.getLogger(__name__).warning(
                "%s: files cannot be locked there (%s): let no other run write to the same place meanwhile",
                *(path.parent, error.strerror),
            )
        if _is_open_file(name, descriptor):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
            return descriptor
        os.close(descriptor)  # another process has just removed it
    raise InputError(f"{path}: other runs write there: run the command again, or choose another place for {option}")


def _is_open_file(name: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(name), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _release(name: Path, descriptor: int) -> None:
    if os.name == "posix":
        name.unlink(missing_ok=True)  # while it is locked, so that nobody else's is removed
        os.close(descriptor)
    else:  # an open file cannot be removed
        os.close(descriptor)
        with suppress(OSError):
            name.unlink(missing_ok=True)


def _forget() -> None:
    """Close the locks in a forked child, so that the end of its parent releases them."""
    for descriptor in _held.values():
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


class Output(NamedTuple):
    """An output file of a command.

    Attributes:
        option: name of the option that names it, for messages.
        file: the file; None where the option is not given.
        example: name of such a file, for messages.
    """

    option: str
    file: Path | None
    example: str


class ResultFiles:
    """Files that belong together: locked while the work goes on, and put in place at its end.

    Write each file to its :meth:`draft`, then call :meth:`commit`. Until then the files of an earlier run stay. A
    process that is killed within `commit` leaves a mark that names the files, so that the same command may write them
    again. Of several processes that share the work, process 0 locks and writes.

    Args:
        outputs: the files; the folder of the first one holds the mark.
        force: whether files of an earlier run may be replaced.

    Raises:
        InputError: a file exists and `force` is false, two outputs are the same file, another run is writing one, or a
            folder cannot be written.
    """

    def __init__(self, *outputs: Output, force: bool) -> None:
        self._drafts: dict[Path, Path] = {}
        self._mark: Path | None = None
        with ExitStack() as stack, _raised_in_all():
            if rank() == 0:
                self._claim([output for output in outputs if output.file is not None], force, stack)
            self._stack = stack.pop_all()

    def _claim(self, outputs: Sequence[Output], force: bool, stack: ExitStack) -> None:
        """Lock and check the files."""
        options = dict[Path, str]()
        for option, file, example in outputs:
            assert file is not None
            check_output(option, file, example)
            place = file.parent.resolve() / file.name
            if place in options:
                raise InputError(
                    f"{option}: {file} is also the file of --{options[place]}: choose another place for one of them"
                )
            options[place] = option
            stack.enter_context(output_lock(file, option=f"--{option}"))
            if self._mark is None:
                self._mark = file.with_name(f".unfinished-{_digest(file)}")
            check_output(option, file, example, force=force or self._name(file) in self._unfinished())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def draft(self, file: Path) -> Path:
        """Return the path to write a file to until :meth:`commit`: its own name in a temporary folder beside it."""
        if file not in self._drafts:
            with explain_disk_errors(file.parent, 0, _REMEDY):
                folder = self._stack.enter_context(temporary_sibling(file, folder=True))
            self._drafts[file] = folder / file.name
        return self._drafts[file]

    def adopt(self, file: Path, written: Path) -> None:
        """Let :meth:`commit` put a file in place that is already written, in the same folder."""
        self._drafts[file] = written

    def commit(self, *, interrupted: bool = False) -> None:
        """Put all drafts in place.

        Args:
            interrupted: whether the work was stopped; drafts that are not written yet are then left out.

        Raises:
            InputError: the disk is full or a folder can no longer be written; the same command may be run again.
        """
        if interrupted:
            self._drafts = {file: draft for file, draft in self._drafts.items() if draft.exists()}
        if self._mark is None or not self._drafts:
            return
        with explain_disk_errors(self._mark.parent, 0, _REMEDY):
            for draft in self._drafts.values():
                sync(draft)
            atomic_write(self._mark, json.dumps([self._name(file) for file in self._drafts]).encode())
            for file in self._drafts:  # never an old file next to a new one
                file.unlink(missing_ok=True)
            for file, draft in self._drafts.items():
                draft.replace(file)
                sync(file.parent)
            self._mark.unlink()
        self._drafts.clear()

    def _unfinished(self) -> list[Any]:
        """Return the files that a killed process was putting in place."""
        assert self._mark is not None
        try:
            found = json.loads(self._mark.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return found if isinstance(found, list) else []

    def _name(self, file: Path) -> str:
        """Return the name of a file in the mark."""
        assert self._mark is not None
        return os.path.relpath(file.absolute(), self._mark.parent.absolute())

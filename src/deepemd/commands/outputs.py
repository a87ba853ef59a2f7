"""Output files of commands: checked before the work begins."""

import errno
import os
from pathlib import Path

from deepemd.errors import InputError
from deepemd.files import explain_disk_errors

__all__ = ["check_output"]


def check_output(option: str, file: Path | None, example: str, *, force: bool = True) -> None:
    """Check that an output file can be written, and make its folder, before any work is done.

    Args:
        option: name of the option, for messages.
        file: the file to write; None, where the option is not given, is accepted.
        example: name of such a file, for messages.
        force: whether a file that exists already may be replaced; pass the command's --force if it has one.

    Raises:
        InputError: the file is a folder, it exists and `force` is false, or its folder cannot be made or written.
    """
    if file is None:
        return
    if file.is_dir():
        raise InputError(f"{option}: {file} is a folder; name a file in it, such as {file / example}")
    if file.exists() and not force:
        raise InputError(f"{option}: {file} already exists: choose another place, or pass --force to replace it")
    with explain_disk_errors(file.parent, needed=0, remedy=f"choose another place for --{option}"):
        file.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(file.parent, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

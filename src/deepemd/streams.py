"""Standard output and error that never end a command: a closed or full one is noted, and the work goes on."""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

__all__ = ["Lost", "guarded_streams", "in_utf8"]


def in_utf8() -> None:
    """Start this process again in Python's UTF-8 mode if file names have another encoding, such as under LANG=C.

    Names of files and classes go into reports, which are UTF-8, and come back from them as names of files.
    """
    if os.name == "posix" and sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


class Lost:
    """What could not be written to standard output.

    Attributes:
        error: the first error; None if everything was written, or if the reader has closed the pipe, such as `head`.
    """

    error: OSError | None = None


class _Guarded(io.FileIO):
    """A file descriptor whose errors of writing are noted; what follows goes nowhere."""

    lost: Lost | None = None

    def write(self, content: Any) -> int:
        """Write bytes; after an error, drop them."""
        try:
            return super().write(content) or 0
        except OSError as error:
            if self.lost is not None and error.errno not in (errno.EPIPE, errno.EBADF):
                self.lost.error = self.lost.error or error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(memoryview(content).cast("B"))


@contextmanager
def guarded_streams() -> Iterator[Lost]:
    """Within the block, errors of writing to the process's own standard output and error raise no exception.

    Closed streams are opened on the null device first, so that no file of the command gets their number. Characters
    that the terminal's encoding lacks are written as their codes. Streams that a program or a test has put in the place
    of the process's own are left alone.

    Yields:
        What could not be written to standard output; it is complete after the block.
    """
    lost = Lost()
    if os.name != "posix":
        yield lost
        return
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    before = sys.stdout, sys.stderr
    if sys.stdout is sys.__stdout__:
        sys.stdout = _guarded(sys.stdout, 1, lost)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _guarded(sys.stderr, 2, None)
    try:
        yield lost
    finally:
        for ours in (sys.stdout, sys.stderr):
            if ours not in before:
                ours.flush()
        sys.stdout, sys.stderr = before


def _guarded(stream: TextIO | None, number: int, lost: Lost | None) -> TextIO:
    """Return a text stream like the given one on the same file descriptor, unbuffered where that one is a terminal."""
    if stream is not None:
        stream.flush()
    raw = _Guarded(number, "w", closefd=False)
    raw.lost = lost
    encoding = stream.encoding if stream is not None else "utf-8"
    by_line = number == 2 or raw.isatty()
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=by_line)

"""Compiling the solver: once, kept on disk, with a word to the user; without a disk to write to, for this process."""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

from numba import njit
from numba.core import config, event

_KERNELS = ("_vectors.py", "_workspace.py", "_start.py", "_simplex.py", "_solve.py", "_warm.py")


def sources() -> str:
    """A fingerprint of the files that the solver is compiled from.

    Numba's cache watches only the file of the function that it keeps. A string that this function closes over is part
    of its key too: with this one, a change of any of the files is seen.
    """
    folder = Path(__file__).parent
    code = b"".join((folder / name).read_bytes() for name in _KERNELS)
    return hashlib.sha256(code).hexdigest() + (" with bounds checked" if config.BOUNDSCHECK else "")


class _Notice(event.Listener):
    """One line when a function is about to be compiled; nothing when it comes from the disk."""

    def __init__(self, dispatcher: object, describe: Callable[[tuple], str]):
        self.dispatcher, self.describe = dispatcher, describe

    def on_start(self, event: event.Event) -> None:
        if event.data["dispatcher"] is self.dispatcher:
            what = self.describe(event.data["args"])
            print(f"deepemd: compiling the transport solver for {what}, once on this machine ...", file=sys.stderr)

    def on_end(self, event: event.Event) -> None:
        pass


def kept(describe: Callable[[tuple], str]) -> Callable[[Callable], Callable]:
    """Decorate an entry point: compiled when first called and kept on disk where there is a folder to write to."""

    def decorate(function: Callable) -> Callable:
        try:
            dispatcher = njit(nogil=True, error_model="numpy", cache=True)(function)
        except RuntimeError:  # neither beside the package nor in the user's cache folder can anything be written
            dispatcher = njit(nogil=True, error_model="numpy")(function)
        event.register("numba:compile", _Notice(dispatcher, describe))

        def call(*args: object) -> object:
            try:
                return dispatcher(*args)
            except OSError:  # the cache could not be written after all: what was compiled serves this process
                return dispatcher(*args)

        return call

    return decorate

"""Compiling the solver: once, kept on disk, with a word to the user; without a folder to write to, for this process.

Numba's own cache falls short for code that takes many seconds to compile, so ``Shelf`` stands in its place. It reads
from folders that it may not write to (what a container's build has compiled serves a user without rights), it loads
without the half second in which Numba imports all that compiling would need, it watches every source file, it takes
no damaged file and no other process's file for its own, and no failure to write costs the result.
"""

import contextlib
import hashlib
import pickle
import pkgutil
import sys
import tempfile
import uuid
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numba
from numba import njit
from numba.core import config
from numba.core.compiler import CompileResult
from numba.core.runtime import rtsys
from numba.core.serialize import dumps

# Every file that compiled code comes from. tests/transport/test_compile.py sees that none is missing.
KERNELS = ("_vectors.py", "_workspace.py", "_tickets.py", "_start.py", "_simplex.py", "_solve.py", "_warm.py")

# Settings of Numba that change what it makes of the same source for the same processor.
_SETTINGS = ("BOUNDSCHECK", "OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "DEBUGINFO_DEFAULT")


def sources() -> str:
    """A fingerprint of the files that the solver is compiled from, also where they lie in a zip archive.

    An entry point closes over this string, and what it closes over is part of what its kept code is compared with: a
    change of any of the files is seen.
    """
    try:
        code = [pkgutil.get_data(__package__, name) or b"" for name in KERNELS]
    except OSError:  # installed without sources: they change with the version only
        code = [version("deepemd").encode()]
    return hashlib.sha256(b"".join(code)).hexdigest()


def folders() -> list[Path]:
    """Where compiled code may lie, best first: $NUMBA_CACHE_DIR; else beside the package, then in the user's cache."""
    here = Path(__file__).absolute().parent
    mine = f"{here.name}_{hashlib.sha256(str(here).encode()).hexdigest()[:16]}"  # apart from other copies of deepemd
    if given := getattr(config, "CACHE_DIR", ""):
        return [Path(given) / mine]
    found = [here / "__pycache__"]
    with contextlib.suppress(RuntimeError):  # there are users without a home
        found.append(Path.home() / ".cache" / "deepemd" / "compiled" / mine)
    return found


class Shelf:
    """Compiled code of one function, a file for each combination of argument types. Numba calls it as its cache."""

    def __init__(self, function: Callable, describe: Callable[[tuple], str]):
        self.describe = describe
        self.folders = folders()
        self.loaded: dict[tuple, Path] = {}  # argument types, and the file that their code came from
        self.compiled: dict[tuple, Path | None] = {}  # argument types, and the file that their code went to, if any
        self.quiet = False  # whether someone else says that it is compiled
        self._name = function.__name__
        self._source = repr([cell.cell_contents for cell in function.__closure__ or ()]).encode()

    @property
    def cache_path(self) -> str:
        return str(self.folders[0])

    def load_overload(self, sig: tuple, target_context: object) -> CompileResult | None:
        """The code for these argument types, or None: then Numba compiles."""
        name = self._file_name(sig, target_context.codegen())  # type: ignore[attr-defined]
        for folder in self.folders:
            payload = self._read(folder / name)
            if payload is None:
                continue
            rtsys.initialize(target_context)  # loaded code allocates memory; nothing else of Numba's is needed
            try:
                result: CompileResult = CompileResult._rebuild(target_context, *pickle.loads(payload))
            except Exception:  # whole and ours, yet not to be had: compile instead
                continue
            self.loaded[sig] = folder / name
            return result
        self._announce(sig)
        return None

    def save_overload(self, sig: tuple, result: CompileResult) -> None:
        """Keep what was compiled, in the first folder that takes it. A failure is told and has no other consequence."""
        name = self._file_name(sig, result.codegen)
        payload = dumps(result._reduce())
        self.compiled[sig] = None
        failures = []
        for folder in self.folders:
            try:
                _write(folder / name, self._digest(payload) + payload)
            except OSError as error:
                failures.append(f"{folder}: {error.strerror or error}")
            else:
                self.compiled[sig] = folder / name
                return
        if _writable(self.folders) is not None:  # else the user has been told before
            _say(f"the compiled solver could not be kept ({'; '.join(failures)}) and serves this process only")

    def files(self) -> list[Path]:
        """Where the code lies that this process has loaded or kept."""
        return [*self.loaded.values(), *(path for path in self.compiled.values() if path is not None)]

    def _announce(self, sig: tuple) -> None:
        what = f"compiling the transport solver for {self.describe(sig)}"
        if _writable(self.folders) is None:
            places = " or ".join(map(str, self.folders))
            _say(f"{what}, for this process only: cannot write to {places}; set NUMBA_CACHE_DIR to a folder that can")
        elif not self.quiet:
            _say(f"{what}, once on this machine ...")

    def _file_name(self, sig: tuple, codegen: object) -> str:
        """One name for each combination of argument types, processor, Python, Numba and Numba's settings."""
        settings = [str(getattr(config, name, None)) for name in _SETTINGS]
        processor = codegen.magic_tuple()  # type: ignore[attr-defined]
        key = repr((sig, processor, sys.implementation.cache_tag, numba.__version__, settings))
        return f"{self._name}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.nbc"

    def _digest(self, payload: bytes) -> bytes:
        return hashlib.sha256(self._source + payload).digest()

    def _read(self, path: Path) -> bytes | None:
        """What was kept, if it is there, whole, and made from these very sources."""
        try:
            kept = path.read_bytes()
        except OSError:
            return None
        payload = kept[32:]
        return payload if kept[:32] == self._digest(payload) else None


def _write(path: Path, data: bytes) -> None:
    """Write a file so that nobody ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{uuid.uuid4().hex[:12]}")
    try:
        unfinished.write_bytes(data)
        unfinished.replace(path)
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _writable(places: list[Path]) -> Path | None:
    """The first folder that can be written to, made if it is not there."""
    for folder in places:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
            return folder
    return None


def _say(what: str) -> None:
    """One line to the user. That nobody listens is no reason to fail."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(f"deepemd: {what}", file=sys.stderr, flush=True)


def kept(describe: Callable[[tuple], str]) -> Callable[[Callable], Callable]:
    """Decorate an entry point: compiled when first called and kept on disk where there is a folder to write to.

    ``describe`` says in words what it is compiled for, from the Numba types of its arguments.
    """

    def decorate(function: Callable) -> Callable:
        dispatcher = njit(nogil=True, error_model="numpy")(function)
        dispatcher._cache = Shelf(function, describe)  # type: ignore[attr-defined]
        return dispatcher

    return decorate

"""Compile the solver once and store the machine code on disk, where every later process finds it.

Numba's own cache falls short for code that takes many seconds to compile, so ``CodeCache`` replaces it. It reads from
folders that it may not write to, so that code compiled when a container is built serves a user without rights. It
loads without importing Numba's compiler, which takes half a second. It notices a change of any source file, rejects
damaged files, and does not confuse the files of different versions. If nothing can be written, the code serves the
running process.
"""

import contextlib
import hashlib
import pickle
import pkgutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numba
from numba import njit
from numba.core import config
from numba.core.compiler import CompileResult
from numba.core.runtime import rtsys
from numba.core.serialize import dumps

# Every file that compiled code comes from. tests/transport/test_compile.py checks that none is missing.
KERNELS = ("_vectors.py", "_workspace.py", "_tickets.py", "_start.py", "_simplex.py", "_solve.py", "_resume.py")

# Options of every compiled function. Functions that only compiled code calls go without the wrappers through which
# Python and C would call them, which saves a quarter of the time to compile.
_OPTIONS: Any = {"nogil": True, "error_model": "numpy"}
_INTERNAL: Any = {**_OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}

# The settings of Numba that change the code it generates for the same source and processor.
_SETTINGS = ("BOUNDSCHECK", "OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "DEBUGINFO_DEFAULT")


def source_fingerprint() -> str:
    """Return a hash of the files that the solver is compiled from, even if they are in a zip archive.

    An entry point closes over this string, and stored code is only loaded for the same values in its closure, so a
    change of any of the files is noticed.
    """
    try:
        code = [pkgutil.get_data(__package__, name) or b"" for name in KERNELS]
    except OSError:  # installed without sources, which then change with the version only
        code = [version("deepemd").encode()]
    return hashlib.sha256(b"".join(code)).hexdigest()


def cache_folders() -> list[Path]:
    """Return the folders for compiled code, the best first.

    These are $NUMBA_CACHE_DIR if it is set, else the package's own __pycache__ and ~/.cache/deepemd.
    """
    here = Path(__file__).absolute().parent
    name = f"{here.name}_{hashlib.sha256(str(here).encode()).hexdigest()[:16]}"  # one for each copy of deepemd
    if given := getattr(config, "CACHE_DIR", ""):
        return [Path(given) / name]
    folders = [here / "__pycache__"]
    with contextlib.suppress(RuntimeError):  # the user has no home folder
        folders.append(Path.home() / ".cache" / "deepemd" / "compiled" / name)
    return folders


class CodeCache:
    """The stored code of one function, one file for each combination of argument types. Numba calls it as its cache.

    Attributes:
        files: the argument types that this process has loaded or compiled, and the file of each; None where no folder
            could be written.
        compiled: the argument types that this process has compiled.
    """

    def __init__(self, function: Callable, describe: Callable[[tuple], str]):
        self.describe = describe
        self.folders = cache_folders()
        self.files: dict[tuple, Path | None] = {}
        self.compiled: set[tuple] = set()
        self._silent = False
        self._name = function.__name__
        self._source = repr([cell.cell_contents for cell in function.__closure__ or ()]).encode()

    @property
    def cache_path(self) -> str:
        return str(self.folders[0])

    @contextlib.contextmanager
    def silenced(self) -> Iterator[None]:
        """Within the block, do not announce compilations; warn only if the code cannot be stored."""
        self._silent = True
        try:
            yield
        finally:
            self._silent = False

    def load_overload(self, sig: tuple, target_context: object) -> CompileResult | None:
        """Return the stored code for these argument types, or None, so that Numba compiles it."""
        name = self._file_name(sig, target_context.codegen())  # type: ignore[attr-defined]
        for folder in self.folders:
            payload = self._read(folder / name)
            if payload is None:
                continue
            rtsys.initialize(target_context)  # loaded code allocates memory; it needs nothing else of Numba
            try:
                result: CompileResult = CompileResult._rebuild(target_context, *pickle.loads(payload))
            except Exception:  # the file is whole and ours but cannot be loaded: compile instead
                continue
            self.files[sig] = folder / name
            return result
        self._announce(sig)
        return None

    def save_overload(self, sig: tuple, result: CompileResult) -> None:
        """Store compiled code in the first folder that can be written. If none can, warn and continue."""
        name = self._file_name(sig, result.codegen)
        payload = dumps(result._reduce())
        self.files[sig] = None
        self.compiled.add(sig)
        failures = []
        for folder in self.folders:
            try:
                _write(folder / name, self._digest(payload) + payload)
            except OSError as error:
                failures.append(f"{folder}: {error.strerror or error}")
            else:
                self.files[sig] = folder / name
                return
        if _writable(self.folders) is not None:  # otherwise _announce has already warned
            _print(f"the compiled solver could not be stored ({'; '.join(failures)}) and serves this process only")

    def _announce(self, sig: tuple) -> None:
        what = f"compiling the transport solver for {self.describe(sig)}"
        if _writable(self.folders) is None:
            places = " or ".join(map(str, self.folders))
            _print(f"{what}, for this process only: cannot write to {places}; set NUMBA_CACHE_DIR to a writable folder")
        elif not self._silent:
            _print(f"{what}, once on this machine ...")

    def _file_name(self, sig: tuple, codegen: object) -> str:
        """Return a name that is unique for argument types, processor, Python, Numba and Numba's settings."""
        settings = [str(getattr(config, name, None)) for name in _SETTINGS]
        processor = codegen.magic_tuple()  # type: ignore[attr-defined]
        key = repr((sig, processor, sys.implementation.cache_tag, numba.__version__, settings))
        return f"{self._name}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.nbc"

    def _digest(self, payload: bytes) -> bytes:
        return hashlib.sha256(self._source + payload).digest()

    def _read(self, path: Path) -> bytes | None:
        """Return the content of a file if it exists, is complete, and was made from the current sources."""
        try:
            stored = path.read_bytes()
        except OSError:
            return None
        payload = stored[32:]
        return payload if stored[:32] == self._digest(payload) else None


def inlined(function: Callable) -> Callable:
    """Decorate a function that compiled code calls: it becomes a part of each caller."""
    decorated: Callable = njit(**_INTERNAL, forceinline=True)(function)
    return decorated


def subroutine(function: Callable) -> Callable:
    """Decorate a function that compiled code calls rarely: the compiler decides whether to inline it."""
    decorated: Callable = njit(**_INTERNAL)(function)
    return decorated


def cached_njit(describe: Callable[[tuple], str]) -> Callable[[Callable], Callable]:
    """Decorate an entry point: compile it on the first call with new argument types, and store the code on disk.

    Args:
        describe: function that describes what the code is compiled for, from the Numba types of its arguments.
    """

    def decorate(function: Callable) -> Callable:
        dispatcher: Callable = njit(**_OPTIONS)(function)
        dispatcher._cache = CodeCache(function, describe)  # type: ignore[attr-defined]
        return dispatcher

    return decorate


def code_cache(entry: Callable) -> CodeCache:
    """Return the cache of a function that :func:`cached_njit` decorates."""
    cache: CodeCache = entry._cache  # type: ignore[attr-defined]
    return cache


def _write(path: Path, data: bytes) -> None:
    """Write a file that no other process ever sees half-written; it is not synced, as code can be compiled again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{uuid.uuid4().hex[:12]}")
    try:
        unfinished.write_bytes(data)
        unfinished.replace(path)
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _writable(folders: list[Path]) -> Path | None:
    """Return the first folder that can be written to; create it if needed."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
            return folder
    return None


def _print(message: str) -> None:
    """Print a line on standard error; do nothing if that is closed."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(f"deepemd: {message}", file=sys.stderr, flush=True)

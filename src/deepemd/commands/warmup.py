"""``deepemd warmup``: compile the transport solver ahead of time."""

import time
from typing import Literal

import torch

from deepemd.errors import InputError
from deepemd.progress import say, track
from deepemd.transport import SIZES, CompiledCode, compile_ahead

__all__ = ["warmup"]

_DTYPES = {"float32": torch.float32, "float64": torch.float64}
_ENTRIES = {"transport": False, "warm start": True}  # name -> whether it is a warm start


def warmup(dtype: Literal["float32", "float64", "both"] = "both", sizes: str | None = None) -> None:
    """Compile the transport solver for every size and type now, and store it on disk.

    Otherwise this happens the first time emd sees a new problem size or type, in 5 to 30 seconds each. The compiled
    code is stored in $NUMBA_CACHE_DIR if that is set; else next to the package, or in ~/.cache/deepemd if that is not
    writable. Any user who can read the folder benefits. The code is for one kind of processor: build where you run. In
    a container:

        RUN pip install . && deepemd warmup

    Code that is already stored is not compiled again, so a second run takes seconds.

    Args:
        dtype: type of the costs to compile for.
        sizes: number of nodes on the larger side of your problems, such as 25 or 25,100; by default all sizes: up to
            16, 32, 64, 128, and larger.
    """
    dtypes = list(_DTYPES) if dtype == "both" else [dtype]
    ranges = {_range(size): size for size in _numbers(sizes)}
    jobs = [(entry, name, where) for entry in _ENTRIES for name in dtypes for where in ranges]
    results: list[CompiledCode] = []
    began = time.perf_counter()
    for entry, name, where in track(jobs, "compiling", len(jobs), "functions"):
        result = compile_ahead(ranges[where], _DTYPES[name], warm_start=_ENTRIES[entry])
        results.append(result)
        outcome = "already there" if result.found else f"compiled in {result.seconds:.1f} s"
        say(f"{f'{entry}, {name}, {where}':<42}{outcome}")
    found = sum(result.found for result in results)
    print(f"{len(results) - found} compiled, {found} already there, in {time.perf_counter() - began:.1f} s")
    _print_folders(results)


def _numbers(sizes: str | None) -> list[int]:
    """Return the sizes to compile for: the given ones, else one of each range."""
    try:
        found = [int(word) for word in sizes.split(",")] if sizes is not None else [*SIZES, SIZES[-1] + 1]
    except ValueError:
        found = [0]
    if min(found) < 1:
        raise InputError(
            f"sizes: {sizes!r} is not a list of numbers of nodes; separate them by commas, such as --sizes 25,100"
        )
    return found


def _range(size: int) -> str:
    """Name the range of sizes that the code for this size serves."""
    top = next((top for top in SIZES if size <= top), None)
    return "larger" if top is None else f"up to {top} x {top}"


def _print_folders(results: list[CompiledCode]) -> None:
    """Print the folders with the number and size of their files; raise an error if a file could not be written."""
    files = {result.file for result in results if result.file is not None}
    for folder in sorted({path.parent for path in files}):
        sizes = [path.stat().st_size for path in files if path.parent == folder]
        print(f"{folder}: {len(sizes)} files, {sum(sizes) / 1e6:.1f} MB")
    if lost := sum(result.file is None for result in results):
        raise InputError(f"{lost} results could not be stored, see above; set NUMBA_CACHE_DIR to a writable folder")

"""``deepemd warmup``: compile everything that would else be compiled when it is first needed."""

import time
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from deepemd.errors import InputError
from deepemd.transport import WarmStart, emd
from deepemd.transport._compile import Shelf
from deepemd.transport._solve import solve_batch
from deepemd.transport._warm import resume_batch
from deepemd.transport._workspace import kind

__all__ = ["warmup"]


class Entry(NamedTuple):
    """A compiled function, and a call that comes to it."""

    name: str
    compiled: Callable
    call: Callable[[Tensor, Tensor, Tensor], object]


def _twice(cost: Tensor, a: Tensor, b: Tensor) -> object:
    solver = WarmStart()
    solver(cost, a, b)
    return solver(cost, a, b)


ENTRIES = [
    Entry("transport", solve_batch, emd),
    Entry("warm start", resume_batch, _twice),
]

_DTYPES = {"float32": torch.float32, "float64": torch.float64}
_SIZES = (16, 32, 64, 128, 256)  # one of each kind that the solver is compiled for


def warmup(dtype: Literal["float32", "float64", "both"] = "both", sizes: str | None = None) -> None:
    """Compile the transport solver for every size and type now, and keep it on disk.

    Otherwise that happens when emd meets a size or type for the first time: 5 to 30 seconds each. The compiled code
    lies in $NUMBA_CACHE_DIR if that is set; else beside the package, or in ~/.cache/deepemd where that cannot be
    written. Any user who can read the folder profits. It is for one kind of processor: build where you run. In a
    container:

        RUN pip install . && deepemd warmup

    What is there already is kept, so a second run takes seconds.

    Args:
        dtype: the type of costs to compile for.
        sizes: number of nodes on the larger side of your problems, such as 25 or 25,100; by default everything: up to
            16, 32, 64, 128, and larger.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    dtypes = list(_DTYPES) if dtype == "both" else [dtype]
    wanted = list({kind(size, size): size for size in _numbers(sizes)}.values())
    jobs = [(entry, size, name) for entry in ENTRIES for name in dtypes for size in wanted]
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=14), MofNCompleteColumn(), TimeElapsedColumn())
    found, made, began = 0, 0, time.perf_counter()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=len(jobs))
        for entry, size, name in jobs:
            what = f"{entry.name}, {name}, {_up_to(size)}"
            bar.update(task, description=what)
            kept, seconds = _compile(entry, size, _DTYPES[name])
            found, made = found + kept, made + (not kept)
            bar.console.print(
                f"{what:<42}" + ("already there" if kept else f"compiled in {seconds:.1f} s"), highlight=False
            )
            bar.advance(task)
    print(f"{made} compiled, {found} already there, in {time.perf_counter() - began:.1f} s")
    _tell_where()


def _numbers(sizes: str | None) -> list[int]:
    try:
        found = [int(word) for word in sizes.split(",")] if sizes is not None else list(_SIZES)
    except ValueError:
        found = [0]
    if min(found) < 1:
        raise InputError(f"sizes: {sizes!r} is not a list of numbers of nodes; pass some such as --sizes 25,100")
    return found


def _up_to(size: int) -> str:
    top = next((top for top in _SIZES[:-1] if size <= top), None)
    return "larger" if top is None else f"up to {top} x {top}"


def _compile(entry: Entry, size: int, dtype: torch.dtype) -> tuple[bool, float]:
    """Solve a problem of this size. -> whether its code was there, and the seconds that it took."""
    shelf = _shelf(entry)
    shelf.quiet = True  # the bar says it
    before, began = len(shelf.compiled), time.perf_counter()
    try:
        entry.call(torch.ones(size, size, dtype=dtype), torch.ones(size, dtype=dtype), torch.ones(size, dtype=dtype))
    finally:
        shelf.quiet = False
    return len(shelf.compiled) == before, time.perf_counter() - began


def _tell_where() -> None:
    """The folder and the size of what lies there; an error where nothing could be kept."""
    files = {path for entry in ENTRIES for path in _shelf(entry).files()}
    lost = [what for entry in ENTRIES for what, path in _shelf(entry).compiled.items() if path is None]
    for folder in sorted({path.parent for path in files}):
        here = [path.stat().st_size for path in files if path.parent == folder]
        print(f"{folder}: {len(here)} files, {sum(here) / 1e6:.1f} MB")
    if lost:
        raise InputError(
            f"{len(lost)} could not be kept, see above; set NUMBA_CACHE_DIR to a folder that can be written"
        )


def _shelf(entry: Entry) -> Shelf:
    shelf: Shelf = entry.compiled._cache  # type: ignore[attr-defined]
    return shelf

"""``compile_ahead``: compile the solver before it is needed, for instance when a container is built."""

import time
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np
import torch

from deepemd.transport._compile import code_cache
from deepemd.transport._emd import emd
from deepemd.transport._resume import resume_batch
from deepemd.transport._solve import solve_batch
from deepemd.transport._workspace import kind
from deepemd.transport.warm import WarmStart

__all__ = ["SIZES", "CompiledCode", "compile_ahead"]

SIZES = (16, 32, 64, 128)  # the solver is compiled for problems up to each of these sizes, and for all larger ones

_DTYPES = {torch.float32: np.float32, torch.float64: np.float64}


class CompiledCode(NamedTuple):
    """The machine code of the solver for one range of sizes and one dtype."""

    found: bool  # whether it already existed, on disk or in this process
    seconds: float  # the time that loading or compiling it took
    file: Path | None  # the file that stores it; None if no folder can be written and the code serves only this process


def compile_ahead(size: int, dtype: torch.dtype = torch.float32, *, warm_start: bool = False) -> CompiledCode:
    """Compile the solver for problems of a size, or load it if it is already compiled.

    Otherwise the first call of ``emd`` with a new dtype or range of sizes compiles it, in 5 to 30 seconds. The ranges
    are up to each of :data:`SIZES`, and larger. Code is stored for one kind of processor, in $NUMBA_CACHE_DIR if that
    is set; else next to the package, or in ~/.cache/deepemd if that cannot be written.

    Args:
        size: number of nodes on the larger side of the problems, at least 1.
        dtype: float32 or float64. Half precision is solved in float32.
        warm_start: compile the code for :class:`WarmStart` instead of that for ``emd``.

    Raises:
        TypeError, ValueError: `size` is not a whole number of at least 1, or `dtype` is neither of the two.

    >>> _ = compile_ahead(25)
    >>> compile_ahead(25).found
    True
    """
    if not isinstance(size, int) or isinstance(size, bool):
        raise TypeError(f"size must be a whole number of nodes, got {size!r}; try compile_ahead(25)")
    if size < 1:
        raise ValueError(f"size must be at least 1 node, got {size}; try compile_ahead(25)")
    if dtype not in _DTYPES:
        raise ValueError(f"dtype must be torch.float32 or torch.float64, got {dtype}; half precision needs float32")
    side = min(size, SIZES[-1] + 1)
    cost, weights = torch.ones(side, side, dtype=dtype), torch.ones(side, dtype=dtype)
    cache = code_cache(resume_batch if warm_start else solve_batch)
    compiled_before = len(cache.compiled)
    began = time.perf_counter()
    with cache.silenced():
        (WarmStart() if warm_start else emd)(cost, weights, weights)
    seconds = time.perf_counter() - began
    types = numba.from_dtype(np.dtype(_DTYPES[dtype])), numba.typeof(kind(side, side))
    file = next(file for sig, file in cache.files.items() if (sig[0].dtype, sig[4]) == types)
    return CompiledCode(len(cache.compiled) == compiled_before, seconds, file)

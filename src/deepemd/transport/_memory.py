"""How much memory the solver needs and may take: a call that needs more is refused before anything is allocated."""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from deepemd.errors import InputError
from deepemd.transport._workspace import buffer_size, kind, shape_of

FEW, SIDES = 2**20, 2**13  # elements of a batch, and n + m of a problem, that certainly need little memory
_SMALL = 64 * 2**20  # bytes: less than this is not worth looking at the limits, which takes about 50 us


class NotEnoughMemory(InputError, MemoryError):
    """A call needs more memory than there is. The message names the shape, the bytes needed and the bytes available."""


def workspace_size(n: int, m: int) -> int:
    """Return the bytes that a thread needs to solve problems of n x m, one at a time.

    The masks of the tree take (n + m)^2 / 8 bytes, more than all else if the sides differ much.
    """
    layout = shape_of.py_func(n, m, kind(n, m))  # type: ignore[attr-defined]
    size: int = buffer_size.py_func(layout)  # type: ignore[attr-defined]
    return size


def require(needed: int, what: str, remedy: str) -> None:
    """Raise :class:`NotEnoughMemory` if ``needed`` bytes are more than are available.

    Args:
        needed: the bytes that a step is about to take.
        what: subject of the message, with the shape.
        remedy: what to do instead.
    """
    if needed < _SMALL or torch.compiler.is_compiling():
        return
    available, source = min(_limits(), default=(needed, ""))
    if needed > available:
        raise NotEnoughMemory(
            f"{what} needs {_bytes(needed)} of memory, but only {_bytes(max(0, available))} are available ({source}); "
            f"{remedy}"
        )


def require_for(cost: Tensor, shape: Sequence[int], dtype: torch.dtype) -> None:
    """Raise :class:`NotEnoughMemory` if a batch of problems cannot be solved in the memory that is available.

    Args:
        cost: (..., n, m) as passed by the caller.
        shape: the leading dimensions of the batch, to which ``cost`` is to be expanded.
        dtype: dtype in which the problems are solved.
    """
    n, m = cost.shape[-2:]
    batch = math.prod(shape)
    if cost.device.type == "meta":
        return
    tree = workspace_size(n, m) if batch else 0
    is_copied = list(cost.shape) != [*shape, n, m] or not cost.is_contiguous() or cost.dtype != dtype
    copy = batch * n * m * dtype.itemsize if is_copied or cost.device.type != "cpu" else 0
    answer = batch * (n + m) * (2 * dtype.itemsize + 4)
    remedy = "solve the batch in parts"
    if tree > copy + answer:
        remedy = "use fewer nodes, because the memory grows with (n + m)^2: sample or merge them"
    require(tree + copy + answer, f"solving problems of cost shape {(*shape, n, m)}", remedy)


def affordable(count: int, each: int) -> int:
    """Return how many of ``count`` threads, at least 1, can have ``each`` bytes."""
    if count * each < _SMALL:
        return count
    available = min(_limits(), default=(count * each, ""))[0]
    return max(1, min(count, available // each))


def _limits() -> Iterator[tuple[int, str]]:
    """Yield the bytes that this process can still take under each limit of the system, and the name of the limit."""
    with suppress(OSError, ValueError, KeyError):
        yield _table("/proc/meminfo", ":")["MemAvailable"] * 1024, "free memory of the machine"
    for folder, limit, used in _cgroups():
        with suppress(OSError, ValueError):
            files = _table(folder / "memory.stat").get("inactive_file", 0)  # cached files, which the kernel gives up
            left = int((folder / limit).read_text()) - int((folder / used).read_text()) + files
            yield left, "memory limit of the container"
    with suppress(ImportError, OSError, ValueError, KeyError):
        import resource

        for number, name in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
            if (most := resource.getrlimit(number)[0]) != resource.RLIM_INFINITY:
                yield most - _table("/proc/self/status", ":")[name] * 1024, "ulimit of the process"


def _cgroups() -> Iterator[tuple[Path, str, str]]:
    """Yield the folders of this process's control groups, and the names of the files with the limit and the use."""
    root = Path("/sys/fs/cgroup")
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:  # version 2; any folder above may have a lower limit
                group = root / path.lstrip("/")
                for folder in (group, *group.parents):
                    if root in (folder, *folder.parents):
                        yield folder, "memory.max", "memory.current"
            elif "memory" in controllers.split(","):
                for folder in (root / "memory" / path.lstrip("/"), root / "memory"):
                    yield folder, "memory.limit_in_bytes", "memory.usage_in_bytes"


def _table(path: str | Path, separator: str | None = None) -> dict[str, int]:
    """Read a file of lines with a name and a number."""
    pairs = (line.split(separator, 1) for line in Path(path).read_text().splitlines())
    return {name: int(value.split()[0]) for name, value in pairs if value.split()[0].isdecimal()}


def _bytes(count: int) -> str:
    """Write a number of bytes for people.

    >>> _bytes(999), _bytes(125_300_000_000)
    ('999 bytes', '125.3 GB')
    """
    if count < 1000:
        return f"{count} bytes"
    power = min(int(math.log10(count)) // 3, 6)
    return f"{count / 1000**power:.1f} {' kMGTPE'[power]}B"

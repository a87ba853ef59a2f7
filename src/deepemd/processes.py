"""The processes of one command: torchrun starts them, they share the work, and agree on what came of it.

    torchrun --nproc-per-node 2 -m deepemd evaluate MODEL DATA

Work is cut into the same batches whatever the number of processes. Each process takes a run of them, and the results
are put together in order: what comes out is a function of the work, not of the processes. Without torchrun, and outside
of :func:`together`, there is one process, and the functions here have nothing to do.
"""

import atexit
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from deepemd.errors import InputError, ProcessLost

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    *("Place", "agree", "count", "first", "launched", "lost", "merge", "place", "rank", "share", "tell", "together"),
    *("total", "wait"),
]

T = TypeVar("T")
# A process that dies closes its connections, and the others notice at once. A machine that vanishes does not:
TIMEOUT = timedelta(minutes=30)  # of an exchange
PATIENCE = timedelta(days=1)  # while one process does what only one can do, such as decoding a data set


@dataclass(frozen=True)
class Place:
    """Which process this is: `rank` of `count`, and `local` of the `local_count` on this machine."""

    rank: int = 0
    count: int = 1
    local: int = 0
    local_count: int = 1


_ALONE = Place()
_place = _ALONE  # inside of together()
_patient: Any = None  # a group of its own for waits
_leave: Callable[[], None] | None = None  # of the group that was started here


def launched() -> Place:
    """What torchrun has set for this process, by the variables of its environment."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    if all(os.environ.get(name, "").isdecimal() for name in names):
        return Place(*(int(os.environ[name]) for name in names))
    return _ALONE


def place() -> Place:
    """Which of the processes that share the work this is."""
    return _place


def rank() -> int:
    """Its number; the process 0 writes and prints."""
    return _place.rank


def count() -> int:
    """How many processes share the work."""
    return _place.count


@contextmanager
def together() -> Iterator[None]:
    """Join the processes that torchrun started with this one, until the block ends in all of them.

    Within another such block, and without torchrun, it does nothing. A group that is there already is used as it is.
    Where the block ends by an exception, this process leaves the others, and they end by ProcessLost.

    Raises:
        InputError: Slurm started several processes, but no torchrun did.
        ProcessLost: another process died, or left.
    """
    global _place, _patient, _leave
    own = launched()
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))
    if own.count == 1 and tasks > 1:
        raise InputError(
            f"srun started this command {tasks} times, and each would do all of the work: start one torchrun on each"
            " machine, which starts the processes: srun --ntasks-per-node 1 torchrun ... -m deepemd ... (the whole"
            " script is in docs/scale.md)"
        )
    if own.count == 1 or count() > 1:
        yield
        return
    import torch
    import torch.distributed as dist

    gpu = torch.cuda.is_available() and own.local < torch.cuda.device_count()
    if gpu:
        torch.cuda.set_device(own.local)
    try:
        if not dist.is_initialized():
            dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", timeout=TIMEOUT)
            _leave = atexit.register(dist.destroy_process_group)  # it cannot be joined again, so stay until then
        if _patient is None:
            _patient = dist.new_group(backend="gloo", timeout=PATIENCE)
        _place = own
        yield
        wait()
    except BaseException as error:
        if _leave is not None:
            atexit.unregister(_leave)
            _leave()
        if lost(error):
            raise ProcessLost(own.rank, own.count) from error
        raise
    finally:
        _place = _ALONE


def lost(error: BaseException) -> bool:
    """Whether an exception says that another process cannot be reached."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def share(items: Sequence[T]) -> Sequence[T]:
    """The run of batches that this process takes: as many as any other takes, or fewer at the end.

    >>> share(range(5))
    range(0, 5)
    """
    most = -(-len(items) // count())
    return items[rank() * most : (rank() + 1) * most]


def merge(mine: "Tensor | None") -> "Tensor":
    """What all processes made of their shares, in order, to the bit: (n, ...) of each -> (sum of n, ...) in each.

    Args:
        mine: None where the share was empty.
    """
    import torch
    import torch.distributed as dist

    if count() == 1:
        assert mine is not None
        return mine
    forms: list[Any] = [None] * count()
    dist.all_gather_object(forms, None if mine is None else (mine.shape, mine.dtype, mine.device.type), group=_patient)
    parts = []
    for k, form in enumerate(forms):
        if form is None:
            continue
        shape, dtype, device = form
        part = torch.empty(shape, dtype=dtype, device=device) if mine is None or k != rank() else mine.contiguous()
        dist.broadcast(part, k)
        parts.append(part)
    return torch.cat(parts)


def total(mine: "Tensor") -> "Tensor":
    """The sum over the processes, in place; the same in each, to the bit."""
    import torch.distributed as dist

    if count() > 1:
        dist.all_reduce(mine)
    return mine


def agree(*mine: int) -> tuple[int, ...]:
    """The largest that any process says, number by number."""
    import torch
    import torch.distributed as dist

    if count() == 1:
        return mine
    numbers = torch.tensor(mine)
    dist.all_reduce(numbers, dist.ReduceOp.MAX, group=_patient)
    return tuple(numbers.tolist())


def tell(thing: T) -> T:
    """What the process 0 passes; the others wait for it, and what they pass is not looked at."""
    import torch.distributed as dist

    things = [thing]
    if count() > 1:
        dist.broadcast_object_list(things, group=_patient)
    return things[0]


def wait() -> None:
    """Go on when all processes are here."""
    import torch.distributed as dist

    if count() > 1:
        dist.barrier(group=_patient)


@contextmanager
def first() -> Iterator[None]:
    """Let the process 0 go through the block before the others: it makes the files that they find.

    It is waited for also where it raises an exception, so that the others meet, and can tell, the same.
    """
    if rank() > 0:
        wait()
    try:
        yield
    finally:
        if rank() == 0:
            wait()

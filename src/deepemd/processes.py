"""Distribute work: the processes that torchrun started share the work of a command and gather its results.

    torchrun --nproc-per-node 2 -m deepemd evaluate MODEL DATA

Work is cut into the same batches for any number of processes. Each process takes a contiguous shard of them, and the
results are gathered in order, so the result does not depend on the number of processes. Without torchrun, or outside of
:func:`process_group`, there is one process, and the functions here do nothing.
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
    *("ProcessInfo", "all_gather", "all_reduce", "all_reduce_max", "barrier", "broadcast", "connection_lost"),
    *("process_group", "process_info", "rank", "rank_zero_first", "shard", "torchrun_info", "world_size"),
]

T = TypeVar("T")
# A process that dies closes its connections, and the others notice at once. A machine that vanishes does not:
TIMEOUT = timedelta(minutes=30)  # time limit of one collective operation
LONG_TIMEOUT = timedelta(days=1)  # time limit while one process works alone, as in decoding a data set


@dataclass(frozen=True)
class ProcessInfo:
    """The place of this process among all processes, in torchrun's terms.

    Attributes:
        rank: number of this process, from 0.
        world_size: number of processes.
        local_rank: number of this process among those on this machine.
        local_world_size: number of processes on this machine.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1


_SINGLE = ProcessInfo()
_info = _SINGLE  # set inside of process_group()
_slow_group: Any = None  # a separate group, with the long timeout
_destroy: Callable[[], None] | None = None  # ends the group that was started here


def torchrun_info() -> ProcessInfo:
    """Return the place of this process, from the environment variables that torchrun sets."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    if all(os.environ.get(name, "").isdecimal() for name in names):
        return ProcessInfo(*(int(os.environ[name]) for name in names))
    return _SINGLE


def process_info() -> ProcessInfo:
    """Return the place of this process among those that share the work."""
    return _info


def rank() -> int:
    """Return the number of this process; process 0 writes and prints."""
    return _info.rank


def world_size() -> int:
    """Return the number of processes that share the work."""
    return _info.world_size


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that torchrun started with this one, until the block ends in all of them.

    Within another such block, or without torchrun, do nothing. An existing group is used as it is. If the block raises
    an exception, this process leaves the group, and ProcessLost is raised in the others.

    Raises:
        InputError: Slurm started several processes without torchrun.
        ProcessLost: another process died or left.
    """
    global _info, _slow_group, _destroy
    own = torchrun_info()
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))
    if own.world_size == 1 and tasks > 1:
        raise InputError(
            f"srun started this command {tasks} times, and each would do all of the work: start one torchrun on each"
            " machine, which starts the processes: srun --ntasks-per-node 1 torchrun ... -m deepemd ... (the whole"
            " script is in docs/scale.md)"
        )
    if own.world_size == 1 or world_size() > 1:
        yield
        return
    import torch
    import torch.distributed as dist

    gpu = torch.cuda.is_available() and own.local_rank < torch.cuda.device_count()
    if gpu:
        torch.cuda.set_device(own.local_rank)
    try:
        if not dist.is_initialized():
            dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", timeout=TIMEOUT)
            _destroy = atexit.register(dist.destroy_process_group)  # it cannot be joined again, so stay until then
        if _slow_group is None:
            _slow_group = dist.new_group(backend="gloo", timeout=LONG_TIMEOUT)
        _info = own
        yield
        barrier()
    except BaseException as error:
        if _destroy is not None:
            atexit.unregister(_destroy)
            _destroy()
        if connection_lost(error):
            raise ProcessLost(own.rank, own.world_size) from error
        raise
    finally:
        _info = _SINGLE


def connection_lost(error: BaseException) -> bool:
    """Return whether an exception means that another process cannot be reached."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def shard(items: Sequence[T]) -> Sequence[T]:
    """Return the contiguous part of the items for this process; all parts but the last ones have the same length.

    >>> shard(range(5))
    range(0, 5)
    """
    size = -(-len(items) // world_size())
    return items[rank() * size : (rank() + 1) * size]


def all_gather(mine: "Tensor | None") -> "Tensor":
    """Concatenate the results of all processes, in order: (n, ...) in each -> (sum of n, ...) in each.

    Args:
        mine: the result of this process; None if its shard was empty.
    """
    import torch
    import torch.distributed as dist

    if world_size() == 1:
        assert mine is not None
        return mine
    headers: list[Any] = [None] * world_size()
    header = None if mine is None else (mine.shape, mine.dtype, mine.device.type)
    dist.all_gather_object(headers, header, group=_slow_group)
    blocks = []
    for k, header in enumerate(headers):
        if header is None:
            continue
        shape, dtype, device = header
        block = torch.empty(shape, dtype=dtype, device=device) if mine is None or k != rank() else mine.contiguous()
        dist.broadcast(block, k)
        blocks.append(block)
    return torch.cat(blocks)


def all_reduce(mine: "Tensor") -> "Tensor":
    """Sum a tensor over the processes, in place; the sums are bit-identical."""
    import torch.distributed as dist

    if world_size() > 1:
        dist.all_reduce(mine)
    return mine


def all_reduce_max(*mine: int) -> tuple[int, ...]:
    """Return the maximum of each number over the processes."""
    import torch
    import torch.distributed as dist

    if world_size() == 1:
        return mine
    numbers = torch.tensor(mine)
    dist.all_reduce(numbers, dist.ReduceOp.MAX, group=_slow_group)
    return tuple(numbers.tolist())


def broadcast(value: T) -> T:
    """Return the value that process 0 passes; the others wait for it, and their values are ignored."""
    import torch.distributed as dist

    values = [value]
    if world_size() > 1:
        dist.broadcast_object_list(values, group=_slow_group)
    return values[0]


def barrier() -> None:
    """Wait until all processes have reached this call."""
    import torch.distributed as dist

    if world_size() > 1:
        dist.barrier(group=_slow_group)


@contextmanager
def rank_zero_first() -> Iterator[None]:
    """Let process 0 run the block before the others, so that they find its files.

    If process 0 raises an exception, the others still run the block, so that they raise the same error.
    """
    if rank() > 0:
        barrier()
    try:
        yield
    finally:
        if rank() == 0:
            barrier()

"""The memory of a training step: what is saved for the backward pass, and what is recomputed there."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from deepemd.checks import whole_number
from deepemd.errors import InputError
from deepemd.nodes.backbones import Conv4, ResNet12

__all__ = ["Memory", "encode"]


@dataclass(frozen=True)
class Memory:
    """Settings for training that does not fit into memory.

    By default everything that the backward pass needs is saved, which is fastest. See docs/memory.md for figures.

    Args:
        checkpoint: save only the input of each of the encoder's blocks and recompute the block in the backward pass:
            about half the memory for a quarter more time, and the same gradients. Your own encoder counts as one block,
            for which this saves nothing: use chunk.
        chunk: number of squares (whole images or patches) that are encoded together; each chunk is encoded again in
            the backward pass, so that memory does not grow with their number. Needs freeze_batch_norm.
        freeze_batch_norm: batch norm uses its running statistics, as in evaluation, and does not update them. This
            changes the training: the statistics of pre-training stay. Scale and shift are still trained.
        query_chunk: number of queries that are matched together, and again in the backward pass, with the same
            gradients. It helps with hundreds of queries in a step.

    Raises:
        InputError: a chunk is below 1, or `chunk` is set without `freeze_batch_norm` or together with `checkpoint`.

    >>> Memory(chunk=64, freeze_batch_norm=True).summary
    'encoded 64 at a time, batch norm frozen'
    """

    checkpoint: bool = False
    chunk: int | None = None
    freeze_batch_norm: bool = False
    query_chunk: int | None = None

    def __post_init__(self) -> None:
        for name in ("chunk", "query_chunk"):
            size = getattr(self, name)
            if size is not None:
                whole_number(f"memory.{name}", size, hint="leave it out to use all together")
        if self.chunk and not self.freeze_batch_norm:
            raise InputError(
                f"memory.chunk is {self.chunk}, but batch norm would then take its statistics from each chunk: set"
                " memory.freeze_batch_norm too, or use memory.checkpoint, which gives the gradients of the whole batch"
            )
        if self.chunk and self.checkpoint:
            raise InputError(
                f"memory.chunk is {self.chunk} and memory.checkpoint is set: a chunk is computed again anyway; leave"
                " memory.checkpoint out, and lower memory.chunk if memory is still short"
            )

    @property
    def summary(self) -> str:
        """A description of how the encoder is run, for a line on the screen."""
        if self.chunk:
            return f"encoded {self.chunk} at a time, batch norm frozen"
        return "checkpointed by block" * self.checkpoint or "all saved for the backward pass"


def encode(backbone: Any, images: Tensor, memory: Memory) -> Tensor:
    """Encode images in training, following the memory settings.

    Args:
        backbone: the encoder.
        images: (B, 3, H, W) normalised images.
        memory: the settings; with the defaults the result is ``backbone(images)``.

    Returns:
        (B, C, h, w) maps, with the values, gradients and running statistics of ``backbone(images)``; with
        `freeze_batch_norm`, those with batch norm in evaluation mode.

    >>> from deepemd.nodes import conv4
    >>> encode(conv4(), torch.zeros(2, 3, 84, 84), Memory(checkpoint=True)).shape
    torch.Size([2, 64, 5, 5])
    """
    with frozen(backbone, memory.freeze_batch_norm):
        if memory.chunk:
            with _no_shared_casts(images.device.type):
                return torch.cat([recomputed(backbone, some) for some in images.split(memory.chunk)])
        if not memory.checkpoint:
            maps: Tensor = backbone(images)
        elif isinstance(backbone, Conv4 | ResNet12):
            maps = backbone(images, run=recomputed)
        else:
            maps = recomputed(backbone, images)
        return maps


def recomputed(module: nn.Module, x: Tensor) -> Tensor:
    """Run a module, save only its input, and run it again in the backward pass.

    The second run uses the modes of the first and copies of the running statistics, which are thus updated only once.
    """
    modes = [(part, part.training) for part in module.modules()]
    result: Tensor = checkpoint(
        module, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _as_before(modes))
    )  # it draws the same random numbers, and computes in the same number format
    return result


@contextmanager
def _as_before(modes: list[tuple[nn.Module, bool]]) -> Iterator[None]:
    """Within the block, restore the modes and use copies of all buffers."""
    now = [(part, part.training, dict(part._buffers)) for part, _ in modes]
    try:
        for part, training in modes:
            part.training = training
            part._buffers.update({name: None if b is None else b.clone() for name, b in part._buffers.items()})
        yield
    finally:
        for part, training, buffers in now:
            part.training = training
            part._buffers.update(buffers)


@contextmanager
def frozen(module: nn.Module, freeze: bool) -> Iterator[None]:
    """Within the block, run batch norm as in evaluation if `freeze` is true."""
    norms = [p for p in module.modules() if freeze and isinstance(p, nn.modules.batchnorm._BatchNorm) and p.training]
    try:
        for norm in norms:
            norm.training = False
        yield
    finally:
        for norm in norms:
            norm.training = True


def _no_shared_casts(device: str) -> torch.autocast:
    """Return the current autocast without its cache of cast weights, so that gradients of chunks add up in float32."""
    return torch.autocast(
        device,
        dtype=torch.get_autocast_dtype(device),
        enabled=torch.is_autocast_enabled(device),
        cache_enabled=False,
    )

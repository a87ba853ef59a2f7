"""Estimate the memory of a training step: measure what autograd saves for a few squares, and scale it up."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from deepemd.model import DeepEMD
from deepemd.nodes import Conv4, Memory, ResNet12, WholeImage
from deepemd.nodes.memory import frozen

__all__ = ["Estimate", "estimate"]

FEW = 2, 4  # numbers of squares, or queries, whose memory is measured; the memory is linear in their number
IN_FLIGHT = 1  # gradients, each as large as the largest map, at the peak of the backward pass
WORKSPACE = 100_000_000  # bytes that convolutions need as workspace, roughly, for any batch
COPIES = 3  # copies of all squares while they are normalised


@dataclass(frozen=True)
class Estimate:
    """The bytes of a step by purpose, without weights and optimizer."""

    squares: int  # whole images, or patches
    side: int  # of a square, in pixels
    how: str  # how memory is saved
    inputs: int
    encoder: int  # at the peak of the backward pass: saved tensors, recomputed tensors, gradients of maps
    head: int
    gradients: int  # of the weights

    @property
    def total(self) -> int:
        """The total number of bytes."""
        return self.inputs + self.encoder + self.head + self.gradients + WORKSPACE

    def __str__(self) -> str:
        """Return the line that a user reads before training begins."""
        return (
            f"memory: about {self.total / 1e9:.2g} GB in addition to weights and optimizer"
            f" ({self.squares} squares of {self.side} x {self.side}, {self.how})"
        )


def estimate(model: DeepEMD, memory: Memory, images: int, *, n_way: int | None = None, bf16: bool = False) -> Estimate:
    """Estimate the memory of a training step by encoding a few squares with a copy of the model.

    Args:
        model: the model to train.
        memory: the settings that save memory.
        images: images that are encoded together.
        n_way: classes of an episode; None for pre-training, which encodes whole images and matches none.
        bf16: whether the encoder computes in bfloat16.

    >>> from deepemd.nodes import conv4
    >>> model = DeepEMD(conv4())
    >>> print(estimate(model, Memory(), 80, n_way=5))
    memory: about 0.79 GB in addition to weights and optimizer (80 squares of 84 x 84, all saved for the backward pass)
    >>> print(estimate(model, Memory(checkpoint=True), 80, n_way=5))
    memory: about 0.71 GB in addition to weights and optimizer (80 squares of 84 x 84, checkpointed by block)
    """
    model = deepcopy(model).cpu().train()
    patches = n_way is not None and not isinstance(model.regions, WholeImage)
    squares = images * model.regions.patches if patches else images  # type: ignore[union-attr]
    square = 3 * model.image_size**2 * torch.float32.itemsize
    together = min(memory.chunk or squares, squares)
    with torch.random.fork_rng(devices=[]):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            encoder = _scaled(lambda few: _encoder(model, memory, few), together)
        matched = min(memory.query_chunk or images, images)
        head = 0 if n_way is None else _scaled(lambda few: _head(model, n_way, few), matched)
    inputs = (images + squares - together) * square  # the images themselves, and squares that wait for their chunk
    return Estimate(
        squares,
        model.image_size,
        memory.summary,
        inputs=inputs,
        encoder=max(encoder, COPIES * squares * square - inputs),
        head=head,
        gradients=sum(p.nbytes for p in model.parameters() if p.requires_grad),
    )


def _scaled(measure: Callable[[int], int], count: int) -> int:
    """Return the bytes of `count` items, extrapolated linearly from two measurements."""
    few, more = (measure(n) for n in FEW)
    return max(0, few + (count - FEW[0]) * (more - few) // (FEW[1] - FEW[0]))


def _encoder(model: DeepEMD, memory: Memory, squares: int) -> int:
    """Return the bytes at the peak of the backward pass through the encoder."""
    blocks: list[dict[int, int]] = []
    inputs: list[Tensor] = []

    def run(block: nn.Module, x: Tensor) -> Tensor:
        saved, result = _saved(lambda: block(x), model)
        blocks.append(saved)
        inputs.append(x)
        return result

    images = torch.zeros(squares, 3, model.image_size, model.image_size)
    with frozen(model.backbone, memory.freeze_batch_norm):
        if isinstance(model.backbone, Conv4 | ResNet12):
            result: Tensor = model.backbone(images, run=run)
        else:
            result = run(model.backbone, images)
    if not memory.checkpoint:
        return _peak({address: size for saved in blocks for address, size in saved.items()})
    peak = max(
        _peak({address: size for address, size in saved.items() if address != _address(x)})
        for saved, x in zip(blocks, inputs, strict=True)
    )
    return peak + sum(x.nbytes for x in (*inputs, result))


def _head(model: DeepEMD, n_way: int, queries: int) -> int:
    """Return the bytes at the peak of the backward pass through the head."""
    side = model.image_size
    with torch.no_grad():
        nodes = model.embed(torch.rand(1, 3, side, side))[0]  # (N, C)
    query, support = (torch.rand(count, *nodes.shape, requires_grad=True) for count in (queries, n_way))
    return _peak(_saved(lambda: model.match(support, query, n_way), model)[0])


def _saved(work: Callable[[], Tensor], model: nn.Module) -> tuple[dict[int, int], Tensor]:
    """Return the storages that autograd saves, address -> bytes, without weights and buffers; and the result."""
    own = {_address(tensor) for tensor in (*model.parameters(), *model.buffers())}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if _address(tensor) not in own:
            saved[_address(tensor)] = tensor.untyped_storage().nbytes()
        return tensor  # it stays alive, so that no other storage gets its address

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        result = work()
    return saved, result


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _peak(saved: dict[int, int]) -> int:
    return sum(saved.values()) + IN_FLIGHT * max(saved.values(), default=0)

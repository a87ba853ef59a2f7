"""How much memory a step of training takes, told before it begins: what autograd keeps of a few squares, scaled up."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from deepemd.model import DeepEMD
from deepemd.nodes import FCN, Conv4, Memory, ResNet12
from deepemd.nodes.memory import frozen

__all__ = ["Estimate", "estimate"]

FEW = 2, 4  # squares, or queries, of which the memory is measured; it is linear in their number
IN_FLIGHT = 1  # gradients, each as large as the largest map, beside what is kept, at the height of the backward pass
WORKSPACE = 100_000_000  # what the libraries of convolutions take for themselves, about, whatever the batch
COPIES = 3  # of all squares, while they are normalised


@dataclass(frozen=True)
class Estimate:
    """Bytes of a step beside weights and optimizer, by what they are for.

    ``encoder`` is what is there at the height of the backward pass: all that is kept, the part that is computed again,
    and the gradients of the maps.
    """

    squares: int  # whole images, or patches
    side: int  # of a square, in pixels
    how: str
    inputs: int
    encoder: int
    head: int
    gradients: int  # of the weights

    @property
    def total(self) -> int:
        """All of it."""
        return self.inputs + self.encoder + self.head + self.gradients + WORKSPACE

    def __str__(self) -> str:
        """The line that a user reads before training begins."""
        return (
            f"memory: about {self.total / 1e9:.2g} GB beside weights and optimizer"
            f" ({self.squares} squares of {self.side} x {self.side}, {self.how})"
        )


def estimate(model: DeepEMD, memory: Memory, images: int, *, n_way: int | None = None, bf16: bool = False) -> Estimate:
    """Estimate the memory of a training step; a few squares are encoded for it. The model is left as it was.

    Args:
        model: what is to be trained.
        memory: the settings.
        images: of a step.
        n_way: classes of an episode; None for pre-training, which encodes whole images and matches none.
        bf16: whether the encoder computes in bfloat16.

    >>> from deepemd.nodes import conv4
    >>> model = DeepEMD(conv4())
    >>> print(estimate(model, Memory(), 80, n_way=5))
    memory: about 0.79 GB beside weights and optimizer (80 squares of 84 x 84, all kept for the backward pass)
    >>> print(estimate(model, Memory(checkpoint=True), 80, n_way=5))
    memory: about 0.71 GB beside weights and optimizer (80 squares of 84 x 84, checkpointed by block)
    """
    model = deepcopy(model).cpu().train()
    patches = n_way is not None and not isinstance(model.regions, FCN)
    squares = images * model.regions.patches if patches else images  # type: ignore[union-attr]
    square = 3 * model.image_size**2 * torch.float32.itemsize
    together = min(memory.chunk or squares, squares)
    with torch.random.fork_rng(devices=[]):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            encoder = _scaled(lambda few: _encoder(model, memory, few), together)
        matched = min(memory.query_chunk or images, images)
        head = 0 if n_way is None else _scaled(lambda few: _head(model, n_way, few), matched)
    inputs = (images + squares - together) * square  # as they come, and those that wait for their chunk
    return Estimate(
        squares,
        model.image_size,
        memory.told,
        inputs=inputs,
        encoder=max(encoder, COPIES * squares * square - inputs),
        head=head,
        gradients=sum(p.nbytes for p in model.parameters() if p.requires_grad),
    )


def _scaled(measure: Callable[[int], int], count: int) -> int:
    """What `count` take, by the straight line through two measurements."""
    few, more = (measure(n) for n in FEW)
    return max(0, few + (count - FEW[0]) * (more - few) // (FEW[1] - FEW[0]))


def _encoder(model: DeepEMD, memory: Memory, squares: int) -> int:
    """Bytes at the height of the backward pass through the encoder."""
    blocks: list[dict[int, int]] = []
    inputs: list[Tensor] = []

    def run(block: nn.Module, x: Tensor) -> Tensor:
        kept, result = _kept(lambda: block(x), model)
        blocks.append(kept)
        inputs.append(x)
        return result

    images = torch.zeros(squares, 3, model.image_size, model.image_size)
    with frozen(model.backbone, memory.freeze_batch_norm):
        if isinstance(model.backbone, Conv4 | ResNet12):
            result: Tensor = model.backbone(images, run=run)
        else:
            result = run(model.backbone, images)
    if not memory.checkpoint:
        return _height({place: size for kept in blocks for place, size in kept.items()})
    height = max(
        _height({place: size for place, size in kept.items() if place != _place(x)})
        for kept, x in zip(blocks, inputs, strict=True)
    )
    return height + sum(x.nbytes for x in (*inputs, result))


def _head(model: DeepEMD, n_way: int, queries: int) -> int:
    """Bytes at the height of the backward pass through the head."""
    side = model.image_size
    with torch.no_grad():
        nodes = model.embed(torch.rand(1, 3, side, side))[0]  # (N, C)
    query, support = (torch.rand(count, *nodes.shape, requires_grad=True) for count in (queries, n_way))
    return _height(_kept(lambda: model.match(support, query, n_way), model)[0])


def _kept(work: Callable[[], Tensor], model: nn.Module) -> tuple[dict[int, int], Tensor]:
    """Address and size of every storage that autograd keeps of some work, but for weights and buffers; its result."""
    own = {_place(tensor) for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if _place(tensor) not in own:
            kept[_place(tensor)] = tensor.untyped_storage().nbytes()
        return tensor  # and so it stays, and its address is nobody else's

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        result = work()
    return kept, result


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _height(kept: dict[int, int]) -> int:
    return sum(kept.values()) + IN_FLIGHT * max(kept.values(), default=0)

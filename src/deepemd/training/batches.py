"""The batches of a run: part p of step i is a function of (seed, i, p) alone, so that a resumed run is the run.

Pixels come from a decoded memory map by one indexed read; they stay uint8 until they are on the device.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepemd.data import EpisodeSampler
from deepemd.embedding.views import View, squares
from deepemd.errors import InputError
from deepemd.processes import shard, world_size

__all__ = ["Batch", "Batches", "check_seed", "classification_batches", "draw_seed", "episode_batches"]

ORDER, AUGMENTATION = 1, 2  # what random words are for: a limb of the generator's counter keeps the streams apart


class Batch(NamedTuple):
    """The input of a step, or of a part of it: what the model sees, and what it should answer."""

    step: int  # counted from 0
    seed: int  # of its augmentation
    images: Tensor  # uint8 (B, 3, H, W)
    labels: Tensor  # int64 (B,), or of the queries only
    boxes: Tensor | None = None  # int64 (B, M, 4): the patches of Grid and Sampling


def _words(seed: int, purpose: int, index: int, count: int) -> NDArray[np.uint64]:
    """Raw words of the counter-based generator Philox: the same with every version of NumPy, on every machine."""
    return np.random.Philox(key=seed, counter=[0, index, purpose, 0]).random_raw(count)


def check_seed(seed: int) -> None:
    """Refuse a seed that the generators do not take."""
    if not 0 <= seed < 2**63:
        raise InputError(f"seed is {seed}: it must be from 0 to 2**63 - 1")


def draw_seed(seed: int, step: int, part: int = 0) -> int:
    """The seed of the augmentation of a part of a step, a function of (seed, step, part)."""
    return int(_words(seed, AUGMENTATION, step, part + 1)[part] >> np.uint64(1))


class Batches:
    """The steps of a run, each as the parts that this process has of it; sized, and a Lightning checkpoint can put it
    back to the step where it was.

    Args:
        make: a part of a step, from the numbers of both.
        total: number of steps of the run.
        parts: in how many parts a step is encoded; the processes share them.

    Raises:
        InputError: the processes cannot have the same number of parts each.
    """

    def __init__(self, make: Callable[[int, int], Batch], total: int, parts: int = 1) -> None:
        if parts % world_size():
            raise InputError(
                f"recipe.parts is {parts}, and {world_size()} processes share the parts of a step: set recipe.parts to"
                f" {-(-parts // world_size()) * world_size()} (another run: batch norm sees parts), or start as many"
                " processes as divide it"
            )
        self.make = make
        self.total = total
        self.mine = shard(range(parts))
        self.next = 0

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[list[Batch]]:
        while self.next < self.total:
            self.next += 1
            yield [self.make(self.next - 1, part) for part in self.mine]

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the step that comes next."""
        return {"next": self.next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's step."""
        self.next = int(state["next"])


def classification_batches(
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    batch_size: int,
    epochs: int,
    seed: int,
    *,
    rotations: bool = False,
    parts: int = 1,
) -> Batches:
    """Shuffled passes over all images; the remainder of each pass that fills no batch is left out.

    A step has batch_size images in `parts` parts.

    With `rotations` each image also comes turned by 90, 180 and 270 degrees, as images of three more sets of classes,
    whose labels follow those of the first.

    >>> batches = classification_batches(np.zeros((10, 3, 4, 4), np.uint8), np.arange(10), 3, epochs=2, seed=0)
    >>> len(batches), next(iter(batches))[0].images.shape
    (6, torch.Size([3, 3, 4, 4]))
    """
    images, classes = len(labels) * (4 if rotations else 1), int(labels.max()) + 1
    size = min(batch_size, images) // parts  # of a part
    if not size:
        raise InputError(f"recipe.parts is {parts}, but there are only {images} images: lower it")
    per_epoch = images // (size * parts)
    orders: dict[int, NDArray[np.int64]] = {}  # of the present epoch only

    def make(step: int, part: int) -> Batch:
        epoch, place = divmod(step, per_epoch)
        if epoch not in orders:
            orders.clear()
            orders[epoch] = np.argsort(_words(seed, ORDER, epoch, images), kind="stable")
        begin = (place * parts + part) * size
        turns, indices = np.divmod(orders[epoch][begin : begin + size], len(labels))
        seen = squares(pixels, indices)  # (B, 3, S, S)
        for turn in range(1, 4) if rotations else ():
            seen[turns == turn] = seen[turns == turn].rot90(turn, (2, 3))
        return Batch(step, draw_seed(seed, step, part), seen, torch.from_numpy(labels[indices] + turns * classes))

    return Batches(make, per_epoch * epochs, parts)


def episode_batches(
    see: Callable[[NDArray[np.int64], int], View], sampler: EpisodeSampler, per_step: int, parts: int = 1
) -> Batches:
    """Training episodes, `per_step` at a time in `parts` parts: each one's support, then its queries; labels are the
    queries'.

    Args:
        see: what the model is shown of images, from their indices and a seed; see :func:`deepemd.embedding.views.view`.
        sampler: the episodes.
        per_step: how many make a step.
        parts: divides it.
    """
    size = per_step // parts  # episodes of a part

    def make(step: int, part: int) -> Batch:
        episodes = [sampler[step * per_step + part * size + k] for k in range(size)]
        indices = np.concatenate([part for episode in episodes for part in (episode.support, episode.query)])
        labels = torch.from_numpy(np.concatenate([episode.query_labels for episode in episodes]))  # (size * Q,)
        seed = draw_seed(sampler.seed, step, part)
        images, boxes = see(indices, seed)
        return Batch(step, seed, images, labels, boxes)

    return Batches(make, len(sampler) // per_step, parts)

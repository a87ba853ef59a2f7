"""The batches of a run: step i is a function of (seed, i) alone, so that a resumed run is the run.

Pixels come from a decoded memory map by one indexed read; they stay uint8 until they are on the device.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepemd.data import EpisodeSampler
from deepemd.errors import InputError
from deepemd.training.views import View, squares

__all__ = ["Batch", "Batches", "check_seed", "classification_batches", "draw_seed", "episode_batches"]

ORDER, AUGMENTATION = 1, 2  # what random words are for: a limb of the generator's counter keeps the streams apart


class Batch(NamedTuple):
    """One step's input: what the model sees, and what it should answer."""

    step: int  # counted from 0
    seed: int  # of the step's augmentation
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


def draw_seed(seed: int, step: int) -> int:
    """The seed of a step's augmentation, a function of (seed, step)."""
    return int(_words(seed, AUGMENTATION, step, 1)[0] >> np.uint64(1))


class Batches:
    """A sized iterable that a Lightning checkpoint can put back to the step where it was.

    Args:
        make: the batch of a step.
        total: number of steps of the run.
    """

    def __init__(self, make: Callable[[int], Batch], total: int) -> None:
        self.make = make
        self.total = total
        self.next = 0

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[Batch]:
        while self.next < self.total:
            self.next += 1
            yield self.make(self.next - 1)

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
) -> Batches:
    """Shuffled passes over all images; the remainder of each pass that fills no batch is left out.

    With `rotations` each image also comes turned by 90, 180 and 270 degrees, as images of three more sets of classes,
    whose labels follow those of the first.

    >>> batches = classification_batches(np.zeros((10, 3, 4, 4), np.uint8), np.arange(10), 3, epochs=2, seed=0)
    >>> len(batches), next(iter(batches)).images.shape
    (6, torch.Size([3, 3, 4, 4]))
    """
    count, classes = len(labels) * (4 if rotations else 1), int(labels.max()) + 1
    batch_size = min(batch_size, count)
    per_epoch = count // batch_size
    orders: dict[int, NDArray[np.int64]] = {}  # of the present epoch only

    def make(step: int) -> Batch:
        epoch, place = divmod(step, per_epoch)
        if epoch not in orders:
            orders.clear()
            orders[epoch] = np.argsort(_words(seed, ORDER, epoch, count), kind="stable")
        turns, indices = np.divmod(orders[epoch][place * batch_size : (place + 1) * batch_size], len(labels))
        images = squares(pixels, indices)  # (B, 3, S, S)
        for turn in range(1, 4) if rotations else ():
            images[turns == turn] = images[turns == turn].rot90(turn, (2, 3))
        return Batch(step, draw_seed(seed, step), images, torch.from_numpy(labels[indices] + turns * classes))

    return Batches(make, per_epoch * epochs)


def episode_batches(see: Callable[[NDArray[np.int64], int], View], sampler: EpisodeSampler, per_step: int) -> Batches:
    """Training episodes, `per_step` at a time: each one's support, then its queries; labels are the queries'.

    Args:
        see: what the model is shown of images, from their indices and a seed; see :func:`deepemd.training.views.view`.
        sampler: the episodes.
        per_step: how many make a batch.
    """

    def make(step: int) -> Batch:
        episodes = [sampler[step * per_step + k] for k in range(per_step)]
        indices = np.concatenate([part for episode in episodes for part in (episode.support, episode.query)])
        labels = torch.from_numpy(np.concatenate([episode.query_labels for episode in episodes]))  # (per_step * Q,)
        seed = draw_seed(sampler.seed, step)
        images, boxes = see(indices, seed)
        return Batch(step, seed, images, labels, boxes)

    return Batches(make, len(sampler) // per_step)

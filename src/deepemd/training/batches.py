"""The batches of a run: micro-batch k of step i is a function of (seed, i, k) alone, so a resumed run repeats them.

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

ORDER, AUGMENTATION = 1, 2  # purposes of random words: a limb of the generator's counter, so that the streams differ


class Batch(NamedTuple):
    """One micro-batch: images and their correct labels."""

    step: int  # counted from 0
    seed: int  # seed of the augmentation
    images: Tensor  # uint8 (B, 3, H, W)
    labels: Tensor  # int64 (B,); in meta-training (Q,), for the queries only
    boxes: Tensor | None = None  # int64 (B, M, 4): the patches of Grid and Sampling


def _words(seed: int, purpose: int, index: int, count: int) -> NDArray[np.uint64]:
    """Draw raw words of the counter-based generator Philox, the same on every machine and version of NumPy."""
    return np.random.Philox(key=seed, counter=[0, index, purpose, 0]).random_raw(count)


def check_seed(seed: int) -> None:
    """Raise InputError for a seed that the generators do not accept."""
    if not 0 <= seed < 2**63:
        raise InputError(f"seed is {seed}: it must be from 0 to 2**63 - 1")


def draw_seed(seed: int, step: int, micro_batch: int = 0) -> int:
    """Draw the seed of a micro-batch's augmentation, a function of (seed, step, micro_batch)."""
    return int(_words(seed, AUGMENTATION, step, micro_batch + 1)[micro_batch] >> np.uint64(1))


class Batches:
    """The steps of a run, each a list of the micro-batches that this process encodes.

    It has a length, and Lightning can restore its step from a checkpoint.

    Args:
        make: function that makes a micro-batch, given the step and its number within the step.
        total: number of steps of the run.
        grad_accum_steps: number of micro-batches of a step, which the processes share.

    Raises:
        InputError: the number of processes does not divide `grad_accum_steps`.
    """

    def __init__(self, make: Callable[[int, int], Batch], total: int, grad_accum_steps: int = 1) -> None:
        processes = world_size()
        if grad_accum_steps % processes:
            raise InputError(
                f"recipe.grad_accum_steps is {grad_accum_steps}, and {processes} processes share the micro-batches of a"
                f" step: set recipe.grad_accum_steps to {-(-grad_accum_steps // processes) * processes} (which"
                " changes the run, as batch norm sees micro-batches), or start a number of processes that divides it"
            )
        self.make = make
        self.total = total
        self.mine = shard(range(grad_accum_steps))
        self.next = 0

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[list[Batch]]:
        while self.next < self.total:
            self.next += 1
            yield [self.make(self.next - 1, k) for k in self.mine]

    def state_dict(self) -> dict[str, Any]:
        """Return the next step, for a checkpoint."""
        return {"next": self.next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the step of a checkpoint."""
        self.next = int(state["next"])


def classification_batches(
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    batch_size: int,
    epochs: int,
    seed: int,
    *,
    rotations: bool = False,
    grad_accum_steps: int = 1,
) -> Batches:
    """Return batches of shuffled passes over all images; images left over at the end of a pass are dropped.

    Args:
        pixels: uint8 (N, 3, S, S).
        labels: int64 (N,), from 0.
        batch_size: images of a step; all images if there are fewer.
        epochs: number of passes.
        seed: seed of order and augmentation.
        rotations: also show each image turned by 90, 180 and 270 degrees, as three more sets of classes, whose labels
            follow those of the first.
        grad_accum_steps: micro-batches of a step.

    >>> batches = classification_batches(np.zeros((10, 3, 4, 4), np.uint8), np.arange(10), 3, epochs=2, seed=0)
    >>> len(batches), next(iter(batches))[0].images.shape
    (6, torch.Size([3, 3, 4, 4]))
    """
    images, classes = len(labels) * (4 if rotations else 1), int(labels.max()) + 1
    size = min(batch_size, images) // grad_accum_steps  # images of a micro-batch
    if not size:
        raise InputError(f"recipe.grad_accum_steps is {grad_accum_steps}, but there are only {images} images: lower it")
    per_epoch = images // (size * grad_accum_steps)
    orders: dict[int, NDArray[np.int64]] = {}  # of the current epoch only

    def make(step: int, k: int) -> Batch:
        epoch, place = divmod(step, per_epoch)
        if epoch not in orders:
            orders.clear()
            orders[epoch] = np.argsort(_words(seed, ORDER, epoch, images), kind="stable")
        begin = (place * grad_accum_steps + k) * size
        turns, indices = np.divmod(orders[epoch][begin : begin + size], len(labels))
        shown = squares(pixels, indices)  # (B, 3, S, S)
        for turn in range(1, 4) if rotations else ():
            shown[turns == turn] = shown[turns == turn].rot90(turn, (2, 3))
        return Batch(step, draw_seed(seed, step, k), shown, torch.from_numpy(labels[indices] + turns * classes))

    return Batches(make, per_epoch * epochs, grad_accum_steps)


def episode_batches(
    make_view: Callable[[NDArray[np.int64], int], View],
    sampler: EpisodeSampler,
    per_step: int,
    grad_accum_steps: int = 1,
) -> Batches:
    """Return batches of training episodes: the support of each, then its queries; the labels are those of the queries.

    Args:
        make_view: function that returns the model's input, given the indices of images and a seed; see
            :func:`deepemd.embedding.views.view`.
        sampler: the episodes.
        per_step: episodes of a step.
        grad_accum_steps: micro-batches of a step; it divides `per_step`.
    """
    size = per_step // grad_accum_steps  # episodes of a micro-batch

    def make(step: int, k: int) -> Batch:
        first = step * per_step + k * size
        episodes = [sampler[i] for i in range(first, first + size)]
        indices = np.concatenate([some for episode in episodes for some in (episode.support, episode.query)])
        labels = torch.from_numpy(np.concatenate([episode.query_labels for episode in episodes]))  # (size * Q,)
        seed = draw_seed(sampler.seed, step, k)
        images, boxes = make_view(indices, seed)
        return Batch(step, seed, images, labels, boxes)

    return Batches(make, len(sampler) // per_step, grad_accum_steps)

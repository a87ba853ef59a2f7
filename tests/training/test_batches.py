"""Batches are functions of (seed, step), and complete."""

import numpy as np
import torch

from deepemd.data import EpisodeSampler
from deepemd.embedding.views import View, squares
from deepemd.training.batches import Batch, classification_batches, draw_seed, episode_batches

LABELS = np.arange(10, dtype=np.int64)
PIXELS = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 2, 2), dtype=np.uint8)


def same(one: Batch, other: Batch) -> bool:
    return one[:2] == other[:2] and all(torch.equal(a, b) for a, b in zip(one[2:4], other[2:4], strict=True))


def test_each_pass_shows_each_image_once_in_another_order() -> None:
    batches = [batch for (batch,) in classification_batches(PIXELS, LABELS, 5, epochs=2, seed=1)]
    assert [batch.step for batch in batches] == [0, 1, 2, 3]
    first, second = (torch.cat([batch.labels for batch in batches[k : k + 2]]).tolist() for k in (0, 2))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    for batch in batches:
        assert torch.equal(batch.images[:, 0, 0, 0].long(), batch.labels)


def test_a_batch_does_not_depend_on_those_before_it() -> None:
    whole = [batch for (batch,) in classification_batches(PIXELS, LABELS, 3, epochs=3, seed=1)]
    resumed = classification_batches(PIXELS, LABELS, 3, epochs=3, seed=1)
    resumed.load_state_dict({"next": 4})
    rest = [batch for (batch,) in resumed]
    assert len(whole) == len(resumed) == 9
    assert [batch.step for batch in rest] == [4, 5, 6, 7, 8]
    assert all(same(one, other) for one, other in zip(whole[4:], rest, strict=True))
    assert resumed.state_dict() == {"next": 9}


def test_rotations_are_classes_of_their_own() -> None:
    """Images with one bright corner: where it is says how they were turned, and the label must say the same."""
    pixels = np.zeros((10, 3, 2, 2), dtype=np.uint8)
    pixels[:, :, 0, 0] = np.arange(1, 11)[:, None]
    batches = [batch for (batch,) in classification_batches(pixels, LABELS // 2, 7, epochs=1, seed=1, rotations=True)]
    assert len(batches) == 5
    corner = {0: (0, 0), 1: (1, 0), 2: (1, 1), 3: (0, 1)}  # of quarter turns against the clock
    seen = set()
    for batch in batches:
        for image, label in zip(batch.images, batch.labels.tolist(), strict=True):
            turn, own = divmod(label, 5)
            bright = int(image[0][corner[turn]])
            assert (bright - 1) // 2 == own
            assert int(image.sum()) == 3 * bright
            seen.add((bright, turn))
    assert len(seen) == 35  # of 40, none twice


def test_seeds_differ_by_run_and_step() -> None:
    seeds = {draw_seed(seed, step) for seed in range(10) for step in range(100)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_fewer_images_than_a_batch_make_one_batch() -> None:
    batches = classification_batches(PIXELS, LABELS, 64, epochs=2, seed=0)
    assert [len(batch.labels) for (batch,) in batches] == [10, 10]


def test_episodes_come_support_first() -> None:
    labels = np.repeat(np.arange(4), 6)
    pixels = np.arange(24, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 2, 2), dtype=np.uint8)
    sampler = EpisodeSampler(labels, n_way=3, n_shot=2, n_query=2, n_episodes=4, seed=5)
    shown = lambda indices, seed: View(squares(pixels, indices))  # noqa: ARG005, E731
    batches = [batch for (batch,) in episode_batches(shown, sampler, per_step=2)]
    assert len(batches) == 2
    indices = batches[1].images[:, 0, 0, 0].view(2, 12).numpy()
    for place, episode in enumerate((sampler[2], sampler[3])):
        assert np.array_equal(indices[place], np.concatenate((episode.support, episode.query)))
    assert torch.equal(batches[1].labels, torch.tensor([0, 1, 2, 0, 1, 2] * 2))


def test_reading_keeps_order_and_repetition() -> None:
    indices = np.array([7, 2, 2, 9, 0])
    assert squares(PIXELS, indices)[:, 0, 0, 0].tolist() == indices.tolist()

"""The sampler against an independent twin, golden episodes, and what every episode must satisfy."""

from collections.abc import Iterator

import numpy as np
import pytest

from deepemd.data import EpisodeSampler
from deepemd.errors import InputError

MASK = 2**64 - 1


def philox_words(seed: int, counter: list[int]) -> Iterator[int]:
    """Philox 4x64-10 from its published definition, in plain integers."""
    while True:
        counter = list(counter)
        for limb in range(4):  # numpy counts up before it draws
            counter[limb] = (counter[limb] + 1) & MASK
            if counter[limb]:
                break
        c, k = list(counter), [seed, 0]
        for _ in range(10):
            left, right = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
            c = [right >> 64 ^ c[1] ^ k[0], right & MASK, left >> 64 ^ c[3] ^ k[1], left & MASK]
            k = [(k[0] + 0x9E3779B97F4A7C15) & MASK, (k[1] + 0xBB67AE8584CAA73B) & MASK]
        yield from c


def slow_episode(labels, groups, n_way, n_shot, n_query, seed, i):
    """The same episode by popping from lists."""
    words = philox_words(seed, [0, i, 0, 0])

    def shuffled(items, count):
        items = list(items)
        for k in range(count):
            j = k + next(words) * (len(items) - k) // 2**64
            items[k], items[j] = items[j], items[k]
        return items[:count]

    classes = shuffled(sorted(set(labels.tolist())), n_way)
    columns = []
    for label in classes:
        members = [k for k, other in enumerate(labels) if other == label]
        drawn = shuffled(members, n_shot + n_query if groups is None else len(members))
        if groups is not None:
            taken = {groups[k] for k in drawn[:n_shot]}
            drawn = drawn[:n_shot] + [k for k in drawn[n_shot:] if groups[k] not in taken][:n_query]
        columns.append(drawn)
    rows = list(zip(*columns, strict=True))
    return classes, [k for row in rows[:n_shot] for k in row], [k for row in rows[n_shot:] for k in row]


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize(("n_way", "n_shot", "n_query", "seed"), [(5, 1, 15, 0), (3, 4, 2, 2**64 - 1), (7, 2, 0, 12)])
def test_equals_the_slow_twin(grouped, n_way, n_shot, n_query, seed):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10, 90, 10), 24))
    groups = np.arange(len(labels)) % 8 if grouped else None
    sampler = EpisodeSampler(labels, n_way, n_shot, n_query, n_episodes=10**9, seed=seed, groups=groups)
    for i in (0, 1, 2, 999_999_999):
        episode = sampler[i]
        classes, support, query = slow_episode(labels, groups, n_way, n_shot, n_query, seed, i)
        assert episode.classes.tolist() == classes
        assert episode.support.tolist() == support
        assert episode.query.tolist() == query


def test_golden_episodes():
    labels = np.repeat(np.arange(20), 30)
    episode = EpisodeSampler(labels, n_way=5, n_shot=1, n_query=2, n_episodes=5000, seed=1)[4321]
    assert episode.classes.tolist() == GOLDEN[0]
    assert episode.support.tolist() == GOLDEN[1]
    assert episode.query.tolist() == GOLDEN[2]


GOLDEN: tuple[list[int], list[int], list[int]] = (
    [2, 1, 4, 18, 17],
    [77, 32, 126, 544, 511],
    [69, 51, 124, 556, 536, 86, 34, 129, 549, 519],
)


def test_record():
    labels = np.repeat(np.array([3, 8, 9, 40]), 12)
    for episode in EpisodeSampler(labels, n_way=3, n_shot=2, n_query=4, n_episodes=50, seed=5):
        assert (episode.n_way, episode.n_shot, episode.n_query) == (3, 2, 4)
        assert episode.classes.dtype == episode.support.dtype == episode.query.dtype == np.int64
        assert len(set(episode.classes.tolist())) == 3
        assert len({*episode.support.tolist(), *episode.query.tolist()}) == 3 * 6
        assert np.array_equal(labels[episode.support], episode.classes[episode.support_labels])  # shot-first
        assert np.array_equal(labels[episode.query], episode.classes[episode.query_labels])


def test_groups_are_not_divided():
    labels, groups = np.repeat(np.arange(6), 36), np.tile(np.repeat(np.arange(12), 3), 6)
    for episode in EpisodeSampler(labels, 5, 5, 15, n_episodes=100, groups=groups):
        for label in range(5):
            support = set(groups[episode.support[episode.support_labels == label]].tolist())
            assert not support & set(groups[episode.query[episode.query_labels == label]].tolist())


def test_episodes_are_independent_of_length_and_unlike_each_other():
    labels = np.repeat(np.arange(64), 600)
    short, long = EpisodeSampler(labels, n_episodes=3, seed=2), EpisodeSampler(labels, n_episodes=3000, seed=2)
    assert len(short) == len(list(short)) == 3
    assert all(np.array_equal(a.query, long[i].query) for i, a in enumerate(short))
    assert len({tuple(long[i].support.tolist()) for i in range(3000)}) == 3000
    assert not np.array_equal(short[0].support, EpisodeSampler(labels, n_episodes=3, seed=3)[0].support)


def test_draws_are_uniform():
    labels = np.repeat(np.arange(10), 4)
    sampler = EpisodeSampler(labels, n_way=2, n_shot=1, n_query=1, n_episodes=20_000, seed=0)
    counts = np.bincount(np.concatenate([episode.support for episode in sampler]), minlength=40)
    expected = 1000.0  # 20,000 episodes, 2 support images each, 40 images
    assert ((counts - expected) ** 2 / expected).sum() < 90  # chi-squared, 39 degrees of freedom: p = 1e-5
    firsts = np.bincount([episode.classes[0] * 10 + episode.classes[1] for episode in sampler], minlength=100)
    off = firsts.reshape(10, 10)[~np.eye(10, dtype=bool)]  # ordered pairs of distinct classes
    assert ((off - 20_000 / 90) ** 2 / (20_000 / 90)).sum() < 155  # 89 degrees of freedom
    assert firsts.reshape(10, 10).trace() == 0


LABELS = np.repeat(np.arange(4), [20, 20, 20, 6])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": LABELS, "n_way": 5}, r"n_way: 5 classes asked for, but there are 4: lower n_way"),
        ({"labels": LABELS, "n_way": 4}, r"class 3 has 6 images, but 1 support \+ 15 query images"),
        ({"labels": LABELS[:20], "n_way": 0}, "n_way is 0: it must be at least 1"),
        ({"labels": LABELS[:20], "n_way": 1, "n_shot": 0}, "n_shot is 0: it must be at least 1"),
        ({"labels": LABELS[:20], "n_way": 1, "n_query": -1}, "n_query is -1: it must be at least 0"),
        ({"labels": LABELS[:20], "n_way": 1, "seed": -1}, "seed is -1: it must be from 0"),
        ({"labels": LABELS[:20], "n_way": 1, "n_episodes": -1}, "n_episodes is -1: it must be at least 0"),
        ({"labels": LABELS[:20].astype(float), "n_way": 1}, r"labels: expected integers .*float64"),
        ({"labels": LABELS[None], "n_way": 1}, r"labels: expected integers of shape \(N,\).*\(1, 66\)"),
        ({"labels": LABELS[:20], "n_way": 1, "groups": np.zeros(3, int)}, r"groups: expected one for each of 20"),
        (
            {"labels": LABELS[:20], "n_way": 1, "groups": np.arange(20) // 10},
            "class 0 has 2 groups, and 1 of them in the support may leave only 10 images of other groups",
        ),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(InputError, match=message):
        EpisodeSampler(**arguments)


def test_index_beyond_the_last():
    with pytest.raises(IndexError, match="episode 7 of 7"):
        EpisodeSampler(LABELS[:60], 3, n_episodes=7)[7]

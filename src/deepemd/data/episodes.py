"""Episodes: the classes and images of few-shot tasks.

Episode i is a function of (seed, i) alone. It is drawn from the raw 64-bit words of the counter-based generator
Philox 4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), keyed by the seed and counted
by i, with integer arithmetic only: it is the same on every machine, with every version of numpy, for any number of
processes, and after a resume.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from deepemd.checks import whole_number
from deepemd.data.images import Images
from deepemd.errors import InputError

__all__ = ["Episode", "EpisodeSampler", "Episodes"]


@dataclass(frozen=True)
class Episodes:
    """The settings of a fixed sequence of episodes.

    Args:
        n_way: classes of an episode.
        n_shot: labelled images of a class.
        n_query: images to classify of each class; published tables use 15.
        n_episodes: length of the sequence; a confidence interval narrows with its square root. The paper uses 5,000
            for one shot.
        seed: seed of the episodes; the same seed gives every model the same episodes.

    Raises:
        InputError: a setting is not a whole number in its range.
    """

    n_way: int = 5
    n_shot: int = 1
    n_query: int = 15
    n_episodes: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n_way", "n_shot", "n_query", "n_episodes"):
            object.__setattr__(self, name, whole_number(name, getattr(self, name)))
        object.__setattr__(self, "seed", whole_number("seed", self.seed, 0, 2**64 - 1))

    def sampler(self, images: Images) -> "EpisodeSampler":
        """Return the episodes over a split; see :class:`EpisodeSampler` for the errors."""
        return EpisodeSampler(images.labels, groups=images.groups, names=images.classes, **asdict(self))


@dataclass(frozen=True)
class Episode:
    """One n-way task, as indices into the images of a split.

    Both index arrays are shot-first: class 0 .. n_way-1 of the first shot, then of the second, and so on, so that the
    label of an image within its episode is its place modulo ``n_way``.

    Attributes:
        classes: int64 (n_way,), the labels of the chosen classes in the split.
        support: int64 (n_shot * n_way,), the labelled images.
        query: int64 (n_query * n_way,), the images to classify; none is in ``support``.
    """

    classes: np.ndarray
    support: np.ndarray
    query: np.ndarray

    @property
    def n_way(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def n_shot(self) -> int:
        """Number of support images of each class."""
        return len(self.support) // self.n_way

    @property
    def n_query(self) -> int:
        """Number of query images of each class."""
        return len(self.query) // self.n_way

    @property
    def support_labels(self) -> np.ndarray:
        """Labels of the support within the episode, 0 .. n_way-1: int64 (n_shot * n_way,)."""
        return np.arange(len(self.support)) % self.n_way

    @property
    def query_labels(self) -> np.ndarray:
        """Labels of the queries within the episode, 0 .. n_way-1: int64 (n_query * n_way,)."""
        return np.arange(len(self.query)) % self.n_way


class EpisodeSampler:
    """A fixed sequence of episodes: n_way classes, and n_shot + n_query images of each, drawn without replacement.

    Args:
        labels: int64 (N,), the label of each image; they need not be contiguous.
        n_way: classes in an episode.
        n_shot: support images of each class.
        n_query: query images of each class; published tables use 15.
        n_episodes: length of the sequence; the first episodes do not depend on it.
        seed: 0 <= seed < 2**64; another seed gives unrelated episodes.
        groups: int64 (N,) or None; query images of a class then come from groups that do not occur in its support.
        names: names of the classes, by label, for messages.

    Raises:
        InputError: there are fewer classes than n_way, or a class has too few images or groups (it is named).

    >>> sampler = EpisodeSampler(np.repeat(np.arange(6), 8), n_way=3, n_shot=1, n_query=2, n_episodes=100, seed=7)
    >>> len(sampler), sampler[41].support.shape, sampler[41].query.shape
    (100, (3,), (6,))
    >>> np.array_equal(sampler[41].query, list(sampler)[41].query)
    True
    """

    def __init__(
        self,
        labels: np.ndarray,
        n_way: int = 5,
        n_shot: int = 1,
        n_query: int = 15,
        n_episodes: int = 1000,
        seed: int = 0,
        groups: np.ndarray | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        labels = np.asarray(labels)
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise InputError(f"labels: expected integers of shape (N,), got {labels.dtype} of shape {labels.shape}")
        if groups is not None and np.shape(groups) != labels.shape:
            raise InputError(f"groups: expected one for each of {len(labels)} labels, got shape {np.shape(groups)}")
        self.n_way, self.n_shot = n_way, n_shot = whole_number("n_way", n_way), whole_number("n_shot", n_shot)
        self.n_query, self.n_episodes = whole_number("n_query", n_query, 0), whole_number("n_episodes", n_episodes, 0)
        self.seed = whole_number("seed", seed, 0, 2**64 - 1)
        self.classes = np.unique(labels)
        if n_way > len(self.classes):
            raise InputError(f"n_way: {n_way} classes asked for, but there are {len(self.classes)}: lower n_way")
        order = np.argsort(labels, kind="stable")
        starts = np.searchsorted(labels[order], self.classes)
        self._members = [part.tolist() for part in np.split(order, starts[1:])]
        self._groups = None if groups is None else np.asarray(groups).tolist()
        for label, members in zip(self.classes, self._members, strict=True):
            self._check(f"class {label}" if names is None else f"class {names[label]!r}", members)

    def _check(self, name: str, members: list[int]) -> None:
        """Raise an error if some draw of the support would leave too few queries of a class."""
        asked = f"{self.n_shot} support + {self.n_query} query images"
        if len(members) < self.n_shot + self.n_query:
            raise InputError(
                f"{name} has {len(members)} images, but {asked} are asked for: "
                "lower n_shot or n_query, or leave the class out"
            )
        if self._groups is not None:
            sizes = np.unique([self._groups[i] for i in members], return_counts=True)[1]
            left = int(np.sort(sizes)[::-1][self.n_shot :].sum())  # the support may take the n_shot largest groups
            if left < self.n_query:
                raise InputError(
                    f"{name} has {len(sizes)} groups, and {self.n_shot} of them in the support may leave only "
                    f"{left} images of other groups, but {asked} are asked for: lower n_shot or n_query"
                )

    def __len__(self) -> int:
        return self.n_episodes

    def __iter__(self) -> Iterator[Episode]:
        return (self[i] for i in range(self.n_episodes))

    def __getitem__(self, i: int) -> Episode:
        """Return episode ``i``, counted from 0; raise IndexError beyond the last."""
        if not 0 <= i < self.n_episodes:
            raise IndexError(f"episode {i} of {self.n_episodes}")
        # The 256-bit counter steps by one for each four words: i in its second 64-bit limb keeps episodes apart.
        philox = np.random.Philox(key=self.seed, counter=[0, i, 0, 0])
        ways = _draw(philox, len(self.classes), self.n_way)
        chosen = [self._images(philox, self._members[way]) for way in ways]
        images = np.array(chosen, dtype=np.int64).T  # (n_way, n_shot + n_query) -> (n_shot + n_query, n_way)
        return Episode(self.classes[ways], images[: self.n_shot].ravel(), images[self.n_shot :].ravel())

    def _images(self, philox: np.random.Philox, members: list[int]) -> list[int]:
        """Draw the support images, then the query images, of one class."""
        if self._groups is None:
            return [members[k] for k in _draw(philox, len(members), self.n_shot + self.n_query)]
        groups = self._groups
        shuffled = [members[k] for k in _draw(philox, len(members), len(members))]
        support = shuffled[: self.n_shot]
        seen = {groups[k] for k in support}
        rest = [k for k in shuffled[self.n_shot :] if groups[k] not in seen]
        return support + rest[: self.n_query]


def _draw(philox: np.random.Philox, size: int, count: int) -> list[int]:
    """Draw ``count`` of ``range(size)`` without replacement, in random order: the head of a Fisher-Yates shuffle.

    The word w picks one of n by floor(w * n / 2**64), whose bias is below n / 2**64. Only the swapped places are
    stored, so the cost does not grow with ``size``.
    """
    moved: dict[int, int] = {}
    drawn = []
    for k, word in enumerate(philox.random_raw(count).tolist()):
        j = k + (word * (size - k) >> 64)
        drawn.append(moved.get(j, j))
        moved[j] = moved.get(k, k)
    return drawn

"""Choose the photos whose labels would teach most: uncertain and typical ones that differ from each other."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepemd.apps.photos.predictions import sheet_label, sheet_path
from deepemd.apps.photos.summary import Foremost
from deepemd.classifier.prediction import Prediction
from deepemd.data.photos import PhotoFile
from deepemd.embedding.stream import Embedded
from deepemd.files import atomic_write

__all__ = ["Advice", "LabelNext", "choose", "write_label_next"]

_POOL = 500  # the least certain photos of a run, among which the choice is made; more if more are asked for
_NEIGHBOURS = 5  # photos to which a typical one is similar


def choose(margins: NDArray[np.float64], embeddings: NDArray[np.float64], count: int) -> list[int]:
    """Choose photos to label, the most useful first.

    Each photo has the uncertainty 1 - margin, where the margin is the difference of its two largest probabilities, and
    it is as typical as it is similar, on average, to the five photos that are most similar to it. Photos are compared
    by the cosine of their embeddings minus the mean. One after the other, the photo is chosen that has the largest
    product of its uncertainty, how typical it is, and its distance, 1 - cosine, to the nearest photo chosen before.

    Args:
        margins: (P,) of each photo.
        embeddings: (P, C) of each photo.
        count: number of photos to choose.

    >>> along, across = [1.0, 0.0], [0.0, 1.0]
    >>> choose(np.array([0.1, 0.1, 0.1, 0.3, 0.3]), np.array([along, along, along, across, across]), 2)
    [0, 3]
    """
    centred = embeddings - embeddings.mean(0)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)  # (P, C)
    cosine = centred @ centred.T  # (P, P)
    near = min(_NEIGHBOURS, len(margins) - 1)
    typical = np.sort(cosine, axis=1)[:, -1 - near : -1].mean(1) if near else np.ones(len(margins))  # without itself
    value = (1 - margins) * np.maximum(typical, 1e-3)
    distance = np.ones(len(margins))
    chosen: list[int] = []
    for _ in range(min(count, len(margins))):
        score = value * np.maximum(distance, 1e-9)
        score[chosen] = -1.0
        chosen.append(int(score.argmax()))
        distance = np.minimum(distance, 1 - cosine[chosen[-1]])
    return chosen


class Advice(NamedTuple):
    """A photo to label, with what the classifier takes it for."""

    image: PhotoFile
    label: object
    probability: float
    runner_up: object


class _Candidate(NamedTuple):
    advice: Advice
    margin: float
    embedding: NDArray[np.float32]  # (C,)


@dataclass
class LabelNext:
    """Collects the most uncertain photos of a run, and chooses among them.

    Args:
        count: number of photos to choose.
    """

    count: int
    _pool: Foremost[_Candidate] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._pool = Foremost(max(_POOL, 5 * self.count))

    def add(self, image: PhotoFile, embedded: Embedded, prediction: Prediction) -> None:
        """Consider a photo."""
        nodes = embedded.nodes
        assert nodes is not None
        largest = np.sort(prediction.probabilities)[-2:]
        margin = float(largest[-1] - largest[0])
        advice = Advice(image, prediction.label, prediction.probability, prediction.runner_up)
        self._pool.add((-margin,), lambda: _Candidate(advice, margin, nodes.mean(0).numpy()))

    def chosen(self) -> list[Advice]:
        """Return the chosen photos, the most useful first."""
        pool = self._pool.items()
        if not pool:
            return []
        margins = np.array([one.margin for one in pool])
        embeddings = np.stack([one.embedding for one in pool]).astype(np.float64)
        return [pool[k].advice for k in choose(margins, embeddings, self.count)]


def write_label_next(photos: Sequence[Advice], path: Path) -> Path:
    """Write label_next.csv: the chosen photos with an empty column `label`, to be filled in and learned.

    Raises:
        InputError: the file cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(("image", "label", "suggested_label", "probability"))
    for one in photos:
        writer.writerow((sheet_path(one.image), "", sheet_label(one.label), float(f"{one.probability:.6g}")))
    return atomic_write(path, text.getvalue().encode("utf-8-sig"))

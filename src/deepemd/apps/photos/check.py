"""How far a folder of labelled photos can be trusted: each photo is classified by all others."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepemd.apps.reports.tables import TextTable
from deepemd.classifier.classifier import FewShotClassifier
from deepemd.classifier.support import MAX_EXAMPLES
from deepemd.errors import InputError
from deepemd.evaluation.intervals import wilson

__all__ = ["SAYS", "Check", "Doubt", "check_classifier"]

SAYS = (
    "Each photo was classified by all the others: an estimate for new photos of the same kind. Photos of one series "
    "or of one scene help each other, which makes it too high; new light, places and cameras are not in it."
)
_OWN, _OTHER = 0.2, 0.5  # a photo looks mislabelled where its class has less, and another has more
_WIDE = 12  # classes of a matrix that fits a terminal


@dataclass(frozen=True)
class Doubt:
    """A photo that was not given its own label.

    Attributes:
        name: its file.
        label: its class; other: the class it was given.
        own, probability: of its class, and of the other.
        mislabelled: whether it looks so: the other class is more likely than 1/2, its own less than 1/5.
    """

    name: str
    label: str
    other: Any
    own: float
    probability: float

    @property
    def mislabelled(self) -> bool:
        return self.own < _OWN and self.probability > _OTHER


@dataclass(frozen=True)
class Check:
    """What leave-one-out says.

    Attributes:
        classes: (M,) names.
        confusion: (M, M) int64: how many photos of each class (row) were given each label (column).
        doubts: the photos that were given another label, the most striking first.
        untested: classes of one photo.
        capped: classes of which only a part of the photos was tested.
    """

    classes: list[str]
    confusion: NDArray[np.int64] = field(repr=False)
    doubts: list[Doubt] = field(repr=False)
    untested: list[str]
    capped: list[str]

    @property
    def photos(self) -> int:
        """How many were tested."""
        return int(self.confusion.sum())

    @property
    def right(self) -> int:
        """How many were given their own label."""
        return int(np.trace(self.confusion))

    @property
    def accuracy(self) -> float:
        """The share of those."""
        return self.right / self.photos

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy."""
        return wilson(self.right, self.photos)

    @property
    def recall(self) -> NDArray[np.float64]:
        """(M,) the share of each class; NaN for one of a single photo."""
        count = self.confusion.sum(1)
        return np.where(count > 0, self.confusion.diagonal() / np.maximum(count, 1), np.nan)

    def sentence(self) -> str:
        """The result in one line."""
        low, high = self.interval
        return (
            f"leave-one-out accuracy {self.accuracy:.1%} ({self.right:,} of {self.photos:,} photos; 95 % interval "
            f"{low:.1%} to {high:.1%}; guessing: {1 / len(self.classes):.1%})"
        )

    def recalls(self) -> TextTable:
        """A row for each class."""
        rows = []
        for k, name in enumerate(self.classes):
            count, right = int(self.confusion[k].sum()), int(self.confusion[k, k])
            told = "" if not count else "{:.0%} to {:.0%}".format(*wilson(right, count))
            rows.append([name, f"{count:,}", f"{right:,}", f"{self.recall[k]:.0%}" if count else "one photo", told])
        return TextTable("Each class", ["class", "photos", "right", "recall", "95 % interval"], rows)

    def matrix(self) -> TextTable:
        """The confusion matrix where it fits a terminal; else the classes that are confused most."""
        if len(self.classes) <= _WIDE:
            rows = [[name, *map(str, row)] for name, row in zip(self.classes, self.confusion.tolist(), strict=True)]
            return TextTable("Photos of a class (row) by the label they were given (column)", ["", *self.classes], rows)
        off = self.confusion - np.diag(self.confusion.diagonal())
        worst = [divmod(int(k), len(self.classes)) for k in np.argsort(-off, axis=None, kind="stable")[:20]]
        pairs = [[self.classes[i], self.classes[j], str(off[i, j])] for i, j in worst if off[i, j]]
        return TextTable("The classes that are confused most", ["class", "taken for", "photos"], pairs)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "accuracy": self.accuracy,
            "interval95": list(self.interval),
            "photos": self.photos,
            "right": self.right,
            "says": SAYS,
            "classes": self.classes,
            "recall": [None if math.isnan(value) else value for value in self.recall.tolist()],
            "confusion": self.confusion.tolist(),
            "untested": self.untested,
            "tested_in_part": self.capped,
            "mistakes": [
                {
                    "image": d.name,
                    "label": d.label,
                    "looks_like": str(d.other),
                    "own_probability": round(d.own, 6),
                    "probability": round(d.probability, 6),
                    "looks_mislabelled": d.mislabelled,
                }
                for d in self.doubts
            ],
        }


def check_classifier(classifier: FewShotClassifier) -> Check:
    """Leave each photo of the support set out once.

    Raises:
        InputError: no class has two photos.
    """
    examples, labels, probabilities = classifier.leave_one_out()
    if not examples:
        raise InputError("every class has one photo only: at least two of a class are needed to leave one out")
    names: list[Any] = classifier.classes_.tolist()
    given = probabilities.argmax(1)  # (P,)
    confusion = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(confusion, (labels, given), 1)
    doubts = []
    for k in np.flatnonzero(given != labels).tolist():
        own, other = int(labels[k]), int(given[k])
        chances = float(probabilities[k, own]), float(probabilities[k, other])
        doubts.append(Doubt(examples[k].name, str(names[own]), names[other], *chances))
    doubts.sort(key=lambda d: (not d.mislabelled, d.own - d.probability, d.name))
    counts = dict(zip(map(str, names), classifier.support_.count.tolist(), strict=True))
    return Check(
        [str(name) for name in names],
        confusion,
        doubts,
        [name for name, count in counts.items() if count == 1],
        [name for name, count in counts.items() if count > MAX_EXAMPLES],
    )

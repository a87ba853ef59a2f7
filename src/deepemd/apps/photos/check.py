"""Check labelled photos: each photo is classified by the others."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepemd.apps.photos.fitting import Note
from deepemd.apps.reports.confusion import Confusion
from deepemd.apps.reports.tables import TextTable
from deepemd.classifier.classifier import PhotoClassifier
from deepemd.classifier.folds import series_of
from deepemd.classifier.support import MAX_EXAMPLES, Example
from deepemd.data.decoding import read_image
from deepemd.errors import InputError
from deepemd.explain.matches import Match
from deepemd.progress import Progress

__all__ = ["CAVEAT", "Check", "Doubt", "check_classifier", "explain_doubt"]

CAVEAT = (
    "Each photo was classified by the others: an estimate for new photos of the same kind. Photos that look like one "
    "series were left out together, but it is still too high where several photos show one scene, and it says nothing "
    "about new light, places and cameras."
)
_OWN, _OTHER = 0.2, 0.5  # a photo looks mislabelled if its own class is less likely, and another class more likely
_SMALL = 80  # pixels, the longest side of a photo that is looked at to find whether it is of one colour
_NEARLY = 3  # of 255: standard deviation of its colours below which it nearly is
_MAX_ROWS = 20  # largest number of suspicious photos listed on a terminal


@dataclass(frozen=True)
class Doubt:
    """A photo that was given a label other than its own.

    Attributes:
        example: its index among the examples of the classifier.
        name: its file.
        label: its class.
        other: the class that it was given.
        own: the probability of its class.
        probability: the probability of the other class.
    """

    example: int
    name: str
    label: str
    other: Any
    own: float
    probability: float

    @property
    def mislabelled(self) -> bool:
        """Return whether the label looks wrong: the other class has a probability over 1/2, its own class under 1/5."""
        return self.own < _OWN and self.probability > _OTHER


@dataclass(frozen=True)
class Check:
    """How photos were classified by the others.

    Attributes:
        classes: (M,) names.
        confusion: (M, M) int64: how many photos of each class (row) were given each label (column).
        doubts: the photos that were given another label, the most suspicious first.
        untested: classes with only one photo, or only photos of one series.
        capped: classes with more photos than were tested.
        blank: photos that are nearly of one colour, which hardly tell anything.
        series: photos of a class that look like one series, series by series.
    """

    classes: list[str]
    confusion: NDArray[np.int64] = field(repr=False)
    doubts: list[Doubt] = field(repr=False)
    untested: list[str]
    capped: list[str]
    blank: list[str] = field(default_factory=list)
    series: list[list[str]] = field(default_factory=list)

    @property
    def matrix(self) -> Confusion:
        """The confusion matrix, with its tables and drawings."""
        return Confusion(self.classes, self.confusion, "not tested")

    def sentence(self) -> str:
        """Return the result in one line."""
        matrix = self.matrix
        low, high = matrix.interval
        return (
            f"cross-validated accuracy {matrix.accuracy:.1%} ({matrix.right:,} of {matrix.photos:,} photos; 95 %"
            f" interval {low:.1%} to {high:.1%}; guessing: {1 / len(self.classes):.1%})"
        )

    def suspects(self) -> TextTable | None:
        """Return the table of photos that look mislabelled; None if there are none."""
        rows = [
            [one.name, one.label, f"{one.own:.2f}", str(one.other), f"{one.probability:.2f}"]
            for one in self.doubts
            if one.mislabelled
        ]
        more = f" ({len(rows)}, the first {_MAX_ROWS})" if len(rows) > _MAX_ROWS else ""
        heads = ["image", "its folder", "probability", "looks like", "probability"]
        return TextTable(f"Photos that look mislabelled{more}", heads, rows[:_MAX_ROWS]) if rows else None

    def tables(self) -> list[TextTable]:
        """Return the tables for the terminal."""
        suspects = self.suspects()
        matrix = self.matrix
        return [matrix.recalls(), *([matrix.matrix()] if self.doubts else []), *([suspects] if suspects else [])]

    @property
    def notes(self) -> list[Note]:
        """Notes on the result for the user."""
        many = f"of classes with many photos, the first {MAX_EXAMPLES} of each were tested:"
        count = "1 photo is" if len(self.blank) == 1 else f"{len(self.blank):,} photos are"
        blank = f"{count} nearly of one colour: look at these files, and replace or remove them:"
        series = "photos that look like one series, which were left out together, as each would give the others away:"
        listed = [" = ".join(names) for names in self.series]
        only = "classes that cannot be tested, as they have one photo, or photos of one series alone:"
        notes = (many, self.capped), (blank, self.blank), (series, listed), (only, self.untested)
        return [Note(title, names) for title, names in notes if names]

    def as_dict(self) -> dict[str, Any]:
        """Return the result for JSON."""
        matrix = self.matrix
        return {
            "accuracy": matrix.accuracy,
            "interval95": list(matrix.interval),
            "photos": matrix.photos,
            "right": matrix.right,
            "says": CAVEAT,
            "classes": self.classes,
            "recall": [None if math.isnan(value) else value for value in matrix.recall.tolist()],
            "confusion": self.confusion.tolist(),
            "untested": self.untested,
            "tested_in_part": self.capped,
            "nearly_of_one_colour": self.blank,
            "series": self.series,
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


def check_classifier(classifier: PhotoClassifier) -> Check:
    """Classify each photo of the support set by the others.

    Raises:
        InputError: no class has two photos.
    """
    with Progress("classifying each photo by the others"):
        examples, labels, probabilities = classifier.leave_one_out()
    if not examples:
        raise InputError(
            "no class has two photos that differ: leaving photos out needs two of a class that are not of one series"
        )
    place = {id(example): k for k, example in enumerate(classifier.support_.examples)}
    names: list[Any] = classifier.classes_.tolist()
    given = probabilities.argmax(1)  # (P,)
    confusion = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(confusion, (labels, given), 1)
    doubts = []
    for k in np.flatnonzero(given != labels).tolist():
        own, other = int(labels[k]), int(given[k])
        chances = float(probabilities[k, own]), float(probabilities[k, other])
        doubts.append(Doubt(place[id(examples[k])], examples[k].name, str(names[own]), names[other], *chances))
    doubts.sort(key=lambda d: (not d.mislabelled, d.own - d.probability, d.name))
    counts = dict(zip(map(str, names), classifier.support_.count.tolist(), strict=True))
    return Check(
        [str(name) for name in names],
        confusion,
        doubts,
        [str(name) for k, name in enumerate(names) if k not in set(labels.tolist())],
        [name for name, count in counts.items() if count > MAX_EXAMPLES],
        [example.name for example in classifier.support_.examples if _is_nearly_of_one_colour(example)],
        _series(classifier),
    )


def _series(classifier: PhotoClassifier) -> list[list[str]]:
    """Return the photos that look like one series, series by series."""
    support = classifier.support_
    groups: dict[tuple[int, int], list[str]] = {}
    series = series_of(classifier.model_, support)
    for label, number, example in zip(support.labels.tolist(), series.tolist(), support.examples, strict=True):
        groups.setdefault((label, number), []).append(example.name)
    return [names for names in groups.values() if len(names) > 1]


def _is_nearly_of_one_colour(example: Example) -> bool:
    small, _ = read_image(example.picture, example.name, _SMALL)
    return bool(np.asarray(small).std(axis=(0, 1)).max() < _NEARLY)


def explain_doubt(classifier: PhotoClassifier, doubt: Doubt) -> tuple[Match, str]:
    """Match a photo with the most similar photo of the class it was given; return the match and that photo's name."""
    place = classifier.classes_.tolist().index(doubt.other)
    return classifier.match_class(classifier.support_.side(doubt.example), place)

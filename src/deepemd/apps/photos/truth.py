"""The true labels of photos that are classified, where their folders or a table say them, and how many were found."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deepemd.apps.photos.fitting import Note
from deepemd.apps.reports.confusion import Confusion
from deepemd.data.photos import Origin

__all__ = ["Scores", "true_labels"]

_NAMED = 10  # labels that are no class, in a note


def true_labels(origins: Sequence[Origin], classes: Sequence[Any]) -> list[str | None]:
    """Return the true label of each photo; None where nothing says it.

    A label of a table is taken as it is. The true label of a photo in a folder is the first folder around it that has
    the name of a class, from the outside in; if there is none, the name of the folder that was passed counts. Photos
    beside such folders, whose own folder is no class, have the name of that folder as their label. If no folder has the
    name of a class, the folders say nothing.

    >>> some = [Origin(("new", "apple")), Origin(("new", "plum")), Origin(("new",))]
    >>> true_labels(some, ["apple", "pear"])
    ['apple', 'plum', None]
    >>> true_labels(some, ["rose", "tulip"])
    [None, None, None]
    """
    names = {_composed(str(label)): str(label) for label in classes}
    depths = {origin.folders: _depth(origin.folders, names) for origin in set(origins) if origin.label is None}
    matched = sorted({depth for depth in depths.values() if depth is not None})
    found: list[str | None] = []
    for folders, label in origins:
        if label is None and matched:
            depth = depths[folders]
            if depth is None:
                depth = next((one for one in matched if one < len(folders)), None)
            label = None if depth is None else folders[depth]
        found.append(None if label is None else names.get(_composed(label), label))
    return found


def _depth(folders: tuple[str, ...], names: dict[str, str]) -> int | None:
    places = (*range(1, len(folders)), 0)
    return next((k for k in places if k < len(folders) and _composed(folders[k]) in names), None)


def _composed(name: str) -> str:
    """Return a name with its accents in one form, as systems differ in it."""
    return unicodedata.normalize("NFC", name)


@dataclass
class Scores:
    """Counts of the labels that photos of known classes were given.

    Attributes:
        classes: the names of the classes.
        unknown: the label of photos of no class; None if the classifier gives no such label. Then photos whose true
            label is no class are left out.
        pairs: number of photos with each pair of true label and label.
        no_class: number of photos with each true label that is no class.
        seen: photos left out because they are among the photos of the classes.
    """

    classes: list[str]
    unknown: str | None = None
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    no_class: Counter[str] = field(default_factory=Counter)
    seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._known = frozenset(self.classes)

    def add(self, true: str | None, given: object, image: object, *, seen: bool = False) -> bool | None:
        """Count a photo.

        Args:
            true: its true label, or None.
            given: the label that it was given.
            image: its name.
            seen: whether it is among the photos of the classes, so that its label proves nothing.

        Returns:
            Whether the label is correct; None if that is not known, or if the label is no answer, such as "unsure".
        """
        if true is None:
            return None
        if seen:
            self.seen.append(str(image))
            return None
        expected = true
        if true not in self._known and true != self.unknown:
            self.no_class[true] += 1
            if self.unknown is None:
                return None
            expected = self.unknown
        self.pairs[expected, str(given)] += 1
        return expected == str(given) if self._is_answer(str(given)) else None

    def confusion(self) -> Confusion | None:
        """Return the matrix of the classes that occur; None if no photo was counted."""
        if not self.pairs:
            return None
        used = {label for pair in self.pairs for label in pair}
        known = dict.fromkeys([*self.classes, *([] if self.unknown is None else [self.unknown])])
        labels = [label for label in known if label in used] + sorted(used - set(known))
        place = {label: k for k, label in enumerate(labels)}
        counts = np.zeros((len(labels), len(labels)), dtype=np.int64)
        for (true, given), count in self.pairs.items():
            counts[place[true], place[given]] = count
        return Confusion(labels, counts)

    def sentence(self) -> str:
        """Return the accuracy in one line; empty if no photo was counted."""
        found = self.confusion()
        if found is None:
            return ""
        low, high = found.interval
        answered = sum(count for (_, given), count in self.pairs.items() if self._is_answer(given))
        of_these = ""
        if answered < found.photos:
            share = f", {found.right / answered:.1%} of them correct" if answered else ""
            of_these = f"; {answered:,} photos have an answer{share}"
        return (
            f"accuracy {found.accuracy:.1%} ({found.right:,} of {found.photos:,} photos with a true label; 95 %"
            f" interval {low:.1%} to {high:.1%}; guessing: {1 / len(self.classes):.1%}){of_these}"
        )

    def _is_answer(self, given: str) -> bool:
        return given in self._known or given == self.unknown

    def notes(self) -> list[Note]:
        """Return notes on photos that were left out or counted as unknown."""
        notes = []
        if self.no_class:
            count = self.no_class.total()
            photos = "1 photo has" if count == 1 else f"{count:,} photos have"
            what = "left out of the accuracy" if self.unknown is None else f"counted as {self.unknown!r}"
            rows = [f"{label}: {n:,}" for label, n in self.no_class.most_common(_NAMED)]
            more = len(self.no_class) - len(rows)
            rows += [f"{more:,} more labels"] * (more > 0)
            notes.append(Note(f"{photos} a true label that is no class, {what}:", rows))
        if self.seen:
            count = len(self.seen)
            photos = "1 photo is" if count == 1 else f"{count:,} photos are"
            notes.append(Note(f"{photos} among the photos of the classes, left out of the accuracy:", self.seen))
        return notes

    def as_dict(self) -> dict[str, Any]:
        """Return the result for JSON."""
        found = self.confusion()
        if found is None:
            return {}
        recall = [
            None if count == 0 else float(value) for value, count in zip(found.recall, found.counts.sum(1), strict=True)
        ]
        return {
            "accuracy": {
                "accuracy": found.accuracy,
                "interval95": list(found.interval),
                "photos": found.photos,
                "right": found.right,
                "labels": found.labels,
                "recall": recall,
                "confusion": found.counts.tolist(),
                "no_class": dict(self.no_class),
                "among_the_photos_of_the_classes": self.seen,
            }
        }

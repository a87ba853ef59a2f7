"""The result of classifying photos in bounded memory: counts, and the photos that one should look at."""

import heapq
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from deepemd.apps.photos.fitting import Note
from deepemd.apps.photos.predictions import COLUMNS
from deepemd.apps.photos.truth import Scores
from deepemd.apps.reports.tables import TextTable
from deepemd.classifier.classifier import PhotoClassifier
from deepemd.classifier.prediction import Explanation, Prediction
from deepemd.data.photos import PhotoFile
from deepemd.embedding.stream import Embedded
from deepemd.errors import InputError

__all__ = ["Classified", "Foremost", "Summary"]

_ALL = 20  # photos up to which the terminal lists each
_LABELS, _WRONG, _UNCERTAIN = 8, 6, 6  # rows of the tables of the terminal for more photos
_LETTERS = 36  # of the name of a file in these tables
_DOUBTFUL = 0.5  # probability below which a photo is counted as doubtful
T = TypeVar("T")


@dataclass
class Foremost(Generic[T]):
    """The items of the highest rank among any number of them."""

    limit: int
    _heap: list[tuple[tuple[float, ...], int, T]] = field(default_factory=list)
    _count: int = 0

    def add(self, rank: tuple[float, ...], make: Callable[[], T]) -> None:
        """Make and store an item if its rank is high enough; of equal ranks, the first ones stay."""
        if self.limit > 0 and (len(self._heap) < self.limit or (rank, -self._count) > self._heap[0][:2]):
            push = heapq.heappush if len(self._heap) < self.limit else heapq.heappushpop
            push(self._heap, (rank, -self._count, make()))
        self._count += 1

    def items(self) -> list[T]:
        """Return the items, the highest rank first."""
        return [item for _, _, item in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]


class Classified(NamedTuple):
    """A photo that was classified, with what an explanation needs: some 150 KB."""

    image: PhotoFile
    prediction: Prediction
    embedded: Embedded  # nodes in float16 where that is exact, and a thumbnail
    true: str | None = None
    correct: bool | None = None

    @classmethod
    def of(cls, line: "_Line", embedded: Embedded) -> "Classified":
        """Store the nodes of an embedded photo in half the space, where that changes nothing."""
        assert embedded.nodes is not None
        half = embedded.nodes.half()
        exact = bool((half.float() == embedded.nodes).all())
        small = embedded._replace(nodes=half) if exact else embedded
        return cls(line.image, line.prediction, small, line.true, line.correct)

    def explain(self, classifier: PhotoClassifier) -> Explanation:
        """Match the photo with the most similar photo of its class, without reading or embedding it again."""
        assert self.embedded.nodes is not None
        whole = self.embedded._replace(nodes=self.embedded.nodes.float())
        return classifier.explain_embedded(whole, self.prediction)


class _Line(NamedTuple):
    """A photo as the terminal lists it."""

    image: PhotoFile
    prediction: Prediction
    true: str | None
    correct: bool | None

    @property
    def rank(self) -> tuple[float, ...]:
        """Wrong photos come first, the surest first; then those that resemble no class; then the least certain."""
        one = self.prediction
        return (2, one.probability) if self.correct is False else (float(not one.familiar), -one.probability)


@dataclass
class Summary:
    """The result of a run, however many photos it has.

    Attributes:
        scores: how many photos were given their true label.
        photos: number of photos that were classified.
        labels: number of photos with each label.
        doubtful: number of photos whose label has a probability below 1/2.
        strange: photos that resemble no class.
        bad: the errors of the photos that could not be read.
        notes: warnings for the user.
    """

    scores: Scores
    photos: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    doubtful: int = 0
    strange: list[str] = field(default_factory=list)
    bad: list[InputError] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    _first: list[_Line] = field(default_factory=list)
    _wrong: Foremost[_Line] = field(default_factory=lambda: Foremost(_WRONG))
    _uncertain: Foremost[_Line] = field(default_factory=lambda: Foremost(_UNCERTAIN))
    _shown: Foremost[Classified] = field(default_factory=lambda: Foremost(0))

    @property
    def to_show(self) -> list[Classified]:
        """The photos for the page: the wrong ones, those that resemble no class, then the least certain."""
        return self._shown.items()

    def note(self, note: Note) -> None:
        """Print a note, and store it for the report."""
        self.notes.append(note)
        note.print()

    def add(
        self,
        image: PhotoFile,
        embedded: Embedded,
        prediction: Prediction,
        *,
        limit: int,
        true: str | None = None,
        seen: bool = False,
    ) -> bool | None:
        """Count a photo, and store it if it is among the `limit` first ones to look at.

        Returns:
            Whether its label is the true one; None if that is not known.
        """
        self.labels[str(prediction.label)] += 1
        self.doubtful += prediction.probability < _DOUBTFUL
        if not prediction.familiar:
            self.strange.append(str(image))
        correct = self.scores.add(true, prediction.label, image, seen=seen)
        line = _Line(image, prediction, true, correct)
        if self.photos < _ALL:
            self._first.append(line)
        self.photos += 1
        (self._wrong if correct is False else self._uncertain).add(line.rank, lambda: line)
        self._shown.limit = limit
        self._shown.add(line.rank, lambda: Classified.of(line, embedded))
        return correct

    def tables(self) -> list[TextTable]:
        """Return the tables for the terminal: each photo if there are few, else counts and what to look at."""
        title = "1 photo" if self.photos == 1 else f"{self.photos:,} photos"
        if self.photos <= _ALL:
            return [self._list(title, self._first)]
        rows = [[label, f"{count:,}", f"{count / self.photos:.0%}"] for label, count in self.labels.most_common()]
        more = len(rows) - _LABELS
        if more > 0:
            rows = [*rows[: _LABELS - 1], [f"... {more + 1:,} more labels ...", "", ""]]
        tables = [TextTable(f"{title} by label", ["label", "photos", "share"], rows)]
        wrong, uncertain = self._wrong.items(), self._uncertain.items()
        if wrong:
            tables.append(_short_list("Wrong labels, the surest first", "true_label", wrong))
            uncertain = uncertain[: _UNCERTAIN // 2]
        if uncertain:
            tables.append(_short_list("The least certain photos", "runner_up", uncertain))
        return tables

    def sentences(self) -> list[str]:
        """Return what else the terminal says of many photos: the accuracy, and what to look at."""
        said = [self.scores.sentence()]
        if self.photos > _ALL and self.doubtful:
            photos = "1 photo has" if self.doubtful == 1 else f"{self.doubtful:,} of {self.photos:,} photos have"
            said.append(f"{photos} a probability below {_DOUBTFUL:.0%}: look at these first")
        return [one for one in said if one]

    def _list(self, title: str, lines: list[_Line]) -> TextTable:
        labelled = any(line.true is not None for line in lines)
        heads = [*COLUMNS, *(["true_label"] if labelled else []), *([""] if self.strange else [])]
        rows = []
        for image, one, true, _ in lines:
            row = [str(image), str(one.label), f"{one.probability:.3f}", str(one.runner_up)]
            row += [true or ""] if labelled else []
            row += ["" if one.familiar else "resembles no class"] if self.strange else []
            rows.append(row)
        return TextTable(title, heads, rows)


def _short_list(title: str, last: str, lines: list[_Line]) -> TextTable:
    """Return a table that fits a terminal, where it shows the ends of long names of files; a log has whole names."""
    rows = []
    for image, one, true, _ in lines:
        name = str(image)
        shown = name if len(name) <= _LETTERS or not sys.stdout.isatty() else f"…{name[-_LETTERS + 1 :]}"
        label = f"{one.label}{'' if one.familiar else ' (resembles no class)'}"
        other = str(true if last == "true_label" else one.runner_up)
        rows.append([shown, label, f"{one.probability:.2f}", other])
    return TextTable(title, ["image", "label", "prob.", last], rows)

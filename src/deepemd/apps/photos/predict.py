"""Classify any number of photos, one after the other, and collect the result in bounded memory."""

import heapq
import sys
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from deepemd.apps.photos.fitting import Note, not_photos, unreadable
from deepemd.apps.photos.predictions import COLUMNS, PredictionFiles
from deepemd.apps.reports.drawing import PICTURE_SIDE
from deepemd.apps.reports.tables import TextTable
from deepemd.classifier.classifier import PhotoClassifier
from deepemd.classifier.prediction import Explanation, Prediction
from deepemd.data.photos import Photos
from deepemd.embedding.cache import fingerprint
from deepemd.embedding.stream import Embedded
from deepemd.errors import InputError, printable
from deepemd.versions import versions

__all__ = ["Classified", "Summary", "predict_photos", "settings"]

_FIRST, _LAST = 20, 10  # rows of the terminal's table


class Classified(NamedTuple):
    """A photo that was classified, with what an explanation needs: some 150 KB."""

    image: Path
    prediction: Prediction
    embedded: Embedded  # nodes in float16 where that is exact, and a thumbnail

    @classmethod
    def of(cls, image: Path, embedded: Embedded, prediction: Prediction) -> "Classified":
        """Store the nodes of an embedded photo in half the space, where that changes nothing."""
        assert embedded.nodes is not None
        half = embedded.nodes.half()
        exact = bool((half.float() == embedded.nodes).all())
        return cls(image, prediction, embedded._replace(nodes=half) if exact else embedded)

    def explain(self, classifier: PhotoClassifier) -> Explanation:
        """Match the photo with the most similar photo of its class, without reading or embedding it again."""
        assert self.embedded.nodes is not None
        whole = self.embedded._replace(nodes=self.embedded.nodes.float())
        return classifier.explain_embedded(whole, self.prediction)


@dataclass
class Summary:
    """The result of a run, however many photos it has.

    Attributes:
        photos: number of photos that were classified.
        labels: number of photos with each label.
        strange: photos that resemble no class.
        bad: the errors of the photos that could not be read.
        notes: warnings for the user.
    """

    photos: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    strange: list[Path] = field(default_factory=list)
    bad: list[InputError] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    _first: list[tuple[Path, Prediction]] = field(default_factory=list)
    _last: deque[tuple[Path, Prediction]] = field(default_factory=lambda: deque(maxlen=_LAST))
    _heap: list[tuple[tuple[bool, float], int, Classified]] = field(default_factory=list)

    @property
    def least_certain(self) -> list[Classified]:
        """The least certain photos, those that resemble no class first; at most `limit` of :meth:`add`."""
        return [found for _, _, found in sorted(self._heap, key=lambda item: item[:2], reverse=True)]

    def note(self, note: Note) -> None:
        """Print a note, and store it for the report."""
        self.notes.append(note)
        note.print()

    def add(self, image: Path, embedded: Embedded, prediction: Prediction, *, limit: int) -> None:
        """Count a photo, and store it if it is among the `limit` least certain ones."""
        self.labels[str(prediction.label)] += 1
        if not prediction.familiar:
            self.strange.append(image)
        (self._first if self.photos < _FIRST else self._last).append((image, prediction))
        rank = ((not prediction.familiar, -prediction.probability), -self.photos)
        self.photos += 1
        if limit and (len(self._heap) < limit or rank > self._heap[0][:2]):
            found = Classified.of(image, embedded, prediction)
            (heapq.heappush if len(self._heap) < limit else heapq.heappushpop)(self._heap, (*rank, found))

    def table(self) -> TextTable:
        """Return the table for the terminal: all rows, or the first and the last ones if there are many."""
        rows = [_cells(*row) for row in self._first]
        omitted = self.photos - len(self._first) - len(self._last)
        if omitted:
            rows.append([f"... {omitted:,} more ...", "", "", "", ""])
        rows += [_cells(*row) for row in self._last]
        heads = [*COLUMNS, ""] if self.strange else list(COLUMNS)
        title = "1 photo" if self.photos == 1 else f"{self.photos:,} photos"
        return TextTable(title, heads, [row[: len(heads)] for row in rows])


def _cells(image: Path, one: Prediction) -> list[str]:
    mark = "" if one.familiar else "resembles no class"
    return [str(image), str(one.label), f"{one.probability:.3f}", str(one.runner_up), mark]


def predict_photos(classifier: PhotoClassifier, photos: Photos, files: PredictionFiles, *, limit: int) -> Summary:
    """Classify photos; each row is written as soon as it is known, and notes are printed on standard error.

    Args:
        classifier: a fitted classifier.
        photos: the photos; those that cannot be read are listed and left out.
        files: the files to write the rows to.
        limit: number of the least certain photos to store for a report, with small pictures; 0 for no report.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed; the path of the finished rows is printed.
    """
    summary = Summary()
    if photos.others:
        summary.note(not_photos(photos.others))
    try:
        _classify(classifier, photos.files, files, summary, limit)
    except KeyboardInterrupt:
        print(
            f"\ndeepemd: {files.count():,} of {len(photos.files):,} photos are in {printable(files.partial)}; run the"
            " same command again to continue: finished photos are read from the cache",
            file=sys.stderr,
        )
        raise
    if summary.bad:
        summary.note(unreadable(summary.bad, "to classify"))
    if summary.strange:
        summary.note(_strange(summary.strange, classifier.unknown))
    return summary


def _classify(
    classifier: PhotoClassifier, images: Sequence[Path], files: PredictionFiles, summary: Summary, limit: int
) -> None:
    rows = classifier.stream_embedded(images, side=PICTURE_SIDE if limit else 0, progress="classifying")
    for image, (embedded, prediction) in zip(images, rows, strict=True):
        if prediction.error is not None:
            summary.bad.append(prediction.error)
            continue
        files.add(image, prediction, classifier)
        summary.add(image, embedded, prediction, limit=limit)


def _strange(images: list[Path], unknown: float | None) -> Note:
    label = '"unknown"' if unknown is not None else "with the most similar class"
    count = "1 photo resembles" if len(images) == 1 else f"{len(images):,} photos resemble"
    title = f"{count} no class as much as its own photos resemble each other, and {'is' if len(images) == 1 else 'are'}"
    return Note(f"{title} labelled {label}:", list(map(str, images)))


def settings(classifier: PhotoClassifier) -> dict[str, Any]:
    """Return everything that a result depends on: the classes, the settings and the versions."""
    model, support = classifier.model_, classifier.support_
    classes = zip(map(str, classifier.classes_.tolist()), support.count.tolist(), strict=True)
    threshold = float(classifier.familiar_threshold_)
    return {
        "classes": dict(classes),
        "temperature": round(float(classifier.temperature_), 4),
        "familiar_from": threshold if threshold > float("-inf") else None,
        "unknown": classifier.unknown,
        "model": model.config,
        "model_sha256": fingerprint(model),
        "versions": versions(),
    }

"""Many photos are classified one after the other: what comes of it, in bounded memory."""

import heapq
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from deepemd.apps.photos.predictions import COLUMNS, PredictionFiles
from deepemd.apps.reports.tables import TextTable
from deepemd.classifier.classifier import FewShotClassifier
from deepemd.classifier.prediction import Prediction
from deepemd.embedding.cache import fingerprint
from deepemd.errors import InputError
from deepemd.versions import versions

__all__ = ["Found", "Predicted", "predict_photos", "settings"]

_FIRST, _LAST = 20, 10  # rows of the terminal's table


class Found(NamedTuple):
    """A photo, and what was found for it."""

    image: Path
    prediction: Prediction


@dataclass
class Predicted:
    """What is kept of a run, however long it is.

    Attributes:
        photos: how many were classified.
        labels: how many were given each label.
        unsure: the least certain, at most as many as were asked for; those that resemble no class come first.
        strange: photos that resemble no class.
        bad: why the others could not be read.
    """

    photos: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    strange: list[Path] = field(default_factory=list)
    bad: list[InputError] = field(default_factory=list)
    _first: list[Found] = field(default_factory=list)
    _last: deque[Found] = field(default_factory=lambda: deque(maxlen=_LAST))
    _heap: list[tuple[tuple[bool, float], int, Found]] = field(default_factory=list)

    @property
    def unsure(self) -> list[Found]:
        """The least certain first."""
        return [found for _, _, found in sorted(self._heap, key=lambda item: item[:2], reverse=True)]

    def add(self, found: Found, limit: int) -> None:
        """Count one, and keep it where it is among the first, the last or the least certain."""
        one = found.prediction
        self.labels[str(one.label)] += 1
        if not one.familiar:
            self.strange.append(found.image)
        if self.photos < _FIRST:
            self._first.append(found)
        else:
            self._last.append(found)
        item = ((not one.familiar, -one.probability), -self.photos, found)
        (heapq.heappushpop if len(self._heap) >= limit else heapq.heappush)(self._heap, item)
        self.photos += 1

    def table(self) -> TextTable:
        """The table for the terminal: every row, or the first and the last where there are many."""
        rows = [_cells(found) for found in self._first]
        left_out = self.photos - len(self._first) - len(self._last)
        if left_out:
            rows.append([f"... {left_out:,} more ...", "", "", "", ""])
        rows += [_cells(found) for found in self._last]
        heads = [*COLUMNS, ""] if self.strange else list(COLUMNS)
        return TextTable(
            "1 photo" if self.photos == 1 else f"{self.photos:,} photos", heads, [row[: len(heads)] for row in rows]
        )


def _cells(found: Found) -> list[str]:
    one = found.prediction
    mark = "" if one.familiar else "resembles no class"
    return [str(found.image), str(one.label), f"{one.probability:.3f}", str(one.runner_up), mark]


def predict_photos(
    classifier: FewShotClassifier, images: Sequence[Path], files: PredictionFiles, *, keep: int
) -> Predicted:
    """Classify photos; each row is written as soon as it is known.

    Args:
        classifier: a fitted one.
        images: their files; one that cannot be read is listed, and the rest goes on.
        files: where the rows go.
        keep: how many of the least certain are kept for a report.
    """
    done = Predicted()
    for image, one in zip(images, classifier.stream(images, progress="classifying"), strict=True):
        if one.error is not None:
            done.bad.append(one.error)
            continue
        files.add(image, one, classifier)
        done.add(Found(image, one), keep)
    return done


def settings(classifier: FewShotClassifier) -> dict[str, Any]:
    """What a result depends on: the classes, the settings and the versions."""
    model, support = classifier.model_, classifier.support_
    classes = zip(map(str, classifier.classes_.tolist()), support.count.tolist(), strict=True)
    threshold = float(classifier.threshold_)
    return {
        "classes": dict(classes),
        "temperature": round(float(classifier.temperature_), 4),
        "familiar_from": threshold if threshold > float("-inf") else None,
        "unknown": classifier.unknown,
        "model": model.config,
        "model_sha256": fingerprint(model),
        "versions": versions(),
    }

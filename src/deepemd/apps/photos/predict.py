"""Classify any number of photos, one after the other, and collect the result in bounded memory."""

import sys
from collections.abc import Sequence
from typing import Any, Protocol

from deepemd.apps.photos.fitting import Note, not_photos, unreadable
from deepemd.apps.photos.predictions import PredictionFiles
from deepemd.apps.photos.summary import Summary
from deepemd.apps.photos.truth import Scores
from deepemd.apps.reports.drawing import PICTURE_SIDE
from deepemd.classifier.classifier import PhotoClassifier
from deepemd.classifier.prediction import Prediction
from deepemd.data.photos import PhotoFile, Photos
from deepemd.embedding.cache import fingerprint
from deepemd.embedding.stream import Embedded
from deepemd.errors import printable
from deepemd.versions import versions

__all__ = ["Follower", "predict_photos", "settings"]


class Follower(Protocol):
    """Sees each photo that is classified."""

    def add(self, image: PhotoFile, embedded: Embedded, prediction: Prediction, /) -> None:
        """Take note of a photo."""


def predict_photos(
    classifier: PhotoClassifier,
    photos: Photos,
    files: PredictionFiles,
    *,
    limit: int,
    truth: Sequence[str | None] = (),
    followers: Sequence[Follower] = (),
) -> Summary:
    """Classify photos; each row is written as soon as it is known, and notes are printed on standard error.

    Args:
        classifier: a fitted classifier.
        photos: the photos; those that cannot be read are listed and left out.
        files: the files to write the rows to.
        limit: number of the least certain photos to store for a report, with small pictures; 0 for no report.
        truth: the true label of each photo, or None; empty if none is known.
        followers: what else sees each photo.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed; the path of the finished rows is printed.
    """
    unknown = None if classifier.unknown is None else str(classifier.unknown_label)
    scores = Scores([str(label) for label in classifier.classes_.tolist()], unknown)
    summary = Summary(scores, bad=list(photos.missing))
    for warning in photos.warnings:
        summary.note(Note(warning))
    if photos.others:
        summary.note(not_photos(photos.others))
    files.with_sets = classifier.coverage is not None
    files.labelled = any(label is not None for label in truth)
    try:
        _classify(classifier, photos.files, truth or [None] * len(photos.files), files, summary, limit, followers)
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
    for note in scores.notes():
        summary.note(note)
    return summary


def _classify(
    classifier: PhotoClassifier,
    images: Sequence[PhotoFile],
    truth: Sequence[str | None],
    files: PredictionFiles,
    summary: Summary,
    limit: int,
    followers: Sequence[Follower],
) -> None:
    keys = {example.key for example in classifier.support_.examples}
    rows = classifier.stream_embedded(images, side=PICTURE_SIDE if limit else 0, progress="classifying")
    for image, true, (embedded, prediction) in zip(images, truth, rows, strict=True):
        if prediction.error is not None:
            summary.bad.append(prediction.error)
            continue
        correct = summary.add(image, embedded, prediction, limit=limit, true=true, seen=embedded.key in keys)
        files.add(image, prediction, classifier, true=true, correct=correct)
        for follower in followers:
            follower.add(image, embedded, prediction)


def _strange(images: list[str], unknown: float | None) -> Note:
    label = '"unknown"' if unknown is not None else "with the most similar class"
    count = "1 photo resembles" if len(images) == 1 else f"{len(images):,} photos resemble"
    title = f"{count} no class as much as its own photos resemble each other, and {'is' if len(images) == 1 else 'are'}"
    return Note(f"{title} labelled {label}:", images)


def settings(classifier: PhotoClassifier) -> dict[str, Any]:
    """Return everything that a result depends on: the classes, the settings and the versions."""
    model, support = classifier.model_, classifier.support_
    classes = zip(map(str, classifier.classes_.tolist()), support.count.tolist(), strict=True)
    threshold = float(classifier.familiar_threshold_)
    return {
        "classes": dict(classes),
        "temperature": round(float(classifier.temperature_), 4),
        "familiar_from": threshold if threshold > float("-inf") else None,
        "compared_by": classifier.adaptation_,
        "unknown": classifier.unknown,
        "threshold": classifier.threshold,
        "coverage": classifier.coverage,
        "model": model.config,
        "model_sha256": fingerprint(model),
        "versions": versions(),
    }

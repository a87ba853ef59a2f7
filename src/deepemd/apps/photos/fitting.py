"""Fit a classifier to labelled photos; photos that cannot be read are left out and reported."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepemd.classifier.classifier import PhotoClassifier
from deepemd.classifier.settings import check_settings
from deepemd.data.layout import listed
from deepemd.data.photos import Photos, class_photos, duplicates
from deepemd.errors import InputError, printable
from deepemd.model.pretrained import DEFAULT

__all__ = ["FittedPhotos", "Note", "fit_photos", "not_photos", "too_few_photos", "unreadable"]

_LISTED = 10  # names listed below a note on the terminal


@dataclass(frozen=True)
class Note:
    """A warning for the user: a sentence, and the names that it is about."""

    title: str
    lines: Sequence[str] = ()

    def print(self) -> None:
        """Print the note on standard error."""
        more = len(self.lines) - _LISTED
        listed = [f"  {printable(line)}" for line in self.lines[:_LISTED]] + [f"  and {more:,} more"] * (more > 0)
        print("\n".join([f"deepemd: {printable(self.title)}", *listed]), file=sys.stderr)


@dataclass(frozen=True)
class FittedPhotos:
    """A classifier that was fitted to labelled photos.

    Attributes:
        classifier: the classifier, fitted to all photos that can be read.
        photos: the photos that can be read, with their labels.
        bad: the errors of the photos that cannot be read.
        notes: warnings for the user.
    """

    classifier: PhotoClassifier = field(repr=False)
    photos: Photos = field(repr=False)
    bad: list[InputError]
    notes: list[Note]


def fit_photos(
    photos: Photos | Path,
    *,
    backbone: str = DEFAULT,
    cache: Path | None = None,
    **settings: Any,
) -> FittedPhotos:
    """Fit a classifier to labelled photos.

    Args:
        photos: the photos with their labels, or a folder with a folder of photos for each class.
        backbone: the encoder.
        cache: folder of the cached embeddings; by default :func:`deepemd.embedding.cache.default_cache`.
        **settings: other settings of :class:`deepemd.FewShotClassifier`.

    Raises:
        InputError: there are no class folders, there is only one class, or no photo of a class can be read.
    """
    if isinstance(photos, Path):
        photos = class_photos(photos)
    classifier = PhotoClassifier(backbone, cache=cache or True, **settings)
    check_settings(classifier)  # before the work begins
    if len(photos.classes) < 2:
        empty = f" (no photos in {listed(photos.empty)})" if photos.empty else ""
        raise InputError(
            f"{photos.source}: holds only the class {photos.classes[0]!r}: at least two classes are needed{empty}"
        )
    errors = classifier.fit_readable(photos.files, photos.labels, progress="reading the photos of the classes")
    bad = [*photos.missing, *(error for error in errors if error is not None)]
    good = [(file, label) for file, label, e in zip(photos.files, photos.labels, errors, strict=True) if e is None]
    usable = Photos([file for file, _ in good], [label for _, label in good], photos.others)
    notes = [
        *([unreadable(bad, "of the classes")] if bad else []),
        *([not_photos(photos.others, "no photo, or not in a class folder")] if photos.others else []),
        *([no_photos(photos.empty)] if photos.empty else []),
        *map(Note, photos.warnings),
        *_doubts(usable),
        *too_few_photos(classifier),
    ]
    return FittedPhotos(classifier, usable, bad, notes)


def unreadable(bad: Sequence[InputError], where: str) -> Note:
    """Return a note on photos that cannot be read."""
    title = f"{_count(len(bad), 'photo')} {where} cannot be read and {'is' if len(bad) == 1 else 'are'} left out:"
    return Note(title, [str(error) for error in bad])


def not_photos(others: Sequence[object], reason: str = "no photo") -> Note:
    """Return a note on files that are ignored."""
    return Note(f"{_count(len(others), 'file')} ignored ({reason}):", [str(file) for file in others])


def no_photos(classes: Sequence[str]) -> Note:
    """Return a note on class folders without photos."""
    return Note(f"{_count(len(classes), 'class folder')} without a photo, left out of the classes:", classes)


def too_few_photos(classifier: PhotoClassifier) -> list[Note]:
    """Return notes if there are too few photos to label others unknown, or for prediction sets of the coverage."""
    return [Note(notice) for notice in (classifier.unknown_notice, classifier.coverage_notice) if notice]


def _doubts(photos: Photos) -> list[Note]:
    """Return notes on photos in several classes and on classes of one photo."""
    notes = []
    repeated = duplicates(photos.files, photos.labels)
    if repeated:
        title = f"{_count(len(repeated), 'photo')} in more than one class: all but one of the labels must be wrong:"
        notes.append(Note(title, [" = ".join(map(str, group)) for group in repeated]))
    single = sorted(label for label, count in Counter(photos.labels).items() if count == 1)
    if single:
        title = (
            f"{len(single)} of {len(photos.classes)} classes have only one photo, which cannot be left out: the "
            "probabilities are fitted without them, and their accuracy is not known:"
        )
        notes.append(Note(title, single))
    return notes


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"

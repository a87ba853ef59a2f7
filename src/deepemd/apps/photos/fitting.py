"""A classifier from class folders as people have them: what cannot be read is left out and told, the rest goes on."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from deepemd.classifier.calibration import unknown_threshold
from deepemd.classifier.classifier import FewShotClassifier
from deepemd.data.photos import Photos, class_photos, duplicates
from deepemd.embedding.cache import default_cache
from deepemd.embedding.stream import Embedder
from deepemd.errors import InputError, printable
from deepemd.model.pretrained import DEFAULT, pretrained
from deepemd.nodes import parse_regions
from deepemd.progress import track

__all__ = ["Fitted", "Note", "fit_photos", "not_photos", "unreadable"]

_LISTED = 10  # names below a warning on the terminal


@dataclass(frozen=True)
class Note:
    """What a person should know before they trust the result: a sentence, and the names it is about."""

    title: str
    lines: Sequence[str] = ()

    def tell(self) -> None:
        """Write it on standard error."""
        more = len(self.lines) - _LISTED
        listed = [f"  {printable(line)}" for line in self.lines[:_LISTED]] + [f"  and {more:,} more"] * (more > 0)
        print("\n".join([f"deepemd: {printable(self.title)}", *listed]), file=sys.stderr)


@dataclass(frozen=True)
class Fitted:
    """A classifier, and what was found on the way.

    Attributes:
        classifier: fitted to all photos that can be read.
        photos: those, with their labels.
        bad: why the others could not be read.
        notes: what to tell.
    """

    classifier: FewShotClassifier = field(repr=False)
    photos: Photos = field(repr=False)
    bad: list[InputError]
    notes: list[Note]


def fit_photos(
    folder: Path,
    *,
    backbone: str = DEFAULT,
    regions: str | None = None,
    unknown: float | None = None,
    cache: Path | None = None,
) -> Fitted:
    """Fit a classifier to class folders.

    Args:
        folder: holds a folder of photos for each class.
        backbone, regions, unknown: as for :class:`deepemd.FewShotClassifier`.
        cache: folder where embeddings are kept; by default as :func:`deepemd.embedding.cache.default_cache` says.

    Raises:
        InputError: no class folders, one class only, or a class without a photo that can be read.
    """
    if unknown is not None:
        unknown_threshold(torch.zeros(0), unknown)  # is a share, or raises before the work
    photos = class_photos(folder)
    if len(photos.classes) < 2:
        raise InputError(
            f"{folder}: holds the class {photos.classes[0]!r} only: at least two class folders are needed to tell one"
            " from the other"
        )
    model = pretrained(backbone, regions=parse_regions(regions) if regions else None)
    kept = cache or default_cache()
    # The nodes are kept on the disk: fitting, which reads the photos again, finds them there.
    rows = Embedder(model, kept).stream(photos.files)
    errors = [row.error for row in track(rows, "looking at the photos of the classes", len(photos.files))]
    bad = [error for error in errors if error is not None]
    good = [(file, label) for file, label, e in zip(photos.files, photos.labels, errors, strict=True) if e is None]
    lost = sorted(set(photos.classes) - {label for _, label in good})
    if lost:
        told = "\n".join(f"  {error}" for error in bad[:_LISTED])
        raise InputError(f"{folder}: no photo of {', '.join(map(repr, lost))} can be read:\n{told}")
    usable = Photos([file for file, _ in good], [label for _, label in good], photos.others)
    classifier = FewShotClassifier(model, unknown=unknown, cache=kept).fit(usable.files, usable.labels)
    notes = [
        *([unreadable(bad, "of the classes")] if bad else []),
        *([not_photos(photos.others)] if photos.others else []),
        *_doubts(usable),
    ]
    return Fitted(classifier, usable, bad, notes)


def unreadable(bad: Sequence[InputError], where: str) -> Note:
    """Of photos that cannot be read."""
    return Note(f"{_count(len(bad), 'photo')} {where} cannot be read and left out:", [str(error) for error in bad])


def not_photos(others: Sequence[Path]) -> Note:
    """Of files that are no photos by their name."""
    return Note(f"{_count(len(others), 'file')} not named like photos, left alone:", [str(file) for file in others])


def _doubts(photos: Photos) -> list[Note]:
    notes = []
    twice = duplicates(photos.files, photos.labels)
    if twice:
        title = f"{_count(len(twice), 'photo')} in more than one class: all but one of the labels must be wrong:"
        notes.append(Note(title, [" = ".join(map(str, group)) for group in twice]))
    single = sorted(label for label, count in Counter(photos.labels).items() if count == 1)
    if single:
        title = (
            f"{len(single)} of {len(photos.classes)} classes have one photo only, which cannot be left out: the "
            "probabilities are fitted without them, and no accuracy can be told for them:"
        )
        notes.append(Note(title, single))
    return notes


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"

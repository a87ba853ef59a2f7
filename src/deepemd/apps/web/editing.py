"""Correct a fitted classifier photo by photo, without reading or embedding anything again.

Each function returns a new classifier; the one before stays as it was.
"""

from copy import copy

from deepemd.apps.web.asked import Asked
from deepemd.classifier.calibration import coverage_notice
from deepemd.classifier.classifier import PhotoClassifier
from deepemd.classifier.support import MAX_EXAMPLES, Support

__all__ = ["COVERAGE", "answering", "holders", "with_photo", "without_photo"]

COVERAGE = 0.95
"""The coverage of the prediction sets that the page shows."""


def with_photo(classifier: PhotoClassifier, asked: Asked, name: str) -> PhotoClassifier:
    """Add a photo to a known class."""
    support, place = classifier.support_, classifier.classes_.tolist().index(name)
    few = int((support.labels == place).sum()) < MAX_EXAMPLES
    assert asked.whole.nodes is not None
    more = support.added([asked.whole.nodes], [place], [asked.example if few else None], classes=len(support.count))
    return _with_support(classifier, more)


def without_photo(classifier: PhotoClassifier, key: int, name: str) -> PhotoClassifier:
    """Remove a photo from a class of several; if the class does not hold it, change nothing."""
    support, place = classifier.support_, classifier.classes_.tolist().index(name)
    for k, (example, label) in enumerate(zip(support.examples, support.labels.tolist(), strict=True)):
        if label == place and example.key == key:
            return _with_support(classifier, support.without_example(k))
    return classifier


def holders(classifier: PhotoClassifier, key: int) -> list[str]:
    """Return the classes that hold a photo."""
    support, names = classifier.support_, classifier.classes_.tolist()
    labels = [label for example, label in zip(support.examples, support.labels.tolist(), strict=True)
              if example.key == key]  # fmt: skip
    return [str(names[label]) for label in dict.fromkeys(labels)]


def answering(classifier: PhotoClassifier) -> PhotoClassifier:
    """Return a classifier that names a class for every photo, with prediction sets if there are enough photos."""
    made = copy(classifier)
    made.unknown = made.threshold = None
    made.coverage = None if coverage_notice(COVERAGE, len(made.trust_.which)) else COVERAGE
    return made


def _with_support(classifier: PhotoClassifier, support: Support) -> PhotoClassifier:
    made = copy(classifier)
    made.support_ = support
    made.calibrate()
    return made

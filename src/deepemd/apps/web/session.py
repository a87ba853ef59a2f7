"""The state of one visitor, the classes and the answers for photos, independent of the page."""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self, TypeAlias

from deepemd.classifier.classifier import PhotoClassifier
from deepemd.classifier.prediction import Explanation
from deepemd.classifier.support import Example
from deepemd.data import decode
from deepemd.data.class_names import look_alike
from deepemd.data.decoding import as_picture, shrink
from deepemd.errors import InputError
from deepemd.model import DeepEMD

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Answer", "KnownClass", "Photo", "UnreadablePhotos", "Visitor"]

Photo: TypeAlias = "Path | tuple[Path, str] | Image"
"""A photo: a file, a file with the name that it has for the visitor, or an image in memory."""

MAX_PHOTOS = 500  # photos of one visitor, whose nodes take some 130 KB each
MAX_UPLOAD = 100  # photos in one upload
MAX_CLASSES = 50
MAX_NAME = 60  # characters
_JOINERS = "\u200c\u200d"  # parts of emoji, and of words in some languages
_SIDE = 1024  # pixels; larger photos are scaled down, as the encoder sees far fewer pixels


class UnreadablePhotos(InputError):
    """None of the photos of a class can be read."""


class KnownClass(NamedTuple):
    """A class that a visitor has added."""

    name: str
    photos: int
    examples: list[Example]


class Answer(NamedTuple):
    """The answer for one photo: an explanation, or the reason why there is none."""

    name: str
    explanation: Explanation | None = None
    classes: tuple[str, ...] = ()
    certain: bool = True  # whether there are enough photos to recognise photos of other things
    counted: int = 0  # photos that count for this: those of classes of two or more
    error: str = ""


@dataclass(frozen=True, eq=False)
class Visitor:
    """The classes of one visitor; immutable: adding or removing returns a new one, so a failure changes nothing.

    Photos are decoded here and passed to the classifier as images in memory, which are never cached on disk.

    Attributes:
        model: the model that encodes the photos, shared by all visitors.
        classifier: None before the first photo.
        names: the classes, in the order in which they were added.
    """

    model: DeepEMD = field(repr=False)
    classifier: PhotoClassifier | None = None
    names: tuple[str, ...] = ()

    @property
    def classes(self) -> list[KnownClass]:
        """The classes, in the order in which they were added."""
        if self.classifier is None:
            return []
        support = self.classifier.support_
        examples: list[list[Example]] = [[] for _ in support.count]
        for label, example in zip(support.labels.tolist(), support.examples, strict=True):
            examples[label].append(example)
        names = map(str, self.classifier.classes_.tolist())
        found = [KnownClass(*one) for one in zip(names, support.count.tolist(), examples, strict=True)]
        return sorted(found, key=lambda one: self.names.index(one.name))

    @property
    def photos(self) -> int:
        """The number of photos of all classes."""
        return int(self.classifier.support_.count.sum()) if self.classifier else 0

    def added(self, name: str, files: "Sequence[Photo]") -> tuple[Self, list[str], list[str]]:
        """Add photos to a class, which may be new.

        Returns:
            The visitor with these photos, a message on what was done, and messages on what went wrong: files that
            cannot be used are reported, and the others are added.

        Raises:
            InputError: nothing could be added.
        """
        name = _cleaned(name)
        known = self.classes
        if not files:
            raise InputError(f"No photos for '{name}': drop at least one photo into the box, or choose files")
        if len(known) >= MAX_CLASSES and name not in {one.name for one in known}:
            raise InputError(f"There are {len(known)} classes, the most that this page takes: remove one first")
        room = min(MAX_UPLOAD, MAX_PHOTOS - sum(one.photos for one in known))
        if len(files) > room:
            raise InputError(
                f"{len(files)} photos are too many: at most {MAX_UPLOAD} at once and {MAX_PHOTOS} in all, and "
                f"there is room for {room}. 'deepemd predict' has no such limit"
            )
        pictures, wrong = list["Image"](), list[str]()
        for number, file in enumerate(files, 1):
            try:
                pictures.append(_opened(file, _name(file, number)))
            except InputError as error:
                wrong.append(str(error))
        if not pictures:
            raise UnreadablePhotos("\n".join([*wrong, f"Nothing was added to '{name}'"]))
        made = PhotoClassifier(self.model, cache=False) if self.classifier is None else copy(self.classifier)
        made.partial_fit(pictures, [name] * len(pictures))
        grown = replace(self, classifier=made, names=tuple(dict.fromkeys([*self.names, name])))
        wrong += _alike(grown.names, name) + _repeated(grown.classes, name)
        return grown, [f"{_count(len(pictures))} added to '{name}'."], wrong

    def without(self, name: str) -> Self:
        """Remove a class; if it does not exist, as on an outdated page, do nothing."""
        names = [one.name for one in self.classes]
        if self.classifier is None or name not in names:
            return self
        if len(names) == 1:
            return replace(self, classifier=None, names=())
        left = tuple(one for one in self.names if one != name)
        return replace(self, classifier=copy(self.classifier).forget(name), names=left)

    def ask(self, files: "Sequence[Photo]") -> Iterator[Answer]:
        """Classify and explain photos.

        Raises:
            InputError: there are no photos, too many, or fewer than two classes.
        """
        if not files:
            raise InputError("No photo to classify: drop at least one into the box, or choose files")
        if len(files) > MAX_UPLOAD:
            raise InputError(f"{len(files)} photos are too many: at most {MAX_UPLOAD} at once")
        names = [one.name for one in self.classes]
        if self.classifier is None or len(names) < 2:
            there = f"only '{names[0]}'" if names else "none yet"
            raise InputError(f"At least two classes are needed; there is {there}")
        counted = sum(one.photos for one in self.classes if one.photos > 1)
        certain, labels = (
            self.classifier.familiar_threshold_ > float("-inf"),
            tuple(map(str, self.classifier.classes_.tolist())),
        )
        for number, file in enumerate(files, 1):
            name = _name(file, number)
            try:
                yield Answer(name, self.classifier.explain(_opened(file, name)), labels, certain, counted)
            except InputError as error:
                yield Answer(name, error=str(error))


def _cleaned(name: str) -> str:
    """Return the name of a class without control characters and superfluous spaces."""
    name = " ".join("".join(c if c.isprintable() or c in _JOINERS else " " for c in name).split())
    if not name.strip(_JOINERS + " "):
        raise InputError("The class has no name: write one, such as 'goose', above the photos")
    if len(name) > MAX_NAME:
        raise InputError(f"The name has {len(name)} characters: at most {MAX_NAME}")
    return name


def _name(file: "Photo", number: int) -> str:
    return f"photo {number}" if not isinstance(file, Path | tuple) else file.name if isinstance(file, Path) else file[1]


def _opened(file: "Photo", name: str) -> "Image":
    """Open a photo, turned upright and scaled down to the needed size."""
    if isinstance(file, tuple):
        file = file[0]
    if isinstance(file, Path):
        return shrink(decode(file, name), _SIDE)
    return shrink(as_picture(file, name), _SIDE)


def _alike(names: Sequence[str], name: str) -> list[str]:
    """Report the classes whose names look like this one: one of the two must be a mistake."""
    return [
        f"'{name}' and '{other}' are different classes, but look alike: remove one, and add its photos to the other"
        for other in names
        if other != name and look_alike(other, name)
    ]


def _repeated(classes: Sequence[KnownClass], name: str) -> list[str]:
    """Report the classes that hold the same photo as this one: one of the two must be wrong."""
    here = {example.key for one in classes if one.name == name for example in one.examples}
    return [
        f"'{name}' and '{one.name}' hold the same photo {_times(len(here & {e.key for e in one.examples}))}: "
        "remove one of the classes and add it again without"
        for one in classes
        if one.name != name and here & {e.key for e in one.examples}
    ]


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _count(photos: int) -> str:
    return "1 photo" if photos == 1 else f"{photos} photos"

"""The state of one visitor, the classes and the photos that they ask about, independent of the page."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Self

from deepemd.apps.web import editing
from deepemd.apps.web.asked import Asked, Photo, opened, photo_name
from deepemd.classifier.classifier import PhotoClassifier
from deepemd.classifier.prediction import Explanation
from deepemd.classifier.support import Example
from deepemd.data.class_names import look_alike
from deepemd.errors import InputError
from deepemd.model import DeepEMD

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Answer", "KnownClass", "UnreadablePhotos", "Visitor", "class_name"]

MAX_PHOTOS = 500  # photos of one visitor, whose nodes take some 130 KB each
MAX_UPLOAD = 100  # photos in one upload
MAX_ASKED = 200  # photos to classify that are remembered
MAX_CLASSES = 50
MAX_NAME = 60  # characters
_JOINERS = "\u200c\u200d"  # parts of emoji, and of words in some languages


class UnreadablePhotos(InputError):
    """None of the photos of a class can be read."""


class KnownClass(NamedTuple):
    """A class that a visitor has added."""

    name: str
    photos: int
    examples: list[Example]


class Answer(NamedTuple):
    """The answer for one photo, with its explanation."""

    asked: Asked
    explanation: Explanation
    classes: tuple[str, ...]  # those of the probabilities
    holders: tuple[str, ...] = ()  # classes that hold this very photo
    certain: bool = True  # whether there are enough photos to recognise photos of other things
    counted: int = 0  # photos that count for this: those that can be left out in turn


@dataclass(frozen=True, eq=False)
class Visitor:
    """The classes of one visitor, and the photos that they ask about.

    Immutable: each change returns a new visitor, so a failure changes nothing, and a change can be undone. Photos are
    decoded here and passed to the classifier as images in memory, which are never cached on disk.

    Attributes:
        model: the model that encodes the photos, shared by all visitors.
        classifier: None before the first photo of a class.
        names: the classes, in the order in which they were added.
        asked: the photos to classify, the oldest first; all of them have the answer of the present classes.
    """

    model: DeepEMD = field(repr=False)
    classifier: PhotoClassifier | None = None
    names: tuple[str, ...] = ()
    asked: tuple[Asked, ...] = ()

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
        """The number of photos of all classes, and of those to classify."""
        return (int(self.classifier.support_.count.sum()) if self.classifier else 0) + len(self.asked)

    @cached_property
    def reader(self) -> PhotoClassifier | None:
        """The classifier that gives the answers; None while there are fewer than two classes."""
        if self.classifier is None or len(self.names) < 2:
            return None
        return editing.answering(self.classifier)

    def added(self, name: str, files: "Sequence[Photo]") -> tuple[Self, list[str], list[str]]:
        """Add photos to a class, which may be new.

        Returns:
            The visitor with these photos, a message on what was done, and messages on what went wrong: files that
            cannot be used are reported, and the others are added.

        Raises:
            InputError: nothing could be added.
        """
        name = class_name(name)
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
                pictures.append(opened(file, photo_name(file, number)))
            except InputError as error:
                wrong.append(str(error))
        if not pictures:
            raise UnreadablePhotos("\n".join([*wrong, f"Nothing was added to '{name}'"]))
        made = PhotoClassifier(self.model, cache=False) if self.classifier is None else copy(self.classifier)
        made.partial_fit(pictures, [name] * len(pictures))
        grown = self.changed(made, tuple(dict.fromkeys([*self.names, name])))
        wrong += _alike(grown.names, name) + _repeated(grown.classes, name)
        return grown, [f"{_count(len(pictures))} added to '{name}'."], wrong

    def without(self, name: str) -> Self:
        """Remove a class; if it does not exist, as on an outdated page, do nothing."""
        if self.classifier is None or name not in self.names:
            return self
        if len(self.names) == 1:
            return self.changed(None, ())
        left = tuple(one for one in self.names if one != name)
        return self.changed(copy(self.classifier).forget(name), left)

    def without_photo(self, name: str, key: int) -> Self:
        """Remove a photo from a class, and the class with its last photo; if it does not exist, do nothing."""
        if self.classifier is None or name not in self.names:
            return self
        (known,) = (one for one in self.classes if one.name == name)
        if known.photos == 1 and known.examples[0].key == key:
            return self.without(name)
        made = editing.without_photo(self.classifier, key, name)
        return self if made is self.classifier else self.changed(made, self.names)

    def corrected(self, id: str, name: str) -> Self:
        """Add a photo that was asked about to its right class, and remove it from others.

        Raises:
            InputError: the photo or the class does not exist any more, there are too many photos, or the photo is the
                only one of another class.
        """
        one = self.find(id)
        if one is None or one.error or self.classifier is None or name not in self.names:
            raise InputError("The photo or the class is not here any more")
        key, made = one.embedded.key, self.classifier
        holders = editing.holders(made, key)
        if name in holders:
            raise InputError(f"{one.name} is in '{name}' already")
        counts = {known.name: known.photos for known in self.classes}
        if not holders and sum(counts.values()) >= MAX_PHOTOS:
            raise InputError(f"There are {MAX_PHOTOS} photos, the most that this page takes: remove some first")
        for other in holders:
            if counts[other] == 1:
                raise InputError(f"{one.name} is the only photo of '{other}': add others, or remove that class first")
            made = editing.without_photo(made, key, other)
        return self.changed(editing.with_photo(made, one, name), self.names)

    def changed(self, classifier: PhotoClassifier | None, names: tuple[str, ...]) -> Self:
        """Give the visitor other classes, and classify all photos again."""
        made = replace(self, classifier=classifier, names=names)
        return replace(made, asked=made._answered(self.asked))

    def back(self, before: Self) -> Self:
        """Return to the classes of before, and to the photos of both."""
        asked = {one.id: one for one in (*before.asked, *self.asked)}
        return replace(self, asked=tuple(asked.values())).changed(before.classifier, before.names)

    def ask(self, file: "Photo", name: str = "") -> Self:
        """Add a photo to classify, the last of `asked`; it is classified if there are two classes.

        Raises:
            InputError: there are too many photos.
        """
        if len(self.asked) >= MAX_ASKED:
            raise InputError(f"There are {MAX_ASKED} photos to classify, the most that this page takes: remove them")
        one = Asked.read(file, name or photo_name(file, len(self.asked) + 1), self.model)
        return replace(self, asked=(*self.asked, *self._answered((one,))))

    def find(self, id: str) -> Asked | None:
        """Return a photo that was asked about; None if it is not there any more."""
        return next((one for one in self.asked if one.id == id), None)

    def answer(self, id: str) -> Answer | None:
        """Explain the answer for a photo; None if it has none."""
        one, reader = self.find(id), self.reader
        if one is None or one.prediction is None or reader is None:
            return None
        return Answer(
            one,
            reader.explain_embedded(one.whole, one.prediction),
            tuple(map(str, reader.classes_.tolist())),
            tuple(editing.holders(reader, one.embedded.key)),
            reader.familiar_threshold_ > float("-inf"),
            len(reader.trust_.which),
        )

    def _answered(self, asked: Sequence[Asked]) -> tuple[Asked, ...]:
        """Classify photos with the present classes."""
        reader, readable = self.reader, [one for one in asked if not one.error]
        rows = iter(reader.predict_embedded([one.whole for one in readable]) if reader and readable else ())
        return tuple(one if one.error else one.told(next(rows)[1] if reader else None) for one in asked)


def class_name(name: str) -> str:
    """Return the name of a class without control characters and superfluous spaces."""
    name = " ".join("".join(c if c.isprintable() or c in _JOINERS else " " for c in name).split())
    if not name.strip(_JOINERS + " "):
        raise InputError("The class has no name: write one, such as 'goose', above the photos")
    if len(name) > MAX_NAME:
        raise InputError(f"The name has {len(name)} characters: at most {MAX_NAME}")
    return name


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
        "remove it from one of them"
        for one in classes
        if one.name != name and here & {e.key for e in one.examples}
    ]


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _count(photos: int) -> str:
    return "1 photo" if photos == 1 else f"{photos} photos"

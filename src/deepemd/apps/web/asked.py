"""Photos that a visitor asks about: read and embedded once, so that they can be classified again at any time."""

import secrets
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeAlias

from deepemd.classifier.prediction import Prediction
from deepemd.classifier.support import EXAMPLE_SIDE, Example
from deepemd.data import decode
from deepemd.data.decoding import as_picture, shrink, thumbnail
from deepemd.embedding.stream import Embedded, Embedder
from deepemd.errors import InputError
from deepemd.model import DeepEMD

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["SMALL_SIDE", "Asked", "Photo", "opened", "photo_name"]

Photo: TypeAlias = "Path | tuple[Path, str] | Image"
"""A photo: a file, a file with the name that it has for the visitor, or an image in memory."""

SMALL_SIDE = 144  # pixels, the longest side of the pictures of a gallery
_SIDE = 1024  # pixels; larger photos are scaled down, as the encoder sees far fewer pixels


@dataclass(frozen=True, eq=False)
class Asked:
    """A photo to classify.

    Attributes:
        name: the name of its file.
        embedded: its nodes in half the space where that changes nothing, and a small picture; or an error.
        small: a smaller picture, for the gallery.
        prediction: None while there are fewer than two classes, or if the photo cannot be read.
        id: a random text by which the page refers to the photo.
    """

    name: str
    embedded: Embedded = field(repr=False)
    small: bytes = field(default=b"", repr=False)
    prediction: Prediction | None = None
    id: str = field(default_factory=lambda: secrets.token_hex(8))

    @classmethod
    def read(cls, file: "Photo", name: str, model: DeepEMD) -> Self:
        """Read and embed a photo; the result holds the error if it cannot be read."""
        try:
            picture = opened(file, name)
            (found,) = Embedder(model).stream([picture], side=lambda _: EXAMPLE_SIDE)
            if found.nodes is None:
                raise found.error or InputError(f"{name}: cannot be read")
        except InputError as error:
            return cls(name, Embedded(None, 0, error=error))
        half = found.nodes.half()
        if bool((half.float() == found.nodes).all()):
            found = found._replace(nodes=half)
        return cls(name, found, thumbnail(picture, SMALL_SIDE))

    @property
    def error(self) -> str:
        """Why the photo cannot be read; empty if it can be."""
        return str(self.embedded.error or "")

    @property
    def whole(self) -> Embedded:
        """The photo with nodes in float32, as the classifier takes it."""
        assert self.embedded.nodes is not None
        return self.embedded._replace(nodes=self.embedded.nodes.float())

    @property
    def example(self) -> Example:
        """The photo as an example of a class."""
        return Example(self.name, self.embedded.key, self.embedded.thumbnail, self.embedded.size)

    def told(self, prediction: Prediction | None) -> Self:
        """Return the photo with another prediction."""
        return replace(self, prediction=prediction)


def photo_name(file: "Photo", number: int) -> str:
    """Return the name of a photo's file; of an image in memory, its number."""
    return f"photo {number}" if not isinstance(file, Path | tuple) else file.name if isinstance(file, Path) else file[1]


def opened(file: "Photo", name: str) -> "Image":
    """Open a photo, turned upright and scaled down to the needed size; it carries its name.

    Raises:
        InputError: it cannot be read.
    """
    if isinstance(file, tuple):
        file = file[0]
    picture = decode(file, name) if isinstance(file, Path) else as_picture(file, name)
    small = shrink(picture, _SIDE)
    if isinstance(file, Path):
        small.filename = name  # type: ignore[attr-defined]
    return small

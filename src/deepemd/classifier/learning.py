"""Turn photos into a support set: embed each once, sum the node sets of each class, and store some as examples."""

import os
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from deepemd.classifier.support import EXAMPLE_SIDE, MAX_EXAMPLES, Example, Support
from deepemd.data.decoding import as_picture, thumbnail
from deepemd.data.inputs import as_labels
from deepemd.embedding.stream import Embedded, Embedder
from deepemd.errors import InputError
from deepemd.progress import track

if TYPE_CHECKING:
    from deepemd.data.decoding import Picture

__all__ = ["add_photos", "check_labels"]

_BATCH = 64  # photos added at a time
_LISTED = 10  # photos that cannot be read, in an error


def add_photos(
    support: Support | None,
    embedder: Embedder,
    images: "Sequence[Picture]",
    ids: Sequence[int],
    classes: Sequence[Any],
    *,
    stop: bool,
    progress: str = "",
) -> tuple[Support, list[InputError | None]]:
    """Embed photos and add them to a support set.

    Args:
        support: the classes so far; None if there are none.
        embedder: reads and embeds the photos.
        images: (K,) the photos.
        ids: (K,) the class of each, an index into `classes`.
        classes: the labels of all classes.
        stop: raise the error of the first photo that cannot be read.
        progress: what is shown beside the number of photos; by default no progress is shown.

    Returns:
        The new support set; and for each photo None, or the reason why it was left out.

    Raises:
        InputError: with `stop`, a photo cannot be read; or no photo of a class can be read.
    """
    held = Counter(support.labels.tolist() if support else [])  # examples of each class
    likely = _first_of_each(ids, held)
    rows = embedder.stream(images, side=lambda k: EXAMPLE_SIDE if k in likely else 0)
    errors: list[InputError | None] = []
    numbered = enumerate(track(rows, progress, len(ids), "photos") if progress else rows)
    while batch := list(islice(numbered, _BATCH)):
        for _, row in batch:
            if row.error is not None and stop:
                raise row.error
            errors.append(row.error)
        good = [(k, row, row.nodes) for k, row in batch if row.nodes is not None]
        examples: list[Example | None] = []
        for k, row, _ in good:
            held[ids[k]] += 1
            examples.append(_example(images[k], k, row) if held[ids[k]] <= MAX_EXAMPLES else None)
        if good:
            support = (support or Support.empty(*good[0][2].shape)).added(
                [nodes for _, _, nodes in good],
                [ids[k] for k, _, _ in good],
                examples,
                classes=len(classes),
            )
    empty = [name for k, name in enumerate(classes) if support is None or not support.count[k]]
    if support is None or empty:
        listed = "".join(f"\n  {error}" for error in [e for e in errors if e is not None][:_LISTED])
        raise InputError(f"no photo of {', '.join(map(repr, empty))} can be read:{listed}")
    return support, errors


def check_labels(images: Sequence[Any], y: Any) -> NDArray[Any]:
    """Return the labels of images as an array, by position.

    Raises:
        InputError: there are no images, not one label for each, a label is missing, or the labels are not discrete.
    """
    labels = as_labels(y)
    if len(labels) != len(images):
        raise InputError(f"y has shape {labels.shape}, X holds {len(images)} images: pass one label for each image")
    if not len(labels):
        raise InputError("X is empty: pass at least one photo of each class")
    if labels.dtype.kind not in "USiub":  # texts, whole numbers and booleans need no check
        from sklearn.utils.multiclass import check_classification_targets

        try:
            check_classification_targets(labels)
        except (TypeError, ValueError) as error:
            raise InputError(f"y: {error}: pass texts or whole numbers as labels") from error
    return labels


def _first_of_each(ids: Sequence[int], held: Counter[int]) -> set[int]:
    """Return which photos become examples if all can be read: the first of each class, as many as it may have."""
    seen, first = Counter(held), set()
    for k, label in enumerate(ids):
        seen[label] += 1
        if seen[label] <= MAX_EXAMPLES:
            first.add(k)
    return first


def _example(image: "Picture", k: int, row: Embedded) -> Example:
    """Return a photo as the support set stores it."""
    is_file = isinstance(image, str | os.PathLike)
    name = str(image) if is_file else str(getattr(image, "filename", "")) or f"image {k}"  # Pillow's name of the file
    if row.thumbnail:
        return Example(name, row.key, row.thumbnail, row.size)
    picture = as_picture(image, name)  # it is an example only because photos before it could not be read
    return Example(name, row.key, thumbnail(picture, EXAMPLE_SIDE), (picture.height, picture.width))

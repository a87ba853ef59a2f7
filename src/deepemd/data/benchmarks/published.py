"""Check that the splits of a benchmark have the published classes and numbers of images."""

from dataclasses import replace
from importlib.resources import files
from typing import NamedTuple

import numpy as np

from deepemd.data.decoding import measure
from deepemd.data.drafts import Draft
from deepemd.errors import InputError

__all__ = ["FILES", "Counts", "check_split", "class_list", "note_small_copy"]

FILES = {"base": "train", "val": "val", "novel": "test"}  # our name of a split -> its name in published files


class Counts(NamedTuple):
    """The number of images of a split, and the smallest and largest number of images of its classes."""

    images: int
    fewest: int
    most: int


def class_list(name: str, split: str) -> tuple[str, ...]:
    """Return the sorted published classes of a split, from a text file in the package.

    >>> class_list("omniglot", "val")[0]
    'Anglo-Saxon_Futhorc/character01'
    """
    path = files("deepemd.data.benchmarks") / "splits" / f"{name}-{split}.txt"
    return tuple(path.read_text(encoding="utf-8").split("\n")[:-1])


def check_split(where: str, name: str, split: str, draft: Draft, counts: Counts, remedy: str) -> None:
    """Check that a split has the published classes and numbers of images.

    Args:
        where: the file or folder that the split comes from, for the message.
        name: name of the benchmark, as in the names of its class lists.
        split: base, val or novel.
        draft: the split that was found.
        counts: the published counts.
        remedy: the likely cause and what to get instead, for the message.

    Raises:
        InputError: the split has other classes, or other numbers of images.
    """
    expected = class_list(name, split)
    each = np.bincount(draft.labels, minlength=len(draft.classes)).tolist() or [0]
    found = Counts(sum(each), min(each), max(each))
    within = counts.fewest <= found.fewest <= found.most <= counts.most
    if draft.classes == expected and found.images == counts.images and within:
        return
    summary = f"{len(draft.classes)} classes of {_span(found.fewest, found.most)} images, {found.images:,} in all"
    absent, foreign = sorted({*expected} - {*draft.classes}), sorted({*draft.classes} - {*expected})
    if foreign:
        summary += f", {len(foreign)} of them other classes ({foreign[0]} is one)"
    elif absent:
        summary += f"; {absent[0]} is absent"
    raise InputError(
        f"{where}: not the {split} split of {name}, which has {len(expected)} given classes of "
        f"{_span(counts.fewest, counts.most)} images, {counts.images:,} in all: found {summary}. {remedy}, "
        "or pass --strict false (strict=False)"
    )


def _span(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low} to {high}"


def note_small_copy(draft: Draft) -> Draft:
    """Return a split of ImageNet's images, with a note if it is the common copy in 84 x 84 pixels."""
    try:
        size = measure(draft.read(0), draft.names[0])
    except InputError:  # bad images are reported when the store is written
        return draft
    if size != (84, 84):
        return draft
    return replace(
        draft,
        note="84 x 84 copy: weights trained on the original resolution lose 1-2 % or more on it",
    )

"""What was published about a benchmark's splits, and the refusal of what is called so but is another set."""

from dataclasses import replace
from importlib.resources import files
from typing import NamedTuple

import numpy as np

from deepemd.data.decoding import measure
from deepemd.data.store import Draft
from deepemd.errors import InputError

__all__ = ["FILES", "Counts", "class_list", "refuse_other_split", "with_size_noted"]

FILES = {"base": "train", "val": "val", "novel": "test"}  # a split here: what its files are called everywhere


class Counts(NamedTuple):
    """How many images a split has, and between which numbers its classes have."""

    images: int
    fewest: int
    most: int


def class_list(name: str, split: str) -> tuple[str, ...]:
    """The published classes of a split, sorted, from the text file in the package.

    >>> class_list("omniglot", "val")[0]
    'Anglo-Saxon_Futhorc/character01'
    """
    path = files("deepemd.data.benchmarks") / "splits" / f"{name}-{split}.txt"
    return tuple(path.read_text(encoding="utf-8").split("\n")[:-1])


def refuse_other_split(where: str, name: str, split: str, draft: Draft, counts: Counts, remedy: str) -> None:
    """Refuse what is called by a benchmark's name but is divided otherwise, or has other images.

    Args:
        where: the file or folder that the split came from.
        name: of the benchmark, as its class lists are called.
        split: base, val or novel.
        draft: what was found.
        counts: what was published.
        remedy: what may have happened and what to get instead.

    Raises:
        InputError: other classes, or other numbers of images.
    """
    expected = class_list(name, split)
    each = np.bincount(draft.labels, minlength=len(draft.classes)).tolist() or [0]
    found = Counts(sum(each), min(each), max(each))
    within = counts.fewest <= found.fewest <= found.most <= counts.most
    if draft.classes == expected and found.images == counts.images and within:
        return
    told = f"{len(draft.classes)} classes of {_span(found.fewest, found.most)} images, {found.images:,} in all"
    absent, foreign = sorted({*expected} - {*draft.classes}), sorted({*draft.classes} - {*expected})
    if foreign:
        told += f", {len(foreign)} of them other classes ({foreign[0]} is one)"
    elif absent:
        told += f"; {absent[0]} is absent"
    raise InputError(
        f"{where}: not the {split} split of {name}, which has {len(expected)} given classes of "
        f"{_span(counts.fewest, counts.most)} images, {counts.images:,} in all: found {told}. {remedy}, "
        "or pass --strict false (strict=False)"
    )


def _span(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low} to {high}"


def with_size_noted(draft: Draft) -> Draft:
    """The same split of ImageNet's images, with a note if they are the copy in 84 x 84 that is often passed on."""
    try:
        size = measure(draft.read(0), draft.names[0])
    except InputError:  # it is named, and the other bad ones are counted, when the store is written
        return draft
    if size != (84, 84):
        return draft
    return replace(
        draft,
        note="84 x 84 copy: weights trained on the original resolution lose 1-2 % or more on it",
    )

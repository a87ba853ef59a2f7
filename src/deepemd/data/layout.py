"""Tell class folders from folders of splits and from a folder that is a level too high."""

import re
from collections.abc import Iterable, Mapping
from typing import TypeAlias

__all__ = [
    "Tops",
    "are_splits",
    "first_split",
    "layout_warnings",
    "listed",
    "pack_folder",
    "split_of",
    "top_folders",
    "wrapper",
]

Tops: TypeAlias = Mapping[str, set[str]]
"""The top folders with images, and for each the folders in it that hold images; "" stands for images of its own."""

_TRAINING = {"base", "train", "training", "trn", "support", "gallery", "labeled", "labelled"}
_OTHERS = {
    *("val", "valid", "validation", "dev", "eval", "evaluation", "test", "testing", "tst", "novel", "holdout"),
    *("query", "queries", "probe", "unlabeled", "unlabelled"),
}
_SPLITS = {
    **dict.fromkeys(("base", "train", "training", "trn"), "base"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("novel", "test", "testing", "tst"), "novel"),
}
_FILLERS = re.compile(r"(data|dataset|folder|images?|imgs?|photos?|pictures?|pics?|sets?|splits?)+")


def top_folders(names: Iterable[str]) -> dict[str, set[str]]:
    """Return the top folders of some images, and the folders in each.

    >>> top_folders(["rose/1.jpg", "train/cat/1.jpg", "loose.jpg"])
    {'rose': {''}, 'train': {'cat'}}
    """
    found: dict[str, set[str]] = {}
    for name in names:
        top, _, rest = name.partition("/")
        if rest:
            found.setdefault(top, set()).add(rest.partition("/")[0] if "/" in rest else "")
    return found


def _word(name: str) -> str:
    """Return the word for a split in a folder's name, such as test in "Test_images 2"; "" if it has none."""
    words = [word for word in re.split(r"[\W\d_]+", name.casefold()) if word and not _FILLERS.fullmatch(word)]
    word = words[0] if len(words) == 1 else ""
    stem = next((s for s in _TRAINING | _OTHERS if word.startswith(s) and _FILLERS.fullmatch(word[len(s) :])), word)
    return stem if stem in _TRAINING | _OTHERS else ""


def split_of(folder: str) -> str | None:
    """Return base, val or novel for the name of a folder that has the images of a split; None for another name.

    >>> split_of("Training"), split_of("test_images"), split_of("rose")
    ('base', 'novel', None)
    """
    return _SPLITS.get(_word(folder))


def are_splits(tops: Tops) -> bool:
    """Return whether folders are splits rather than classes.

    A class may be named train, beside bus and car. So folders are splits if two of them, of different names, hold
    folders only; or if all are named like splits, and some hold folders or have the name of images to be classified.
    """
    words = {top: word for top in tops if (word := _word(top))}
    nested = [top for top in words if tops[top] - {""}]
    if len(words) < len(tops):
        return len({words[top] for top in nested if "" not in tops[top]}) > 1
    if len(set(words.values())) > 1:
        return bool(nested) or not _OTHERS.isdisjoint(words.values())
    # One name: a split alone, or numbered ones with the same classes.
    return bool(nested) and (len(tops) == 1 or len(set.intersection(*tops.values()) - {""}) > 1)


def first_split(tops: Tops) -> str | None:
    """Return the split that most probably has the examples, among those that hold folders; None if none does."""
    nested = sorted(top for top in tops if tops[top] - {""})
    return next((top for top in nested if _word(top) in _TRAINING), nested[0] if nested else None)


def pack_folder(names: Iterable[str]) -> str:
    """Return the single top folder that many archives have, with a slash; "" if there is none, or if it is a split."""
    tops = top_folders(names)
    return "".join(f"{top}/" for top in tops if len(tops) == 1 and "" not in tops[top] and not _word(top))


def wrapper(names: Iterable[str]) -> str:
    """Return the path of the single folder that holds all class folders, with a slash; "" if there is none.

    >>> wrapper(["flowers/rose/1.jpg", "flowers/daisy/1.jpg"]), wrapper(["rose/1.jpg", "daisy/1.jpg"])
    ('flowers/', '')
    """
    names, prefix = list(names), ""
    tops = top_folders(names)
    while len(tops) == 1:
        ((top, inner),) = tops.items()
        if inner == {""} or (len(inner) == 2 and "" in inner):
            return ""  # a class
        prefix += f"{top}/"
        tops = top_folders(name[len(prefix) :] for name in names if name.startswith(prefix))
    return prefix


def layout_warnings(tops: Tops) -> list[str]:
    """Return a sentence for each sign that some of the folders are no classes."""
    found = []
    common = set.intersection(*tops.values()) if tops else set()
    if len(tops) > 1 and len(common) > 1 and "" not in set().union(*tops.values()):
        found.append(
            f"the classes {listed(tops)} hold the same folders ({listed(common)}): if these are the classes, pass one "
            "of the folders that hold them"
        )
    for top, inner in tops.items():
        word = _word(top)
        if word and "" not in inner:
            found.append(f"the folder '{top}' holds only folders ({listed(inner)}) and is taken as one class")
        elif word in _OTHERS:
            found.append(f"the folder '{top}' is taken as a class: if it is none, move it elsewhere")
    return found


def listed(names: Iterable[str]) -> str:
    """Join some names by commas and "and"; of more than five, the first four are written out."""
    first, *rest = sorted(names)
    more = [*rest[:3], f"{len(rest) - 3} more"] if len(rest) > 4 else rest
    return " and ".join([", ".join([first, *more[:-1]]), *more[-1:]])

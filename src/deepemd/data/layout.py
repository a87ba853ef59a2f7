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

_TRAINING = {"base", "train", "training", "trn", "support", "gallery", "labeled", "labelled", "examples"}
_NOUNS = {"base", "support", "gallery", "examples"}  # which may well be classes
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


def _parsed(name: str) -> tuple[str, tuple[str, ...]]:
    """Return the word for a split in a folder's name, "" for none, and the other words: test and seg of seg_test."""
    words = [word for word in re.split(r"[\W\d_]+", name.casefold()) if word and not _FILLERS.fullmatch(word)]
    stems = [_stem(word) for word in words]
    if sum(map(bool, stems)) != 1:
        return "", ()
    return "".join(stems), tuple(word for word, stem in zip(words, stems, strict=True) if not stem)


def _stem(word: str) -> str:
    """Return the word for a split that a word is or begins with, such as test in testset; "" if there is none."""
    known = _TRAINING | _OTHERS
    begun = (stem for stem in known if word.startswith(stem) and _FILLERS.fullmatch(word[len(stem) :]))
    return word if word in known else next(begun, "")


def _words(tops: Iterable[str]) -> dict[str, str]:
    """Return the word for a split of each folder that has one; other words must be those of another split's folder."""
    parsed = {top: _parsed(top) for top in tops}
    alike = {rest: {word for word, other in parsed.values() if other == rest} for _, rest in parsed.values()}
    return {top: word for top, (word, rest) in parsed.items() if word and (not rest or len(alike[rest]) > 1)}


def split_of(folder: str) -> str | None:
    """Return base, val or novel for the name of a folder that has the images of a split; None for another name.

    >>> split_of("Training"), split_of("test_images"), split_of("rose")
    ('base', 'novel', None)
    """
    return _SPLITS.get(_parsed(folder)[0])


def are_splits(tops: Tops) -> bool:
    """Return whether folders are splits rather than classes.

    A class may be named train, beside bus and car. Folders are splits if all have names of splits, at least two, and
    one is not for training or holds folders; if two of them do, and hold folders only; if one of two does, and the
    other one holds several folders only; or if there is only one, or numbered ones, and they hold class folders.
    """
    words = _words(tops)
    if len(words) < len(tops):
        nested = {top for top in tops if "" not in tops[top]}
        several = any(len(tops[top]) > 1 for top in nested if top not in words)
        of_two = len(tops) == 2 and several and not _OTHERS.isdisjoint(words.values())
        return of_two or _divide(words[top] for top in nested if top in words)
    inner = [tops[top] - {""} for top in tops]
    if len(different := set(words.values())) > 1:
        return _divide(different) or (any(inner) and not different <= _NOUNS)
    # Of one name: a split alone, or numbered ones with the same classes.
    return bool(different) and (bool(inner[0]) if len(inner) == 1 else len(set.intersection(*inner)) > 1)


def _divide(words: Iterable[str]) -> bool:
    """Return whether some words name different splits, one of them not for training."""
    different = set(words)
    return len(different) > 1 and not _OTHERS.isdisjoint(different)


def first_split(tops: Tops) -> str | None:
    """Return the split that most probably has the examples, among those that hold folders; None if none does."""
    nested = sorted(top for top in tops if tops[top] - {""})
    return next((top for top in nested if _parsed(top)[0] in _TRAINING), nested[0] if nested else None)


def pack_folder(names: Iterable[str]) -> str:
    """Return the single top folder that many archives have, with a slash; "" if there is none, or if it is a split."""
    tops = top_folders(names)
    return "".join(f"{top}/" for top in tops if len(tops) == 1 and "" not in tops[top] and not _words(tops))


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
    words = _words(tops)
    for top, word in words.items():
        inner = tops[top]
        if "" not in inner:
            found.append(f"the folder '{top}' holds only folders ({listed(inner)}) and is taken as one class")
        elif word in _OTHERS and list(words.values()).count(word) == 1:  # val0, val1, val2 are names of classes
            found.append(f"the folder '{top}' is taken as a class: if it is none, move it elsewhere")
    return found


def listed(names: Iterable[str]) -> str:
    """Join some names by commas and "and"; of more than five, the first four are written out."""
    first, *rest = sorted(names)
    more = [*rest[:3], f"{len(rest) - 3} more"] if len(rest) > 4 else rest
    return " and ".join([", ".join([first, *more[:-1]]), *more[-1:]])

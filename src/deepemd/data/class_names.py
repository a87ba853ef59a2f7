"""Find names of classes that people cannot tell apart, and show them so that they can."""

import unicodedata
from collections.abc import Iterable

__all__ = ["look_alike", "name_warnings", "visible"]

# Letters of other alphabets that look like Latin ones.
_LOOKALIKES = str.maketrans(
    "АВЕЅІЈКМНОРСТУХаеѕіјорсухΑΒΕΖΗΙΚΜΝΟΡΤΥΧο",
    "ABESIJKMHOPCTYXaesijopcyxABEZHIKMNOPTYXo",
)
_PARTS = "\u200c\u200d\ufe0e\ufe0f"  # parts of emoji, and of words in some languages


def name_warnings(names: Iterable[str]) -> list[str]:
    """Return a sentence for each group of names that look alike, and for each name with characters that cannot be seen.

    Names look alike if they are equal but for upper and lower case, spaces, the way in which accents are encoded,
    characters that cannot be seen, or letters of other alphabets.

    >>> print(*name_warnings(["rose", "Rose", "tulip"]))
    the classes 'Rose' and 'rose' are different, but look alike: rename one, or put their photos into one folder
    """
    groups: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        groups.setdefault(_skeleton(name), []).append(name)
    found = []
    for group in groups.values():
        if len(group) > 1:
            foreign = len({name.translate(_LOOKALIKES) for name in group}) < len(group)
            shown = [ascii(name) if foreign else f"'{visible(name)}'" for name in group]
            found.append(
                f"the classes {', '.join(shown[:-1])} and {shown[-1]} are different, but look alike: rename one, or "
                "put their photos into one folder"
            )
        elif group[0] != group[0].strip() or any(_unseen(c) and c not in _PARTS for c in group[0]):
            found.append(
                f"the name of the class '{visible(group[0])}' holds characters that cannot be seen, and its labels too:"
                " rename the folder"
            )
    return found


def look_alike(one: object, other: object) -> bool:
    r"""Return whether two names look alike when they are printed; see :func:`name_warnings`.

    >>> look_alike("unknown", "Unknown\u200b "), look_alike(1, "one")
    (True, False)
    """
    return one == other or _skeleton(str(one)) == _skeleton(str(other))


def visible(name: str) -> str:
    r"""Show what cannot be seen in a name by its code: accents of their own, marks, and spaces other than the usual.

    >>> visible("cafe\u0301 \u200b"), visible("café")
    ('cafe\\u0301 \\u200b', 'café')
    """
    codes = ((c, unicodedata.category(c) in ("Cf", "Cc", "Mn") or (c.isspace() and c != " ")) for c in name)
    return "".join(ascii(c)[1:-1] if coded else c for c, coded in codes)


def _skeleton(name: str) -> str:
    """Return what names that look alike have in common."""
    seen = "".join(" " if c.isspace() else c for c in name if c.isspace() or not _unseen(c))
    plain = unicodedata.normalize("NFKC", seen).translate(_LOOKALIKES).casefold()
    return " ".join(unicodedata.normalize("NFKC", plain).split())


def _unseen(character: str) -> bool:
    """Return whether a character takes no place: marks of direction, joiners, variants of signs, control characters."""
    return unicodedata.category(character) in ("Cf", "Cc") or "\ufe00" <= character <= "\ufe0f" or character == "\u034f"

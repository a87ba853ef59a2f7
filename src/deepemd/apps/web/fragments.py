"""HTML of the page: what was said, the classes so far, and an answer. All text of visitors is escaped here."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from deepemd.explain.plots import matches_picture

if TYPE_CHECKING:
    from deepemd.apps.web.session import Answer, KnownClass
    from deepemd.explain.matches import Match

__all__ = ["answer", "known_class", "told", "too_large"]

_THUMBNAILS = 8  # of a class
_BARS = 8  # most probable classes of an answer


def told(done: Sequence[str] = (), wrong: Sequence[str] = ()) -> str:
    """What was done and what was wrong, a line each; a screen reader reads it out when it appears."""
    parts = []
    if wrong:
        parts.append(f'<div class="told wrong" role="alert">{_lines(wrong)}</div>')
    if done:
        parts.append(f'<div class="told" role="status">{_lines(done)}</div>')
    return "".join(parts)


def too_large(box: str) -> str:
    """Where the page tells of files that are too large for one of its boxes, by the box's id."""
    return f'<div class="told wrong too-large" role="alert" data-box="{box}"></div>'


def known_class(known: "KnownClass") -> str:
    """A class so far: its name, how many photos, and the first of them."""
    pictures = [
        f'<li><img alt="{escape(known.name)}, photo {k}" src="{_data(example.picture, "jpeg")}"></li>'
        for k, example in enumerate(known.examples[:_THUMBNAILS], 1)
    ]
    if known.photos > len(pictures):
        pictures.append(f'<li class="more">and {known.photos - len(pictures)} more</li>')
    photos = "1 photo" if known.photos == 1 else f"{known.photos} photos"
    return (
        f'<section class="known"><h3>{escape(known.name)} <small>{photos}</small></h3>'
        f'<ul class="thumbnails">{"".join(pictures)}</ul></section>'
    )


def answer(one: "Answer") -> str:
    """What is said of one photo: its label, the probabilities, and the parts that were matched."""
    if one.explanation is None:
        return told(wrong=[one.error])
    found, match = one.explanation.prediction, one.explanation.match
    label, photo = escape(str(found.label)), escape(one.name)
    what = (
        f"The parts of {photo} that were matched with those of the photo of {label} that is most like it. "
        "Thicker lines: more of the match. Brighter parts: more weight."
    )
    heading = f"{label} <small>{100 * found.probability:.1f}&nbsp;%</small>"
    doubt = ""
    if not found.familiar:
        heading = "Resembles none of your classes"
        doubt = f'<p class="unfamiliar">Of your classes, the most similar is {label}, but it is not very similar.</p>'
    elif not one.certain:
        few = "So few photos cannot tell when one resembles none of the classes: 19 can, in classes of two or more."
        doubt = f"<p><small>{few}</small></p>"
    return (
        f'<article class="answer"><h3>{heading}</h3><p class="file">{photo}</p>{doubt}'
        f"{_bars(one.classes, found.probabilities.tolist())}"
        f'<figure><img class="match" alt="{what}" src="{_drawn(match)}"><figcaption>{what}</figcaption></figure>'
        "</article>"
    )


def _bars(classes: Sequence[str], probabilities: Sequence[float]) -> str:
    """The most probable classes as a table whose middle column is a bar."""
    order = sorted(range(len(classes)), key=lambda k: -probabilities[k])
    rows = [
        f'<tr{" class=first" if place == 0 else ""}><th scope="row">{escape(classes[k])}</th>'
        f'<td><div class="bar" style="width:{100 * probabilities[k]:.1f}%"></div></td>'
        f'<td class="share">{100 * probabilities[k]:.1f} %</td></tr>'
        for place, k in enumerate(order[:_BARS])
    ]
    rest = len(order) - len(rows)
    more = f"<p><small>and {rest} less probable</small></p>" if rest else ""
    return f'<table aria-label="Probability of each class"><tbody>{"".join(rows)}</tbody></table>{more}'


def _drawn(match: "Match") -> str:
    """The matched parts as the address of a vector drawing; inside an img element nothing in it can run."""
    with TemporaryDirectory() as folder:
        return _data(matches_picture([match], Path(folder) / "match.svg", columns=1).read_bytes(), "svg+xml")


def _data(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _lines(texts: Sequence[str]) -> str:
    return "".join(f"<p>{escape(line)}</p>" for text in texts for line in text.splitlines())

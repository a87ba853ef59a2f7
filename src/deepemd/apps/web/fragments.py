"""The HTML of the page: messages, classes and answers. All text from visitors is escaped here."""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from deepemd.apps.reports.drawing import Drawings
from deepemd.apps.reports.page import data_url

if TYPE_CHECKING:
    from deepemd.apps.web.session import Answer, KnownClass, Visitor

__all__ = ["RESUME", "answer", "classes", "known_class", "messages", "too_large", "waiting"]

_THUMBNAILS = 8  # photos shown of a class
_MAX_BARS = 8  # most probable classes of an answer


RESUME = "<span data-resume></span>"
"""What lets the page ask for the photos that wait to be classified."""


def messages(done: Sequence[str] = (), wrong: Sequence[str] = ()) -> str:
    """Return messages on what was done and what went wrong, a line each; screen readers announce them."""
    parts = []
    if wrong:
        parts.append(f'<div class="message wrong" role="alert">{_lines(wrong)}</div>')
    if done:
        parts.append(f'<div class="message" role="status">{_lines(done)}</div>')
    return "".join(parts)


def classes(visitor: "Visitor") -> str:
    """Return all classes of a visitor."""
    return "".join(known_class(known) for known in visitor.classes)


def waiting(names: Sequence[str], photos: int) -> str:
    """Return why photos are not classified yet, and that they will be."""
    there = f"only '{names[0]}'" if names else "none yet"
    kept = "Your photo is" if photos == 1 else f"Your {photos} photos are"
    return messages(wrong=[f"At least two classes are needed; there is {there}. {kept} classified when there are two."])


def too_large(box: str) -> str:
    """Return the empty element for messages about files that are too large for the box with this id."""
    return f'<div class="message wrong too-large" role="alert" data-box="{box}"></div>'


def known_class(known: "KnownClass") -> str:
    """Return a class: its name, the number of its photos, the first few photos, and the button that removes it."""
    pictures = [
        f'<li><img alt="{escape(known.name)}, photo {k}" src="{data_url(example.picture)}"></li>'
        for k, example in enumerate(known.examples[:_THUMBNAILS], 1)
    ]
    if known.photos > len(pictures):
        pictures.append(f'<li class="more">and {known.photos - len(pictures)} more</li>')
    photos = "1 photo" if known.photos == 1 else f"{known.photos} photos"
    return (
        f'<section class="known card"><h3>{escape(known.name)} <small>{photos}</small></h3>'
        f'<ul class="thumbnails">{"".join(pictures)}</ul>'
        f'<button type="button" data-remove="{escape(known.name)}">Remove {escape(known.name)}</button></section>'
    )


def answer(one: "Answer", drawings: Drawings) -> str:
    """Return the answer for one photo: its label, the probabilities, and the parts that were matched."""
    if one.explanation is None:
        return messages(wrong=[one.error])
    found, match = one.explanation.prediction, one.explanation.match
    label, photo = escape(str(found.label)), escape(one.name)
    heading = f"{label} <small>{100 * found.probability:.1f}&nbsp;%</small>"
    doubt = ""
    if not found.familiar:
        heading = "Resembles none of your classes"
        doubt = f'<p class="unfamiliar">The most similar of your classes is {label}, but it is not very similar.</p>'
    elif not one.certain:
        few = "To recognise photos of other things, give at least 19 photos in all, two or more of each class"
        doubt = f"<p><small>{few}: there are {one.counted} now.</small></p>"
    caption = (
        f"{photo} (query) and the most similar photo of {label} (support). Matched parts have the same number and "
        "colour; dark parts count little."
    )
    drawn = drawings.draw(match, query=one.name, example=f"a photo of {found.label}")
    return (
        f'<article class="answer"><h3>{heading}</h3><p class="file">{photo}</p>{doubt}'
        f"{_bars(one.classes, found.probabilities.tolist())}"
        f"<figure>{drawn}<figcaption>{caption}</figcaption></figure></article>"
    )


def _bars(classes: Sequence[str], probabilities: Sequence[float]) -> str:
    """Return the most probable classes as a table with bars."""
    order = sorted(range(len(classes)), key=lambda k: -probabilities[k])
    rows = [
        f'<tr{" class=first" if place == 0 else ""}><th scope="row">{escape(classes[k])}</th>'
        f'<td><div class="bar" style="width:{100 * probabilities[k]:.1f}%"></div></td>'
        f'<td class="share">{100 * probabilities[k]:.1f} %</td></tr>'
        for place, k in enumerate(order[:_MAX_BARS])
    ]
    rest = len(order) - len(rows)
    more = f"<p><small>and {rest} less probable</small></p>" if rest else ""
    return f'<table aria-label="Probability of each class"><tbody>{"".join(rows)}</tbody></table>{more}'


def _lines(texts: Sequence[str]) -> str:
    return "".join(f"<p>{escape(line)}</p>" for text in texts for line in text.splitlines())

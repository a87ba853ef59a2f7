"""The HTML of the photos to classify: a gallery, and the explanation of one answer."""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from deepemd.apps.reports.drawing import Drawings
from deepemd.apps.reports.page import data_url
from deepemd.apps.web.editing import COVERAGE
from deepemd.apps.web.fragments import act, download_link, messages

if TYPE_CHECKING:
    from deepemd.apps.web.asked import Asked
    from deepemd.apps.web.session import Answer, Visitor

__all__ = ["answer", "gallery", "tools", "waiting"]

_MAX_BARS = 6  # most probable classes of an answer; the others are shown on request


def gallery(visitor: "Visitor", shown: str = "") -> str:
    """Return the photos to classify, each with its label and probability; the one with the id `shown` is marked.

    Another photo only adds to the end, so that a browser receives no more than that.
    """
    return "".join(_item(one, one.id == shown) for one in visitor.asked)


def tools(visitor: "Visitor") -> str:
    """Return what can be done with all photos to classify; empty if there are none."""
    if not visitor.asked:
        return ""
    links = [download_link("predictions.csv", "Table (CSV)"), download_link("predictions.html", "Report (HTML)")]
    answered = any(one.prediction for one in visitor.asked)
    return f'<div class="tools">{"".join(links) if answered else ""}{act("Remove these photos", do="clear")}</div>'


def waiting(visitor: "Visitor") -> str:
    """Return why photos are not classified yet, and that they will be; empty if there is no such photo."""
    photos, names = sum(not one.error for one in visitor.asked), visitor.names
    if not photos or len(names) > 1:
        return ""
    there = f"only '{names[0]}'" if names else "none yet"
    kept = "Your photo is" if photos == 1 else f"Your {photos} photos are"
    return messages(wrong=[f"At least two classes are needed; there is {there}. {kept} classified when there are two."])


def answer(one: "Answer") -> str:
    """Return the answer for one photo: its label, the probabilities, and the parts that were matched."""
    found, match = one.asked.prediction, one.explanation.match
    assert found is not None
    label, photo = escape(str(found.label)), escape(one.asked.name)
    heading = f"{label} <small>{100 * found.probability:.1f}&nbsp;%</small>"
    doubt = ""
    if not found.familiar:
        heading = "Resembles none of your classes"
        doubt = f'<p class="unfamiliar">The most similar of your classes is {label}, but it is not very similar.</p>'
    elif not one.certain:
        few = "To recognise photos of other things, give at least 19 photos in all, two or more of each class"
        doubt = f"<p><small>{few}, not of one series: {one.counted} count now.</small></p>"
    if found.labels and found.familiar:
        listed = ", ".join(escape(str(each)) for each in found.labels)
        often = f"In {100 * COVERAGE:g} of 100 cases, the right class is among these"
        doubt += f'<p class="set"><small>{often}: <b>{listed}</b>.</small></p>'
    drawn = Drawings().draw(match, query=one.asked.name, example=f"a photo of {found.label}")
    return (
        f'<article class="answer" data-of="{one.asked.id}" tabindex="-1"><h3>{heading}</h3>'
        f'<p class="file">{photo}</p>{doubt}{_bars(one, found.probabilities.tolist())}'
        f"<figure>{drawn}<figcaption>{_caption(one)}</figcaption></figure></article>"
    )


def _caption(one: "Answer") -> str:
    """Return what the drawing shows."""
    label = escape(str(one.classes[int(one.explanation.prediction.probabilities.argmax())]))
    pair = f"{escape(one.asked.name)} (query) and the most similar photo of {label} (support)."
    numbers = "Matched parts have the same number and colour;"
    if one.explanation.match.evidence is None:
        return f"{pair} {numbers} dark parts count little."
    return f"{pair} Bright parts of the query speak for {label}; they decide. {numbers} they show what is alike."


def _item(one: "Asked", shown: bool) -> str:
    """Return one photo of the gallery."""
    name = escape(one.name)
    if one.error:
        return f'<div class="item"><div class="message wrong" role="alert"><p>{escape(one.error)}</p></div></div>'
    picture = f'<img alt="" src="{data_url(one.small)}">'
    if one.prediction is None:
        return f'<div class="item"><div class="asked">{picture}<b>waiting</b><small>{name}</small></div></div>'
    share = f"{100 * one.prediction.probability:.0f}&nbsp;%"
    words = f"<b>{escape(str(one.prediction.label))}</b><span>{share}</span>"
    if not one.prediction.familiar:
        words = f"<b>none of them</b><span>{escape(str(one.prediction.label))}?</span>"
    state = f'data-show="{one.id}" aria-pressed="{str(shown).lower()}"'
    return (
        f'<div class="item"><button type="button" class="asked" {state}>'
        f"{picture}{words}<small>{name}</small></button></div>"
    )


def _bars(one: "Answer", probabilities: Sequence[float]) -> str:
    """Return the classes as a table with bars, each with a button that adds the photo to it."""
    order = sorted(range(len(probabilities)), key=lambda k: -probabilities[k])
    rows = [_row(one, one.classes[k], probabilities[k], place == 0) for place, k in enumerate(order)]
    first, rest = rows[:_MAX_BARS], rows[_MAX_BARS:]
    more = f"<details><summary>and {len(rest)} less probable</summary>{_table(rest)}</details>" if rest else ""
    held = " and ".join(f"'{escape(name)}'" for name in one.holders)
    words = "If you add the photo to its right class, all answers are given again."
    if held:
        words = f"This photo is in {held}, so its own answer is no test."
    return f'{_table(first)}{more}<p><small class="teach">{words}</small></p>'


def _row(one: "Answer", name: str, probability: float, first: bool) -> str:
    if name in one.holders:
        button = '<span class="held">added</span>'
    else:
        label = f"{one.asked.name} is of {name}: add it to this class"
        button = act("Add", label=label, **{"do": "correct", "photo": one.asked.id, "class": name})
    return (
        f'<tr{" class=first" if first else ""}><th scope="row">{escape(name)}</th>'
        f'<td><div class="bar" style="width:{100 * probability:.1f}%"></div></td>'
        f'<td class="share">{100 * probability:.1f} %</td><td class="right">{button}</td></tr>'
    )


def _table(rows: Sequence[str]) -> str:
    return f'<table aria-label="Probability of each class"><tbody>{"".join(rows)}</tbody></table>'

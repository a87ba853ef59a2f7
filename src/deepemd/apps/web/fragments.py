"""The HTML of the page: messages, classes and buttons. All text from visitors is escaped here and in gallery.py.

Gradio shows HTML as it is if it begins with a block such as div and has no empty line.
"""

import json
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from deepemd.apps.reports.page import data_url, text
from deepemd.apps.web.asked import SMALL_SIDE
from deepemd.apps.web.models import MODEL
from deepemd.classifier.support import Example
from deepemd.data.decoding import thumbnail

if TYPE_CHECKING:
    from deepemd.apps.web.session import KnownClass, Visitor

__all__ = ["RESUME", "act", "classes", "download_link", "known_class", "messages", "too_large"]

_THUMBNAILS = 8  # photos shown of a class; the others are shown on request
_SMALL: "WeakKeyDictionary[Example, str]" = WeakKeyDictionary()  # forgotten together with the photos


RESUME = "<span data-resume></span>"
"""What lets the page ask for the photos that wait to be classified."""


def act(words: str, *, label: str = "", kind: str = "", **action: str) -> str:
    """Return a button that starts an action of the page.

    Args:
        words: the text on the button (text).
        label: what screen readers say instead.
        kind: CSS class of the button.
        action: the action, as :meth:`deepemd.apps.web.events.Events.act` reads it.
    """
    named = f' aria-label="{escape(label)}" title="{escape(label)}"' if label else ""
    kind = f' class="{kind}"' if kind else ""
    return f'<button type="button"{kind}{named} data-act="{escape(json.dumps(action))}">{escape(words)}</button>'


def download_link(name: str, words: str) -> str:
    """Return a link to a file of :mod:`deepemd.apps.web.results`."""
    return f'<a href="./download/{name}" download="{name}">{escape(words)}</a>'


def messages(done: Sequence[str] = (), wrong: Sequence[str] = (), *, undo: bool = False) -> str:
    """Return messages on what was done and what went wrong, a line each; screen readers announce them.

    Args:
        done, wrong: the messages.
        undo: add a button that undoes what was done.
    """
    parts = []
    if wrong:
        parts.append(f'<div class="message wrong" role="alert">{_lines(wrong)}</div>')
    if done:
        button = act("Undo", do="undo") if undo else ""
        parts.append(f'<div class="message" role="status">{_lines(done)}{button}</div>')
    return "".join(parts)


def classes(visitor: "Visitor") -> str:
    """Return all classes of a visitor, how photos are compared with them, and the link that saves them."""
    if visitor.classifier is None:
        return ""
    how = visitor.classifier.adaptation_ if len(visitor.names) > 1 else ""
    about = f"<p><small>How photos are compared: {text(how)}.</small></p>" if how else ""
    save = f'<div class="tools">{download_link(f"{MODEL}.zip", "Save the classes")}</div>'
    return "".join(known_class(known) for known in visitor.classes) + f'<div class="about">{save}{about}</div>'


def too_large(box: str) -> str:
    """Return the empty element for messages about files that are too large for the box with this id."""
    return f'<div class="message wrong too-large" role="alert" data-box="{box}"></div>'


def known_class(known: "KnownClass") -> str:
    """Return a class: its name, its photos, each with a button that removes it, and the button that removes all."""
    name = escape(known.name)
    pictures = [
        f'<li><img alt="{name}, photo {k}" title="{text(example.name)}" src="{_small(example)}">'
        + act("×", label=f"Remove photo {k} of {known.name}", kind="remove",
              **{"do": "remove photo", "class": known.name, "photo": str(example.key)})
        + "</li>"
        for k, example in enumerate(known.examples, 1)
    ]  # fmt: skip
    first, rest = pictures[:_THUMBNAILS], pictures[_THUMBNAILS:]
    more = f"<details><summary>and {known.photos - len(first)} more</summary>{_photos(rest)}</details>"
    photos = "1 photo" if known.photos == 1 else f"{known.photos} photos"
    remove = act("Remove", label=f"Remove {known.name}", **{"do": "remove", "class": known.name})
    return (
        f'<section class="known card"><div class="head"><h3>{name} <small>{photos}</small></h3>{remove}</div>'
        f"{_photos(first)}{more if known.photos > len(first) else ''}</section>"
    )


def _photos(items: Sequence[str]) -> str:
    return f'<ul class="thumbnails">{"".join(items)}</ul>'


def _small(example: Example) -> str:
    if example not in _SMALL:
        _SMALL[example] = data_url(thumbnail(example.image(), SMALL_SIDE))
    return _SMALL[example]


def _lines(texts: Sequence[str]) -> str:
    return "".join(f"<p>{escape(line)}</p>" for text in texts for line in text.splitlines())

"""Self-contained HTML pages: they send no requests and run only a short script for the keyboard.

The Content-Security-Policy of a page allows only embedded images, and its own style and script, both identified by
their hash. Names of files and classes enter a page as text, through :func:`text`.
"""

import base64
import hashlib
import html
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from deepemd.errors import printable
from deepemd.files import atomic_file, explain_disk_errors

__all__ = [
    *("TOOLS", "data_url", "drawing_style", "facts", "figure", "image", "meter", "name", "shade", "simple_page"),
    *("standalone", "text", "warning", "write_standalone"),
]

TOOLS = (
    '<div class="tools"><label><input type="checkbox" id="heat" checked> weights (dark: counts little)</label>'
    '<label><input type="checkbox" id="lines" checked> matched parts</label>'
    "<span>next photo <kbd>j</kbd> or <kbd>&darr;</kbd>, previous <kbd>k</kbd> or <kbd>&uarr;</kbd></span></div>"
)
"""The HTML of the switches for drawings."""

_JOINER = "\u200d"  # makes one emoji of two
_JOINERS = {_JOINER, *map(chr, range(0x1F3FB, 0x1F400))}  # and the colours of skin
_SHADES = 12  # background shades of the cells of a matrix


@cache
def _asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def drawing_style() -> str:
    """Return the CSS of drawings of matches, for pages made elsewhere."""
    return _asset("drawing.css")


def _style() -> str:
    shades = "".join(f".s{k} {{ background: rgba(var(--hot), {0.06 * k:.2f}); }}\n" for k in range(1, _SHADES))
    return _asset("page.css") + drawing_style() + shades


def _policy(style: str, script: str) -> str:
    hashes = (base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in (style, script))
    return (
        "default-src 'none'; img-src data:; style-src 'sha256-{}'; script-src 'sha256-{}'; base-uri 'none'; "
        "form-action 'none'"
    ).format(*hashes)


def text(content: object) -> str:
    """Return a name as text of the page, without markup; control characters become their codes.

    >>> text('<img src=x onerror="alert(1)">')
    '&lt;img src=x onerror=&quot;alert(1)&quot;&gt;'
    """
    return html.escape(printable(content))


def name(content: object, most: int = 0) -> str:
    """Return the name of a class or file, which may run from right to left, apart from the words around it.

    Args:
        content: the name. Its title holds the whole, because the page may cut it where room is short.
        most: largest number of characters; a longer name loses its middle, because names often begin alike.

    >>> name("cat & dog")
    '<bdi title="cat &amp; dog">cat &amp; dog</bdi>'
    >>> name("Golden-Delicious 17", most=11)
    '<bdi title="Golden-Delicious 17">Golde…us 17</bdi>'
    """
    whole = str(content)
    shown = whole
    if most and len(whole) > most:
        head, tail = whole[: (most - 1) // 2], whole[-(most - 1) // 2 :]
        while tail and _joins(tail[0]):
            tail = tail[1:]
        shown = f"{head.removesuffix(_JOINER)}…{tail}"
    return f'<bdi title="{text(whole)}">{text(shown)}</bdi>'


def _joins(character: str) -> bool:
    """Return whether a character changes the one before it, such as an accent or the colour of an emoji."""
    return unicodedata.category(character)[0] == "M" or character in _JOINERS


def data_url(picture: bytes, kind: str = "jpeg") -> str:
    """Return a data URL that holds an image file."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def image(path: Path, description: str) -> str:
    """Return a PNG file as an image inside the page."""
    return f'<img alt="{text(description)}" src="{data_url(path.read_bytes(), "png")}">'


def figure(content: str, caption: str) -> str:
    """Return a drawing or an image (HTML) with a caption (text) below it."""
    return f"<figure>{content}<figcaption><bdi>{text(caption)}</bdi></figcaption></figure>"


def meter(share: float, kind: str = "part") -> str:
    """Return a bar that is filled to `share`, from 0 to 1."""
    width = f"{100 * min(max(share, 0.0), 1.0):.2f}"
    return (
        '<svg class="meter" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="rest" width="100" height="6"/><rect class="{kind}" width="{width}" height="6"/></svg>'
    )


def shade(share: float) -> str:
    """Return the CSS class of a cell: the larger the share, the stronger its background."""
    return f"s{min(_SHADES - 1, round(share * (_SHADES - 1)))}"


def standalone(title: str, body: Iterable[str]) -> Iterable[str]:
    """Yield a page in pieces, so that a page with many pictures is never in memory as a whole.

    Args:
        title: title of the page.
        body: HTML from the functions of this module.
    """
    style, script = _style(), _asset("page.js")
    yield (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(style, script)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#main">Skip to the content</a>\n'
    )
    for part in body:
        yield part + "\n"
    yield f"<script>{script}</script>\n</body>\n</html>\n"


def simple_page(
    title: str, lead: Sequence[str], sections: Iterable[str], notes: Iterable[tuple[str, object]]
) -> Iterable[str]:
    """Yield the body of a page: a heading, an introduction, sections, and facts in small print.

    Args:
        title: the heading.
        lead: sentences below it, as text.
        sections: tables and figures, as HTML.
        notes: names and values of the facts, as text.
    """
    yield f"<header><h1>{text(title)}</h1>" + "".join(f"<p>{text(line)}</p>" for line in lead) + "</header>"
    yield '<main id="main" tabindex="-1">'
    yield from sections
    yield f"</main><footer><h2>How this was made</h2>{facts(notes)}</footer>"


def write_standalone(title: str, body: Iterable[str], path: Path) -> Path:
    """Write the page; the file appears only when it is complete.

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    remedy = "choose another folder for the page"
    with explain_disk_errors(path.parent, 10_000_000, remedy):
        path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, needed=10_000_000, remedy=remedy) as file:
        for part in standalone(title, body):
            file.write(part.encode())
    return path


def warning(title: str, lines: Sequence[str] = (), most: int = 20) -> str:
    """Return a warning: a sentence in a box, with names below it."""
    listed = "".join(f"<li><bdi>{text(line)}</bdi></li>" for line in lines[:most])
    more = f"<li>and {len(lines) - most:,} more</li>" if len(lines) > most else ""
    return f'<div class="warn"><p>{text(title)}</p>' + (f"<ul>{listed}{more}</ul>" if listed else "") + "</div>"


def facts(pairs: Iterable[tuple[str, object]]) -> str:
    """Return names and values in small print."""
    rows = "".join(f"<dt>{text(key)}</dt><dd><bdi>{text(value)}</bdi></dd>" for key, value in pairs)
    return f'<dl class="facts">{rows}</dl>'

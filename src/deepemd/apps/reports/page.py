"""One HTML page that stands alone: no request leaves it, nothing in it runs but its own few lines for the keyboard.

Its policy (Content-Security-Policy) allows images that lie inside of it, its own style and its own script, both told
by their hash, and nothing else. Names of files and classes come in as text: :func:`text` is the only way for them.
"""

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from deepemd.errors import printable
from deepemd.files import atomic_file, explain_disk_errors

__all__ = ["TOOLS", "data_url", "facts", "meter", "shade", "standalone", "text", "warning", "write_standalone"]

_STYLE = """
:root { color-scheme: light dark; --ground: #fbfaf8; --card: #fff; --ink: #1c1c1e; --soft: #5c5c63; --line: #dddad4;
  --mark: #0b5d8c; --bar: #56b4e9; --other: #b9b6af; --warn: #fff3d6; --warn-line: #b36b00; --hot: 11, 93, 140; }
@media (prefers-color-scheme: dark) { :root { --ground: #151517; --card: #1f1f23; --ink: #ececf0; --soft: #a6a6b0;
  --line: #37373d; --mark: #8fd0ff; --bar: #3f93c8; --other: #62626b; --warn: #33280f; --warn-line: #e6a94a;
  --hot: 86, 180, 233; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "Noto Sans", sans-serif; margin: 0; color: var(--ink);
  background: var(--ground); }
main, header, footer { max-width: 64rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2rem; } footer { padding-bottom: 3rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .5rem; text-wrap: balance; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; } h3 { font-size: 1.05rem; margin: 0; overflow-wrap: anywhere; }
p { margin: .4rem 0; max-width: 46rem; } a { color: var(--mark); }
.skip { position: absolute; left: -99rem; } .skip:focus { left: 1rem; top: 1rem; padding: .5rem 1rem;
  background: var(--card); border: 2px solid var(--mark); z-index: 2; }
:focus-visible { outline: 3px solid var(--mark); outline-offset: 3px; }
.warn { background: var(--warn); border-left: 4px solid var(--warn-line); padding: .5rem .9rem; max-width: none;
  border-radius: 0 6px 6px 0; margin: .8rem 0; overflow-wrap: anywhere; }
.warn p { max-width: none; } .warn ul { margin: .3rem 0; padding-left: 1.2rem; }
article { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1rem 1.1rem;
  margin: 1rem 0; scroll-margin-top: 3.5rem; display: grid; grid-template-columns: minmax(13rem, 1fr) 2.2fr;
  gap: .6rem 1.4rem; align-items: start; }
article > header { padding: 0; margin: 0; }
.name { color: var(--soft); font-size: .85rem; overflow-wrap: anywhere; margin: .15rem 0 .6rem; }
.big { font-size: 1.35rem; font-weight: 650; line-height: 1.25; overflow-wrap: anywhere; }
.note { color: var(--soft); font-size: .88rem; overflow-wrap: anywhere; }
.tag { display: inline-block; border: 1.5px solid var(--warn-line); border-radius: 99px; padding: 0 .6rem;
  font-size: .82rem; margin: .3rem 0; background: var(--warn); }
.bars { display: grid; grid-template-columns: 1fr auto; gap: .1rem .8rem; margin: .6rem 0; font-size: .9rem; }
.bars dt { overflow-wrap: anywhere; } .bars dd { margin: 0; text-align: right; font-variant-numeric: tabular-nums; }
.bars .meter { grid-column: 1 / -1; margin-bottom: .35rem; }
.meter { display: block; width: 100%; height: 7px; } .meter .rest { fill: var(--line); }
.meter .part { fill: var(--bar); } .meter .second { fill: var(--other); }
figure { margin: 0; } figure svg { display: block; width: 100%; height: auto; border-radius: 4px; }
figcaption { font-size: .85rem; color: var(--soft); margin-top: .4rem; overflow-wrap: anywhere; }
.side { fill: var(--soft); font: 11px system-ui, sans-serif; }
.badge { font: bold 10px system-ui, sans-serif; text-anchor: middle; fill: #000; }
.counts { max-width: 40rem; }
.tools { position: sticky; top: 0; z-index: 1; margin-top: 1.2rem; background: var(--ground);
  border-bottom: 1px solid var(--line); padding: .5rem 0; display: flex; flex-wrap: wrap; gap: .3rem 1.4rem;
  align-items: center; font-size: .9rem; }
.tools label { display: inline-flex; gap: .4rem; align-items: center; }
kbd { font: inherit; font-size: .85em; border: 1px solid var(--line); border-bottom-width: 2px; border-radius: 4px;
  padding: 0 .35em; background: var(--card); }
body:has(#heat:not(:checked)) .heat, body:has(#lines:not(:checked)) .lines { display: none; }
.scroll { overflow-x: auto; } td.wide { width: 40%; min-width: 6rem; vertical-align: middle; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere; min-width: 7rem; }
thead th { font-weight: 600; color: var(--soft); }
.matrix td, .matrix th { padding: .25rem .5rem; text-align: center; border: 1px solid var(--line); min-width: 0; }
.matrix th[scope=row] { text-align: right; max-width: 14rem; } .matrix .right { font-weight: 700; }
.matrix thead th { max-width: 7rem; overflow-wrap: anywhere; }
dl.facts { font-size: .85rem; color: var(--soft); display: grid; gap: .1rem 1rem;
  grid-template-columns: max-content 1fr; }
dl.facts dt { font-weight: 600; } dl.facts dd { margin: 0; overflow-wrap: anywhere; }
.store { position: absolute; width: 0; height: 0; overflow: hidden; }
@media (max-width: 45rem) { td.wide { display: none; } article { grid-template-columns: 1fr; }
  dl.facts { grid-template-columns: 1fr; } }
@media print { :root { color-scheme: light; --ground: #fff; --card: #fff; --ink: #000; --soft: #444; --line: #bbb;
  --bar: #56b4e9; --other: #aaa; --warn: #fff; --warn-line: #000; --mark: #000; --hot: 11, 93, 140; }
  body { font-size: 10pt; } main, header, footer { max-width: none; padding: 0; } .tools, .skip { display: none; }
  article { break-inside: avoid; grid-template-columns: 1fr 2fr; } h2 { break-after: avoid; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""
# One step on or back through the articles, by the keys that readers of mail and news know.
_SCRIPT = """
addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const step = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key];
  const all = [...document.querySelectorAll("article")], now = all.indexOf(document.activeElement.closest("article"));
  if (!step || !all.length || (now < 0 && event.key.startsWith("Arrow"))) return;
  const next = now < 0 ? all[0] : all[now + step];
  if (next) { event.preventDefault(); next.focus({ preventScroll: true }); next.scrollIntoView({ block: "start" }); }
});
"""
_STEPS = 12  # of the shades of a matrix


def _shades() -> str:
    return "".join(f".s{k} {{ background: rgba(var(--hot), {0.06 * k:.2f}); }}\n" for k in range(1, _STEPS))


def _policy() -> str:
    style, script = (
        base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in (_STYLE + _shades(), _SCRIPT)
    )
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{style}'; script-src 'sha256-{script}'; "
        "base-uri 'none'; form-action 'none'"
    )


def text(content: object) -> str:
    """A name as text of the page: nothing in it is markup, and what would act is written out as its code.

    >>> text('<img src=x onerror="alert(1)">')
    '&lt;img src=x onerror=&quot;alert(1)&quot;&gt;'
    """
    return html.escape(printable(content))


def data_url(picture: bytes) -> str:
    """A JPEG file as an address that holds it."""
    return f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"


def meter(share: float, kind: str = "part") -> str:
    """A bar that is filled to a share of 1; what it says stands beside it as text."""
    width = f"{100 * min(max(share, 0.0), 1.0):.2f}"
    return (
        '<svg class="meter" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="rest" width="100" height="6"/><rect class="{kind}" width="{width}" height="6"/></svg>'
    )


def shade(share: float) -> str:
    """The class of a cell whose ground is the stronger, the larger the share."""
    return f"s{min(_STEPS - 1, round(share * (_STEPS - 1)))}"


def standalone(title: str, body: Iterable[str]) -> Iterable[str]:
    """The page, part by part, so that one with many pictures need not be in memory at once.

    Args:
        title: of the page.
        body: HTML, made by the functions above.
    """
    yield (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy()}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{_STYLE}{_shades()}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#main">Skip to the photos</a>\n'
    )
    for part in body:
        yield part + "\n"
    yield f"<script>{_SCRIPT}</script>\n</body>\n</html>\n"


def write_standalone(title: str, body: Iterable[str], path: Path) -> Path:
    """Write the page, whole or not at all.

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    remedy = "choose another folder by --report"
    with explain_disk_errors(path.parent, 10_000_000, remedy):
        path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, needed=10_000_000, remedy=remedy) as file:
        for part in standalone(title, body):
            file.write(part.encode())
    return path


def warning(title: str, lines: Sequence[str] = (), most: int = 20) -> str:
    """A box that says what to look at: a sentence, and names below it."""
    listed = "".join(f"<li><bdi>{text(line)}</bdi></li>" for line in lines[:most])
    more = f"<li>and {len(lines) - most:,} more</li>" if len(lines) > most else ""
    return f'<div class="warn"><p>{text(title)}</p>' + (f"<ul>{listed}{more}</ul>" if listed else "") + "</div>"


def facts(pairs: Iterable[tuple[str, object]]) -> str:
    """Small print: what was used."""
    rows = "".join(f"<dt>{text(key)}</dt><dd><bdi>{text(value)}</bdi></dd>" for key, value in pairs)
    return f'<dl class="facts">{rows}</dl>'


TOOLS = (
    '<div class="tools"><label><input type="checkbox" id="heat" checked> weights (dark: counts little)</label>'
    '<label><input type="checkbox" id="lines" checked> matched parts</label>'
    "<span>next photo <kbd>j</kbd> or <kbd>&darr;</kbd>, previous <kbd>k</kbd> or <kbd>&uarr;</kbd></span></div>"
)
"""What switches the drawings on and off."""

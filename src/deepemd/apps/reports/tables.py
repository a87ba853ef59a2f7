"""Reports: a table on the terminal, JSON for programs, one HTML page with pictures for people."""

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepemd.errors import printable
from deepemd.evaluation.evaluate import Evaluation
from deepemd.evaluation.intervals import MeanCI
from deepemd.files import atomic_write

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Page", "TextTable", "accuracy_table", "settings_table", "signed", "write_json", "write_page"]


@dataclass(frozen=True)
class TextTable:
    """A small table: a title, a heading for each column, rows of text."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]

    def rich(self) -> "Table":
        """For the terminal."""
        from rich.table import Table
        from rich.text import Text

        # Text, because names of files and classes may hold what a string would take for markup.
        table = Table(title=Text(printable(self.title), "bold"), title_justify="left")
        for k, head in enumerate(self.heads):
            table.add_column(Text(printable(head)), justify="right" if k else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        return table

    def html(self) -> str:
        """For a page."""
        heads = "".join(f"<th>{html.escape(head)}</th>" for head in self.heads)
        rows = ("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in self.rows)
        return f"<h2>{html.escape(self.title)}</h2>\n<table>\n<tr>{heads}</tr>\n" + "\n".join(rows) + "\n</table>"


def accuracy_table(evaluations: Mapping[str, Evaluation], title: str = "") -> TextTable:
    """A row for every method, two columns for every model: accuracy, and the first method minus this one, paired.

    Args:
        evaluations: model -> its evaluation; all of the same methods.
        title: what to write above; the episodes unless given.
    """
    first = next(iter(evaluations.values()))
    e = first.episodes
    title = title or f"{e.n_way}-way {e.n_shot}-shot accuracy in %, {first.count:,} episodes, 95 % intervals"
    heads = ["method", *(head for model in evaluations for head in (model or "accuracy", f"{first.first} minus it"))]
    rows = []
    for method in first.accuracies:
        row = [method]
        for evaluation in evaluations.values():
            difference = "" if method == first.first else signed(evaluation.difference(first.first, method))
            row += [str(evaluation.figure(method)), difference]
        rows.append(row)
    return TextTable(title, heads, rows)


def settings_table(evaluations: Sequence[Evaluation]) -> TextTable:
    """Many data sets, ways and shots, one under the other: as `accuracy_table` for each."""
    first, rows = evaluations[0].first, []
    for one in evaluations:
        e = one.episodes
        rows.append([f"{one.fingerprint['name']}, {e.n_way}-way {e.n_shot}-shot, {one.count:,} episodes", "", ""])
        for method in one.accuracies:
            difference = "" if method == first else signed(one.difference(first, method))
            rows.append([f"  {method}", str(one.figure(method)), difference])
    return TextTable("Accuracy in %, 95 % intervals", ["method", "accuracy", f"{first} minus it"], rows)


def signed(figure: MeanCI) -> str:
    """A difference with its sign."""
    return f"{100 * figure.mean:+.2f} ± {100 * figure.ci95:.2f}"


def write_json(content: Mapping[str, Any], path: Path) -> Path:
    """Write a report for programs; what is there under the name is always whole."""
    text = json.dumps(content, indent=2, default=str) + "\n"
    return atomic_write(path, text.encode())


@dataclass(frozen=True)
class Page:
    """What a report shows, from top to bottom.

    Attributes:
        title: heading of the page.
        lead: sentences under the heading.
        grids: tables.
        pictures: caption -> file beside the page.
        notes: facts in small print: data, seed, versions, time.
    """

    title: str
    lead: Sequence[str] = ()
    grids: Sequence[TextTable] = ()
    pictures: Mapping[str, Path] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; }
tr:nth-child(2) { font-weight: 600; }
img { max-width: 100%; }
figure { margin: 1.5rem 0; }
figcaption, dl { color: #555; font-size: .9rem; }
dt { font-weight: 600; } dd { margin: 0 0 .4rem; overflow-wrap: anywhere; }
"""


def write_page(page: Page, path: Path) -> Path:
    """Write one HTML page that needs nothing but the pictures beside it."""
    body = [f"<h1>{html.escape(page.title)}</h1>"]
    body += [f"<p>{html.escape(text)}</p>" for text in page.lead]
    body += [grid.html() for grid in page.grids]
    for caption, picture in page.pictures.items():
        name, text = html.escape(picture.name), html.escape(caption)
        body.append(f'<figure><img src="{name}" alt="{text}"><figcaption>{text}</figcaption></figure>')
    facts = "".join(f"<dt>{html.escape(key)}</dt><dd>{html.escape(value)}</dd>" for key, value in page.notes.items())
    body.append(f"<dl>{facts}</dl>")
    text = (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{html.escape(page.title)}</title>\n'
        f"<style>{_STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )
    return atomic_write(path, text.encode())

"""Write the tables of a report, for the terminal and for a page, and its JSON, for programs."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepemd import json_files
from deepemd.apps.reports.page import name, text
from deepemd.errors import printable
from deepemd.evaluation.evaluate import Evaluation
from deepemd.evaluation.intervals import MeanCI

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

__all__ = ["TextTable", "accuracy_table", "settings_table", "signed", "write_json"]

_GAP = "  "  # between columns of plain text
_SHORTEST = 8  # width to which a column of plain text is shortened at most, unless its heading is shorter


@dataclass(frozen=True)
class TextTable:
    """A small table: a title, a heading for each column, rows of text.

    Attributes:
        names: numbers of the columns that hold names, which a page cuts where they are long.
    """

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: Sequence[int] = (0,)

    def rich(self) -> "Table | Text":
        """Return the table for a console: with lines on a terminal; elsewhere, such as in a log, as plain text."""
        from rich.table import Table
        from rich.text import Text

        if not sys.stdout.isatty():
            width = os.environ.get("COLUMNS", "")
            return Text(self.plain(int(width) if width.isdecimal() else 80) + "\n")  # an empty line between tables
        # Text, because rich would read markup in plain strings, such as names of files and classes.
        table = Table(title=Text(printable(self.title), "bold"), title_justify="left")
        for k, head in enumerate(self.heads):
            table.add_column(Text(printable(head)), justify="right" if k else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        return table

    def plain(self, width: int = 80) -> str:
        """Return the table as lines of text.

        Cells are never cut, so that names can be searched for and copied. In a table that is wider than `width`, what
        follows a long cell of the widest column continues on the next line, below its own heading.

        Args:
            width: number of columns to fit into, as far as the cells allow.

        >>> print(TextTable("2 photos", ["image", "label"], [["a.jpg", "cat"], ["holiday/beach.jpg", "dog"]]).plain(20))
        2 photos
        image          label
        --------------------
        a.jpg          cat
        holiday/beach.jpg
                       dog
        """
        from rich.cells import cell_len

        lines = [[printable(cell) for cell in row] for row in (self.heads, *self.rows)]
        widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
        over = sum(widths) + len(_GAP) * (len(widths) - 1) - width
        if over > 0:
            widest = widths.index(max(widths))
            widths[widest] = max(widths[widest] - over, min(widths[widest], _SHORTEST, cell_len(lines[0][widest])))
        numbers = [all(row[k][:1] in "+-0123456789" for row in lines[1:]) for k in range(len(widths))]
        head, *body = (_aligned(line, widths, numbers) for line in lines)
        rule = "-" * min(width, sum(widths) + len(_GAP) * (len(widths) - 1))
        return "\n".join([printable(self.title), head, rule, *body])

    def html(self) -> str:
        """Return the table for a page, with its title as a heading."""
        kinds = [' class="words"' if k in self.names else "" for k in range(len(self.heads))]
        heads = "".join(
            f'<th scope="col"{kind}>{text(head)}</th>' for head, kind in zip(self.heads, kinds, strict=True)
        )
        rows = (
            "".join(
                f"<td{kind}>{name(cell, 60) if kind else text(cell)}</td>"
                for cell, kind in zip(row, kinds, strict=True)
            )
            for row in self.rows
        )
        return (
            f'<h2>{text(self.title)}</h2><div class="scroll"><table><thead><tr>{heads}</tr></thead>'
            f"<tbody><tr>{'</tr><tr>'.join(rows)}</tr></tbody></table></div>"
        )


def _aligned(row: Sequence[str], widths: Sequence[int], numbers: Sequence[bool]) -> str:
    """Return the cells of a row beside each other, or on the next line where the cell before is too long.

    Args:
        row: the cells.
        widths, numbers: for each column its width, and whether it is aligned at the right.
    """
    from rich.cells import cell_len

    lines, line, start = list[str](), "", 0
    for cell, width, right in zip(row, widths, numbers, strict=True):
        if cell_len(line) > max(0, start - len(_GAP)):  # the cell before reaches into this column
            lines.append(line.rstrip())
            line = ""
        line += " " * (start - cell_len(line) + (max(0, width - cell_len(cell)) if right else 0)) + cell
        start += width + len(_GAP)
    return "\n".join([*lines, line.rstrip()] if line.strip() else lines)


def accuracy_table(evaluations: Mapping[str, Evaluation], title: str = "") -> TextTable:
    """Tabulate evaluations: a row for each method; for each model its accuracy, and the first method minus it.

    Args:
        evaluations: model -> its evaluation; all with the same methods.
        title: title of the table; by default a description of the episodes.
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
            row += [str(evaluation.accuracy(method)), difference]
        rows.append(row)
    return TextTable(title, heads, rows)


def settings_table(evaluations: Sequence[Evaluation]) -> TextTable:
    """Tabulate evaluations of many data sets, ways and shots, one below the other."""
    first, rows = evaluations[0].first, []
    for one in evaluations:
        e = one.episodes
        rows.append([f"{one.fingerprint['name']}, {e.n_way}-way {e.n_shot}-shot, {one.count:,} episodes", "", ""])
        for method in one.accuracies:
            difference = "" if method == first else signed(one.difference(first, method))
            rows.append([f"  {method}", str(one.accuracy(method)), difference])
    return TextTable("Accuracy in %, 95 % intervals", ["method", "accuracy", f"{first} minus it"], rows)


def signed(figure: MeanCI) -> str:
    """Format a difference in percentage points, with its sign."""
    return f"{100 * figure.mean:+.2f} ± {100 * figure.ci95:.2f}"


def write_json(content: Mapping[str, Any], path: Path) -> Path:
    """Write a report as JSON; the file appears only when it is complete.

    Raises:
        InputError: a number is NaN or infinite, the disk is full, or the folder cannot be written.
    """
    return json_files.write_json(content, path)

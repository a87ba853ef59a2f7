"""How often the photos of each class were given which label: as tables, for a page, and as a picture."""

import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepemd.apps.reports.page import meter, name, shade
from deepemd.apps.reports.tables import TextTable
from deepemd.errors import printable
from deepemd.evaluation.intervals import wilson
from deepemd.explain.plots import new_figure, save_figure

__all__ = ["Confusion"]

_TERMINAL = 12  # largest number of classes whose matrix fits a terminal
_COLUMNS = 30  # largest number of classes in the matrix of a page, and with numbers in a picture
_MOST = 200  # largest number of classes in a picture
_LETTERS = 16  # largest number of letters of a name in the headings
_PAIRS = 10  # largest number of pairs in the list of confused classes


@dataclass(frozen=True)
class Confusion:
    """The labels that photos of known classes were given.

    Attributes:
        labels: (M,) names of the classes, and of other labels that were given.
        counts: (M, M) int64: how many photos of each class (row) were given each label (column).
        untested: what is said of a class without a photo.
    """

    labels: list[str]
    counts: NDArray[np.int64] = field(repr=False)
    untested: str = "no photo"

    @property
    def photos(self) -> int:
        """The number of photos."""
        return int(self.counts.sum())

    @property
    def right(self) -> int:
        """The number of photos that were given the label of their class."""
        return int(np.trace(self.counts))

    @property
    def accuracy(self) -> float:
        """The share of photos that were given the label of their class."""
        return self.right / self.photos

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy."""
        return wilson(self.right, self.photos)

    @property
    def recall(self) -> NDArray[np.float64]:
        """(M,) the share of each class's photos that were given its label; NaN for a class without a photo."""
        count = self.counts.sum(1)
        return np.where(count > 0, self.counts.diagonal() / np.maximum(count, 1), np.nan)

    @property
    def mistakes(self) -> NDArray[np.int64]:
        """(M, M) the counts without the diagonal."""
        return self.counts - np.diag(self.counts.diagonal())

    def recalls(self) -> TextTable:
        """Return the table of recalls, a row for each class."""
        rows = []
        for label, count, right in self._recalls():
            interval = "" if not count else "{:.0%} to {:.0%}".format(*wilson(right, count))
            rows.append(
                [label, f"{count:,}", f"{right:,}", f"{right / count:.0%}" if count else self.untested, interval]
            )
        return TextTable("Each class", ["class", "photos", "correct", "recall", "95 % interval"], rows)

    def matrix(self) -> TextTable:
        """Return the matrix if it fits a terminal, else a table of the classes that are confused most."""
        if len(self.labels) <= _TERMINAL:
            numbers = [str(k) for k in range(1, len(self.labels) + 1)]
            rows = [
                [f"{k} {label}", *map(str, row)]
                for k, label, row in zip(numbers, self.labels, self.counts.tolist(), strict=True)
            ]
            title = "Photos of a class (row) by the label they were given (column, by its number)"
            return TextTable(title, ["", *numbers], rows)
        return self.pairs(2 * _PAIRS)

    def pairs(self, most: int) -> TextTable:
        """Return the table of the classes that are confused most."""
        rows = [[self.labels[i], self.labels[j], f"{self.counts[i, j]:,}"] for i, j in self._worst(most)]
        return TextTable("The classes that are confused most", ["class", "taken for", "photos"], rows)

    def recalls_html(self) -> str:
        """Return the table of recalls for a page, with bars."""
        rows = []
        for label, count, right in self._recalls():
            recall, interval, bar = self.untested, "", ""
            if count:
                share = right / count
                recall, interval, bar = f"{share:.0%}", "{:.0%} to {:.0%}".format(*wilson(right, count)), meter(share)
            rows.append(
                f'<tr><th scope="row">{name(label)}</th><td>{count:,}</td><td class="spare">{right:,}</td>'
                f'<td>{recall}</td><td class="range">{interval}</td><td class="wide">{bar}</td></tr>'
            )
        kinds = {
            "class": "",
            "photos": "",
            "correct": ' class="spare"',
            "recall": "",
            "95 % interval": ' class="range"',
        }
        head = (
            "".join(f'<th scope="col"{kind}>{title}</th>' for title, kind in kinds.items()) + '<td class="wide"></td>'
        )
        return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'

    def html(self) -> str:
        """Return the pairs of classes that are confused most, as a list, and the matrix, for a page."""
        off = self.mistakes
        if not off.any():
            return '<p class="note">No photo was given the label of another class.</p>'
        listed = "".join(
            f"<li>{name(self.labels[i], 60)} was taken for {name(self.labels[j], 60)}: {off[i, j]:,} of "
            f"{self.counts[i].sum():,} photos</li>"
            for i, j in self._worst(_PAIRS)
        )
        more = int((off > 0).sum()) - _PAIRS
        rest = f'<p class="note">and {more:,} more pairs</p>' if more > 0 else ""
        return f'<ol class="confused">{listed}</ol>{rest}{self._matrix_html()}'

    def draw(self, path: Path) -> Path:
        """Draw the matrix as a PNG file: the shares of each row as shades, and the numbers if there is room for them.

        Raises:
            InputError: the file cannot be written.
        """
        shown = self._most_confused(_MOST)
        counts = self.counts[np.ix_(shown, shown)]  # (S, S)
        side = min(24.0, 2.2 + 0.34 * len(shown))
        figure = new_figure(side, side)
        axes = figure.subplots()
        axes.imshow(counts / np.maximum(self.counts[shown].sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
        if len(shown) <= _COLUMNS:
            for i, j in np.argwhere(counts):
                dark = counts[i, j] > 0.5 * self.counts[shown[i]].sum()
                axes.text(j, i, f"{counts[i, j]}", ha="center", va="center", fontsize=7, color="w" if dark else "k")
        # A $ is no formula, and a name may have letters that the font lacks.
        names = [_short(self.labels[k]) for k in shown]
        small = 8.0 if len(shown) <= 60 else 480.0 / len(shown)
        axes.set_xticks(range(len(shown)), names, rotation=90, fontsize=small, parse_math=False)
        axes.set_yticks(range(len(shown)), names, fontsize=small, parse_math=False)
        axes.set_xlabel("label that was given")
        axes.set_ylabel("class")
        axes.set_title(f"{self.right:,} of {self.photos:,} photos correct", fontsize=10)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph")
            return save_figure(figure, path)

    def _recalls(self) -> list[tuple[str, int, int]]:
        counts, right = self.counts.sum(1).tolist(), self.counts.diagonal().tolist()
        return list(zip(self.labels, counts, right, strict=True))

    def _worst(self, most: int) -> list[tuple[int, int]]:
        """Return the pairs of classes that are confused most: the class, and the label that its photos were given."""
        off = self.mistakes
        pairs = (divmod(int(k), len(off)) for k in np.argsort(-off, axis=None, kind="stable")[:most])
        return [(i, j) for i, j in pairs if off[i, j]]

    def _most_confused(self, most: int) -> list[int]:
        """Return the places of all classes; of more than `most`, those of the classes that are confused most."""
        if len(self.labels) <= most:
            return list(range(len(self.labels)))
        confused = self.mistakes.sum(0) + self.mistakes.sum(1)  # (M,)
        return sorted(k for k in np.argsort(-confused, kind="stable")[:most].tolist() if confused[k])

    def _matrix_html(self) -> str:
        """Return the matrix for a page: the larger the share of a cell in its row, the stronger its background."""
        shown, rest = self._most_confused(_COLUMNS), ""
        if len(shown) < len(self.labels):
            rest = (
                f" The {len(shown)} classes that are confused most are shown; the JSON of --out holds all"
                f" {len(self.labels):,}."
            )
        head = "".join(f'<th scope="col">{name(self.labels[k], _LETTERS)}</th>' for k in shown)
        rows = []
        for k in shown:
            counts = self.counts[k].tolist()
            total = max(1, sum(counts))
            cells = "".join(
                f'<td class="{shade(counts[c] / total)}{" own" if k == c else ""}">{counts[c] or "&middot;"}</td>'
                for c in shown
            )
            rows.append(f'<tr><th scope="row">{name(self.labels[k], _LETTERS)}</th>{cells}</tr>')
        return (
            '<p class="note">A row for each class, a column for each label that its photos were given; the diagonal is '
            f'correct.{rest}</p><div class="scroll tall" tabindex="0" role="region" aria-label="Confusion matrix">'
            f'<table class="matrix"><thead><tr><td></td>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        )


def _short(label: str) -> str:
    shown = printable(label)
    return shown if len(shown) <= 2 * _LETTERS else f"{shown[: _LETTERS - 1]}…{shown[-_LETTERS:]}"

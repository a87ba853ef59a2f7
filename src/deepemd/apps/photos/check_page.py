"""The page of ``deepemd check --report``: accuracy, confused classes, and photos that look mislabelled."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepemd.apps.photos.check import CAVEAT, Check, Doubt, explain_doubt
from deepemd.apps.photos.fitting import Note
from deepemd.apps.photos.predict_page import article, bars, small_print
from deepemd.apps.reports.drawing import Drawings
from deepemd.apps.reports.page import TOOLS, meter, name, shade, text, warning, write_standalone
from deepemd.classifier.classifier import PhotoClassifier
from deepemd.evaluation.intervals import wilson
from deepemd.progress import track

__all__ = ["write_check_page"]

_COLUMNS = 30  # largest number of classes in the confusion matrix
_LETTERS = 16  # largest number of letters of a name in its headings
_PAIRS = 10  # largest number of pairs in the list of confused classes


def write_check_page(
    classifier: PhotoClassifier,
    check: Check,
    path: Path,
    *,
    notes: Sequence[Note],
    used: Mapping[str, Any],
    limit: int,
) -> Path:
    """Write the page.

    Args:
        classifier: the classifier that was checked.
        check: the result.
        path: HTML file to write.
        notes: warnings to show.
        used: settings and versions, see :func:`deepemd.apps.photos.predict.settings`.
        limit: largest number of photos with another label that are shown, the most suspicious first.

    Raises:
        InputError: the file cannot be written.
    """
    return write_standalone("Check of labelled photos", _body(classifier, check, notes, used, limit), path)


def _body(
    classifier: PhotoClassifier, check: Check, notes: Sequence[Note], used: Mapping[str, Any], limit: int
) -> Iterator[str]:
    low, high = check.interval
    yield f"<header><h1>{check.accuracy:.1%} of {check.photos:,} photos find their class</h1>"
    guessing = 1 / len(check.classes)
    yield f"<p>95 % interval {low:.1%} to {high:.1%}; guessing would find {guessing:.1%}. {text(CAVEAT)}</p>"
    yield from (warning(note.title, note.lines) for note in notes)
    yield f"<h2>Each class</h2>{_recalls(check)}<h2>Confused classes</h2>{_confusion(check)}</header>"
    suspects = [doubt for doubt in check.doubts if doubt.mislabelled][:limit]
    others = [doubt for doubt in check.doubts if not doubt.mislabelled][: limit - len(suspects)]
    omitted = len(check.doubts) - len(suspects) - len(others)
    yield '<main id="main" tabindex="-1">'
    if not check.doubts:
        yield "<h2>The photos</h2><p>Every photo was given its own label.</p>"
    else:
        yield TOOLS
    drawings = Drawings()
    for title, doubts, first in (
        ("Photos that look mislabelled", suspects, 0),
        ("Other photos that were taken for another class", others, len(suspects)),
    ):
        if doubts:
            yield f"<h2>{title}</h2>"
        for k, doubt in enumerate(track(doubts, "drawing", len(doubts), "photos"), first):
            yield _doubt(classifier, drawings, doubt, k)
    if omitted:
        yield f'<p class="note">{omitted:,} more photos were given another label; the JSON of --out lists all.</p>'
    yield f"</main><footer><h2>How this was made</h2>{small_print(used)}</footer>"


def _doubt(classifier: PhotoClassifier, drawings: Drawings, doubt: Doubt, k: int) -> str:
    found, example = explain_doubt(classifier, doubt)
    rows = [
        (f"{doubt.other}", doubt.probability, f"{doubt.probability:.1%}"),
        (f"{doubt.label} (its folder)", doubt.own, f"{doubt.own:.1%}"),
    ]
    drawn = drawings.figure(found, query=doubt.name, example=example, label=str(doubt.other))
    return article(k, f"{name(doubt.label)}: looks like {name(doubt.other)}", doubt.name, bars(rows), drawn)


def _recalls(check: Check) -> str:
    rows = []
    for k, label in enumerate(check.classes):
        count, right = int(check.confusion[k].sum()), int(check.confusion[k, k])
        recall, interval, bar = "one photo: not tested", "", ""
        if count:
            share = right / count
            recall, interval, bar = f"{share:.0%}", "{:.0%} to {:.0%}".format(*wilson(right, count)), meter(share)
        rows.append(
            f'<tr><th scope="row">{name(label)}</th><td>{count:,}</td><td class="spare">{right:,}</td>'
            f'<td>{recall}</td><td class="range">{interval}</td><td class="wide">{bar}</td></tr>'
        )
    titles = {"class": "", "photos": "", "correct": ' class="spare"', "recall": "", "95 % interval": ' class="range"'}
    head = "".join(f'<th scope="col"{kind}>{title}</th>' for title, kind in titles.items()) + '<td class="wide"></td>'
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _confusion(check: Check) -> str:
    """Return the pairs of classes that are confused most, as a list, and the matrix."""
    off = check.confusion - np.diag(check.confusion.diagonal())  # (M, M)
    if not off.any():
        return '<p class="note">No photo was given the label of another class.</p>'
    pairs = [divmod(int(k), len(off)) for k in np.argsort(-off, axis=None, kind="stable")[:_PAIRS]]
    listed = "".join(
        f"<li>{name(check.classes[i], 60)} was taken for {name(check.classes[j], 60)}: {off[i, j]:,} of "
        f"{check.confusion[i].sum():,} photos</li>"
        for i, j in pairs
        if off[i, j]
    )
    more = int((off > 0).sum()) - len(pairs)
    rest = f'<p class="note">and {more:,} more pairs</p>' if more > 0 else ""
    return f'<ol class="confused">{listed}</ol>{rest}{_matrix(check, off)}'


def _matrix(check: Check, off: NDArray[np.int64]) -> str:
    """Return the confusion matrix of at most _COLUMNS classes, those that are confused most.

    The larger the share of a cell in its row, the stronger its background.
    """
    mistakes = off.sum(0) + off.sum(1)  # (M,)
    shown, rest = list(range(len(off))), ""
    if len(off) > _COLUMNS:
        shown = sorted(k for k in np.argsort(-mistakes, kind="stable")[:_COLUMNS].tolist() if mistakes[k])
        rest = f" The {len(shown)} classes that are confused most are shown; the JSON of --out holds all {len(off):,}."
    head = "".join(f'<th scope="col">{name(check.classes[k], _LETTERS)}</th>' for k in shown)
    rows = []
    for k in shown:
        counts = check.confusion[k].tolist()
        total = max(1, sum(counts))
        cells = "".join(
            f'<td class="{shade(counts[c] / total)}{" own" if k == c else ""}">{counts[c] or "&middot;"}</td>'
            for c in shown
        )
        rows.append(f'<tr><th scope="row">{name(check.classes[k], _LETTERS)}</th>{cells}</tr>')
    return (
        '<p class="note">A row for each class, a column for each label that its photos were given; the diagonal is '
        f'correct.{rest}</p><div class="scroll tall" tabindex="0" role="region" aria-label="Confusion matrix">'
        f'<table class="matrix"><thead><tr><td></td>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )

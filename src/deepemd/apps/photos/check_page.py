"""The page of ``deepemd check --report``: accuracy, confused classes, and photos that look mislabelled."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from deepemd.apps.photos.check import CAVEAT, Check, Doubt, explain_doubt
from deepemd.apps.photos.fitting import Note
from deepemd.apps.photos.predict_page import article, bars, small_print
from deepemd.apps.reports.drawing import Drawings
from deepemd.apps.reports.page import TOOLS, name, text, warning, write_standalone
from deepemd.classifier.classifier import PhotoClassifier
from deepemd.progress import track

__all__ = ["write_check_page"]


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
    matrix = check.matrix
    low, high = matrix.interval
    yield f"<header><h1>{matrix.accuracy:.1%} of {matrix.photos:,} photos find their class</h1>"
    guessing = 1 / len(check.classes)
    yield f"<p>95 % interval {low:.1%} to {high:.1%}; guessing would find {guessing:.1%}. {text(CAVEAT)}</p>"
    yield from (warning(note.title, note.lines) for note in notes)
    yield f"<h2>Each class</h2>{matrix.recalls_html()}<h2>Confused classes</h2>{matrix.html()}</header>"
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

"""The page of ``deepemd check --report``: accuracy, confused classes, and photos that look mislabelled."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from deepemd.apps.photos.check import CAVEAT, Check, Doubt, explain_doubt
from deepemd.apps.photos.fitting import Note
from deepemd.apps.photos.predict_page import article, bars, small_print
from deepemd.apps.reports.drawing import Drawings
from deepemd.apps.reports.page import TOOLS, meter, shade, text, warning, write_standalone
from deepemd.classifier.classifier import PhotoClassifier
from deepemd.evaluation.intervals import wilson

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
    low, high = check.interval
    yield f"<header><h1>{check.accuracy:.1%} of {check.photos:,} photos find their class</h1>"
    guessing = 1 / len(check.classes)
    yield f"<p>95 % interval {low:.1%} to {high:.1%}; guessing would find {guessing:.1%}. {text(CAVEAT)}</p>"
    yield from (warning(note.title, note.lines) for note in notes)
    yield f"<h2>Each class</h2>{_recalls(check)}<h2>Confusion</h2>{_matrix(check)}</header>"
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
        for k, doubt in enumerate(doubts, first):
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
    drawn = drawings.figure(found, query=doubt.name, example=example)
    return article(k, f"{doubt.label}: looks like {doubt.other}", doubt.name, bars(rows), drawn)


def _recalls(check: Check) -> str:
    rows = []
    for k, name in enumerate(check.classes):
        count, right = int(check.confusion[k].sum()), int(check.confusion[k, k])
        recall, interval, bar = "one photo: not tested", "", ""
        if count:
            share = right / count
            recall, interval, bar = f"{share:.0%}", "{:.0%} to {:.0%}".format(*wilson(right, count)), meter(share)
        rows.append(
            f'<tr><th scope="row"><bdi>{text(name)}</bdi></th><td>{count:,}</td><td>{right:,}</td>'
            f'<td>{recall}</td><td>{interval}</td><td class="wide">{bar}</td></tr>'
        )
    head = "".join(
        f'<th scope="col">{name}</th>' for name in ("class", "photos", "correct", "recall", "95 % interval", "")
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _matrix(check: Check) -> str:
    """Return the confusion matrix; the larger the share of a cell in its row, the stronger its background."""
    head = "".join(f'<th scope="col"><bdi>{text(name)}</bdi></th>' for name in check.classes)
    rows = []
    for k, (name, counts) in enumerate(zip(check.classes, check.confusion.tolist(), strict=True)):
        total = max(1, sum(counts))
        cells = "".join(
            f'<td class="{shade(count / total)}{" right" if k == c else ""}">{count if count else "&middot;"}</td>'
            for c, count in enumerate(counts)
        )
        rows.append(f'<tr><th scope="row"><bdi>{text(name)}</bdi></th>{cells}</tr>')
    return (
        '<p class="note">A row for each class, a column for each label that its photos were given; the diagonal is '
        'correct.</p><div class="scroll"><table class="matrix"><thead><tr><td></td>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )

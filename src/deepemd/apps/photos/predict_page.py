"""The page of ``deepemd predict --report``: photos with their labels and the parts that were matched."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from deepemd.apps.photos.fitting import Note
from deepemd.apps.photos.label_next import Advice
from deepemd.apps.photos.summary import Classified, Summary
from deepemd.apps.reports.drawing import Drawings
from deepemd.apps.reports.page import TOOLS, facts, meter, name, text, warning, write_standalone
from deepemd.classifier.classifier import PhotoClassifier
from deepemd.progress import track
from deepemd.threads import single_threads, thread_count

__all__ = ["article", "bars", "small_print", "write_predictions_page"]

_CHUNK = 64  # photos in memory at a time
_CLASSES = 40  # largest number of classes listed with their counts


def write_predictions_page(
    classifier: PhotoClassifier,
    summary: Summary,
    path: Path,
    *,
    notes: Sequence[Note],
    used: Mapping[str, Any],
    top: int = 3,
    label_next: Sequence[Advice] = (),
) -> Path:
    """Write the page: a summary, warnings, and the least certain photos, each with its matched parts.

    Args:
        classifier: the fitted classifier.
        summary: the result.
        path: HTML file to write.
        notes: warnings to show.
        used: settings and versions, see :func:`deepemd.apps.photos.predict.settings`.
        top: number of classes listed for each photo.
        label_next: the photos whose label would teach most.

    Raises:
        InputError: the file cannot be written.
    """
    return write_standalone("Predictions", _body(classifier, summary, notes, used, top, label_next), path)


def _body(
    classifier: PhotoClassifier,
    summary: Summary,
    notes: Sequence[Note],
    used: Mapping[str, Any],
    top: int,
    label_next: Sequence[Advice],
) -> Iterator[str]:
    shown, matrix = summary.to_show, summary.scores.confusion()
    yield f"<header><h1>{summary.photos:,} photos, {len(classifier.classes_):,} classes</h1>"
    few = "All photos are shown"
    if len(shown) < summary.photos:
        few = f"The {len(shown):,} least certain of {summary.photos:,} photos are shown"
    wrong = "those with a wrong label first, then " if matrix is not None else ""
    yield (
        f"<p>{few}, {wrong}the least certain first, each next to the most similar photo of its class. Matched parts "
        "have the same number and colour. The probabilities are fitted to the photos of the classes, which may be few: "
        "check the doubtful photos yourself.</p>"
    )
    yield from (warning(note.title, note.lines) for note in notes)
    if matrix is not None:
        yield f"<h2>Accuracy</h2><p>{text(summary.scores.sentence().capitalize())}</p>{matrix.recalls_html()}"
        yield f"<h2>Confused classes</h2>{matrix.html()}"
    yield f"<h2>Labels</h2>{_counts(summary)}{_advice(label_next)}</header>"
    yield f'<main id="main" tabindex="-1"><h2>The photos</h2>{TOOLS}'
    drawings = Drawings()
    with single_threads(thread_count(torch.device("cpu"))) as run:
        for start in track(range(0, len(shown), _CHUNK), "drawing", len(shown), "photos", each=_CHUNK):
            some = enumerate(shown[start : start + _CHUNK], start)
            yield from run(lambda item: _photo(classifier, drawings, item[1], item[0], top), some)
    yield f"</main><footer><h2>How this was made</h2>{small_print(used)}</footer>"


def _counts(summary: Summary) -> str:
    rows = summary.labels.most_common(_CLASSES)
    more = len(summary.labels) - len(rows)
    listed = bars([(label, count / summary.photos, f"{count:,}") for label, count in rows], alike=True)
    return f'<div class="counts">{listed}</div>' + (f'<p class="note">and {more:,} more classes</p>' if more else "")


def _advice(label_next: Sequence[Advice]) -> str:
    if not label_next:
        return ""
    rows = "".join(
        f"<li><bdi>{text(one.image)}</bdi>: {name(one.label)} {one.probability:.0%}, or {name(one.runner_up)}</li>"
        for one in label_next
    )
    return f"<h2>Photos to label next</h2><p>Their labels would teach most.</p><ol>{rows}</ol>"


def _photo(classifier: PhotoClassifier, drawings: Drawings, found: Classified, k: int, top: int) -> str:
    one, why = found.prediction, found.explain(classifier)
    classes = classifier.classes_.tolist()
    is_other = one.label not in classes  # "unknown" and "unsure" have no photos, the runner-up has
    label = str(one.runner_up if is_other else one.label)
    drawn = drawings.figure(why.match, query=str(found.image), example=why.example, label=label)
    order = (-one.probabilities).argsort(kind="stable")[: max(top, 2)]
    rows = [(str(classes[c]), float(one.probabilities[c]), f"{one.probabilities[c]:.1%}") for c in order]
    tag = "" if one.familiar else '<p class="tag">resembles no class</p>'
    if found.correct is False:
        tag += f'<p class="tag">wrong, its true label: {name(found.true)}</p>'
    elif found.true is not None:
        tag += '<p class="note">correct</p>' if found.correct else f'<p class="note">true label: {name(found.true)}</p>'
    runner_up = f'<p class="note">{"most similar class" if is_other else "runner-up"}: {name(one.runner_up)}</p>'
    if one.labels:
        sets = ", ".join(map(name, one.labels))
        runner_up += f'<p class="note">prediction set ({classifier.coverage:.0%}): {sets}</p>'
    if why.evidence is not None:
        runner_up += '<p class="note">Bright parts of the photo speak for this class.</p>'
    return article(k, name(one.label), str(found.image), f"{tag}{bars(rows)}{runner_up}", drawn)


def article(k: int, title: str, file: str, details: str, drawn: str) -> str:
    """Return the article on photo `k`: its title (HTML), its file name, details (HTML) and its drawing."""
    return (
        f'<article tabindex="0" aria-labelledby="t{k}"><header><h3 class="big" id="t{k}">{title}</h3>'
        f'<p class="name"><bdi>{text(file)}</bdi></p>{details}</header>{drawn}</article>'
    )


def bars(rows: Sequence[tuple[str, float, str]], *, alike: bool = False) -> str:
    """Return names with their shares, as bars and as text; the first has another colour, unless `alike` is set."""
    parts = (
        f"<dt>{name(label)}</dt><dd>{text(words)}</dd>{meter(share, 'second' if k and not alike else 'part')}"
        for k, (label, share, words) in enumerate(rows)
    )
    return f'<dl class="bars">{"".join(parts)}</dl>'


def small_print(used: Mapping[str, Any]) -> str:
    """Return the settings and versions in small print."""
    classes = ", ".join(f"{label} ({count:,})" for label, count in used["classes"].items())
    familiar = used["familiar_from"]
    return facts(
        [
            ("classes (photos)", classes),
            ("backbone", used["model"]["backbone"]["name"]),
            ("regions", ", ".join(f"{key} {value}" for key, value in used["model"]["regions"].items() if value)),
            ("compared by", used["compared_by"]),
            ("temperature", used["temperature"]),
            ("familiar from similarity", "too few photos to say" if familiar is None else f"{familiar:.3f}"),
            ("model, sha256", used["model_sha256"]),
            ("versions", ", ".join(f"{name} {number}" for name, number in used["versions"].items())),
        ]
    )

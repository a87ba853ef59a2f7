"""The page of ``deepemd predict --report``: each photo with its label, and the parts that were matched."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from deepemd.apps.photos.fitting import Note
from deepemd.apps.photos.predict import Found, Predicted
from deepemd.apps.reports.drawing import Drawings
from deepemd.apps.reports.page import TOOLS, facts, meter, text, warning, write_standalone
from deepemd.classifier.classifier import FewShotClassifier
from deepemd.classifier.prediction import Explanation
from deepemd.errors import InputError

__all__ = ["article", "bars", "small_print", "write_predictions_page"]

_CLASSES = 40  # that are listed by their counts


def write_predictions_page(
    classifier: FewShotClassifier,
    done: Predicted,
    path: Path,
    *,
    notes: Sequence[Note],
    used: Mapping[str, Any],
    top: int = 3,
) -> Path:
    """Write the page: a summary, what to look at first, and the least certain photos, each with its matched parts.

    Args:
        classifier: a fitted one.
        done: what was found.
        path: HTML file to write.
        notes: warnings to show.
        used: settings and versions, see :func:`deepemd.apps.photos.predict.settings`.
        top: how many classes are listed for each photo.

    Raises:
        InputError: the file cannot be written.
    """
    return write_standalone("Predictions", _body(classifier, done, notes, used, top), path)


def _body(
    classifier: FewShotClassifier, done: Predicted, notes: Sequence[Note], used: Mapping[str, Any], top: int
) -> Iterator[str]:
    shown = done.unsure
    yield f"<header><h1>{done.photos:,} photos, {len(classifier.classes_):,} classes</h1>"
    few = f"The {len(shown):,} least certain of {done.photos:,} photos are shown" if len(shown) < done.photos else (
        "All photos are shown"
    )  # fmt: skip
    yield (
        f"<p>{few}, the least certain first. Beside each stands the photo of its class that is most like it, with the "
        "parts that were matched: the same number and colour, the same pair. Probabilities are fitted to the photos of "
        "the classes; a few photos say little, so look at the doubtful ones yourself.</p>"
    )
    yield from (warning(note.title, note.lines) for note in notes)
    yield f"<h2>What was found</h2>{_counts(done)}</header>"
    yield f'<main id="main" tabindex="-1"><h2>The photos</h2>{TOOLS}'
    drawings = Drawings()
    for k, found in enumerate(shown):
        yield _photo(classifier, drawings, found, k, top)
    yield f"</main><footer><h2>How this was made</h2>{small_print(used)}</footer>"


def _counts(done: Predicted) -> str:
    rows = done.labels.most_common(_CLASSES)
    more = len(done.labels) - len(rows)
    listed = bars([(label, count / done.photos, f"{count:,}") for label, count in rows], alike=True)
    return f'<div class="counts">{listed}</div>' + (f'<p class="note">and {more:,} more classes</p>' if more else "")


def _photo(classifier: FewShotClassifier, drawings: Drawings, found: Found, k: int, top: int) -> str:
    one = found.prediction
    try:
        explanation = classifier.explain(found.image)
        figure = _figure(explanation, drawings, str(found.image))
    except InputError as error:  # it was there a moment ago
        figure = warning(str(error))
    order = (-one.probabilities).argsort(kind="stable")[: max(top, 2)]
    classes = classifier.classes_.tolist()
    rows = [(str(classes[c]), float(one.probabilities[c]), f"{one.probabilities[c]:.1%}") for c in order]
    tag = "" if one.familiar else '<p class="tag">resembles no class</p>'
    runner = f'<p class="note">runner-up: <bdi>{text(one.runner_up)}</bdi></p>'
    return article(k, str(one.label), str(found.image), f"{tag}{bars(rows)}{runner}", figure)


def _figure(explanation: Explanation, drawings: Drawings, name: str) -> str:
    match = explanation.match
    svg = drawings.draw(match, query=name, example=explanation.example)
    told = f"right: <bdi>{text(explanation.example)}</bdi>; similarity of the two {match.similarity:.2f}"
    return f"<figure>{svg}<figcaption>{told}</figcaption></figure>"


def article(k: int, title: str, name: str, told: str, figure: str) -> str:
    """One photo: what is told of it, and beside that its drawing."""
    return (
        f'<article tabindex="0" aria-labelledby="t{k}"><header><h3 class="big" id="t{k}"><bdi>{text(title)}</bdi></h3>'
        f'<p class="name"><bdi>{text(name)}</bdi></p>{told}</header>{figure}</article>'
    )


def bars(rows: Sequence[tuple[str, float, str]], *, alike: bool = False) -> str:
    """Names with a share as a bar and as words; the first stands out, unless all are alike."""
    parts = (
        f"<dt><bdi>{text(name)}</bdi></dt><dd>{text(told)}</dd>{meter(share, 'second' if k and not alike else 'part')}"
        for k, (name, share, told) in enumerate(rows)
    )
    return f'<dl class="bars">{"".join(parts)}</dl>'


def small_print(used: Mapping[str, Any]) -> str:
    """Settings and versions."""
    classes = ", ".join(f"{name} ({count:,})" for name, count in used["classes"].items())
    familiar = used["familiar_from"]
    return facts(
        [
            ("classes (photos)", classes),
            ("backbone", used["model"]["backbone"]["name"]),
            ("regions", ", ".join(f"{key} {value}" for key, value in used["model"]["regions"].items() if value)),
            ("temperature", used["temperature"]),
            ("familiar from similarity", "too few photos to say" if familiar is None else f"{familiar:.3f}"),
            ("model, sha256", used["model_sha256"]),
            ("versions", ", ".join(f"{name} {number}" for name, number in used["versions"].items())),
        ]
    )

"""The whole method on the built-in letters: pre-training, meta-training, evaluation on new scripts, and a report."""

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from deepemd.apps.reports.curves import learning_curve
from deepemd.apps.reports.drawing import Drawings
from deepemd.apps.reports.page import figure, image, simple_page, write_standalone
from deepemd.apps.reports.tables import TextTable, accuracy_table, signed, write_json
from deepemd.data import Episodes, Store, load
from deepemd.errors import InputError
from deepemd.evaluation.evaluate import Evaluation, evaluate
from deepemd.evaluation.intervals import MeanCI
from deepemd.explain.matches import Match, example_matches
from deepemd.explain.plots import matches_picture
from deepemd.files import contents
from deepemd.model import DeepEMD
from deepemd.results import Output, ResultFiles
from deepemd.training.metatrain import metatrain
from deepemd.training.pretrain import pretrain
from deepemd.training.recipes import GLYPHS_METATRAIN, GLYPHS_PRETRAIN, MetatrainRecipe, PretrainRecipe
from deepemd.versions import versions

__all__ = ["run_demo"]

_LEAD = (
    "A small encoder learned Latin and Cyrillic letters, then learned to compare letters part by part. Here it "
    "recognises Armenian and Georgian letters that it has never seen, from a single example of each of five, set in "
    "other typefaces and surrounded by fragments of other letters.",
    "DeepEMD compares two images by the cheapest way to match their parts; ProtoNet compares their averages. "
    "All methods see the same embeddings and the same episodes, so the differences are paired. Chance is 20 %.",
)


def run_demo(
    out: Path,
    *,
    seed: int = 0,
    n_episodes: int = 1000,
    resume: bool = False,
    pretraining: PretrainRecipe = GLYPHS_PRETRAIN,
    metatraining: MetatrainRecipe = GLYPHS_METATRAIN,
) -> dict[str, Evaluation]:
    """Run the demo and write the report to `out`; return the evaluations of both models.

    Raises:
        InputError: `out` is not empty, and `resume` is not set.
    """
    began = time.perf_counter()
    if out.exists() and not resume and (not out.is_dir() or contents(out)):
        raise InputError(f"{out} is not empty: pass --resume to continue the demo in it, or another --out")
    store = load("glyphs")
    base, val, novel = (store.splits[name] for name in ("base", "val", "novel"))
    first = pretrain(pretraining, base, val, out / "pretrain", seed=seed, resume=resume)
    second = metatrain(metatraining, first.model, base, val, out / "metatrain", seed=seed, resume=resume)
    folders = {"pre-trained": first.model, "meta-trained": second.model}
    episodes = Episodes(n_episodes=n_episodes)
    evaluations = {name: evaluate(DeepEMD.load(folder), novel, episodes) for name, folder in folders.items()}

    tables = [accuracy_table(evaluations, "Letters of scripts never seen: " + _describe(episodes)), claims(evaluations)]
    _print(tables)
    matches = example_matches(DeepEMD.load(second.model), novel, episodes.sampler(novel))
    runs = [("pre-training", out / "pretrain"), ("meta-training", out / "metatrain")]
    files = [out / name for name in ("index.html", "report.json", "matches.png", "learning_curve.png")]
    page, report, picture, curve = files
    with ResultFiles(*(Output("out", file, file.name) for file in files), force=True) as result:
        matches_picture(matches, result.draft(picture))
        learning_curve(runs, result.draft(curve))
        seconds = time.perf_counter() - began
        content = {
            "seed": seed,
            "seconds": seconds,
            "recipes": {"pretrain": asdict(pretraining), "metatrain": asdict(metatraining)},
            "evaluations": {name: evaluation.as_dict() for name, evaluation in evaluations.items()},
        }
        write_json(content, result.draft(report))
        sections = [*(table.html() for table in tables), *_figures(matches, result.draft(curve))]
        notes = _notes(store, evaluations, seed, seconds)
        body = simple_page("deepemd demo", _LEAD, sections, notes)
        write_standalone("deepemd demo", body, result.draft(page))
        result.commit()
    print(f"report: {page} ({seconds:.0f} s in all)")
    return evaluations


def _figures(matches: list[Match], curve: Path) -> Iterator[str]:
    """Yield the pictures of the page: drawings of matches and the learning curves."""
    yield (
        "<h2>Matched parts</h2><p>A query and a support image, of the same class or of another. Matched parts have "
        "the same number and colour, a line is as wide as the share of the mass that it moves, and dark parts weigh "
        "little.</p>"
    )
    drawings = Drawings()
    drawn = (figure(drawings.draw(match, query="query", example="support"), match.title) for match in matches)
    yield f'<div class="pairs">{"".join(drawn)}</div>'
    yield "<h2>Learning curves</h2>"
    caption = "Training loss, and validation accuracy on Greek letters"
    yield figure(image(curve, caption), caption)


def claims(evaluations: dict[str, Evaluation]) -> TextTable:
    """Return the gains by meta-training and by matching, as paired differences with their intervals."""
    before, after = evaluations["pre-trained"], evaluations["meta-trained"]
    final = after.accuracies["DeepEMD"]
    rows: list[tuple[str, MeanCI]] = []
    for label, evaluation in (("pre-trained", before), ("meta-trained", after)):
        best = evaluation.best("ProtoNet")
        rows.append((f"DeepEMD, meta-trained, minus {best}, {label}", MeanCI.of(final - evaluation.accuracies[best])))
    rows.append(("DeepEMD, meta-trained, minus DeepEMD, pre-trained", MeanCI.of(final - before.accuracies["DeepEMD"])))
    text = [[label, signed(figure), _verdict(figure)] for label, figure in rows]
    return TextTable("Differences over the same episodes", ["difference", "percentage points", ""], text)


def _verdict(figure: MeanCI) -> str:
    if abs(figure.mean) <= figure.ci95:
        return "within chance"
    return "better" if figure.mean > 0 else "worse"


def _describe(e: Episodes) -> str:
    return f"{e.n_way}-way {e.n_shot}-shot accuracy in %, {e.n_episodes:,} episodes, 95 % intervals"


def _print(tables: list[TextTable]) -> None:
    from rich.console import Console

    console = Console(soft_wrap=True)  # lines of a log are not wrapped
    for table in tables:
        console.print(table.rich())


def _notes(store: Store, evaluations: dict[str, Evaluation], seed: int, seconds: float) -> list[tuple[str, object]]:
    """Return the small print of the page."""
    novel = store.splits["novel"].fingerprint
    some = next(iter(evaluations.values()))
    return [
        ("images", f"{novel.name}: {novel.classes} letters, {novel.images:,} images, sha256 {novel.sha256}"),
        ("seed", f"{seed}; episodes: {some.episodes.seed}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions().items())),
        ("time", f"{seconds:.0f} s for rendering, training, evaluation and pictures"),
        ("models", "pretrain/best and metatrain/best beside this page; open one with deepemd.DeepEMD.load"),
    ]

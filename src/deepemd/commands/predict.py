"""``deepemd predict``: label photos, given a few examples of each class."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepemd.classifier.adaptation import Adapt
from deepemd.commands.console import console
from deepemd.commands.outputs import Output
from deepemd.commands.photos import (
    as_json,
    at_least_one,
    fail_if_unreadable,
    fit,
    page_in,
    print_files,
    refuse_absent,
)
from deepemd.errors import InputError
from deepemd.model.pretrained import DEFAULT

if TYPE_CHECKING:
    from deepemd.apps.photos.corrections import Corrections
    from deepemd.apps.photos.fitting import Note
    from deepemd.apps.photos.sorting import Sorter
    from deepemd.classifier.classifier import PhotoClassifier
    from deepemd.data.photos import Photos
    from deepemd.data.sources import PhotoSources

__all__ = ["predict"]


def predict(
    *,
    query: list[Path],
    support: Path | None = None,
    model: Path | None = None,
    corrections: Path | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    backbone: str = DEFAULT,
    regions: str | None = None,
    fast: bool = False,
    adapt: Adapt = "auto",
    unknown: float | None = None,
    threshold: float | None = None,
    coverage: float | None = None,
    out: Path = Path(),
    report: Path | None = None,
    save: Path | None = None,
    sort_into: Path | None = None,
    sort_links: bool = False,
    label_next: int | None = None,
    top: int = 3,
    report_limit: int = 200,
    force: bool = False,
    cache: Path | None = None,
) -> None:
    """Label photos, given a few examples of each class: `deepemd predict --support DIR --query DIR --report out`.

    What goes in: --support is a folder with a folder of photos for each class, such as support/daisy/1.jpg; five photos
    of each are a good start. It may also be a zip of such folders, or a CSV file with a column of photos and one of
    labels. --query takes photos, folders, zips and CSV files. --model takes a saved classifier instead of --support,
    and --corrections adds photos whose labels you corrected.

    What comes out: a summary, and two files: predictions.csv (image, label, probability, runner_up, correct_label), and
    predictions.json with all probabilities, the settings and the versions. Files of an earlier run are never replaced
    without --force. In the CSV, a name that a spreadsheet would take for a formula, such as =1+1.jpg, starts with ./
    (a label with '), and characters that cannot be shown are written as their codes; the JSON has the true names. The
    CSV begins with a byte order mark, so that Excel shows all letters.

    If the queries lie in folders named like classes, or in a CSV file with labels, the accuracy is printed too, and the
    confusion matrix is drawn in predictions-confusion.png.

    What to do next: --sort_into copies the photos into folders by label, --label_next lists the photos whose labels
    would teach most, and `deepemd learn` adds labels that you corrected to a saved classifier.

    Photos that cannot be read are listed and left out, and the exit code is then 2. After Ctrl-C, run the same command
    again: finished photos are read from the cache, so it catches up quickly.

    Args:
        query: photos, folders of photos, zips of photos, or CSV files that name photos.
        support: the examples: a folder with a folder of photos for each class, a zip of it, or a CSV file.
        model: folder of a classifier that --save wrote, instead of --support.
        corrections: CSV file with photos and their right labels, to be added to the examples; see `deepemd learn`.
        image_column: column of the CSV files that names the photos; by default image, file, path or the like.
        label_column: column of the CSV files that holds the labels; by default label, class, species or the like.
        backbone: encoder of the photos: efficientnet-lite0, which is installed; the folder of a model;
            or a name on the Hugging Face Hub.
        regions: how a photo becomes parts, such as fcn or grid:3,2; by default the backbone's own.
        fast: read photos at 224 pixels alone instead of 224 and 352: three times as fast, and less good at things that
            are small in the photo.
        adapt: how parts are adapted to the classes: whiten, ridge, none; or auto, which lets the photos decide.
        unknown: share of photos of the known classes that may be labelled "unknown" by mistake, such as 0.05; photos
            that resemble no class then get this label. By default every photo gets a class.
        threshold: probability below which a photo is labelled "unsure", such as 0.8.
        coverage: share of photos whose own class is in their prediction set, such as 0.95; the sets are a column of the
            CSV file, and take 19 photos in classes of two or more for 0.95.
        out: folder for predictions.csv and predictions.json; by default the current folder.
        report: folder for predictions.html, one page that needs no other file: each photo with its label, and the parts
            that were matched with the most similar photo of its class.
        save: folder to save the fitted classifier to, for --model.
        sort_into: folder to copy the photos into, DIR/<label>/; nothing is moved or overwritten.
        sort_links: make links to the photos instead of copies.
        label_next: number of photos to list in label_next.csv, whose labels would teach most.
        top: number of classes that the page lists for each photo.
        report_limit: number of photos on the page, the wrong and the least certain ones; each takes 0.15 MB of memory.
        force: replace the files of an earlier run.
        cache: folder of the cached embeddings; by default $DEEPEMD_CACHE, else ~/.cache/deepemd/embeddings.
    """
    from deepemd.apps.photos.label_next import LabelNext, write_label_next
    from deepemd.apps.photos.predict import predict_photos, settings
    from deepemd.apps.photos.predict_page import write_predictions_page
    from deepemd.apps.photos.predictions import PredictionFiles
    from deepemd.apps.photos.truth import true_labels
    from deepemd.data.sources import Columns, PhotoSources
    from deepemd.device import keep_freed_memory

    _check_options(support, model, [backbone != DEFAULT, regions, fast, adapt != "auto", unknown is not None, save])
    settings_of_classifier: dict[str, Any] = {"backbone": backbone, "regions": regions, "fast": fast, "adapt": adapt}
    settings_of_classifier |= {"unknown": unknown, "threshold": threshold, "coverage": coverage}
    at_least_one(report_limit=report_limit, top=top, label_next=label_next)
    if sort_links and sort_into is None:
        raise InputError("sort_links: says how to sort, and --sort_into is not given: name a folder with --sort_into")
    refuse_absent("query", query, "file or folder")
    refuse_absent("support" if model is None else "model", [model or support], "folder")
    page, columns = page_in(report, "predictions.html"), Columns(image_column, label_column)
    keep_freed_memory()
    matrix = (report or out) / "predictions-confusion.png"
    advice = None if label_next is None else out / "label_next.csv"
    others = [
        Output("report", page, "predictions.html"),
        Output("report", matrix, matrix.name),
        Output("out", advice, "label_next.csv"),
    ]
    with PredictionFiles(out, others, save, force=force) as files, PhotoSources.opened(columns) as sources:
        examples = _Examples.found(sources, support, model, corrections, cache)
        queries = sources.queries(query)
        truth = true_labels(queries.origins, examples.labels)
        sorter = None if sort_into is None else _sorter(sort_into, sort_links, [*query, support], examples.labels)
        chooser = None if label_next is None else LabelNext(label_next)
        classifier, notes, bad = examples.classifier(settings_of_classifier, cache)
        followers = [follower for follower in (chooser, sorter) if follower is not None]
        summary = predict_photos(
            classifier, queries, files, limit=report_limit if page else 0, truth=truth, followers=followers
        )
        was_sorted = sorter.sort() if sorter else ""
        used = {**settings(classifier), "unreadable": [str(error) for error in [*bad, *summary.bad]]}
        shown, chosen = [*notes, *summary.notes], chooser.chosen() if chooser else []
        head = {"notes": as_json(shown), "current_folder": os.getcwd(), **used, **summary.scores.as_dict()}
        write: dict[Path, Callable[[Path], object]] = {}
        if page is not None:
            write[page] = lambda path: write_predictions_page(
                classifier, summary, path, notes=shown, used=used, top=top, label_next=chosen
            )
        found = summary.scores.confusion()
        if found is not None:
            write[matrix] = found.draw
        if advice is not None:
            write[advice] = lambda path: write_label_next(chosen, path)
        files.finish(head, write, lambda folder: classifier.save(folder, force=True))
        if matrix not in write:  # one of an earlier run
            matrix.unlink(missing_ok=True)
    for table in summary.tables():
        console().print(table.rich())
    print("\n".join([*summary.sentences(), *([was_sorted] if was_sorted else [])]))
    print(f"compared by: {classifier.adaptation_}")
    print_files(csv=files.csv, json=files.json, page=page, confusion=matrix if matrix in write else None)
    print_files(label_next=advice, model=save)
    fail_if_unreadable(len(bad) + len(summary.bad))


@dataclass(frozen=True)
class _Examples:
    """Where the classes come from: photos, or a saved classifier; and corrections, which are added to them."""

    photos: "Photos | None"
    saved: "PhotoClassifier | None"
    corrections: "Corrections | None"

    @classmethod
    def found(
        cls,
        sources: "PhotoSources",
        support: Path | None,
        model: Path | None,
        corrections: Path | None,
        cache: Path | None,
    ) -> "_Examples":
        """Find the photos of the classes, or load the classifier; and read the corrections."""
        from deepemd.apps.photos.corrections import read_corrections
        from deepemd.classifier.classifier import PhotoClassifier

        photos = None if support is None else sources.support(support)
        saved = None if model is None else PhotoClassifier.load(model, cache=cache or True)
        classes = saved.classes_.tolist() if saved is not None else photos.classes if photos is not None else []
        return cls(photos, saved, None if corrections is None else read_corrections(corrections, sources, classes))

    @property
    def labels(self) -> list[str]:
        """The labels of all classes."""
        first = self.saved.classes_.tolist() if self.saved is not None else self.photos.classes if self.photos else []
        return sorted({*map(str, first), *(self.corrections.labels if self.corrections else [])})

    def classifier(
        self, settings: Mapping[str, Any], cache: Path | None
    ) -> "tuple[PhotoClassifier, list[Note], list[InputError]]":
        """Return the classifier, fitted or loaded, with notes and the photos that cannot be read."""
        from deepemd.apps.photos.corrections import learn_corrections
        from deepemd.apps.photos.fitting import Note, too_few_photos, unreadable
        from deepemd.classifier.settings import check_settings

        if self.saved is not None:
            classifier, bad = self.saved, list[InputError]()
            for name in ("threshold", "coverage"):
                if settings[name] is not None:
                    setattr(classifier, name, settings[name])
            check_settings(classifier)
            notes = too_few_photos(classifier)
            for note in notes:
                note.print()
        else:
            assert self.photos is not None  # one of the two was given
            fitted = fit(self.photos, cache, settings)
            classifier, notes, bad = fitted.classifier, fitted.notes, fitted.bad
        if self.corrections is not None:
            learned = learn_corrections(classifier, self.corrections)
            more = [*self.corrections.notes, *([unreadable(learned.bad, "of the corrections")] if learned.bad else [])]
            more.append(Note(f"corrections: {learned.sentence(classifier)}"))
            for note in more:
                note.print()
            notes, bad = [*notes, *more], [*bad, *learned.bad]
        return classifier, notes, bad


def _sorter(folder: Path, links: bool, read: list[Path | None], labels: list[str]) -> "Sorter":
    from deepemd.apps.photos.sorting import Sorter

    return Sorter(folder, labels, links, [path for path in read if path is not None and path.is_dir()])


def _check_options(support: Path | None, model: Path | None, of_support: list[object]) -> None:
    if (support is None) == (model is None):
        raise InputError("pass either --support, a folder with a folder of photos for each class, or --model")
    if model is not None and any(of_support):
        raise InputError(
            "--backbone, --regions, --fast, --adapt, --unknown and --save are for a new classifier, and --model names a"
            " finished one: pass --support instead"
        )

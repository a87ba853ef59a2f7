"""``deepemd predict`` and ``deepemd check``: classify and check the user's own photos, in class folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deepemd.commands.console import console
from deepemd.commands.outputs import Output, ResultFiles
from deepemd.errors import InputError, printable
from deepemd.model.pretrained import DEFAULT

if TYPE_CHECKING:
    from deepemd.apps.photos.check import Check
    from deepemd.apps.photos.fitting import FittedPhotos, Note
    from deepemd.classifier.classifier import PhotoClassifier

__all__ = ["check", "predict"]


def predict(
    *,
    query: list[Path],
    support: Path | None = None,
    model: Path | None = None,
    out: Path = Path(),
    report: Path | None = None,
    backbone: str = DEFAULT,
    regions: str | None = None,
    unknown: float | None = None,
    save: Path | None = None,
    top: int = 3,
    report_limit: int = 200,
    force: bool = False,
    cache: Path | None = None,
) -> None:
    """Label photos, given a few examples of each class: `deepemd predict --support DIR --query DIR --report out`.

    The support is a folder with a folder of photos for each class, such as support/daisy/1.jpg; five photos of each are
    a good start. The queries are photos, or folders of photos with any subfolders.

    The command prints a table and writes two files: predictions.csv (image, label, probability, runner_up), and
    predictions.json with all probabilities, the settings and the versions. Files of an earlier run are never replaced
    without --force. In the CSV, a name that a spreadsheet would take for a formula, such as =1+1.jpg, starts with ./
    (a label with '), and characters that cannot be shown are written as their codes; the JSON has the true names. The
    CSV begins with a byte order mark, so that Excel shows all letters.

    Photos that cannot be read are listed and left out, and the exit code is then 2. After Ctrl-C, run the same command
    again: finished photos are read from the cache, so it catches up quickly.

    Args:
        query: photos, or folders of photos.
        support: folder with a folder of photos for each class.
        model: folder of a classifier that --save wrote, instead of --support.
        out: folder for predictions.csv and predictions.json; by default the current folder.
        report: folder for predictions.html, one page that needs no other file: each photo with its label, and the parts
            that were matched with the most similar photo of its class.
        backbone: encoder of the photos: efficientnet-lite0, which is installed; the folder of a model;
            or a name on the Hugging Face Hub.
        regions: how a photo becomes parts, such as fcn or grid:3,2; by default the backbone's own.
        unknown: share of photos of the known classes that may be labelled "unknown" by mistake, such as 0.05; photos
            that resemble no class then get this label. By default every photo gets a class.
        save: folder to save the fitted classifier to, for --model.
        top: number of classes that the page lists for each photo.
        report_limit: number of photos on the page, the least certain ones; each takes 0.15 MB of memory.
        force: replace the files of an earlier run.
        cache: folder of the cached embeddings; by default $DEEPEMD_CACHE, else ~/.cache/deepemd/embeddings.
    """
    from deepemd.apps.photos.predict import predict_photos, settings
    from deepemd.apps.photos.predict_page import write_predictions_page
    from deepemd.apps.photos.predictions import PredictionFiles
    from deepemd.data.photos import query_photos
    from deepemd.device import keep_freed_memory

    _check_options(support, model, [backbone != DEFAULT, regions, unknown is not None, save])
    _at_least_one(report_limit=report_limit, top=top)
    _refuse_absent("query", query, "file or folder")
    _refuse_absent("support" if model is None else "model", [model or support], "folder")
    page = _page(report, "predictions.html")
    queries = query_photos(query)
    keep_freed_memory()
    with PredictionFiles(out, page, save, force=force) as files:
        classifier, notes, bad = _classifier(support, model, backbone, regions, unknown, cache)
        summary = predict_photos(classifier, queries, files, limit=report_limit if page else 0)
        used = {**settings(classifier), "unreadable": [str(error) for error in [*bad, *summary.bad]]}
        shown = [*notes, *summary.notes]

        def write_page(path: Path) -> None:
            write_predictions_page(classifier, summary, path, notes=shown, used=used, top=top)

        head = {"notes": _as_json(shown), **used}
        written = files.finish(head, write_page, lambda folder: classifier.save(folder, force=True))
    console().print(summary.table().rich())
    few = f" (the {report_limit:,} least certain of {summary.photos:,} photos)"
    for kind, path in written.items():
        print(f"{kind}: {printable(path)}{few if kind == 'page' and summary.photos > report_limit else ''}")
    _fail_if_unreadable(len(bad) + len(summary.bad))


def check(
    support: Path,
    out: Path | None = None,
    report: Path | None = None,
    backbone: str = DEFAULT,
    regions: str | None = None,
    report_limit: int = 200,
    force: bool = False,
    cache: Path | None = None,
) -> None:
    """Check how well the classes of your photos can be told apart, before you rely on them: `deepemd check DIR`.

    Each photo is classified by all the others (leave one out). The result is the accuracy with its 95 % interval, the
    recall of each class, the classes that are confused, the photos that look mislabelled, and photos that are in more
    than one class.

    The accuracy is an estimate for new photos of the same kind. It is too high where several photos show one scene or
    come from one series, and it says nothing about new light, places and cameras.

    Args:
        support: folder with a folder of photos for each class; a class with one photo cannot be tested.
        out: JSON file for the report.
        report: folder for check.html, one page that needs no other file, with the photos that were given another label.
        backbone: encoder of the photos: efficientnet-lite0, which is installed; the folder of a model;
            or a name on the Hugging Face Hub.
        regions: how a photo becomes parts, such as fcn or grid:3,2; by default the backbone's own.
        report_limit: number of photos on the page, the most suspicious first.
        force: replace the files of an earlier run.
        cache: folder of the cached embeddings; by default $DEEPEMD_CACHE, else ~/.cache/deepemd/embeddings.
    """
    from deepemd.apps.photos.check import check_classifier
    from deepemd.apps.photos.check_page import write_check_page
    from deepemd.apps.photos.predict import settings
    from deepemd.apps.reports.tables import write_json
    from deepemd.device import keep_freed_memory

    _at_least_one(report_limit=report_limit)
    _refuse_absent("support", [support], "folder")
    page = _page(report, "check.html")
    keep_freed_memory()
    with ResultFiles(Output("out", out, "report.json"), Output("report", page, "check.html"), force=force) as result:
        fitted = _fit(support, backbone, regions, None, cache)
        found, used = check_classifier(fitted.classifier), settings(fitted.classifier)
        notes = [*fitted.notes, *found.notes]
        if out is not None:
            content = {
                "support": str(support),
                **found.as_dict(),
                "notes": _as_json(notes),
                "unreadable": [str(error) for error in fitted.bad],
                **{"photos_of_classes" if key == "classes" else key: value for key, value in used.items()},
            }
            write_json(content, result.draft(out))
        if page is not None:
            draft = result.draft(page)
            write_check_page(fitted.classifier, found, draft, notes=notes, used=used, limit=report_limit)
        result.commit()
    _print_check(found, {"report": out, "page": page})
    _fail_if_unreadable(len(fitted.bad))


def _print_check(found: "Check", written: dict[str, Path | None]) -> None:
    """Print the result of a check, and the names of the files."""
    from deepemd.apps.photos.check import CAVEAT

    for note in found.notes:
        note.print()
    for table in found.tables():
        console().print(table.rich())
    print(f"{found.sentence()}\n{CAVEAT}")
    for what, path in written.items():
        if path is not None:
            print(f"{what}: {printable(path)}")


def _classifier(
    support: Path | None,
    model: Path | None,
    backbone: str,
    regions: str | None,
    unknown: float | None,
    cache: Path | None,
) -> "tuple[PhotoClassifier, list[Note], list[InputError]]":
    """Return a classifier that is fitted to photos or loaded, with notes and the photos that cannot be read."""
    from deepemd.apps.photos.fitting import too_few_for_unknown
    from deepemd.classifier.classifier import PhotoClassifier

    if model is not None:
        classifier = PhotoClassifier.load(model, cache=cache or True)
        notes = too_few_for_unknown(classifier)
        for note in notes:
            note.print()
        return classifier, notes, []
    assert support is not None  # one of the two was given
    fitted = _fit(support, backbone, regions, unknown, cache)
    return fitted.classifier, fitted.notes, fitted.bad


def _fit(
    support: Path, backbone: str, regions: str | None, unknown: float | None, cache: Path | None
) -> "FittedPhotos":
    """Fit a classifier to class folders, and print what the user should know."""
    from deepemd.apps.photos.fitting import fit_photos

    fitted = fit_photos(support, backbone=backbone, regions=regions, unknown=unknown, cache=cache)
    for note in fitted.notes:
        note.print()
    return fitted


def _check_options(support: Path | None, model: Path | None, of_support: list[object]) -> None:
    if (support is None) == (model is None):
        raise InputError("pass either --support, a folder with a folder of photos for each class, or --model")
    if model is not None and any(of_support):
        raise InputError(
            "--backbone, --regions, --unknown and --save are for a new classifier, and --model names a finished one: "
            "pass --support instead"
        )


def _as_json(notes: "Sequence[Note]") -> list[dict[str, str | list[str]]]:
    return [{"note": note.title, "about": list(note.lines)} for note in notes]


def _at_least_one(**options: int) -> None:
    for name, value in options.items():
        if value < 1:
            raise InputError(f"{name} is {value}: it must be at least 1")


def _refuse_absent(option: str, paths: Sequence[Path | None], kind: str) -> None:
    """Refuse input that does not exist, before anything else is done; if a part of it exists, that is classified."""
    try:
        if any(path is None or path.exists() or path.is_symlink() for path in paths):
            return
    except OSError as error:  # a name that is too long, or no access
        raise InputError(
            f"{option}: {error.filename}: cannot be looked up ({error.strerror}): check the path"
        ) from error
    raise InputError(f"{option}: {', '.join(map(str, paths))}: there is no such {kind}: check the path")


def _page(report: Path | None, name: str) -> Path | None:
    """Return the page to write into a folder."""
    if report is None:
        return None
    if report.exists() and not report.is_dir():
        raise InputError(f"report: {report} is a file: name a folder, for {name} in it")
    return report / name


def _fail_if_unreadable(bad: int) -> None:
    """Raise an error for photos that were left out, now that everything else is written."""
    if bad:
        raise InputError(
            f"{bad:,} photo{'s' if bad > 1 else ''} could not be read, as listed above; everything else is done"
        )

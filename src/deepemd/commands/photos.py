"""``deepemd predict`` and ``deepemd check``: the user's own photos, by class folders."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from deepemd.commands.console import console
from deepemd.errors import InputError, printable
from deepemd.files import explain_disk_errors
from deepemd.model.pretrained import DEFAULT

if TYPE_CHECKING:
    from deepemd.apps.photos.fitting import Fitted, Note
    from deepemd.classifier.classifier import FewShotClassifier

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
    """Label photos by a few examples of each class: `deepemd predict --support DIR --query DIR --report out`.

    The support is a folder that holds a folder of photos for each class, such as support/daisy/1.jpg; five photos of
    each are a good start. The queries are photos, or folders of them, however deep they lie.

    It prints a table and writes two files: predictions.csv (image, label, probability, runner_up), and
    predictions.json with all probabilities, the settings and the versions. Files of an earlier run are never replaced
    without --force. In the CSV, a name that a spreadsheet would take for a formula, such as =1+1.jpg, gets ./ before
    it (a label gets '), and characters that cannot be shown are written as their codes; the JSON has the true names.

    Photos that cannot be read are listed and left out; the rest goes on, and the exit code is 2. After Ctrl-C, run the
    same command again: what was computed is kept, so it soon is where it was.

    Args:
        query: photos, or folders of photos.
        support: folder with a folder of photos for each class.
        model: a classifier that --save wrote, instead of --support.
        out: folder for predictions.csv and predictions.json; the current folder unless given.
        report: folder for predictions.html, one page that needs nothing else: each photo with its label, and the parts
            that were matched with the most similar photo of its class.
        backbone: what encodes photos: efficientnet-lite0, which is installed; the folder of a model;
            or a name on the Hugging Face Hub.
        regions: how a photo becomes parts, such as fcn or grid:3,2; as the backbone says unless given.
        unknown: label photos that resemble no class "unknown": the share of photos of the known classes that may be
            called so by mistake, such as 0.05. Every photo gets a class unless given.
        save: folder to keep the fitted classifier in, for --model.
        top: classes that the page lists for each photo.
        report_limit: photos on the page, the least certain ones.
        force: replace the files of an earlier run.
        cache: folder where what was computed of each photo is kept; $DEEPEMD_CACHE or ~/.cache/deepemd/embeddings
            unless given.
    """
    from deepemd.apps.photos.fitting import not_photos, unreadable
    from deepemd.apps.photos.predict import predict_photos, settings
    from deepemd.apps.photos.predict_page import write_predictions_page
    from deepemd.apps.photos.predictions import PredictionFiles
    from deepemd.data.photos import query_photos

    _check_options(support, model, [backbone != DEFAULT, regions, unknown is not None, save])
    _at_least_one(report_limit=report_limit, top=top)
    page = _page(report, "predictions.html", force)
    queries = query_photos(query)
    with PredictionFiles(out, force=force) as files:
        classifier, notes, bad = _classifier(support, model, backbone, regions, unknown, cache)
        if save is not None:
            print(f"model: {printable(classifier.save(save))}")
        if queries.others:
            notes.append(not_photos(queries.others))
            notes[-1].tell()
        try:
            done = predict_photos(classifier, queries.files, files, keep=report_limit if page else 1)
        except KeyboardInterrupt:
            print(
                f"\ndeepemd: {files.kept():,} of {len(queries.files):,} photos are in {printable(files.partial)}; run "
                "the same command again to go on: what was computed is kept",
                file=sys.stderr,
            )
            raise
        if done.bad:
            notes.append(unreadable(done.bad, "to classify"))
            notes[-1].tell()
        if done.strange:
            notes.append(_strange(done.strange, classifier.unknown))
            notes[-1].tell()
        used = {**settings(classifier), "unreadable": [str(error) for error in [*bad, *done.bad]]}
        written = files.finish(used)
    console().print(done.table().rich())
    for path in written:
        print(f"{path.suffix[1:]}: {printable(path)}")
    if page is not None:
        told = write_predictions_page(classifier, done, page, notes=notes, used=used, top=top)
        few = f" (the {report_limit:,} least certain of {done.photos:,} photos)" if done.photos > report_limit else ""
        print(f"page: {printable(told)}{few}")
    _end(len(bad) + len(done.bad))


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
    """Find out how far your labelled photos can be trusted, before you rely on them: `deepemd check DIR`.

    Each photo is classified by all the others (leave one out). It prints the accuracy with its 95 % interval, the
    recall of each class, which class is taken for which, the photos that look mislabelled and what they look like, and
    photos that lie in more than one class.

    The accuracy is an estimate for new photos of the same kind. Photos of one series or of one scene help each other,
    which makes it too high; new light, places and cameras are not in it.

    Args:
        support: folder with a folder of photos for each class; two photos of a class at least.
        out: JSON file to write all of it to.
        report: folder for check.html, one page that needs nothing else, with the photos that were given another label.
        backbone: what encodes photos: efficientnet-lite0, which is installed; the folder of a model;
            or a name on the Hugging Face Hub.
        regions: how a photo becomes parts, such as fcn or grid:3,2; as the backbone says unless given.
        report_limit: photos on the page, the most striking first.
        force: replace the files of an earlier run.
        cache: folder where what was computed of each photo is kept; $DEEPEMD_CACHE or ~/.cache/deepemd/embeddings
            unless given.
    """
    from deepemd.apps.photos.check import SAYS, check_classifier
    from deepemd.apps.photos.check_page import write_check_page
    from deepemd.apps.photos.fitting import Note
    from deepemd.apps.photos.predict import settings
    from deepemd.apps.reports.tables import TextTable, write_json

    _at_least_one(report_limit=report_limit)
    page = _page(report, "check.html", force)
    if out is not None:
        _free("out", out, force)
    fitted = _fit(support, backbone, regions, None, cache)
    classifier, found, terminal = fitted.classifier, check_classifier(fitted.classifier), console()
    if found.capped:
        fitted.notes.append(Note("of classes with many photos, the first 100 of each were tested:", found.capped))
        fitted.notes[-1].tell()
    terminal.print(found.recalls().rich())
    if found.doubts:
        terminal.print(found.matrix().rich())
    suspects = [
        [one.name, one.label, f"{one.own:.2f}", str(one.other), f"{one.probability:.2f}"]
        for one in found.doubts
        if one.mislabelled
    ]
    if suspects:
        heads = ["image", "its folder", "probability", "looks like", "probability"]
        more = f" ({len(suspects)}, the first 20)" if len(suspects) > 20 else ""
        terminal.print(TextTable(f"Photos that look mislabelled{more}", heads, suspects[:20]).rich())
    print(f"{found.sentence()}\n{SAYS}")
    used = settings(classifier)
    if out is not None:
        unread = [str(error) for error in fitted.bad]
        notes = [{"note": note.title, "about": list(note.lines)} for note in fitted.notes]
        content = {"support": str(support), **found.as_dict(), "notes": notes, "unreadable": unread, **_plain(used)}
        print(f"report: {printable(write_json(content, out))}")
    if page is not None:
        told = write_check_page(classifier, found, page, notes=fitted.notes, used=used, limit=report_limit)
        print(f"page: {printable(told)}")
    _end(len(fitted.bad))


def _plain(used: dict[str, object]) -> dict[str, object]:
    """Settings under names that the result does not use."""
    return {"photos_of_classes" if key == "classes" else key: value for key, value in used.items()}


def _classifier(
    support: Path | None,
    model: Path | None,
    backbone: str,
    regions: str | None,
    unknown: float | None,
    cache: Path | None,
) -> "tuple[FewShotClassifier, list[Note], list[InputError]]":
    """Fitted to photos, or as it was saved."""
    from deepemd.classifier.classifier import FewShotClassifier

    if model is not None:
        return FewShotClassifier.load(model, cache=cache or True), [], []
    assert support is not None  # one of the two was given
    fitted = _fit(support, backbone, regions, unknown, cache)
    return fitted.classifier, fitted.notes, fitted.bad


def _fit(support: Path, backbone: str, regions: str | None, unknown: float | None, cache: Path | None) -> "Fitted":
    from deepemd.apps.photos.fitting import fit_photos

    fitted = fit_photos(support, backbone=backbone, regions=regions, unknown=unknown, cache=cache)
    for note in fitted.notes:
        note.tell()
    return fitted


def _strange(images: list[Path], unknown: float | None) -> "Note":
    from deepemd.apps.photos.fitting import Note

    told = "labelled so" if unknown is not None else "labelled with the most similar one all the same"
    count = "1 photo resembles" if len(images) == 1 else f"{len(images):,} photos resemble"
    return Note(f"{count} no class as much as its own photos resemble each other, {told}:", list(map(str, images)))


def _check_options(support: Path | None, model: Path | None, of_support: list[object]) -> None:
    if (support is None) == (model is None):
        raise InputError("pass either --support, a folder with a folder of photos for each class, or --model")
    if model is not None and any(of_support):
        raise InputError(
            "--backbone, --regions, --unknown and --save are settings of a new classifier, and --model is a finished "
            "one: pass --support instead"
        )


def _at_least_one(**options: int) -> None:
    for name, value in options.items():
        if value < 1:
            raise InputError(f"{name} is {value}: at least 1")


def _page(report: Path | None, name: str, force: bool) -> Path | None:
    """The page to write; what cannot be written is found out before the work."""
    if report is None:
        return None
    if report.exists() and not report.is_dir():
        raise InputError(f"report: {report} is a file: name a folder, for {name} in it")
    _free("report", report / name, force)
    return report / name


def _free(option: str, file: Path, force: bool) -> None:
    if file.is_dir():
        raise InputError(f"{option}: {file} is a folder; name a file in it, such as {file / 'report.json'}")
    if file.exists() and not force:
        raise InputError(f"{option}: {file} is there already: choose another place, or pass --force to replace it")
    with explain_disk_errors(file.parent, needed=0, remedy=f"choose another place for --{option}"):
        file.parent.mkdir(parents=True, exist_ok=True)


def _end(bad: int) -> None:
    """All is written; photos that were left out are an error all the same."""
    if bad:
        raise InputError(
            f"{bad:,} photo{'s' if bad > 1 else ''} could not be read, as listed above; everything else is done"
        )

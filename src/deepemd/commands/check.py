"""``deepemd check``: check the user's own labelled photos."""

from pathlib import Path
from typing import TYPE_CHECKING

from deepemd.classifier.adaptation import Adapt
from deepemd.commands.console import console
from deepemd.commands.outputs import Output, ResultFiles
from deepemd.commands.photos import (
    as_json,
    at_least_one,
    fail_if_unreadable,
    fit,
    page_in,
    print_files,
    refuse_absent,
)
from deepemd.model.pretrained import DEFAULT

if TYPE_CHECKING:
    from deepemd.apps.photos.check import Check

__all__ = ["check"]


def check(
    support: Path,
    out: Path | None = None,
    report: Path | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    backbone: str = DEFAULT,
    regions: str | None = None,
    fast: bool = False,
    adapt: Adapt = "auto",
    report_limit: int = 200,
    force: bool = False,
    cache: Path | None = None,
) -> None:
    """Check how well the classes of your photos can be told apart, before you rely on them: `deepemd check DIR`.

    Each photo is classified by the others: photos are left out in turn, those of one series together. The result is the
    accuracy with its 95 % interval, the recall of each class, the classes that are confused, the photos that look
    mislabelled, and photos that are in more than one class.

    The accuracy is an estimate for new photos of the same kind. It is too high where several photos show one scene or
    come from one series, and it says nothing about new light, places and cameras.

    Args:
        support: folder with a folder of photos for each class, a zip of such a folder, or a CSV file with a column of
            photos and one of labels; a class with one photo cannot be tested.
        out: JSON file for the report.
        report: folder for check.html, one page that needs no other file, with the photos that were given another label,
            and for check-confusion.png, the confusion matrix.
        image_column: column of the CSV file that names the photos; by default image, file, path or the like.
        label_column: column of the CSV file that holds the labels; by default label, class, species or the like.
        backbone: encoder of the photos: efficientnet-lite0, which is installed; the folder of a model;
            or a name on the Hugging Face Hub.
        regions: how a photo becomes parts, such as fcn or grid:3,2; by default the backbone's own.
        fast: read photos at 224 pixels alone instead of 224 and 352: three times as fast, and less good at things that
            are small in the photo.
        adapt: how parts are adapted to the classes: whiten, ridge, none; or auto, which lets the photos decide.
        report_limit: number of photos on the page, the most suspicious first.
        force: replace the files of an earlier run.
        cache: folder of the cached embeddings; by default $DEEPEMD_CACHE, else ~/.cache/deepemd/embeddings.
    """
    from deepemd.apps.photos.check import check_classifier
    from deepemd.apps.photos.check_page import write_check_page
    from deepemd.apps.photos.predict import settings
    from deepemd.apps.reports.tables import write_json
    from deepemd.data.sources import Columns, PhotoSources
    from deepemd.device import keep_freed_memory

    at_least_one(report_limit=report_limit)
    refuse_absent("support", [support], "folder, zip or CSV file")
    page, picture = page_in(report, "check.html"), page_in(report, "check-confusion.png")
    keep_freed_memory()
    outputs = [Output("out", out, "report.json"), *(Output("report", path, "check.html") for path in (page, picture))]
    with (
        PhotoSources.opened(Columns(image_column, label_column)) as sources,
        ResultFiles(*outputs, force=force) as result,
    ):
        chosen = {"backbone": backbone, "regions": regions, "fast": fast, "adapt": adapt}
        fitted = fit(sources.support(support), cache, chosen)
        found, used = check_classifier(fitted.classifier), settings(fitted.classifier)
        notes = [*fitted.notes, *found.notes]
        if out is not None:
            content = {
                "support": str(support),
                **found.as_dict(),
                "notes": as_json(notes),
                "unreadable": [str(error) for error in fitted.bad],
                **{"photos_of_classes" if key == "classes" else key: value for key, value in used.items()},
            }
            write_json(content, result.draft(out))
        if page is not None and picture is not None:
            draft = result.draft(page)
            write_check_page(fitted.classifier, found, draft, notes=notes, used=used, limit=report_limit)
            found.matrix.draw(result.draft(picture))
        result.commit()
    _print_check(found)
    print(f"Compared by: {fitted.classifier.adaptation_}")
    print_files(report=out, page=page, picture=picture)
    fail_if_unreadable(len(fitted.bad))


def _print_check(found: "Check") -> None:
    """Print the result of a check."""
    from deepemd.apps.photos.check import CAVEAT

    for note in found.notes:
        note.print()
    for table in found.tables():
        console().print(table.rich())
    print(f"{found.sentence()}\n{CAVEAT}")

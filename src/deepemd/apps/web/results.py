"""The answers of a visitor as files: the table and the page that ``deepemd predict`` writes."""

from pathlib import Path

from deepemd.apps.photos.predict import settings
from deepemd.apps.photos.predict_page import write_predictions_page
from deepemd.apps.photos.predictions import PredictionFiles
from deepemd.apps.photos.summary import Summary
from deepemd.apps.photos.truth import Scores
from deepemd.apps.web.folder import scratch_folder
from deepemd.apps.web.models import MODEL, model_zip
from deepemd.apps.web.session import MAX_ASKED, Visitor
from deepemd.errors import InputError
from deepemd.results import Output

__all__ = ["DOWNLOADS", "download"]

DOWNLOADS = {
    f"{MODEL}.zip": "application/zip",
    "predictions.csv": "text/csv; charset=utf-8",
    "predictions.html": "text/html; charset=utf-8",
}
"""The files that a visitor can download, and their types."""


def download(name: str, visitor: Visitor, uploads: Path) -> bytes:
    """Return the content of a file for a visitor.

    Args:
        name: one of :data:`DOWNLOADS`.
        visitor: the visitor.
        uploads: the folder for files of the moment.

    Raises:
        InputError: there is nothing to write, or the disk is full.
    """
    if name == f"{MODEL}.zip":
        return model_zip(visitor, uploads)
    classified = [one for one in visitor.asked if one.prediction is not None]
    reader = visitor.reader
    if reader is None or not classified:
        raise InputError("There are no answers to download")
    with scratch_folder(uploads) as folder:
        page = folder / "predictions.html" if name.endswith(".html") else None
        summary = Summary(Scores([str(label) for label in reader.classes_.tolist()], None))
        with PredictionFiles(folder, [Output("report", page, "predictions.html")]) as files:
            files.with_sets = reader.coverage is not None
            for one in classified:
                assert one.prediction is not None
                files.add(Path(one.name), one.prediction, reader)
                summary.add(Path(one.name), one.whole, one.prediction, limit=MAX_ASKED if page else 0)
            used = settings(reader)
            write = (
                {page: lambda path: write_predictions_page(reader, summary, path, notes=[], used=used)} if page else {}
            )
            files.finish(used, write)
        return (folder / name).read_bytes()

"""Predictions as files: predictions.csv for people and spreadsheets, predictions.json for programs.

Each row is immediately written to predictions.partial.csv, so that nothing is lost if the work is stopped. The files
appear at the end together, complete. The CSV begins with a byte order mark, by which Excel knows that it is UTF-8.
"""

import csv
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self, TextIO

from deepemd.classifier.classifier import PhotoClassifier
from deepemd.classifier.prediction import Prediction
from deepemd.data.photos import PhotoFile
from deepemd.data.tables import FORMULA, read_table
from deepemd.errors import InputError, printable
from deepemd.files import atomic_file, explain_disk_errors
from deepemd.json_files import json_text
from deepemd.model.folder import CONFIG_FILE, WEIGHTS_FILE, refuse_other_settings
from deepemd.results import Output, ResultFiles

__all__ = ["COLUMNS", "PredictionFiles", "sheet_label", "sheet_path"]

COLUMNS = ("image", "label", "probability", "runner_up")
"""The columns of predictions.csv; prediction_set and true_label follow where there are any, and correct_label."""
_REMEDY = "free some space or choose another folder with --out"


def sheet_path(path: object) -> str:
    """Return a path that no spreadsheet takes for a formula: put ./ before it if it would.

    >>> sheet_path(Path("=cmd|'x'!A1.jpg")), sheet_path(Path("photos/1.jpg"))
    ("./=cmd|'x'!A1.jpg", 'photos/1.jpg')
    """
    text = str(path)
    return printable(f"./{text}" if text.startswith(FORMULA) else text)


def sheet_label(label: object) -> str:
    """Return a label that no spreadsheet takes for a formula: put ' before it if it would; numbers stay as they are.

    >>> sheet_label("=1+1"), sheet_label("-1"), sheet_label("daisy")
    ("'=1+1", '-1', 'daisy')
    """
    text = str(label)
    return printable(f"'{text}" if text.startswith(FORMULA) and not _number(text) else text)


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class PredictionFiles:
    """Writes predictions.csv and predictions.json into a folder, row by row, in bounded memory.

    Args:
        folder: folder of the files; it is made if it does not exist.
        others: files that appear together with the two, such as the page; those without a path are left out.
        save: folder of the classifier, which appears together with them; None if it is not saved.
        force: replace files of an earlier run.

    Raises:
        InputError: the folder holds files of an earlier run, another run is writing them, it cannot be written, or
            `save` holds a config.json that is not of a model.
    """

    def __init__(
        self, folder: Path, others: Sequence[Output] = (), save: Path | None = None, *, force: bool = False
    ) -> None:
        self.csv, self.json = folder / "predictions.csv", folder / "predictions.json"
        self.labelled = False  # whether true labels are known; set it before the first row
        self.with_sets = False  # whether there are prediction sets; set it before the first row
        self.partial = folder / "predictions.partial.csv"
        self._model = [] if save is None else [save / name for name in (CONFIG_FILE, WEIGHTS_FILE)]
        if save is not None and force:
            refuse_other_settings(save)
        self._result = ResultFiles(
            Output("out", self.csv, self.csv.name),
            Output("out", self.json, self.json.name),
            *others,
            *(Output("save", path, path.name) for path in self._model),
            force=force,
        )
        self.rows = 0
        self._corrected = _corrections(self.csv)
        try:
            with explain_disk_errors(folder, 0, _REMEDY):
                self._sheet = self._open_partial()
                self._details = tempfile.TemporaryFile("w+b", dir=folder)  # noqa: SIM115  (closed in __exit__)
        except BaseException:
            self._result.__exit__(None, None, None)
            raise
        self._writer = csv.writer(
            self._sheet, quoting=csv.QUOTE_NONNUMERIC
        )  # quoted, so that a ; in a name splits no cell
        self._begun = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._result, explain_disk_errors(self.csv.parent, 0, _REMEDY):
            self._details.close()
            try:
                self._sheet.close()
            finally:
                if self.partial.exists() and not self.rows and (self._begun or not self.partial.stat().st_size):
                    self.partial.unlink(missing_ok=True)

    def _open_partial(self) -> TextIO:
        """Open the partial file, whose rows of an earlier run stay until the first row is known.

        Raises:
            InputError: its place is taken by a link, a folder or a device.
        """
        if self.partial.is_symlink() or (self.partial.exists() and not self.partial.is_file()):
            raise InputError(f"{self.partial}: not a regular file: move it away, or choose another folder with --out")
        return self.partial.open("a", newline="", encoding="utf-8")

    def _begin(self) -> None:
        """Replace the rows of an earlier run by the head of the table."""
        if not self._begun:
            self._begun = True
            self._sheet.truncate(0)
            self._sheet.write("\ufeff")
            sets = ["prediction_set"] if self.with_sets else []
            self._writer.writerow((*COLUMNS, *sets, *(["true_label"] if self.labelled else []), "correct_label"))

    def add(
        self,
        image: PhotoFile,
        found: Prediction,
        classifier: PhotoClassifier,
        *,
        true: str | None = None,
        correct: bool | None = None,
    ) -> None:
        """Write one row, with the true label and whether the label is correct, where that is known."""
        cells = [sheet_path(image), sheet_label(found.label), _rounded(found.probability), sheet_label(found.runner_up)]
        if self.with_sets:
            cells.append(" | ".join(map(sheet_label, found.labels)))
        cells += [sheet_label(true or "")] if self.labelled else []
        cells.append(self._corrected.get(sheet_path(image), ""))  # correct_label, for the user to fill in
        classes = classifier.classes_.tolist()
        detail = {
            "image": str(image),
            "label": found.label,
            "probability": _rounded(found.probability),
            "runner_up": found.runner_up,
            "resembles_a_class": bool(found.familiar),
            "similarity": _rounded(found.similarity),
            "probabilities": dict(zip(map(str, classes), map(_rounded, found.probabilities.tolist()), strict=True)),
        }
        if self.with_sets:
            detail["prediction_set"] = list(found.labels)
        if self.labelled:
            detail |= {"true_label": true, "correct": correct}
        with explain_disk_errors(self.csv.parent, 0, _REMEDY):
            self._begin()
            self._writer.writerow(cells)
            self._sheet.flush()
            text = json_text(detail, self.json, indent=None)
            self._details.write((b",\n    " if self.rows else b"\n    ") + text.encode())
        self.rows += 1

    def count(self) -> int:
        """Return the number of rows in the partial file; a row is one line, as names have no line breaks."""
        if not self._begun:
            return 0
        self._sheet.flush()
        return self.partial.read_bytes().count(b"\n") - 1

    def finish(
        self,
        head: Mapping[str, Any],
        write: Mapping[Path, Callable[[Path], object]] = MappingProxyType({}),
        write_model: Callable[[Path], object] | None = None,
    ) -> None:
        """Write all files under their final names.

        Args:
            head: the first entries of predictions.json: settings, versions, photos that could not be read.
            write: for each of the other files, the function that writes it to a path.
            write_model: function that writes the classifier into a folder.

        Raises:
            InputError: the disk is full; the finished rows stay in the partial file.
        """
        text = json_text(dict(head), self.json)
        with atomic_file(self._result.draft(self.json), self._details.tell() + len(text), _REMEDY) as file:
            file.write(text.removesuffix("\n}").encode() + b',\n  "predictions": [')
            self._details.seek(0)
            shutil.copyfileobj(self._details, file)
            file.write(b"\n  ]\n}\n")
        for path, function in write.items():
            function(self._result.draft(path))
        if self._model and write_model is not None:
            made = self._result.draft(self._model[0]).parent
            write_model(made)
            for path in self._model:
                self._result.adopt(path, made / path.name)
        with explain_disk_errors(self.csv.parent, 0, _REMEDY):
            self._begin()
            self._sheet.flush()
        self._result.adopt(self.csv, self.partial)
        self._result.commit()


def _corrections(path: Path) -> dict[str, str]:
    """Return the column correct_label of an earlier predictions.csv, by image, so that what users wrote there stays."""
    try:
        table = read_table(path)
    except InputError:  # there is none, or it is no table
        return {}
    if not {"image", "correct_label"} <= set(table.heads):
        return {}
    image, label = table.heads.index("image"), table.heads.index("correct_label")
    return {row.cells[image]: row.cells[label] for row in table.rows if row.cells[label]}


def _rounded(value: float) -> float:
    """Round to six significant digits, so that small probabilities differ."""
    return float(f"{value:.6g}")

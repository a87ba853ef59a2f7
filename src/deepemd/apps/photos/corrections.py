"""Corrected labels: read them from a table, and teach them to a classifier.

Nothing is added by accident. A row counts if its ``correct_label`` is filled in. A ``label`` that was edited counts if
predictions.json, which lies beside the table, shows what it was before, and if it is the name of a class now: a
spreadsheet may change names by itself, such as MAR1 to a date. Other tables count only by a column that the user names.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepemd.apps.photos.fitting import Note
from deepemd.apps.photos.predictions import sheet_label, sheet_path
from deepemd.classifier.classifier import PhotoClassifier
from deepemd.classifier.removal import remove_photos
from deepemd.data.class_names import look_alike
from deepemd.data.sources import LabelledRow, PhotoSources, is_predictions, once
from deepemd.data.tables import IMAGE_COLUMNS, LABEL_COLUMNS, Row, Table, read_table
from deepemd.data.unpacking import SEPARATOR
from deepemd.errors import InputError
from deepemd.json_files import read_json

__all__ = ["Corrections", "Learned", "learn_corrections", "read_corrections"]

_CORRECTED = ("correct_label", "corrected_label")
_SUGGESTED = "suggested_label"


@dataclass(frozen=True)
class Corrections:
    """The rows of a table that correct or confirm a label.

    Attributes:
        path: the table.
        rows: the rows whose photos are there.
        missing: an error for each other row.
        notes: what the user should know.
    """

    path: Path
    rows: list[LabelledRow]
    missing: list[InputError] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    @property
    def labels(self) -> list[str]:
        """The sorted labels."""
        return sorted({row.label for row in self.rows})


@dataclass
class Learned:
    """What became of corrections.

    Attributes:
        added, moved, known: numbers of photos that were added, that were moved from another class, and that were in
            their class already.
        new, gone: classes that were added, and those without a photo left.
        bad: the errors of the photos that cannot be read.
    """

    added: int = 0
    moved: int = 0
    known: int = 0
    new: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    bad: list[InputError] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """Whether the classifier differs from what it was."""
        return bool(self.added or self.moved)

    def sentence(self, classifier: PhotoClassifier) -> str:
        """Return the result in one line."""
        parts = [
            f"{self.added:,} photo{'' if self.added == 1 else 's'} added",
            *([f"{self.moved:,} moved to another class"] if self.moved else []),
            *([f"{self.known:,} there already"] if self.known else []),
            *([f"new: {', '.join(self.new)}"] if self.new else []),
            *([f"without a photo left, removed: {', '.join(self.gone)}"] if self.gone else []),
        ]
        classes, photos = len(classifier.classes_), int(classifier.support_.count.sum())
        return f"{'; '.join(parts)}. The classifier has {classes:,} classes and {photos:,} photos"


def read_corrections(path: Path, sources: PhotoSources, classes: Sequence[Any]) -> Corrections:
    """Read the corrected labels of a table.

    Args:
        path: a predictions.csv that was edited, a label_next.csv that was filled in, or another table.
        sources: finds the photos, and holds the names of the columns that the user gave.
        classes: the labels of the classifier.

    Raises:
        InputError: the table cannot be read, has no column of corrections, corrects nothing, names a photo twice with
            different labels, or gives a label that looks like a class and is not it.
    """
    table = read_table(path)
    names, notes = {str(label) for label in classes}, list(map(Note, table.notes))
    before = _before(table) if is_predictions(table) else {}
    corrected = _corrected(table, sources, before, names, notes)
    wanted = [row for row in table.rows if corrected(row)]
    if not wanted:
        raise InputError(f"{path}: no row is corrected: write the right label of a photo into its column correct_label")
    true_names = {cell: image for cell, (image, _) in before.items()}
    rows, missing = sources.rows(Table(path, table.heads, wanted), corrected, true_names)
    for row in rows:
        alike = sorted(name for name in names if row.label not in names and look_alike(name, row.label))
        if alike:
            raise InputError(
                f"{path}: line {row.line}: the label {row.label!r} looks like the class {alike[0]!r} and is another:"
                " write it the same way"
            )
    return Corrections(path, once(path, rows), missing, notes)


def _corrected(
    table: Table, sources: PhotoSources, before: dict[str, tuple[str, str]], names: set[str], notes: list[Note]
) -> Callable[[Row], str]:
    """Return the function that finds the corrected label of a row, empty if there is none; add notes."""
    named = sources.columns.label
    if named is not None:
        place = table.need(named, (), "label_column")
        return lambda row: row.cells[place]
    column = next((k for one in _CORRECTED if (k := table.find(None, (one,), "label_column")) is not None), None)
    if column is None and _SUGGESTED in table.heads:  # of --label_next
        column = table.need(None, ("label",), "label_column")
    if column is None and not before:
        raise InputError(
            f"{table.path}: has no column correct_label: add one, and fill it in for the photos to learn; or, if all"
            f" labels of a column are right, name it, such as --label_column {_any_label(table)}"
        )
    edited = _edited(table, sources, before, names, notes)

    def corrected(row: Row) -> str:
        return (row.cells[column] if column is not None else "") or edited.get(row.line, "")

    return corrected


def _any_label(table: Table) -> str:
    return next((head for head in table.heads if head in LABEL_COLUMNS), "label")


def _edited(
    table: Table, sources: PhotoSources, before: dict[str, tuple[str, str]], names: set[str], notes: list[Note]
) -> dict[int, str]:
    """Return the labels that were edited, by their lines; those that are no class are a note."""
    if not before:
        return {}
    image = table.need(sources.columns.image, IMAGE_COLUMNS, "image_column")
    label = table.need("label", (), "label_column")
    found, strange, by_cell = {}, [], {sheet_label(name): name for name in names}
    for row in table.rows:
        first = before.get(row.cells[image])
        cell = row.cells[label]
        if first is None or not cell or cell == sheet_label(first[1]):
            continue
        if cell in by_cell:
            found[row.line] = by_cell[cell]
        else:
            strange.append(f"line {row.line}: {cell}")
    if strange:
        title = "labels were changed to what is no class, and not learned: write new classes into correct_label:"
        notes.append(Note(f"{len(strange):,} {title}", strange))
    return found


def _before(table: Table) -> dict[str, tuple[str, str]]:
    """Return the image and the label of each prediction, by the cell of its image; nothing without predictions.json.

    Images are relative to the folder in which the command was run.
    """
    path = table.path.with_suffix(".json")
    if not path.is_file():
        path = table.path.with_name("predictions.json")
    if not path.is_file():
        return {}
    content = read_json(path, remedy="move it away to learn from the column correct_label alone")
    rows, folder = content.get("predictions"), content.get("current_folder")
    found = {}
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict) and isinstance(row.get("image"), str):
            image = row["image"]
            there = os.path.join(folder, image) if isinstance(folder, str) and folder != os.getcwd() else image
            is_there = os.path.lexists(there.partition(SEPARATOR)[0])
            found[sheet_path(image)] = (there if is_there else image, str(row.get("label")))
    return found


def learn_corrections(classifier: PhotoClassifier, corrections: Corrections) -> Learned:
    """Add corrected photos to a fitted classifier.

    A photo that is in another class is moved, and one that is in its class already is left. Photos are compared by
    their content. If an error is raised, throw the classifier away.

    Raises:
        InputError: a photo is there twice with different labels, or a label does not fit the classes.
    """
    learned, support = Learned(bad=list(corrections.missing)), classifier.support_
    classes = classifier.classes_.tolist()
    known = {str(label): label for label in classes}
    places: dict[int, list[int]] = {}  # by the content of a photo
    for k, example in enumerate(support.examples):
        places.setdefault(example.key, []).append(k)
    new: dict[int, LabelledRow] = {}
    gone: list[int] = []
    found = classifier.stream_embedded([row.photo for row in corrections.rows], progress="reading the corrections")
    for row, (embedded, prediction) in zip(corrections.rows, found, strict=True):
        if prediction.error is not None:
            learned.bad.append(prediction.error)
            continue
        first = new.get(embedded.key)
        if first is not None and first.label != row.label:
            raise InputError(
                f"{corrections.path}: lines {first.line} and {row.line} name the same photo, as {first.label!r} and"
                f" {row.label!r}: remove one"
            )
        held = places.get(embedded.key, [])
        others = [k for k in held if str(classes[int(support.labels[k])]) != row.label]
        gone += [] if first else others
        learned.moved += bool(others) and first is None
        if first is not None or len(others) < len(held):
            learned.known += not others or first is not None
            continue
        learned.added += not others
        new[embedded.key] = row
    removed = remove_photos(classifier, gone)
    if new:
        labels = [_typed(row.label, known, classes) for row in new.values()]
        classifier.partial_fit([row.photo for row in new.values()], labels)
    elif gone:
        classifier.calibrate()
    left = set(map(str, classifier.classes_.tolist()))
    learned.new = sorted(left - set(known))
    learned.gone = [str(label) for label in removed if str(label) not in left]
    return learned


def _typed(label: str, known: dict[str, Any], classes: Sequence[Any]) -> Any:
    """Return a label as the classifier has it: a class itself, or a new one of the same type."""
    if label in known:
        return known[label]
    if classes and not isinstance(classes[0], str):
        try:
            return type(classes[0])(label)
        except ValueError as error:
            raise InputError(f"the label {label!r} is no number, as those of the classifier are: write one") from error
    return label

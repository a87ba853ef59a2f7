"""Find photos and their labels wherever they are: class folders, zip files, and tables that name them."""

import os
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from deepemd.data.class_names import name_warnings
from deepemd.data.folders import COMMON
from deepemd.data.photos import Origin, PhotoFile, Photos, class_photos, query_photos
from deepemd.data.tables import IMAGE_COLUMNS, LABEL_COLUMNS, SHEETS, TABLES, Row, Table, read_table, unquoted
from deepemd.data.unpacking import SEPARATOR, Unpacker, is_zip
from deepemd.errors import InputError

__all__ = ["Columns", "LabelledRow", "PhotoSources", "is_predictions", "once"]

_CORRECTED = ("correct_label", "corrected_label")
_TRUE = (*_CORRECTED, "true_label", "ground_truth")
_LISTED = 5  # rows in an error


@dataclass(frozen=True)
class Columns:
    """The columns of a table that the user has named; None for those that are found by their usual names."""

    image: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class LabelledRow:
    """A row of a table: its line, its photo, and its label, which may be empty."""

    line: int
    photo: PhotoFile
    label: str


@dataclass(frozen=True)
class PhotoSources:
    """Finds photos in folders, zips and tables; what zips hold exists until the block of :meth:`opened` ends."""

    unpacker: Unpacker
    columns: Columns = Columns()

    @classmethod
    @contextmanager
    def opened(cls, columns: Columns = Columns()) -> "Iterator[PhotoSources]":
        """Return the finder of photos; at the end of the block, remove what was unpacked."""
        with Unpacker.within() as unpacker:
            yield cls(unpacker, columns)

    def support(self, path: Path) -> Photos:
        """Find photos with their classes: in class folders, in a zip of class folders, or in a table.

        Raises:
            InputError: there is nothing of the kind, or it is damaged; see :func:`deepemd.data.photos.class_photos`,
                :class:`deepemd.data.unpacking.Unpacker` and :func:`deepemd.data.tables.read_table`.
        """
        if is_zip(path):
            return self._of_zip(path)
        if path.is_file():
            return self._of_table(path)
        return class_photos(path)

    def queries(self, paths: Sequence[Path]) -> Photos:
        """Find the photos to classify, and where their true labels may be read: in folders, zips, tables, and files.

        Raises:
            InputError: there are no photos, or a folder, a zip or a table cannot be read.
        """
        found = Photos([], source=", ".join(map(str, paths)))
        plain: list[Path] = []
        for path in paths:
            if is_zip(path):
                photos, others, bad = self.unpacker.photos(path)
                found.files.extend(photos)
                found.origins.extend(Origin((path.stem, *photo.inner.split("/")[:-1])) for photo in photos)
                found.others.extend(Path(f"{path}{SEPARATOR}{name}") for name in others)
                found.missing.extend(bad)
            elif path.suffix.lower() in (*TABLES, *SHEETS) and path.is_file():
                self._add_table(path, found)
            else:
                plain.append(path)
        if plain:
            more = query_photos(plain)
            found.files.extend(more.files)
            found.origins.extend(more.origins)
            found.others.extend(more.others)
        if not found.files:
            listed = "".join(f"\n  {error}" for error in found.missing[:_LISTED])
            raise InputError(f"{found.source}: no photos there ({COMMON}): check the path{listed}")
        return _each_once(found)

    def rows(
        self, table: Table, labels: Callable[[Row], str], names: Mapping[str, str] = MappingProxyType({})
    ) -> tuple[list[LabelledRow], list[InputError]]:
        """Return the rows of a table whose photos are there, and an error for each other row, with its line.

        A photo's path may be relative to the table's folder, else to the current folder.

        Args:
            table: the table.
            labels: returns the label of a row; rows without one are left to the caller.
            names: the names of photos that the table writes in another way, by their cells.
        """
        place = table.need(self.columns.image, IMAGE_COLUMNS, "image_column")
        rows, missing = list[LabelledRow](), list[InputError]()
        for row in table.rows:
            try:
                photo = self._photo(table.path, names.get(row.cells[place], row.cells[place]))
            except InputError as error:
                missing.append(InputError(f"{table.path}: line {row.line}: {error}"))
                continue
            rows.append(LabelledRow(row.line, photo, unquoted(labels(row))))
        return rows, missing

    def _photo(self, table: Path, cell: str) -> PhotoFile:
        """Return the photo that a cell names.

        Raises:
            InputError: there is no such photo.
        """
        if not cell:
            raise InputError("names no photo: fill in the cell, or remove the line")
        if cell.startswith(("http://", "https://")):
            raise InputError(f"{cell}: a web address: download the photo, and name the file")
        zipped, separator, inner = cell.partition(SEPARATOR)
        for folder in (table.parent, Path()):
            for spelling in _spellings(cell):
                path = folder / spelling
                if os.path.isdir(path):
                    raise InputError(f"{cell}: a folder: name a photo")
                if os.path.lexists(path):
                    return path
            if separator and is_zip(folder / zipped):
                found = self.unpacker.photo(folder / zipped, inner)
                if found is not None:
                    return found
        raise InputError(f"{cell}: there is no such file in {table.parent.absolute()} or in the current folder")

    def _of_zip(self, path: Path) -> Photos:
        found, photos, bad = self.unpacker.class_photos(path)
        if not found.rows:
            raise InputError(
                f"{path}: no class folders with photos in them: pack a folder for each class, such as daisy/1.jpg"
            )
        inside = [Path(f"{path}{SEPARATOR}{name}") for name in sorted(found.others + found.loose)]
        labels = [label for label, _ in found.rows]
        return Photos(list(photos), labels, inside, found.empty, found.warnings, missing=bad, source=str(path))

    def _of_table(self, path: Path) -> Photos:
        if path.suffix.lower() not in (*TABLES, *SHEETS):
            raise InputError(f"{path}: neither a folder, a zip nor a table ({', '.join(TABLES)}): check the path")
        table = read_table(path)
        rows, missing = self.rows(
            table, _first_label(table, self.columns.label, _CORRECTED, LABEL_COLUMNS, "label_column")
        )
        labelled = [row for row in rows if row.label]
        distinct = once(path, labelled)
        if not distinct:
            listed = "".join(f"\n  {error}" for error in missing[:_LISTED])
            raise InputError(f"{path}: none of its {len(table.rows):,} rows has a photo and a label{listed}")
        notes = [*table.notes]
        if len(rows) > len(labelled):
            notes.append(_counted(path, len(rows) - len(labelled), "has no label and is", "have no label and are"))
        if len(labelled) > len(distinct):
            one = "names a photo again and is"
            notes.append(_counted(path, len(labelled) - len(distinct), one, "name a photo again and are"))
        labels = [row.label for row in distinct]
        notes += name_warnings(labels)
        return Photos([row.photo for row in distinct], labels, warnings=notes, missing=missing, source=str(path))

    def _add_table(self, path: Path, found: Photos) -> None:
        """Add the photos of a table to the photos to classify; its labels are their true labels."""
        table = read_table(path)
        label = _first_label(table, self.columns.label, _TRUE, () if is_predictions(table) else LABEL_COLUMNS)
        rows, missing = self.rows(table, label)
        distinct = once(path, rows)
        found.files.extend(row.photo for row in distinct)
        found.origins.extend(Origin((), row.label or None) for row in distinct)
        found.missing.extend(missing)
        found.warnings.extend(table.notes)


def _each_once(photos: Photos) -> Photos:
    """Return each photo once, whichever way it was passed, with its label if one of the ways has one."""
    first: dict[str, tuple[PhotoFile, Origin]] = {}
    for file, origin in zip(photos.files, photos.origins, strict=True):
        name = os.path.abspath(str(file))
        if name not in first or (first[name][1].label is None and origin.label is not None):
            first[name] = (file, origin)
    return replace(photos, files=[file for file, _ in first.values()], origins=[origin for _, origin in first.values()])


def is_predictions(table: Table) -> bool:
    """Return whether a table is a predictions.csv, whose labels are those of a classifier."""
    return {"label", "probability", "runner_up"} <= set(table.heads)


def _first_label(
    table: Table, name: str | None, before: Sequence[str], known: Sequence[str], needed: str = ""
) -> Callable[[Row], str]:
    """Return the function that finds the label of a row: the first cell that is not empty.

    Args:
        table: the table.
        name: the column that the user named, which is then the only one.
        before: names of columns that go before others, such as those of corrected labels.
        known: the usual names of the column of labels.
        needed: the option that names the column, if there must be one.
    """
    option = needed or "label_column"
    places = [] if name else [table.find(None, (one,), option) for one in before]
    places.append((table.need if needed or name else table.find)(name, known, option))
    there = [place for place in places if place is not None]
    return lambda row: next((row.cells[place] for place in there if row.cells[place]), "")


def once(path: Path, rows: Sequence[LabelledRow]) -> list[LabelledRow]:
    """Return the rows, each photo once.

    Raises:
        InputError: a photo is there with two labels.
    """
    first: dict[str, LabelledRow] = {}
    conflicts = []
    for row in rows:
        before = first.setdefault(os.path.realpath(row.photo), row)
        if before.label != row.label:
            conflicts.append(
                f"\n  {row.photo}: {before.label!r} in line {before.line}, {row.label!r} in line {row.line}"
            )
    if conflicts:
        more = f"\n  and {len(conflicts) - _LISTED:,} more" if len(conflicts) > _LISTED else ""
        raise InputError(
            f"{path}: {len(conflicts):,} lines give a photo another label than a line before: remove the wrong ones:"
            f"{''.join(conflicts[:_LISTED])}{more}"
        )
    return list(first.values())


def _spellings(name: str) -> list[str]:
    """Return the ways in which a system may have written a name: with backslashes, and accents of two kinds."""
    plain = [name, name.replace("\\", "/")]
    return list(dict.fromkeys(unicodedata.normalize(form, one) for form in ("NFC", "NFD") for one in plain) | {name: 0})


def _counted(path: Path, count: int, one: str, more: str) -> str:
    return f"{path}: {count:,} row{'' if count == 1 else 's'} {one if count == 1 else more} left out"

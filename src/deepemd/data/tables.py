"""Read tables of labels: CSV files, as people write them and as spreadsheets export them, and Excel workbooks."""

import codecs
import csv
import io
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from deepemd.data.kinds import named_like_image
from deepemd.data.layout import listed
from deepemd.data.spreadsheets import read_sheet
from deepemd.errors import InputError

__all__ = ["FORMULA", "IMAGE_COLUMNS", "LABEL_COLUMNS", "SHEETS", "TABLES", "Row", "Table", "read_table", "unquoted"]

WORKBOOKS = (".xlsx", ".xlsm")
TABLES = (".csv", ".tsv", ".tab", ".txt", *WORKBOOKS)
"""Endings of tables that are read."""
SHEETS = (".xls", ".xlsb", ".ods", ".numbers", ".parquet")
"""Endings of tables that are refused, as they must be saved as CSV first."""
IMAGE_COLUMNS = (
    *("image", "image_path", "image_file", "image_name", "imagepath", "imagename", "image_filename", "img", "img_path"),
    *("photo", "photo_path", "photo_file", "picture", "file", "file_name", "filename", "file_path", "filepath", "path"),
)
FORMULA = tuple("=+-@\t\r＝＋－＠")
"""A cell that begins with one of these is taken for a formula; we write ' or ./ before it."""
LABEL_COLUMNS = ("label", "class", "category", "species", "label_name", "class_name", "category_name", "target", "tag")

_MOST_BYTES = 200_000_000
_DELIMITERS = (",", ";", "\t", "|")
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WORDS = re.compile(r"[\W_]+")


class Row(NamedTuple):
    """A row of a table: the number of its line in the file, and its cells without spaces around them."""

    line: int
    cells: list[str]


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        path: the file.
        heads: the names of the columns; "1", "2", ... where the file has no header line.
        rows: the rows below the header, each with a cell for every column.
        has_header: whether the first line names the columns.
        notes: what the user should know, such as a guess of the encoding.
    """

    path: Path
    heads: list[str]
    rows: list[Row] = field(repr=False)
    has_header: bool = True
    notes: list[str] = field(default_factory=list)

    def find(self, name: str | None, known: Sequence[str], option: str) -> int | None:
        """Return the place of a column: that of `name` if it is given, else of the one with a known name.

        Args:
            name: the name that the user gave, in any case of letters; in a table without a header, its number from 1.
            known: the usual names of such a column.
            option: the option that names the column, for messages.

        Returns:
            The place; None if no column has such a name.

        Raises:
            InputError: there is no column `name`, or several columns have usual names.
        """
        heads = [_normal(head) for head in self.heads]
        if name is not None:
            places = [k for k, head in enumerate(heads) if head == _normal(name)]
            if len(places) != 1:
                found = "has no column" if not places else f"has {len(places)} columns"
                raise InputError(f"{option}: {self.path} {found} {name!r}: its columns are {self._columns()}")
            return places[0]
        places = [k for k, head in enumerate(heads) if head in known]
        if not places:  # such as "Name of the photo"
            places = [k for k, head in enumerate(heads) if set(head.split("_")) & set(known)]
        if len(places) > 1:
            names = listed(repr(self.heads[k]) for k in places)
            raise InputError(f"{self.path}: {names} could each be the column: name one with --{option}")
        return places[0] if places else None

    def need(self, name: str | None, known: Sequence[str], option: str) -> int:
        """Return the place of a column as :meth:`find` does.

        Raises:
            InputError: as for :meth:`find`, or there is no such column.
        """
        place = self.find(name, known, option)
        if place is None:
            what = "no header line" if not self.has_header else f"no column named {', '.join(known[:4])} or the like"
            raise InputError(
                f"{self.path}: {what}; its columns are {self._columns()}: name one with --{option}, or add a header"
                " line such as image,label"
            )
        return place

    def _columns(self) -> str:
        return ", ".join(map(repr, self.heads[:20])) + (", ..." if len(self.heads) > 20 else "")


def read_table(path: Path) -> Table:
    """Read a CSV file, or the first sheet of an Excel workbook.

    The delimiter of a CSV file is found from its header: a comma, a semicolon, a tab or a vertical bar. UTF-8, UTF-16
    and Windows-1252 are read, with and without a byte order mark, and every kind of line end. A first line that names
    an image is no header. Empty lines are skipped.

    Raises:
        InputError: the file cannot be read, is no table, is a spreadsheet of another kind, has a header only, or a line
            has more cells than the header; the message names the line.
    """
    if path.suffix.lower() in WORKBOOKS:
        _check_file(path)
        found, note = read_sheet(path)
        wide = max((len(row.cells) for row in found), default=0)
        rows = [Row(number, cells + [""] * (wide - len(cells))) for number, cells in found]
        notes = [f"{path}: {note}"] * bool(note)
    else:
        rows, notes = _csv(path)
    if not rows:
        raise InputError(f"{path}: an empty table: write a header line such as image,label, and a row for each photo")
    heads, has_header = rows[0].cells, not any(named_like_image(cell) for cell in rows[0].cells)
    if has_header:
        rows = rows[1:]
    else:
        heads = [str(k) for k in range(1, len(heads) + 1)]
    if not rows:
        raise InputError(f"{path}: a header line and no rows: add a row for each photo")
    return Table(path, heads, [_fitted(path, row, len(heads)) for row in rows], has_header, notes)


def _csv(path: Path) -> tuple[list[Row], list[str]]:
    """Return the rows of a CSV file that are not empty, and notes."""
    text, notes = _decoded(path, _content(path))
    lines = text.removeprefix("\ufeff")
    first = re.match(r"sep=(.)\r?\n?", lines)  # Excel's own line
    skipped = 1 if first else 0
    lines = lines[first.end() :] if first else lines
    delimiter = first[1] if first else _delimiter(lines)
    return [Row(row.line + skipped, row.cells) for row in _rows(path, lines, delimiter) if any(row.cells)], notes


def unquoted(cell: str) -> str:
    """Return a label without the ' that protects it from being taken for a formula.

    >>> unquoted("'=1+1"), unquoted("'tis")
    ('=1+1', "'tis")
    """
    return cell[1:] if cell[:1] == "'" and cell[1:].startswith(FORMULA) else cell


def _content(path: Path) -> bytes:
    _check_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): check the file") from error


def _check_file(path: Path) -> None:
    """Raise an error if a file cannot be a table."""
    if path.suffix.lower() in SHEETS:
        raise InputError(f"{path}: a spreadsheet: save it as CSV (in Excel: File > Save as > CSV UTF-8), and pass that")
    try:
        found = path.stat()
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file: check the path") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): check the file") from error
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path}: not a file: pass a CSV file")
    if found.st_size > _MOST_BYTES:
        raise InputError(f"{path}: {found.st_size:,} bytes are too many for a table of labels: split it")


def _decoded(path: Path, content: bytes) -> tuple[str, list[str]]:
    """Return the text of a file, and a note if its encoding is a guess."""
    if content.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"%PDF", b"\xff\xd8\xff", b"\x89PNG")):
        raise InputError(f"{path}: not a table of text: save it as CSV (in Excel: File > Save as > CSV UTF-8)")
    encoding = next((name for mark, name in _BOMS if content.startswith(mark)), None) or _without_mark(content)
    try:
        return content.decode(encoding), []
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise InputError(f"{path}: damaged, not {encoding} as it begins ({error.reason}): save it again") from error
    try:
        text = content.decode("cp1252")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: of an unknown encoding: save it as UTF-8 (in Excel: CSV UTF-8)") from error
    note = "is not UTF-8 and is read as Windows-1252: if names look wrong, save it as UTF-8 (in Excel: CSV UTF-8)"
    return text, [f"{path} {note}"]


def _without_mark(content: bytes) -> str:
    """Return UTF-16 for text with a zero in every other byte, else UTF-8."""
    head = content[: 1000 - len(content) % 2]
    even, odd = head[::2].count(0), head[1::2].count(0)
    if max(even, odd) > 0.4 * len(head) / 2 and not min(even, odd):
        return "utf-16-le" if odd else "utf-16-be"
    return "utf-8"


def _delimiter(text: str) -> str:
    """Return the delimiter that occurs most often in the first line with text, outside of quotes."""
    head = next((line for line in text.splitlines() if line.strip()), "")
    plain = re.sub(r'"[^"]*"', "", head)
    return max(_DELIMITERS, key=plain.count)


def _rows(path: Path, text: str, delimiter: str) -> Iterator[Row]:
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise InputError(f"{path}: its first line names {delimiter!r} as the delimiter: write sep=, or sep=;")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    start = 1
    try:
        for cells in reader:
            yield Row(start, [cell.strip() for cell in cells])
            start = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}: line {start}: {error}: check the quotes there") from error


def _fitted(path: Path, row: Row, columns: int) -> Row:
    """Return a row with as many cells as there are columns."""
    if any(row.cells[columns:]):
        raise InputError(
            f"{path}: line {row.line} has {len(row.cells)} cells, but there are {columns} columns: put quotes around a"
            " name that holds the delimiter"
        )
    return Row(row.line, (row.cells + [""] * columns)[:columns])


def _normal(head: str) -> str:
    """Return the name of a column without differences of case, spaces and hyphens.

    >>> _normal(" Image-File ")
    'image_file'
    """
    return _WORDS.sub("_", head.casefold()).strip("_")

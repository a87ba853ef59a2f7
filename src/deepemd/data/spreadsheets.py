"""Read the cells of an Excel workbook (.xlsx): a zip of XML files, of which a few are needed."""

import re
import zipfile
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from deepemd.data.archives import Archive, open_archive
from deepemd.errors import InputError

__all__ = ["SheetRow", "read_sheet"]

_SAVE = "save it as CSV (in Excel: File > Save as > CSV UTF-8), and pass that"
_MOST_BYTES = 100_000_000  # of one of the XML files
_MOST_COLUMNS = 16_384  # of Excel
_DATES = {*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)}  # built-in formats of dates and times
_IS_DATE = re.compile(r"[dmyhs]", re.IGNORECASE)
_QUOTED = re.compile(r'"[^"]*"|\\.|\[[^\]]*\]')  # parts of a format that are no codes


class SheetRow(NamedTuple):
    """A row of a sheet: its number, from 1, and the text of its cells."""

    number: int
    cells: list[str]


def read_sheet(path: Path) -> tuple[list[SheetRow], str]:
    """Return the rows of the first visible sheet that are not empty, and a note if there are other sheets.

    Whole numbers have no decimals, dates are written as 2026-11-29, and a formula counts by its stored value.

    Raises:
        InputError: the file is no workbook, damaged, or has a password; the remedy is to save it as CSV.
    """
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path}: not a readable workbook (damaged, or with a password): {_SAVE}")
    try:
        with closing(open_archive(path, path.parent)) as archive:
            return _read(archive)
    except InputError as error:
        raise InputError(f"{path}: not a readable workbook ({error}): {_SAVE}") from error
    except (ElementTree.ParseError, KeyError, ValueError, IndexError, OverflowError) as error:
        raise InputError(f"{path}: a damaged workbook ({error}): {_SAVE}") from error


def _read(archive: Archive) -> tuple[list[SheetRow], str]:
    book = _xml(archive, "xl/workbook.xml")
    links = {link.get("Id"): link.get("Target", "") for link in _xml(archive, "xl/_rels/workbook.xml.rels")}
    sheets = [sheet for sheet in book.iterfind(".//{*}sheet") if sheet.get("state", "visible") == "visible"]
    if not sheets:
        raise InputError("it holds no visible sheet")
    link = next(value for name, value in sheets[0].attrib.items() if name.endswith("}id"))
    target = links[link]
    sheet = _xml(archive, target.lstrip("/") if target.startswith("/") else f"xl/{target}")
    shared = [_text(item) for item in _xml(archive, "xl/sharedStrings.xml", optional=True).iterfind("{*}si")]
    dates = _date_styles(_xml(archive, "xl/styles.xml", optional=True))
    from_1904 = any(one.get("date1904") in ("1", "true") for one in book.iterfind(".//{*}workbookPr"))
    start = datetime(1904, 1, 1) if from_1904 else datetime(1899, 12, 30)
    rows = [row for row in _rows(sheet, shared, dates, start) if any(row.cells)]
    note = f"its first sheet, {sheets[0].get('name')!r}, is read, and {len(sheets) - 1} more are not"
    return rows, note if len(sheets) > 1 else ""


def _rows(sheet: ElementTree.Element, shared: list[str], dates: set[int], start: datetime) -> Iterator[SheetRow]:
    number = 0
    for row in sheet.iterfind(".//{*}row"):
        number = int(row.get("r", number + 1))
        cells: list[str] = []
        for cell in row.iterfind("{*}c"):
            place = _column(cell.get("r", "")) if cell.get("r") else len(cells)
            if place >= _MOST_COLUMNS:
                raise ValueError(f"row {number} has too many columns")
            cells += [""] * (place + 1 - len(cells))
            cells[place] = _value(cell, shared, dates, start).strip()
        yield SheetRow(number, cells)


def _column(reference: str) -> int:
    """Return the place of a column, from 0.

    >>> _column("A1"), _column("AB12")
    (0, 27)
    """
    place = 0
    for letter in re.match("[A-Z]{1,3}", reference.upper())[0]:  # type: ignore[index]
        place = 26 * place + ord(letter) - ord("A") + 1
    return place - 1


def _value(cell: ElementTree.Element, shared: list[str], dates: set[int], start: datetime) -> str:
    kind, value = cell.get("t", "n"), cell.findtext("{*}v", "")
    if kind == "inlineStr":
        return _text(cell)
    if kind == "s":
        return shared[int(value)]
    if kind == "b":
        return {"1": "TRUE", "0": "FALSE"}.get(value, value)
    if kind != "n" or not value:  # text of a formula, an error, or a date as text
        return value
    if int(cell.get("s", 0)) in dates:
        moment = start + timedelta(seconds=round(float(value) * 86_400))
        return moment.date().isoformat() if moment.time() == datetime.min.time() else moment.isoformat(sep=" ")
    return f"{float(value):.15g}"


def _text(item: ElementTree.Element) -> str:
    """Return the text of an item, without the pronunciation that Asian texts may have."""
    spoken = {id(part) for above in item.iterfind(".//{*}rPh") for part in above.iterfind(".//{*}t")}
    return "".join(part.text or "" for part in item.iterfind(".//{*}t") if id(part) not in spoken)


def _date_styles(styles: ElementTree.Element) -> set[int]:
    """Return the places of the styles that show a number as a date or a time."""
    custom = {
        int(one.get("numFmtId", -1))
        for one in styles.iterfind(".//{*}numFmt")
        if _IS_DATE.search(_QUOTED.sub("", one.get("formatCode", "")))
    }
    formats = styles.find("{*}cellXfs")
    return {
        place
        for place, one in enumerate(formats if formats is not None else ())
        if int(one.get("numFmtId", 0)) in _DATES | custom
    }


def _xml(archive: Archive, name: str, *, optional: bool = False) -> ElementTree.Element:
    """Return an XML file of a workbook; an empty element if it is optional and missing."""
    if name not in archive.sizes:
        if optional:
            return ElementTree.Element("none")
        raise InputError(f"it holds no {name}")
    if archive.sizes[name] > _MOST_BYTES:
        raise InputError(f"{name} in it holds {archive.sizes[name]:,} bytes")
    content = archive.read(name)
    # Declared entities could unfold to gigabytes; a workbook has none.
    if b"<!" in content.replace(b"<!--", b"").replace(b"<![CDATA[", b"") or b"\0" in content[:100]:
        raise InputError(f"{name} in it is of an unusual kind")
    return ElementTree.fromstring(content)

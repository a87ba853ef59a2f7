"""Excel workbooks as programs write them, and such as would harm a reader."""

import zipfile
from pathlib import Path

import pytest

from deepemd.data.spreadsheets import read_sheet
from deepemd.data.tables import read_table
from deepemd.errors import InputError

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
STRICT = "http://purl.oclc.org/ooxml/spreadsheetml/main"
LINKS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
STYLES = (
    '<numFmts><numFmt numFmtId="164" formatCode="0.0&quot; days&quot;"/><numFmt numFmtId="165" formatCode="d/m/yy"/>'
    '</numFmts><cellXfs><xf numFmtId="0"/><xf numFmtId="14"/><xf numFmtId="164"/><xf numFmtId="165"/></cellXfs>'
)
SHARED = (
    "<si><t>Photo</t></si><si><t>Label</t></si><si><r><t>ro</t></r><r><t>se</t></r></si>"
    "<si><t>東</t><rPh><t>x</t></rPh></si>"
)


def workbook(
    path: Path, rows: str, *, sheets: str = "", space: str = MAIN, target: str = "worksheets/sheet1.xml", **more: str
) -> Path:
    """Write a workbook whose first sheet has these rows."""
    sheets = sheets or '<sheet name="Labels" sheetId="1" r:id="rId1"/>'
    parts = {
        "xl/workbook.xml": f'<workbook xmlns="{space}" xmlns:r="{LINKS}"><sheets>{sheets}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships><Relationship Id="rId1" Target="{target}"/></Relationships>',
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{space}"><sheetData>{rows}</sheetData></worksheet>',
        "xl/sharedStrings.xml": f'<sst xmlns="{space}">{SHARED}</sst>',
        "xl/styles.xml": f'<styleSheet xmlns="{space}">{STYLES}</styleSheet>',
    }
    parts |= {name.replace("__", "/").replace("_xml", ".xml"): text for name, text in more.items()}
    with zipfile.ZipFile(path, "w") as file:
        for name, text in parts.items():
            if text:
                file.writestr(name, f'<?xml version="1.0" encoding="UTF-8"?>{text}')
    return path


def values(path: Path) -> list[tuple[int, list[str]]]:
    return [tuple(row) for row in read_sheet(path)[0]]


@pytest.mark.parametrize("space", [MAIN, STRICT])
@pytest.mark.parametrize("target", ["worksheets/sheet1.xml", "/xl/worksheets/sheet1.xml"])
def test_cells_of_every_kind(tmp_path, space, target):
    rows = (
        '<row r="1"><c r="A1" t="s"><v>0</v></c><c r="B1" t="s"><v>1</v></c></row>'
        '<row r="3"><c r="A3" t="inlineStr"><is><t>a b.jpg </t></is></c><c r="B3" t="s"><v>2</v></c></row>'
        '<row><c t="str"><f>A1</f><v>c.jpg</v></c><c t="s"><v>3</v></c></row>'
        '<row r="9"><c r="B9"><v>7</v></c><c r="D9"><v>0.10000000000000001</v></c><c r="E9" t="b"><v>1</v></c></row>'
        '<row r="10"><c r="A10"/><c r="B10" t="inlineStr"><is><t> </t></is></c></row>'
        '<row r="11"><c r="A11" s="1"><v>45352</v></c><c r="B11" s="2"><v>3</v></c>'
        '<c r="C11" s="3"><v>45352.5</v></c></row>'
    )
    path = workbook(tmp_path / "labels.xlsx", rows, space=space, target=target)
    assert values(path) == [
        (1, ["Photo", "Label"]),
        (3, ["a b.jpg", "rose"]),
        (4, ["c.jpg", "東"]),
        (9, ["", "7", "", "0.1", "TRUE"]),
        (11, ["2024-03-01", "3", "2024-03-01 12:00:00"]),
    ]
    table = read_table(path)
    assert (table.heads, table.rows[0].cells) == (["Photo", "Label", "", "", ""], ["a b.jpg", "rose", "", "", ""])
    assert [row.line for row in table.rows] == [3, 4, 9, 11]


def test_the_first_visible_sheet_is_read_and_others_are_named(tmp_path):
    sheets = (
        '<sheet name="lists" r:id="rId9" state="hidden"/><sheet name="Mine" r:id="rId1"/><sheet name="x" r:id="rId9"/>'
    )
    path = workbook(tmp_path / "labels.xlsx", '<row r="1"><c r="A1"><v>1</v></c></row>', sheets=sheets)
    assert read_sheet(path) == ([(1, ["1"])], "its first sheet, 'Mine', is read, and 1 more are not")


def test_styles_and_shared_texts_may_be_missing(tmp_path):
    row = '<row r="1"><c r="A1" s="1"><v>5</v></c></row>'
    path = workbook(tmp_path / "labels.xlsx", row, xl__styles_xml="", xl__sharedStrings_xml="")
    assert values(path) == [(1, ["5"])]


BOMB = '<!DOCTYPE a [<!ENTITY b "x"><!ENTITY c "&b;&b;">]><sst><si><t>&c;</t></si></sst>'


@pytest.mark.parametrize(
    ("rows", "more", "says"),
    [
        ('<row r="1"><c r="A1" t="s"><v>99</v></c></row>', {}, "a damaged workbook"),
        ('<row r="1"><c r="A1" t="s"><v>x</v></c></row>', {}, "a damaged workbook"),
        ('<row r="1"><c r="A1"><v>many</v></c></row>', {}, "a damaged workbook"),
        ('<row r="1"><c r="ZZZ1"><v>1</v></c></row>', {}, "too many columns"),
        ('<row r="1"><c r="A1" s="1"><v>1e300</v></c></row>', {}, "a damaged workbook"),
        ("<row", {}, "a damaged workbook"),
        ("", {"xl__workbook_xml": ""}, "it holds no xl/workbook.xml"),
        ("", {"xl__worksheets__sheet1_xml": ""}, "it holds no xl/worksheets/sheet1.xml"),
        ("", {"xl__sharedStrings_xml": BOMB}, "of an unusual kind"),
    ],
)
def test_what_is_damaged_or_unsafe_is_refused_with_the_remedy(tmp_path, rows, more, says):
    path = workbook(tmp_path / "labels.xlsx", rows, **more)
    with pytest.raises(InputError, match=rf"labels\.xlsx: .*{says}.*: save it as CSV"):
        read_sheet(path)


def test_what_is_no_workbook_is_refused(tmp_path):
    (tmp_path / "labels.xlsx").write_bytes(b"\xd0\xcf\x11\xe0 with a password")
    with pytest.raises(InputError, match=r"not a readable workbook .*: save it as CSV"):
        read_table(tmp_path / "labels.xlsx")
    with zipfile.ZipFile(tmp_path / "big.xlsx", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("xl/workbook.xml", bytes(100_000_001))
    with pytest.raises(InputError, match="holds 100,000,001 bytes"):
        read_table(tmp_path / "big.xlsx")

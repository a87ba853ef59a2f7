"""Tables of labels as people write them, and as Excel, LibreOffice and pandas export them."""

import os

import pytest

from deepemd.data.tables import IMAGE_COLUMNS, LABEL_COLUMNS, read_table, unquoted
from deepemd.errors import InputError

ROWS = [["Image", "Label"], ["a b.jpg", "Käse"], ["c.jpg", 'say "cheese"'], ["d,e;f.jpg", "7"]]


def _text(delimiter: str, end: str) -> str:
    def quoted(cell: str) -> str:
        plain = cell.replace('"', '""')
        return f'"{plain}"' if set(cell) & set(',;"') else cell

    return "".join(delimiter.join(map(quoted, row)) + end for row in ROWS)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\n\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_every_export_gives_the_same_table(tmp_path, delimiter, end, encoding):
    path = tmp_path / "labels.csv"
    path.write_bytes(_text(delimiter, end).encode(encoding))
    table = read_table(path)
    assert [table.heads, *(row.cells for row in table.rows)] == ROWS
    step = 2 if end == "\r\n\r\n" else 1
    assert [row.line for row in table.rows] == [1 + step, 1 + 2 * step, 1 + 3 * step]
    assert (table.find(None, IMAGE_COLUMNS, "image_column"), table.find(None, LABEL_COLUMNS, "label_column")) == (0, 1)
    assert bool(table.notes) == (encoding == "cp1252")  # a guess, which is reported


def test_the_line_of_a_row_is_that_of_the_file(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_bytes(b'sep=;\r\nimage;label\r\n\r\n"a\nb.jpg";x\r\nc.jpg;y\r\n;\r\nd.jpg;z')
    assert [(row.line, row.cells) for row in read_table(path).rows] == [
        (4, ["a\nb.jpg", "x"]), (6, ["c.jpg", "y"]), (8, ["d.jpg", "z"]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("head", "image", "label"),
    [
        ("file,class", 0, 1),
        ("Species;Photo Path;count", 1, 0),
        ("id,IMAGE-FILE,category", 1, 2),
        ("name of the photo,bird species", 0, 1),
        ("filename,label,split", 0, 1),
    ],
)
def test_columns_are_found_by_their_names(tmp_path, head, image, label):
    path = tmp_path / "labels.csv"
    path.write_text(f"{head}\n1\n")
    table = read_table(path)
    assert table.need(None, IMAGE_COLUMNS, "image_column") == image
    assert table.need(None, LABEL_COLUMNS, "label_column") == label


def test_columns_that_are_named_or_cannot_be_told(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("Datei,Art,class,species\na.jpg,b,c,d\n")
    table = read_table(path)
    assert table.need("datei", IMAGE_COLUMNS, "image_column") == 0
    with pytest.raises(InputError, match=r"no column named image, .*'Datei', 'Art'.*--image_column"):
        table.need(None, IMAGE_COLUMNS, "image_column")
    with pytest.raises(InputError, match=r"'class' and 'species' could each be the column: name one with --label_col"):
        table.need(None, LABEL_COLUMNS, "label_column")
    with pytest.raises(InputError, match=r"label_column: .*has no column 'Sorte': its columns are 'Datei'"):
        table.need("Sorte", LABEL_COLUMNS, "label_column")


def test_without_a_header_columns_have_numbers(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("rose,a.jpg\ntulip,b.jpg\n")
    table = read_table(path)
    assert (table.has_header, table.heads, len(table.rows)) == (False, ["1", "2"], 2)
    assert table.need("2", IMAGE_COLUMNS, "image_column") == 1
    with pytest.raises(InputError, match="no header line; its columns are '1', '2': name one with --image_column, or"):
        table.need(None, IMAGE_COLUMNS, "image_column")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "an empty table: write a header line"),
        (b"\xef\xbb\xbf\r\n,\r\n", "an empty table"),
        (b"image,label\r\n\r\n", "a header line and no rows"),
        (b"image,label\na.jpg,b\nc, d.jpg,e\n", "line 3 has 3 cells, but there are 2 columns: put quotes"),
        (b'image,label\na.jpg,b\n"c.jpg,d\ne.jpg,f\n', "line 3: unexpected end of data: check the quotes there"),
        (b'image,label\n"a"b.jpg,c\n', "line 2: .*: check the quotes there"),
        (b"image,label\n\x81\x8d.jpg,b\n", "of an unknown encoding: save it as UTF-8"),
        (b"\xff\xfei\x00m", "utf-16|columns|no rows"),
        (b"PK\x03\x04 ...", "not a table of text: save it as CSV"),
        (b"\xff\xd8\xff\xe0 ...", "not a table of text"),
        (b"image,label\n" + b"x" * 200_000 + b",b\n", "line 2: field larger than field limit"),
    ],
)
def test_what_is_no_table_is_refused_with_its_line(tmp_path, content, says):
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"labels\.csv: .*({says})"):
        read_table(path)


@pytest.mark.parametrize("name", ["labels.xlsb", "labels.XLS", "labels.ods", "labels.numbers"])
def test_a_spreadsheet_is_refused_with_the_remedy(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04")
    with pytest.raises(InputError, match="a spreadsheet: save it as CSV"):
        read_table(tmp_path / name)


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    for name, says in (("pipe.csv", "not a file"), ("gone.csv", "there is no such file"), (".", "not a file")):
        with pytest.raises(InputError, match=says):
            read_table(tmp_path / name)


def test_short_rows_are_filled_and_formulas_lose_their_mark(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("image,label,note\na.jpg\nb.jpg,x,y,,,\n")
    assert [row.cells for row in read_table(path).rows] == [["a.jpg", "", ""], ["b.jpg", "x", "y"]]
    assert [unquoted(cell) for cell in ("'=1+1", "'-x", "'tis", "'", "")] == ["=1+1", "-x", "'tis", "'", ""]

"""Photos and labels from tables, zips and folders, beside each other."""

import csv
import os
import shutil
import unicodedata
import zipfile
from pathlib import Path

import pytest
from pictures import encoded, photo

from deepemd.data.photos import Origin
from deepemd.data.sources import Columns, PhotoSources
from deepemd.errors import InputError

JPEGS = [encoded(photo(40, 30)) for _ in range(4)]


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with four photos, from which nobody runs a command."""
    for k, name in enumerate(("a.jpg", "b.jpg", "deep/c.jpg", "d.jpg")):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(JPEGS[k])
    return tmp_path / "set"


def table(folder: Path, *rows: str, name: str = "labels.csv", head: str = "image,label") -> Path:
    (folder / name).write_text("\n".join([head, *rows]) + "\n")
    return folder / name


def found(path: Path, columns: Columns | None = None):
    with PhotoSources.opened(columns or Columns()) as sources:
        return sources.support(path)


def test_rows_become_photos_with_paths_relative_to_the_table(folder):
    photos = found(table(folder, "a.jpg,rose", "deep/c.jpg,tulip", f"{folder / 'b.jpg'},rose"))
    assert photos.files == [folder / "a.jpg", folder / "deep/c.jpg", folder / "b.jpg"]
    assert photos.labels == ["rose", "tulip", "rose"]
    assert (photos.missing, photos.warnings) == ([], [])


def test_paths_may_be_relative_to_the_current_folder(folder, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    photos = found(table(tmp_path / "out", "set/a.jpg,rose", "set/b.jpg,tulip"))
    assert all(
        os.path.samefile(file, folder / name) for file, name in zip(photos.files, ("a.jpg", "b.jpg"), strict=True)
    )


def test_absent_photos_are_errors_with_their_lines(folder):
    rows = ("a.jpg,rose", "gone.jpg,rose", ",tulip", "deep,tulip", "https://x.org/1.jpg,rose", "b.jpg,tulip")
    photos = found(table(folder, *rows))
    assert len(photos.files) == 2
    for error, line, says in zip(
        photos.missing,
        (3, 4, 5, 6),
        ("gone.jpg: there is no such file", "names no photo", "deep: a folder", "a web address"),
        strict=True,
    ):
        assert f"labels.csv: line {line}: " in str(error)
        assert says in str(error)


def test_empty_labels_and_repeated_photos_are_counted(folder):
    (folder / "link.jpg").symlink_to("a.jpg")
    photos = found(table(folder, "a.jpg,rose", "./a.jpg,rose", "link.jpg,rose", "b.jpg,", "d.jpg,tulip"))
    assert photos.files == [folder / "a.jpg", folder / "d.jpg"]
    assert photos.warnings == [
        f"{folder / 'labels.csv'}: 1 row has no label and is left out",
        f"{folder / 'labels.csv'}: 2 rows name a photo again and are left out",
    ]


def test_a_photo_with_two_labels_names_both_lines(folder):
    path = table(folder, "a.jpg,rose", "b.jpg,tulip", "a.jpg,tulip")
    with pytest.raises(InputError, match=r"1 lines give .*\n.*a\.jpg: 'rose' in line 2, 'tulip' in line 4"):
        found(path)


def test_other_ways_to_write_a_name(folder):
    (folder / unicodedata.normalize("NFD", "é.jpg")).write_bytes(JPEGS[0])
    shutil.copy(folder / "a.jpg", folder / "=1+1.jpg")
    path = table(folder, "deep\\c.jpg,x", "é.jpg,y", "./=1+1.jpg,'=z")
    photos = found(path)
    assert (len(photos.files), photos.labels, photos.missing) == (3, ["x", "y", "=z"], [])


def test_a_table_without_usable_rows(folder):
    with pytest.raises(InputError, match=r"none of its 2 rows has a photo and a label\n.*line 2: gone\.jpg"):
        found(table(folder, "gone.jpg,rose", "a.jpg,"))
    (folder / "labels.doc").write_bytes(b"\xd0\xcf")
    with pytest.raises(InputError, match="neither a folder, a zip nor a table"):
        found(folder / "labels.doc")


def test_labels_that_look_alike_are_a_warning(folder):
    photos = found(table(folder, "a.jpg,Rose", "b.jpg,rose"))
    assert "are different, but look alike" in photos.warnings[0]


def test_columns_that_the_user_names(folder):
    path = table(folder, "1,a.jpg,x,rose", "2,b.jpg,y,tulip", head="id,Datei,class,Art")
    photos = found(path, Columns("datei", "Art"))
    assert photos.labels == ["rose", "tulip"]


def test_corrected_labels_go_before_predicted_ones(folder):
    head = "image,label,probability,runner_up,true_label,correct_label"
    path = table(folder, "a.jpg,rose,0.5,x,,tulip", "b.jpg,rose,0.5,x,,", head=head, name="predictions.csv")
    assert found(path).labels == ["tulip", "rose"]
    with PhotoSources.opened() as sources:
        queries = sources.queries([path])
    assert [origin.label for origin in queries.origins] == ["tulip", None]  # the predicted ones are not true


def test_a_zip_of_class_folders(folder, tmp_path):
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as file:
        for k, name in enumerate(("top/rose/1.jpg", "top/tulip/2.jpg", "top/tulip/3.jpg")):
            file.writestr(name, JPEGS[k])
        file.writestr("top/read me.txt", "x")
    with PhotoSources.opened() as sources:
        photos = sources.support(path)
        assert (photos.labels, photos.classes) == (["rose", "tulip", "tulip"], ["rose", "tulip"])
        assert [Path(one).read_bytes() for one in photos.files] == JPEGS[:3]
        assert str(photos.files[0]) == f"{path}!/top/rose/1.jpg"
        assert photos.others == [Path(f"{path}!/read me.txt")]
        queries = sources.queries([path, folder / "a.jpg", folder])
        assert [origin.folders for origin in queries.origins] == [
            ("photos", "top", "rose"), ("photos", "top", "tulip"), ("photos", "top", "tulip"),
            ("set",), ("set",), ("set",), ("set", "deep"),
        ]  # fmt: skip


def test_a_photo_that_is_passed_in_several_ways_counts_once_with_its_label(folder):
    path = table(folder, "a.jpg,rose", "b.jpg,")
    with PhotoSources.opened() as sources:
        queries = sources.queries([folder, path, folder / "a.jpg"])
    assert len(queries.files) == 4
    assert dict(zip(queries.files, queries.origins, strict=True))[folder / "a.jpg"] == Origin((), "rose")
    assert queries.others == [path]


def test_a_table_names_photos_of_a_zip(folder):
    with zipfile.ZipFile(folder / "new.zip", "w") as file:
        file.writestr("x/1.jpg", JPEGS[3])
    path = table(folder, "new.zip!/x/1.jpg,rose", "a.jpg,tulip", "new.zip!/x/2.jpg,rose")
    with PhotoSources.opened() as sources:
        photos = sources.support(path)
        assert Path(photos.files[0]).read_bytes() == JPEGS[3]
        assert "line 4: new.zip!/x/2.jpg: there is no such file" in str(photos.missing[0])


def test_queries_that_are_not_there(folder):
    path = folder / "labels.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["image"], ["gone.jpg"]])
    with PhotoSources.opened() as sources, pytest.raises(InputError, match=r"no photos there .*\n.*line 2: gone\.jpg"):
        sources.queries([path])
    for name, says in (("labels.xls", "a spreadsheet: save it as CSV"), ("labels.xlsx", "not a readable workbook")):
        (folder / name).write_bytes(b"PK\x03\x04")
        with PhotoSources.opened() as sources, pytest.raises(InputError, match=says):
            sources.queries([folder / name])

"""The user's own photos: which files are photos, which class they have, and which are copies."""

from pathlib import Path

import pytest

from deepemd.data.photos import class_photos, duplicates, query_photos
from deepemd.errors import InputError


def put(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def names(files: list[Path], folder: Path) -> list[str]:
    return [file.relative_to(folder).as_posix() for file in files]


def test_the_class_is_the_first_folder_at_any_depth(tmp_path):
    put(tmp_path, "rose/2.JPG", "rose/1.heic", "rose/garden/may/3.webp", "daisy/1.tiff")
    found = class_photos(tmp_path)
    assert names(found.files, tmp_path) == ["daisy/1.tiff", "rose/1.heic", "rose/2.JPG", "rose/garden/may/3.webp"]
    assert found.labels == ["daisy", "rose", "rose", "rose"]
    assert found.classes == ["daisy", "rose"]
    assert found.others == []


def test_other_files_are_listed_and_hidden_ones_ignored(tmp_path):
    put(tmp_path, "rose/1.jpg", "rose/film.mp4", "rose/notes", "loose.png", "rose/.hidden.jpg", ".thumbs/1.jpg")
    put(tmp_path, "rose/Thumbs.db", "__MACOSX/rose/1.jpg")
    found = class_photos(tmp_path)
    assert names(found.files, tmp_path) == ["rose/1.jpg"]
    assert names(found.others, tmp_path) == ["loose.png", "rose/film.mp4", "rose/notes"]


@pytest.mark.parametrize("there", [[], ["1.jpg", "2.jpg"], ["rose/film.mp4"]])
def test_without_class_folders_the_expected_layout_is_shown(tmp_path, there):
    put(tmp_path, *there)
    with pytest.raises(InputError, match=r"no class folders with photos in them: .*/<class>/<photo>, such as"):
        class_photos(tmp_path)
    with pytest.raises(InputError, match=r"absent: there is no such folder"):
        class_photos(tmp_path / "absent")


def test_queries_are_the_photos_of_folders_and_every_file_that_is_passed(tmp_path):
    put(tmp_path, "new/b.png", "new/a/c.jpg", "new/film.mp4", "scan.dat")
    passed = [tmp_path / "scan.dat", tmp_path / "new", tmp_path / "new" / "b.png", tmp_path / "gone.jpg"]
    found = query_photos(passed)
    assert names(found.files, tmp_path) == ["scan.dat", "new/a/c.jpg", "new/b.png", "gone.jpg"]  # each one once
    assert names(found.others, tmp_path) == ["new/film.mp4"]
    assert (found.labels, found.classes) == ([], [])


def test_queries_without_photos_name_what_was_passed(tmp_path):
    put(tmp_path, "new/film.mp4")
    with pytest.raises(InputError, match=r"new: no photos there \(\.jpg, .*check the path"):
        query_photos([tmp_path / "new"])
    with pytest.raises(InputError, match=r"^query: no photos there"):
        query_photos([])


def test_duplicates_are_equal_files_of_different_classes(tmp_path):
    content = {"a/1": b"same", "a/2": b"same", "b/1": b"same", "b/2": b"equal", "c/1": b"other", "c/2": b"other"}
    for name, data in content.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    files, labels = [tmp_path / name for name in content], [name[0] for name in content]
    assert [names(group, tmp_path) for group in duplicates(files, labels)] == [["a/1", "a/2", "b/1"]]
    assert duplicates(files[:2], labels[:2]) == []  # twice in one class is no contradiction

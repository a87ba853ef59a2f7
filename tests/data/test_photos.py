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


def test_a_photo_that_is_passed_in_several_ways_is_one_query(tmp_path, monkeypatch):
    put(tmp_path, "new/b.png", "new/a.jpg")
    monkeypatch.chdir(tmp_path)
    found = query_photos([Path("new/b.png"), tmp_path / "new", Path("new")])
    assert [str(file) for file in found.files] == ["new/b.png", str(tmp_path / "new" / "a.jpg")]


def test_what_is_not_a_folder_of_photos_is_named(tmp_path):
    put(tmp_path, "photos.zip")
    with pytest.raises(InputError, match=r"photos\.zip: a file, not a folder: check the path"):
        class_photos(tmp_path / "photos.zip")
    with pytest.raises(InputError, match=r"x{300}: there is no such folder"):
        class_photos(tmp_path / ("x" * 300))
    (tmp_path / "self").symlink_to("self")
    with pytest.raises(InputError, match=r"self: there is no such folder"):
        class_photos(tmp_path / "self")


def test_photos_are_recognised_by_name_or_content_and_classes_without_are_named(tmp_path):
    put(tmp_path, "daisy/1.jfif", "daisy/2.JPE", "rose/1.jpg", "rose/@eaDir/1.jpg/THUMB.jpg", "tulip/@eaDir/1.jpg")
    put(tmp_path, "raw/1.NEF", "raw/1.xmp", "@eaDir/x.jpg")
    (tmp_path / "rose" / "IMG_2").write_bytes(b"\xff\xd8\xff\xe0 and so on")
    (tmp_path / "none").mkdir()
    found = class_photos(tmp_path)
    assert names(found.files, tmp_path) == ["daisy/1.jfif", "daisy/2.JPE", "rose/1.jpg", "rose/IMG_2"]
    assert names(found.others, tmp_path) == ["raw/1.NEF", "raw/1.xmp"]
    assert found.empty == ["none", "raw", "tulip"]
    assert found.warnings == []


def test_twins_splits_and_a_level_too_high(tmp_path):
    put(tmp_path, "pets/cat/1.jpg", "pets/Cat/1.jpg", "pets/train/1.jpg")
    (warning,) = class_photos(tmp_path / "pets").warnings
    assert "the classes 'Cat' and 'cat' are different, but look alike" in warning
    with pytest.raises(InputError, match=r"one folder holds all images, .* pass .*/pets;"):
        class_photos(tmp_path)
    put(tmp_path / "splits", "train/cat/1.jpg", "train/dog/1.jpg", "test/cat/2.jpg")
    with pytest.raises(InputError, match=r"its folders test and train are splits, not classes: pass .*splits/train;"):
        class_photos(tmp_path / "splits")


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

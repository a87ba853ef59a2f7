"""Photos in zips: unpacked safely, named as in the zip, and gone at the end."""

import os
import stat
import tempfile
import zipfile
from pathlib import Path

import pytest
from pictures import encoded, photo

from deepemd.data.unpacking import Unpacker, is_zip
from deepemd.errors import InputError

JPEG = encoded(photo(40, 30))


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch) -> Path:
    """An own temporary folder, so that what is left behind is seen."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def pack(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, JPEG if name.lower().endswith("jpg") else b"no photo")
    return path


@pytest.mark.parametrize("top", ["", "my photos/", "a/b/"])
def test_class_folders_below_any_top_folder(tmp_path, scratch, top):
    names = ("rose/1.jpg", "rose/more/2.JPG", "tulip/1.jpg", "tulip/notes.txt")
    path = pack(tmp_path / "photos.zip", *(top + name for name in names), "__MACOSX/._1.jpg", f"{top}.DS_Store")
    with Unpacker.within() as unpacker:
        found, photos, bad = unpacker.class_photos(path)
        assert [label for label, _ in found.rows] == ["rose", "rose", "tulip"]
        assert [str(one) for one in photos] == [f"{path}!/{top}{name}" for name in names[:3]]
        assert all(Path(one).read_bytes() == JPEG for one in photos)
        assert (found.others, bad) == (["tulip/notes.txt"], [])
        (made,) = scratch.iterdir()
        assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert list(scratch.iterdir()) == []


def test_photos_at_any_place_and_one_by_its_name(tmp_path):
    path = pack(tmp_path / "new.zip", "1.jpg", "a/b/2.jpg", "film.mp4")
    with Unpacker.within() as unpacker:
        photos, others, bad = unpacker.photos(path)
        assert [one.inner for one in photos] == ["1.jpg", "a/b/2.jpg"]
        assert (others, bad) == (["film.mp4"], [])
        again = unpacker.photo(path, "a/b/2.jpg")
        assert again is not None
        assert os.fspath(again) != os.fspath(photos[1])
        assert unpacker.photo(path, "a/b/3.jpg") is None


@pytest.mark.parametrize("name", ["/etc/x.jpg", "../x.jpg", "a/../../x.jpg", "C:/x.jpg"])
def test_names_that_lead_outside_write_nothing(tmp_path, scratch, name):
    path = pack(tmp_path / "evil.zip", "a/1.jpg", name)
    with Unpacker.within() as unpacker, pytest.raises(InputError, match="points outside of it: do not trust it"):
        unpacker.photos(path)
    assert sorted(tmp_path.rglob("*")) == [path, scratch]


def test_a_name_twice_a_link_a_bomb_and_splits_are_refused(tmp_path, scratch):
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = pack(tmp_path / "twice.zip", "a/1.jpg", "a/1.jpg")
    link = zipfile.ZipInfo("a/1.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as file:
        file.writestr(link, "/etc/passwd")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as file, file.open("a/1.jpg", "w") as entry:
        for _ in range(1100):
            entry.write(bytes(1_000_000))
    splits = pack(tmp_path / "splits.zip", "train/a/1.jpg", "test/a/1.jpg")
    for path, says in (
        (twice, "holds two files a/1.jpg"),
        (tmp_path / "link.zip", "is a link: pack the files"),
        (tmp_path / "bomb.zip", "far more than images"),
        (splits, "its folders test and train are splits, not classes: unpack it"),
    ):
        with Unpacker.within() as unpacker, pytest.raises(InputError, match=says):
            unpacker.class_photos(path)
    assert list(scratch.iterdir()) == []


def test_a_damaged_entry_is_an_error_and_the_others_stay(tmp_path):
    path = pack(tmp_path / "cut.zip", "a/1.jpg", "a/2.jpg")
    content = bytearray(path.read_bytes())
    content[content.index(JPEG) + 100] ^= 255  # in the first photo
    path.write_bytes(content)
    with Unpacker.within() as unpacker:
        photos, _, bad = unpacker.photos(path)
    assert [one.inner for one in photos] == ["a/2.jpg"]
    assert "a/1.jpg in it cannot be read" in str(bad[0])
    path.write_bytes(path.read_bytes()[:-60])
    with Unpacker.within() as unpacker, pytest.raises(InputError, match="not a zip"):
        unpacker.photos(path)


def test_a_zip_of_a_later_version_is_refused(tmp_path):
    path = pack(tmp_path / "new.zip", "a/1.jpg")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 6] = 212  # the version that is needed to unpack it
    path.write_bytes(content)
    with Unpacker.within() as unpacker, pytest.raises(InputError, match=r"not a zip .*version 21"):
        unpacker.photos(path)


def test_a_zip_without_photos(tmp_path):
    path = pack(tmp_path / "papers.zip", "a.pdf")
    with Unpacker.within() as unpacker, pytest.raises(InputError, match="no photos in it"):
        unpacker.photos(path)


def test_what_is_a_zip(tmp_path):
    plain = pack(tmp_path / "photos.zip", "1.jpg")
    for name, expected in (("photos.ZIP", True), ("photos", True), ("table.xlsx", False), ("1.jpg", False)):
        (tmp_path / name).write_bytes(plain.read_bytes())
        assert is_zip(tmp_path / name) is expected
    assert not is_zip(tmp_path)
    assert not is_zip(tmp_path / "gone.zip")

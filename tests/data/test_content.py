"""The content of image files: what is no regular file is refused, and what is no image is named."""

import os
import socket
from pathlib import Path

import pytest
from pictures import encoded, photo, png

from deepemd.data import content
from deepemd.data.content import kind, read_file, without_text
from deepemd.data.decoding import as_picture, decode
from deepemd.errors import InputError


def test_the_content_of_a_file(tmp_path):
    for data in (b"", b"a", bytes(100_000)):
        (tmp_path / "a.jpg").write_bytes(data)
        assert read_file(tmp_path / "a.jpg", "a.jpg") == data
    (tmp_path / "link.jpg").symlink_to(tmp_path / "a.jpg")
    assert read_file(tmp_path / "link.jpg", "link.jpg") == bytes(100_000)


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("socket.jpg")
    os.mkfifo("pipe.jpg")
    os.mkdir("folder.jpg")
    os.symlink("gone.jpg", "dangling.jpg")
    os.symlink("circle.jpg", "circle.jpg")
    with open("huge.jpg", "wb") as file:
        file.truncate(2**30 + 1)  # takes no space
    says = {
        "socket.jpg": "a socket, not an image file", "pipe.jpg": "a pipe, not an image file",
        "folder.jpg": "a folder, not an image file", "/dev/zero": "a device, not an image file",
        "dangling.jpg": "a link to a file that does not exist", "circle.jpg": r"cannot be read \(.*symbolic links",
        "huge.jpg": "larger than 1 GiB", "gone.jpg": "there is no such file", f"{'a' * 300}.jpg": "cannot be read",
        "a\0b.jpg": "not the path of a file",
    }  # fmt: skip
    for name, message in says.items():
        for read in (read_file, decode):
            with pytest.raises(InputError, match=f"{name}: {message}"):
                read(Path(name), name)
    listener.close()


def test_an_empty_path_is_named():
    for read in (lambda: read_file(Path(), ""), lambda: as_picture("")):
        with pytest.raises(InputError, match="an empty path: a folder, not an image file"):
            read()


def test_a_file_that_grows_is_read_up_to_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(content, "_MOST_BYTES", 1000)
    (tmp_path / "a.jpg").write_bytes(bytes(1000))
    assert len(read_file(tmp_path / "a.jpg", "a.jpg")) == 1000
    (tmp_path / "a.jpg").write_bytes(bytes(1001))
    with pytest.raises(InputError, match=r"a\.jpg: larger than 1 GiB"):
        read_file(tmp_path / "a.jpg", "a.jpg")


@pytest.mark.parametrize(
    ("begins", "what"),
    [
        (b"", "an empty file"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
            "a pointer of Git LFS.*git lfs pull",
        ),
        (b"\xef\xbb\xbf \r\n<!DOCTYPE html>\n<html><title>404</title>", "a web page: download the image"),
        (b"<HTML><body>sign in", "a web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML or SVG file"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"PK\x03\x04" + bytes(20), "a zip archive"),
        (b"\0\0\0\x18ftypmp42" + bytes(20), "a video"),
    ],
)
def test_what_is_no_image_is_named(begins, what, tmp_path):
    (tmp_path / "cat.jpg").write_bytes(begins)
    with pytest.raises(InputError, match=f"cat.jpg: not an image but {what}"):
        decode(tmp_path / "cat.jpg", "cat.jpg")


def test_the_kind_of_an_image_is_not_looked_at():
    assert kind(encoded(photo(4, 4))) is None
    assert kind(b"any text") is None


def test_texts_are_dropped_from_png_files_and_from_no_others():
    rows = b"\0" * 8
    plain = png(2, 2, 8, 2, rows[:7] * 2)
    wordy = png(2, 2, 8, 2, rows[:7] * 2, (b"tEXt", b"a\0b"), (b"zTXt", b"a\0\0b"), (b"iTXt", b"c"), (b"iCCP", b"d"))
    assert without_text(wordy) == plain
    assert without_text(plain) == plain
    assert without_text(plain[:-20]) == plain[:-20]  # cut: the rest is kept, and its reader finds the damage
    jpeg = encoded(photo(4, 4))
    assert without_text(jpeg) == jpeg

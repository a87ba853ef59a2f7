"""Photos are recognised by their names or by what they begin with; what systems leave behind is known by name."""

import numpy as np
import pytest
from PIL import Image

from deepemd.data.decoding import decode
from deepemd.data.kinds import HEAD, is_image, is_system, named_like_image, unknown_hidden
from deepemd.errors import InputError

FORMATS = ("AVIF", "BMP", "DDS", "DIB", "GIF", "ICNS", "ICO", "IM", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM")
MORE = ("SGI", "TIFF", "WEBP")


@pytest.mark.parametrize("form", [*FORMATS, *MORE])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("name", ["IMG_1", "IMG_1.txt", "1.dat"])
def test_formats_are_recognised_by_their_content(tmp_path, form, mode, name):
    Image.fromarray(np.full((32, 32, 3), 99, np.uint8)).convert(mode).save(tmp_path / name, form)
    content = (tmp_path / name).read_bytes()
    assert is_image(name, lambda: content[:HEAD])
    assert decode(content, name).size[0] > 0


@pytest.mark.parametrize(
    "ending", ["jpg", "JPG", "Jpeg", "jpe", "jfif", "jif", "TIF", "heic", "hif", "jp2", "tga", "mpo"]
)
def test_endings_of_photos_need_no_look_at_the_file(ending):
    def unread() -> bytes:
        raise AssertionError

    assert is_image(f"1.{ending}", unread)
    assert named_like_image(f"a/b.c/1.{ending}")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.txt", b"BM: buy milk, and more, and more, and more"),
        ("notes", b"P1 2024 report"),
        ("notes", b"P5 and P6 are at the door"),
        ("film.mp4", b"\0\0\0 ftypisom\0\0\2\0isomiso2avc1mp41"),
        ("film.MOV", b"\0\0\0\x14ftypqt  \0\0\0\0qt  "),
        ("film.avi", b"RIFF\x24\0\0\0AVI LIST"),
        ("sound.wav", b"RIFF\x24\0\0\0WAVEfmt "),
        ("font.ttf", b"\0\1\0\0\0\x0f\0\x80\0\3\0\x70"),
        ("video.mpg", b"\0\0\1\xba\x44\0\4\0\4\1"),
        ("paper", b"%PDF-1.7\n"),
        ("page.html", b"<!DOCTYPE html>"),
        ("1.xmp", b"<?xpacket begin='\xef\xbb\xbf'"),
        ("1.aae", b"<?xml version='1.0'?>"),
        ("1.json", b'{"title": "1.jpg"}'),
        ("1", b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n"),
        ("1", b""),
        ("DSC1.NEF", b"MM\0*\0\0\0\x08"),  # its first picture is a small preview
        ("DSC1.dng", b"II*\0\x08\0\0\0"),
        ("GOPR1.THM", b"\xff\xd8\xff\xe0"),  # a small picture of a video
        ("1.jpg.part", b"\xff\xd8\xff\xe0"),
        ("1.jpg.crdownload", b"\xff\xd8\xff\xe0"),
    ],
)
def test_documents_videos_and_raw_data_are_no_photos(name, content):
    assert not is_image(name, lambda: content)
    if not content.startswith((b"\xff\xd8", b"MM", b"II")):
        with pytest.raises(InputError):
            decode(content, name)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "@eaDir",
            "@EADIR",
            "#recycle",
            "#Recycle",
            "#snapshot",
            "@Recycle",
            "~snapshot",
            "$RECYCLE.BIN",
            "$Recycle.Bin",
        ),
        *("lost+found", "System Volume Information", "__MACOSX", ".Trash", ".Trash-1000", ".Trashes", ".thumbnails"),
        *("._1.jpg", ".DS_Store", "Thumbs.db", "THUMBS.DB", "ehthumbs.db", "desktop.ini", "Desktop.ini", ".git"),
        *(
            ".ipynb_checkpoints",
            "LOST.DIR",
            "FOUND.000",
            "Icon\r",
            "Network Trash Folder",
            "Temporary Items",
            "RECYCLER",
        ),
        *(
            ".@__thumb",
            "1.jpg@SynoEAStream",
            "Catalog Previews.lrdata",
            "__pycache__",
            ".picasa.ini",
            "Picasa.ini",
            "@Transcode",
        ),
    ],
)
def test_what_systems_leave_behind(name):
    assert is_system(name)
    assert not unknown_hidden(name)


@pytest.mark.parametrize(
    "name", ["recycled", "Recycler", "trash", "rose", "lost", "snapshot", "#1", "$5", "@home", "thumbs"]
)
def test_names_of_classes_that_resemble_those(name):
    assert not is_system(name)


def test_a_hidden_folder_of_no_known_program_may_have_been_a_class():
    assert is_system(".NET")
    assert unknown_hidden(".NET")

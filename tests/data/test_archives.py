"""Hostile and odd archives: every entry is read right or refused with its name, and nothing is written anywhere."""

import io
import os
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from deepemd.data.archives import open_archive
from deepemd.errors import InputError

FORMS = ["zip", "tar", "tar.gz"]


def pack(path: Path, *entries: tuple[str, bytes] | zipfile.ZipInfo | tarfile.TarInfo) -> Path:
    """An archive of files by name, in this order, and of entries that were made by hand."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as file:
            for entry in entries:
                file.writestr(*(entry if isinstance(entry, tuple) else (entry, b"target")))
        return path
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as file:
        for entry in entries:
            if isinstance(entry, tuple):
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                file.addfile(info, io.BytesIO(entry[1]))
            else:
                file.addfile(entry)
    return path


def contents(path: Path, scratch: Path) -> dict[str, bytes]:
    archive = open_archive(path, scratch)
    try:
        return {name: archive.read(name) for name in archive.sizes}
    finally:
        archive.close()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["/etc/x.jpg", "../x.jpg", "a/../../x.jpg", "C:/x.jpg", "a/.."])
def test_names_that_point_outside_are_refused(tmp_path, form, name):
    path = pack(tmp_path / f"evil.{form}", ("a/1.jpg", b"one"), (name, b"evil"))
    with pytest.raises(InputError, match=rf"evil\.{form}: holds a file {re.escape(name)}, a name that points outside"):
        open_archive(path, tmp_path)
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("form", FORMS)
def test_names_of_every_kind(tmp_path, form):
    names = ["été/Ω 1.jpg", 'it\'s "b"/%s {0}.jpg', "new\nline/1.jpg", "a/b" * 60 + ".jpg", "日本/写真.jpg"]
    files = {name: name.encode() for name in names}
    assert contents(pack(tmp_path / f"x.{form}", *files.items()), tmp_path) == dict(sorted(files.items()))


@pytest.mark.parametrize("form", FORMS)
def test_a_name_twice_is_refused(tmp_path, form):
    with pytest.warns(UserWarning, match="Duplicate name") if form == "zip" else open(os.devnull):
        path = pack(tmp_path / f"x.{form}", ("a/1.jpg", b"one"), ("b/2.jpg", b"two"), ("a/1.jpg", b"another"))
    with pytest.raises(InputError, match=r"holds two files a/1\.jpg: pack it again"):
        open_archive(path, tmp_path)
    path = pack(tmp_path / f"y.{form}", ("a/1.jpg", b"one"), ("./a//1.jpg", b"another"))
    with pytest.raises(InputError, match=r"holds two files a/1\.jpg: pack it again"):
        open_archive(path, tmp_path)


def test_backslashes_of_windows(tmp_path):
    path = pack(tmp_path / "x.zip", ("a\\1.jpg", b"one"), ("a\\b\\2.jpg", b"two"), ("empty\\", b""))
    content = path.read_bytes()
    assert b"a\\1.jpg" in content  # Python wrote them as they are
    assert contents(path, tmp_path) == {"a/1.jpg": b"one", "a/b/2.jpg": b"two"}
    with pytest.raises(InputError, match="points outside"):
        open_archive(pack(tmp_path / "evil.zip", ("..\\1.jpg", b"one")), tmp_path)


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("form", ["tar", "tar.gz"])
@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (special("a/2.jpg", tarfile.SYMTYPE, "/etc/passwd"), r"a/2\.jpg in it is a link to /etc/passwd: pack the file"),
        (special("a/2.jpg", tarfile.SYMTYPE, "1.jpg"), r"a/2\.jpg in it is a link to 1\.jpg"),
        (special("a/2.jpg", tarfile.LNKTYPE, "../../x.jpg"), r"a/2\.jpg in it is a link to \.\./\.\./x\.jpg"),
        (special("a/2.jpg", tarfile.CHRTYPE), r"a/2\.jpg in it is not an ordinary file"),
        (special("a/2.jpg", tarfile.FIFOTYPE), r"a/2\.jpg in it is not an ordinary file"),
    ],
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path, form, entry, says):
    path = pack(tmp_path / f"x.{form}", ("a/1.jpg", b"one"), entry)
    with pytest.raises(InputError, match=says):
        open_archive(path, tmp_path)


@pytest.mark.parametrize("form", ["tar", "tar.gz"])
def test_hard_links_within_a_tar_are_the_file_itself(tmp_path, form):
    """So tar packs a file that has two names in a folder."""
    entries = ("./a/1.jpg", b"one"), special("./b/2.jpg", tarfile.LNKTYPE, "./a/1.jpg"), ("c/3.jpg", b"three")
    assert contents(pack(tmp_path / f"x.{form}", *entries), tmp_path) == {
        "a/1.jpg": b"one",
        "b/2.jpg": b"one",
        "c/3.jpg": b"three",
    }


def test_a_link_in_a_zip_is_refused(tmp_path):
    link = zipfile.ZipInfo("a/2.jpg")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(InputError, match=r"a/2\.jpg in it is a link: pack the files themselves"):
        open_archive(pack(tmp_path / "x.zip", ("a/1.jpg", b"one"), link), tmp_path)


@pytest.mark.parametrize("form", ["zip", "tar.gz"])
def test_a_bomb_is_refused(tmp_path, form):
    """More than a gigabyte in a few megabytes, by the sizes in the headers: nothing is unpacked to find out."""
    path, megabyte = tmp_path / f"bomb.{form}", bytes(1 << 20)
    if form == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("a/1.png", megabyte)
            file.filelist[0].file_size = 1000 << 20  # what the directory at the end of the file will say
    else:
        with tarfile.open(path, "w:gz", compresslevel=1) as file:
            info = tarfile.TarInfo("a/1.png")
            info.size = 1000 << 20
            file.fileobj.write(info.tobuf())
            file.fileobj.write(megabyte)
    with pytest.raises(InputError, match=r"bomb.*: unpacks to 1,048,576,000 bytes from [\d,]+, far more than images"):
        open_archive(path, tmp_path)
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_zip_entry_that_unpacks_to_more_than_it_says_gives_no_more(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/1.png", bytes(1_000_000))
    content = path.read_bytes()
    lied = content.replace((1_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    assert lied != content
    path.write_bytes(lied)
    with pytest.raises(InputError, match=r"a/1\.png in it cannot be read .*CRC"):
        contents(path, tmp_path)


def test_an_encrypted_zip_is_named(tmp_path):
    path = pack(tmp_path / "x.zip", ("a/1.jpg", b"one"))
    content = bytearray(path.read_bytes())
    for head, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(head) + flags] |= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a/1\.jpg in it is encrypted: unpack it with its password"):
        contents(path, tmp_path)


@pytest.mark.parametrize("end", [0.3, 0.7])
@pytest.mark.parametrize("form", [*FORMS, "tar.bz2", "tar.xz"])
def test_archives_that_are_cut_are_refused(tmp_path, form, end):
    path = tmp_path / f"x.{form}"
    files = [(f"a/{k}.jpg", os.urandom(5000)) for k in range(9)]
    if form in FORMS:
        pack(path, *files)
    else:
        with tarfile.open(path, f"w:{form[4:]}") as file:
            for name, content in files:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    whole = path.read_bytes()
    assert len(contents(path, tmp_path)) == 9
    path.write_bytes(whole[: int(end * len(whole))])
    with pytest.raises(InputError, match=r"(truncated|download it again|get the zip again)"):
        contents(path, tmp_path)
    spoilt = bytearray(whole)
    spoilt[len(whole) // 2 : len(whole) // 2 + 50] = bytes(50)
    path.write_bytes(spoilt)
    if form != "tar":  # which has no checksum of its contents: the images' decoder is asked
        with pytest.raises(InputError, match=r"(truncated|download it again|get the zip again)"):
            contents(path, tmp_path)


@pytest.mark.parametrize(
    "spoil", [lambda b: b[: 2 * 1024], lambda b: b[: 2 * 1024 + 300], lambda b: b.replace(b"c/", b"d/")]
)
def test_a_tar_that_ends_between_two_files_is_refused(tmp_path, spoil):
    """Python's reader takes such a place for the end, without a word."""
    path = pack(tmp_path / "x.tar", *((f"{label}/1.jpg", label.encode()) for label in "abc"))
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(InputError, match=r"x\.tar: truncated or damaged after 2 files: download it again"):
        open_archive(path, tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="links need no rights on POSIX")
def test_links_of_a_folder_are_followed_but_not_in_a_circle(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "1.jpg").write_bytes(b"one")
    source = tmp_path / "mine"
    source.mkdir()
    (source / "rose").symlink_to(tmp_path / "store")  # folders and files elsewhere, as big sets often are
    (source / "tulip").symlink_to("rose")
    (source / "single.jpg").symlink_to(tmp_path / "store" / "1.jpg")
    expected = {"rose/1.jpg": b"one", "single.jpg": b"one", "tulip/1.jpg": b"one"}
    assert contents(source, tmp_path) == expected
    for place, target in (("rose/back", source), ("again", "."), ("up", tmp_path), ("rose/x", tmp_path / "store")):
        (source / place).symlink_to(target)
        with pytest.raises(InputError, match=r"a link back to .*, which holds it: remove the link"):
            open_archive(source, tmp_path)
        (source / place).unlink()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "y").symlink_to(tmp_path / "other")  # a circle of two
    with pytest.raises(InputError, match="a link back to"):
        open_archive(source, tmp_path)


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "2.jpg")


def latin(folder: Path) -> None:
    (folder / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"x")


@pytest.mark.skipif(os.name != "posix", reason="pipes and names of bytes are POSIX")
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (pipe, r"a/2\.jpg: a pipe, socket or device, not a file: remove it"),
        (latin, r"the name of 'a/caf\\udce9\.jpg' in it is not UTF-8: rename the file"),
    ],
)
def test_what_is_not_a_file_with_a_name_of_text(tmp_path, spoil: Callable[[Path], None], says):
    (tmp_path / "mine" / "a").mkdir(parents=True)
    (tmp_path / "mine" / "a" / "1.jpg").write_bytes(b"one")
    spoil(tmp_path / "mine" / "a")
    with pytest.raises(InputError, match=says):
        open_archive(tmp_path / "mine", tmp_path)


@pytest.mark.parametrize("form", ["zip", "tar"])
def test_hidden_files_are_left_out(tmp_path, form):
    hidden = [("a/.DS_Store", b""), ("__MACOSX/a/1.jpg", b""), (".git/x.jpg", b""), ("a/Thumbs.db", b"")]
    hidden += [
        ("a/@eaDir/1.jpg/x.jpg", b""),
        ("#recycle/a/1.jpg", b""),
        ("$RECYCLE.BIN/1.jpg", b""),
        ("a/._1.jpg", b""),
    ]
    assert contents(pack(tmp_path / f"x.{form}", ("a/1.jpg", b"one"), *hidden), tmp_path) == {"a/1.jpg": b"one"}

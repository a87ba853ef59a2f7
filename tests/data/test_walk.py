"""Folders as they are found: links of every kind, pipes, folders without access; named, and never a circle."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deepemd.data import walk as module
from deepemd.data.walk import walk
from deepemd.errors import InputError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links and pipes of POSIX")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("photos/rose/1.jpg", "photos/rose/s1/2.jpg", "photos/tulip/3.jpg", "elsewhere/4.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path / "photos"


def test_files_and_folders(root):
    (root / "empty").mkdir()
    tree = walk(root)
    assert tree.sizes == {name: 7 + len(name) for name in ("rose/1.jpg", "rose/s1/2.jpg", "tulip/3.jpg")}
    assert tree.folders == {"empty", "rose", "rose/s1", "tulip"}
    assert (tree.links, tree.hidden) == ({}, [])


def test_what_systems_leave_behind_is_not_even_read(root):
    for folder in (
        "@eaDir",
        "rose/@eaDir/1.jpg",
        "#recycle",
        "rose/s1/.thumbnails",
        "tulip/$RECYCLE.BIN",
        ".Trash-1000",
    ):
        (root / folder).mkdir(parents=True)
        (root / folder / "thumb.jpg").write_bytes(b"x")
        os.mkfifo(root / folder / "pipe")
    (root / "rose" / "._1.jpg").write_bytes(b"x")
    (root / ".NET").mkdir()
    tree = walk(root)
    assert list(tree.sizes) == ["rose/1.jpg", "rose/s1/2.jpg", "tulip/3.jpg"]
    assert tree.folders == {"rose", "rose/s1", "tulip"}
    assert tree.hidden == [".NET"]


def test_links_are_followed_and_named(root):
    (root / "rose" / "again.jpg").symlink_to("1.jpg")
    (root / "rose" / "s2").symlink_to("s1")
    (root / "copy").symlink_to("tulip")
    (root / "more").symlink_to(root.parent / "elsewhere")
    (root / "tulip" / "4.jpg").symlink_to(root.parent / "elsewhere" / "4.jpg")
    outside = str(root.parent.resolve() / "elsewhere" / "4.jpg")
    assert walk(root).links == {
        "rose/again.jpg": "rose/1.jpg",
        "rose/s2/2.jpg": "rose/s1/2.jpg",
        "copy/3.jpg": "tulip/3.jpg",
        "copy/4.jpg": outside,
        "more/4.jpg": outside,
        "tulip/4.jpg": outside,
    }


def test_links_into_hidden_folders_are_the_photos_themselves(root):
    """As git-annex stores them."""
    (root / ".git" / "annex").mkdir(parents=True)
    (root / ".git" / "annex" / "5").write_bytes(b"five")
    (root / "rose" / "5.jpg").symlink_to("../.git/annex/5")
    tree = walk(root)
    assert tree.sizes["rose/5.jpg"] == 4
    assert tree.links == {"rose/5.jpg": str(root.resolve() / ".git" / "annex" / "5")}


def test_links_that_lead_nowhere(root):
    (root / "gone").symlink_to(root / "nowhere")
    (root / "rose" / "gone.jpg").symlink_to("nowhere.jpg")
    (root / "rose" / "self.jpg").symlink_to("self.jpg")
    (root / "one").symlink_to("two")
    (root / "two").symlink_to("one")
    tree = walk(root)
    lost = ["gone", "one", "rose/gone.jpg", "rose/self.jpg", "two"]
    assert {name: tree.sizes[name] for name in lost} == dict.fromkeys(lost, 0)
    assert tree.links == dict.fromkeys(lost, "")


def test_links_that_double_end(root, monkeypatch):
    """Thirty folders with two links to the next would be a billion folders."""
    monkeypatch.setattr(module, "_MOST_VISITS", 20)
    for k in range(31):
        (root.parent / f"step{k}").mkdir()
    for k in range(30):
        for name in ("a", "b"):
            (root.parent / f"step{k}" / name).symlink_to(root.parent / f"step{k + 1}")
    (root / "rose" / "first").symlink_to(root.parent / "step0")
    with pytest.raises(InputError, match=r"one of more than 20 links to .*step\d+: remove some of them"):
        walk(root)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
@pytest.mark.parametrize("name", ["pipe.jpg", "pipe"])
def test_pipes_and_devices_are_refused(root, make, name):
    make(root / "rose" / name)
    with pytest.raises(InputError, match=rf"rose/{name}: a pipe, socket or device, not a file: remove it"):
        walk(root)


AS_ANOTHER = """
import os, sys
from pathlib import Path
from deepemd.data.photos import class_photos
from deepemd.errors import InputError
os.setuid(65534)
try:
    print(class_photos(Path(sys.argv[1])).files)
except InputError as error:
    print(error)
"""


def test_a_folder_without_access_is_named(root):
    (root / "rose" / "s1").chmod(0)
    code = AS_ANOTHER if os.getuid() == 0 else AS_ANOTHER.replace("os.setuid(65534)", "")
    root.parent.chmod(0o755)
    command = [sys.executable, "-c", code, root.name]  # the folders above may be closed to the other user
    done = subprocess.run(command, cwd=root.parent, capture_output=True, text=True, check=True)
    assert "rose/s1: the folder cannot be read (Permission denied): give yourself access to it" in done.stdout
    (root / "rose" / "s1").chmod(0o755)

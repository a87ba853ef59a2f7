"""Whatever is killed between any two steps of a write, what is under the final name is whole, the old or the new."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deepemd.errors import InputError
from deepemd.files import (
    atomic_file,
    atomic_folder,
    atomic_write,
    contents,
    file_sha256,
    remove_leftovers,
    temporary_name,
    temporary_sibling,
)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="SIGKILL and locks are POSIX")

STEPS = """
import os, signal, sys
from pathlib import Path
from deepemd import files
at, path = int(sys.argv[1]), Path(sys.argv[2])
steps = 0
def step(function):
    def counted(*arguments, **settings):
        global steps
        steps += 1
        if steps == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **settings)
    return counted
os.fsync, files._remove = step(os.fsync), step(files._remove)
Path.replace, Path.rename = step(Path.replace), step(Path.rename)
if len(sys.argv) > 4:
    files._exchange = lambda *_: False
else:
    files._exchange = step(files._exchange)
if sys.argv[3] == "folder":
    with files.atomic_folder(path, 0) as folder:
        for name in "ab":
            (folder / name).write_text("new")
else:
    with files.atomic_file(path, 0, previous=path.with_name("previous")) as file:
        file.write(b"new")
print(steps)
"""


def run(at: int, path: Path, *what: str) -> int:
    done = subprocess.run([sys.executable, "-c", STEPS, str(at), str(path), *what], check=False, capture_output=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
    return int(done.stdout or 0)


def content(folder: Path) -> list[str]:
    return [f"{file.name} {file.read_text()}" for file in sorted(folder.iterdir())]


def test_a_folder_killed_at_every_step_is_the_old_or_the_new(tmp_path):
    old, new = ["a old"], ["a new", "b new"]
    seen = set()
    for at in range(1, 20):
        place = tmp_path / str(at)
        (place / "set").mkdir(parents=True)
        (place / "set" / "a").write_text("old")
        finished = run(at, place / "set", "folder")
        found = content(place / "set")
        assert found in (old, new)
        seen.add(tuple(found))
        with atomic_folder(place / "set", 0) as folder:
            (folder / "a").write_text("old")
        assert content(place / "set") == old
        assert [path.name for path in place.iterdir()] == ["set"]  # leftovers are swept
        if finished:
            break
    assert finished >= 5
    assert len(seen) == 2


def test_a_file_killed_at_every_step_is_there_or_the_one_before_it_is(tmp_path):
    seen = set()
    for at in range(1, 20):
        place = tmp_path / str(at)
        atomic_write(place / "last", b"old")
        finished = run(at, place / "last", "file")
        files = {path.name: path.read_text() for path in place.iterdir() if not path.name.startswith(".tmp-")}
        assert files in ({"last": "old"}, {"previous": "old"}, {"last": "new", "previous": "old"})
        seen.add(tuple(files.items()))
        remove_leftovers(place)
        assert {path.name for path in place.iterdir()} == set(files)
        if finished:
            break
    assert len(seen) == 3


def test_where_the_system_cannot_exchange_folders_two_renames_do(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a").write_text("old")
    assert run(0, tmp_path / "set", "folder", "plain") > 5
    assert content(tmp_path / "set") == ["a new", "b new"]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_what_others_are_writing_is_not_swept(tmp_path):
    with atomic_file(tmp_path / "x", 0) as file, temporary_sibling(tmp_path / "y", folder=True) as folder:
        file.write(b"x")
        dead = temporary_name(tmp_path / "z", "0" * 16)
        (dead / "deep").mkdir(parents=True)
        (tmp_path / ".tmp-mine").touch()  # not one of ours
        atomic_write(tmp_path / "other", b"1")
        assert not dead.exists()
        assert folder.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".tmp-mine", "other", "x"]


def test_nothing_is_removed_that_was_not_written_here(tmp_path):
    """Names of our pattern without the check sum, and links and pipes of any name, are somebody else's."""
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    (tmp_path / "place").mkdir()
    for name in (f".tmp-{'0' * 32}-notes", f".tmp-{'0123456789abcdef' * 2}-"):
        (tmp_path / "place" / name).mkdir()
        (tmp_path / "place" / name / "notes").write_text("mine")
    (tmp_path / "place" / f".tmp-{'a' * 32}-file").write_text("mine")
    temporary_name(tmp_path / "place" / "to folder", "1" * 16).symlink_to(tmp_path / "thesis", True)
    temporary_name(tmp_path / "place" / "to file", "2" * 16).symlink_to(tmp_path / "thesis" / "chapter.tex")
    os.mkfifo(temporary_name(tmp_path / "place" / "pipe", "3" * 16))
    inside = temporary_name(tmp_path / "place" / "ours", "4" * 16)
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path / "thesis", True)
    before = {path.name for path in (tmp_path / "place").iterdir()}
    atomic_write(tmp_path / "place" / "new", b"1")
    assert {path.name for path in (tmp_path / "place").iterdir()} == before - {inside.name} | {"new"}
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"


@pytest.mark.parametrize("name", ["x" * 245 + ".json", "花" * 83 + ".csv", "e\u0301" * 80, "x" * 255])
def test_names_as_long_as_the_system_allows(tmp_path, name):
    atomic_write(tmp_path / name, b"1")
    with atomic_folder(tmp_path / "set" / name, 0) as folder:
        (folder / name).write_text("1")
        assert contents(folder.parent) == []
    assert contents(tmp_path) == sorted([name, "set"])
    assert [path.name for path in (tmp_path / "set" / name).iterdir()] == [name]
    assert temporary_name(tmp_path / "a.png", "0" * 16).suffix == ".png"


@pytest.mark.parametrize("path", [".", "/"])
def test_a_path_without_a_name_cannot_be_replaced(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    says = r"cannot be replaced as a whole: name a file or folder in it, such as"
    with pytest.raises(InputError, match=says), atomic_folder(Path(path), 0):
        pass
    assert os.listdir() == []


def test_the_check_sum_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    assert file_sha256(tmp_path / "a").startswith("e3b0c44298fc1c14")

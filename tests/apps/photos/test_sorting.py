"""Photos are sorted into folders by label: copied or linked, never moved or overwritten, and completed by a rerun."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import encoded, photo

from deepemd.apps.photos import sorting
from deepemd.apps.photos.sorting import Sorter, safe_name
from deepemd.classifier.prediction import Prediction
from deepemd.data.unpacking import UnpackedPhoto
from deepemd.embedding.stream import Embedded
from deepemd.errors import InputError


@pytest.fixture
def photos(tmp_path) -> list[Path]:
    made = []
    for k in range(4):
        path = tmp_path / "new" / str(k % 2) / f"{k // 2}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(photo(30 + k, 20)))
        made.append(path)
    return made


def sort(folder: Path, photos: list[Path], labels: list[str], **settings: object) -> str:
    sorter = Sorter(folder, sorted(set(labels)), **settings)
    for file, label in zip(photos, labels, strict=True):
        sorter.add(file, Embedded(torch.zeros(1), 0), Prediction(label, 1.0, "x", np.zeros(2), 1.0, familiar=True))
    return sorter.sort()


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_photos_of_one_name_get_numbers_and_nothing_is_moved(photos, tmp_path):
    before = tree(tmp_path / "new")
    said = sort(tmp_path / "out", photos, ["rose", "rose", "tulip", "rose"])
    assert said == f"4 photos copied into {tmp_path / 'out'}"
    assert tree(tmp_path / "out") == {
        "rose/0.jpg": photos[0].read_bytes(), "rose/0-2.jpg": photos[1].read_bytes(),
        "rose/1.jpg": photos[3].read_bytes(), "tulip/1.jpg": photos[2].read_bytes(),
    }  # fmt: skip
    assert tree(tmp_path / "new") == before
    assert os.stat(tmp_path / "out" / "rose" / "0.jpg").st_mtime == os.stat(photos[0]).st_mtime


def test_a_second_run_changes_nothing(photos, tmp_path):
    labels = ["rose", "rose", "tulip", "rose"]
    sort(tmp_path / "out", photos, labels)
    before = tree(tmp_path / "out")
    said = sort(tmp_path / "out", photos, labels)
    assert "0 photos copied" in said
    assert "4 more were there already" in said
    assert tree(tmp_path / "out") == before


def test_a_file_of_somebody_else_stays(photos, tmp_path):
    theirs = tmp_path / "out" / "rose" / "0.jpg"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("theirs")
    (theirs.parent / "0-2.jpg").mkdir()
    sort(tmp_path / "out", photos[:1], ["rose"])
    assert theirs.read_text() == "theirs"
    assert (theirs.parent / "0-3.jpg").read_bytes() == photos[0].read_bytes()


@pytest.mark.parametrize("links", [False, True])
def test_a_stopped_run_is_completed_by_the_next(photos, tmp_path, monkeypatch, links):
    name = "_link" if links else "_copy"
    put, done = getattr(sorting, name), []

    def stopped(*words):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(words)
        return put(*words)

    labels = ["rose", "tulip", "rose", "tulip"]
    with monkeypatch.context() as patch:
        patch.setattr(sorting, name, stopped)
        with pytest.raises(KeyboardInterrupt):
            sort(tmp_path / "out", photos, labels, links=links)
    assert len(tree(tmp_path / "out")) == 2
    sort(tmp_path / "out", photos, labels, links=links)
    assert sorted(tree(tmp_path / "out").values()) == sorted(path.read_bytes() for path in photos)
    assert not [name for name in os.listdir(tmp_path / "out") if name.startswith(".")]  # no leftovers


def test_links_lead_to_the_photos(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = [path.relative_to(tmp_path) for path in photos]
    assert sort(Path("out"), relative, ["rose"] * 4, links=True) == "4 photos linked into out"
    made = sorted((tmp_path / "out" / "rose").iterdir())
    assert [path.name for path in made] == ["0-2.jpg", "0.jpg", "1-2.jpg", "1.jpg"]
    assert {os.path.realpath(path) for path in made} == set(map(str, photos))
    assert "4 more were there already" in sort(Path("out"), relative, ["rose"] * 4, links=True)
    assert len(list((tmp_path / "out" / "rose").iterdir())) == 4


def test_without_hard_links_photos_are_copied_all_the_same(photos, tmp_path, monkeypatch):
    def unsupported(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", unsupported)
    sort(tmp_path / "out", photos, ["rose"] * 4)
    assert sorted(tree(tmp_path / "out").values()) == sorted(path.read_bytes() for path in photos)


def test_labels_become_safe_names_of_their_own(photos, tmp_path):
    labels = ["../../evil", "a/b", "a:b", "CON"]
    sort(tmp_path / "out", photos, labels)
    made = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert made == ["CON_", "_._.._evil", "a_b", "a_b-2"]
    sort(tmp_path / "out", photos, labels)
    assert len(tree(tmp_path / "out")) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "out"]


def test_names_that_some_system_cannot_tell_apart_get_numbers(photos, tmp_path):
    sort(tmp_path / "out", photos[:2], ["Rose", "rose"])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["Rose", "rose-2"]


@pytest.mark.parametrize(
    "name", ["..", ".", "/", "a\x00b", "\u202egpj", "nul.txt", "x" * 300, "日本" * 100, " ", "a. "]
)
def test_safe_names(name):
    safe = safe_name(name)
    assert safe not in ("", ".", "..")
    assert len(safe.encode()) <= 120
    assert not set(safe) & set('/\\:*?"<>|\x00\u202e')
    assert safe == safe.strip()
    assert not safe.endswith(".")


@pytest.mark.parametrize("place", ["new", "new/sorted", "new/0", "link/x", ".", "support/rose"])
@pytest.mark.usefixtures("photos")
def test_a_folder_inside_of_what_is_read_is_refused(tmp_path, place, monkeypatch):
    (tmp_path / "link").symlink_to("new")
    (tmp_path / "support").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"sort_into: .* is inside of .*: choose a folder outside of it"):
        Sorter(Path(place), ["new", "rose"], apart_from=[tmp_path / "new", Path("support")])
    Sorter(Path("newer"), ["new"], apart_from=[tmp_path / "new"])


def test_what_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file: name a folder"):
        Sorter(tmp_path / "file", ["rose"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "rose").write_text("x")
    with pytest.raises(InputError, match="rose is a file"):
        Sorter(tmp_path / "out", ["rose"])


def test_a_photo_that_is_gone_or_in_a_zip(photos, tmp_path):
    zipped = UnpackedPhoto(photos[1], tmp_path / "new.zip", "a/../\u202eb.jpg")
    sort(tmp_path / "out", [zipped], ["rose"])
    assert tree(tmp_path / "out") == {"rose/_b.jpg": photos[1].read_bytes()}
    with pytest.raises(InputError, match="in a zip, to which no link can lead: leave --sort_links out"):
        sort(tmp_path / "out", [zipped], ["rose"], links=True)
    photos[0].unlink()
    with pytest.raises(InputError, match=r"0\.jpg: no longer there"):
        sort(tmp_path / "out", photos[:1], ["rose"])

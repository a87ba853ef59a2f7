"""Class folders become a classifier, with notes on everything that the user should know."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deepemd import FCN, DeepEMD, InputError, conv4
from deepemd.apps.photos.fitting import fit_photos


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes of five photos each."""
    for k in range(15):
        path = tmp_path / "photos" / ("milk", "oats", "yoghurt")[k % 3] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(k).integers(0, 80, (24, 30, 3)) + np.array([0, 80, 160])[k % 3]
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return tmp_path / "photos"


@pytest.fixture
def encoder(tmp_path: Path) -> str:
    torch.manual_seed(0)
    return str(DeepEMD(conv4(channels=8, pools=2), FCN(), image_size=16, resize=16).save(tmp_path / "encoder"))


def notes(folder: Path, encoder: str, tmp_path: Path, **settings: object) -> list[tuple[str, list[str]]]:
    fitted = fit_photos(folder, backbone=encoder, cache=tmp_path / "cache", **settings)
    return [(note.title, list(note.lines)) for note in fitted.notes]


def test_photos_without_fault_need_no_note(folder, encoder, tmp_path):
    assert notes(folder, encoder, tmp_path) == []
    assert notes(folder, encoder, tmp_path, unknown=0.1) == []


def test_too_few_photos_for_unknown_are_a_note(folder, encoder, tmp_path, capsys):
    ((title, lines),) = notes(folder, encoder, tmp_path, unknown=0.05)
    assert title == (
        "unknown is 0.05, which takes at least 19 photos in classes of two or more, and there are 15: no image is"
        " labelled 'unknown'. Add photos, or set unknown to 0.063 or more"
    )
    assert lines == []
    assert capsys.readouterr().err == ""  # commands print it
    assert notes(folder, encoder, tmp_path, unknown=0.063) == []


def test_a_class_named_unknown_is_an_error_only_beside_unknown(folder, encoder, tmp_path):
    (folder / "oats").rename(folder / "Unknown")
    assert notes(folder, encoder, tmp_path) == []
    with pytest.raises(InputError, match=r"a class is named 'Unknown', .*: rename the class"):
        notes(folder, encoder, tmp_path, unknown=0.1)


def test_a_class_without_photos_and_names_that_print_alike_are_notes(folder, encoder, tmp_path):
    (folder / "rice").mkdir()
    (folder / "rice" / "list.txt").write_text("nothing yet")
    (folder / "oats").rename(folder / unicodedata.normalize("NFC", "müsli"))
    (folder / "milk").rename(folder / unicodedata.normalize("NFD", "müsli"))
    found = notes(folder, encoder, tmp_path)
    assert ("1 class folder without a photo, left out of the classes:", ["rice"]) in found
    assert [title for title, _ in found if "sli" in title]


def test_a_class_without_photos_is_named_where_one_class_is_left(folder, encoder, tmp_path):
    for label in ("milk", "oats"):
        for photo in (folder / label).iterdir():
            photo.rename(photo.with_suffix(".nef"))
            (folder / label / photo.with_suffix(".nef").name).write_bytes(b"MM\0*")
    with pytest.raises(InputError, match=r"only the class 'yoghurt': at least two .*\(no photos in milk and oats\)"):
        notes(folder, encoder, tmp_path)

"""A check warns of photos that are nearly of one colour, on the terminal, in its JSON file and on its page."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import cut_out, photo
from PIL import Image

from deepemd import FCN, DeepEMD, conv4
from deepemd.apps.photos.check import check_classifier
from deepemd.apps.photos.fitting import fit_photos
from deepemd.commands.check import check


@pytest.fixture
def encoder(tmp_path: Path) -> str:
    torch.manual_seed(0)
    return str(DeepEMD(conv4(channels=8, pools=2), FCN(), image_size=16, resize=16).save(tmp_path / "encoder"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for label in "ab":
        (tmp_path / "photos" / label).mkdir(parents=True)
        for k in range(3):
            photo(60, 40).save(tmp_path / "photos" / label / f"{k}.png")
    return tmp_path / "photos"


def blank(folder: Path, encoder: str, tmp_path: Path) -> list[str]:
    found = check_classifier(fit_photos(folder, backbone=encoder, cache=tmp_path / "cache").classifier)
    assert [list(note.lines) for note in found.notes] == ([found.blank] if found.blank else [])
    assert found.as_dict()["nearly_of_one_colour"] == found.blank
    return [Path(name).name for name in found.blank]


def test_photos_of_nearly_one_colour_are_named(folder, encoder, tmp_path):
    noise = np.random.default_rng(0).integers(0, 3, (40, 60, 3)).astype(np.uint8)
    Image.fromarray(noise).save(folder / "a" / "night.png")
    Image.new("RGB", (500, 40), "teal").save(folder / "b" / "wall.jpg")
    Image.new("RGBA", (50, 40), (0, 0, 0, 0)).save(folder / "b" / "nothing.png")
    assert blank(folder, encoder, tmp_path) == ["night.png", "nothing.png", "wall.jpg"]


def test_photos_that_show_something_are_not_named(folder, encoder, tmp_path):
    for name, colour in {"black": (0, 0, 0), "white": (255, 255, 255), "grey": (128, 128, 128)}.items():
        cut_out(100, colour).save(folder / "a" / f"{name}.png")  # cut out on a transparent ground
    page = Image.new("L", (400, 300), 255)
    page.paste(0, (200, 100, 230, 110))  # a word on a sheet
    page.save(folder / "b" / "page.png")
    assert blank(folder, encoder, tmp_path) == []


def test_the_command_says_it_in_its_output_its_json_and_its_page(folder, encoder, tmp_path, capsys):
    Image.new("RGB", (50, 40), "teal").save(folder / "b" / "wall.png")
    out = tmp_path / "out"
    check(folder, backbone=encoder, out=out / "report.json", report=out, cache=tmp_path / "cache")
    said = "1 photo is nearly of one colour"
    assert said in capsys.readouterr().err
    content = json.loads((out / "report.json").read_text())
    assert [Path(name).name for name in content["nearly_of_one_colour"]] == ["wall.png"]
    assert any(note["note"].startswith(said) for note in content["notes"])
    assert said in (out / "check.html").read_text()

"""Classes that are saved as a zip and opened again, and zips that hold something else."""

import io
import json
import zipfile
from copy import copy
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from deepemd import FewShotClassifier, InputError
from deepemd.apps.samples import sample_classes, sample_queries
from deepemd.apps.web.models import MODEL, model_zip, with_model
from deepemd.apps.web.session import Visitor
from deepemd.model.pretrained import pretrained


@pytest.fixture(scope="module")
def model():
    return pretrained()


@pytest.fixture(scope="module")
def visitor(model) -> Visitor:
    made = Visitor(model)
    for name, photos in sample_classes().items():
        made = made.added(name, photos[:4])[0]
    return made.ask(sample_queries()[1])


@pytest.fixture(scope="module")
def saved(visitor, tmp_path_factory) -> bytes:
    return model_zip(visitor, tmp_path_factory.mktemp("uploads"))


def _open(visitor: Visitor, content: bytes, folder, name: str = "mine.zip") -> Visitor:
    path = folder / "upload"
    path.write_bytes(content)
    try:
        return with_model(visitor, path, name, folder)
    finally:
        path.unlink()
        assert list(folder.iterdir()) == []


def _zip(**files: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return made.getvalue()


def _parts(saved: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(saved)) as archive:
        return {name.split("/")[1]: archive.read(name) for name in archive.namelist()}


def test_what_is_saved_is_opened_with_the_same_classes_photos_and_answers(model, visitor, saved, tmp_path):
    asked = Visitor(model).ask(sample_queries()[1])
    opened = _open(asked, saved, tmp_path)
    assert opened.names == tuple(sorted(visitor.names))
    assert {one.name: one.photos for one in opened.classes} == {one.name: one.photos for one in visitor.classes}
    assert opened.asked[0].prediction.probabilities == pytest.approx(visitor.asked[0].prediction.probabilities)
    assert opened.classifier.model_ is model  # which all visitors share
    more = opened.added("letter", sample_queries()[3:])[0].corrected(opened.asked[0].id, "letter")
    assert {one.name: one.photos for one in more.classes}["letter"] == 2


def test_the_zip_holds_the_folder_that_the_classifier_saves(saved, tmp_path):
    with zipfile.ZipFile(io.BytesIO(saved)) as archive:
        assert sorted(archive.namelist()) == [f"{MODEL}/config.json", f"{MODEL}/model.safetensors"]
        archive.extractall(tmp_path)
    loaded = FewShotClassifier.load(tmp_path / MODEL, cache=False)
    assert loaded.predict(sample_queries()[:3]).tolist() == ["temple", "flower", "portrait"]


def test_a_classifier_of_python_with_numbers_as_labels_is_opened(model, tmp_path):
    photos = [photo for several in sample_classes().values() for photo in several[:3]]
    classifier = FewShotClassifier(model, cache=False).fit(photos, np.repeat([10, 9, 8], 3))  # "10" comes before "8"
    classifier.save(tmp_path / "model")
    content = _zip(**{f"a__b__{path.name}": path.read_bytes() for path in (tmp_path / "model").iterdir()})
    (uploads := tmp_path / "uploads").mkdir()
    opened = _open(Visitor(model).ask(sample_queries()[0]), content, uploads)
    assert opened.names == ("10", "8", "9")
    assert opened.asked[0].prediction.label == "10"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "mine.zip: not a zip"),
        (b"PK\x03\x04 cut off", "mine.zip: not a zip"),
        (_zip(photo_dot_jpg=b"x"), "holds 0 folders of a model"),
        (_zip(config_dot_json=b"{}"), "holds 0 folders of a model"),
        (_zip(**{"..__config.json": b"{}", "..__model.safetensors": b""}), "points outside of it"),
        (_zip(**{"config.json": b"{", "model.safetensors": b""}), "config.json"),
        (_zip(**{"config.json": b'{"format": 1, "backbone": {}}', "model.safetensors": b""}), "without classes"),
        (
            _zip(**{"config.json": b'{"format": 1, "backbone": {}, "classifier": {}}', "model.safetensors": b""}),
            "another encoder",
        ),
        (
            _zip(**{f"{k}__{name}": b"" for k in "ab" for name in ("config.json", "model.safetensors")}),
            "holds 2 folders of a model",
        ),
    ],
)
def test_what_is_no_saved_classifier(model, tmp_path, content, says):
    with pytest.raises(InputError, match=says) as error:
        _open(Visitor(model), content, tmp_path)
    assert str(error.value).startswith("mine.zip: ")
    assert str(tmp_path) not in str(error.value)  # where the server keeps uploads is nobody's business


@pytest.mark.parametrize("part", ["weights", "photos", "names", "half"])
def test_what_was_damaged_or_made_up(model, saved, tmp_path, part):
    files = _parts(saved)
    config, weights = json.loads(files["config.json"]), files["model.safetensors"]
    if part == "weights":
        weights = weights[:-1000] + b"x" * 1000
    elif part == "half":
        weights = weights[: len(weights) // 2]
    elif part == "photos":
        config["classifier"]["examples"] = config["classifier"]["examples"][:-1]
    else:
        config["classifier"]["classes"] = ["a", "a\n", "b"]
    content = _zip(**{"config.json": json.dumps(config).encode(), "model.safetensors": weights})
    with pytest.raises(InputError, match=r"^mine.zip: ") as error:
        _open(Visitor(model), content, tmp_path)
    assert str(tmp_path) not in str(error.value)


@pytest.mark.parametrize(
    ("picture", "says"),
    [(b"no picture", "no small JPEG"), (b"\xff\xd8\xff\xe0", "a photo in it: "), (None, "no small JPEG")],
)
def test_pictures_that_no_classifier_saves(model, visitor, tmp_path, picture, says):
    if picture is None:
        file = io.BytesIO()
        Image.new("RGB", (8000, 8000)).save(file, "JPEG")
        picture = file.getvalue()
    made = copy(visitor.classifier)
    first, *others = made.support_.examples
    made.support_ = replace(made.support_, examples=(replace(first, picture=picture), *others))
    (uploads := tmp_path / "uploads").mkdir()
    content = model_zip(replace(visitor, classifier=made), uploads)
    with pytest.raises(InputError, match=says):
        _open(Visitor(model), content, uploads)


def test_a_model_with_other_settings_or_too_many_classes(model, saved, tmp_path, monkeypatch):
    fast = pretrained(fast=True)
    with pytest.raises(InputError, match="deepemd app --backbone FOLDER"):
        _open(Visitor(fast), saved, tmp_path)
    monkeypatch.setattr("deepemd.apps.web.models.MAX_CLASSES", 2)
    with pytest.raises(InputError, match="12 photos in 3 classes"):
        _open(Visitor(model), saved, tmp_path)


def test_nothing_is_saved_without_classes(model, tmp_path):
    with pytest.raises(InputError, match="no classes"):
        model_zip(Visitor(model), tmp_path)

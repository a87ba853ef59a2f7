"""A model goes to the hub and comes back, against a server of the test's own; without one, what to do is said."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_server import Hub, hub_server
from huggingface_hub import ModelCard, constants
from PIL import Image

from deepemd import FewShotClassifier
from deepemd.embedding.views import view_pictures
from deepemd.errors import InputError
from deepemd.model import DeepEMD
from deepemd.model.pretrained import pretrained
from deepemd.nodes import FCN, Grid, conv4


def _point_to(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_test")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with hub_server() as served:
        _point_to(served.url, monkeypatch, tmp_path)
        yield served


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _point_to("http://127.0.0.1:9", monkeypatch, tmp_path)  # the port that discards: nobody listens


@pytest.fixture
def model() -> DeepEMD:
    torch.manual_seed(0)
    return DeepEMD(conv4(channels=8, pools=3), FCN((2,)), image_size=32, resize=36).eval()


def test_what_is_uploaded_is_the_saved_folder_and_a_card(hub: Hub, model: DeepEMD, tmp_path: Path) -> None:
    where = model.push_to_hub("me/birds", commit_message="First birds")
    assert where.startswith(f"{hub.url}/me/birds/commit/")
    assert hub.messages == ["First birds"]
    files = hub.repositories["me/birds"]
    folder = model.save(tmp_path / "saved")
    assert {name: files[name] for name in files if name != "README.md"} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }
    card = ModelCard(files["README.md"].decode())
    assert card.data.license == "apache-2.0"
    assert card.data.pipeline_tag == "image-classification"
    assert card.data.library_name == "deepemd"
    assert 'DeepEMD.from_pretrained("me/birds")' in card.text


def test_what_was_uploaded_comes_back_by_its_name(hub: Hub, model: DeepEMD, tmp_path: Path) -> None:
    model.push_to_hub("me/birds")
    hub.repositories["me/birds"]["pytorch_model.bin"] = b"a pickle"
    images = torch.rand(2, 3, 32, 32)
    again = DeepEMD.from_pretrained("me/birds", cache_dir=tmp_path / "mine")
    assert again.config == model.config
    assert torch.equal(again.embed(images), model.embed(images))
    assert sorted(set(hub.fetched)) == ["config.json", "model.safetensors"]
    gridded = pretrained("me/birds", regions=Grid((2,)))
    assert gridded.regions == Grid((2,))
    assert not gridded.training
    grey = [np.full((40, 40, 3), value, np.uint8) for value in (20, 220)]
    assert FewShotClassifier("me/birds", cache=False).fit(grey, ["dark", "light"]).predict(grey[:1]) == ["dark"]


@pytest.mark.usefixtures("hub")
def test_a_fetched_model_needs_no_network(model: DeepEMD, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model.push_to_hub("me/birds")
    DeepEMD.from_pretrained("me/birds")
    _point_to("http://127.0.0.1:9", monkeypatch, tmp_path)
    assert DeepEMD.from_pretrained("me/birds").config == model.config


def test_a_folder_comes_before_a_name(
    hub: Hub, model: DeepEMD, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = model.save("me/birds")
    for name in ("me/birds", folder, tmp_path / "me" / "birds"):
        images = torch.rand(2, 3, 32, 32)
        assert torch.equal(DeepEMD.from_pretrained(name).embed(images), DeepEMD.load(folder).embed(images))
    assert hub.fetched == []


@pytest.mark.usefixtures("hub")
def test_a_name_that_nobody_has_is_explained() -> None:
    for load in (DeepEMD.from_pretrained, pretrained):
        with pytest.raises(InputError, match=r"me/nothing: there is no such folder here, .* the hub has no such name"):
            load("me/nothing")


def test_a_model_behind_a_licence_is_explained(hub: Hub, model: DeepEMD) -> None:
    model.push_to_hub("me/birds")
    hub.gated.add("me/birds")
    with pytest.raises(InputError, match=r"give it at https://huggingface\.co/me/birds, then run `hf auth login`"):
        pretrained("me/birds")


@pytest.mark.usefixtures("no_hub")
def test_what_is_installed_needs_no_network(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was trained: given one photo of each of 16 new classes, it finds the class of others."""
    monkeypatch.chdir(tmp_path)
    model = DeepEMD.from_pretrained("resnet12-miniimagenet")
    assert model.backbone.config == {"name": "resnet12"}
    rows = [row.split(",") for row in (shared_data / "miniimagenet" / "val.csv").read_text().split()[1:]]
    files = {label: [name for name, own in rows if own == label][:6] for label in sorted({label for _, label in rows})}
    with zipfile.ZipFile(shared_data / "miniimagenet" / "val.zip") as archive, torch.inference_mode():
        pictures = [Image.open(archive.open(files[label][k])).convert("RGB") for k in range(6) for label in files]
        nodes = model.embed(view_pictures(model, pictures).images)  # (96, 25, 640), the classes in turn
    found = [  # each of the six photos of a class is its example once
        model.match(nodes.roll(-16 * k, 0)[:16], nodes.roll(-16 * k, 0)[16:], 16).argmax(-1) for k in range(6)
    ]
    accuracy = (torch.stack(found) == torch.arange(80) % 16).double().mean()
    assert accuracy > 0.25, "of 16 classes; untrained weights find one of ten"
    (tmp_path / "resnet12-miniimagenet").mkdir()  # a folder of that name comes first
    with pytest.raises(InputError, match="no model here"):
        DeepEMD.from_pretrained("resnet12-miniimagenet")


@pytest.mark.usefixtures("no_hub")
def test_without_a_network_it_is_said_what_to_do(model: DeepEMD) -> None:
    with pytest.raises(InputError, match=r"no such folder here, and it cannot be fetched from the hub .* --local-dir"):
        DeepEMD.from_pretrained("me/birds")
    with pytest.raises(InputError, match="check the name and the network"):
        FewShotClassifier("facebook/dinov2-small").fit([np.zeros((9, 9, 3), np.uint8)] * 2, ["a", "b"])
    with pytest.raises(InputError, match=r"me/birds: cannot be uploaded to the hub .* save"):
        model.push_to_hub("me/birds")


def test_names_that_cannot_be_are_explained(model: DeepEMD, tmp_path: Path) -> None:
    for name in ("efficientnet-lite1", "a/b/c", "me/two words"):
        with pytest.raises(
            InputError,
            match=r"neither a folder here, nor installed \(resnet12-miniimagenet is\), nor a name on the hub",
        ):
            pretrained(name)
    (tmp_path / "model.pth").touch()
    with pytest.raises(InputError, match=r"model\.pth: a file; pass the folder"):
        pretrained(str(tmp_path / "model.pth"))
    with pytest.raises(InputError, match="no model here"):
        DeepEMD.from_pretrained(tmp_path / "nothing")
    with pytest.raises(InputError, match="cannot be uploaded"):
        model.push_to_hub("me/two words", token="hf_test")


def test_weights_of_others_need_their_licence(hub: Hub) -> None:
    model = DeepEMD(torch.nn.Conv2d(3, 8, 8, stride=8), image_size=32, resize=32)
    with pytest.raises(InputError, match=r"license is missing: .* the encoder \(torch\.nn\.modules\.conv\.Conv2d\)"):
        model.push_to_hub("me/own")
    assert hub.repositories == {}
    model.push_to_hub("me/own", license="cc-by-4.0")
    assert ModelCard(hub.repositories["me/own"]["README.md"].decode()).data.license == "cc-by-4.0"

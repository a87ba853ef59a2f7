"""Models by one word, and encoders of one's own: any module that returns maps.

Tests deepemd.nodes.efficientnet, deepemd.nodes.custom.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deepemd import FewShotClassifier
from deepemd.errors import InputError
from deepemd.model import DeepEMD
from deepemd.model.pretrained import pretrained
from deepemd.nodes import FCN, Grid, Sampling, conv4


class Shared(nn.Module):
    """An encoder of somebody: batch norm, dropout, one convolution used twice under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 8, stride=8)
        self.norm = nn.BatchNorm2d(6)
        self.drop = nn.Dropout(0.5)
        self.mix = self.again = nn.Conv2d(6, 6, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.again(self.drop(self.mix(self.norm(self.first(images)))))


class Vector(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(len(shape)))


def own(seed: int = 0) -> Shared:
    torch.manual_seed(seed)
    return Shared()


def test_a_module_is_an_encoder() -> None:
    module = own()
    model = DeepEMD(module, image_size=40, resize=40, mean=(0.0,) * 3, std=(1.0,) * 3).eval()
    images = noise(2, 3, 40, 40)
    assert model.backbone.channels == 6
    torch.testing.assert_close(model.embed(images), module(images).flatten(2).transpose(1, 2))
    assert model.boxes([[40, 40]]).shape == (1, 25, 4)


def test_a_module_is_left_as_it_was() -> None:
    module = own().train()
    module.norm.eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    DeepEMD(module, image_size=40, resize=40)
    assert [part.training for part in module.children()] == [True, False, True, True]
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_a_module_for_photos_has_imagenets_settings() -> None:
    module = own().train()
    model = pretrained(module, regions=Sampling(4))
    assert module.training
    assert not model.training
    assert (model.image_size, model.resize, model.regions) == (224, 224, Sampling(4))
    assert model.config["mean"] == [0.485, 0.456, 0.406]
    assert pretrained(model).config == model.config


def test_a_module_of_ones_own_is_saved_and_read_back(tmp_path: Path) -> None:
    model = DeepEMD(own(), FCN((2,)), image_size=40, resize=40)
    model.embed(noise(2, 3, 40, 40))  # moves the running statistics
    folder = model.eval().save(tmp_path / "own")
    images = noise(3, 3, 40, 40)
    for load in (DeepEMD.load, DeepEMD.from_pretrained):
        again = load(folder, backbone=own(seed=1))
        assert torch.equal(again.embed(images), model.embed(images))
        assert again.config == model.config
    with pytest.raises(
        InputError, match=r"Shared, of which only the weights are saved; .*load\(folder, backbone=module\)"
    ):
        DeepEMD.load(folder)
    with pytest.raises(InputError, match="another architecture"):
        DeepEMD.load(folder, backbone=nn.Conv2d(3, 6, 8, stride=8))


def test_modules_that_return_no_map_are_explained() -> None:
    with pytest.raises(InputError, match=r"Vector returns a tensor \(1, 3\) for one image: maps \(1, C, h, w\)"):
        DeepEMD(Vector())
    with pytest.raises(InputError, match=r"cannot encode a \(1, 3, 84, 84\) image"):
        DeepEMD(nn.Conv2d(4, 8, 3))
    with pytest.raises(InputError, match="backbone is a str"):
        DeepEMD("resnet12")  # type: ignore[arg-type]


def test_a_classifier_over_ones_own_encoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Conv2d(3, 8, 32, stride=32)
    images = [np.full((60, 50, 3), colour, np.uint8) for colour in ((200, 30, 30), (30, 30, 200), (190, 40, 30))]
    classifier = FewShotClassifier(module, cache=False).fit(images[:2], ["red", "blue"])
    assert classifier.predict(images).tolist() == ["red", "blue", "red"]
    folder = classifier.save(tmp_path / "classifier")
    with pytest.raises(InputError, match="backbone=module"):
        FewShotClassifier.load(folder)
    again = FewShotClassifier.load(folder, cache=False, backbone=nn.Conv2d(3, 8, 32, stride=32))
    np.testing.assert_array_equal(again.predict_proba(images), classifier.predict_proba(images))


def test_a_saved_model_by_its_folder(tmp_path: Path) -> None:
    model = DeepEMD(conv4(channels=8, pools=3), FCN((2,)), image_size=32, resize=36)
    folder = model.save(tmp_path / "model")
    assert pretrained(str(folder)).config == model.config
    assert pretrained(folder, regions=Grid((2,))).regions == Grid((2,))
    with pytest.raises(InputError, match="side is 3"):
        pretrained(folder, side=3)


# -- models of transformers ---------------------------------------------------


@pytest.fixture
def dinov2(tmp_path: Path) -> Path:
    """A tiny DINOv2 as it is published: weights, config.json, preprocessor_config.json."""
    transformers = pytest.importorskip("transformers", reason="pip install 'deepemd[transformers]'")
    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14
    )
    transformers.Dinov2Model(config).save_pretrained(tmp_path / "dinov2")
    return process(tmp_path / "dinov2")


def process(folder: Path, **changed: Any) -> Path:
    """Write what is published beside DINOv2."""
    published = {
        "crop_size": {"height": 224, "width": 224},
        "do_center_crop": True,
        "do_normalize": True,
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.3, 0.4],
        "size": {"shortest_edge": 256},
    }
    content = {key: value for key, value in {**published, **changed}.items() if value is not None}
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    return folder


def test_a_transformer_by_its_folder(dinov2: Path, tmp_path: Path) -> None:
    model = pretrained(str(dinov2))
    assert not model.training
    assert (model.image_size, model.resize) == (224, 256)
    assert model.config["mean"] == [0.5, 0.4, 0.3]
    assert model.config["std"] == [0.2, 0.3, 0.4]
    images = noise(2, 3, 224, 224)
    assert model.embed(images).shape == (2, 49, 32)
    assert pretrained(dinov2, side=4).embed(images).shape == (2, 16, 32)
    assert pretrained(dinov2, regions=Grid((2,))).embed(images).shape == (2, 4, 32)
    assert torch.equal(pretrained(model.save(tmp_path / "saved")).embed(images), model.embed(images))
    with pytest.raises(InputError, match=r"returns a BaseModelOutputWithPooling .* from its folder"):
        DeepEMD(model.backbone.model)
    with pytest.raises(InputError, match=r"a model of transformers, not of deepemd: .*pretrained\(\) loads it"):
        DeepEMD.load(dinov2)


@pytest.mark.parametrize(
    ("changed", "image_size", "resize"),
    [
        ({"size": {"height": 224, "width": 224}, "crop_size": None, "do_center_crop": None}, 224, 224),  # DINOv3, ViT
        ({"size": 224, "crop_size": None, "do_center_crop": None}, 224, 224),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875, "crop_size": None}, 224, 256),  # ConvNeXt
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875, "crop_size": None}, 384, 384),
        ({"do_center_crop": False}, 256, 256),
        ({"size": None, "crop_size": None}, 224, 224),
    ],
)
def test_sizes_are_those_of_the_processor(dinov2: Path, changed: dict[str, Any], image_size: int, resize: int) -> None:
    model = pretrained(process(dinov2, **changed))
    assert (model.image_size, model.resize) == (image_size, resize)


def test_without_a_processors_file_imagenets_settings_are_taken_aloud(dinov2: Path) -> None:
    (dinov2 / "preprocessor_config.json").unlink()
    with pytest.warns(UserWarning, match=r"preprocessor_config\.json is missing: .* 224 x 224"):
        model = pretrained(dinov2)
    assert (model.image_size, model.config["std"]) == (224, [0.229, 0.224, 0.225])


def test_a_damaged_processors_file_is_explained(dinov2: Path) -> None:
    for changed in ({"image_mean": [0.5]}, {"image_std": [0, 1, 1]}, {"size": {"longest_edge": 9}}, {"size": "big"}):
        with pytest.raises(InputError, match=r"preprocessor_config\.json: image_mean, .* cannot be understood"):
            pretrained(process(dinov2, **changed))
    (dinov2 / "preprocessor_config.json").write_text("[]")
    with pytest.raises(InputError, match=r"preprocessor_config\.json: damaged, it holds a list"):
        pretrained(dinov2)


def test_a_folder_of_another_kind_is_explained(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    process(tmp_path)
    with pytest.raises(InputError, match="model_type is 'bert': choose one of"):
        pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"hidden": 1}')
    with pytest.raises(InputError, match="format None"):
        pretrained(tmp_path)


def test_a_classifier_over_a_transformer(dinov2: Path, tmp_path: Path) -> None:
    images = [np.full((60, 50, 3), colour, np.uint8) for colour in ((200, 30, 30), (30, 30, 200))]
    classifier = FewShotClassifier(str(dinov2), cache=tmp_path / "cache").fit(images, ["red", "blue"])
    assert classifier.predict(images).tolist() == ["red", "blue"]
    again = FewShotClassifier.load(classifier.save(tmp_path / "classifier"), cache=False)
    np.testing.assert_array_equal(again.predict_proba(images), classifier.predict_proba(images))

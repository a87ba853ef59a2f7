"""A saved model: what is written and read again, and how damage is explained.

Tests deepemd.model.loading.
"""

import json
from pathlib import Path

import pytest
import torch

from deepemd.errors import InputError
from deepemd.model import DeepEMD
from deepemd.nodes import FCN, conv4


@pytest.fixture
def model() -> DeepEMD:
    torch.manual_seed(0)
    return DeepEMD(conv4(channels=8, pools=3), FCN((2,)), image_size=32, resize=36, temperature=10.0)


def draw(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(len(shape)))


def test_saving_and_loading_gives_the_same_model(model: DeepEMD, tmp_path: Path) -> None:
    model.embed(draw(4, 3, 32, 32))  # moves the running statistics
    model.eval()
    again = DeepEMD.load(model.save(tmp_path / "a" / "model"))
    assert again.config == model.config
    assert not again.training
    assert torch.equal(again.embed(draw(4, 3, 32, 32)), model.embed(draw(4, 3, 32, 32)))
    assert sorted(path.name for path in (tmp_path / "a" / "model").iterdir()) == ["config.json", "model.safetensors"]


def test_half_the_size_for_passing_on(model: DeepEMD, tmp_path: Path) -> None:
    model.embed(draw(4, 3, 32, 32))  # moves the running statistics
    whole, half = model.save(tmp_path / "whole"), model.save(tmp_path / "half", half=True)
    one, other = (json.loads((folder / "config.json").read_text()) for folder in (half, whole))
    assert one.pop("weights_sha256") != other.pop("weights_sha256")
    assert one == other
    again = DeepEMD.load(half)
    for name, values in model.state_dict().items():
        rounded_values = (
            values.half().to(values.dtype) if values.ndim > 1 else values
        )  # statistics and scales stay as they are
        assert torch.equal(again.state_dict()[name], rounded_values), name
    assert all(parameter.dtype == torch.float32 for parameter in again.parameters())
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (whole, half)]
    rounded = sum(values.numel() for values in model.state_dict().values() if values.ndim > 1)
    assert sizes[0] - sizes[1] == pytest.approx(2 * rounded, abs=100)  # but for the list of their places
    next(model.parameters()).data[0] = 1e6
    with pytest.raises(InputError, match=r"half: backbone\.\S+ holds values too large for float16"):
        model.save(half, half=True)
    assert DeepEMD.load(half).config == model.config


def test_damaged_folders_are_explained(model: DeepEMD, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model here"):
        DeepEMD.load(tmp_path / "nothing")
    folder = model.save(tmp_path / "model")
    weights, config = (folder / "model.safetensors").read_bytes(), (folder / "config.json").read_text()

    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(InputError, match=r"model\.safetensors: damaged or truncated"):
        DeepEMD.load(folder)
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"model\.safetensors: damaged or truncated"):
        DeepEMD.load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model\.safetensors: cannot be read"):
        DeepEMD.load(folder)

    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text(config[:40])
    with pytest.raises(InputError, match=r"config\.json: damaged, not JSON"):
        DeepEMD.load(folder)
    (folder / "config.json").write_text('{"format": 99}')
    with pytest.raises(InputError, match="format 99"):
        DeepEMD.load(folder)
    (folder / "config.json").write_text('{"format": 1}')
    with pytest.raises(InputError, match="not the settings of a model"):
        DeepEMD.load(folder)
    for key, value in (("mean", [0.5]), ("std", "none"), ("temperature", "hot"), ("weights", "heavy"), ("resize", 1)):
        (folder / "config.json").write_text(json.dumps({**json.loads(config), key: value}))
        with pytest.raises(InputError, match="not the settings of a model"):
            DeepEMD.load(folder)


def test_weights_of_another_architecture_are_refused(model: DeepEMD, tmp_path: Path) -> None:
    folder = model.save(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["backbone"]["channels"] = 16
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"blocks\.0\.conv\.weight is \(8, 3, 3, 3\) .* \(16, 3, 3, 3\)"):
        DeepEMD.load(folder)
    config["backbone"] = {"name": "resnet12"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"another architecture: .* from the same model$"):
        DeepEMD.load(folder)


def test_saving_where_it_cannot_be_says_so(model: DeepEMD, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        model.save(tmp_path / "file" / "model")

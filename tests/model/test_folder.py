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


def test_weights_that_changed_are_refused_unless_the_check_sum_is_removed(model: DeepEMD, tmp_path: Path) -> None:
    folder = model.save(tmp_path / "model")
    other = DeepEMD(conv4(channels=8, pools=3), FCN((2,)), image_size=32, resize=36).save(tmp_path / "other")
    (folder / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    with pytest.raises(
        InputError, match=r"model\.safetensors: damaged, or not the file .* remove 'weights_sha256' from"
    ):
        DeepEMD.load(folder)
    config = json.loads((folder / "config.json").read_text())
    del config["weights_sha256"]  # as in folders of earlier versions
    (folder / "config.json").write_text(json.dumps(config))
    assert DeepEMD.load(folder).config == model.config


def test_files_of_others_are_not_replaced(model: DeepEMD, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for path, text in (("a/config.json", '{"model_type": "vit"}'), ("b/model.safetensors", "theirs")):
        (tmp_path / path).write_text(text)
        with pytest.raises(InputError, match=r"would be replaced: choose another folder"):
            model.save((tmp_path / path).parent)
        assert (tmp_path / path).read_text() == text
    assert model.save(model.save(tmp_path / "c")) == tmp_path / "c"


NUMBERS = [None, "84", [84], {}, True, float("nan"), float("inf"), -1, 10**400, 1e300]


@pytest.mark.parametrize("name", ["image_size", "resize", "max_side", "temperature", "floor", "context", "mean", "std"])
@pytest.mark.parametrize("value", NUMBERS, ids=lambda value: type(value).__name__)
def test_every_setting_is_checked_with_its_name_and_value(name: str, value: object) -> None:
    for bad in [value] if name not in ("mean", "std") else [value, [value] * 3, [0.5, 0.5], [0.5] * 4]:
        if name == "mean" and bad == [-1] * 3:
            continue
        with pytest.raises(InputError, match=rf"^{name} is .*: it must be"):
            DeepEMD(conv4(channels=8), **{name: bad})  # type: ignore[arg-type]
    for name, bad in (("std", [0.0, 1, 1]), ("resize", 10**9), ("image_size", 0), ("image_size", 84.5)):
        with pytest.raises(InputError, match=f"{name} is .*: it must be"):
            DeepEMD(conv4(channels=8), **{name: bad})  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["image_size", "resize", "mean", "std", "temperature", "floor", "backbone", "regions"])
@pytest.mark.parametrize(
    "value", [*NUMBERS, {"name": ["x"]}, {"name": "fcn", "pyramid": "21"}, {"name": "conv4", "x": 1}]
)
def test_a_config_with_any_value_is_an_input_error(model: DeepEMD, tmp_path: Path, key: str, value: object) -> None:
    folder = model.save(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    if value == 10**400:
        text = json.dumps({**config, key: 7}).replace(f'"{key}": 7', f'"{key}": {"9" * 400}')
    else:
        text = json.dumps({**config, key: value})
    (folder / "config.json").write_text(text)
    if key == "regions" and value == {"name": "fcn", "pyramid": "21"}:
        key = "pyramid"
    with pytest.raises(InputError, match=r"config\.json: "):
        DeepEMD.load(folder)

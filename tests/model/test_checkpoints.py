"""Checkpoints of the authors' kind through ``deepemd convert``: their features come out, and nothing is executed.

Tests deepemd.commands.convert.
"""

import os
import pickle
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from deepemd import DeepEMD, InputError, cli, resnet12
from deepemd.model.checkpoints import convert
from deepemd.model.folder import read_tensors


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    """The weights with which the golden values were computed."""
    state = {}
    for name, tensor in resnet12().state_dict().items():
        z = np.random.default_rng(zlib.crc32(name.encode()) + 1).standard_normal(tuple(tensor.shape))
        z = np.asarray(z, dtype=np.float32)
        if z.ndim == 4:
            z *= np.float32(np.sqrt(2 / (z.shape[1] * z.shape[2] * z.shape[3])))
        elif name.endswith("running_var"):
            z = 1 + np.float32(0.1) * np.abs(z)
        else:
            z = name.endswith("weight") + np.float32(0.1) * z
        state[name] = tensor if name.endswith("num_batches_tracked") else torch.from_numpy(z)
    return state


def _write(path: Path, state: dict, key: str | None, legacy: bool = False) -> Path:
    torch.save({key: state} if key else state, path, _use_new_zipfile_serialization=not legacy)
    return path


def _features_are_the_authors(golden: Path, folder: Path) -> None:
    model = DeepEMD.load(folder)
    values = np.load(golden / "resnet12.npz")
    with torch.no_grad():
        maps = model.backbone(torch.from_numpy(values["images"])).numpy()
    assert np.abs(maps - values["features"]).max() < 1e-5 * np.abs(values["features"]).max()


@pytest.mark.parametrize(
    ("key", "prefix", "legacy"),
    [
        ("params", "encoder.", False),
        ("params", "module.encoder.", True),
        ("params", "", False),
        ("state_dict", "module.", False),
        ("model", "encoder.", True),
        (None, "module.encoder.", False),
        (None, "", True),
    ],
)
def test_every_naming(weights, tmp_path, capsys, key, prefix, legacy):
    path = _write(tmp_path / "max_acc.pth", {prefix + name: t for name, t in weights.items()}, key, legacy)
    assert cli.main(["convert", str(path), str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == f"model in {tmp_path / 'out'}\n"
    tensors = read_tensors(tmp_path / "out")
    assert tensors.keys() == {f"backbone.{name}" for name in weights}
    assert all(torch.equal(tensors[f"backbone.{name}"], tensor) for name, tensor in weights.items())


def test_safetensors_and_a_pyramid(golden, weights, tmp_path):
    save_file({f"encoder.{name}": t.clone() for name, t in weights.items()}, tmp_path / "w.safetensors")
    assert cli.main(["convert", str(tmp_path / "w.safetensors"), str(tmp_path / "out"), "--regions", "fcn:2,1"]) == 0
    _features_are_the_authors(golden, tmp_path / "out")
    model, values = DeepEMD.load(tmp_path / "out"), np.load(golden / "resnet12.npz")
    with torch.no_grad():
        nodes = model.regions(model.backbone, torch.from_numpy(values["images"])).numpy()  # (3, 30, 640)
    expected = values["pyramid_2_1"][:, :, 0].transpose(0, 2, 1)
    assert np.abs(nodes - expected).max() < 1e-5 * np.abs(expected).max()


def test_entries_outside_the_encoder_are_listed(golden, weights, tmp_path, capsys):
    state = {f"module.encoder.{name}": t for name, t in weights.items() if "num_batches" not in name}
    state["module.fc.weight"] = torch.zeros(64, 640)
    state["layer1.0.conv1.weight"] = torch.zeros(1)  # the same name without the prefix is another weight
    torch.save({"params": state, "epoch": 7, "optimizer": {"state": {}}}, tmp_path / "c.pth")
    assert cli.main(["convert", str(tmp_path / "c.pth"), str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.splitlines()[:-1] == [
        "left out: module.fc.weight",
        "left out: layer1.0.conv1.weight",
        "left out: epoch",
        "left out: optimizer",
        "absent, set to 0: 16 counters num_batches_tracked, which nothing uses",
    ]
    _features_are_the_authors(golden, tmp_path / "out")


def test_half_precision_becomes_single(weights, tmp_path):
    path = _write(
        tmp_path / "half.pth", {n: t.half() if t.is_floating_point() else t for n, t in weights.items()}, None
    )
    state = convert(path).model.backbone.state_dict()
    for name, tensor in weights.items():
        assert state[name].dtype == tensor.dtype
        torch.testing.assert_close(state[name], tensor, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"layer3.0.bn2.bias": None}, r"encoder\.layer3\.0\.bn2\.bias is missing, 1 of 96"),
        ({"layer1.0.conv1.weight": torch.zeros(64, 1, 3, 3)}, r"conv1\.weight is \(64, 1, 3, 3\), but \(64, 3, 3, 3\)"),
        ({"layer2.0.bn1.weight": torch.full((160,), float("nan"))}, r"layer2\.0\.bn1\.weight holds NaN"),
        ({"layer2.0.bn1.weight": [1.0]}, r"layer2\.0\.bn1\.weight is a list and not a tensor"),
        ({"layer1.1.conv1.weight": torch.zeros(64, 64, 3, 3)}, r"has no encoder\.layer1\.1\.conv1\.weight"),
    ],
)
def test_another_network_is_refused(weights, tmp_path, change, says):
    state = {f"encoder.{name}": t for name, t in {**weights, **change}.items() if t is not None}
    path = _write(tmp_path / "c.pth", state, "params")
    with pytest.raises(InputError, match=says) as caught:
        convert(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"params": {"conv1.weight": torch.zeros(2)}}, r"no weights of a ResNet-12: it holds 'conv1.weight'"),
        ({}, "it holds nothing"),
        ([torch.zeros(2)], "holds a list"),
        (torch.zeros(2), "holds a Tensor"),
    ],
)
def test_other_content_is_named(tmp_path, content, says):
    torch.save(content, tmp_path / "c.pth")
    with pytest.raises(InputError, match=says):
        convert(tmp_path / "c.pth")


class Malicious:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


class Shell(Malicious):
    """A command of the shell, from a module that PyTorch refuses in other words."""

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, capsys, legacy):
    trap = tmp_path / "executed"
    path = _write(tmp_path / "evil.pth", {"w": Malicious(trap)}, "params", legacy)
    assert cli.main(["convert", str(path), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "evil.pth: refused, because it holds more than tensors" in error
    assert "Traceback" not in error
    path.write_bytes(pickle.dumps({"w": Malicious(trap)}, protocol=2))  # a plain pickle
    with pytest.raises(InputError):
        convert(path)
    torch.save({"params": Shell(trap)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(InputError, match=r"evil\.pth: refused, because it holds more than tensors"):
        convert(path)
    assert not trap.exists()
    assert not (tmp_path / "out").exists()
    torch.load(_write(path, {"w": Malicious(trap)}, None, legacy), weights_only=False)
    assert trap.exists()  # the trap works


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_that_cannot_be_read(tmp_path, weights, suffix):
    path = tmp_path / f"c{suffix}"
    with pytest.raises(InputError, match=r"c\.\w+: cannot be read"):
        convert(path)
    few = {name: weights[name].clone() for name in list(weights)[:5]}
    save_file(few, path) if suffix == ".safetensors" else torch.save(few, path)
    whole = path.read_bytes()
    for content in (b"", whole[:50], whole[: len(whole) // 2], b"not a checkpoint " * 100):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"c\.\w+: damaged"):
            convert(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match=r"c\.\w+: cannot be read"):
        convert(path)


def test_the_oldest_format_is_refused(tmp_path):
    """torch.save wrote tar archives before 2018; PyTorch reads them only by executing what they hold."""
    for name in ("storages", "tensors", "pickle"):
        (tmp_path / name).write_bytes(pickle.dumps(0, protocol=2))
    with tarfile.open(tmp_path / "c.pth", "w") as tar:
        for name in ("storages", "tensors", "pickle"):
            tar.add(tmp_path / name, name)
    with pytest.raises(InputError, match="refused"):
        convert(tmp_path / "c.pth")


def test_a_model_that_is_there_is_not_overwritten(weights, tmp_path, capsys):
    path = _write(tmp_path / "c.pth", weights, None)
    words = ["convert", str(path), str(tmp_path / "out")]
    assert cli.main(words) == 0
    assert cli.main(words) == 2
    assert "pass --force" in capsys.readouterr().err
    assert cli.main([*words, "--force"]) == 0


def test_a_pyramid_that_repeats_the_map_is_refused(weights, tmp_path, capsys):
    path = _write(tmp_path / "c.pth", weights, None)
    assert cli.main(["convert", str(path), str(tmp_path / "out"), "--regions", "fcn:5,2,1"]) == 2
    assert "pyramid level 5 repeats" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

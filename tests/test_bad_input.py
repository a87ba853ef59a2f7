"""Every kind of bad input, given to the command line as a user would: one clear message, exit code 2, no traceback.

Tests deepemd.errors, deepemd.data.photos.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deepemd import FCN, DeepEMD, cli, conv4, resnet12


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three classes of six images for each split."""
    rng = np.random.default_rng(0)
    for split in ("base", "val", "novel"):
        for c in range(3):
            folder = tmp_path / "photos" / split / f"{split}{c}"
            folder.mkdir(parents=True)
            for k in range(6):
                Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(folder / f"{k}.png")
    return tmp_path / "photos"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return DeepEMD(conv4(channels=8, pools=3), FCN(), image_size=16, resize=16).save(tmp_path_factory.mktemp("model"))


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    """A saved model of its own for each test, to be spoilt."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Call the command line, which must refuse; what it says in its last lines."""
    monkeypatch.setenv("DEEPEMD_DATA", str(tmp_path / "data"))

    def call(*words: object) -> str:
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as stop:
            code = int(stop.code or 0)
        err = capsys.readouterr().err
        assert code == 2, err
        assert "Traceback" not in err
        return err.replace("\n", " ")

    return call


FEW = ("--n_way", 3, "--n_query", 3, "--n_episodes", 4)
THREE = ("--recipe.validation.n_way", 3, "--recipe.validation.n_query", 3)
SMALL = (
    "--recipe.model.backbone", "conv4", "--recipe.model.channels", 8, "--recipe.model.pools", 3,
    "--recipe.model.image_size", 16, "--recipe.model.resize", 16, "--recipe.epochs", 1, "--recipe.batch_size", 9,
    "--recipe.validation.n_way", 3, "--recipe.validation.n_query", 3, "--recipe.validation.n_episodes", 4,
)  # fmt: skip


def test_images(refused, photos, model):
    victim = photos / "novel" / "novel1" / "3.png"
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 2])
    assert "novel/novel1/3.png: truncated or damaged image" in refused("evaluate", model, photos, *FEW)
    victim.write_text("a shopping list")
    assert "novel/novel1/3.png: not an image" in refused("evaluate", model, photos, *FEW)
    victim.unlink()
    victim.symlink_to(photos / "gone.png")
    assert "novel1/3.png: cannot be read" in refused("pretrain", photos, photos.parent / "out", *SMALL)
    victim.unlink()
    message = refused("evaluate", model, photos, "--n_way", 3, "--n_query", 5, "--n_episodes", 4)
    assert "class 'novel1' has 5 images, but 1 support + 5 query images are asked for: lower n_shot" in message


def test_more_ways_than_classes(refused, photos, model):
    says = "n_way: 4 classes asked for, but there are 3: lower n_way"
    assert says in refused("evaluate", model, photos, "--n_way", 4, "--n_query", 3)
    out = photos.parent / "out"
    assert says in refused("pretrain", photos, out, *SMALL, "--recipe.validation.n_way", 4)
    assert says in refused("metatrain", model, photos, out, "--recipe.n_way", 4, "--recipe.n_query", 3, *THREE)
    assert not out.exists()  # nothing is in the way of the next try


def test_data_sets(refused, tmp_path, model):
    assert "unknown data set 'tulips'" in refused("pretrain", "tulips", tmp_path / "out")
    assert "unknown data set 'tulips'" in refused("evaluate", model, "tulips")
    assert "miniimagenet: not prepared in" in refused("evaluate", model, "miniimagenet")
    assert "cannot be looked up (File name too long)" in refused("data", "verify", "x" * 300)
    (tmp_path / "mini").mkdir()
    (tmp_path / "mini" / "val.csv").write_text("filename,label\ngone.jpg,n01\n")
    message = refused("data", "prepare", "miniimagenet", "--source", tmp_path / "mini")
    assert "val.csv:2: names gone.jpg, which is not in" in message
    assert not list((tmp_path / "data").glob("*"))


def test_models(refused, photos, model, tmp_path):
    weights = model / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    for command in (("evaluate", model, photos), ("metatrain", model, photos, tmp_path / "out")):
        assert "model.safetensors: damaged or truncated" in refused(*command)
    DeepEMD(resnet12(), FCN()).save(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", weights)
    assert "weights of another architecture: backbone.blocks.0.conv.weight" in refused("evaluate", model, photos)
    weights.write_bytes(whole)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "backbone": {"name": "vgg16"}}))
    assert "backbone is 'vgg16': choose one of conv4, efficientnet-lite0, resnet12, transformers" in refused(
        "evaluate", model, photos
    )
    (model / "config.json").write_text("{")
    assert "config.json: damaged, not JSON" in refused("evaluate", model, photos)


def test_checkpoints(refused, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main([str(word) for word in ("pretrain", photos, out, *SMALL)]) == 0
    capsys.readouterr()
    (out / "result.json").unlink()
    whole = (out / "last.ckpt").read_bytes()
    (out / "last.ckpt").write_bytes(whole[: len(whole) // 2])
    assert "last.ckpt: damaged or truncated" in refused("pretrain", photos, out, *SMALL, "--resume")
    assert "recipe.lr: the run in" in refused("pretrain", photos, out, *SMALL, "--resume", "--recipe.lr", 0.5)
    assert "holds a run already: pass --resume" in refused("pretrain", photos, out, *SMALL)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--recipe.weight_decay", -1), "weight_decay is -1"),
        (("--recipe.label_smoothing", 2), "label_smoothing is 2"),
        (("--recipe.model.regions", "fcn:2"), "pyramid level 2 repeats the 2 x 2 map"),
        (("--recipe.model.pools", 4, "--recipe.model.image_size", 8), "images of 8 x 8 are too small"),
        (("--recipe.validation.every", 2), "validation.every is 2: it must divide the 1 epochs"),
        (("--seed", -1), "seed is -1"),
        (("--recipe.model.backbone", "vgg"), "Got value: vgg"),
        (("--recipe.epochs", "many"), "Got value: many"),
    ],
)
def test_settings(refused, photos, tmp_path, options, says):
    assert says in refused("pretrain", photos, tmp_path / "out", *SMALL, *options)
    assert not (tmp_path / "out").exists()


def test_places_that_cannot_be_written(refused, photos, model, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert "file: cannot be written" in refused("pretrain", photos, tmp_path / "file", *SMALL)
    assert "file: cannot be written" in refused("evaluate", model, photos, *FEW, "--out", tmp_path / "file" / "r.json")
    assert "file: cannot be written" in refused("data", "prepare", photos, "--root", tmp_path / "file")


LIMITED = """
import resource, sys
from deepemd.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, 3_000))
raise SystemExit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX")
def test_a_disk_that_takes_no_more(photos, tmp_path):
    command = [sys.executable, "-c", LIMITED, "data", "prepare", str(photos), "--root", str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "a quota or file size limit was reached; about 1 MB" in done.stderr
    assert "no half-written file is left" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


UNREADABLE = """
import os
from deepemd.data import prepare
from deepemd.errors import InputError
if os.geteuid() == 0:  # root may read everything: go on as an ordinary user
    os.seteuid(65534)
try:
    prepare("mine", "photos", root="data")
except InputError as error:
    print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="access rights are POSIX")
def test_a_class_folder_that_cannot_be_read_is_not_left_out(photos, tmp_path):
    """It is refused, not skipped in silence with its class."""
    (tmp_path / "data").mkdir()
    tmp_path.chmod(0o755)
    (photos / "novel" / "novel2").chmod(0)
    command = [sys.executable, "-c", UNREADABLE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    (photos / "novel" / "novel2").chmod(0o755)
    assert "novel/novel2: the folder cannot be read (Permission denied)" in done.stdout, done.stderr
    assert not list((tmp_path / "data").iterdir())

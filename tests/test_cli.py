"""The command line as a user meets it: what it teaches, what it refuses, and with which exit code.

Tests deepemd.__main__, deepemd.commands.app, deepemd.commands.console, deepemd.commands.data, deepemd.parsing,
deepemd.progress.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deepemd import FCN, DeepEMD, cli, conv4


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Two classes of eight images for each split, which differ in colour."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split in ("base", "val", "novel"):
        for c in range(5):
            folder = root / split / f"{split}{c}"
            folder.mkdir(parents=True)
            for k in range(8):
                colour = np.eye(3)[c % 3] * (60 + 40 * c)
                noise = rng.integers(0, 60, (48, 40, 3))
                Image.fromarray((colour + noise).clip(0, 255).astype(np.uint8)).save(folder / f"{k}.png")
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    return DeepEMD(conv4(pools=3), FCN(), image_size=32, resize=32).save(tmp_path_factory.mktemp("model"))


def _run(capsys, *words: object) -> tuple[int, str, str]:
    try:
        code = cli.main([str(word) for word in words])
    except SystemExit as stop:  # jsonargparse leaves so
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def test_overview(capsys):
    for words in ((), ("--help",), ("-h",)):
        code, out, _ = _run(capsys, *words)
        assert code == 0
        assert all(name in out for name in cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_every_option(capsys, name):
    code, out, _ = _run(capsys, *name.split(), "--help")
    assert code == 0
    assert out.startswith(f"usage: deepemd {name}")
    assert "required, type" in out or "default" in out


@pytest.mark.parametrize("name", ["pretrain", "metatrain", "evaluate", "demo"])
def test_print_config_is_a_config(capsys, tmp_path, name):
    given = {
        "pretrain": ["glyphs", "out"],
        "metatrain": ["m", "glyphs", "out"],
        "evaluate": ["m", "glyphs"],
        "demo": [],
    }[name]
    code, printed, _ = _run(capsys, name, *given, "--seed", "7", "--print_config")
    assert code == 0
    assert "seed: 7" in printed
    path = tmp_path / "config.yaml"
    path.write_text(printed)
    assert _run(capsys, name, *given, "--config", path, "--print_config")[1] == printed


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["frobnicate"], "there is no command 'frobnicate'"),
        (["data"], "'data' is not a complete command"),
        (["data", "frob"], "'data frob' is not a complete command"),
        (["evaluate"], "required"),
        (["evaluate", "m", "glyphs", "--n_way", "many"], "n_way"),
        (["evaluate", "m", "glyphs", "--nway", "5"], "nway"),
        (["evaluate", "/no/such/folder", "glyphs"], "/no/such/folder: neither a folder here, nor installed"),
        (["data", "verify", "nosuch"], "unknown data set 'nosuch'"),
        (["data", "prepare", "miniimagenet", "--source", "/no/such.zip"], "/no/such.zip"),
        (["warmup", "--sizes", "25,small"], "sizes: '25,small' is not a list"),
        (["pretrain", "glyphs", "out", "--recipe.epochs", "0"], "epochs is 0"),
        (["pretrain", "glyphs", "out", "--config", "/no/such.yaml"], "/no/such.yaml"),
    ],
)
def test_bad_input_is_one_clear_message_and_exit_code_2(capsys, words, says, tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPEMD_DATA", str(tmp_path))
    code, _, err = _run(capsys, *words)
    assert code == 2
    assert says in err
    assert "Traceback" not in err


def test_an_error_of_a_file_that_nothing_explains_is_one_line(capsys, monkeypatch):
    def broken(*_, **__):
        raise PermissionError(13, "Permission denied", "/some/file")

    monkeypatch.setattr("deepemd.data.prepared", broken)
    code, _, err = _run(capsys, "data", "list")
    assert (code, err) == (2, "deepemd: error: /some/file: Permission denied: check the path and the disk\n")


def test_evaluate_a_folder_of_photos(capsys, photos, model, tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPEMD_DATA", str(tmp_path / "data"))
    options = ["--n_way", 3, "--n_query", 4, "--n_episodes", 20]
    code, out, _ = _run(
        capsys, "evaluate", model, photos, *options, "--out", tmp_path / "report.json", "--picture", tmp_path / "m.png"
    )
    assert code == 0
    assert (tmp_path / "m.png").stat().st_size > 10_000
    assert "DeepEMD minus it" in out
    assert "novel: 5 classes, 40 images" in out
    assert (tmp_path / "report.json").is_file()


@pytest.mark.parametrize("half", [False, True])  # Ctrl-C before a picture is written, or within it
def test_ctrl_c_while_a_picture_is_drawn_keeps_the_report(capsys, photos, model, tmp_path, monkeypatch, half):
    from matplotlib.figure import Figure

    def interrupted(_, file, **__):
        if half:
            Path(file).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, "savefig", interrupted)
    monkeypatch.setenv("DEEPEMD_DATA", str(tmp_path / "data"))
    out = tmp_path / "out"
    words = ["--n_way", 3, "--n_query", 4, "--n_episodes", 5, "--out", out / "r.json", "--picture", out / "m.png"]
    code, _, err = _run(capsys, "evaluate", model, photos, *words)
    assert (code, "cannot be written" in err) == (130, False)
    assert sorted(path.name for path in out.iterdir()) == ["r.json"]
    assert "accuracy" in (out / "r.json").read_text()


def test_a_split_that_no_data_set_has(capsys, model):
    code, _, err = _run(capsys, "evaluate", model, "miniimagenet:validation")
    assert (code, "split: miniimagenet:validation asks for the split 'validation'; choose one of base, val" in err) == (
        2,
        True,
    )


def test_many_settings_make_one_table_and_curves(capsys, photos, model, tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPEMD_DATA", str(tmp_path / "data"))
    options = ["--n_way", "2,3,9", "--n_shot", "1,2", "--n_query", 3, "--n_episodes", 10, "--regions", "grid:2,1"]
    files = ["--out", tmp_path / "r.json", "--curve", tmp_path / "c.png", "--picture", tmp_path / "m.png"]
    method = ["--method", "deepemd,deepemd-average,protonet-cosine"]
    code, out, err = _run(capsys, "evaluate", model, f"{photos}:val,{photos}", *options, *method, *files)
    assert code == 0
    assert err.count("left out") == 4
    assert f"{photos}:novel, 9-way 2-shot: n_way: 9 classes asked for, but there are 5" in err
    found = json.loads((tmp_path / "r.json").read_text())["evaluations"]
    assert [
        (e["fingerprint"]["name"].split("/")[1], e["episodes"]["n_way"], e["episodes"]["n_shot"]) for e in found
    ] == [(split, way, shot) for split in ("val", "novel") for way in (2, 3) for shot in (1, 2)]
    assert all(e["regions"] == {"name": "grid", "levels": [2, 1], "ratio": 2.0} for e in found)
    assert set(found[0]["difference"]) == {"DeepEMD, mean over shots", "ProtoNet (cosine)"}
    assert "DeepEMD minus it" in out
    assert min((tmp_path / name).stat().st_size for name in ("c.png", "m.png")) > 10_000


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--n_way", 6], "n_way: 6 classes asked for, but there are 5"),
        (["--n_way", "6,7", "--n_query", 3], "n_way: 6 classes asked for, but there are 5"),
        (["--n_shot", "1;5"], "n_shot is '1;5': pass a number, or several separated by commas"),
        (["--method", "deepemd,best"], "method: there is no 'best'; choose from all, deepemd"),
        (["--regions", "cells"], "regions is 'cells': write fcn, fcn:2,1"),
        (["--regions", "sampling:0"], "patches is 0: it must be from 1 to 4096"),
        (["--regions", "grid:500", "--n_query", 3], "levels is 500: it must be from 1 to 64"),
        (["--sfc.lr", "-1"], "sfc.lr is -1.0: it must be above 0"),
        (["--n_query", 8], "has 8 images, but 1 support + 8 query images are asked for"),
        (["--n_episodes", 0], "n_episodes is 0: it must be at least 1"),
        (["--split", "all"], "has no split 'all'; choose one of base, val, novel"),
    ],
)
def test_episodes_that_cannot_be_drawn(capsys, photos, model, tmp_path, monkeypatch, options, says):
    monkeypatch.setenv("DEEPEMD_DATA", str(tmp_path / "data"))
    code, _, err = _run(capsys, "evaluate", model, photos, *options)
    assert code == 2
    assert says in err


def test_an_empty_argument_is_not_the_current_folder(capsys, photos, monkeypatch):
    monkeypatch.chdir(photos)
    for words in (
        ["check", photos, "--out="],
        ["predict", "--support", photos, "--query", ""],
        ["check", ""],
        ["predict", "--query", photos, "--support", ""],
    ):
        code, _, err = _run(capsys, *words)
        assert (code, "the path is empty (a variable that is not set?)" in err) == (2, True)
    assert not (photos / "predictions.csv").exists()


def test_data_commands(capsys, photos, tmp_path):
    root = ["--root", tmp_path]
    assert "nothing is prepared" in _run(capsys, "data", "list", *root)[1]
    code, out, _ = _run(capsys, "data", "prepare", photos, *root)
    assert code == 0
    assert "5 classes, 40 images" in out
    listed = _run(capsys, "data", "list", *root)[1]
    name = next(tmp_path.glob("*/store.json")).parent.name
    assert [line.split("  ")[0] for line in listed.splitlines() if line.startswith(name)] == [name] * 3  # whole
    assert "all unchanged since they were prepared" in _run(capsys, "data", "verify", photos, *root)[1]
    store = next(tmp_path.glob("*/store.json")).parent
    damaged = store / "val.bin"
    damaged.write_bytes(damaged.read_bytes()[:-10] + b"0123456789")
    code, _, err = _run(capsys, "data", "verify", store)
    assert code == 2
    assert "is damaged" in err


def test_a_source_that_is_not_read_is_reported(capsys, photos, tmp_path):
    prepare = ["data", "prepare", "mine", "--root", tmp_path, "--source"]
    assert "not read" not in _run(capsys, *prepare, photos)[2]
    code, out, err = _run(capsys, *prepare, photos / "val")
    assert (code, "mine/novel: 5 classes, 40 images" in out) == (0, True)
    assert f"mine was already prepared, from {photos}; {photos / 'val'} was not read: pass --force" in err
    code, out, err = _run(capsys, *prepare, photos / "val", "--force")
    assert (code, "mine/all: 5 classes, 40 images" in out, err) == (0, True, "")


def test_bad_images_are_skipped_and_listed(capsys, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "mine" / "a").mkdir(parents=True)
    for k in range(2):
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(tmp_path / "mine" / "a" / f"{k}.png")
    (tmp_path / "mine" / "a" / "list.png").write_text("milk")
    prepare = ["data", "prepare", tmp_path / "mine", "--root", tmp_path / "root"]
    code, _, err = _run(capsys, *prepare)
    assert (code, "or pass --skip-bad" in err) == (2, True)
    for option in ("--skip-bad", "--skip_bad=true"):
        code, out, err = _run(capsys, *prepare, option, "--force")
        assert code == 0
        assert "1 classes, 2 images" in out
        assert "all: a/list.png: not an image that Pillow can read" in err
        assert "1 bad images were left out" in err


def test_warmup_says_what_was_there_and_where_it_lies(capsys):
    assert _run(capsys, "warmup", "--sizes", "5,9", "--dtype", "float32")[0] == 0
    code, out, err = _run(capsys, "warmup", "--sizes", "5,9", "--dtype", "float32")
    assert code == 0
    assert "transport, float32, up to 16 x 16         already there" in err
    assert "warm start, float32, up to 16 x 16        already there" in err
    assert out.startswith("0 compiled, 2 already there")
    assert " files, " in out


def test_demo_refuses_a_folder_that_holds_something_else(capsys, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    code, _, err = _run(capsys, "demo", "--out", tmp_path)
    assert code == 2
    assert "is not empty" in err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_installed_command():
    done = subprocess.run(
        [sys.executable, "-m", "deepemd.cli", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("deepemd 0.")

"""Closed and full outputs, other encodings and environments: a command does its work, and ends without a traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.skipif(os.name != "posix", reason="descriptors and /dev/full are POSIX")


END = ("csv", "html", "json")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of three photos, with names in other letters."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for k, name in enumerate(("rosé", "花")):
        (root / name).mkdir()
        for i in range(3):
            pixels = np.eye(3)[k] * 150 + np.kron(rng.integers(0, 100, (5, 6, 3)), np.ones((8, 8, 1)))
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i}.png")
    return root


def shell(command: str, folder: Path, **environment: str) -> tuple[int, str]:
    """Run a line of bash, in which deepemd stands for the command; return its exit code and standard error."""
    line = f'deepemd() {{ "{sys.executable}" $FLAGS -m deepemd "$@"; }}\nset -o pipefail\n{command}'
    done = subprocess.run(
        ["bash", "-c", line], check=False, capture_output=True, cwd=folder, env={**os.environ, **environment}
    )
    err = done.stderr.decode()
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    return done.returncode, err


@pytest.mark.parametrize("command", ["", "--version", "predict --help", "data list", "frobnicate", "evaluate m"])
def test_no_command_breaks_where_its_output_goes_nowhere(tmp_path, command):
    expected = 2 if command in ("frobnicate", "evaluate m") else 0
    for where in (">&-", ">&- 2>&- <&-", "| head -1", "| true", "2>/dev/full"):
        assert shell(f"deepemd {command} {where}", tmp_path)[0] == expected, where
    code, err = shell(f"deepemd {command} >/dev/full", tmp_path)
    assert (code, "standard output could not be written (No space left on device)" in err) == (
        (2, False) if expected else (74, True)
    )


@pytest.mark.parametrize("where", [">/dev/full 2>/dev/full", ">&- 2>&- <&-", "| head -1"])
def test_the_files_of_a_result_are_written_all_the_same(photos, tmp_path, where):
    shell(f"deepemd predict --support '{photos}' --query '{photos}' --report . {where}", tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["predictions.csv", "predictions.html", "predictions.json"]
    assert len(json.loads((tmp_path / "predictions.json").read_text())["predictions"]) == 6


@pytest.mark.parametrize("kilobytes", [1, 60])  # for the rows, the page and the model
def test_where_a_file_may_not_be_as_large_the_same_command_finishes_later(photos, tmp_path, kilobytes):
    command = f"deepemd predict --support '{photos}' --query '{photos}' --out out --report out --save out/model"
    code, err = shell(f"ulimit -f {kilobytes}; {command}", tmp_path)
    assert (code, "a quota or file size limit was reached" in err, ".tmp-" in err) == (2, True, False)
    assert {path.name for path in (tmp_path / "out").iterdir()} <= {"predictions.partial.csv", "model"}
    code, err = shell(command, tmp_path)
    assert (code, "6 photos are among the photos of the classes" in err) == (0, True)
    names = sorted(path.name for path in (tmp_path / "out").rglob("*"))
    assert names == ["config.json", "model", "model.safetensors", *(f"predictions.{end}" for end in END)]


def test_names_in_other_letters_where_the_locale_is_c(photos, tmp_path):
    c = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = f"deepemd predict --support '{photos}' --query '{photos}/花' --out ergebnis-ö --report ergebnis-ö"
    assert shell(command, tmp_path, **c)[0] == 0
    assert (tmp_path / "ergebnis-ö" / "predictions.html").is_file()
    assert "花" in (tmp_path / "ergebnis-ö" / "predictions.csv").read_text(encoding="utf-8-sig")


def test_folders_whose_names_are_as_long_as_the_system_allows(photos, tmp_path):
    name = "花" * 85
    (tmp_path / name).mkdir()
    for folder in photos.iterdir():
        (tmp_path / name / folder.name).symlink_to(folder)
    assert shell(f"deepemd data prepare {name} --root {name}/s", tmp_path)[0] == 0
    assert len(list((tmp_path / name / "s").glob("*/store.json"))) == 1


def test_names_that_are_no_text_are_passed_on(photos, tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes((photos / "花" / "0.png").read_bytes())
    command = f"deepemd predict --support '{photos}' --query $'caf\\xe9.png' --out $'o\\xe9'"
    assert shell(command, tmp_path)[0] == 0
    assert (tmp_path / os.fsdecode(b"o\xe9") / "predictions.csv").is_file()


@pytest.mark.parametrize("command", ["predict", "pretrain", "evaluate", "data prepare"])
def test_the_help_is_the_same_without_docstrings(tmp_path, command):
    assert shell(f"diff <(deepemd {command} --help) <(FLAGS=-OO deepemd {command} --help)", tmp_path) == (0, "")


def test_a_removed_folder_is_one_clear_message_and_a_missing_home_a_warning(photos, tmp_path):
    (tmp_path / "gone").mkdir()
    code, err = shell(f"cd gone; rmdir ../gone; deepemd check '{photos}'", tmp_path)
    assert (code, err) == (2, "deepemd: error: the current folder no longer exists: change to another one with cd\n")
    code = "import os; os.getuid = lambda: 54321; from deepemd.cli import main; raise SystemExit(main())"
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "DEEPEMD_CACHE")}
    done = subprocess.run(
        [sys.executable, "-c", code, "predict", "--support", photos, "--query", photos, "--out", tmp_path],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert (done.returncode, "Traceback" in done.stderr, done.stderr.count("set DEEPEMD_CACHE")) == (0, False, 1)

"""``deepemd learn``: corrected labels are taught to a saved classifier, which is replaced in one step.

Tests deepemd.commands.learn, deepemd.commands.predict.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pictures import encoded, photo

from deepemd import FCN, DeepEMD, cli, conv4
from deepemd.classifier.classifier import PhotoClassifier


@pytest.fixture
def run(capsys):
    def _run(*words: object) -> tuple[int, str, str]:
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capsys.readouterr()

    return _run


@pytest.fixture
def place(tmp_path, run, monkeypatch) -> Path:
    """A folder with photos of two classes, new ones, a classifier of them, and predictions."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    DeepEMD(conv4(channels=8, pools=2), FCN(), image_size=16, resize=16).save(tmp_path / "encoder")
    for name in ("photos/a", "photos/b", "new"):
        (tmp_path / name).mkdir(parents=True)
        for k in range(3):
            (tmp_path / name / f"{k}.jpg").write_bytes(encoded(photo(40, 30)))
    words = ["--support", "photos", "--query", "new", "--backbone", "encoder", "--out", "out", "--save", "models/m"]
    assert run("predict", *words)[0] == 0
    (tmp_path / "models" / "m" / "notes.txt").write_text("mine")
    return tmp_path


def correct(place: Path, *labels: str, column: str = "correct_label") -> Path:
    path = place / "out" / "predictions.csv"
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    for row, label in zip(rows, labels, strict=False):
        row[column] = label or row[column]
    with path.open("w", newline="", encoding="cp1252") as file:  # as a spreadsheet would save it
        writer = csv.DictWriter(file, rows[0], delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
    return path


def counts(model: Path) -> dict[str, int]:
    classifier = PhotoClassifier.load(model)
    return dict(zip(classifier.classes_.tolist(), classifier.support_.count.tolist(), strict=True))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_corrections_are_learned_once(place, run):
    path, model = correct(place, "a", "", "c"), place / "models" / "m"
    code, told, err = run("learn", "models/m", path)
    assert (code, err) == (0, "")
    assert told.startswith("2 photos added; new: c. The classifier has 3 classes and 8 photos\nmodel: models/m")
    assert counts(model) == {"a": 4, "b": 3, "c": 1}
    assert (model / "notes.txt").read_text() == "mine"
    assert sorted(os.listdir(place / "models")) == ["m"]
    before = content(model)
    assert run("learn", "models/m", path)[:2] == (
        0, "0 photos added; 2 there already. The classifier has 3 classes and 8 photos\nmodel: models/m\n",
    )  # fmt: skip
    assert content(model) == before
    code, _, _ = run("predict", "--model", "models/m", "--query", "new/2.jpg", "--out", "again")
    assert (code, json.loads(Path("again/predictions.json").read_text())["predictions"][0]["label"]) == (0, "c")


def test_an_edited_label_is_learned_beside_its_json_only(place, run):
    first = json.loads((place / "out" / "predictions.json").read_text())["predictions"][0]["label"]
    path = correct(place, {"a": "b", "b": "a"}[first], column="label")
    shutil.copytree(place / "models", place / "models 2")
    assert run("learn", "models/m", path)[0] == 0
    assert sum(counts(place / "models" / "m").values()) == 7
    (place / "out" / "predictions.json").unlink()
    code, _, err = run("learn", "models 2/m", path)
    assert (code, "no row is corrected" in err) == (2, True)


def test_predictions_are_learned_from_any_folder(place, run, monkeypatch):
    path = correct(place, "a", "", "c")
    (place / "out" / "new").mkdir()
    (place / "out" / "new" / "0.jpg").write_text("another file of this name, beside the table")
    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")
    code, _, err = run("learn", "../models/m", path)
    assert (code, err) == (0, "")
    assert counts(place / "models" / "m") == {"a": 4, "b": 3, "c": 1}


def test_out_leaves_the_old_classifier(place, run):
    path, before = correct(place, "a"), content(place / "models" / "m")
    assert run("learn", "models/m", path, "--out", "models/new")[0] == 0
    assert content(place / "models" / "m") == before
    assert counts(place / "models" / "new") == {"a": 4, "b": 3}
    code, _, err = run("learn", "models/m", path, "--out", "models/new")
    assert (code, "already exists" in err, "--force" in err) == (2, True, True)
    assert run("learn", "models/m", path, "--out", "models/new", "--force")[0] == 0
    (place / "theirs").mkdir()
    (place / "theirs" / "config.json").write_text('{"port": 80}')
    code, _, err = run("learn", "models/m", path, "--out", "theirs", "--force")
    assert (code, "of another program" in err) == (2, True)


def test_with_nothing_new_out_is_written_all_the_same(place, run):
    path = correct(place, "a")
    assert run("learn", "models/m", path)[0] == 0
    assert run("learn", "models/m", path, "--out", "copy")[0] == 0
    assert counts(place / "copy") == {"a": 4, "b": 3}


def test_absent_photos_are_listed_and_the_rest_is_learned(place, run):
    path = correct(place, "a", "b", "a")
    (place / "new" / "1.jpg").unlink()
    (place / "new" / "2.jpg").write_text("milk")
    code, told, err = run("learn", "models/m", path)
    assert (code, told.startswith("1 photo added.")) == (2, True)
    assert "line 3: new/1.jpg: there is no such file" in err
    assert "new/2.jpg: not an image" in err
    assert counts(place / "models" / "m") == {"a": 4, "b": 3}


@pytest.mark.parametrize("when", ["before", "within"])
def test_ctrl_c_loses_nothing(place, run, monkeypatch, when):
    path, before = correct(place, "a"), content(place / "models" / "m")
    save = PhotoClassifier.save

    def interrupted(self, folder, **settings):
        if when == "within":
            save(self, folder, **settings)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PhotoClassifier, "save", interrupted)
        assert run("learn", "models/m", path)[0] == 130
    assert content(place / "models" / "m") == before
    assert os.listdir(place / "models") == ["m"]
    assert run("learn", "models/m", path)[0] == 0


def test_a_second_run_at_the_same_time_is_refused(place, run):
    path, before = correct(place, "a"), content(place / "models" / "m")
    code = (
        "import sys; from pathlib import Path; from deepemd.results import output_lock\n"
        "with output_lock(Path('models/m').resolve()):\n    print('locked', flush=True)\n    sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        status, _, err = run("learn", "models/m", path)
        other.communicate()
    assert (status, "another run is writing there now" in err, "wait until it has ended" in err) == (2, True, True)
    assert content(place / "models" / "m") == before
    assert run("learn", "models/m", path)[0] == 0


def test_two_real_runs_at_once_lose_nothing(place, run):
    """One of them may be refused, and then learns when it is run again."""
    first, second = correct(place, "a"), place / "second.csv"
    second.write_text("image,correct_label\nnew/1.jpg,b\n")
    command = [sys.executable, "-m", "deepemd.cli", "learn", "models/m"]
    both = [subprocess.Popen([*command, path], stderr=subprocess.PIPE, text=True) for path in (first, second)]
    for process, path in zip(both, (first, second), strict=True):
        _, err = process.communicate()
        assert process.returncode == 0 or "another run is writing there now" in err
        if process.returncode:
            assert run("learn", "models/m", path)[0] == 0
    assert counts(place / "models" / "m") == {"a": 4, "b": 4}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["gone", "{csv}"], "model: gone: there is no such folder"),
        (["models/m", "gone.csv"], "corrections: gone.csv: there is no such CSV file"),
        (["models/m", "new/0.jpg"], "0.jpg: not a table of text"),
        (["models/m", "models"], "models: not a file: pass a CSV file"),
        (["encoder", "{csv}"], "encoder holds a model without classes"),
        ([".", "{csv}"], "holds the current folder, and is replaced as a whole"),
        (["models/m", "{csv}", "--out", "out/predictions.csv"], "is a file: name a folder"),
        (["models/m", "{csv}", "--label-column", "nix"], "label_column: out/predictions.csv has no column 'nix'"),
    ],
)
def test_what_does_not_fit_changes_nothing(place, run, words, says):
    correct(place, "a")
    before = content(place / "models" / "m")
    code, _, err = run("learn", *(word.replace("{csv}", "out/predictions.csv") for word in words))
    assert (code, says in err, "Traceback" in err) == (2, True, False)
    assert content(place / "models" / "m") == before


def test_a_model_behind_a_link_is_replaced_where_it_is(place, run):
    (place / "current").symlink_to("models/m")
    assert run("learn", "current", correct(place, "a"))[0] == 0
    assert (place / "current").is_symlink()
    assert counts(place / "models" / "m") == {"a": 4, "b": 3}


def test_predict_learns_corrections_on_the_fly(place, run):
    path = correct(place, "c", "a")
    words = ["--query", "new", "--backbone", "encoder", "--corrections", path]
    code, _, err = run("predict", "--support", "photos", *words, "--out", "again", "--save", "models/new")
    assert code == 0, err
    assert "corrections: 2 photos added; new: c. The classifier has 3 classes and 8 photos" in err
    rows = json.loads(Path("again/predictions.json").read_text())
    assert rows["classes"] == {"a": 4, "b": 3, "c": 1}
    assert rows["predictions"][0]["label"] == "c"
    assert counts(place / "models" / "new") == rows["classes"]
    code, _, _ = run("predict", "--model", "models/m", "--query", "new", "--corrections", path, "--out", "third")
    assert json.loads(Path("third/predictions.json").read_text())["classes"] == rows["classes"]
    assert counts(place / "models" / "m") == {"a": 3, "b": 3}  # as it was

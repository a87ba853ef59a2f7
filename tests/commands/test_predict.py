"""``deepemd predict`` and ``deepemd check`` on real photos: from tables and zips, with true labels, and what follows.

Tests deepemd.commands.check, deepemd.apps.reports.confusion.
"""

import csv
import json
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepemd import cli
from deepemd.apps.reports.confusion import Confusion

CLASSES = ("Asparagus", "Banana", "Cantaloupe", "Garlic")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Embeddings are kept for this module alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPEMD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def grocery(shared_data, tmp_path, monkeypatch) -> Path:
    """Real photos of four classes: three of each as support, four to classify, and three of another class."""
    found = [name for name in CLASSES if (shared_data / "grocery" / name).is_dir()]
    names = (found + sorted(p.name for p in (shared_data / "grocery").iterdir() if p.is_dir()))[: len(CLASSES) + 1]
    for k, name in enumerate(dict.fromkeys(names)):
        for n, photo in enumerate(sorted((shared_data / "grocery" / name).glob("*.jpg"))[:7]):
            place = "support" if n < 3 else "test"
            if k == len(CLASSES):
                place, name = "test", "stranger"
            (tmp_path / place / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(photo, tmp_path / place / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys):
    def _run(*words: object) -> tuple[int, str, str]:
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capsys.readouterr()

    return _run


def rows(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def listed(folder: str) -> list[str]:
    return sorted(str(path) for path in Path(folder).rglob("*.jpg"))


def pack(name: str, folder: str, top: str = "") -> str:
    with zipfile.ZipFile(name, "w") as file:
        for path in listed(folder):
            file.write(path, top + str(Path(path).relative_to(folder)))
    return name


def without_names(path: str) -> list[tuple[str, ...]]:
    return [tuple(value for key, value in row.items() if key != "image") for row in rows(path)]


def test_queries_in_class_folders_have_an_accuracy(grocery, run):
    code, told, err = run("predict", "--support", "support", "--query", "test", "--out", "out", "--report", "page")
    assert code == 0, err
    found = json.loads((grocery / "out" / "predictions.json").read_text())
    made = found["accuracy"]
    table = rows("out/predictions.csv")
    known = [row for row in table if row["true_label"] != "stranger"]
    right = sum(row["label"] == row["true_label"] for row in known)
    assert (made["right"], made["photos"]) == (right, len(known))
    assert made["accuracy"] >= 0.6
    assert made["interval95"][0] < made["accuracy"] < made["interval95"][1] or right == len(known)
    assert np.trace(made["confusion"]) == right
    assert made["no_class"] == {"stranger": 7}
    assert {one["true_label"] for one in found["predictions"]} == {*made["labels"], "stranger"}
    assert {one["correct"] for one in found["predictions"] if one["true_label"] == "stranger"} == {None}
    assert f"accuracy {made['accuracy']:.1%} ({right} of {len(known)} photos with a true label; 95 % interval" in told
    assert "7 photos have a true label that is no class, left out of the accuracy:\n  stranger: 7" in err
    with Image.open("page/predictions-confusion.png") as picture:
        assert min(picture.size) > 200
    page = (grocery / "page" / "predictions.html").read_text()
    assert '<table class="matrix">' in page or right == len(known)
    wrong = re.findall(r"wrong, its true label", page)
    assert len(wrong) == len(known) - right
    assert not re.search(r"correct</p>.*wrong, its true label", page, re.DOTALL)  # the wrong ones come first


def test_a_label_that_is_no_class_counts_as_unknown(grocery, run):
    assert run("predict", "--support", "support", "--query", "test", "--unknown", 0.1, "--out", "out")[0] == 0
    found = json.loads((grocery / "out" / "predictions.json").read_text())
    table = rows("out/predictions.csv")
    right = sum(row["label"] == {"stranger": "unknown"}.get(row["true_label"], row["true_label"]) for row in table)
    assert (found["accuracy"]["right"], found["accuracy"]["photos"]) == (right, len(table))
    assert (grocery / "out" / "predictions-confusion.png").is_file()


def test_photos_of_the_classes_do_not_raise_the_accuracy(grocery, run):
    shutil.copytree("support", "again")
    code, told, err = run("predict", "--support", "support", "--query", "again", "--out", "out")
    assert (code, "accuracy" in told) == (0, False)
    assert "12 photos are among the photos of the classes, left out of the accuracy:" in err
    assert not (grocery / "out" / "predictions-confusion.png").exists()


@pytest.mark.usefixtures("grocery")
def test_folders_of_other_names_say_nothing(run):
    shutil.copytree("test/Banana", "new/monday")
    code, told, _ = run("predict", "--support", "support", "--query", "new", "--out", "out")
    assert (code, "accuracy" in told, "true_label" in rows("out/predictions.csv")[0]) == (0, False, False)


def test_a_zip_a_table_and_a_folder_give_the_same(grocery, run):
    pack("support.zip", "support", "my photos/")
    pack("test.zip", "test")
    (grocery / "labels.csv").write_text(
        "Bild;Sorte\n" + "".join(f"{path};{Path(path).parent.name}\n" for path in listed("support")), encoding="utf-16"
    )
    (grocery / "new.csv").write_text("file,species\n" + "".join(f"{p},{Path(p).parent.name}\n" for p in listed("test")))
    named = ["--image-column", "Bild", "--label-column", "Sorte"]
    assert run("predict", "--support", "support", "--query", "test", "--out", "1")[0] == 0
    assert run("predict", "--support", "support.zip", "--query", "test.zip", "--out", "2")[0] == 0
    assert run("predict", "--support", "labels.csv", "--query", "test", "--out", "3", *named)[0] == 0
    assert run("predict", "--support", "support", "--query", "new.csv", "--out", "4")[0] == 0
    assert (
        without_names("1/predictions.csv") == without_names("2/predictions.csv") == without_names("3/predictions.csv")
    )
    assert rows("1/predictions.csv") == rows("4/predictions.csv")
    assert rows("2/predictions.csv")[0]["image"].startswith("test.zip!/Asparagus/")
    results = [json.loads((grocery / k / "predictions.json").read_text())["accuracy"]["accuracy"] for k in "1234"]
    assert len(set(results)) == 1
    told = [run("check", *words)[1] for words in (["support"], ["support.zip"], ["labels.csv", *named])]
    assert "cross-validated accuracy" in told[0]
    assert told[0] == told[1] == told[2]


def test_the_examples_of_a_saved_classifier_are_named_as_in_the_zip(grocery, run):
    pack("support.zip", "support")
    assert run("predict", "--support", "support.zip", "--query", "test", "--out", "out", "--save", "model")[0] == 0
    examples = json.loads((grocery / "model" / "config.json").read_text())["classifier"]["examples"]
    assert examples[0]["name"].startswith("support.zip!/Asparagus/")
    assert "/tmp" not in (grocery / "out" / "predictions.json").read_text().replace(str(grocery), "")


@pytest.mark.usefixtures("grocery")
def test_our_own_predictions_are_a_table_of_labels(run):
    assert run("predict", "--support", "support", "--query", "test", "--out", "out")[0] == 0
    code, told, err = run("check", "out/predictions.csv")
    assert code == 0, err
    assert "cross-validated accuracy" in told


def test_rows_that_lead_nowhere_are_listed_and_the_rest_goes_on(grocery, run):
    lines = [f"{path},{Path(path).parent.name}" for path in listed("support")]
    (grocery / "labels.csv").write_text("\n".join(["image,label", *lines, "gone.jpg,Banana", f"{lines[0]}", ""]))
    code, _, err = run("check", "labels.csv", "--out", "check.json")
    assert code == 2
    assert "labels.csv: line 14: gone.jpg: there is no such file" in err
    assert "labels.csv: 1 row names a photo again and is left out" in err
    assert "1 photo could not be read, as listed above; everything else is done" in err
    assert json.loads((grocery / "check.json").read_text())["photos"] == 12


def test_sort_into_and_label_next(grocery, run):
    options = ["--out", "out", "--report", "out", "--sort-into", "sorted", "--label-next", 5]
    code, told, err = run("predict", "--support", "support", "--query", "test", *options)
    assert code == 0, err
    table = {Path(row["image"]).name: row["label"] for row in rows("out/predictions.csv")}
    assert {Path(path).name: Path(path).parent.name for path in listed("sorted")} == table
    assert f"{len(table)} photos copied into sorted" in told
    chosen = rows("out/label_next.csv")
    assert [set(row) for row in chosen] == [{"image", "label", "suggested_label", "probability"}] * 5
    assert {row["label"] for row in chosen} == {""}
    page = (grocery / "out" / "predictions.html").read_text()
    assert "Photos to label next" in page
    assert all(row["image"] in page for row in chosen)
    code, told, _ = run("predict", "--support", "support", "--query", "test", *options, "--force", "--sort-links")
    assert (code, f"{len(table)} photos linked into sorted" in told) == (0, True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--sort-into", "test/sorted"], "sort_into: test/sorted is inside of"),
        (["--sort-into", "support"], "sort_into: support is inside of"),
        (["--sort-links"], "name a folder with --sort_into"),
        (["--label-next", 0], "label_next is 0: it must be at least 1"),
        (["--corrections", "gone.csv"], "gone.csv: there is no such file"),
        (["--image-column", "x", "--query", "labels.csv"], "image_column: labels.csv has no column 'x'"),
    ],
)
def test_options_that_do_not_fit(grocery, run, words, says):
    (grocery / "labels.csv").write_text("image,label\na.jpg,b\n")
    before = sorted(map(str, grocery.rglob("*")))
    code, _, err = run("predict", "--support", "support", "--out", "out", "--query", "test", *words)
    assert (code, says in err, "Traceback" in err) == (2, True, False)
    assert [path for path in sorted(map(str, grocery.rglob("*"))) if path != str(grocery / "out")] == before


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("labels.csv", b"image,label\n", "a header line and no rows"),
        ("labels.csv", b"image,label\nsupport/Banana,x\n", "none of its 1 rows has a photo and a label"),
        ("labels.xls", b"\xd0\xcf\x11\xe0", "a spreadsheet: save it as CSV"),
        ("labels.xlsx", b"PK\x03\x04", "labels.xlsx: not a readable workbook"),
        ("photos.zip", b"PK\x03\x04", "not a zip"),
        ("photos.dat", b"\x00\x01", "neither a folder, a zip nor a table"),
    ],
)
def test_support_that_is_none(grocery, run, name, content, says):
    (grocery / name).write_bytes(content)
    for command in (["check", name], ["predict", "--query", "test", "--support", name]):
        code, _, err = run(*command)
        assert (code, says in err, "Traceback" in err) == (2, True, False)


def test_one_class_in_a_table(grocery, run):
    path = listed("support/Banana")[0]
    (grocery / "labels.csv").write_text(f"image,label\n{path},Banana\n")
    code, _, err = run("predict", "--support", "labels.csv", "--query", "test")
    assert (code, "labels.csv: holds only the class 'Banana': at least two classes are needed" in err) == (2, True)


@pytest.mark.parametrize("classes", [2, 30, 250])
def test_the_picture_of_the_matrix_takes_any_names_and_numbers(tmp_path, classes):
    names = ["$x^2$", "日本", "تفاح", "👩\u200d🌾", "a\nb", "x" * 300, "%s {0}"]
    labels = (names + [f"class {k}" for k in range(classes)])[:classes]
    counts = np.eye(classes, dtype=np.int64) * 5
    counts[0, 1] = 3
    path = Confusion(labels, counts).draw(tmp_path / "matrix.png")
    with Image.open(path) as picture:
        assert 150 < min(picture.size) <= max(picture.size) < 8000

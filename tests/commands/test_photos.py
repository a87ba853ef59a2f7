"""``deepemd predict`` and ``deepemd check`` as a person meets them: photos as they are, names from anywhere.

Tests deepemd.apps.photos.check, deepemd.apps.photos.check_page, deepemd.apps.photos.fitting,
deepemd.apps.photos.predict, deepemd.apps.photos.predict_page, deepemd.apps.photos.predictions,
deepemd.apps.reports.drawing, deepemd.apps.reports.page.
"""

import csv
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepemd import cli

CLASSES = ("checks", "dots", "stripes")


def _photo(kind: str, seed: int) -> Image.Image:
    """A pattern in colours, sizes and places of its own."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:96, :120] + rng.integers(0, 30, (2, 1, 1))
    step = int(rng.integers(9, 15))
    on = {
        "stripes": (x + y // 3) // step % 2 == 0,
        "checks": (x // step + y // step) % 2 == 0,
        "dots": (x % (2 * step) - step) ** 2 + (y % (2 * step) - step) ** 2 < (0.6 * step) ** 2,
    }[kind]
    light, dark = rng.integers(150, 255, 3), rng.integers(0, 90, 3)
    return Image.fromarray(np.where(on[..., None], light, dark).astype(np.uint8))


def _write(folder: Path, kind: str, seeds: range) -> Path:
    folder.mkdir(parents=True)
    for seed in seeds:
        _photo(kind, seed).save(folder / f"{seed}.png")
    return folder


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Embeddings are kept for this module alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPEMD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def support(tmp_path) -> Path:
    for kind in CLASSES:
        _write(tmp_path / "support" / kind, kind, range(4))
    return tmp_path / "support"


@pytest.fixture
def queries(tmp_path) -> Path:
    for kind in CLASSES:
        _write(tmp_path / "queries" / f"of {kind}", kind, range(10, 13))
    return tmp_path / "queries"


@pytest.fixture
def run(capsys):
    def _run(*words: object) -> tuple[int, str, str]:
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as stop:  # jsonargparse leaves so
            code = int(stop.code or 0)
        return code, *capsys.readouterr()

    return _run


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


class _Page(HTMLParser):
    """What a browser would make of a page: its elements, their attributes and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def _stands_alone_and_runs_nothing(path: Path) -> _Page:
    page = _Page(path)
    assert page.count("script") == page.count("style") == page.count("body") == 1
    assert not {tag for tag, _ in page.tags} & {"img", "iframe", "object", "embed", "link", "base", "form"}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "src")], (tag, attributes)
        address = attributes.get("href") or "#"
        assert address.startswith(("#", "data:image/jpeg;base64,")), address
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    return page


def test_predict_writes_a_table_two_files_and_a_page(run, support, queries, tmp_path):
    out = tmp_path / "out"
    words = ["predict", "--support", support, "--query", queries, "--out", out, "--report", out]
    code, told, err = run(*words)
    assert code == 0, err
    rows = _rows(out / "predictions.csv")
    assert list(rows[0]) == ["image", "label", "probability", "runner_up", "correct_label"]
    assert [Path(row["image"]).parent.name for row in rows] == [f"of {row['label']}" for row in rows]
    assert len(rows) == 9
    details = json.loads((out / "predictions.json").read_text())
    assert details["classes"] == dict.fromkeys(CLASSES, 4)
    assert set(details["versions"]) == {"python", "deepemd", "torch", "numpy", "numba", "pillow"}
    for row, detail in zip(rows, details["predictions"], strict=True):
        order = sorted(detail["probabilities"], key=detail["probabilities"].get, reverse=True)
        assert (row["image"], row["label"], row["runner_up"]) == (detail["image"], *order[:2])
        assert sum(detail["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert float(row["probability"]) == detail["probability"] == detail["probabilities"][row["label"]]
    assert not (out / "predictions.partial.csv").exists()
    assert all(row["label"] in told for row in rows)
    page = _stands_alone_and_runs_nothing(out / "predictions.html")
    assert page.count("article") == 9
    assert all(a.get("tabindex") == "0" for tag, a in page.tags if tag == "article")
    shares = [float(t[:-1]) for t in page.text if re.fullmatch(r"\d+\.\d%", t)][::3]
    assert shares == sorted(shares)  # the least certain first
    # nothing is replaced without a word
    before = (out / "predictions.csv").read_bytes()
    code, _, err = run(*words)
    assert (code, "already exists" in err, "--force" in err) == (2, True, True)
    assert run(*words, "--force", "--report_limit", 2, "--top", 2)[0] == 0
    assert (out / "predictions.csv").read_bytes() == before
    page = _Page(out / "predictions.html")
    assert page.count("article") == 2
    assert any("The 2 least certain of 9 photos are shown" in text for text in page.text)


def test_a_saved_classifier_predicts_the_same_and_a_truncated_one_says_so(run, support, queries, tmp_path):
    kept = tmp_path / "kept"
    options = ["--unknown", 0.2, "--regions", "grid:2,1"]
    assert run("predict", "--support", support, "--query", queries, "--out", tmp_path, "--save", kept, *options)[0] == 0
    one, other = tmp_path / "1.png", tmp_path / "2.png"
    _photo("dots", 30).save(one)
    _photo("checks", 31).save(other)
    code, _, err = run("predict", "--model", kept, "--query", one, other, queries, "--out", tmp_path / "again")
    assert code == 0, err
    again = _rows(tmp_path / "again" / "predictions.csv")
    assert [row["image"] for row in again[:2]] == [str(one), str(other)]
    assert again[2:] == _rows(tmp_path / "predictions.csv")
    code, _, err = run("predict", "--model", kept, "--query", queries, "--unknown", 0.1)
    assert (code, "pass --support instead" in err) == (2, True)
    weights = kept / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    code, _, err = run("predict", "--model", kept, "--query", queries, "--out", tmp_path / "third")
    assert code == 2
    assert str(weights) in err
    assert not (tmp_path / "third" / "predictions.partial.csv").exists()


def _huge(path: Path) -> None:
    """A PNG of 200 million pixels: some bytes on the disk, 600 MB decoded."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 20_000, 10_000, 8, 2, 0, 0, 0)
    parts = (b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"")), chunk(b"IEND", b""))
    path.write_bytes(b"".join(parts))


def test_bad_photos_are_listed_and_the_rest_goes_on(run, support, queries, tmp_path):
    (support / "dots" / "broken.jpg").write_text("milk")
    (support / "dots" / "film.mp4").write_text("film")
    (queries / "cut.png").write_bytes((queries / "of dots" / "10.png").read_bytes()[:-200])
    (queries / "paper.pdf").write_text("%PDF")
    _huge(queries / "huge.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)).save(queries / "noise.png")
    out = tmp_path / "out"
    words = ["--query", queries, tmp_path / "gone.jpg", "--out", out, "--report", out]
    code, told, err = run("predict", "--support", support, *words)
    assert code == 2
    assert "broken.jpg: not an image that Pillow can read" in err
    assert "1 file ignored (no photo, or not in a class folder):\n  " + str(support / "dots" / "film.mp4") in err
    assert "paper.pdf" in err
    assert "cut.png: truncated or damaged image" in err
    assert "huge.png: too many pixels" in err
    assert "gone.jpg: there is no such file" in err
    assert "4 photos could not be read, as listed above; everything else is done" in err
    assert len(_rows(out / "predictions.csv")) == 10
    assert "predictions.csv" in told
    written = json.loads((out / "predictions.json").read_text())
    assert len(written["unreadable"]) == 4
    assert all(f"deepemd: {note['note']}" in err for note in written["notes"])
    assert sum(len(note["about"]) for note in written["notes"] if "cannot be read" in note["note"]) == 4
    assert any("huge.png" in text for text in _stands_alone_and_runs_nothing(out / "predictions.html").text)


def test_a_photo_that_is_too_small_for_the_regions(run, support, tmp_path):
    tiny = tmp_path / "tiny.png"
    Image.new("RGB", (2, 2)).save(tiny)
    words = ["--query", tiny, support / "dots" / "0.png", "--regions", "grid:3,2", "--out", tmp_path]
    code, _, err = run("predict", "--support", support, *words)
    assert code == 2
    assert f"{tiny}: levels holds 3, but an image is only 2 pixels" in err
    assert [row["label"] for row in _rows(tmp_path / "predictions.csv")] == ["dots"]


def test_a_query_that_resembles_no_class(run, support, tmp_path):
    for kind in CLASSES:
        for seed in range(4, 8):
            _photo(kind, seed).save(support / kind / f"{seed}.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)).save(tmp_path / "noise.png")
    words = ["predict", "--support", support, "--query", tmp_path / "noise.png", "--force", "--out", tmp_path]
    code, told, err = run(*words)
    assert code == 0
    says = "1 photo resembles no class as much as its own photos resemble each other, and is labelled "
    assert f"{says}with the most similar class:" in err
    assert "resembles no" in told
    assert _rows(tmp_path / "predictions.csv")[0]["label"] in CLASSES
    code, _, err = run(*words, "--unknown", 0.1, "--report", tmp_path)
    assert code == 0
    assert f'{says}"unknown":' in err
    (row,) = _rows(tmp_path / "predictions.csv")
    assert row["label"] == "unknown"
    page = (tmp_path / "predictions.html").read_text()
    assert f"Most similar photo of {row['runner_up']}: " in page
    assert "photo of unknown" not in page


@pytest.mark.parametrize("command", [["predict", "--query", ".", "--support"], ["check"]])
def test_folders_that_hold_no_classes(run, support, tmp_path, command, monkeypatch):
    monkeypatch.chdir(support)  # for the query: photos are there
    (tmp_path / "empty").mkdir()
    _write(tmp_path / "one" / "daisy", "dots", range(2))
    _write(tmp_path / "broken" / "daisy", "dots", range(2))
    (tmp_path / "broken" / "rose").mkdir()
    (tmp_path / "broken" / "rose" / "a.jpg").write_text("milk")
    for folder, says in (
        ("empty", "no class folders with photos in them: put each class into a folder of its own"),
        ("one", "holds only the class 'daisy': at least two classes are needed"),
        ("broken", "no photo of 'rose' can be read"),
        ("gone", "there is no such folder"),
    ):
        code, _, err = run(*command, tmp_path / folder)
        assert code == 2
        assert says in err
    assert not list(support.glob("predictions*"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--query", "q"], "pass either --support"),
        (["--query", "q", "--support", "s", "--model", "m"], "pass either --support"),
        (["--support", "s"], "query"),
        (["--query", "/no/such/folder/", "--support", "s", "--report_limit", 0], "report_limit is 0: it must"),
        (
            ["--query", "gone", "{support}/no.jpg", "--support", "gone"],
            "query: gone, {support}/no.jpg: there is no such",
        ),
        (["--query", "{support}", "--support", "gone", "--out", "/proc/x"], "support: gone: there is no such folder"),
        (["--query", "{support}", "--model", "gone", "--out", "/proc/x"], "model: gone: there is no such folder"),
        (
            ["--query", "{support}", "--support", "{support}", "--unknown", 5],
            "unknown is 5.0: it must be a finite number, above 0",
        ),
        (["--query", "{support}", "--support", "{support}", "--regions", "cells"], "regions is 'cells': write fcn"),
        (["--query", "{support}", "--support", "{support}", "--backbone", "nosuch"], "nosuch"),
        (["--query", "{support}", "--support", "{support}", "--report", "{support}/dots/0.png"], "is a file"),
    ],
)
def test_options_that_do_not_fit(run, support, words, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run("predict", *(str(word).replace("{support}", str(support)) for word in words))
    assert code == 2
    assert says.replace("{support}", str(support)) in err
    assert "Traceback" not in err


def test_check_finds_a_mislabelled_photo_and_one_that_is_there_twice(run, support, tmp_path):
    _photo("dots", 20).save(support / "checks" / "wrong.png")
    shutil.copy(support / "dots" / "1.png", support / "stripes" / "twice.png")
    _write(support / "single", "dots", range(50, 51))
    out, page = tmp_path / "new" / "check.json", tmp_path / "page"
    code, told, err = run("check", support, "--out", out, "--report", page)
    assert code == 0, err
    found = json.loads(out.read_text())
    confusion = np.array(found["confusion"])
    assert found["classes"] == [*CLASSES[:2], "single", "stripes"]
    assert (confusion.sum(), np.trace(confusion)) == (found["photos"], found["right"])
    assert confusion.sum(1).tolist() == [5, 4, 0, 5]
    assert found["recall"] == [
        pytest.approx(row[k] / row.sum()) if row.sum() else None for k, row in enumerate(confusion)
    ]
    assert found["interval95"][0] < found["accuracy"] == found["right"] / found["photos"] < found["interval95"][1]
    assert found["untested"] == ["single"]
    mistakes = {Path(one["image"]).name: one["looks_mislabelled"] for one in found["mistakes"]}
    assert mistakes["twice.png"]
    assert mistakes.keys() >= {"wrong.png", "twice.png"}
    assert f"{support / 'dots' / '1.png'} = {support / 'stripes' / 'twice.png'}" in err
    assert "1 of 4 classes have only one photo" in err
    assert "cross-validated accuracy" in told
    assert "it says nothing about new light, places and cameras" in told
    assert _stands_alone_and_runs_nothing(page / "check.html").count("article") == len(found["mistakes"])
    code, _, err = run("check", support, "--out", out)
    assert (code, "already exists" in err) == (2, True)


def test_one_photo_a_class_can_predict_but_not_be_checked(run, support, queries, tmp_path):
    for photo in support.glob("*/[123].png"):
        photo.unlink()
    code, _, err = run("predict", "--support", support, "--query", queries, "--out", tmp_path)
    assert code == 0
    assert "3 of 3 classes have only one photo" in err
    code, _, err = run("check", support)
    assert (code, "no class has two photos that differ" in err) == (2, True)


HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "\"&'",
    "=cmd|' -C calc'!A1",
    "-rf",
    "\u202egpj.\x1b[2J\x07",
    "a\nb",
    "+1+1",
    "-2",
)


@pytest.fixture
def hostile(tmp_path, run) -> Path:
    """What was written for class folders and photos with names that would act where they are not taken as text."""
    for k, name in enumerate(HOSTILE):
        _write(tmp_path / "s" / name, CLASSES[k % 3], range(10 * k, 10 * k + 2))
    (tmp_path / "q").mkdir()
    for k, name in enumerate(HOSTILE):
        _photo(CLASSES[k % 3], 90 + k).save(tmp_path / "q" / f"{name}.png")
    shutil.copy(tmp_path / "s" / "-rf" / "30.png", tmp_path / "s" / "\"&'" / "<script>alert(2)<!--.png")
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path / "q")
        code, told, err = run("predict", "--support", tmp_path / "s", "--query", ".", "--out", out, "--report", out)
        assert code == 0, err
        again = run("check", tmp_path / "s", "--out", out / "check.json", "--report", out)
    for text in (told, err, *again[1:], *run("predict", "--model", "\x1b[2J", "--query", "\x1b]0;x\x07")[1:]):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    return out


def test_hostile_names_do_nothing_in_a_page(hostile):
    page = _stands_alone_and_runs_nothing(hostile / "predictions.html")
    assert page.count("article") == len(HOSTILE)
    shown = "".join(page.text)
    assert "<img src=x onerror=alert(1)>.png" in shown
    assert "\\u202egpj.\\x1b[2J\\x07.png" in shown
    page = _stands_alone_and_runs_nothing(hostile / "check.html")
    assert "<script>alert(2)<!--.png" in "".join(page.text)


def test_hostile_names_do_nothing_in_a_sheet(hostile):
    """No cell begins like a formula, except for plain numbers; the JSON has the names as they are."""
    rows = _rows(hostile / "predictions.csv")
    details = json.loads((hostile / "predictions.json").read_text())
    assert sorted(one["image"] for one in details["predictions"]) == sorted(f"{name}.png" for name in HOSTILE)
    assert set(details["classes"]) == set(HOSTILE)
    assert len(rows) == len(HOSTILE)
    for row in rows:
        for cell in (row["image"], row["label"], row["runner_up"]):
            assert cell == "-2" or not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
            assert cell.isprintable()
    images = {row["image"] for row in rows}
    assert {"./=cmd|' -C calc'!A1.png", "./-rf.png", "a\\x0ab.png", "<img src=x onerror=alert(1)>.png"} <= images


def test_pages_in_a_real_browser(hostile):
    """Nothing runs or leaves the page but its own keys; it is light and dark."""
    playwright = pytest.importorskip("playwright.sync_api")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs chromium")
    with playwright.sync_playwright() as play:
        chrome = play.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for name in ("predictions.html", "check.html"):
            tab = chrome.new_page(color_scheme="dark")
            happened: list[str] = []
            tab.on("dialog", lambda dialog, seen=happened: (seen.append(dialog.message), dialog.dismiss()))
            tab.on("console", lambda message, seen=happened: seen.append(message.text))
            tab.on("request", lambda request, seen=happened: seen.append(request.url))
            tab.goto((hostile / name).as_uri())
            tab.wait_for_timeout(200)
            assert [what for what in happened if not what.startswith(("data:image/jpeg", "file:"))] == []
            assert sum(what.startswith("file:") for what in happened) == 1  # the page itself
            ground = "getComputedStyle(document.body).backgroundColor"
            dark = tab.evaluate(ground)
            tab.emulate_media(color_scheme="light")
            assert tab.evaluate(ground) != dark
            focused = "[...document.querySelectorAll('article')].indexOf(document.activeElement)"
            for key, place in (("j", 0), ("ArrowDown", 1), ("k", 0)):
                tab.keyboard.press(key)
                assert tab.evaluate(focused) == place
            tab.uncheck("#heat")
            assert tab.evaluate("getComputedStyle(document.querySelector('.heat')).display") == "none"
            tab.close()
        chrome.close()


def test_ctrl_c_loses_nothing(support, tmp_path):
    """Rows that are done are kept, and the same command goes on to the same result."""
    (tmp_path / "many").mkdir()
    for seed in range(200):
        _photo(CLASSES[seed % 3], 1000 + seed).save(tmp_path / "many" / f"{seed:03}.png")
    command = [sys.executable, "-m", "deepemd.cli", "predict", "--support", str(support), "--query", "many"]
    options = {"cwd": tmp_path, "env": {**os.environ, "DEEPEMD_CACHE": str(tmp_path / "kept")}, "text": True}
    partial = tmp_path / "predictions.partial.csv"
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
        **options,
    )
    while process.poll() is None and not (partial.exists() and partial.read_bytes().count(b"\n") > 32):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    done = _rows(partial)
    assert 32 <= len(done) < 200
    assert f"{len(done)} of 200 photos are in predictions.partial.csv; run the same command again to continue" in err
    assert "Traceback" not in err
    assert not (tmp_path / "predictions.csv").exists()
    kept = len(list((tmp_path / "kept").rglob("*.npz")))
    assert kept >= len(done)
    subprocess.run(command, check=True, capture_output=True, **options)
    rows = _rows(tmp_path / "predictions.csv")
    assert len(rows) == 200
    assert rows[: len(done)] == done
    assert not partial.exists()


def test_real_photos(run, shared_data, tmp_path):
    """Five photos of five of miniImageNet's validation classes, and five more of each to label."""
    import zipfile

    with zipfile.ZipFile(shared_data / "miniimagenet" / "val.zip") as archive:
        with (shared_data / "miniimagenet" / "val.csv").open(newline="") as file:
            listed = [(row["label"], row["filename"]) for row in csv.DictReader(file)]
        inside = {Path(name).name: name for name in archive.namelist()}
        for label in sorted({label for label, _ in listed})[:5]:
            for k, name in enumerate([name for own, name in listed if own == label][:10]):
                folder = tmp_path / ("support" if k < 5 else "query") / label
                folder.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(archive.read(inside[name]))
    folders = ["--support", tmp_path / "support", "--query", tmp_path / "query"]
    code, _, err = run("predict", *folders, "--out", tmp_path, "--report", tmp_path)
    assert code == 0, err
    rows = _rows(tmp_path / "predictions.csv")
    assert len(rows) == 25
    assert np.mean([Path(row["image"]).parent.name == row["label"] for row in rows]) >= 0.7
    _stands_alone_and_runs_nothing(tmp_path / "predictions.html")
    code, told, _ = run("check", tmp_path / "support")
    assert code == 0
    assert float(re.search(r"cross-validated accuracy (\d+\.\d)%", told)[1]) >= 70

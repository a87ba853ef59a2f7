"""An output that cannot be written, or that another run is writing, is refused before the work."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deepemd import cli
from deepemd.commands.outputs import check_output, check_picture
from deepemd.errors import InputError


def test_the_folder_of_an_output_is_made(tmp_path):
    check_output("out", tmp_path / "a" / "b" / "r.json", "report.json")
    assert (tmp_path / "a" / "b").is_dir()
    assert not list((tmp_path / "a" / "b").iterdir())
    check_output("out", None, "report.json")


def test_outputs_that_cannot_be_written_are_refused(tmp_path, monkeypatch):
    (tmp_path / "r.json").write_text("{}")
    with pytest.raises(InputError, match=r"out: .* is a folder; name a file in it, such as .*report\.json"):
        check_output("out", tmp_path, "report.json")
    check_output("out", tmp_path / "r.json", "report.json")
    with pytest.raises(InputError, match=r"out: .*r\.json already exists: .* pass --force to replace it"):
        check_output("out", tmp_path / "r.json", "report.json", force=False)
    with pytest.raises(InputError, match=r"r\.json: cannot be written .*: choose another place for --picture"):
        check_output("picture", tmp_path / "r.json" / "p.png", "p.png")
    monkeypatch.setattr("os.access", lambda *_: False)  # as it is for others than root
    with pytest.raises(InputError, match=r"cannot be written \(Permission denied\).*another place for --curve"):
        check_output("curve", tmp_path / "c.png", "c.png")


HOLDING = """
import sys, time
from contextlib import ExitStack
from pathlib import Path
from deepemd.results import output_lock
with ExitStack() as stack:
    for path in sys.argv[1:]:
        stack.enter_context(output_lock(Path(path)))
    print("held", flush=True)
    time.sleep(600)
"""

# what another run is writing -> the command that is refused, without any of its input being there but the names
COMMANDS = {
    "predictions/predictions.csv": "predict --support {here} --query {here} --out predictions",
    "page/predictions.html": "predict --support {here} --query {here} --out elsewhere --report page",
    "saved/config.json": "predict --support {here} --query {here} --out elsewhere --save saved",
    "check.json": "check {here} --out check.json",
    "page/check.html": "check {here} --report page",
    "report.json": "evaluate nosuch glyphs --out report.json",
    "curve.png": "evaluate nosuch glyphs --curve curve.png",
    "ranking.json": "retrieve evaluate nosuch --out ranking.json",
    "hits.html": "retrieve query nosuch nosuch.jpg --out hits.html",
    "index": "retrieve index nosuch nosuch index",
    "stores/photos": "data prepare photos --source nosuch --root stores",
    "run/config.yaml": "pretrain nosuch run --resume",
    "meta/config.yaml": "metatrain nosuch nosuch meta",
    "model/config.json": "convert nosuch model",
    "demo/index.html": "demo --out demo",
    "emd.json": "bench emd --out emd.json",
    "emd.png": "bench emd --picture emd.png",
}


@pytest.fixture(scope="module")
def written_by_another(tmp_path_factory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("outputs")
    (folder / "a.jpg").touch()
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDING, *(str(folder / path) for path in COMMANDS)], stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    yield folder
    other.kill()
    other.communicate()


@pytest.mark.parametrize("path", COMMANDS)
def test_what_another_run_is_writing_is_refused_before_any_work(written_by_another, path, monkeypatch, capsys):
    monkeypatch.chdir(written_by_another)
    words = [word.replace("{here}", str(written_by_another)) for word in COMMANDS[path].split()]
    assert cli.main(words) == 2
    err = capsys.readouterr().err
    assert re.search(rf"{Path(path).name}: another run is writing there now \(process \d+\): wait until it", err), err


# a result of an earlier run -> the command that is refused, without any of its input being there
EARLIER = {
    "report.json": "evaluate nosuch glyphs --out report.json",
    "curve.png": "evaluate nosuch glyphs --curve curve.png",
    "matches.png": "evaluate nosuch glyphs --picture matches.png",
    "ranking.json": "retrieve evaluate nosuch --out ranking.json",
    "hits.html": "retrieve query nosuch nosuch.jpg --out hits.html",
    "check.json": "check . --out check.json",
    "emd.json": "bench emd --out emd.json",
    "emd.png": "bench emd --picture emd.png",
}


@pytest.mark.parametrize("path", EARLIER)
def test_a_result_of_an_earlier_run_is_replaced_only_with_force(tmp_path, path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path(path).write_text("of an earlier run")
    assert cli.main(EARLIER[path].split()) == 2
    assert f"{path} already exists: choose another place with --" in capsys.readouterr().err
    assert cli.main([*EARLIER[path].replace("bench emd", "bench emd --report nosuch").split(), "--force"]) == 2
    assert "nosuch" in capsys.readouterr().err or path == "check.json"  # it went on, to what is not there
    assert Path(path).read_text() == "of an earlier run"


def test_a_picture_of_an_unknown_format_is_refused(tmp_path):
    check_picture("picture", None)
    check_picture("picture", tmp_path / "p.PNG")
    with pytest.raises(InputError, match=r"picture: .*p\.txt has no suffix of a picture; name it, .*p\.png"):
        check_picture("picture", tmp_path / "p.txt")

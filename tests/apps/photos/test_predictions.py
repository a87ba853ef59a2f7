"""The command predict in folders that hold files of others, or of a run that was killed."""

import json
import os
from pathlib import Path

import pytest
import torch
from pictures import photo

from deepemd import FCN, DeepEMD, conv4
from deepemd.commands.predict import predict
from deepemd.errors import InputError

ROWS = '\ufeff"image","label"\r\n"a.jpg","cat"\r\n'


@pytest.fixture
def words(tmp_path: Path) -> dict[str, object]:
    torch.manual_seed(0)
    model = DeepEMD(conv4(channels=8, pools=2), FCN(), image_size=16, resize=16).save(tmp_path / "encoder")
    for label in "ab":
        (tmp_path / "photos" / label).mkdir(parents=True)
        for k in range(2):
            photo(40 + 9 * k, 40).save(tmp_path / "photos" / label / f"{k}.png")
    support, out = tmp_path / "photos", tmp_path / "out"
    out.mkdir()
    return {"support": support, "query": [support], "backbone": str(model), "out": out, "cache": tmp_path / "cache"}


def test_rows_of_a_killed_run_stay_until_the_first_new_row(words):
    partial = words["out"] / "predictions.partial.csv"
    partial.write_text(ROWS, encoding="utf-8", newline="")
    with pytest.raises(InputError, match="no class folders"):
        predict(**{**words, "support": words["support"] / "a"})
    assert partial.read_bytes() == ROWS.encode()
    predict(**words)
    assert not partial.exists()
    rows = (words["out"] / "predictions.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0].startswith('\ufeff"image"')
    assert (len(rows), "a.jpg" in "".join(rows)) == (5, False)


@pytest.mark.parametrize("kind", ["link", "dangling", "folder", "fifo"])
def test_what_is_no_file_is_not_taken_for_the_rows_of_a_killed_run(words, tmp_path, kind):
    partial, theirs = words["out"] / "predictions.partial.csv", tmp_path / "theirs.txt"
    theirs.write_text("theirs")
    if kind in ("link", "dangling"):
        partial.symlink_to(theirs if kind == "link" else "nowhere")
    else:
        (os.mkdir if kind == "folder" else os.mkfifo)(partial)
    with pytest.raises(InputError, match=r"partial\.csv: not a regular file: move it away, or choose another folder"):
        predict(**words)
    assert theirs.read_text() == "theirs"
    assert os.listdir(words["out"]) == [partial.name]


def test_settings_of_another_program_are_not_replaced_by_a_classifier(words, tmp_path):
    theirs = tmp_path / "project" / "config.json"
    theirs.parent.mkdir()
    theirs.write_text(json.dumps({"port": 80}))
    with pytest.raises(InputError, match=r"config\.json: of another program or library, and would be replaced"):
        predict(**words, save=theirs.parent, force=True)
    assert json.loads(theirs.read_text()) == {"port": 80}
    predict(**words, save=tmp_path / "saved")
    predict(**words, save=tmp_path / "saved", force=True)


def test_corrections_of_an_earlier_run_stay(words):
    predict(**words)
    path = words["out"] / "predictions.csv"
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    assert lines[2].endswith(',""')
    path.write_text("\n".join([*lines[:2], f'{lines[2][:-2]}"new, class"', *lines[3:]]), encoding="utf-16")
    predict(**words, force=True)
    again = path.read_text(encoding="utf-8-sig").splitlines()
    assert again[2] == f'{lines[2][:-2]}"new, class"'
    assert [*again[:2], *again[3:]] == [*lines[:2], *lines[3:]]

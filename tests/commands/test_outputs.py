"""An output that cannot be written is refused before the work."""

import pytest

from deepemd.commands.outputs import check_output
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

"""`deepemd serve`: its options."""

import sys

import pytest

pytest.importorskip("fastapi", reason="needs FastAPI: pip install 'deepemd[serve]'")

from deepemd.cli import main
from deepemd.commands.serve import serve


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--port", "0"], "port is 0: choose one from 1024 to 65535"),
        (["--max_megabytes", "0"], "max_megabytes is 0"),
        (["--max_megapixels", "200"], "an image has at most 89"),
        (["--max_photos", "0"], "max_photos is 0"),
        (["--host", "0.0.0.0"], "there is no token: set the variable DEEPEMD_TOKEN"),
        (["--host", "no such host"], "there is no token"),
        (["--token", "short"], "the token must have at least 16 characters"),
        (["--allowed_hosts", "http://a.example/"], "write only the name"),
        ([], "no model here"),
    ],
)
def test_bad_options(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("DEEPEMD_TOKEN", raising=False)
    assert main(["serve", str(tmp_path / "absent"), *words]) == 2
    assert message in capsys.readouterr().err


def test_what_is_missing_is_named(tmp_path, monkeypatch, capsys):
    for name in ("deepemd.apps.serve.server", "deepemd.apps.serve.api"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert main(["serve", str(tmp_path)]) == 2
    assert "pip install 'deepemd[serve]'" in capsys.readouterr().err


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    text = capsys.readouterr().out
    assert all(word in text for word in ("curl", "DEEPEMD_TOKEN", "--max_megapixels", "503"))
    assert serve.__doc__

"""JSON files: what is written is JSON, and damage of every kind is an InputError that names the file."""

import codecs
import json
import math
import os
from pathlib import Path

import pytest

from deepemd.errors import InputError
from deepemd.json_files import json_text, read_json, write_json


def test_what_is_written_is_read(tmp_path):
    content = {"a": [1, 2.5, None, True, "grün"], "b": {"c": {}}}
    assert read_json(write_json(content, tmp_path / "x" / "a.json")) == content
    assert json.loads(json_text({"path": Path("a")}, "x")) == {"path": "a"}


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_named_and_nothing_is_written(tmp_path, number):
    with pytest.raises(InputError, match=r"a\.json: rows\[1\]\.x is -?(nan|inf), and JSON holds finite numbers only"):
        write_json({"rows": [{"x": 1.0}, {"x": number}]}, tmp_path / "a.json")
    assert not any(tmp_path.iterdir())


def test_names_that_are_not_text_are_written_as_codes():
    text = json_text({"name": "grün\udcff"}, "x", ascii_only=False)
    assert text.isascii()
    assert json.loads(text) == {"name": "grün\udcff"}
    assert "grün" in json_text({"name": "grün"}, "x", ascii_only=False)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_encodings_of_editors_are_read(tmp_path, encoding):
    (tmp_path / "a.json").write_bytes('{"name": "grün"}'.encode(encoding))
    assert read_json(tmp_path / "a.json") == {"name": "grün"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b'"text"',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": 1, "a": 2}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' * 100_000,
        b'{"a": "\xff\xfe"}',
        codecs.BOM_UTF16_LE + b'{"a": 1}',
        bytes(100),
        b'{"a": 1} trailing',
        b"{'a': 1}",
        '{"a": "grün"}'.encode("latin-1"),
    ],
    ids=lambda data: repr(data[:16]),
)
def test_damage_is_explained(tmp_path, data):
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.json: damaged, .*: make it again$") as caught:
        read_json(tmp_path / "a.json", remedy="make it again")
    assert len(str(caught.value)) < 500 + len(str(tmp_path))


def test_what_is_no_file_or_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"no model here, a\.json cannot be read \(No such file"):
        read_json(tmp_path / "a.json", missing="no model here")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="not a file"):
        read_json(tmp_path / "folder")
    (tmp_path / "file").write_text("{}")
    with pytest.raises(InputError, match="cannot be read"):
        read_json(tmp_path / "file" / "a.json")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(InputError, match="not a file"):
            read_json(tmp_path / "pipe")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(10**10)
    with pytest.raises(InputError, match="far too many"):
        read_json(tmp_path / "huge")

"""Downloads, from a server on this machine that breaks off: continued where it can, begun again where it cannot."""

import hashlib
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from deepemd import cli
from deepemd.data import prepare
from deepemd.data.downloads import DOWNLOADS, Remote, fetch
from deepemd.errors import InputError
from deepemd.progress import Progress

CONTENT = os.urandom(3_000_000)
CUT = 18 << 16  # where the connection breaks off, at the end of a piece
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT under every name but /gone; `cut` breaks off after so many bytes of an answer."""

    cut: int | None = None
    ranges = True
    asked: list[str | None]  # the Range of each request


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.asked.append(asked)
        if self.path == "/gone":
            return self.send_error(404)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.ranges else 0
        if start >= len(CONTENT):
            return self.send_error(416)
        body = CONTENT[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.cut])  # and the connection ends
        return None

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def remote(server: Server, name: str = "set.zip", md5: str = MD5) -> dict[str, tuple[Remote, ...]]:
    return {"birds": (Remote(f"http://127.0.0.1:{server.server_port}/{name}", md5),)}


def test_a_file_is_fetched_once(server, tmp_path):
    file = fetch("birds", tmp_path, remote(server))
    assert file == tmp_path / "downloads" / "birds" / "set.zip"
    assert list(file.parent.iterdir()) == [file]
    assert file.read_bytes() == CONTENT
    fetch("birds", tmp_path, remote(server))
    assert server.asked == [None]
    file.write_bytes(CONTENT[:-1])  # damaged since: fetched again
    assert fetch("birds", tmp_path, remote(server)).read_bytes() == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
def test_what_is_broken_off_is_continued(server, tmp_path, ranges):
    server.cut, server.ranges = CUT, ranges
    part = tmp_path / "downloads" / "birds" / "set.zip.part"
    broken = rf"set\.zip: no connection, or a broken one .* it continues after the {CUT:,} bytes that are there"
    with pytest.raises(InputError, match=broken):
        fetch("birds", tmp_path, remote(server))
    assert part.read_bytes() == CONTENT[:CUT]
    with pytest.raises(InputError, match=f"it continues after the {CUT * (1 + ranges):,} bytes"):
        fetch("birds", tmp_path, remote(server))
    server.cut = None
    file = fetch("birds", tmp_path, remote(server))
    assert file.read_bytes() == CONTENT
    assert list(file.parent.iterdir()) == [file]
    assert server.asked == [None, f"bytes={CUT}-", f"bytes={CUT * (1 + ranges)}-"]


def test_one_that_was_broken_off_after_its_last_byte(server, tmp_path):
    part = tmp_path / "downloads" / "birds" / "set.zip.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT)
    assert fetch("birds", tmp_path, remote(server)).read_bytes() == CONTENT
    assert server.asked == ["bytes=3000000-"]


def test_ctrl_c_keeps_what_is_there(server, tmp_path, monkeypatch):
    calls = []

    def advance(*_: object) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "advance", advance)
        with pytest.raises(KeyboardInterrupt):
            fetch("birds", tmp_path, remote(server))
    part = tmp_path / "downloads" / "birds" / "set.zip.part"
    have = part.read_bytes()
    assert 0 < len(have) < len(CONTENT)
    assert have == CONTENT[: len(have)]
    assert fetch("birds", tmp_path, remote(server)).read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={len(have)}-"]


def test_another_file_is_refused_and_not_kept(server, tmp_path):
    for _ in range(2):
        with pytest.raises(InputError, match=r"set\.zip: not the published file, because its md5 differs: try ag"):
            fetch("birds", tmp_path, remote(server, md5="0" * 32))
    part = tmp_path / "downloads" / "birds" / "set.zip.part"
    assert list(part.parent.iterdir()) == []
    part.write_bytes(b"something else")  # half of another file: found by the hash, and then begun again
    with pytest.raises(InputError, match="its md5 differs: try again"):
        fetch("birds", tmp_path, remote(server))
    assert fetch("birds", tmp_path, remote(server)).read_bytes() == CONTENT


def test_a_refusal_and_no_connection_are_named(server, tmp_path):
    with pytest.raises(InputError, match=r"/gone: the server refuses \(404 Not Found\): try again later, or get the"):
        fetch("birds", tmp_path, remote(server, "gone"))
    nobody = {"birds": (Remote("http://127.0.0.1:9/set.zip", MD5),)}
    with pytest.raises(InputError, match=r"no connection, or a broken one \(ConnectionError\): check the internet"):
        fetch("birds", tmp_path, nobody)
    with pytest.raises(InputError, match="miniimagenet: has no official address to download from, as cub, "):
        prepare("miniimagenet", root=tmp_path, download=True)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"birds: cannot be written \(Not a directory\)"):
        fetch("birds", tmp_path / "file", remote(server))


def test_the_command_line_without_internet(capsys, monkeypatch, tmp_path):
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    assert cli.main(["data", "prepare", "omniglot", "--download", "--root", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "images_background.zip: no connection, or a broken one (ProxyError): check the internet" in err
    assert "Traceback" not in err


def test_addresses():
    for files in DOWNLOADS.values():
        assert all(file.address.startswith("https://") and len(file.md5) == 32 for file in files)
        names = [Path(file.address).name for file in files]
        assert len(set(names)) == len(names)

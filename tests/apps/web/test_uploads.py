"""Files that arrive: names, limits, what is broken off, and what a killed app leaves.

Tests deepemd.apps.web.folder.
"""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from deepemd import InputError
from deepemd.apps.web.folder import upload_folder
from deepemd.apps.web.uploads import Limits, Refused, Room, receive_files

pytest.importorskip("python_multipart", reason="needs gradio: pip install 'deepemd[app]'")

HEADERS = {"content-type": "multipart/form-data; boundary=b"}


def _body(*files: tuple[str, bytes]) -> bytes:
    parts = [
        b'--b\r\nContent-Disposition: form-data; name="files"; filename="'
        + name.encode()
        + b'"\r\n\r\n'
        + data
        + b"\r\n"
        for name, data in files
    ]
    return b"".join(parts) + b"--b--\r\n"


def _receive(room: Room, body: bytes, *, step: int = 7, end: bool = True, headers: dict = HEADERS):
    """Receive a request that arrives in pieces; if `end` is false, the visitor hangs up instead."""
    pieces = [body[k : k + step] for k in range(0, len(body), step)]
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    messages.append({"type": "http.request", "more_body": False} if end else {"type": "http.disconnect"})

    async def receive():
        return messages.pop(0)

    return asyncio.run(receive_files(headers, receive, room))


@pytest.fixture
def room(tmp_path) -> Room:
    return Room(tmp_path, Limits(file=100, files=3, visitor=200, total=250, reserve=0))


def test_the_same_bytes_twice_are_two_files(room):
    (one,), (other,) = (_receive(room, _body(("a.jpg", b"same"))) for _ in range(2))
    assert one.path != other.path
    one.remove()
    assert other.path.read_bytes() == b"same"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../x.jpg", "x.jpg"),
        ("..\\..\\x.jpg", "x.jpg"),
        ("/etc/passwd", "passwd"),
        ("..", ".."),
        ("", "photo"),
        ("a/", "photo"),
        ("Gänse\u202e.jpg", "Gänse.jpg"),
        ("x" * 3000 + ".jpg", "x" * 196 + ".jpg"),
        ("two\tlines", "twolines"),
    ],
)
def test_a_name_is_only_text(room, name, shown):
    (upload,) = _receive(room, _body((name, b"x")), step=1000)
    assert upload.name == shown
    assert upload.path.parent == room.folder
    assert upload.token == upload.path.name
    assert len(upload.token) == 32


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (_body(("a", b"x" * 101)), 413),
        (_body(*[("a", b"x")] * 4), 413),
        (_body(("a", b"x" * 90), ("b", b"x" * 90), ("c", b"x" * 90)), 507),
        (_body(("a", b"x" * 50))[:-4], 400),
        (_body(("a", b"x" * 50))[:90], 400),
        (b"", 400),
        (b"nothing of the kind", 400),
        (b'--b\r\nContent-Disposition: form-data; name="files"\r\n\r\nno file\r\n--b--\r\n', 400),
        (b"--b\r\nContent-Disposition: " + b"x" * 9000, 400),
        (b"--b\r\n\r\nno header\r\n--b--\r\n", 400),
        (_body(("x" * 9000, b"x")), 400),
    ],
)
def test_what_is_refused_leaves_nothing(room, body, status):
    with pytest.raises(Refused) as refused:
        _receive(room, body, step=50)
    assert refused.value.status == status
    assert list(room.folder.iterdir()) == []
    assert room.used == 0
    assert str(room.folder) not in str(refused.value)


def test_an_upload_that_is_broken_off_leaves_nothing(room):
    body = _body(("a", b"x" * 50), ("b", b"x" * 50))
    for length in range(0, len(body), 10):
        with pytest.raises(Refused):
            _receive(room, body[:length], end=False)
        assert list(room.folder.iterdir()) == []
        assert room.used == 0


@pytest.mark.parametrize("kind", ["", "text/plain", "multipart/form-data", "multipart/form-data; boundary="])
def test_other_requests_are_refused(room, kind):
    with pytest.raises(Refused, match="Not an upload"):
        _receive(room, _body(("a", b"x")), headers={"content-type": kind})


def test_some_of_the_disk_is_left_free(tmp_path):
    room = Room(tmp_path, Limits(file=100, reserve=2**62))
    with pytest.raises(Refused, match=r"disk .* is full"):
        _receive(room, _body(("a", b"x")))


def test_without_a_temporary_folder_it_says_what_to_set(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/no/such/folder"])
    with pytest.raises(InputError, match="set TMPDIR"), upload_folder():
        pass


LEAVE = """
import os, sys, time
from deepemd.apps.web.folder import upload_folder
with upload_folder() as folder:
    (folder / ("0" * 32)).write_bytes(b"a photo")
    (folder / "made_by_gradio").mkdir()
    print(folder, flush=True)
    time.sleep(60)
"""


def _start(tmp_path: Path) -> tuple[subprocess.Popen, Path]:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", LEAVE], env=environment, stdout=subprocess.PIPE, text=True)
    return process, Path(process.stdout.readline().strip())


@pytest.mark.skipif(sys.platform == "win32", reason="without locks nobody knows which apps are alive")
def test_the_next_start_removes_what_a_killed_app_left_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    killed, left = _start(tmp_path)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=30)
    alive, kept = _start(tmp_path)
    assert not left.exists()  # removed by the second app already
    (empty := tmp_path / f"deepemd-app-{'a' * 32}").mkdir()  # of an app that was killed in its first moment

    others = [
        tmp_path / name for name in (f"deepemd-app-{'b' * 32}", "deepemd-app-abcdefgh", f"x-deepemd-app-{'c' * 32}")
    ]
    for folder in others:
        folder.mkdir()
        (folder / "thesis.txt").write_text("mine")
    mixed = tmp_path / f"deepemd-app-{'d' * 32}"
    mixed.mkdir()
    for name in (".deepemd-app", "f" * 32, "thesis.txt"):
        (mixed / name).touch()
    (link := tmp_path / f"deepemd-app-{'e' * 32}").symlink_to(others[0])
    try:
        with upload_folder() as own:
            assert own.stat().st_mode & 0o777 == 0o700
            assert not empty.exists()
            assert (kept / ("0" * 32)).read_bytes() == b"a photo"
        assert not own.exists()
        assert all((folder / "thesis.txt").read_text() == "mine" for folder in others)
        assert (mixed / "thesis.txt").exists()
        assert link.is_symlink()
    finally:
        alive.terminate()
        alive.communicate(timeout=30)

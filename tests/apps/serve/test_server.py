"""`deepemd serve` as a user starts it: deepemd.apps.serve.server."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading

import pytest
from endpoint import ask, form, image, wait_until

TOKEN = "a-secret-of-the-tests"


class Started:
    """A server in a process of its own."""

    def __init__(self, model, *arguments: str, before: tuple[str, ...] = (), **env: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        command = [*before, sys.executable, "-m", "deepemd", "serve", str(model), "--port", str(self.port), *arguments]
        given = {**({} if before else os.environ), **env}
        self.process = subprocess.Popen(command, env=given, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.first = self.process.stdout.readline()

    def stop(self, signum: int = signal.SIGTERM) -> tuple[int, str, str]:
        self.process.send_signal(signum)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, self.first + out, err


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_server_after_what_is_in_flight(model, photos, own, signum):
    server = Started(model)
    assert re.fullmatch(r"serving: http://127\.0\.0\.1:\d+/docs\n", server.first)
    results: list = []
    request = form(*[(photos[0].name, photos[0].read_bytes())] * 3)
    clients = [threading.Thread(target=lambda: results.append(ask(server.port, *request))) for _ in range(12)]
    for one in clients:
        one.start()
    wait_until(lambda: ask(server.port, path="/health")[1]["waiting"] == 12)
    code, out, err = server.stop(signum)
    for one in clients:
        one.join()
    assert (code, out.splitlines()[-1], err) == (0, "stopped", "")
    assert [status for status, _, _ in results] == [200] * 12
    assert {row["label"] for _, content, _ in results for row in content["photos"]} == {own[photos[0]].label}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", socket.gethostname() + ".invalid"])
def test_others_need_a_token(model, host):
    server = Started(model, "--host", host)
    code, out, err = server.stop()
    assert (code, out) == (2, "")
    assert "there is no token: set the variable DEEPEMD_TOKEN" in err


def test_a_token_of_the_environment(model, photos):
    server = Started(model, "--host", "0.0.0.0", DEEPEMD_TOKEN=TOKEN)
    assert server.first == f"serving: http://localhost:{server.port}/docs\n"
    body, headers = image(photos[0])
    other_name = {**headers, "Host": "proxy.example"}
    assert ask(server.port, body, other_name)[0] == 401
    assert ask(server.port, body, {**other_name, "Authorization": f"Bearer {TOKEN}"})[0] == 200
    code, out, err = server.stop()
    assert (code, err) == (0, "")
    assert TOKEN not in out


@pytest.mark.parametrize("token", ["", "short"])
def test_a_weak_token_is_refused(model, token):
    code, out, err = Started(model, DEEPEMD_TOKEN=token).stop()
    assert (code, out) == (2, "")
    assert "the token must have at least 16 characters" in err


def test_a_port_that_is_taken_and_a_folder_without_a_model(model, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, _, err = Started(model, "--port", port).stop()
    assert code == 2
    assert f"port {port} of 127.0.0.1 cannot be used" in err
    code, _, err = Started(tmp_path).stop()
    assert code == 2
    assert str(tmp_path) in err


def test_settings_of_the_classifier(model, photos):
    server = Started(model, "--coverage", "0.8", "--threshold", "0.9999", "--unknown", "0.01")
    row = ask(server.port, *image(photos[0]))[1]["photos"][0]
    settings = ask(server.port, path="/model")[1]
    code, _, err = server.stop()
    assert code == 0
    assert (settings["coverage"], settings["threshold"], settings["unknown"]) == (0.8, 0.9999, 0.01)
    assert row["prediction_set"]
    assert row["prediction_set"][0] == (row["runner_up"] if row["unsure"] else row["label"])
    assert row["unsure"] == (row["label"] == "unsure") == (row["probability"] < 0.9999)
    assert err.startswith("deepemd: unknown is 0.01, which takes at least 99 photos")
    code, _, err = Started(model, "--coverage", "1").stop()
    assert code == 2
    assert "coverage is 1" in err


def test_heads_of_requests_must_arrive_in_time(model):
    server = Started(model)
    with (
        socket.create_connection(("127.0.0.1", server.port), 30) as idle,
        socket.create_connection(("127.0.0.1", server.port), 30) as half,
    ):
        half.sendall(b"POST /classify HTTP/1.1\r\nHost: local")
        assert idle.recv(1) == half.recv(1) == b""
    assert server.stop()[0] == 0


def test_a_user_without_a_home_a_name_and_write_access(model, photos, tmp_path):
    """As in a container: any number as the user, a model that only others can write, and an empty environment."""
    if not shutil.which("setpriv") or os.geteuid() != 0:
        pytest.skip("needs setpriv and root, to become another user")
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    for path in (folder, *folder.iterdir()):
        path.chmod(0o555 if path.is_dir() else 0o444)
    for parent in folder.parents[:-1]:
        if parent.stat().st_mode & 0o005 != 0o005:
            parent.chmod(parent.stat().st_mode | 0o005)
    user = ("setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups")
    paths = {"PYTHONPATH": os.environ.get("PYTHONPATH", ""), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    found = subprocess.run([*user, sys.executable, "-c", "import deepemd"], env=paths, check=False, capture_output=True)
    if found.returncode:
        pytest.skip("the package is installed where other users cannot read it, as in a private folder for tests")
    server = Started(folder, before=user, **paths)
    assert server.first.startswith("serving"), server.stop()
    status, content, _ = ask(server.port, *image(photos[0]))
    code, _, err = server.stop()
    assert (status, code) == (200, 0)
    assert content["photos"][0]["error"] is None
    assert "Traceback" not in err

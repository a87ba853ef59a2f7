"""The endpoint of `deepemd serve` in this process, and what clients send to it."""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn

from deepemd.apps.serve.api import Service, application
from deepemd.apps.serve.guard import Guard
from deepemd.apps.serve.limits import Limits
from deepemd.apps.serve.server import configuration
from deepemd.apps.web.hosts import Hosts


@contextlib.contextmanager
def running(
    classifier, limits: Limits, token: str | None = None, stop_seconds: int = 30
) -> Iterator[tuple[int, Service]]:
    """Serve a classifier; yield the port, and what answers."""
    service = Service(classifier, limits)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        hosts = None if token else Hosts.bound("127.0.0.1", port)
        server = uvicorn.Server(
            configuration(Guard(application(service, has_token=bool(token)), hosts, token, limits), stop_seconds)
        )
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        wait_until(lambda: server.started)
        try:
            yield port, service
        finally:
            server.should_exit = True
            thread.join(60)
            service.worker.stop()
            assert not thread.is_alive()


def wait_until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def form(*files: tuple[str, bytes]) -> tuple[bytes, dict[str, str]]:
    """The body of a form with files, and its header."""
    head = 'Content-Disposition: form-data; name="photo"; filename="{}"\r\nContent-Type: image/jpeg\r\n\r\n'
    parts = [b"--x\r\n" + head.format(name).encode() + content + b"\r\n" for name, content in files]
    return b"".join(parts) + b"--x--\r\n", {"Content-Type": "multipart/form-data; boundary=x"}


def ask(port: int, body: Any = None, headers: dict[str, str] | None = None, path: str = "/classify", method: str = ""):
    """Send one request; return the status, the JSON and the headers of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, body, headers or {})
        response = connection.getresponse()
        content = response.read()
        return response.status, json.loads(content) if content else None, response.headers
    finally:
        connection.close()


def image(path: Path) -> tuple[bytes, dict[str, str]]:
    """The body and the header for one photo."""
    return path.read_bytes(), {"Content-Type": "image/jpeg"}

"""Run the endpoint on a port of this machine until a signal stops it."""

import asyncio
import ipaddress
import logging
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h11
import numpy as np
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from deepemd.apps.serve.api import Service, application
from deepemd.apps.serve.guard import Guard, checked_token
from deepemd.apps.serve.limits import Limits
from deepemd.apps.web.hosts import Hosts, address
from deepemd.apps.web.server import listening
from deepemd.classifier.calibration import refuse_class_named
from deepemd.classifier.classifier import PhotoClassifier
from deepemd.classifier.settings import check_settings
from deepemd.errors import InputError, printable
from deepemd.json_files import json_text

__all__ = ["configuration", "serve"]

_HEAD_SECONDS = 10  # for the head of a request to arrive
_KEEP_ALIVE_SECONDS = 5  # between two requests of one connection


def serve(
    model: Path,
    limits: Limits,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    allowed_hosts: str | Sequence[str] | None = None,
    settings: Mapping[str, float | None] = MappingProxyType({}),
    stop_seconds: int = 30,
    ready: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve a saved classifier until SIGTERM or Ctrl-C; then finish the requests that have begun.

    Args:
        model: folder that :meth:`FewShotClassifier.save` wrote.
        limits: the limits of the server.
        host: address to listen on; by default only this machine can reach the server.
        port: port to listen on.
        token: the secret that requests must carry; needed where others can reach the server.
        allowed_hosts: further names by which the server may be reached, such as that of a proxy. Where there is a
            token, any name will do, unless names are given here.
        settings: `unknown`, `coverage` and `threshold` of the classifier; None leaves what was saved.
        stop_seconds: time for the requests that have begun, once the server is stopped.
        ready: called with the address once the classifier is loaded.

    Raises:
        InputError: the model, the host, the port or the token cannot be used.
    """
    host = host.removeprefix("[").removesuffix("]")
    if token is not None:
        checked_token(token)
    elif not _only_this_machine(host):
        raise InputError(
            f"host is {host}, which others can reach, and there is no token: set the variable DEEPEMD_TOKEN to a secret"
            ' (python -c "import secrets; print(secrets.token_urlsafe())" makes one), or leave --host out'
        )
    with listening(host, port) as listener:
        taken = listener.getsockname()[1]
        hosts = Hosts.bound(host, taken, allowed_hosts) if token is None or allowed_hosts else None
        classifier = _loaded(model, settings)
        service = Service(classifier, limits)
        try:
            guard = Guard(application(service, has_token=token is not None), hosts, token, limits)
            ready(address(host, taken))
            _Server(configuration(guard, stop_seconds)).run(sockets=[listener])
        finally:
            service.worker.stop()


def _only_this_machine(host: str) -> bool:
    """Return whether a name or address of this machine is out of reach for others."""
    try:
        found = socket.getaddrinfo(host, None)
    except (OSError, UnicodeError):
        return False
    return all(ipaddress.ip_address(str(one[4][0]).partition("%")[0]).is_loopback for one in found)


def _loaded(model: Path, settings: Mapping[str, float | None]) -> PhotoClassifier:
    """Load a classifier and classify a picture, so that the solver is compiled before the first request.

    Raises:
        InputError: the folder or a setting cannot be used.
    """
    from PIL import Image

    classifier = PhotoClassifier.load(model, cache=False)  # photos that are sent are not stored
    _set(classifier, settings)
    tones = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    with warnings.catch_warnings(record=True) as notes:  # where there are too few photos for a setting
        warnings.simplefilter("always")
        for prediction in classifier.stream([Image.fromarray(tones)]):
            if prediction.error is not None:
                raise InputError(f"{model}: a picture of 64 x 64 pixels cannot be classified: {prediction.error}")
    for note in notes:
        print(f"deepemd: {printable(note.message)}", file=sys.stderr)
    return classifier


def _set(classifier: PhotoClassifier, settings: Mapping[str, float | None]) -> None:
    """Set the settings that are not None, and check them."""
    given = {name: value for name, value in settings.items() if value is not None}
    for name, value in given.items():
        setattr(classifier, name, value)
    check_settings(classifier)
    classes = classifier.classes_.tolist()
    if "unknown" in given:
        refuse_class_named(classifier.unknown_label, classes, "unknown")
    if "threshold" in given:
        refuse_class_named(classifier.unsure_label, classes, "unsure")


def configuration(app: Any, stop_seconds: int) -> uvicorn.Config:
    """Return uvicorn's settings for an ASGI application.

    Args:
        app: the application.
        stop_seconds: time for the requests that have begun, once the server is stopped.
    """
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it reports each form that is not well formed
    return uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        http=_Protocol,
        ws="none",
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=stop_seconds,
    )


class _Server(uvicorn.Server):
    """A server that a signal stops in order: without raising the signal again at the end."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {one: signal.signal(one, self.handle_exit) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)


class _Protocol(H11Protocol):
    """HTTP of one connection, which is closed if the head of a request does not arrive in time."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        if self.conn.their_state is not h11.IDLE:
            self._cancel()
        elif self._timer is None:
            self._expect_head()

    def send_400_response(self, msg: str) -> None:
        body = json_text({"error": msg}, "the answer", indent=None).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        head = h11.Response(status_code=400, headers=[*headers, (b"connection", b"close")], reason=b"Bad Request")
        with suppress(h11.LocalProtocolError):  # the answer to this request has begun
            for part in (head, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(part) or b"")
        self.transport.close()

    def _should_upgrade(self) -> bool:
        return False  # a request to use another protocol is answered in this one

    def _expect_head(self) -> None:
        self._timer = self.loop.call_later(_HEAD_SECONDS, self.transport.close)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

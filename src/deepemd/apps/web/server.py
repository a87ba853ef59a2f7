"""Run the page's application on a port of this machine, in a thread, for as long as a block lasts."""

import errno
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from deepemd.errors import InputError

__all__ = ["environment", "listening", "running"]

_PORT = 7860  # the first port that is tried by default
_PORTS = 100
_SWEEP = 60  # seconds
_MAX_CONNECTIONS = 500  # at once
_NO_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
# Turn off reporting and sharing, whatever the user's environment says.
_PRIVATE = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_SHARE": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}


@contextmanager
def running(app: Any, listener: socket.socket, sweep: Callable[[], None]) -> Iterator[None]:
    """Serve an ASGI application inside a ``with`` block.

    Args:
        app: the application.
        listener: where it listens, see :func:`listening`; it is closed at the end.
        sweep: called once a minute.

    Raises:
        InputError: the server cannot be started.
    """
    import uvicorn

    config = uvicorn.Config(
        app,
        log_level="warning",
        http="h11",  # it limits the size of a request's head
        ws="none",
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_graceful_shutdown=2,
    )
    server, stopped = uvicorn.Server(config), threading.Event()

    def sweep_often() -> None:
        while not stopped.wait(_SWEEP):
            sweep()

    def serve() -> None:
        server.run(sockets=[listener])

    threads = [threading.Thread(target=run, daemon=True) for run in (serve, sweep_often)]
    for thread in threads:
        thread.start()
    try:
        while not server.started:
            if not threads[0].is_alive():
                raise InputError("the page could not be served; the lines above may say why: try again")
            stopped.wait(0.02)
        yield
    finally:
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # it reports each page that is open as an error
        server.should_exit = True
        stopped.set()
        for thread in threads:
            thread.join(10)


@contextmanager
def environment(uploads: str) -> Iterator[None]:
    """Set the environment variables that gradio reads."""
    before = dict(os.environ)
    os.environ.update({**_PRIVATE, "GRADIO_TEMP_DIR": uploads})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def listening(host: str, port: int | None) -> socket.socket:
    """Take a port before anything is loaded, so that no other program takes it meanwhile.

    Args:
        host: address to listen on.
        port: port to listen on; None for the first free one from 7860.

    Raises:
        InputError: the port is taken, or the host is not an address of this machine.
    """
    if port is not None and not 0 < port < 65536:
        raise InputError(f"port is {port}: choose one from 1024 to 65535")
    reason = ""
    for candidate in [port] if port is not None else range(_PORT, _PORT + _PORTS):
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            socket.getaddrinfo(host, candidate, family)
            return socket.create_server((host, candidate), family=family)
        except (OSError, UnicodeError) as error:
            if not isinstance(error, OSError) or isinstance(error, socket.gaierror) or error.errno in _NO_ADDRESS:
                raise InputError(
                    f"host is {host!r}, which is not an address of this machine: leave it out, or pass 0.0.0.0 to open "
                    "the page to everybody in your network"
                ) from error
            reason = os.strerror(error.errno or 0)
    if port is None:
        raise InputError(f"no free port from {_PORT} to {_PORT + _PORTS - 1} of {host} ({reason}): pass --port")
    raise InputError(f"port {port} of {host} cannot be used ({reason}): pass another --port, or leave it out")

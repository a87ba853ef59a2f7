"""What stands between the network and the endpoint: who may ask, how many at a time, and what a browser may do."""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from deepemd.apps.serve.body import Receive
from deepemd.apps.serve.limits import Limits, Refused
from deepemd.apps.web.hosts import Hosts
from deepemd.errors import InputError
from deepemd.json_files import json_text

__all__ = ["Guard", "checked_token"]

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

_OPEN = ("/health", "/docs", "/openapi.json", "/")  # these hold nothing secret, and need no token
_MIN_TOKEN = 16  # characters
_MAX_REST = 2**28  # bytes of a refused request that are read
_REST_SECONDS = 10
_HEADERS = {
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
}


def checked_token(token: str) -> str:
    """Return a token that is long enough to protect the server.

    Raises:
        InputError: it is too short, or holds characters that a header cannot.
    """
    if len(token) < _MIN_TOKEN or not all("!" <= c <= "~" for c in token):
        raise InputError(
            f"the token must have at least {_MIN_TOKEN} characters, which are ASCII letters, digits or signs: make one"
            ' with python -c "import secrets; print(secrets.token_urlsafe())"'
        )
    return token


class Guard:
    """An ASGI application around the endpoint's, which refuses requests that it should not see.

    Who knows the token may ask under any name. Without a token, the names and addresses of this machine count, so that
    no web page elsewhere can use the visitor's browser to ask.

    Args:
        app: the application.
        hosts: the names by which the server may be reached; None where the token alone decides.
        token: the secret that requests must carry, or None.
        limits: the limits of the server.
    """

    def __init__(self, app: Any, hosts: Hosts | None, token: str | None, limits: Limits) -> None:
        self.app, self.hosts, self.token, self.limits = app, hosts, token, limits
        self._active = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer = _Answer(scope, receive, send)
        try:
            self._check_sender(scope)
            self._check_token(scope)
            if self._active >= self.limits.requests:
                raise Refused(503, "The server is busy: too many requests at once. Try again", retry_after="2")
        except Refused as error:
            await answer.refuse(error)
            return
        self._active += 1
        try:
            await self.app(scope, answer.receive, answer.send)
        except asyncio.CancelledError:  # the time for requests that had begun when the server was stopped is over
            if answer.started:
                raise
            await answer.refuse(Refused(503, "The server is stopping: try again later", retry_after="10"))
        finally:
            self._active -= 1

    def _check_sender(self, scope: Message) -> None:
        """Raise unless a request is addressed to this server, and not from another web page."""
        if self.hosts is None:
            return
        hosts, origins = _all(scope, b"host"), _all(scope, b"origin")
        forwarded = [f"http://{name.split(',')[0].strip()}" for name in _all(scope, b"x-forwarded-host")]
        host = hosts[0] if len(hosts) == 1 else ""
        if not self.hosts.accept(host, (scope.get("server") or ("",))[0]):
            raise Refused(403, "The server is not known under that name. Whoever runs it can allow it: --allowed_hosts")
        if len(origins) > 1 or not all(self.hosts.accept_origin(one, host) for one in origins + forwarded):
            raise Refused(403, "Web pages elsewhere cannot use this server")
        if _all(scope, b"sec-fetch-site") in (["cross-site"], ["same-site"]) and scope["method"] != "GET":
            raise Refused(403, "Web pages elsewhere cannot use this server")

    def _check_token(self, scope: Message) -> None:
        if self.token is None or scope["path"] in _OPEN:
            return
        given = _all(scope, b"authorization")
        kind, _, secret = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        # compared in constant time, so that the time of an answer does not give away how much of a guess is right
        is_known = hmac.compare_digest(secret.strip().encode("latin-1"), self.token.encode())
        if not (is_known and kind.lower() == "bearer"):
            what = "The server does not know that token" if given else "The server needs a token"
            raise Refused(401, f"{what}: send the header Authorization: Bearer TOKEN", www_authenticate="Bearer")


class _Answer:
    """The answer to one request: its head gets the headers that restrict what a browser may do."""

    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        self.scope, self._receive, self._send = scope, receive, send
        self._received = not (_all(scope, b"content-length") or _all(scope, b"transfer-encoding"))
        self._begun = self.started = False

    async def receive(self) -> Message:
        """Return the next message of the request."""
        message: Message = await self._receive()
        self._received = not message.get("more_body", False)
        self._begun = True
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer."""
        if message["type"] == "http.response.start":
            self.started = True
            if message["status"] >= 400 and not self._received:
                await self._read_rest()
            headers = list(message["headers"])
            sent = {name.lower() for name, _ in headers}
            headers += [(name, value) for name, value in _HEADERS.items() if name not in sent]
            if not self._received:
                headers.append((b"connection", b"close"))  # whatever else is being sent is not read
            message = {**message, "headers": headers}
        await self._send(message)

    async def refuse(self, error: Refused) -> None:
        """Send the reason why a request is refused."""
        body = json_text({"error": str(error)}, "the answer", indent=None).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), **error.headers}
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": error.status, "headers": encoded})
        await self.send({"type": "http.response.body", "body": b"" if self.scope["method"] == "HEAD" else body})

    async def _read_rest(self) -> None:
        """Read what is left of a body, within limits: who is still sending may not read the answer.

        Who waits to be asked for the body is not asked.
        """
        length = "".join(_all(self.scope, b"content-length"))
        if (_all(self.scope, b"expect") and not self._begun) or (length.isdecimal() and int(length) > _MAX_REST):
            return
        left = _MAX_REST
        with suppress(TimeoutError):
            async with asyncio.timeout(_REST_SECONDS):
                while left > 0 and not self._received:
                    left -= len((await self.receive()).get("body", b""))


def _all(scope: Message, name: bytes) -> list[str]:
    """Return the contents of all headers of this name."""
    return [value.decode("latin-1") for found, value in scope["headers"] if found == name]

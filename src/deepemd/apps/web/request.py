"""A request to the page and its answer: cookies, limits on what is received, headers that restrict the browser."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any

from deepemd.apps.web.events import GONE, VISITOR
from deepemd.apps.web.uploads import PATIENCE, Refused
from deepemd.apps.web.visitors import FORGOTTEN_AFTER

__all__ = ["TEXT", "Message", "Receive", "Request", "Send"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_MAX_REST = 2**28  # bytes of a refused upload that are read
TEXT = "text/plain; charset=utf-8"
_MAX_EVENT = 2**20  # bytes of a request that is no upload
_PRIVATE = {b"x-gradio-server", b"cookie", VISITOR.encode(), GONE.encode()}  # of these gradio gets none from outside
_HEADERS = {
    b"x-frame-options": b"DENY",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(self), microphone=(), geolocation=()",
}


class Request:
    """One request, and the answer to it."""

    def __init__(self, scope: Message, receive: Receive, send: Send, port: int) -> None:
        self.scope, self._receive, self._send = scope, receive, send
        self._name = f"deepemd-{port}"  # browsers do not keep cookies of different ports apart
        self._cookie: bytes | None = None
        self.started = self._received = False  # whether the answer has begun, and whether all was received
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}

    def all(self, name: bytes) -> list[str]:
        """Return the contents of all headers of this name."""
        return [value.decode("latin-1") for found, value in self.scope["headers"] if found == name]

    def header(self, name: str) -> str:
        """Return the content of a header, empty if there is none."""
        return str(self.headers.get(name, ""))

    @property
    def cookie(self) -> str:
        """The secret of the visitor, empty if there is none."""
        found = re.search(rf"(?:^|;\s*){self._name}=([0-9a-f]{{64}})(?:;|$)", self.header("cookie"))
        return found[1] if found else ""

    def set_cookie(self, secret: str) -> None:
        """Let the browser keep the secret; scripts and other sites cannot use it."""
        age = 24 * FORGOTTEN_AFTER  # longer than the visit, so that a visitor who was forgotten is recognised
        self._cookie = f"{self._name}={secret}; Max-Age={age}; Path=/; HttpOnly; SameSite=Strict".encode()

    def passed_on(self, instead: Mapping[str, str] | None = None, **changes: Any) -> Message:
        """Return the scope for gradio: without what it would believe unchecked, with other headers instead."""
        ours = [(name.encode(), value.encode()) for name, value in (instead or {}).items()]
        left_out = _PRIVATE | {name for name, _ in ours} | ({b"transfer-encoding"} if ours else set())
        headers = [(name, value) for name, value in self.scope["headers"] if name not in left_out]
        return {**self.scope, "headers": headers + ours, **changes}

    async def body(self) -> bytes:
        """Return the body.

        Raises:
            Refused: it is too long, or was broken off.
        """
        content, more = b"", True
        while more:
            try:
                message = await asyncio.wait_for(self.receive(), PATIENCE)
            except TimeoutError as error:
                raise Refused(408, "The request took too long: try again") from error
            if message["type"] != "http.request":
                raise Refused(400, "The request was broken off")
            content += message.get("body", b"")
            more = message.get("more_body", False)
            if len(content) > _MAX_EVENT:
                raise Refused(413, "The request is too long")
        return content

    async def receive(self) -> Message:
        """Return the next message of the request."""
        message = await self._receive()
        self._received = not message.get("more_body", False)
        return message

    async def read_rest(self) -> None:
        """Read what is left of the body, within limits: a browser that is still sending may not read the answer."""
        left = _MAX_REST
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while left > 0 and not self._received:
                    left -= len((await self.receive()).get("body", b""))

    async def answer(self, status: int, content: str | bytes, kind: str = TEXT, more: Any = None) -> None:
        """Send a whole answer."""
        body = content.encode() if isinstance(content, str) else content
        headers = {b"content-type": kind.encode(), b"content-length": str(len(body)).encode(), **(more or {})}
        if status >= 400:
            headers[b"connection"] = b"close"  # whatever else is being sent is not read
        headers[b"cache-control"] = b"no-store"
        await self.send({"type": "http.response.start", "status": status, "headers": list(headers.items())})
        await self.send({"type": "http.response.body", "body": b"" if self.scope["method"] == "HEAD" else body})

    async def send(self, message: Message) -> None:
        """Send a part of an answer; its head gets the headers that restrict what the browser may do."""
        if message["type"] == "http.response.start":
            self.started = True
            ours = {b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'", **_HEADERS}
            sent = {name.lower() for name, _ in message["headers"]}
            kept = [(name, value) for name, value in message["headers"] if not name.startswith(b"access-control-")]
            added = [(name, value) for name, value in ours.items() if name not in sent]
            if self._cookie:
                added.append((b"set-cookie", self._cookie))
            message = {**message, "headers": kept + added}
        await self._send(message)

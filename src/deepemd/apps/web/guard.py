"""What stands between the network and gradio: who may ask, what may be asked, and what the browser may do with it.

Gradio serves more than this page needs, among it the paths of this machine. Here only what the page needs is passed on,
and files are received here, under names that say nothing of this machine.
"""

import asyncio
import base64
import hashlib
import json
import re
from collections import deque
from collections.abc import Mapping
from typing import Any

from deepemd.apps.web.events import GONE, VISITOR
from deepemd.apps.web.hosts import Hosts
from deepemd.apps.web.request import TEXT, Message, Receive, Request, Send
from deepemd.apps.web.results import DOWNLOADS, download
from deepemd.apps.web.uploads import Refused, receive_files
from deepemd.apps.web.visitors import Visit, Visitors
from deepemd.errors import InputError

__all__ = ["Guard"]

_API = "/gradio_api"
_PASSED = re.compile(
    rf"GET (/config|/theme\.css|/favicon\.ico|/manifest\.json|/robots\.txt|/(static|assets|svelte)/[\w./+-]+"
    rf"|{_API}/(startup-events|app_id))"  # app_id: to a page that stays open, a restart shows
)
_MAX_TEXT = 1000  # characters; longer texts of an event are cut off
# Gradio's page sets styles in its elements. Scripts come only from here; those in the page are named by their hash.
_POLICY = (
    "default-src 'none'; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'self'; form-action 'none'; "
    "frame-ancestors 'none'"
)


class Guard:
    """An ASGI application around gradio's, which passes on what the page needs and refuses the rest.

    Args:
        app: gradio's application.
        hosts: the names by which the page may be reached.
        visitors: whose files are received here.
        script: JavaScript of the page, served as a file.
        events: the events that a visitor may start, by number, each with the types of its values: a list is one of
            files, a dict is one file.
    """

    def __init__(
        self, app: Any, hosts: Hosts, visitors: Visitors, script: str, events: Mapping[int, tuple[type, ...]]
    ) -> None:
        self.app, self.hosts, self.visitors, self.events = app, hosts, visitors, events
        self._script = script.encode()
        self._progress: dict[str, deque[tuple[str, int] | None]] = {}
        self._making = asyncio.Lock()  # one download at a time is made, as it takes memory

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            request = Request(scope, receive, send, self.hosts.port)
            try:
                await self._answer(request)
            except Refused as error:
                is_event = scope["path"] == f"{_API}/queue/join"  # gradio's page reads the reason from JSON
                reason = json.dumps({"detail": str(error)}) if is_event else str(error)
                await request.answer(error.status, reason, "application/json" if is_event else TEXT)

    async def _answer(self, request: Request) -> None:
        self._check_sender(request)
        method, path = request.scope["method"], request.scope["path"]
        method = "GET" if method == "HEAD" else method
        if method == "GET" and path == "/":
            await self._page(request)
        elif method == "GET" and path == "/deepemd.js":
            self._visit(request)  # before anything else of the page, so that all that it sends has the same cookie
            await request.answer(200, self._script, "text/javascript; charset=utf-8")
        elif method == "POST" and path == "/here":
            self._visit(request)
            await request.answer(200, "")
        elif method == "GET" and path.startswith(f"{_API}/file="):
            await self._file(request, path.removeprefix(f"{_API}/file="))
        elif method == "GET" and path.startswith("/download/"):
            await self._download(request, path.removeprefix("/download/"))
        elif method == "POST" and path == f"{_API}/upload":
            await self._upload(request)
        elif method == "GET" and path == f"{_API}/upload_progress":
            await self._upload_progress(request)
        elif method == "POST" and path == f"{_API}/queue/join":
            await self._event(request)
        elif method == "GET" and path == f"{_API}/queue/data":
            await self._answers(request)
        elif ".." not in path and _PASSED.fullmatch(f"{method} {path}"):
            await self.app(request.passed_on(query_string=b""), request.receive, request.send)
        else:
            raise Refused(404, "Not found")

    def _check_sender(self, request: Request) -> None:
        """Raise unless a request is addressed to this page, and comes from it or from the visitor."""
        hosts, origins = request.all(b"host"), request.all(b"origin")
        forwarded = [f"http://{name.split(',')[0].strip()}" for name in request.all(b"x-forwarded-host")]
        host = hosts[0] if len(hosts) == 1 else ""
        if not self.hosts.accept(host, (request.scope.get("server") or ("",))[0]):
            raise Refused(
                403, "This page is not served under that name. Whoever runs it can allow a name by --allowed_hosts"
            )
        if len(origins) > 1 or not all(self.hosts.accept_origin(one, host) for one in origins + forwarded):
            raise Refused(403, "Other pages cannot use this one: open it in a tab of its own")
        site, kind = request.header("sec-fetch-site"), request.header("sec-fetch-dest")
        if site in ("cross-site", "same-site") and not (kind == "document" and request.scope["method"] == "GET"):
            raise Refused(403, "Other pages cannot use this one: open it in a tab of its own")

    async def _page(self, request: Request) -> None:
        """Answer with gradio's page, the page's own script before gradio's, and the policy for them."""
        status, kind, content = 500, "text/plain", [b""]

        async def collect(message: Message) -> None:
            nonlocal status, kind
            if message["type"] == "http.response.start":
                status, kind = message["status"], dict(message["headers"]).get(b"content-type", b"").decode()
            else:
                content.append(message.get("body", b""))

        plain = [(name, value) for name, value in request.passed_on()["headers"] if name != b"accept-encoding"]
        scope = {**request.scope, "headers": plain, "method": "GET", "query_string": b""}
        await self.app(scope, request.receive, collect)
        page = b"".join(content).replace(b"<head>", b'<head><script src="./deepemd.js"></script>', 1)
        inline = re.findall(rb"<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>", page, re.DOTALL)
        hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(one).digest()).decode()}'" for one in inline)
        policy = _POLICY.format(scripts=hashes).encode()
        await request.answer(status, page, kind, {b"content-security-policy": policy})

    async def _upload(self, request: Request) -> None:
        """Receive files, and answer with what refers to them."""
        visit = self._visit(request)
        upload = _parameter(request, "upload_id")
        steps: deque[tuple[str, int] | None] = deque(maxlen=10_000)
        if upload:
            self._progress[upload] = steps
        try:
            uploads = await receive_files(
                request.headers, request.receive, self.visitors.room, lambda name, size: steps.append((name, size))
            )
        except Refused:
            await request.read_rest()
            raise
        finally:
            steps.append(None)
            self._progress.pop(upload, None)
        self.visitors.keep(visit, uploads)
        await request.answer(200, json.dumps([one.token for one in uploads]), "application/json")

    async def _file(self, request: Request, token: str) -> None:
        """Answer with a file that this visitor has uploaded, which the page has a link to."""
        visit = self.visitors.find(request.cookie)
        upload = visit and visit.uploads.get(token)
        try:
            content = upload.path.read_bytes() if upload else None
        except OSError:  # it was used just now
            content = None
        if content is None:
            raise Refused(404, "Not found")
        await request.answer(200, content, "application/octet-stream", {b"content-disposition": b"attachment"})

    async def _download(self, request: Request, name: str) -> None:
        """Answer with a file that is made of what the visitor has added."""
        visit = self.visitors.find(request.cookie)
        if visit is None or name not in DOWNLOADS:
            raise Refused(404, "Not found: what you had added was forgotten, or there was nothing")
        _count(visit)
        async with self._making:
            try:
                content = await asyncio.to_thread(download, name, visit.visitor, self.visitors.room.folder)
            except InputError as error:
                raise Refused(409, str(error)) from error
        place = {b"content-disposition": f'attachment; filename="{name}"'.encode()}
        await request.answer(200, content, DOWNLOADS[name], place)

    async def _upload_progress(self, request: Request) -> None:
        """Report how far an upload is, as server-sent events."""
        upload = _parameter(request, "upload_id")
        steps = None
        for _ in range(30):  # the request for the progress may arrive before the upload
            steps = self._progress.get(upload)
            if steps is not None or not upload:
                break
            await asyncio.sleep(0.1)
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
        await request.send({"type": "http.response.start", "status": 200, "headers": headers})
        while steps is not None:
            await asyncio.sleep(0.1)
            while steps and (step := steps[0]):
                steps.popleft()
                await _event(request.send, {"msg": "update", "orig_name": step[0], "chunk_size": step[1]})
            if steps:  # the mark of the end, which stays for others who ask for the same upload
                break
        await _event(request.send, {"msg": "done"})
        await request.send({"type": "http.response.body", "body": b""})

    async def _event(self, request: Request) -> None:
        """Pass an event on to gradio, with the paths of files in place of what refers to them."""
        visit = self._visit(request)
        try:
            event = json.loads(await request.body())
            number, session, data = event["fn_index"], event["session_hash"], event["data"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise Refused(400, "Not an event of this page") from error
        kinds = self.events.get(number) if type(number) is int else None
        if kinds is None or not isinstance(session, str) or not re.fullmatch(r"\w{1,64}", session):
            raise Refused(400, "Not an event of this page: load it again")
        fits = isinstance(data, list) and len(data) == len(kinds)
        if not fits or any(not isinstance(one, kind | None) for one, kind in zip(data, kinds, strict=True)):
            raise Refused(400, "Not an event of this page: load it again")
        _count(visit)
        self.visitors.use_page(session)
        cleaned = [_cleaned(one, visit) for one in data]
        gone = sum(_files(old) - _files(new) for old, new in zip(data, cleaned, strict=True))
        body = json.dumps({"data": cleaned, "fn_index": number, "session_hash": session}).encode()
        scope = request.passed_on(
            {VISITOR: visit.id, GONE: str(gone), "content-length": str(len(body)), "content-type": "application/json"}
        )
        parts = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def replay() -> Message:
            return next(parts, None) or await request.receive()

        await self.app(scope, replay, request.send)

    async def _answers(self, request: Request) -> None:
        """Pass on gradio's answers to events, as server-sent events."""
        page = _parameter(request, "session_hash")
        if not self.visitors.is_known(page):
            raise Refused(404, "There is nothing for this page: load it again")
        try:
            query = f"session_hash={page}".encode()
            await self.app(request.passed_on(query_string=query), request.receive, request.send)
        except Exception:  # gradio's way to say that all was answered before
            if not request.started:
                raise
            await request.send({"type": "http.response.body", "body": b""})

    def _visit(self, request: Request) -> Visit:
        """Return the visit that a request belongs to; who has none, or was forgotten, gets a new cookie."""
        visit = self.visitors.open(request.cookie)
        request.set_cookie(visit.id)
        return visit


def _count(visit: Visit) -> None:
    """Count a request that takes time.

    Raises:
        Refused: there were too many.
    """
    if visit.allowance < 1:
        raise Refused(429, "Too many requests at once: wait a little")
    visit.allowance -= 1


def _parameter(request: Request, name: str) -> str:
    """Return a parameter of a request, empty if there is none."""
    found = re.search(rf"(?:^|&){name}=(\w{{1,64}})(?:&|$)", request.scope["query_string"].decode("latin-1"))
    return found[1] if found else ""


def _files(value: Any) -> int:
    """Return the number of files in a value of an event."""
    return len(value) if isinstance(value, list) else int(isinstance(value, dict))


def _cleaned(value: Any, visit: Visit) -> Any:
    """Return a value of an event: a text, or the paths of files that this visitor has uploaded and that are here."""
    if isinstance(value, dict):
        return next(iter(_cleaned([value], visit)), None)
    if not isinstance(value, list):
        return value and value[:_MAX_TEXT].encode("utf-8", "replace").decode()  # without halves of characters
    tokens = [one.get("path") if isinstance(one, dict) else None for one in value]
    uploads = [visit.uploads.get(token) for token in tokens if isinstance(token, str)]
    return [
        {"path": str(one.path), "orig_name": one.name, "meta": {"_type": "gradio.FileData"}}
        for one in uploads
        if one is not None
    ]


async def _event(send: Send, content: dict[str, Any]) -> None:
    await send({"type": "http.response.body", "body": f"data: {json.dumps(content)}\n\n".encode(), "more_body": True})

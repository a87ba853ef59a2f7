"""Who may ask: deepemd.apps.serve.guard."""

import asyncio
import json

import pytest

from deepemd.apps.serve.guard import Guard, checked_token
from deepemd.apps.serve.limits import Limits
from deepemd.apps.web.hosts import Hosts
from deepemd.errors import InputError

TOKEN = "0123456789abcdef"
HOSTS = Hosts.bound("127.0.0.1", 8000, "a.example")


async def app(_scope, _receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


def status(guard=None, path="/classify", method="POST", body=(b"",), **headers) -> int:
    return answer(guard, path, method, body, **headers)[0]


def answer(guard=None, path="/classify", method="POST", body=(b"",), **headers):
    """The status, the JSON and the headers of an answer, and the number of pieces of the body that were not read."""
    given = {"host": "localhost:8000", **headers}
    encoded = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in given.items() if value]
    scope = {"type": "http", "path": path, "method": method, "headers": encoded, "server": ("127.0.0.1", 8000)}
    pieces, sent = list(body), []

    async def receive():
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(message):
        sent.append(message)

    asyncio.run((guard or Guard(app, HOSTS, None, Limits()))(scope, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"] or b"{}"), dict(sent[0]["headers"]), len(pieces)


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1:8000", "a.example", "a.example:443"])
def test_own_names(host):
    assert status(host=host) == 200
    assert status(host=host, origin=f"http://{host}", sec_fetch_site="same-origin") == 200


@pytest.mark.parametrize("host", ["evil.example:8000", "localhost:8001", "localhost", "", "a b", "127.0.0.1:8000@evil"])
def test_other_names_are_refused_on_every_path(host):
    for path in ("/classify", "/health", "/docs", "/model"):
        assert status(path=path, host=host) == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://localhost:3000"},
        {"sec_fetch_site": "cross-site"}, {"sec_fetch_site": "same-site"}, {"x_forwarded_host": "evil.example"},
    ],
)  # fmt: skip
def test_pages_elsewhere_are_refused(headers):
    assert status(**headers) == 403


def test_a_token_is_asked_for():
    guard = Guard(app, None, TOKEN, Limits())
    assert status(guard, authorization=f"Bearer {TOKEN}", host="any.example") == 200
    assert status(guard, authorization=f"bearer  {TOKEN}") == 200
    for wrong in (
        "",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        "Bearer ",
        "Bearer",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer ü",
    ):
        code, content, headers, _ = answer(guard, authorization=wrong)
        assert code == 401
        assert content["error"].endswith("send the header Authorization: Bearer TOKEN")
        assert headers[b"www-authenticate"] == b"Bearer"
        assert status(guard, path="/model", method="GET", authorization=wrong) == 401
    assert {status(guard, path=path, method="GET") for path in ("/health", "/docs", "/openapi.json", "/")} == {200}
    assert status(guard, path="/docs/../model", method="GET") == 401


def test_names_that_are_given_count_beside_a_token_too():
    guard = Guard(app, HOSTS, TOKEN, Limits())
    assert status(guard, authorization=f"Bearer {TOKEN}", host="evil.example") == 403
    assert status(guard, authorization=f"Bearer {TOKEN}", host="a.example") == 200


@pytest.mark.parametrize("token", ["", "short", "0123456789abcde", "a token of many words", "0123456789abcdefü"])
def test_weak_tokens(token):
    with pytest.raises(InputError, match=r"at least 16 characters.*secrets\.token_urlsafe"):
        checked_token(token)
    assert checked_token(TOKEN) == TOKEN


def test_every_answer_restricts_the_browser():
    for found in (answer(), answer(host="evil.example")):
        headers = found[2]
        assert headers[b"content-security-policy"].startswith(b"default-src 'none'")
        assert headers[b"x-content-type-options"] == b"nosniff"
        assert not any(name.startswith(b"access-control") for name in headers)


def test_the_rest_of_a_refused_body_is_read_so_that_the_answer_is():
    body = [b"x" * 1000] * 5
    assert answer(body=body, host="evil.example", content_length="5000")[3] == 0
    code, _, headers, left = answer(body=body, host="evil.example", content_length="5000", expect="100-continue")
    assert (code, left, headers[b"connection"]) == (403, 5, b"close")
    code, _, headers, left = answer(body=body, host="evil.example", content_length=str(10**9))
    assert (code, left, headers[b"connection"]) == (403, 5, b"close")


def test_only_so_many_requests_at_a_time():
    guard = Guard(app, HOSTS, None, Limits(requests=2))

    async def waiting(*_):
        await asyncio.sleep(0.1)

    async def run():
        guard.app, sent = waiting, []

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http",
            "path": "/",
            "method": "GET",
            "headers": [(b"host", b"localhost:8000")],
            "server": None,
        }
        await asyncio.gather(*(guard(scope, None, send) for _ in range(3)))
        return sent

    start, body = asyncio.run(run())
    assert start["status"] == 503
    assert dict(start["headers"])[b"retry-after"] == b"2"
    assert b"busy" in body["body"]
    guard.app = app
    assert status(guard) == 200

"""Requests by hand: foreign pages and names, what gradio would serve, and what a script may try.

Tests deepemd.apps.web.request.
"""

import http.client
import json
import re
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytest.importorskip("gradio", reason="needs gradio: pip install 'deepemd[app]'")

ROUTES = [
    ("GET", "/"),
    ("GET", "/config"),
    ("GET", "/theme.css"),
    ("GET", "/deepemd.js"),
    ("GET", "/static/js/iframeResizer.contentWindow.min.js"),
    ("POST", "/here"),
    ("GET", "/gradio_api/queue/data?session_hash=abc"),
    ("GET", "/gradio_api/upload_progress?upload_id=abc"),
    ("POST", "/gradio_api/upload"),
    ("POST", "/gradio_api/queue/join"),
    ("OPTIONS", "/gradio_api/upload"),
    ("GET", "/no/such/page"),
]


def _ask(server, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Send a request with these headers, and return the status, the headers and the body of the answer."""
    address = urlsplit(server.address)
    sent = {"Host": address.netloc, "Content-Length": str(len(body))} if body or method == "POST" else {}
    sent |= {"Host": address.netloc, **{name.replace("_", "-"): value for name, value in headers.items()}}
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in sent.items():
            connection.putheader(name, value)
        connection.endheaders(body or None)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def _upload(server, name: str = "a.jpg", data: bytes = b"x", **headers: str):
    head = f'--b\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    headers = {"Content_Type": "multipart/form-data; boundary=b", **headers}
    return _ask(server, "POST", "/gradio_api/upload", head + data + b"\r\n--b--\r\n", **headers)


def _event(server, content: object, **headers: str):
    return _ask(server, "POST", "/gradio_api/queue/join", json.dumps(content).encode(), **headers)


def _cookie(headers: dict[str, str]) -> str:
    return headers["set-cookie"].split(";")[0]


def _shown(server, number: int, data: list, cookie: str, session: str) -> str:
    """Start an event and return the last thing that the page would show."""
    status, _, _ = _event(server, {"fn_index": number, "data": data, "session_hash": session}, Cookie=cookie)
    assert status == 200
    _, _, stream = _ask(server, "GET", f"/gradio_api/queue/data?session_hash={session}", Cookie=cookie)
    return stream.decode()


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:{port}"},
        {"Host": "127.0.0.1.evil.example:{port}"},
        {"Host": "127.0.0.1"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://evil.example:{port}"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://localhost:{port}"},
        {"X_Forwarded_Host": "evil.example"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Dest": "iframe"},
        {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Dest": "empty"},
    ],
    ids=lambda headers: " ".join(headers.values()),
)
def test_other_pages_and_other_names_are_refused_everywhere(server, method, path, headers):
    port = str(urlsplit(server.address).port)
    sent = {name: value.replace("{port}", port) for name, value in headers.items()}
    status, answered, body = _ask(server, method, path, **sent)
    assert status == 403
    assert not [name for name in answered if name.startswith("access-control")]
    assert "set-cookie" not in answered
    assert len(body) < 200


def test_a_page_that_stays_open_sees_that_the_app_was_started_again(server):
    status, _, body = _ask(server, "GET", "/gradio_api/app_id")
    assert (status, list(json.loads(body))) == (200, ["app_id"])


def test_two_hosts_are_refused(server):
    address = urlsplit(server.address)
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {address.netloc}\r\nHost: evil.example\r\n\r\n".encode())
        assert re.match(rb"HTTP/1.1 40[03]", connection.recv(1000))


def test_its_own_names_and_a_link_from_elsewhere_are_answered(server):
    port = urlsplit(server.address).port
    for host in (f"127.0.0.1:{port}", f"localhost:{port}"):
        assert _ask(server, "GET", "/", Host=host)[0] == 200
        assert _upload(server, Host=host, Origin=f"http://{host}")[0] == 200
    followed = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Dest": "document", "Sec_Fetch_Mode": "navigate"}
    assert _ask(server, "GET", "/", **followed)[0] == 200


def test_the_browser_is_restricted(server):
    for method, path in ROUTES:
        _, headers, _ = _ask(server, method, path)
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
    policy = dict(
        part.strip().split(" ", 1) for part in _ask(server, "GET", "/")[1]["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == policy["font-src"] == "'self'"
    assert "unsafe" not in policy["script-src"]
    assert "http" not in " ".join(policy.values())


@pytest.mark.parametrize(
    "path",
    [
        *("/gradio_api/file=/etc/passwd", "/gradio_api/file/etc/passwd", "/file=/etc/passwd", "/gradio_api/info"),
        *("/gradio_api/proxy=http://127.0.0.1/", "/gradio_api/vibe-code", "/gradio_api/openapi.json", "/openapi.json"),
        *(
            "/gradio_api/run/add",
            "/gradio_api/call/add",
            "/gradio_api/deep_link?session_hash=a",
            "/monitoring",
            "/docs",
        ),
        *(
            "/static/../../../etc/passwd",
            "/static/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
            "/assets/..%2f..%2f..%2fetc%2fpasswd",
        ),
        *(
            "//etc/passwd",
            "/gradio_api/heartbeat/abc",
            "/gradio_api/stream/a/b/1/playlist.m3u8",
            "/dev/reload",
            "/login",
            "/gradio_api/runs",
        ),
    ],
)
def test_gradio_serves_only_what_the_page_needs(server, path):
    for method in ("GET", "POST", "PUT", "DELETE"):
        assert _ask(server, method, path)[0] == 404


def test_no_answer_has_a_path_of_this_machine(server):
    import deepemd

    port = urlsplit(server.address).port
    status, headers, body = _upload(server, "../../x.jpg", b"no photo")
    token = json.loads(body)[0]
    assert status == 200
    assert re.fullmatch(r"[0-9a-f]{32}", token)
    file = {"path": token, "meta": {"_type": "gradio.FileData"}, "orig_name": "x.jpg"}
    answers = [body, *(_ask(server, method, path)[2] for method, path in ROUTES)]
    answers.append(_shown(server, 1, ["goose", [file], None], _cookie(headers), "one").encode())
    assert b"x.jpg: not an image" in answers[-1]
    for content in (
        {},
        [],
        {"fn_index": 99, "data": [], "session_hash": "a"},
        {"fn_index": 1, "data": 5, "session_hash": 5},
    ):
        status, _, body = _event(server, content)
        assert status == 400
        answers.append(body)
    for place in (server.uploads, Path(deepemd.__file__).parent, Path.home(), "site-packages", "Traceback"):
        assert not [answer for answer in answers if str(place).encode() in answer]
    assert port  # the server is alive


def test_a_path_or_the_upload_of_somebody_else_is_not_read(server, tmp_path, photos):
    photo = photos["flower"][0]["buffer"]
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(photo)
    _, owner, body = _upload(server, "mine.jpg", photo)
    token = json.loads(body)[0]
    thief = _cookie(_upload(server)[1])
    real = str(next(server.uploads.rglob(token)))
    for number, path in enumerate((str(secret), real, token, f"../{token}", "http://127.0.0.1/x.jpg")):
        file = {"path": path, "url": path, "meta": {"_type": "gradio.FileData"}}
        shown = _shown(server, 1, ["goose", [file], None], thief, f"thief{number}")
        assert "1 photo is not here any more" in shown
        assert "added to" not in shown
    file = {"path": token, "meta": {"_type": "gradio.FileData"}}
    assert "1 photo added to" in _shown(server, 1, ["goose", [file], None], _cookie(owner), "owner")
    assert list(server.uploads.rglob(token)) == []


def test_a_file_can_be_read_by_the_one_who_uploaded_it_and_nobody_else(server):
    _, headers, body = _upload(server, "<a>.html", b"<script>")
    path = f"/gradio_api/file={json.loads(body)[0]}"
    status, answered, content = _ask(server, "GET", path, Cookie=_cookie(headers))
    assert (status, content) == (200, b"<script>")
    assert answered["content-type"] == "application/octet-stream"
    assert answered["content-disposition"] == "attachment"
    for cookie in ("", _cookie(_upload(server)[1])):
        assert _ask(server, "GET", path, Cookie=cookie)[0] == 404


def test_the_same_photo_of_two_visitors_is_two_files(server, photos):
    photo = photos["flower"][0]["buffer"]
    visits = [_upload(server, "same.jpg", photo) for _ in range(2)]
    for number, (_, headers, body) in enumerate(visits):
        file = {"path": json.loads(body)[0], "meta": {"_type": "gradio.FileData"}}
        assert "1 photo added to" in _shown(server, 1, ["goose", [file], None], _cookie(headers), f"same{number}")


def test_whatever_a_page_sends_first_belongs_to_the_same_visitor(server):
    cookie = _cookie(_ask(server, "GET", "/deepemd.js")[1])  # gradio's page sends nothing before it has this script
    assert _cookie(_upload(server, Cookie=cookie)[1]) == cookie
    assert _cookie(_event(server, {"fn_index": 0, "data": [], "session_hash": "first"}, Cookie=cookie)[1]) == cookie
    assert _cookie(_ask(server, "POST", "/here", Cookie=cookie)[1]) == cookie


def _event_numbers(server) -> dict[tuple, int]:
    """Return the number of the first event with these boxes."""
    config = json.loads(_ask(server, "GET", "/config")[2])
    kinds = {one["id"]: one["type"] for one in config["components"]}
    return {tuple(kinds[one] for one in event["inputs"]): event["id"] for event in config["dependencies"][::-1]}


def test_values_of_another_kind_are_refused_without_a_traceback(server, photos):
    numbers = _event_numbers(server)
    add, act, ask = numbers["textbox", "file", "image"], numbers["textbox",], numbers["file",]
    _, headers, body = _upload(server, "mine.jpg", photos["flower"][0]["buffer"])
    file = [{"path": json.loads(body)[0], "meta": {"_type": "gradio.FileData"}}]
    wrong = [[], ["a"], ["a", "b", None], [file, file, None], [file, "a", None], [5, file, None], ["a", file, "b"]]
    wrong += [[{"a": 1}, file, None], ["a", file], ["a", file, None, file]]
    events = [(act, [file]), (act, []), (ask, ["a"]), (ask, [file, 1]), *((add, one) for one in wrong)]
    for number, data in events:
        status, _, reason = _event(server, {"fn_index": number, "data": data, "session_hash": "kind"})
        assert (status, reason) == (400, b'{"detail": "Not an event of this page: load it again"}')
    half = _shown(server, add, ["\ud800", None, None], _cookie(headers), "half")
    assert "No photos for &#x27;?&#x27;" in half
    assert len(_shown(server, add, ["x" * 10**6, None, None], _cookie(headers), "long")) < 10_000
    action = json.dumps({"do": "remove", "class": "\ud800"})
    assert "There is no class" in _shown(server, act, [action], _cookie(headers), "act")
    assert "Traceback" not in server.log.read_text()


def test_an_upload_that_two_ask_for_ends_for_both(server):
    address = urlsplit(server.address)
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
    body = head + b"x" * 1000 + b"\r\n--b--\r\n"
    with socket.create_connection((address.hostname, address.port), timeout=30) as upload:
        upload.sendall(
            f"POST /gradio_api/upload?upload_id=twice HTTP/1.1\r\nHost: {address.netloc}\r\n"
            f"Content-Length: {len(body)}\r\nContent-Type: multipart/form-data; boundary=b\r\n\r\n".encode()
            + body[:-10]
        )
        _until(server.kept)
        asked = [http.client.HTTPConnection(address.hostname, address.port, timeout=30) for _ in range(2)]
        for one in asked:
            one.request("GET", "/gradio_api/upload_progress?upload_id=twice")
        answers = [one.getresponse() for one in asked]  # both have begun
        upload.sendall(body[-10:])
        assert all('"done"' in answer.read().decode() for answer in answers)
        for one in asked:
            one.close()


def test_the_cookie_is_out_of_reach_for_scripts_and_other_sites(server):
    port = urlsplit(server.address).port
    _, headers, _ = _upload(server)
    cookie = headers["set-cookie"]
    assert re.match(rf"deepemd-{port}=[0-9a-f]{{64}}; ", cookie)
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert _cookie(_upload(server, Cookie=f"x=1; {_cookie(headers)}; y=2")[1]) == _cookie(headers)
    chosen = f"deepemd-{port}={'a' * 64}"
    assert _cookie(_upload(server, Cookie=chosen)[1]) != chosen


def test_too_many_requests_of_one_visitor_are_refused(server):
    cookie = _cookie(_upload(server)[1])
    codes = [_event(server, {"fn_index": 0, "data": [], "session_hash": "b"}, Cookie=cookie)[0] for _ in range(90)]
    assert codes[:30] == [200] * 30
    assert {429} <= set(codes) <= {200, 429, 503}
    assert _event(server, {"fn_index": 0, "data": [], "session_hash": "c"})[0] in (200, 503)  # another visitor's


def test_too_long_a_request_is_refused(server):
    assert _event(server, {"fn_index": 0, "data": ["x" * 2**21], "session_hash": "b"})[0] == 413


def test_too_many_files_are_refused(server):
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\nx\r\n'
    body = 101 * part + b"--b--\r\n"
    status, _, reason = _ask(server, "POST", "/gradio_api/upload", body, Content_Type="multipart/form-data; boundary=b")
    assert status == 413
    assert reason == b"Too many photos: at most 100 at once"


@pytest.mark.parametrize("size", [1, 8 * 2**20])
def test_who_is_refused_can_read_why(server, size):
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\nx\r\n'
    body = 101 * part + b"x" * size  # a browser that is still sending does not read the answer
    start = time.monotonic()
    status, _, reason = _ask(server, "POST", "/gradio_api/upload", body, Content_Type="multipart/form-data; boundary=b")
    assert (status, reason) == (413, b"Too many photos: at most 100 at once")
    assert time.monotonic() - start < 30  # nothing is waited for that is not sent


def test_an_upload_that_is_broken_off_leaves_nothing(server):
    before = set(server.kept())
    address = urlsplit(server.address)
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
        connection.sendall(
            f"POST /gradio_api/upload HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: 9000000\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\n\r\n".encode()
            + head
            + b"x" * 1_000_000
        )
        _until(lambda: set(server.kept()) - before)
    _until(lambda: set(server.kept()) <= before)


def _until(condition) -> None:
    for _ in range(300):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen")

"""The endpoint over HTTP: deepemd.apps.serve.api."""

import http.client
import json
import random
import socket
import threading

import numpy as np
import pytest
from endpoint import ask, form, image, running, wait_until

from deepemd.apps.serve.answers import Answer, ErrorAnswer
from deepemd.apps.serve.limits import Limits


def is_own(row, prediction) -> bool:
    """Whether an answer is the classifier's own prediction."""
    Answer.model_validate({"photos": [row]})
    shares = np.array(list(row["probabilities"].values()))
    return row["label"] == prediction.label and bool(np.abs(shares - prediction.probabilities).max() < 1e-4)


def test_one_photo_and_several(server, photos, own):
    port, _ = server
    for file in photos[:3]:
        status, content, _ = ask(port, *image(file))
        assert status == 200
        assert len(content["photos"]) == 1
        assert is_own(content["photos"][0], own[file])
    status, content, _ = ask(port, *form(*((file.name, file.read_bytes()) for file in photos[:4])))
    assert status == 200
    assert [row["name"] for row in content["photos"]] == [file.name for file in photos[:4]]
    assert all(is_own(row, own[file]) for row, file in zip(content["photos"], photos, strict=False))


def test_one_of_several_is_bad(server, photos, own):
    port, _ = server
    good, bad = photos[0], photos[1].read_bytes()
    files = [
        ("cut.jpg", bad[: len(bad) // 2]),
        (good.name, good.read_bytes()),
        ("page.jpg", b"<html>"),
        ("empty.jpg", b""),
    ]
    status, content, _ = ask(port, *form(*files))
    assert status == 200
    rows = content["photos"]
    assert [row["error"] and row["error"].split(" (")[0] for row in rows] == [
        "cut.jpg: truncated or damaged image",
        None,
        "page.jpg: not an image but a web page: download the image itself",
        "empty.jpg: an empty file: send a photo",
    ]
    assert is_own(rows[1], own[good])


@pytest.mark.parametrize(
    ("files", "status"), [([("a.jpg", b"no image")], 422), ([("a.jpg", bytes(2 * 2**20)), ("b.jpg", b"")], 413)]
)
def test_all_are_bad(server, files, status):
    found, content, _ = ask(server[0], *form(*files))
    assert found == status
    assert content["error"] == content["photos"][0]["error"]
    assert len(ErrorAnswer.model_validate(content).photos) == len(files)


def test_other_requests(server):
    port, service = server
    assert ask(port, path="/health")[:2] == (200, {"status": "ok", "waiting": 0})
    assert ask(port, path="/health", method="HEAD")[:2] == (200, None)
    status, content, _ = ask(port, path="/model")
    assert status == 200
    assert content["classes"] == dict.fromkeys(service.classifier.classes_.tolist(), 3)
    assert content["limits"] == {"megabytes": 1, "megapixels": 2, "photos": 4, "waiting": 200, "seconds": 5}
    for path, method, status in (("/nothing", "GET", 404), ("/classify", "GET", 405), ("/docs", "DELETE", 405)):
        found, content, _ = ask(port, path=path, method=method)
        assert found == status
        assert content["error"].endswith("there are POST /classify, GET /model, GET /health and GET /docs")
    assert ask(port, path="/health", headers={"Host": "evil.example"})[0] == 403


def test_200_mb_are_not_read_into_the_memory(server):
    port, service = server

    def endless():
        for _ in range(200):
            assert service.memory.used < 2 * 2**20
            yield bytes(2**20)

    status, content, _ = ask(port, endless(), {"Content-Type": "image/jpeg"})  # of a length that is not given
    assert status == 413
    assert "at most 1 MB are read" in content["error"]
    status, content, _ = ask(port, bytes(200 * 2**20), {"Content-Type": "image/jpeg"})
    assert (status, service.memory.used) == (413, 0)
    assert "The request has 200.0 MB" in content["error"]


def test_what_is_no_http_is_answered_in_json(server):
    with socket.create_connection(("127.0.0.1", server[0]), 30) as one:
        one.sendall(b"HELO mail.example\r\n\r\n")
        answer = one.recv(10_000)
        while more := one.recv(10_000):
            answer += more
    head, body = answer.split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body) == {"error": "Invalid HTTP request received."}


def half_sent(port: int, length: int = 1000) -> socket.socket:
    """Send the head of a request, and a part of its body."""
    one = socket.create_connection(("127.0.0.1", port))
    head = f"POST /classify HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: image/jpeg\r\nContent-Length: {length}"
    one.sendall(f"{head}\r\n\r\n".encode() + b"x" * (length - 1))
    return one


def test_slow_clients_block_nobody_and_are_told(server, photos, own):
    port, service = server
    slow = [half_sent(port) for _ in range(20)]
    wait_until(lambda: service.memory.used == 20 * 999)
    assert is_own(ask(port, *image(photos[0]))[1]["photos"][0], own[photos[0]])
    for one in slow:
        with one:
            assert one.recv(100).startswith(b"HTTP/1.1 408 ")
    assert service.memory.used == 0


def test_a_request_that_is_cut_off_leaves_nothing(server):
    port, service = server
    one = half_sent(port)
    wait_until(lambda: service.memory.used == 999)
    one.close()
    wait_until(lambda: service.memory.used == 0)
    assert ask(port, path="/health")[0] == 200


def test_an_error_of_ours_is_json_too(server, photos, monkeypatch, caplog):
    port, service = server

    def broken(_):
        raise RuntimeError("a secret")

    monkeypatch.setattr(service.classifier, "stream_embedded", broken)
    status, content, _ = ask(port, *image(photos[0]))
    assert (status, content["error"]) == (500, "photo: could not be classified; the server's log says why")
    assert "a secret" in caplog.text
    monkeypatch.undo()
    monkeypatch.setattr("deepemd.apps.serve.api.answer", broken)
    status, content, _ = ask(port, *image(photos[0]))
    assert (status, content["error"]) == (500, "The server failed; its log says why. Try again")


class Held:
    """A classifier that answers when it may."""

    def __init__(self, classifier) -> None:
        self.classifier, self.go, self.seen = classifier, threading.Event(), 0

    def __getattr__(self, name):
        return getattr(self.classifier, name)

    def stream_embedded(self, pictures):
        self.go.wait(60)
        self.seen += len(pictures)
        return self.classifier.stream_embedded(pictures)


def test_who_waits_behind_too_many_is_told_to_try_again(classifier, photos, own):
    held = Held(classifier)
    with running(held, Limits(waiting=2)) as (port, service):
        rows: list[dict] = []
        threads = [
            threading.Thread(target=lambda: rows.extend(ask(port, *image(photos[0]))[1]["photos"])) for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        wait_until(lambda: service.waiting == 2)
        status, content, headers = ask(port, *image(photos[0]))
        assert (status, content["error"]) == (503, "The server is busy: 2 requests wait. Try again")
        assert int(headers["Retry-After"]) >= 1
        held.go.set()
        for thread in threads:
            thread.join()
        assert all(is_own(row, own[photos[0]]) for row in rows)
        assert len(rows) == 2
        assert ask(port, *image(photos[0]))[0] == 200


def test_photos_of_a_client_that_leaves_are_not_classified(classifier, photos):
    held = Held(classifier)
    with running(held, Limits()) as (port, service):
        for count in (1, 4):  # the first is taken at once
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request("POST", "/classify", *form(*[("a.jpg", photos[0].read_bytes())] * count))
            wait_until(lambda: service.waiting == 1)
            wait_until(lambda count=count: len(service.worker._waiting) == (0 if count == 1 else 4))
            connection.close()
            wait_until(lambda: service.waiting == 0)
        held.go.set()
        assert ask(port, *image(photos[0]))[0] == 200
        assert held.seen == 2


def test_requests_in_flight_are_answered_when_the_server_stops(classifier, photos, own):
    held, rows = Held(classifier), []
    with running(held, Limits()) as (port, service):
        thread = threading.Thread(target=lambda: rows.extend(ask(port, *image(photos[0]))[1]["photos"]))
        thread.start()
        wait_until(lambda: service.waiting == 1)
        threading.Timer(0.5, held.go.set).start()
    thread.join()
    assert is_own(rows[0], own[photos[0]])


def test_who_cannot_be_answered_in_time_when_the_server_stops_is_told(classifier, photos):
    held, found = Held(classifier), []
    with running(held, Limits(), stop_seconds=1) as (port, service):
        thread = threading.Thread(target=lambda: found.append(ask(port, *image(photos[0]))))
        thread.start()
        wait_until(lambda: service.waiting == 1)
        threading.Timer(3, held.go.set).start()
    thread.join()
    status, content, headers = found[0]
    assert (status, content["error"]) == (503, "The server is stopping: try again later")
    assert headers["Retry-After"] == "10"


def test_many_clients_at_once_get_their_own_answers(classifier, photos, own):
    """Forty clients, good and bad requests, one photo or several: no answer is another's."""
    wrong: list[str] = []

    def client(port: int, seed: int) -> None:
        draw = random.Random(seed)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        for _ in range(4):
            files = [draw.choice(photos) for _ in range(draw.randint(1, 3))]
            body, headers = image(files[0]) if len(files) == 1 else form(*((f.name, f.read_bytes()) for f in files))
            if is_bad := draw.random() < 0.2:
                body, headers = b"<html>", {"Content-Type": "image/jpeg"}
            connection.request("POST", "/classify", body, headers)
            response = connection.getresponse()
            status, rows = response.status, json.loads(response.read())["photos"]
            good = (
                all(is_own(row, own[file]) for row, file in zip(rows, files, strict=True)) if status == 200 else is_bad
            )
            if status != (422 if is_bad else 200) or not good:
                wrong.append(f"{seed}: {status} {rows}")
        connection.close()

    with running(classifier, Limits()) as (port, service):
        threads = [threading.Thread(target=client, args=(port, seed)) for seed in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert service.memory.used == service.waiting == 0
    assert wrong == []


def test_the_loop_is_free_while_photos_are_classified(classifier, photos):
    held = Held(classifier)
    with running(held, Limits()) as (port, service):
        thread = threading.Thread(target=ask, args=(port, *image(photos[0])))
        thread.start()
        wait_until(lambda: service.waiting == 1)
        assert ask(port, path="/health")[1] == {"status": "ok", "waiting": 1}
        held.go.set()
        thread.join()

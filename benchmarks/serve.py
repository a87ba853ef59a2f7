"""Load `deepemd serve` with many clients at once, and compare every answer with the classifier's own.

    pip install -c constraints.txt ".[serve]"
    python benchmarks/serve.py PHOTOS --out benchmarks/results/serve.json   # PHOTOS: a folder of photos for each class

The server is a process of its own, as a user starts it. Each client sends one request after the other: one photo as the
body, or up to four as a form; one request in ten is bad (no image, a photo that is cut off, an empty one, too many
pixels, a connection that is dropped in the middle of the body). Some more clients send a byte a second. A mismatch is
an answer with another label than the classifier's for the same file, or a probability that differs by more than 1e-4.
Exits with 1 if there is a mismatch, or an answer with another status than expected.
"""

import argparse
import collections
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepemd.bench.measure import machine
from deepemd.classifier.classifier import PhotoClassifier
from deepemd.data.photos import class_photos

SHOTS = 5  # photos of each class that the classifier is fitted to; the others are sent
LARGEST_DIFFERENCE = 1e-4  # of a probability


class Request(NamedTuple):
    """A request to send, and what must come back."""

    body: bytes
    kind: str
    files: tuple[Path, ...] = ()
    status: int = 200
    cut: bool = False  # drop the connection in the middle


def form(files: tuple[Path, ...]) -> tuple[bytes, str]:
    """Return the body and the content type of a form with these files."""
    head = b'--part\r\nContent-Disposition: form-data; name="photo"; filename="%s"\r\n\r\n'
    parts = [head % file.name.encode() + file.read_bytes() + b"\r\n" for file in files]
    return b"".join([*parts, b"--part--\r\n"]), "multipart/form-data; boundary=part"


def huge_png() -> bytes:
    """Return a PNG file of 200 megapixels in some kilobytes."""
    chunk = lambda name, data: len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")  # noqa: E731
    head = (20_000).to_bytes(4, "big") + (10_000).to_bytes(4, "big") + bytes([1, 0, 0, 0, 0])
    rows = zlib.compress(bytes(2501) * 10_000, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def requests(files: list[Path], count: int, seed: int) -> list[Request]:
    """Draw the requests of one client."""
    draw = random.Random(seed)
    one = lambda: draw.choice(files)  # noqa: E731
    made = []
    for _ in range(count):
        if draw.random() < 0.1:
            content = one().read_bytes()
            bad = [
                Request(b"<!doctype html><title>no photo</title>", "image/jpeg", status=422),
                Request(content[: len(content) // 2], "image/jpeg", status=422),
                Request(b"", "image/jpeg", status=400),
                Request(huge_png(), "image/png", status=413),
                Request(content, "image/jpeg", cut=True),
            ]
            made.append(draw.choice(bad))
        elif draw.random() < 0.5:
            file = one()
            made.append(Request(file.read_bytes(), "image/jpeg", (file,)))
        else:
            some = tuple(one() for _ in range(draw.randint(1, 4)))
            made.append(Request(*form(some), some))
    return made


class Load:
    """Clients of one server, and what they have seen."""

    def __init__(self, port: int, own: dict[Path, dict[str, Any]]) -> None:
        self.port, self.own = port, own
        self.lock = threading.Lock()
        self.seconds: list[float] = []
        self.statuses: collections.Counter[str] = collections.Counter()
        self.photos = self.mismatches = self.unexpected = 0
        self.largest = 0.0

    def client(self, some: list[Request]) -> None:
        """Send requests one after the other, over one connection while it lasts."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        for request in some:
            if request.cut:
                self.drop(request)
                continue
            began = time.perf_counter()
            try:
                connection.request("POST", "/classify", request.body, {"Content-Type": request.kind})
                response = connection.getresponse()
                status, content = response.status, json.loads(response.read())
            except (OSError, http.client.HTTPException, ValueError) as error:
                connection.close()
                with self.lock:
                    self.unexpected += 1
                    self.statuses[type(error).__name__] += 1
                continue
            self.judge(request, status, content, time.perf_counter() - began)

    def drop(self, request: Request) -> None:
        """Send half of a body, and leave."""
        with socket.create_connection(("127.0.0.1", self.port)) as half:
            head = f"POST /classify HTTP/1.1\r\nHost: localhost:{self.port}\r\nContent-Type: image/jpeg\r\n"
            half.sendall(f"{head}Content-Length: {len(request.body)}\r\n\r\n".encode() + request.body[:1000])

    def judge(self, request: Request, status: int, content: dict[str, Any], took: float) -> None:
        """Compare an answer with the classifier's own."""
        rows = content.get("photos", []) if status == 200 else []
        wrong, largest = abs(len(rows) - len(request.files)), 0.0
        for row, file in zip(rows, request.files, strict=False):
            own = self.own[file]
            found = np.array(list(row["probabilities"].values()))
            difference = float(np.abs(found - own["probabilities"]).max())
            largest = max(largest, difference)
            wrong += row["label"] != own["label"] or difference > LARGEST_DIFFERENCE
        with self.lock:
            self.seconds.append(took)
            self.statuses[str(status)] += 1
            self.photos += len(rows)
            self.mismatches += wrong
            self.unexpected += status != request.status
            self.largest = max(self.largest, largest)


def slow(port: int, stop: threading.Event) -> None:
    """Send a byte a second of a large body, again and again."""
    while not stop.is_set():
        try:
            with socket.create_connection(("127.0.0.1", port)) as one:
                head = f"POST /classify HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: image/jpeg\r\n"
                one.sendall(f"{head}Content-Length: 1000000\r\n\r\n".encode())
                while not stop.wait(1):
                    one.sendall(b"x")
        except OSError:
            continue


def memory(process: int, what: str) -> float:
    """Return VmRSS or VmHWM of a process, in MB of 2**20 bytes."""
    line = next(one for one in Path(f"/proc/{process}/status").read_text().splitlines() if one.startswith(what))
    return round(int(line.split()[1]) / 1024, 1)


def fitted(photos: Path, folder: Path) -> tuple[Path, list[Path]]:
    """Fit and save a classifier to the first photos of each class; return its folder and the other photos."""
    found = class_photos(photos)
    by_class: dict[str, list[Path]] = {}
    for file, label in zip(found.files, found.labels, strict=True):
        by_class.setdefault(label, []).append(file)
    support = [(file, label) for label, files in by_class.items() for file in files[:SHOTS]]
    classifier = PhotoClassifier()
    classifier.fit([file for file, _ in support], [label for _, label in support])
    return classifier.save(folder), [file for files in by_class.values() for file in files[SHOTS:]]


def measured(model: Path, files: list[Path], clients: int, each: int, crawlers: int) -> dict[str, Any]:
    """Start a server, load it, stop it, and return what was seen."""
    own = PhotoClassifier.load(model, cache=False)
    began = time.perf_counter()
    answers = {
        file: {"label": one.label, "probabilities": one.probabilities}
        for file, one in zip(files, own.stream(files), strict=True)
    }
    alone = len(files) / (time.perf_counter() - began)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "deepemd", "serve", str(model), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        assert "serving" in server.stdout.readline()
        load, stop = Load(port, answers), threading.Event()
        load.client(requests(files, 20, seed=-1))  # warm
        before = memory(server.pid, "VmRSS")
        load = Load(port, answers)
        sent = [requests(files, each, seed) for seed in range(clients)]
        threads = [threading.Thread(target=load.client, args=(some,)) for some in sent]
        crawling = [threading.Thread(target=slow, args=(port, stop)) for _ in range(crawlers)]
        began = time.perf_counter()
        for thread in [*crawling, *threads]:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - began
        after, peak = memory(server.pid, "VmRSS"), memory(server.pid, "VmHWM")
        stop.set()
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(60)
    points = dict(zip(("p50", "p95", "p99", "max"), np.percentile(load.seconds, (50, 95, 99, 100)), strict=True))
    return {
        "clients": clients,
        "slow_clients": crawlers,
        "requests": sum(load.statuses.values()),
        "photos": load.photos,
        "seconds": round(took, 1),
        "requests_per_second": round(sum(load.statuses.values()) / took, 1),
        "photos_per_second": round(load.photos / took, 1),
        "photos_per_second_without_server": round(alone, 1),
        "latency_seconds": {name: round(float(value), 3) for name, value in points.items()},
        "statuses": dict(sorted(load.statuses.items())),
        "unexpected": load.unexpected,
        "mismatches": load.mismatches,
        "largest_difference": load.largest,
        "memory_mb": {"before": before, "after": after, "peak": peak},
        "exit_code": code,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder with a folder of photos for each class")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--each", type=int, default=10, help="requests of each client")
    parser.add_argument("--slow", type=int, default=10, help="clients that send a byte a second")
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, files = fitted(options.photos, Path(folder) / "model")
        result = measured(model, files, options.clients, options.each, options.slow)
    report = {**result, "machine": machine(), "cores": os.cpu_count()}
    print(json.dumps(report, indent=2))
    if options.out is not None:
        options.out.write_text(json.dumps(report, indent=2) + "\n")
    return 1 if result["mismatches"] or result["unexpected"] or result["exit_code"] else 0


if __name__ == "__main__":
    raise SystemExit(main())

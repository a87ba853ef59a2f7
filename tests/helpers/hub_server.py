"""A Hugging Face Hub of one process: what huggingface_hub asks of a server to make, upload and fetch a model."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass
class Hub:
    """Its address, and its repositories: the content of each one's files by their names."""

    url: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    messages: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body."""
        parts = path.partition("?")[0].strip("/").split("/")
        if parts == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            self.repositories.setdefault(name, {})
            return _json({"url": f"{self.url}/{name}", "id": name, "name": name})
        if parts == ["api", "validate-yaml"]:
            return _json({"errors": [], "warnings": []})
        name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        if name not in self.repositories:
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        if name in self.gated:
            return 403, {"X-Error-Code": "GatedRepo"}, b"{}"
        files = self.repositories[name]
        sha = sha1(repr(sorted(files.items())).encode()).hexdigest()
        if parts[4:5] == ["preupload"]:
            asked = json.loads(body)["files"]
            return _json(
                {"files": [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in asked]}
            )
        if parts[4:5] == ["commit"]:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "header":
                    self.messages.append(line["value"]["summary"])
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return _json({"success": True, "commitOid": "0" * 40, "commitUrl": f"{self.url}/{name}/commit/{'0' * 40}"})
        if parts[4:5] == ["revision"]:
            siblings = [{"rfilename": file, "size": len(content)} for file, content in files.items()]
            return _json({"id": name, "modelId": name, "sha": sha, "siblings": siblings, "private": False, "tags": []})
        if parts[4:5] == ["tree"]:
            entries = [
                {"type": "file", "path": file, "size": len(content), "oid": sha1(content).hexdigest()}
                for file, content in files.items()
            ]
            return _json(entries)
        if parts[2:3] == ["resolve"] and "/".join(parts[4:]) in files:
            file = "/".join(parts[4:])
            if method == "GET":
                self.fetched.append(file)
            return 200, {"ETag": f'"{sha1(files[file]).hexdigest()}"', "X-Repo-Commit": sha}, files[file]
        return 404, {"X-Error-Code": "EntryNotFound"}, b"{}"


def _json(content: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()


@contextmanager
def hub_server() -> Iterator[Hub]:
    """Serve an empty hub on a free port of this machine."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, content = hub.answer(self.command, self.path, body)
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_POST = _serve

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

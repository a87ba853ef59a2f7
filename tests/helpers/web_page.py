"""`deepemd app` as a user starts it, and people who use it in a real browser."""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),  # a camera that shows a test card
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]


class Server:
    """`deepemd app` as a user starts it, with folders of its own for uploads and for the cache of embeddings."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.uploads, self.cache, self.log = folder / "uploads", folder / "cache", folder / "log.txt"
        self.uploads.mkdir(exist_ok=True)
        env = {**os.environ, "TMPDIR": str(self.uploads), "DEEPEMD_CACHE": str(self.cache)}
        command = [sys.executable, "-u", "-m", "deepemd.cli", "app", *arguments]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=log, text=True)
        line = self.process.stdout.readline()
        assert line.startswith("page: http"), line + self.log.read_text()
        self.address = line.removeprefix("page: ").strip()

    def kept(self) -> list[Path]:
        """What is left of uploads."""
        return [path for path in self.uploads.rglob("*") if path.is_file() and path.stat().st_size]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=30)
        return self.process.returncode


class Page:
    """One person at the page."""

    def __init__(self, browser, address: str, script: str = "", **settings: object) -> None:
        self.context = browser.new_context(**settings)
        self.context.add_init_script(script)  # runs before the page's own
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda one: self.errors.append(one.text) if one.type == "error" else None)
        self.page.on("dialog", lambda dialog: self.errors.append(f"dialog {dialog.message}"))
        self.page.set_default_timeout(60_000)
        self.page.goto(address)
        self.page.get_by_label("Name of the class").wait_for()
        for box in ("class-photos", "queries"):  # which may be drawn later
            self.page.locator(f"#{box} button").first.wait_for()
        self.page.wait_for_load_state("networkidle")  # nobody clicks before the page has loaded what there was

    def drop(self, box: str, *files: dict | Path) -> None:
        self.page.locator(f"#{box} input[type=file]").set_input_files(list(files))

    def add(self, name: str, *files: dict | Path) -> None:
        self.page.get_by_label("Name of the class").fill(name)
        if files:
            self.drop("class-photos", *files)
            self.page.locator("#class-photos table tr").first.wait_for()  # all are there at once
        self.page.get_by_role("button", name="Add to the class").click()

    def added(self, name: str) -> None:
        self.page.get_by_role("button", name=f"Remove {name}", exact=True).wait_for()

    def classes(self) -> list[str]:
        return [re.sub(r" \d+ photos?$", "", text) for text in self.page.locator(".known h3").all_inner_texts()]

    def asked(self) -> list[str]:
        """The names of the photos in the gallery."""
        return self.page.locator("#asked small").all_inner_texts()

    def labels(self) -> list[str]:
        """The labels of the photos in the gallery."""
        return self.page.locator("#asked b").all_inner_texts()

    def until(self, expression: str) -> None:
        """Wait until a JavaScript expression is true; the page's policy forbids Playwright's own way."""
        for _ in range(600):
            if self.page.evaluate(expression):
                return
            self.page.wait_for_timeout(100)
        raise AssertionError(f"never true: {expression}")

    def says(self, text: str) -> None:
        self.page.get_by_role("alert").get_by_text(text).first.wait_for()


def jpeg(image, name: str) -> dict:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=92)
    return {"name": name, "mimeType": "image/jpeg", "buffer": file.getvalue()}

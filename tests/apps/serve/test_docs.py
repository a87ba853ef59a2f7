"""docs/serving.md says what the server does: its examples are run."""

import re
import shutil
import subprocess
import sys
from inspect import signature
from pathlib import Path

from deepemd.apps.serve.answers import PhotoAnswer
from deepemd.apps.serve.api import STATUSES
from deepemd.commands.serve import serve

PAGE = (Path(__file__).parents[3] / "docs" / "serving.md").read_text()


def test_the_examples(server, photos, own, tmp_path, monkeypatch):
    """The commands for curl and the client in Python are run as they are written, at another port."""
    for name, file in (("1.jpg", photos[0]), ("2.jpg", photos[1])):
        shutil.copy(file, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    port, _ = server
    (client,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    code = client.replace("localhost:8000", f"localhost:{port}")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = [f"{k}.jpg {own[file].label} {own[file].probability:.3f}" for k, file in enumerate(photos[:2], 1)]
    assert done.stdout.splitlines() == expected
    if shutil.which("curl"):
        for line in re.findall(r"```bash\n(curl.*?)```", PAGE, re.DOTALL)[0].splitlines():
            line = line.replace("localhost:8000", f"localhost:{port}").replace("curl ", "curl -sS --fail ")
            assert subprocess.run(line, shell=True, check=True, capture_output=True).stdout.startswith(b"{")


def test_the_page_names_every_option_and_status():
    assert all(f"--{name}" in PAGE for name in signature(serve).parameters if name not in ("model", "port"))
    assert all(f"| {status} |" in PAGE for status in STATUSES)
    assert all(f"`{field}`" in PAGE for field in PhotoAnswer.model_fields if field != "name")

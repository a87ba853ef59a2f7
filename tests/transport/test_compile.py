"""Compiled code is stored and loaded again; whatever goes wrong on disk costs time and never the result.

One test loads the solver itself, in a copy of the package with its own cache. The others use a function so small that
it compiles in a second. Tests may run as root, who can write everywhere, so the folder that cannot be written is
below a file.

Tests deepemd.transport._compile.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from numba.core import config

import deepemd
from deepemd.transport import _compile, compile_ahead

NOWHERE = "/dev/null/cache"
SOLVE = """
import torch
from deepemd import emd
cost = torch.arange(12, dtype=torch.float32).view(3, 4) % 5
print(emd(cost, torch.full((3,), 4.0), torch.full((4,), 3.0)).value.item())
"""
SOLUTION = 6.0
NEEDLESS = """
import sys
print([name for name in ("torch._dynamo", "sympy", "numba.np.linalg") if name in sys.modules])
"""
TINY = """
import numpy as np
from alone._compile import cached_njit

def entry(fingerprint):
    @cached_njit(lambda args: f"{args[0]} numbers")
    def tiny(x):
        fingerprint
        return np.full(3, x).sum() + 1  # allocates memory, as the solver does

    return tiny

if __name__ == "__main__":
    from tiny import entry
    print(entry("as before")(2.0))
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """A folder to import from: copies of deepemd and, without PyTorch, of ``_compile.py``; and ``tiny``."""
    folder = tmp_path_factory.mktemp("copy")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(deepemd.__file__).parent, folder / "deepemd", ignore=ignored)
    (folder / "alone").mkdir()
    (folder / "alone" / "__init__.py").touch()
    shutil.copy(_compile.__file__, folder / "alone")
    (folder / "tiny.py").write_text(TINY)
    return folder


@pytest.fixture(scope="module")
def entry(copy):
    """A function that makes ``tiny`` in this process."""
    scope = {"__name__": "tiny_here"}
    exec(compile(TINY.replace("alone._compile", "deepemd.transport._compile"), str(copy / "tiny.py"), "exec"), scope)
    return scope["entry"]


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    return tmp_path


def _start(copy: Path, code: str, before: str = "", **environment: object) -> subprocess.Popen:
    given = {"PYTHONPATH": copy, "PYTHONDONTWRITEBYTECODE": 1, **environment}
    others = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(before) + code],
        env=others | {k: str(v) for k, v in given.items()},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def _run(copy: Path, code: str, before: str = "", **environment: object) -> tuple[str, list[str]]:
    """Return what a new process prints, and the lines of its standard error."""
    process = _start(copy, code, before, **environment)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out, err.splitlines()


def _tiny(copy: Path, before: str = "", **environment: object) -> tuple[str, list[str]]:
    return _run(copy, 'import runpy; runpy.run_module("tiny", run_name="__main__")', before, **environment)


def test_a_new_process_loads_the_solver_and_compiles_it_only_if_a_source_has_changed(copy, tmp_path):
    """The code that this process has stored serves a copy of the package with the same sources."""
    stored = compile_ahead(4).file
    folder = tmp_path / f"transport_{hashlib.sha256(str(copy / 'deepemd' / 'transport').encode()).hexdigest()[:16]}"
    folder.mkdir()
    shutil.copy(stored, folder)
    assert _run(copy, SOLVE + NEEDLESS, NUMBA_CACHE_DIR=tmp_path) == (f"{SOLUTION}\n[]\n", [])

    source = copy / "deepemd" / "transport" / "_start.py"
    code = source.read_text()
    changed = re.sub(r"^ROUNDS = \(\d", "ROUNDS = (5", code, flags=re.M)
    assert changed != code
    source.write_text(changed)
    process = _start(copy, SOLVE, NUMBA_CACHE_DIR=tmp_path)
    try:
        assert process.stderr.readline() == (
            "deepemd: compiling the transport solver for float32 costs, up to 16 x 16, once on this machine ...\n"
        )
    finally:
        process.kill()
        process.communicate()
        source.write_text(code)
    assert _run(copy, SOLVE, NUMBA_CACHE_DIR=tmp_path) == (f"{SOLUTION}\n", [])


def test_processes_that_compile_at_once(copy, tmp_path):
    together = [_start(copy, "from tiny import entry; print(entry('')(2.0))", NUMBA_CACHE_DIR=tmp_path) for _ in "ab"]
    assert [process.communicate()[0] for process in together] == ["7.0\n", "7.0\n"]
    assert _run(copy, "from tiny import entry; print(entry('')(2.0))", NUMBA_CACHE_DIR=tmp_path) == ("7.0\n", [])
    assert [path.suffix for path in tmp_path.glob("*/*")] == [".nbc"]


def test_a_cache_folder_that_cannot_be_written(copy):
    out, lines = _tiny(copy, NUMBA_CACHE_DIR=NOWHERE)
    assert out == "7.0\n"
    assert len(lines) == 1
    assert "for this process only: cannot write to /dev/null/cache" in lines[0]
    assert "set NUMBA_CACHE_DIR to a writable folder" in lines[0]
    assert "once" not in lines[0]


def test_neither_package_nor_home_can_be_written_and_then_home_can(copy, tmp_path):
    beside = copy / "alone" / "__pycache__"
    beside.write_text("a file where the folder would be")
    try:
        out, lines = _tiny(copy, HOME="/dev/null")
        assert out == "7.0\n"
        assert len(lines) == 1
        assert f"cannot write to {beside} or /dev/null/.cache" in lines[0]
        assert "once on this machine" in _tiny(copy, HOME=tmp_path)[1][0]
        assert _tiny(copy, HOME=tmp_path) == ("7.0\n", [])
    finally:
        beside.unlink()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_full_disk_does_not_cost_the_result(copy, tmp_path):
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
    out, lines = _tiny(copy, before=full, NUMBA_CACHE_DIR=tmp_path)
    assert out == "7.0\n"
    assert len(lines) == 2
    assert "could not be stored" in lines[1]
    assert "File too large" in lines[1]
    assert not list(tmp_path.glob("*/*"))


@pytest.mark.usefixtures("cache")
def test_stored_code_is_found_in_a_folder_that_only_others_can_write(entry, capsys):
    entry("")(1.0)
    capsys.readouterr()
    user = entry("")
    user._cache.folders = [Path(NOWHERE), *user._cache.folders]
    user._cache.folders[1].chmod(0o555)
    assert user(2.0) == 7.0
    user._cache.folders[1].chmod(0o755)
    assert len(user._cache.files) == 1
    assert not user._cache.compiled
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("damage", ["empty", "truncated", "one bit", "not a pickle", "a folder"])
def test_a_damaged_file_is_compiled_again_and_replaced(entry, capsys, damage):
    first = entry("")
    assert first(1.0) == 4.0
    (path,) = first._cache.files.values()
    whole = path.read_bytes()
    if damage == "a folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(
            {
                "empty": b"",
                "truncated": whole[:-100],
                "one bit": whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:],
                "not a pickle": first._cache._digest(b"nonsense") + b"nonsense",
            }[damage]
        )
    capsys.readouterr()
    assert entry("")(2.0) == 7.0
    message = capsys.readouterr().err
    assert "compiling" in message
    if damage == "a folder":  # cannot be replaced, which is a warning and no error
        assert "could not be stored" in message
    else:
        again = entry("")
        assert again(2.0) == 7.0
        assert not again._cache.compiled
        assert capsys.readouterr().err == ""


def test_code_from_other_sources_types_or_settings_is_not_taken(entry, cache, monkeypatch):
    first = entry("one version")
    first(1.0)
    other = entry("another version")
    other(1.0)
    assert other._cache.compiled
    assert other._cache.files == first._cache.files  # the file of the other version is replaced
    other(np.float32(1.0))
    assert len(list(cache.glob("*/*"))) == 2
    monkeypatch.setattr(config, "BOUNDSCHECK", 1)
    checked = entry("another version")
    checked(1.0)
    assert checked._cache.compiled


def test_a_closed_standard_error_is_no_failure(copy, tmp_path):
    assert _tiny(copy, before="import sys; sys.stderr.close()\n", NUMBA_CACHE_DIR=tmp_path)[0] == "7.0\n"
    assert _tiny(copy, before="import sys; sys.stderr = None\n", NUMBA_CACHE_DIR=NOWHERE)[0] == "7.0\n"


def test_from_a_zip_archive_and_without_sources(copy, tmp_path):
    say = "from deepemd.transport import emd, _compile\nprint(_compile.source_fingerprint())\n"
    archive = shutil.make_archive(str(tmp_path / "deepemd"), "zip", copy)
    assert _run(Path(archive), say)[0] == _compile.source_fingerprint() + "\n"

    bare = tmp_path / "bare"
    shutil.copytree(copy, bare)
    subprocess.run([sys.executable, "-m", "compileall", "-qb", bare], check=True)
    for source in bare.rglob("*.py"):
        source.unlink()
    assert re.fullmatch(r"[0-9a-f]{64}\n7.0\n", _tiny(bare, before=say, NUMBA_CACHE_DIR=tmp_path)[0])
    assert _tiny(bare, NUMBA_CACHE_DIR=tmp_path) == ("7.0\n", [])


def test_every_file_with_compiled_code_is_watched():
    folder = Path(_compile.__file__).parent
    compiled = {
        p.name
        for p in folder.glob("*.py")
        if re.search(r"^ *@(inlined|subroutine|cached_njit|njit|intrinsic|overload)", p.read_text(), re.M)
    }
    assert compiled == set(_compile.KERNELS)

"""How many threads solve, who says so, and that it changes no answer."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from problems import draw_batch

from deepemd.emd import _threads, emd, threads


def _many(batch=300):
    return [torch.from_numpy(t).float() for t in draw_batch(np.random.default_rng(1), "random", batch, 25, 25)]


@pytest.fixture
def used(monkeypatch):
    """How many threads each solve of the test used, seen where work is handed out; of eight processors."""
    seen = []
    pieces = _threads._pieces

    def spy(batch, count):
        seen.append(count)
        return pieces(batch, count)

    monkeypatch.setattr(_threads, "_pieces", spy)
    monkeypatch.setattr(_threads, "_processors", lambda: 8)
    monkeypatch.delenv("DEEPEMD_NUM_THREADS", raising=False)
    return seen


def test_the_block_decides_and_what_was_before_comes_back(used, monkeypatch):
    inputs = _many()
    before = torch.get_num_threads()
    monkeypatch.setenv("DEEPEMD_NUM_THREADS", "4")
    with threads(3):
        with threads(2):
            emd(*inputs)
        emd(*inputs)
        with pytest.raises(ValueError, match="cost"), threads(5):
            emd(inputs[0] * float("nan"), *inputs[1:])
        emd(*inputs)
    emd(*inputs)
    monkeypatch.delenv("DEEPEMD_NUM_THREADS")
    try:
        torch.set_num_threads(6)
        emd(*inputs)
    finally:
        torch.set_num_threads(before)
    assert used == [2, 3, 5, 3, 4, 6]


def test_a_single_thread_and_little_work_wake_nobody(used):
    with threads(1):
        emd(*_many())
    with threads(8):
        emd(*_many(batch=2))
    assert used == []


def test_any_number_of_threads_gives_the_same_answer():
    inputs = _many()
    with threads(1):
        want = emd(*inputs)
    for count in (2, 3, 7):
        with threads(count):
            found = emd(*inputs)
        assert all(torch.equal(getattr(found, name), getattr(want, name)) for name in ("value", "u", "v", "plan"))


@pytest.mark.parametrize(
    ("count", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError), (True, TypeError)]
)
def test_a_count_that_is_none(count, error):
    with pytest.raises(error, match=r"count must be .*; try threads\(1\)"), threads(count):
        pass


@pytest.mark.parametrize("value", ["0", "-2", "two", "1.5"])
def test_a_variable_that_is_no_count(monkeypatch, value):
    monkeypatch.setattr(_threads, "_processors", lambda: 8)
    monkeypatch.setenv("DEEPEMD_NUM_THREADS", value)
    with pytest.raises(ValueError, match=f"DEEPEMD_NUM_THREADS must be .*got '{value}'; try"):
        emd(*_many())


def test_processes_started_by_spawn_agree(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import multiprocessing, torch\nfrom deepemd.emd import emd\n\n"
        "def solve(seed):\n"
        "    cost = torch.rand(64, 20, 20, generator=torch.Generator().manual_seed(seed))\n"
        "    return emd(cost, torch.ones(20), torch.ones(20)).value.tolist()\n\n"
        "if __name__ == '__main__':\n"
        "    here = [solve(0), solve(1)]\n"
        "    with multiprocessing.get_context('spawn').Pool(2) as pool:\n"
        "        assert pool.map(solve, range(2)) == here\n"
    )
    subprocess.run([sys.executable, program], check=True, timeout=300)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_solves_after_its_parent_used_threads():
    script = (
        "import os, torch\nfrom deepemd.emd import _threads, emd, threads\n_threads._processors = lambda: 4\n"
        "c = torch.rand(300, 25, 25); w = torch.full((25,), 1 / 25.0)\n"
        "with threads(4):\n    expected = emd(c, w, w).value\n"
        "    child = os.fork()\n"
        "    if child == 0:\n        os._exit(0 if torch.equal(emd(c, w, w).value, expected) else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
    )
    subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", script], check=True, timeout=120)

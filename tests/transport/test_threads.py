"""The number of threads, how it is set, and that it changes no answer.

Tests deepemd.transport._threads, deepemd.transport._tickets.
"""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from problems import draw_batch

from deepemd.transport import _threads, _tickets, emd, threads


def _many(batch=300):
    return [torch.from_numpy(t).float() for t in draw_batch(np.random.default_rng(1), "random", batch, 25, 25)]


@pytest.fixture
def used(monkeypatch):
    """The number of threads that each solve of the test used, on eight processors."""
    seen = []
    submit = _threads._pool.submit

    def spy(work, count):
        seen.append(1 + count)
        submit(work, count)

    monkeypatch.setattr(_threads._pool, "submit", spy)
    monkeypatch.setattr(_threads, "_processors", lambda: 8)
    _environment(monkeypatch, None)
    yield seen
    _threads._from_environment.cache_clear()


def _environment(monkeypatch, count):
    """Set the variable, as if the process had just started."""
    if count is None:
        monkeypatch.delenv("DEEPEMD_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("DEEPEMD_NUM_THREADS", count)
    _threads._from_environment.cache_clear()


def test_the_block_decides_and_what_was_before_comes_back(used, monkeypatch):
    inputs = _many()
    before = torch.get_num_threads()
    _environment(monkeypatch, "4")
    with threads(3):
        with threads(2):
            emd(*inputs)
        emd(*inputs)
        with pytest.raises(ValueError, match="cost"), threads(5):
            emd(inputs[0] * float("nan"), *inputs[1:])
        emd(*inputs)
    emd(*inputs)
    _environment(monkeypatch, None)
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


@pytest.mark.parametrize("patience", [0, _threads._PATIENCE])
@pytest.mark.usefixtures("used")
def test_any_number_of_threads_gives_the_same_answer(monkeypatch, patience):
    monkeypatch.setattr(_threads, "_PATIENCE", patience)
    inputs = _many()
    with threads(1):
        want = emd(*inputs)
    for count in (2, 3, 7):
        with threads(count):
            found = emd(*inputs)
        assert all(torch.equal(getattr(found, name), getattr(want, name)) for name in ("value", "u", "v", "plan"))


@pytest.mark.usefixtures("used")
def test_the_first_problem_refused_is_named_whoever_found_it():
    cost, a, b = _many(batch=3000)
    for first in (0, 7, 1500, 2999):
        wrong = a.clone()
        wrong[first:, 3] = -1.0
        for count in (1, 2, 5):
            with threads(count), pytest.raises(ValueError, match=rf"negative weight at batch index \({first},\)"):
                emd(cost, wrong, b)


@pytest.mark.usefixtures("used")
def test_what_goes_wrong_in_a_helper_is_not_lost():
    def kernel(*given):
        shared = given[5]
        if threading.current_thread() is threading.main_thread():
            while shared[_tickets.BUSY] == 0:
                pass
            return False
        shared[_tickets.BUSY] = 1
        raise IndexError("a vector reaches outside its array")

    with threads(2), pytest.raises(IndexError, match="reaches outside"):
        _threads.solve(kernel, [t.numpy() for t in _many()], 1e-4, [])


@pytest.mark.parametrize(
    ("count", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError), (True, TypeError)]
)
def test_a_count_that_is_none(count, error):
    with pytest.raises(error, match=r"count must be .*; try threads\(1\)"), threads(count):
        pass


@pytest.mark.parametrize("value", ["0", "-2", "two", "1.5"])
@pytest.mark.usefixtures("used")
def test_a_variable_that_is_no_count(monkeypatch, value):
    _environment(monkeypatch, value)
    with pytest.raises(ValueError, match=f"DEEPEMD_NUM_THREADS must be .*got '{value}'; try"):
        emd(*_many())


def test_processes_started_by_spawn_agree(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import multiprocessing, torch\nfrom deepemd.transport import emd\n\n"
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
        "import os, torch\nfrom deepemd.transport import _threads, emd, threads\n_threads._processors = lambda: 4\n"
        "c = torch.rand(300, 25, 25); w = torch.full((25,), 1 / 25.0)\n"
        "with threads(4):\n    expected = emd(c, w, w).value\n"
        "    child = os.fork()\n"
        "    if child == 0:\n        os._exit(0 if torch.equal(emd(c, w, w).value, expected) else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
    )
    subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", script], check=True, timeout=120)

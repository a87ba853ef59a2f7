"""Ctrl-C ends a call that would take minutes, from whatever thread, and the next call is right.

Each test runs a process that interrupts itself. Without the watch it would only end at its time limit.

Tests deepemd.transport._threads, deepemd.transport._tickets.
"""

import signal
import subprocess
import sys
import threading
from concurrent.futures import CancelledError

import numpy as np
import pytest
import torch

from deepemd.transport import _threads, _tickets

pytestmark = pytest.mark.usefixtures("compiled_solver")

PROGRAM = """
import os, signal, sys, threading, time
import torch
from deepemd.threads import single_threads
from deepemd.transport import WarmStart, _threads, emd

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs with SIGINT ignored

def problems(batch, n):
    generator = torch.Generator().manual_seed(0)
    cost = torch.rand(1, n, n, generator=generator).expand(batch, n, n).contiguous()
    a, b = (torch.rand(1, n, generator=generator).add(0.1).expand(batch, n).contiguous() for _ in range(2))
    return cost, a, b * (a.sum(1) / b.sum(1))[:, None]

small = problems(3, 150)
expected = emd(*small).value
warm = WarmStart()
warm(*small)
_threads._processors = lambda: 2
torch.set_num_threads(THREADS)
given = problems(*SIZE)

def interrupt():
    time.sleep(AFTER)
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt, daemon=True).start()
try:
    CALL
    print("finished")
except KeyboardInterrupt:
    print("interrupted")
for thread in threading.enumerate():
    if thread.name == "deepemd-lead":
        thread.join(60)
        assert not thread.is_alive(), "the solver goes on"
assert torch.equal(emd(*small).value, expected)
assert torch.equal(warm(*small).value, expected)
print("right")
"""

EMD, WARM = "emd(*given)", "warm(*given)"
POOL = "with single_threads(2) as run: list(run(lambda x: emd(*x).value, [given, given]))"


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill does not send SIGINT on Windows")
@pytest.mark.parametrize(
    ("size", "after", "threads", "call"),
    [
        ((1, 6000), 1.0, 1, EMD),  # while pivoting
        ((1, 6000), 0.15, 1, EMD),  # during the entropic start
        ((3000, 300), 0.5, 1, EMD),  # between problems
        ((3000, 300), 0.5, 2, EMD),
        ((2, 4000), 1.0, 2, EMD),
        ((1, 4000), 1.0, 1, WARM),
        ((1, 4000), 1.0, 1, POOL),  # in threads that never get the signal
    ],
)
def test_control_c_ends_a_long_call(size, after, threads, call):
    program = PROGRAM.replace("SIZE", str(size)).replace("AFTER", str(after)).replace("THREADS", str(threads))
    done = subprocess.run(
        [sys.executable, "-c", program.replace("CALL", call)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout.split() == ["interrupted", "right"], done.stderr


def _long(kernel, monkeypatch):
    monkeypatch.setattr(_threads, "_LONG", 1)
    return _threads.solve(kernel, [np.ones((2, 3, 3)), np.ones((2, 3)), np.ones((2, 3))], 1e-4, [])


def test_a_signal_that_is_handled_lets_the_call_go_on(monkeypatch):
    seen = []

    def kernel(*given):
        shared = given[5]
        seen.append(threading.current_thread())
        signal.raise_signal(signal.SIGINT)
        seen.append(int(shared[_tickets.STOP]))
        return True

    before = signal.signal(signal.SIGINT, lambda *_: seen.append("handled"))
    try:
        _long(kernel, monkeypatch)
    finally:
        signal.signal(signal.SIGINT, before)
    assert "handled" in seen
    assert seen[0] is not threading.current_thread()
    assert 0 in seen


def test_what_goes_wrong_in_the_thread_is_raised_here(monkeypatch):
    def kernel(*_):
        raise IndexError("a vector reaches outside its array")

    with pytest.raises(IndexError, match="reaches outside"):
        _long(kernel, monkeypatch)


def test_work_that_nobody_needs_any_more_is_stopped(monkeypatch):
    monkeypatch.setattr(_threads, "stopped", lambda: True)

    def kernel(*given):
        while not given[5][_tickets.STOP]:
            pass
        return True

    with pytest.raises(CancelledError, match="no longer needed"):
        _long(kernel, monkeypatch)


def test_where_no_more_threads_are_allowed_the_caller_works(monkeypatch):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    seen = []
    _long(lambda *_: seen.append(threading.current_thread()) or True, monkeypatch)
    assert seen == [threading.current_thread()]


def test_short_calls_start_no_thread(monkeypatch):
    monkeypatch.setattr(_threads, "_watched", lambda *_: pytest.fail("a short call was watched"))
    _threads.solve(lambda *_: True, [np.ones((9, 9, 9)), np.ones((9, 9)), np.ones((9, 9))], 1e-4, [])


@torch.no_grad()
def test_a_long_batch_gives_the_same_answer(monkeypatch):
    from deepemd.transport import emd

    problem = torch.rand(50, 20, 20), torch.ones(20), torch.ones(20)
    want = emd(*problem)
    monkeypatch.setattr(_threads, "_LONG", 1)
    found = emd(*problem)
    assert all(torch.equal(getattr(found, name), getattr(want, name)) for name in ("value", "u", "v", "plan"))
    with pytest.raises(ValueError, match=r"cost holds NaN .*\(0, 3\)|cost holds NaN .*\(3,\)"):
        emd(problem[0].index_fill(0, torch.tensor([3]), float("nan")), *problem[1:])

"""Progress: plain lines where there is no terminal, a bar where there is one, nothing of quick work."""

import io
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from types import SimpleNamespace

import pytest

from deepemd import progress
from deepemd.progress import Progress, say, track

_LIMIT = 60  # seconds after which a test gives up


@pytest.fixture
def log(monkeypatch):
    """What is printed on standard error, which is no terminal; the first line is due at once."""
    stream = io.StringIO()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stream))  # pytest sets its own again for the test
    monkeypatch.setattr(progress, "FIRST", 0.0)
    monkeypatch.setattr(progress, "SHORTEST", 0.01)
    monkeypatch.setattr(progress, "GROWTH", 1.0)
    return stream


def _until(log: io.StringIO, text: str) -> None:
    """Wait until a text has been printed."""
    end = time.monotonic() + _LIMIT
    while text not in log.getvalue():
        assert time.monotonic() < end, log.getvalue()
        time.sleep(0.005)


def test_items_come_through_unchanged_and_quick_work_prints_nothing(capsys):
    assert list(track(iter("abc"), "reading")) == ["a", "b", "c"]
    assert list(track([], "reading", 0, "letters")) == []
    assert capsys.readouterr() == ("", "")


def test_lines_come_while_no_step_ends_and_one_at_the_end(log):
    for k in track(range(1200), "classifying", 1200, "photos"):
        if k == 0:
            _until(log, "classifying: 0 of 1,200 photos, 0 %, 0 s\n")
        if k == 600:
            _until(log, "classifying: 600 of 1,200 photos, 50 %, ")
            _until(log, " left\n")
    assert "\r" not in log.getvalue()
    assert log.getvalue().splitlines()[-1].startswith("classifying: 1,200 photos, ")


def test_of_a_generator_the_number_so_far_is_shown(log):
    for k in track((k for k in range(3)), "classifying", unit="photos"):
        if k == 2:
            _until(log, "classifying: 2 photos, ")
    last = log.getvalue().splitlines()[-1]
    assert last.startswith("classifying: 3 photos, ")
    assert "%" not in log.getvalue()
    assert "left" not in log.getvalue()


def test_batches_count_their_items_and_the_last_one_may_be_smaller(log):
    for start in track(range(0, 100, 64), "embedding", 100, "images", each=64):
        _until(log, f"embedding: {start} of 100 images")
    assert log.getvalue().splitlines()[-1].startswith("embedding: 100 images, ")


def test_an_interrupted_work_says_how_far_it_came(log):
    def work():
        for k in track(range(10), "reading", 10, "files"):
            if k == 4:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    with suppress(ValueError), Progress("unpacking", unit="files") as shown:
        shown.advance(2)
        raise ValueError
    assert "unpacking: stopped, 2 files, 0 s\n" in log.getvalue()
    assert "reading: stopped, 4 of 10 files, 0 s\n" in log.getvalue()


def test_the_speed_is_that_of_the_last_lines():
    """Files that were read from a cache at first say nothing about the others."""
    shown = Progress("reading", 1000, "files")
    lines = progress._Lines(shown)
    began = lines._began
    told = []
    for second, done in ((1, 500), (11, 510), (21, 520), (31, 530), (41, 540)):
        shown.done = done
        told.append(lines._line(began + second).rpartition(", ")[2])
    lines.close(complete=True)
    assert told[0] == "about 1 s left"
    assert told[-1] == "about 8 min left"  # 460 files at one a second


def test_lines_come_at_growing_intervals():
    """At most a minute apart: a log of a day has at most 1,500 lines."""
    waits, interval = [progress.FIRST], progress.SHORTEST
    while sum(waits) < 3600:
        waits.append(interval)
        interval = min(interval * progress.GROWTH, progress.LONGEST)
    assert waits[:3] == [5, 10, 12.5]
    assert waits == sorted(waits)
    assert max(waits) == 60
    assert 60 < len(waits) < 80


def test_many_short_works_are_not_silent_for_more_than_a_minute(log, monkeypatch):
    monkeypatch.setattr(progress, "FIRST", 5.0)
    monkeypatch.setattr(progress, "_SHORT", 0.0)
    now = time.monotonic()
    monkeypatch.setattr(progress, "_last_line", now - 61)
    monkeypatch.setattr(progress, "_last_end", now)  # the work before has just ended
    with Progress("matching", 10, "episodes"):
        _until(log, "matching: 0 of 10 episodes, 0 %")
    log.truncate(0)
    monkeypatch.setattr(progress, "_last_line", now - 61)
    monkeypatch.setattr(progress, "_last_end", now - 30)  # other work, of which nothing is known, lay between
    shown = progress._Lines(Progress("matching"))
    shown.close(complete=True)
    assert progress._last_line > now - 1
    assert "matching" not in log.getvalue()


def test_only_process_0_prints(log, monkeypatch):
    monkeypatch.setattr(progress, "rank", lambda: 1)
    with Progress("matching", 10, "episodes") as shown:
        shown.advance()
        say("a line")
    assert not log.getvalue()
    assert "progress" not in {thread.name for thread in threading.enumerate()}


def test_names_cannot_act_on_a_terminal_and_a_closed_stream_ends_nothing(log, monkeypatch):
    say("a\x1b[2Jb\rc")
    assert log.getvalue() == "a\\x1b[2Jb\\x0dc\n"
    log.close()
    with Progress("matching", 10, "episodes") as shown:
        shown.advance(10)
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=None))
    assert list(track("ab", "reading", 2)) == ["a", "b"]


CODE = """
from deepemd import progress
progress.FIRST = 0.0
for k in progress.track(range(3), "reading [x]", 3, "files"):
    if k == 1:
        progress.say("a line")
"""


def test_on_a_terminal_there_is_a_bar_and_lines_appear_above_it():
    pty = pytest.importorskip("pty", reason="terminals without a screen are POSIX")
    master, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    subprocess.run([sys.executable, "-c", CODE], stderr=terminal, check=True, env=environment)
    os.close(terminal)
    shown = b""
    with suppress(OSError):  # the end of what a terminal has received, on Linux
        while more := os.read(master, 1000):
            shown += more
    os.close(master)
    assert b"reading [x]" in shown
    assert b"of 3 files" in shown
    assert b"a line" in shown
    assert b"reading [x]: " not in shown  # no plain line


@pytest.mark.parametrize("variables", [{}, {"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}])
def test_in_a_log_there_is_no_code_of_a_terminal(variables):
    """Services that run tests ask for colours where there is no terminal; a bar would fill their logs."""
    done = subprocess.run(
        [sys.executable, "-c", CODE], stderr=subprocess.PIPE, check=True, env={**os.environ, **variables}
    )
    assert b"reading [x]: 3 files, 0 s\n" in done.stderr
    assert b"a line\n" in done.stderr
    assert not {b"\r", b"\x1b"} & {done.stderr[k : k + 1] for k in range(len(done.stderr))}

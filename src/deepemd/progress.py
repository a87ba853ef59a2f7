"""Show the progress of long work on standard error: a bar on a terminal, plain lines elsewhere, such as in a log.

    classifying: 1,200 of 20,000 photos, 6 %, 45 s, about 11 min left

The first line comes after 5 seconds; the time between lines grows from 10 seconds to a minute. Lines come even while no
step ends. Quicker work prints nothing, unless many such pieces follow each other. Of several processes only process 0
prints.
"""

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Self, TypeVar

from deepemd.errors import printable
from deepemd.processes import rank

__all__ = ["Progress", "say", "track"]

T = TypeVar("T")
_last_line = _last_end = 0.0  # when a line was last printed, and when a progress last ended

FIRST = 5.0  # seconds until the first line
SHORTEST, GROWTH, LONGEST = 10.0, 1.25, 60.0  # seconds between lines, and by what factor they grow
_SHORT = 1.0  # seconds of work before which no line is printed at all
_RECENT = 4  # lines from which the speed is measured: photos that are read from a cache at first take no time


def track(
    items: Iterable[T], description: str, total: float | None = None, unit: str = "", *, each: float = 1
) -> Iterator[T]:
    """Iterate over items and show how many are finished.

    Args:
        items: the items; each is finished when the next one is asked for.
        description: what is done, such as "classifying".
        total: number of units in all; None, or 0, if it is not known, as of a generator.
        unit: what is counted, in the plural, such as "photos".
        each: units of an item, such as the size of a batch; the last batch may be smaller.

    >>> list(track("abc", "reading", 3, "letters"))
    ['a', 'b', 'c']
    """
    with Progress(description, total, unit) as progress:
        for item in items:
            yield item
            progress.advance(each)


class Progress:
    """Shows the progress of work within a ``with`` block; see :func:`track`.

    Args:
        description, total, unit: as for :func:`track`; they are attributes, and may change.
        done: units that are finished before the work begins, such as those of an earlier run.
        bar: False for no bar on a terminal, where a library shows its own.

    Attributes:
        done: number of finished units.
        detail: more to show, such as a loss; "" for nothing.
    """

    def __init__(
        self, description: str, total: float | None = None, unit: str = "", *, done: float = 0, bar: bool = True
    ) -> None:
        self.description, self.total, self.unit, self.done = description, total or None, unit, done
        self.detail = ""
        self._bar = bar
        self._display: _Bar | _Lines | None = None

    def __enter__(self) -> Self:
        if rank() == 0 and not _on_terminal():
            self._display = _Lines(self)
        elif rank() == 0 and self._bar:
            self._display = _Bar(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._display is not None:
            self._display.close(complete=kind is None)
            self._display = None

    def advance(self, count: float = 1) -> None:
        """Count finished units."""
        self.set(self.done + count)

    def set(self, done: float) -> None:
        """Set the number of finished units; at most `total`."""
        self.done = done if self.total is None else min(done, self.total)
        if self._display is not None:
            self._display.update()


def say(text: str) -> None:
    """Print a line on standard error, above a bar if there is one; only process 0 prints."""
    global _last_line
    _last_line = time.monotonic()
    if rank() == 0 and sys.stderr is not None:
        with suppress(OSError, ValueError, RuntimeError):  # closed; or in a signal's handler, within another line
            sys.stderr.write(printable(text) + "\n")  # one call, so that lines of two threads do not mix
            sys.stderr.flush()


class _Bar:
    """A bar, which disappears at the end."""

    def __init__(self, shown: Progress) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = [
            TextColumn("{task.description}", markup=False),  # names hold brackets
            BarColumn(bar_width=10),  # everything fits into 80 columns
            TextColumn("{task.fields[counts]}", markup=False),
            *(
                (TimeElapsedColumn(),)
                if shown.total is None
                else (TimeRemainingColumn(compact=True), TextColumn("left"))
            ),
        ]
        self._shown, console = shown, Console(stderr=True, highlight=False)
        self._rich = RichProgress(
            *columns,
            console=console,
            transient=True,
            speed_estimate_period=300,
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
        )
        self._task = self._rich.add_task("", total=shown.total, counts="")
        self.update()
        self._rich.start()

    def update(self) -> None:
        one = self._shown
        counts = ", ".join(filter(None, (_counts(one), one.detail)))
        self._rich.update(
            self._task, description=printable(one.description), completed=one.done, total=one.total, counts=counts
        )

    def close(self, *, complete: bool) -> None:  # noqa: ARG002
        self._rich.stop()


class _Lines:
    """Plain lines, printed by a thread of their own, so that they come even while no step ends."""

    def __init__(self, shown: Progress) -> None:
        global _last_line
        self._shown, self._began = shown, time.monotonic()
        if self._began - _last_end > FIRST:  # what came before was other work
            _last_line = self._began
        self._before = deque([(self._began, shown.done)], maxlen=_RECENT)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._print, name="progress", daemon=True)
        self._thread.start()

    def update(self) -> None:
        pass  # the thread reads the number when a line is due

    def close(self, *, complete: bool) -> None:
        global _last_end
        self._ended.set()
        self._thread.join()
        _last_end = time.monotonic()
        seconds = _last_end - self._began
        if seconds >= FIRST:
            one = self._shown
            parts = (_counts(one), one.detail, _duration(seconds))
            say(f"{one.description}: {'' if complete else 'stopped, '}{', '.join(filter(None, parts))}")

    def _print(self) -> None:
        wait, interval = min(FIRST, max(_SHORT, _last_line + LONGEST - self._began)), SHORTEST
        while not self._ended.wait(wait):
            say(self._line(time.monotonic()))
            wait, interval = interval, min(interval * GROWTH, LONGEST)

    def _line(self, now: float) -> str:
        one = self._shown
        share = f"{int(100 * one.done / one.total)} %" if one.total else ""
        parts = (_counts(one), share, one.detail, _duration(now - self._began), self._left(now))
        return f"{one.description}: {', '.join(filter(None, parts))}"

    def _left(self, now: float) -> str:
        """Return the time that is left at the speed of the last lines; "" if that is not known."""
        one, (since, before) = self._shown, self._before[0]
        self._before.append((now, one.done))
        if one.total is None or one.done <= before:
            return ""
        return f"about {_duration((now - since) / (one.done - before) * (one.total - one.done))} left"


def _on_terminal() -> bool:
    """Return whether standard error is a terminal that can move its cursor."""
    try:
        return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # it is closed
        return False


def _counts(one: Progress) -> str:
    """Return "1,200 of 20,000 photos", or what is known of it."""
    if one.total is None:
        return f"{one.done:,.0f} {one.unit}".rstrip() if one.done else ""
    whole = f"{one.total:,.0f} {one.unit}".rstrip()
    return whole if one.done >= one.total else f"{one.done:,.0f} of {whole}"


def _duration(seconds: float) -> str:
    """Return a time in words.

    >>> _duration(45.4), _duration(660), _duration(9000)
    ('45 s', '11 min', '2 h 30 min')
    """
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"

"""All parts of the benchmark in one run, with its progress; Ctrl-C keeps what is measured so far."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from deepemd.bench.alone import SOLVERS, gradient, start
from deepemd.bench.calls import calls
from deepemd.bench.measure import machine
from deepemd.bench.peers import PEERS, load_peers
from deepemd.bench.race import Settings, race

__all__ = ["run"]


def run(settings: Settings, console: Console | None = None) -> dict[str, Any]:
    """Measure. -> the report, ready for JSON; its key "interrupted" is true after Ctrl-C.

    Args:
        settings: what to measure.
        console: where the progress is shown; standard error unless given.
    """
    console = console or Console(stderr=True)
    solvers, missing = load_peers(settings.peers)
    for line in missing.values():
        console.print(line, highlight=False, soft_wrap=True)
    race_rows: list[dict[str, Any]] = []
    call_figures: dict[str, Any] = {}
    gradient_rows: list[dict[str, Any]] = []
    start_figures: dict[str, Any] = {}
    report: dict[str, Any] = {
        "benchmark": "deepemd bench emd",
        "interrupted": False,
        "machine": machine(),
        "settings": asdict(settings),
        "peers": {name: {"title": PEERS[name].title, "how": PEERS[name].how} for name in solvers},
        "left_out": missing,
        "race": race_rows,
        "calls": call_figures,
        "gradient": gradient_rows,
        "start": start_figures,
    }
    parts = {
        "race": lambda: race(settings, solvers, race_rows, shown.step),
        "calls": lambda: calls(settings, call_figures, shown.step),
        "gradient": lambda: gradient(settings, missing, gradient_rows, shown.step),
        "start": lambda: start(settings, start_figures, shown.step),
    }
    with _shown(console, sum(_steps(settings, missing)[part] for part in parts if part in settings.parts)) as shown:
        try:
            for name, part in parts.items():
                if name in settings.parts:
                    part()
        except KeyboardInterrupt:
            report["interrupted"] = True
    return report


def _steps(settings: Settings, missing: dict[str, str]) -> dict[str, int]:
    """How often each part says what it does."""
    solvers = [name for name in SOLVERS if name == "emd" or (name in settings.peers and name not in missing)]
    return {
        "race": len(settings.kinds) * len(settings.sizes),
        "calls": 1 + settings.rounds,
        "gradient": len(solvers) * settings.processes,
        "start": 1 + settings.processes,
    }


class _Shown:
    """A bar on a terminal, a line for each new step elsewhere."""

    def __init__(self, console: Console, bar: Progress | None, steps: int) -> None:
        self.console, self.bar = console, bar
        self.last = ""
        self.begun = 0
        self.task = bar.add_task("", total=steps) if bar else None

    def step(self, text: str) -> None:
        """A step begins."""
        if self.bar and self.task is not None:
            self.bar.update(self.task, description=text, completed=self.begun)
        elif text != self.last:
            self.console.print(text, highlight=False)
        self.last = text
        self.begun += 1


@contextmanager
def _shown(console: Console, steps: int) -> Iterator[_Shown]:
    if not console.is_terminal:
        yield _Shown(console, None, steps)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=14),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield _Shown(console, bar, steps)

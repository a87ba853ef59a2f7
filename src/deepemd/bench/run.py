"""Run all parts of the benchmark, with a progress display; Ctrl-C reports what has been measured so far."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from deepemd.bench.calls import calls
from deepemd.bench.measure import machine, threads
from deepemd.bench.peers import PEERS, load_peers
from deepemd.bench.race import Settings, race
from deepemd.bench.subprocesses import SOLVERS, gradient, start

__all__ = ["run"]


def run(settings: Settings, console: Console | None = None) -> dict[str, Any]:
    """Measure, and return the report, ready for JSON; its key "interrupted" is true after Ctrl-C.

    Args:
        settings: the settings of the benchmark.
        console: the console for the progress display; by default standard error.
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
        "peers": {
            name: {"title": PEERS[name].title, "how": PEERS[name].how, "exact": PEERS[name].agree is not None}
            for name in solvers
        },
        "left_out": missing,
        "race": race_rows,
        "calls": call_figures,
        "gradient": gradient_rows,
        "start": start_figures,
    }
    # Measurements on more threads set their number; drawing problems must not wake PyTorch's other threads.
    with _progress(console, _steps(settings, missing)) as show, threads(1):
        try:
            if "race" in settings.parts:
                race(settings, solvers, race_rows, show)
            if "calls" in settings.parts:
                calls(settings, call_figures, show)
            if "gradient" in settings.parts:
                gradient(settings, missing, gradient_rows, show)
            if "start" in settings.parts:
                start(settings, start_figures, show)
        except KeyboardInterrupt:
            report["interrupted"] = True
    return report


def _steps(settings: Settings, missing: dict[str, str]) -> int:
    """Return the number of steps of all parts together."""
    solvers = [name for name in SOLVERS if name == "emd" or (name in settings.peers and name not in missing)]
    steps = {
        "race": len(settings.kinds) * len(settings.sizes),
        "calls": 1 + settings.rounds,
        "gradient": len(solvers) * settings.processes,
        "start": 1 + settings.processes,
    }
    return sum(steps[part] for part in set(settings.parts))


@contextmanager
def _progress(console: Console, steps: int) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows the current step, as a bar on a terminal and as lines elsewhere."""
    begun: list[str] = []

    def line(text: str) -> None:
        if text not in begun:
            console.print(text, highlight=False)
        begun.append(text)

    if not console.is_terminal:
        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=14), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=steps)

        def advance(text: str) -> None:
            bar.update(task, description=text, completed=len(begun))
            begun.append(text)

        yield advance

"""Run all parts of the benchmark, with a progress display; Ctrl-C reports what has been measured so far."""

from dataclasses import asdict
from itertools import count
from typing import Any

from deepemd.bench.calls import calls
from deepemd.bench.measure import machine, threads
from deepemd.bench.peers import PEERS, load_peers
from deepemd.bench.race import Settings, race
from deepemd.bench.subprocesses import SOLVERS, gradient, start
from deepemd.progress import Progress, say

__all__ = ["run"]


def run(settings: Settings) -> dict[str, Any]:
    """Measure, and return the report, ready for JSON; its key "interrupted" is true after Ctrl-C."""
    solvers, missing = load_peers(settings.peers)
    for line in missing.values():
        say(line)
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
    with Progress("measuring", _steps(settings, missing), "steps") as progress, threads(1):
        begun = count()

        def show(step: str) -> None:
            """Show the step that begins."""
            progress.detail = step
            progress.set(next(begun))

        try:
            if "race" in settings.parts:
                race(settings, solvers, race_rows, show)
            if "calls" in settings.parts:
                calls(settings, call_figures, show)
            if "gradient" in settings.parts:
                gradient(settings, missing, gradient_rows, show)
            if "start" in settings.parts:
                start(settings, start_figures, show)
            progress.detail = ""
            progress.set(_steps(settings, missing))
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

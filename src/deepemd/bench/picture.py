"""Draw the chart of the race: the time of a problem against its size, both on logarithmic axes."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepemd.bench.race import ours
from deepemd.errors import InputError
from deepemd.files import explain_disk_errors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["speed_picture"]

# The colours of Okabe and Ito, which colour-blind readers can distinguish; ours is black.
_COLOURS = {
    "opencv": "#D55E00",
    "pot": "#0072B2",
    "pot-core": "#56B4E9",
    "pot-batch": "#CC79A7",
    "highs": "#009E73",
    "qpth": "#E69F00",
    "sinkhorn": "#999999",
}


def speed_picture(report: Mapping[str, Any], path: Path, kind: str = "embedding") -> Path:
    """Draw microseconds per problem against n for all solvers in a report.

    Args:
        report: the result of `deepemd.bench.run.run`, or its JSON.
        path: PNG file to write; its folder is created if needed.
        kind: the kind of problems to show.

    Raises:
        InputError: the report has no race on these problems, or the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    rows = sorted((row for row in report["race"] if row["kind"] == kind), key=lambda row: row["n"])
    if not rows:
        raise InputError(f"picture: the report has no race on {kind} costs; measure with the part 'race'")
    figure = Figure(figsize=(8.2, 5.0), dpi=130)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.09, 0.11, 0.66, 0.74))
    axes.set_xscale("log")
    axes.set_yscale("log")
    ends: list[tuple[float, float, str, str]] = []
    counts = report["settings"]["threads"]
    for name, title in _lines(report):
        points = [(row["n"], row["us"][name]) for row in rows if name in row["us"]]
        if points:
            exact = report["peers"].get(name, {"exact": True})["exact"]
            ends.append(_line(axes, name, title, points, counts, exact))
    sizes = [row["n"] for row in rows]
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(sizes, [str(n) for n in sizes])
    axes.set_xlim(sizes[0] / 1.06, sizes[-1] * 1.03)
    axes.set_xlabel("n: points on each side of the problem")
    low, high = axes.get_ylim()
    decades = [e for e in range(-1, 9) if low <= 10**e <= high]
    axes.set_yticks([10.0**e for e in decades], [_time(10.0**e) for e in decades])
    axes.grid(True, which="major", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    _labels(axes, ends)
    figure.text(0.015, 0.955, _headline(report, rows), fontsize=12, fontweight="bold")
    core = f"{report['machine']['processor']}, {'one thread' if counts[0] == 1 else f'{counts[0]} threads'}"
    inexact = " Dashed: not exact." if any(not peer["exact"] for peer in report["peers"].values()) else ""
    lead = f"Median time of a transport problem of n x n, {core} unless stated.{inexact}"
    figure.text(0.015, 0.905, lead, fontsize=9, color="0.35")
    with explain_disk_errors(path.parent, 100_000, "choose another folder"):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    return path


def _lines(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the names and titles of the lines, the peers first so that ours are drawn on top."""
    peers = [(name, peer["title"]) for name, peer in report["peers"].items()]
    return peers + [(ours(count), ours(count)) for count in reversed(report["settings"]["threads"])]


def _line(
    axes: "Axes",
    name: str,
    title: str,
    points: list[tuple[int, Mapping[str, float]]],
    counts: list[int],
    exact: bool,
) -> tuple[float, float, str, str]:
    """Draw one line. Return its end, its label and its colour."""
    n = [size for size, _ in points]
    us = [found["median"] for _, found in points]
    mine = name not in _COLOURS
    colour = _COLOURS.get(name, "black" if name == ours(counts[0]) else "#666666")
    axes.plot(
        n, us, "-" if exact else "--", marker="o", color=colour, markersize=4.5 if mine else 3.5,
        linewidth=2.6 if mine else 1.5,
    )  # fmt: skip
    return n[-1], us[-1], title, colour


def _labels(axes: "Axes", ends: list[tuple[float, float, str, str]]) -> None:
    """Write the name and last time of each line at its end, moved apart where labels would overlap."""
    last = max(n for n, *_ in ends)
    low, high = (np.log10(limit) for limit in axes.get_ylim())
    apart = 0.05 * (high - low)
    placed = -np.inf
    for n, us, title, colour in sorted(ends, key=lambda end: end[1]):
        style: dict[str, Any] = {"color": colour, "fontsize": 9, "annotation_clip": False}
        style["fontweight"] = "bold" if title.startswith("emd") else "normal"
        text = f"{title}  {_time(us)}"
        if n < last:  # a line that stops early has its label where it stops
            axes.annotate(text, (n, us), (5, 4), textcoords="offset points", **style)
            continue
        placed = max(np.log10(us), placed + apart)
        where = (1.02, (placed - low) / (high - low))
        axes.annotate(text, (n, us), where, textcoords="axes fraction", va="center", **style)


def _time(us: float) -> str:
    """Format microseconds with a unit and at most three digits."""
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if us >= size:
            return f"{us / size:.3g} {unit}"
    return f"{us:.3g} µs"


def _headline(report: Mapping[str, Any], rows: list[dict[str, Any]]) -> str:
    """Return the headline: the ratio of the fastest other exact solver at each size."""
    exact = {name for name, peer in report["peers"].items() if peer["exact"]}
    ratios = [[found["median"] for name, found in row["times_ours"].items() if name in exact] for row in rows]
    best = [min(found) for found in ratios if found]
    if not best:
        return "Time of an exact transport problem against its size"
    least, most = (f"{end:.1f}" for end in (min(best), max(best)))
    span = least if least == most else f"{least} to {most}"
    return f"The fastest other exact solver takes {span} times as long as emd"

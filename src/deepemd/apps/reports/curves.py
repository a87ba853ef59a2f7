"""Curves: training loss and validation accuracy, and accuracy against the number of shots."""

import csv
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepemd.errors import InputError
from deepemd.explain.plots import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from deepemd.evaluation.evaluate import Evaluation

__all__ = ["accuracy_curves", "learning_curve"]

_ACCURACY = "#00798c"


def learning_curve(runs: Sequence[tuple[str, Path]], path: Path) -> Path:
    """Draw the validation accuracy, with its 95 % interval, and the training loss of runs, one after the other.

    Args:
        runs: (label, folder of the run); each folder holds the metrics.csv that training wrote.
        path: PNG file to write.
    """
    figure = new_figure(4.2 * len(runs), 3.2)
    for axes, (label, folder) in zip(figure.subplots(1, len(runs), squeeze=False)[0], runs, strict=True):
        rows = _metrics(folder / "metrics.csv")
        loss, accuracy, half_width = (_series(rows, name) for name in ("loss", "val_accuracy", "val_ci95"))
        axes.set_title(label, fontsize=10)
        axes.set_xlabel("epoch")
        axes.plot(*loss, "o-", color="0.6", markersize=3)
        axes.set_ylabel("training loss", color="0.45")
        axes.set_ylim(bottom=0)
        right = axes.twinx()
        percent, bars = ([100 * value for value in series[1]] for series in (accuracy, half_width))
        right.errorbar(accuracy[0], percent, bars, fmt="o-", color=_ACCURACY, markersize=4, capsize=2, linewidth=1.2)
        right.set_ylabel("validation accuracy, 5-way 1-shot (%)", color=_ACCURACY, fontsize=9)
    figure.tight_layout()
    return save_figure(figure, path)


def accuracy_curves(evaluations: "Sequence[Evaluation]", path: Path) -> Path:
    """Draw the accuracy of every method, with its 95 % interval, against the number of shots.

    Args:
        evaluations: at least one. There is a panel for each data set (column) and number of ways (row).
        path: PNG file to write.
    """
    return save_figure(_curves(evaluations), path)


def _curves(evaluations: "Sequence[Evaluation]") -> "Figure":
    panels: dict[tuple[int, str], list[Evaluation]] = {}
    for one in evaluations:
        panels.setdefault((one.episodes.n_way, one.fingerprint["name"]), []).append(one)
    ways, names = (list(dict.fromkeys(keys)) for keys in zip(*panels, strict=True))
    methods = list(dict.fromkeys(method for one in evaluations for method in one.accuracies))
    wide = max(4.2, 3.4 * len(names))
    across = min(max(1, int(wide / 2.1)), len(methods))  # as many names as fit side by side
    legend = 0.2 + 0.17 * -(-len(methods) // across)  # inches
    figure = new_figure(wide, 2.8 * len(ways) + legend)
    grid = figure.subplots(len(ways), len(names), squeeze=False)
    drawn: dict[str, Any] = {}  # method -> its line, for one legend
    for (row, n_way), (column, name) in product(enumerate(ways), enumerate(names)):
        axes, some = grid[row][column], panels.get((n_way, name))
        if some is None:  # the data set has too few classes
            axes.set_visible(False)
            continue
        for method in dict.fromkeys(m for one in some for m in one.accuracies):
            points = [(one.episodes.n_shot, one.accuracy(method)) for one in some if method in one.accuracies]
            shots, figures = zip(*sorted(points, key=lambda point: point[0]), strict=True)
            k = methods.index(method)
            offset = 0.3 * (k / max(1, len(methods) - 1) - 0.5)  # error bars side by side
            drawn[method] = axes.errorbar(
                [shot + offset for shot in shots], [100 * f.mean for f in figures], [100 * f.ci95 for f in figures],
                color=f"C{k % 10}", fmt=("o-", "s--")[k // 10 % 2], markersize=3, capsize=2, linewidth=1.1,
            )  # fmt: skip
        axes.set_title(f"{name}, {n_way}-way", fontsize=10)
        axes.set_xticks(sorted({one.episodes.n_shot for one in some}))
        axes.set_xlabel("shots")
        if column == 0:
            axes.set_ylabel("accuracy (%)")
    figure.legend(drawn.values(), drawn.keys(), loc="lower center", ncols=across, fontsize=8)
    figure.tight_layout(rect=(0, legend / figure.get_figheight(), 1, 1))
    return figure


def _metrics(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); pass the folder of a training run") from error


def _series(rows: list[dict[str, str]], name: str) -> tuple[list[float], list[float]]:
    """Return the epochs and values of one column, without the rows where it is empty."""
    numbers = [(float(row["epoch"]), float(row[name])) for row in rows if row[name] not in ("", "nan")]
    return [epoch for epoch, _ in numbers], [value for _, value in numbers]

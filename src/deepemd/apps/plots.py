"""Pictures: which part of one image was matched with which part of another, and how training went."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepemd.data import EpisodeSampler, Images
from deepemd.emd import emd
from deepemd.errors import InputError
from deepemd.matching import transport_problem
from deepemd.model import DeepEMD
from deepemd.training.views import look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

    from deepemd.training.evaluate import Evaluation

__all__ = [
    "Match",
    "Side",
    "accuracy_curves",
    "example_matches",
    "learning_curve",
    "match",
    "match_nodes",
    "matches_picture",
]

_QUERY, _SUPPORT = "#d1495b", "#00798c"
_PAIRS = ("#ffb000", "#7fe0c8", "#fe6100", "#8fa8ff")
_SHADE = (0.05, 0.07, 0.2)


class Side(NamedTuple):
    """An image that is to be matched."""

    picture: "Image"  # in its own size, or smaller
    size: tuple[int, int]  # its own height and width, in pixels
    nodes: Tensor  # (N, C)
    key: int = 0  # tells which patches Sampling drew


@dataclass(frozen=True)
class Match:
    """How the parts of a query image were matched with those of a support image.

    Attributes:
        query, support: the images, in their own size or smaller.
        query_size, support_size: (height, width) of the images themselves, in pixels.
        query_boxes, support_boxes: (N, 4) x0, y0, x1, y1 of the nodes, in those pixels.
        a, b: (N,) weights of the nodes, of sum 1.
        plan: (N, N) the optimal transport plan, of sum 1.
        cost: (N, N) 1 - cosine of every two nodes.
        similarity: 1 - EMD, at most 1: the sum of plan * (1 - cost).
        title: what to write above.
    """

    query: "Image"
    support: "Image"
    query_size: tuple[int, int]
    support_size: tuple[int, int]
    query_boxes: NDArray[np.float64]
    support_boxes: NDArray[np.float64]
    a: NDArray[np.float64]
    b: NDArray[np.float64]
    plan: NDArray[np.float64]
    cost: NDArray[np.float64]
    similarity: float
    title: str = ""

    @property
    def overlapping(self) -> bool:
        """Whether the boxes of the nodes lie over each other, as patches and the levels of a pyramid do."""
        sides = self.query_boxes[:, 2:] - self.query_boxes[:, :2]
        return float(sides.prod(1).sum()) > 1.2 * self.query_size[0] * self.query_size[1]

    def flows(self, count: int | None = None) -> list[tuple[int, int, float]]:
        """The flows of the plan, the strongest first: query node, support node, and the share of the mass that moves.

        Args:
            count: how many; by default all, at most 2 N - 1.
        """
        order = np.argsort(self.plan, axis=None, kind="stable")[::-1][:count]
        places = (np.unravel_index(k, self.plan.shape) for k in order)
        return [(int(i), int(j), float(self.plan[i, j])) for i, j in places if self.plan[i, j] > 0]


def match(
    model: DeepEMD,
    query: "Image",
    support: "Image",
    *,
    title: str = "",
    seed: int = 0,
    indices: NDArray[np.int64] | None = None,
) -> Match:
    """Match two images, and say where their nodes lie; seed and indices (2,) are those of Sampling's patches."""
    pictures = [query, support]
    images, boxes = look(model.eval(), pictures, seed=seed, indices=indices)  # (2, 3, H, W), (2, M, 4)
    with torch.inference_mode():
        nodes = model.embed(images, boxes)  # (2, N, C)
    keys = [0, 1] if indices is None else indices.tolist()
    sides = [Side(p, (p.height, p.width), n, k) for p, n, k in zip(pictures, nodes, keys, strict=True)]
    return match_nodes(model, *sides, title=title, seed=seed)


def match_nodes(model: DeepEMD, query: Side, support: Side, *, title: str = "", seed: int = 0) -> Match:
    """As `match`, of images whose nodes are known already."""
    with torch.inference_mode():
        one, other = (side.nodes[None].float() for side in (query, support))  # (1, N, C)
        problem = transport_problem(one, other, weights=model.weights, floor=model.floor)
        solution = emd(*problem)
    sizes, keys = [query.size, support.size], np.array([query.key, support.key])
    boxes = model.boxes(sizes, seed=seed, indices=keys)
    a, b, plan, cost = (t[0, 0].double().numpy() for t in (problem.a, problem.b, solution.plan, problem.cost))
    similarity = 1 - float(solution.value)
    pictures = query.picture, support.picture
    return Match(*pictures, query.size, support.size, boxes[0], boxes[1], a, b, plan, cost, similarity, title)


def example_matches(model: DeepEMD, images: Images, episodes: EpisodeSampler, count: int = 3) -> list[Match]:
    """Of the first `count` episodes, one query matched with the support of its own class and with that of another."""
    found = []
    for e in range(min(count, len(episodes))):
        query, support = episodes[e].query, episodes[e].support
        for k, label in ((0, "same class"), (1, "another class")):
            pair = np.array([query[0], support[k]])
            one = match(model, *map(images.image, pair.tolist()), seed=episodes.seed, indices=pair)
            found.append(replace(one, title=f"{label}: similarity {one.similarity:.2f}"))
    return found


def matches_picture(
    matches: Sequence[Match], path: Path, *, flows: int = 10, columns: int = 2, found: str = "support"
) -> Path:
    """Draw matches: query and support side by side, the strongest flows as lines between them.

    The width of a line is its share of the mass; the brighter a part of an image, the more its nodes weigh. Of nodes
    that overlap, such as patches, the four strongest flows are drawn as pairs of boxes of one colour.

    Args:
        matches: at least one.
        path: PNG file to write.
        flows: strongest flows drawn for each match.
        columns: matches beside each other.
        found: what to call the image beside the query.
    """
    if not matches:
        raise InputError("matches: at least one match is needed to draw a picture")
    return _save(_matches(matches, flows, min(columns, len(matches)), found), path)


def _matches(matches: Sequence[Match], flows: int, columns: int, found: str) -> "Figure":
    rows = -(-len(matches) // columns)
    figure = _figure(4.9 * columns, 2.75 * rows)
    grid = figure.subplots(rows, 2 * columns, squeeze=False, gridspec_kw={"hspace": 0.3})
    for axes in grid.flat:
        axes.axis("off")
    for k, one in enumerate(matches):
        left, right = grid[k // columns, 2 * (k % columns) : 2 * (k % columns) + 2]
        _image(left, one.query, one.query_size, one.query_boxes, one.a)
        _image(right, one.support, one.support_size, one.support_boxes, one.b)
        left.set_title("query", fontsize=8, color=_QUERY, pad=3)
        right.set_title(found, fontsize=8, color=_SUPPORT, pad=3)
        (_pairs if one.overlapping else _flows)(left, right, one, flows)
        places = [axes.get_position(original=True) for axes in (left, right)]  # the cells, whatever the images' aspect
        top = places[0].y1 + 0.22 / figure.get_figheight()  # inches above it, clear of "query"
        figure.text((places[0].x0 + places[1].x1) / 2, top, one.title, ha="center", va="bottom", fontsize=9)
    return figure


def _image(
    axes: "Axes", image: "Image", size: tuple[int, int], boxes: NDArray[np.float64], weights: NDArray[np.float64]
) -> None:
    """An image under a heat map of its nodes' weights: the less a part weighs, the darker it is."""
    height, width = size
    heat = np.zeros((height, width))
    for (x0, y0, x1, y1), weight in zip(boxes.round().astype(int), weights, strict=True):
        x0, x1, y0, y1 = max(x0, 0), min(x1, width), max(y0, 0), min(y1, height)
        heat[y0:y1, x0:x1] += weight / max(1, (x1 - x0) * (y1 - y0))
    shade = np.zeros((height, width, 4))
    shade[..., :3] = _SHADE
    shade[..., 3] = 0.8 * (1 - heat / heat.max())
    for layer in (np.asarray(image), shade):
        axes.imshow(layer, extent=(0, width, height, 0))


def _flows(left: "Axes", right: "Axes", one: Match, count: int) -> None:
    from matplotlib.patches import ConnectionPatch

    strongest = np.argsort(one.plan, axis=None)[::-1][:count]
    widest = one.plan.max()
    for k in strongest[::-1]:
        i, j = np.unravel_index(k, one.plan.shape)
        if one.plan[i, j] <= 0:
            continue
        ends = [boxes[n].reshape(2, 2).mean(0) for boxes, n in ((one.query_boxes, i), (one.support_boxes, j))]
        share = one.plan[i, j] / widest
        line: dict[str, Any] = {"coordsA": left.transData, "coordsB": right.transData, "capstyle": "round"}
        left.figure.add_artist(ConnectionPatch(*ends, linewidth=3.5 * share + 1, color="black", alpha=0.3, **line))
        left.figure.add_artist(ConnectionPatch(*ends, linewidth=3.5 * share + 0.2, color="#7fe0c8", alpha=0.85, **line))
    for axes, boxes, colour in ((left, one.query_boxes, _QUERY), (right, one.support_boxes, _SUPPORT)):
        centres = boxes.reshape(-1, 2, 2).mean(1)
        axes.plot(*centres.T, ".", color=colour, markersize=3)


def _pairs(left: "Axes", right: "Axes", one: Match, count: int) -> None:
    from matplotlib.patches import ConnectionPatch, Rectangle

    strongest = np.argsort(one.plan, axis=None)[::-1][: min(count, len(_PAIRS))]
    for k, colour in zip(strongest, _PAIRS, strict=False):
        i, j = np.unravel_index(k, one.plan.shape)
        if one.plan[i, j] <= 0:
            continue
        ends: list[Any] = []
        for axes, (x0, y0, x1, y1) in ((left, one.query_boxes[i]), (right, one.support_boxes[j])):
            corner = (float(x0), float(y0))
            box = Rectangle(corner, x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=1.8, clip_on=False)
            axes.add_patch(box)
            ends.append((x1 if axes is left else x0, (y0 + y1) / 2))
        line: dict[str, Any] = {"coordsA": left.transData, "coordsB": right.transData, "color": colour}
        left.figure.add_artist(ConnectionPatch(*ends, linewidth=0.5 + 2 * one.plan[i, j] / one.plan.max(), **line))


def learning_curve(runs: Sequence[tuple[str, Path]], path: Path) -> Path:
    """Draw the validation accuracy, with its 95 % interval, and the training loss of runs, one after the other.

    Args:
        runs: (label, folder of the run); each folder holds the metrics.csv that training wrote.
        path: PNG file to write.
    """
    figure = _figure(4.2 * len(runs), 3.2)
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
        right.errorbar(accuracy[0], percent, bars, fmt="o-", color=_SUPPORT, markersize=4, capsize=2, linewidth=1.2)
        right.set_ylabel("validation accuracy, 5-way 1-shot (%)", color=_SUPPORT, fontsize=9)
    figure.tight_layout()
    return _save(figure, path)


def accuracy_curves(evaluations: "Sequence[Evaluation]", path: Path) -> Path:
    """Draw the accuracy of every method, with its 95 % interval, against the number of shots.

    Args:
        evaluations: at least one; those of the same classes and ways share a panel; a column for each
            data set, a row for each number of ways.
        path: PNG file to write.
    """
    return _save(_curves(evaluations), path)


def _curves(evaluations: "Sequence[Evaluation]") -> "Figure":
    panels: dict[tuple[int, str], list[Evaluation]] = {}
    for one in evaluations:
        panels.setdefault((one.episodes.n_way, one.fingerprint["name"]), []).append(one)
    ways, names = (list(dict.fromkeys(keys)) for keys in zip(*panels, strict=True))
    methods = list(dict.fromkeys(method for one in evaluations for method in one.accuracies))
    wide = max(4.2, 3.4 * len(names))
    across = min(max(1, int(wide / 2.1)), len(methods))  # as many names as fit side by side
    legend = 0.2 + 0.17 * -(-len(methods) // across)  # inches
    figure = _figure(wide, 2.8 * len(ways) + legend)
    grid = figure.subplots(len(ways), len(names), squeeze=False)
    drawn: dict[str, Any] = {}  # method -> its line, for one legend
    for (row, n_way), (column, name) in product(enumerate(ways), enumerate(names)):
        axes, some = grid[row][column], panels.get((n_way, name))
        if some is None:  # too few classes for so many ways
            axes.set_visible(False)
            continue
        for method in dict.fromkeys(m for one in some for m in one.accuracies):
            points = [(one.episodes.n_shot, one.figure(method)) for one in some if method in one.accuracies]
            shots, figures = zip(*sorted(points, key=lambda point: point[0]), strict=True)
            k = methods.index(method)
            beside = 0.3 * (k / max(1, len(methods) - 1) - 0.5)  # bars side by side, not one over the other
            drawn[method] = axes.errorbar(
                [shot + beside for shot in shots], [100 * f.mean for f in figures], [100 * f.ci95 for f in figures],
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
    """One column against the epoch, without the rows that have no number there."""
    kept = [(float(row["epoch"]), float(row[name])) for row in rows if row[name] not in ("", "nan")]
    return [epoch for epoch, _ in kept], [value for _, value in kept]


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130)
    FigureCanvasAgg(figure)
    return figure


def _save(figure: "Figure", path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, bbox_inches="tight", pad_inches=0.1)
    except OSError as error:
        raise InputError(f"{path}: cannot write the picture ({error.strerror}); choose another folder") from error
    return path

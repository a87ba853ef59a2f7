"""Pictures: which part of one image was matched with which part of another."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deepemd.apps.matches import Match, Side, example_matches, match, match_nodes
from deepemd.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

__all__ = ["Match", "Side", "example_matches", "match", "match_nodes", "matches_picture", "new_figure", "save_figure"]

_QUERY, _SUPPORT = "#d1495b", "#00798c"
_PAIRS = ("#ffb000", "#7fe0c8", "#fe6100", "#8fa8ff")
_SHADE = (0.05, 0.07, 0.2)


def matches_picture(matches: Sequence[Match], path: Path, *, flows: int = 10, columns: int = 2) -> Path:
    """Draw matches: query and support side by side, the strongest flows as lines between them.

    The width of a line is its share of the mass; the brighter a part of an image, the more its nodes weigh. Of nodes
    that overlap, such as patches, the four strongest flows are drawn as pairs of boxes of one colour.

    Args:
        matches: at least one.
        path: PNG file to write.
        flows: strongest flows drawn for each match.
        columns: matches beside each other.
    """
    if not matches:
        raise InputError("matches: at least one match is needed to draw a picture")
    columns = min(columns, len(matches))
    rows = -(-len(matches) // columns)
    figure = new_figure(4.9 * columns, 2.75 * rows)
    grid = figure.subplots(rows, 2 * columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for k, one in enumerate(matches):
        left, right = grid[k // columns, 2 * (k % columns) : 2 * (k % columns) + 2]
        _image(left, one.query, one.query_size, one.query_boxes, one.a)
        _image(right, one.support, one.support_size, one.support_boxes, one.b)
        left.set_title("query", fontsize=8, color=_QUERY, pad=3)
        right.set_title("support", fontsize=8, color=_SUPPORT, pad=3)
        (_pairs if one.overlapping else _flows)(left, right, one, flows)
        middle = (left.get_position().x0 + right.get_position().x1) / 2
        figure.text(middle, left.get_position().y1 + 0.11 / rows, one.title, ha="center", va="bottom", fontsize=9)
    return save_figure(figure, path)


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


def new_figure(width: float, height: float) -> "Figure":
    """A figure that needs no window, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: "Figure", path: Path) -> Path:
    """Write a figure in the format that its suffix says; the folder is made if need be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, bbox_inches="tight", pad_inches=0.1)
    except OSError as error:
        raise InputError(f"{path}: cannot write the picture ({error.strerror}); choose another folder") from error
    return path

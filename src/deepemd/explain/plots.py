"""Pictures of matches: which parts of two images were matched."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deepemd.data.decoding import as_picture
from deepemd.errors import InputError, printable
from deepemd.explain.matches import Explained, Match, heat, match
from deepemd.files import temporary_sibling
from deepemd.model.pretrained import DEFAULT, pretrained

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

    from deepemd.data.decoding import Picture
    from deepemd.model import DeepEMD

__all__ = ["COLOURS", "PARTS", "SHADE", "VEIL", "matches_picture", "new_figure", "plot_matching", "save_figure"]

PARTS = 6  # numbered pairs of a match, by default
_PARTS_OF_SEVERAL = 4  # the same for a picture of several, smaller matches
# The palette of Okabe and Ito for colour-blind readers, without its two dark colours, which a dark picture hides
COLOURS = ("#e69f00", "#56b4e9", "#f0e442", "#cc79a7", "#009e73", "#d55e00", "#ffffff")

SHADE, VEIL = "#0d1233", 0.65  # colour and opacity of the veil over parts without weight


def matches_picture(matches: Sequence[Match], path: Path, *, columns: int = 2) -> Path:
    """Draw several matches in one picture, each as in :func:`plot_matching` but without the cut-out pairs.

    Args:
        matches: at least one; each is drawn below its title.
        path: file to write; its suffix sets the format.
        columns: number of matches side by side.

    Raises:
        InputError: there are no matches, the suffix is no known format, or the folder cannot be written.
    """
    if not matches:
        raise InputError("matches: at least one match is needed to draw a picture")
    return save_figure(_several(matches, min(columns, len(matches))), path)


def _several(matches: Sequence[Match], columns: int) -> "Figure":
    rows = -(-len(matches) // columns)
    figure = new_figure(6.0 * columns, 3.3 * rows)
    grid = figure.subplots(rows, 2 * columns, squeeze=False, gridspec_kw={"hspace": 0.3})
    for axes in grid.flat:
        axes.axis("off")
    for k, one in enumerate(matches):
        left, right = grid[k // columns, 2 * (k % columns) : 2 * (k % columns) + 2]
        _draw(left, right, one, one.numbered(_PARTS_OF_SEVERAL), flows=8)
        cells = [axes.get_position(original=True) for axes in (left, right)]  # whatever the images' aspect
        top = cells[0].y1 + 0.22 / figure.get_figheight()  # inches above the images, clear of "query"
        middle = (cells[0].x0 + cells[1].x1) / 2
        figure.text(middle, top, printable(one.title), ha="center", va="bottom", fontsize=9, parse_math=False)
    return figure


def plot_matching(
    query: "Match | Explained | Picture",
    support: "Picture | None" = None,
    path: "str | os.PathLike[str] | None" = None,
    *,
    model: "str | os.PathLike[str] | DeepEMD" = DEFAULT,
    flows: int = 12,
    parts: int = PARTS,
    title: str = "",
) -> "Figure":
    """Draw how the parts of one image were matched with those of another, as in the paper's figures.

    The two images are side by side, darker where their nodes weigh less (or, in an explanation of a prediction by
    evidence, where the query has less evidence for the class). The parts of the query from which most mass
    flows are framed, numbered, and joined by a line to the part of the support that receives most of it; thin lines
    show the other strong flows. Below, the same pairs are cut out, with the share of the mass that moves and the cosine
    of the two parts. The colours suit colour-blind readers, and every pair is numbered.

    Args:
        query: an image (path, PIL image or array); or the result of :meth:`deepemd.FewShotClassifier.explain` or
            :func:`deepemd.explain.matches.match`.
        support: the other image, if `query` is an image.
        path: file to write; its suffix sets the format: .pdf, .svg, .png.
        model: if `query` is an image, the model that encodes both; as for :class:`deepemd.FewShotClassifier`.
        flows: maximum number of lines.
        parts: number of pairs that are framed and cut out: at most 7, or at most 4 if the parts overlap.
        title: title of the figure.

    Returns:
        The matplotlib figure. Its axes are in pixels of the original images.

    Raises:
        InputError: an image cannot be read, the second image is missing, or the suffix is no known format.

    >>> from PIL import Image
    >>> figure = plot_matching(Image.new("RGB", (320, 200), "red"), Image.new("RGB", (200, 320), "orange"))
    >>> [float(end) for end in (*figure.axes[0].get_xlim(), *figure.axes[1].get_ylim())]
    [0.0, 320.0, 320.0, 0.0]

    Source: Zhang et al., DeepEMD (CVPR 2020; arXiv 2003.06777), the figures of matching flows.
    """
    one = _as_match(query, support, model)
    pairs = one.numbered(parts)
    aspects = [size[1] / size[0] for size in (one.query_size, one.support_size)]
    wide = 3.1 * sum(aspects) + 0.4  # images of one height, in inches
    scale = min(1.0, 8.5 / wide)
    strip = 1.1 if pairs else 0.0
    total = 3.1 * scale + strip + 0.55
    figure = new_figure(wide * scale, total)
    upper = figure.add_gridspec(1, 2, top=1 - 0.5 / total, bottom=(strip + 0.05) / total, left=0, right=1,
                                width_ratios=aspects, wspace=0.1)  # fmt: skip
    left, right = figure.add_subplot(upper[0]), figure.add_subplot(upper[1])
    _draw(left, right, one, pairs, flows)
    if pairs:
        lower = figure.add_gridspec(1, len(pairs), top=(strip - 0.3) / total, bottom=0, left=0, right=1, wspace=0.14)
        for k, pair in enumerate(pairs):
            _pair(figure, lower[k], one, pair, COLOURS[k], k + 1)
    text = title or one.title or f"similarity {one.similarity:.2f}, all parts together"
    figure.suptitle(printable(text), fontsize=10, y=1 - 0.05 / total, va="top", parse_math=False)
    if path is not None:
        save_figure(figure, Path(path))
    return figure


def _as_match(query: Any, support: Any, model: Any) -> Match:
    if isinstance(query, Match):
        return query
    if isinstance(found := getattr(query, "match", None), Match):
        return found
    if support is None:
        raise InputError("support: pass the second image, or an explanation or a match alone")
    return match(pretrained(model), as_picture(query, "query"), as_picture(support, "support"))


def _draw(left: "Axes", right: "Axes", one: Match, pairs: Sequence[tuple[int, int, float]], flows: int) -> None:
    """Draw the two images with the heat of their weights, thin lines for flows, and the numbered pairs above them."""
    _image(left, one.query, one.query_size, one.query_boxes, one.shown_weights)
    _image(right, one.support, one.support_size, one.support_boxes, one.b)
    left.set_title("query", fontsize=9, pad=4)
    right.set_title("support", fontsize=9, pad=4)
    framed = {(i, j) for i, j, _ in pairs}
    for i, j, share in reversed(one.flows(flows)):
        if (i, j) not in framed:
            _line(left, right, one, (i, j, share), "#c8c8c8", 0.5)
    for number, (pair, colour) in reversed(list(enumerate(zip(pairs, COLOURS, strict=False), 1))):
        _framed(left, right, one, pair, colour, number)


def _line(left: "Axes", right: "Axes", one: Match, flow: tuple[int, int, float], colour: str, thin: float) -> None:
    """Draw a flow as a line between the centres of two parts, as wide as its share of the mass."""
    from matplotlib.patches import ConnectionPatch

    i, j, share = flow
    start, end = (box.reshape(2, 2).mean(0) for box in (one.query_boxes[i], one.support_boxes[j]))
    width = thin * (0.8 + 2.2 * share / one.plan.max())
    bend = 0.06 + 0.02 * ((i + j) % 4)  # lines between parts of the same height do not cover each other
    line: dict[str, Any] = {"coordsA": left.transData, "coordsB": right.transData, "capstyle": "round"}
    line |= {"connectionstyle": f"arc3,rad={bend if (i + j) % 2 else -bend}"}
    left.figure.add_artist(ConnectionPatch(start, end, linewidth=width + 1.2, color="black", alpha=0.6, **line))
    left.figure.add_artist(ConnectionPatch(start, end, linewidth=width, color=colour, **line))
    for axes, point in ((left, start), (right, end)):
        axes.plot(*point, "o", color=colour, markeredgecolor="black", markeredgewidth=0.6, markersize=1.5 + 1.5 * width,
                  zorder=5)  # fmt: skip


def _framed(left: "Axes", right: "Axes", one: Match, pair: tuple[int, int, float], colour: str, number: int) -> None:
    """Draw the two parts of a pair as numbered frames, and the line between them."""
    from matplotlib.patches import Rectangle

    _line(left, right, one, pair, colour, 1.0)
    for axes, (x0, y0, x1, y1) in ((left, one.query_boxes[pair[0]]), (right, one.support_boxes[pair[1]])):
        for width, edge in ((3.2, "black"), (1.8, colour)):
            axes.add_patch(
                Rectangle((float(x0), float(y0)), x1 - x0, y1 - y0, fill=False, edgecolor=edge, linewidth=width)
            )
        badge = {"boxstyle": "round,pad=0.18", "facecolor": colour, "edgecolor": "black", "linewidth": 0.6}
        # side by side where pairs share a part
        across = x0 + (x1 - x0) * (0.14 + 0.24 * ((number - 1) % 3))
        down = y0 + (y1 - y0) * (0.14 if number <= 3 else 0.4)
        axes.text(
            across, down, str(number), fontsize=6.5, ha="center", va="center", color="black", bbox=badge, zorder=6
        )


def _pair(figure: "Figure", place: Any, one: Match, pair: tuple[int, int, float], colour: str, number: int) -> None:
    """Draw the two parts of a pair, cut out and side by side."""
    i, j, share = pair
    cells = place.subgridspec(1, 2, wspace=0.04)
    sides = ((one.query, one.query_size, one.query_boxes[i]), (one.support, one.support_size, one.support_boxes[j]))
    for k, (image, (height, width), (x0, y0, x1, y1)) in enumerate(sides):
        axes = figure.add_subplot(cells[k])
        axes.imshow(np.asarray(image), extent=(0, width, height, 0))
        axes.set(xlim=(x0, x1), ylim=(y1, y0), xticks=[], yticks=[])
        axes.set_anchor("NE" if k == 0 else "NW")
        for spine in axes.spines.values():
            spine.set(color=colour, linewidth=2)
        text = (f"{number}: {share:.0%}\nmoves", f"cosine\n{1 - one.cost[i, j]:.2f}")[k]
        axes.set_title(text, fontsize=7, pad=3, linespacing=1.15)


def _image(
    axes: "Axes", image: "Image", size: tuple[int, int], boxes: NDArray[np.float64], weights: NDArray[np.float64]
) -> None:
    """Draw an image under a heat map of its nodes' weights: the less a part weighs, the darker it is."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    height, width = size
    axes.imshow(np.asarray(image), extent=(0, width, height, 0))
    cells = heat(boxes, weights, size)
    shade = PatchCollection(
        [Rectangle((cell.x0, cell.y0), cell.x1 - cell.x0, cell.y1 - cell.y0) for cell in cells],
        facecolors=[(SHADE, VEIL * (1 - cell.heat)) for cell in cells],
        linewidths=0,
        antialiased=False,
    )
    axes.add_collection(shade, autolim=False)
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")


def new_figure(width: float, height: float) -> "Figure":
    """Return a new figure, of a size in inches, that needs no window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: "Figure", path: Path) -> Path:
    """Write a figure, complete or not at all, in the format of the file's suffix; make its folder if needed."""
    try:
        with temporary_sibling(path) as temporary:
            figure.savefig(temporary, bbox_inches="tight", pad_inches=0.1)
            temporary.replace(path)
    except ValueError as error:  # matplotlib names the formats it knows
        raise InputError(f"{path}: {error}; choose one of them by the file's suffix") from error
    except OSError as error:
        raise InputError(f"{path}: cannot write the picture ({error.strerror}); choose another folder") from error
    return path

"""Draw a match inside a page: SVG over two small JPEG pictures, in the style of `plot_matching`."""

import hashlib
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from deepemd.apps.reports.page import data_url, figure, text
from deepemd.data.decoding import thumbnail
from deepemd.explain.matches import Match, heat
from deepemd.explain.plots import COLOURS, PARTS, SHADE, VEIL

__all__ = ["PICTURE_SIDE", "Drawings"]

_HEIGHT, _GAP, _TOP = 200.0, 34.0, 16.0  # of the drawing, in its own units
_WIDEST = 300.0
PICTURE_SIDE = 280  # pixels, the longest side of the pictures inside the page


class _Panel:
    """The place of an image in the drawing; converts from pixels of the original."""

    def __init__(self, left: float, size: tuple[int, int]) -> None:
        height, width = size
        self.scale = min(_HEIGHT / height, _WIDEST / width)
        self.width, self.height = width * self.scale, height * self.scale
        self.left, self.top = left, _TOP + (_HEIGHT - self.height) / 2

    def box(self, corners: NDArray[np.float64]) -> tuple[float, float, float, float]:
        """Return x, y, width and height in the drawing."""
        x0, y0, x1, y1 = (self.scale * corners).tolist()
        return self.left + x0, self.top + y0, x1 - x0, y1 - y0


@dataclass
class Drawings:
    """Draws matches for one page, which stores each support photo once, however often it is matched.

    Several threads may draw at the same time.

    Attributes:
        held: ids of the photos that are already in the page.
    """

    held: set[str] = field(default_factory=set)
    _lock: Lock = field(default_factory=Lock, repr=False)

    def draw(self, match: Match, *, query: str, example: str, sides: tuple[str, str] = ("query", "support")) -> str:
        """Return a drawing: both images, the heat of their weights, and the numbered pairs of parts.

        Args:
            match: the match to draw.
            query, example: names of the two images, for readers who cannot see them.
            sides: words above the two images.

        Returns:
            An svg element; if the support photo is new to the page, an svg element that stores it comes first.
        """
        left = _Panel(0.0, match.query_size)
        right = _Panel(left.width + _GAP, match.support_size)
        pairs = match.numbered(PARTS)
        listed = "; ".join(f"{k}: {share:.0%} of the weight" for k, (_, _, share) in enumerate(pairs, 1))
        label = f"{query}, matched with {example}. Pairs of parts: {listed}"
        photo, support = (thumbnail(picture, PICTURE_SIDE) for picture in (match.query, match.support))
        name = f"e{hashlib.sha256(support).hexdigest()[:16]}"
        body = [
            _caption(left, sides[0]),
            _caption(right, sides[1]),
            f'<image {_place(left)} preserveAspectRatio="none" href="{data_url(photo)}"/>',
            f'<use {_place(right)} href="#{name}"/>',
            '<g class="heat">',
            _heat(left, match.query_boxes, match.shown_weights, match.query_size),
            _heat(right, match.support_boxes, match.b, match.support_size),
            '</g><g class="lines">',
            *(_pair(left, right, match, pair, k) for k, pair in reversed(list(enumerate(pairs)))),
            *_badges(left, match.query_boxes, [i for i, _, _ in pairs]),
            *_badges(right, match.support_boxes, [j for _, j, _ in pairs]),
            "</g>",
        ]
        with self._lock:
            new = "" if name in self.held else _store(name, support)
            self.held.add(name)
        box = f'viewBox="0 0 {right.left + right.width:.1f} {_TOP + _HEIGHT:.1f}"'
        return f'{new}<svg class="match" {box} role="img" aria-label="{text(label)}">' + "".join(body) + "</svg>"

    def figure(self, match: Match, *, query: str, example: str, label: str) -> str:
        """Return a drawing with a caption: `example` is the photo of the class `label` that is most like `query`."""
        caption = f"Most similar photo of {label}: {example}; similarity {match.similarity:.2f}"
        return figure(self.draw(match, query=query, example=example), caption)


def _caption(panel: _Panel, words: str) -> str:
    return f'<text class="side" x="{panel.left:.1f}" y="{panel.top - 5:.1f}">{words}</text>'


def _place(panel: _Panel) -> str:
    return f'x="{panel.left:.2f}" y="{panel.top:.2f}" width="{panel.width:.2f}" height="{panel.height:.2f}"'


def _store(name: str, picture: bytes) -> str:
    """Return a picture as a symbol of size 1 x 1, to which drawings refer by its name."""
    return (
        f'<svg class="store" aria-hidden="true"><symbol id="{name}" viewBox="0 0 1 1" preserveAspectRatio="none">'
        f'<image width="1" height="1" preserveAspectRatio="none" href="{data_url(picture)}"/></symbol></svg>'
    )


def _heat(panel: _Panel, boxes: NDArray[np.float64], weights: NDArray[np.float64], size: tuple[int, int]) -> str:
    """Return a veil over the image, the darker the less a part weighs."""
    rects = []
    for cell in heat(boxes, weights, size):
        x, y, width, height = panel.box(np.array(cell[:4]))
        veil = VEIL * (1 - cell.heat)
        if veil >= 0.01:
            rects.append(
                f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" fill-opacity="{veil:.2f}"/>'
            )
    return f'<g fill="{SHADE}" shape-rendering="crispEdges">' + "".join(rects) + "</g>"


def _pair(left: _Panel, right: _Panel, match: Match, pair: tuple[int, int, float], k: int) -> str:
    """Return the frames of two parts and the line between them."""
    i, j, share = pair
    colour, wide = COLOURS[k], 1.2 + 2.2 * share / float(match.plan.max())
    frames, ends = [], []
    for panel, box in ((left, match.query_boxes[i]), (right, match.support_boxes[j])):
        x, y, width, height = panel.box(box)
        frame = f'x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" fill="none"'
        frames.append(f'<rect {frame} stroke="#000" stroke-width="3"/>')
        frames.append(f'<rect class="part{k}" {frame} stroke="{colour}" stroke-width="1.6"/>')
        ends.append((x + width / 2, y + height / 2))
    (x0, y0), (x1, y1) = ends
    bend = (14 + 5 * k) * (-1 if k % 2 else 1)  # lines at the same height do not cover each other
    path = f"M{x0:.1f} {y0:.1f}Q{(x0 + x1) / 2:.1f} {(y0 + y1) / 2 + bend:.1f} {x1:.1f} {y1:.1f}"
    line = f'd="{path}" fill="none" stroke-linecap="round"'
    tip = f"{k + 1}: {share:.1%} of the weight moves here, cosine {1 - match.cost[i, j]:.2f}"
    return (
        f"<g><title>{tip}</title>{''.join(frames)}"
        f'<path {line} stroke="#000" stroke-opacity=".6" stroke-width="{wide + 1.6:.1f}"/>'
        f'<path {line} stroke="{colour}" stroke-width="{wide:.1f}"/></g>'
    )


def _badges(panel: _Panel, boxes: NDArray[np.float64], parts: list[int]) -> list[str]:
    """Return the numbers of the pairs: in the middle of their parts, or side by side where pairs share a part."""
    drawn = []
    for k, part in enumerate(parts):
        x, y, width, height = panel.box(boxes[part])
        across, down = x + width / 2 + 14 * parts[:k].count(part), y + height / 2
        drawn.append(
            f'<circle cx="{across:.1f}" cy="{down:.1f}" r="6.5" fill="{COLOURS[k]}" stroke="#000"/>'
            f'<text class="badge" x="{across:.1f}" y="{down + 3.6:.1f}">{k + 1}</text>'
        )
    return drawn

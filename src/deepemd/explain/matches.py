"""How the parts of one image were matched with those of another: the record that pictures and pages are drawn from."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepemd.data import EpisodeSampler, Images
from deepemd.embedding.views import view_pictures
from deepemd.matching import transport_problem
from deepemd.model import DeepEMD
from deepemd.transport import emd

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Cell", "Explained", "Match", "Side", "example_matches", "heat", "match", "match_nodes"]


class Side(NamedTuple):
    """An image to be matched, with its nodes."""

    picture: "Image"  # the original, or a smaller copy
    size: tuple[int, int]  # height and width of the original, in pixels
    nodes: Tensor  # (N, C)
    key: int = 0  # Sampling draws its patches from it


@dataclass(frozen=True)
class Match:
    """How the parts of a query image were matched with those of a support image.

    Attributes:
        query, support: the images, or smaller copies.
        query_size, support_size: (height, width) of the originals, in pixels.
        query_boxes, support_boxes: (N, 4) x0, y0, x1, y1 of the nodes, in pixels of the originals.
        a, b: (N,) weights of the nodes, of sum 1.
        plan: (N, N) the optimal transport plan, of sum 1.
        cost: (N, N) 1 - cosine of each pair of nodes.
        similarity: 1 - EMD, at most 1: the sum of plan * (1 - cost).
        title: title of a picture of this match.
        evidence: (N,) what each node of the query adds to the evidence for the class, where this decides instead of
            the match: positive for the class, negative against it.
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
    evidence: NDArray[np.float64] | None = None

    @property
    def shown_weights(self) -> NDArray[np.float64]:
        """The weights (N,) by which parts of the query are drawn bright: their evidence for the class, or `a`."""
        return self.a if self.evidence is None else self.evidence.clip(0)

    @property
    def overlapping(self) -> bool:
        """Return whether the boxes of the nodes overlap, as with patches and pyramid levels."""
        sides = self.query_boxes[:, 2:] - self.query_boxes[:, :2]
        return float(sides.prod(1).sum()) > 1.2 * self.query_size[0] * self.query_size[1]

    def flows(self, count: int | None = None) -> list[tuple[int, int, float]]:
        """Return the flows of the plan, the strongest first: query node, support node, and the share of the mass.

        Args:
            count: how many; by default all, at most 2 N - 1.
        """
        order = np.argsort(self.plan, axis=None, kind="stable")[::-1][:count]
        places = (np.unravel_index(k, self.plan.shape) for k in order)
        return [(int(i), int(j), float(self.plan[i, j])) for i, j in places if self.plan[i, j] > 0]

    def pairs(self, count: int | None = None) -> list[tuple[int, int, float]]:
        """Return the strongest flow of each query node, the strongest first; see :meth:`flows`."""
        best = self.plan.argmax(1)  # (N,)
        share = self.plan.max(1)
        order = np.argsort(-share, kind="stable")[:count]
        return [(int(i), int(best[i]), float(share[i])) for i in order if share[i] > 0]

    def numbered(self, count: int) -> list[tuple[int, int, float]]:
        """Return the `pairs` that a picture frames and numbers: at most 7, or at most 4 if boxes overlap."""
        return self.pairs(min(count, 4 if self.overlapping else 7))


class Explained(Protocol):
    """Anything that has a match, such as the explanation of a prediction."""

    @property
    def match(self) -> Match:
        """The match to draw."""


class Cell(NamedTuple):
    """A rectangle of an image, in pixels, and its weight per area, from 0 (none) to 1 (the most)."""

    x0: float
    y0: float
    x1: float
    y1: float
    heat: float


def heat(boxes: NDArray[np.float64], weights: NDArray[np.float64], size: tuple[int, int]) -> list[Cell]:
    """Spread the weights of nodes over an image: return rectangles, cut at the edges of the boxes, that fill it.

    The weight of a node is spread evenly over its box; where boxes overlap, the weights add up.

    Args:
        boxes: (N, 4) x0, y0, x1, y1.
        weights: (N,) of the nodes.
        size: (height, width) of the image; boxes are cut at its edges.

    >>> heat(np.array([[0.0, 0.0, 2.0, 4.0]]), np.ones(1), (4, 3))
    [Cell(x0=0.0, y0=0.0, x1=2.0, y1=4.0, heat=1.0), Cell(x0=2.0, y0=0.0, x1=3.0, y1=4.0, heat=0.0)]
    """
    height, width = size
    inside = boxes.clip(0, [width, height, width, height])
    xs = np.unique(np.concatenate((inside[:, [0, 2]].ravel(), [0, width])))
    ys = np.unique(np.concatenate((inside[:, [1, 3]].ravel(), [0, height])))
    density = np.zeros((len(ys) - 1, len(xs) - 1))
    for box, (x0, y0, x1, y1), weight in zip(boxes, inside, weights, strict=True):
        area = (box[2] - box[0]) * (box[3] - box[1])
        density[ys.searchsorted(y0) : ys.searchsorted(y1), xs.searchsorted(x0) : xs.searchsorted(x1)] += weight / area
    density /= density.max() or 1
    return [
        Cell(*map(float, (xs[c], ys[r], xs[c + 1], ys[r + 1], density[r, c])))
        for r in range(len(ys) - 1)
        for c in range(len(xs) - 1)
    ]


def match(
    model: DeepEMD,
    query: "Image",
    support: "Image",
    *,
    title: str = "",
    seed: int = 0,
    indices: NDArray[np.int64] | None = None,
) -> Match:
    """Match two images; `seed` and `indices` (2,) set Sampling's patches."""
    pictures = [query, support]
    images, boxes = view_pictures(model.eval(), pictures, seed=seed, indices=indices)  # (2, 3, H, W), (2, M, 4)
    with torch.inference_mode():
        nodes = model.embed(images, boxes)  # (2, N, C)
    keys = [0, 1] if indices is None else indices.tolist()
    sides = [Side(p, (p.height, p.width), n, k) for p, n, k in zip(pictures, nodes, keys, strict=True)]
    return match_nodes(model, *sides, title=title, seed=seed)


def match_nodes(model: DeepEMD, query: Side, support: Side, *, title: str = "", seed: int = 0) -> Match:
    """Match two images whose nodes are already known; see :func:`match`."""
    with torch.inference_mode():
        one, other = (side.nodes[None].double() for side in (query, support))  # (1, N, C)
        problem = transport_problem(one, other, **model.head)
        solution = emd(*problem)
    sizes, keys = [query.size, support.size], np.array([query.key, support.key])
    boxes = model.boxes(sizes, seed=seed, indices=keys)[:, : one.shape[1]]  # nodes of the smallest size come first
    a, b, plan, cost = (t[0, 0].double().numpy() for t in (problem.a, problem.b, solution.plan, problem.cost))
    similarity = 1 - float(solution.value)
    pictures = query.picture, support.picture
    return Match(*pictures, query.size, support.size, boxes[0], boxes[1], a, b, plan, cost, similarity, title)


def example_matches(model: DeepEMD, images: Images, episodes: EpisodeSampler, count: int = 3) -> list[Match]:
    """Match a query of each of the first `count` episodes with the support of its own class and of another class."""
    found = []
    for e in range(min(count, len(episodes))):
        query, support = episodes[e].query, episodes[e].support
        for k, label in ((0, "same class"), (1, "another class")):
            pair = np.array([query[0], support[k]])
            one = match(model, *map(images.image, pair.tolist()), seed=episodes.seed, indices=pair)
            found.append(replace(one, title=f"{label}: similarity {one.similarity:.2f}"))
    return found

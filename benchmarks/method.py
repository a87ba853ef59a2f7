"""Draw the pictures of docs/method.md and docs/explain.md.

python benchmarks/method.py                        # two painted scenes, their nodes, and the transport between them
python benchmarks/method.py QUERY.jpg SUPPORT.jpg  # how two photos are matched: explanation.png
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image, ImageDraw

from deepemd import DeepEMD, plot_matching
from deepemd.explain.matches import Match, match
from deepemd.nodes import efficientnet_lite0, parse_regions

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
SIDE = 320
# Okabe and Ito's colours, which the colour-blind can tell apart
ORANGE, PURPLE, YELLOW = "#E69F00", "#CC79A7", "#F0E442"


def scene(x: int, y: int, size: int, *, sky: str, sea: str, hull: str, sun: tuple[int, int] | None) -> Image.Image:
    """A sailing boat with its waterline at (x, y), `size` pixels long."""
    image = Image.new("RGB", (SIDE, SIDE), sky)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 200, SIDE, SIDE), fill=sea)
    if sun is None:  # a cloud and an island instead
        draw.polygon([(190, 200), (250, 140), (290, 175), (SIDE, 160), (SIDE, 200)], fill="#5b7f5a")
        for left in (20, 55, 95):
            draw.ellipse((left, 35 + left % 3 * 8, left + 70, 80), fill="#f4f4f4")
    else:
        draw.ellipse((sun[0] - 28, sun[1] - 28, sun[0] + 28, sun[1] + 28), fill="#ffd34d")
    for k in range(7):  # waves
        left, top = (k * 97) % SIDE - 20, 215 + k * 15
        draw.arc((left, top, left + 60, top + 14), 200, 340, fill="#dcebf7", width=2)
    s = size / 100
    draw.polygon(
        [(x - 50 * s, y - 18 * s), (x + 50 * s, y - 18 * s), (x + 32 * s, y + 8 * s), (x - 36 * s, y + 8 * s)],
        fill=hull,
    )
    draw.rectangle((x - 2 * s, y - 115 * s, x + 2 * s, y - 18 * s), fill="#4a3526")
    draw.polygon(
        [(x + 5 * s, y - 112 * s), (x + 5 * s, y - 24 * s), (x + 50 * s, y - 24 * s)], fill="#fbfbf4", outline="#8a8a80"
    )
    draw.polygon(
        [(x - 5 * s, y - 100 * s), (x - 5 * s, y - 24 * s), (x - 40 * s, y - 24 * s)], fill="#f1ece0", outline="#8a8a80"
    )
    return image


def figure(width: float, height: float) -> Figure:
    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made


def shown(axes: Axes, image: Image.Image, title: str) -> None:
    axes.imshow(np.asarray(image))
    axes.set_title(title, fontsize=10)
    axes.set(xlim=(-4, SIDE + 4), ylim=(SIDE + 4, -4))
    axes.axis("off")


def boxes(axes: Axes, where: np.ndarray, colour: str, inset: float = 0.0) -> None:
    for x0, y0, x1, y1 in where:
        at, wide, high = (x0 + inset, y0 + inset), x1 - x0 - 2 * inset, y1 - y0 - 2 * inset
        for width, edge in ((2.6, "#222222"), (1.3, colour)):
            axes.add_patch(Rectangle(at, wide, high, fill=False, ec=edge, lw=width))


def ways(model: DeepEMD, image: Image.Image) -> Figure:
    """Three ways to get nodes."""
    made = figure(9.6, 3.5)
    axes = made.subplots(1, 3)
    for one, regions, title in zip(
        axes,
        ("fcn", "grid:3,2", "sampling:9"),
        ("fcn: cells of the map (25)", "grid:3,2: two of its 13 patches", "sampling:9: random crops"),
        strict=True,
    ):
        shown(one, image, title)
        model.regions = parse_regions(regions)
        where = model.boxes([(SIDE, SIDE)])[0]
        if regions.startswith("grid"):
            for line in (1, 2):
                one.plot([SIDE * line / 3] * 2, [0, SIDE], "--", color="#ffffff", lw=0.8)
                one.plot([0, SIDE], [SIDE * line / 3] * 2, "--", color="#ffffff", lw=0.8)
            boxes(one, where[[4]], ORANGE)
            boxes(one, where[[9 + 3]], PURPLE)
        else:
            boxes(one, where, ORANGE if regions == "fcn" else YELLOW, inset=1.0 if regions == "fcn" else 0.0)
    return made


def weights(one: Match) -> Figure:
    """The weight of each node, in the image beside it."""
    made = figure(6.6, 3.5)
    for axes, image, where, weight, name in (
        (made.add_subplot(1, 2, 1), one.query, one.query_boxes, one.a, "query: a"),
        (made.add_subplot(1, 2, 2), one.support, one.support_boxes, one.b, "support: b"),
    ):
        shown(axes, image, f"{name}, in % of the whole")
        for (x0, y0, x1, y1), share in zip(where, weight / weight.max(), strict=True):
            axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, color="#0d1233", alpha=0.65 * (1 - share), lw=0))
        for (x0, y0, x1, y1), value in zip(where, weight, strict=True):
            axes.text((x0 + x1) / 2, (y0 + y1) / 2, f"{100 * value:.1f}", fontsize=8, color="white", ha="center",
                      va="center", bbox={"fc": "#000000", "alpha": 0.45, "ec": "none", "pad": 1.2})  # fmt: skip
    return made


def matrices(one: Match) -> Figure:
    """Cost and plan, node by node."""
    made = figure(7.6, 3.7)
    left, right = made.subplots(1, 2)
    for axes, values, title, colours in (
        (left, one.cost, "cost: 1 - cosine of the centred nodes", "viridis_r"),
        (
            right,
            np.ma.masked_equal(100 * one.plan, 0),
            f"plan: % that moves ({(one.plan > 0).sum()} flows)",
            "viridis_r",
        ),
    ):
        drawn = axes.imshow(values, cmap=colours)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("nodes of the support, row by row", fontsize=9)
        axes.set_ylabel("nodes of the query", fontsize=9)
        axes.set(xticks=range(0, 25, 5), yticks=range(0, 25, 5))
        made.colorbar(drawn, ax=axes, shrink=0.85)
    return made


def main() -> None:
    # 160 x 160 pixels make a map of 5 x 5 cells, as the paper's encoder does of 84 x 84
    half = (0.5, 0.5, 0.5)
    model = DeepEMD(efficientnet_lite0("head"), image_size=160, resize=160, mean=half, std=half).eval()
    if len(sys.argv) == 3:
        plot_matching(sys.argv[1], sys.argv[2], PICTURES / "explanation.png", model=model)
        return
    query = scene(110, 236, 130, sky="#a9d3ee", sea="#2f6f9f", hull="#b5332e", sun=(255, 60))
    support = scene(195, 250, 165, sky="#d9cfe6", sea="#3d8c86", hull="#2d3f73", sun=None)
    one = match(model, query, support)
    for name, made in (
        ("method_nodes", ways(model, query)),
        ("method_weights", weights(one)),
        ("method_plan", matrices(one)),
    ):
        made.savefig(PICTURES / f"{name}.png", dpi=110)
    plot_matching(one, path=PICTURES / "method_flows.png")


if __name__ == "__main__":
    main()

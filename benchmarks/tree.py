"""Draw docs/pictures/tree.png: the worked problem of docs/transport.md, its tree before and after the one pivot.

python benchmarks/tree.py
"""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

PICTURE = Path(__file__).parent.parent / "docs" / "pictures" / "tree.png"
PLACES = {"s2": (0.0, 4.0), "p1": (-1.3, 2.2), "p2": (1.3, 2.2), "s1": (-1.3, 0.0), "s3": (1.3, 0.0)}
ENTERS, LEAVES, CALM = "#0072B2", "#D55E00", "#444444"  # Okabe and Ito's colours, which the colour-blind can tell apart
ROW, COLUMN = "#FBE9D0", "#DCEBF7"


def node(axes: Axes, name: str, at: tuple[float, float], dual: int) -> None:
    """A plant is a square with its u, a shop a circle with its v."""
    plant = name[0] == "p"
    shape = {"boxstyle": "square,pad=0.45" if plant else "circle,pad=0.32", "ec": CALM, "fc": ROW if plant else COLUMN}
    words = f"{'plant' if plant else 'shop'} {name[1]}\n{'u' if plant else 'v'} = {dual}"
    axes.text(*at, words, ha="center", va="center", fontsize=10, bbox=shape, zorder=3)


def arc(axes: Axes, x: str, y: str, words: str, color: str = CALM, side: int = 1, dashed: bool = False) -> None:
    """A line between two nodes, with words beside its middle: right of it (side 1) or left of it (side -1)."""
    (x1, y1), (x2, y2) = PLACES[x], PLACES[y]
    style = "--" if dashed else "-"
    axes.plot([x1, x2], [y1, y2], style, color=color, lw=2.2 if color != CALM else 1.6, zorder=1)
    align = "left" if side > 0 else "right"
    at = ((x1 + x2) / 2 + (0.12 if x1 == x2 else 0.26) * side, (y1 + y2) / 2)
    axes.text(*at, words, color=color, ha=align, va="center", fontsize=9.5, linespacing=1.35, zorder=4)


def panel(axes: Axes, title: str, duals: Mapping[str, int]) -> None:
    for name, at in PLACES.items():
        node(axes, name, at, duals[name])
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xlim(-2.35, 2.35)
    axes.set_ylim(-0.65, 4.65)
    axes.axis("off")


def main() -> None:
    figure = Figure(figsize=(9.4, 4.9), layout="constrained")
    FigureCanvasAgg(figure)
    before, after = figure.subplots(1, 2)

    arc(before, "p1", "s2", "50 at 4\n+ 100", side=-1)
    arc(before, "p2", "s2", "100 at 5\n− 100, leaves", LEAVES)
    arc(before, "s1", "p1", "150 at 6\n− 100", side=-1)
    arc(before, "s3", "p2", "200 at 5")
    arc(before, "p2", "s1", "", ENTERS, dashed=True)
    before.text(
        0.1, 0.75, "enters at 6,\nwhich is 1 less\nthan 5 + 2", color=ENTERS, ha="left", va="center", fontsize=9.5
    )
    panel(before, "Before: 2,600", {"p1": 4, "p2": 5, "s1": 2, "s2": 0, "s3": 0})

    arc(after, "p1", "s2", "150 at 4", side=-1)
    arc(after, "s1", "p1", "50 at 6", side=-1)
    arc(after, "p2", "s1", "", ENTERS)
    after.text(0.1, 0.75, "100 at 6", color=ENTERS, ha="left", va="center", fontsize=9.5)
    arc(after, "s3", "p2", "200 at 5")
    panel(after, "After: 2,500, the least", {"p1": 4, "p2": 4, "s1": 2, "s2": 0, "s3": 1})

    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=130)


if __name__ == "__main__":
    main()

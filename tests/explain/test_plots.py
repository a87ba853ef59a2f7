"""Pictures: nothing lies over anything else, and every method can be told from the others.

Tests deepemd.apps.reports.curves, deepemd.explain.matches.
"""

from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from deepemd import FCN, DeepEMD, conv4
from deepemd.apps.reports.curves import _curves, accuracy_curves
from deepemd.data import Episodes
from deepemd.evaluation.evaluate import Evaluation
from deepemd.explain.matches import match
from deepemd.explain.plots import _several, matches_picture


def evaluations(methods: int) -> list[Evaluation]:
    rng = np.random.default_rng(0)
    accuracies = {f"method {k}": rng.random(9) for k in range(methods)}
    return [
        Evaluation(accuracies, Episodes(n_way=way, n_shot=shot, n_episodes=9), {}, {"name": name}, {})
        for name in ("a/val", "b/novel")
        for way in (5, 10)
        for shot in (1, 5)
    ]


@pytest.mark.parametrize("methods", [1, 3, 16])
def test_every_method_has_a_look_and_a_place_of_its_own(methods, tmp_path):
    figure = _curves(evaluations(methods))
    figure.canvas.draw()
    assert len(figure.axes) == 4
    for axes in figure.axes:
        lines = [bar.lines[0] for bar in axes.containers]
        assert len({(line.get_color(), line.get_marker()) for line in lines}) == methods
        at = [line.get_xdata()[0] for line in lines]
        assert len(set(at)) == methods
        assert min(at) >= 0.8
        assert max(at) <= 1.2
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [f"method {k}" for k in range(methods)]
    below = legend.get_window_extent()
    assert all(below.y1 <= axes.get_tightbbox().y0 for axes in figure.axes)
    assert accuracy_curves(evaluations(methods), tmp_path / "c.png").stat().st_size > 10_000


@pytest.mark.parametrize("columns", [1, 2])
def test_titles_do_not_lie_over_images_of_any_shape(columns, tmp_path):
    model, rng = DeepEMD(conv4(channels=8, pools=3), FCN(), image_size=32, resize=32), np.random.default_rng(0)
    sizes = [(80, 60), (60, 80), (160, 40), (30, 120), (50, 50)]
    images = [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]
    some = [match(model, one, other, title="3: similarity 0.95") for one, other in combinations(images, 2)]
    figure = _several(some, columns)
    figure.canvas.draw()
    titles = [text.get_window_extent() for text in figure.texts]
    assert len(titles) == len(some)
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in shown] == ["query", "support"] * len(some)
    for axes in shown:
        assert not any(title.overlaps(box) for title in titles for box in (axes.bbox, axes.title.get_window_extent()))
    assert matches_picture(some[:1], tmp_path / "m.png").stat().st_size > 10_000

"""What a picture of a match shows is where it is: the same patch, planted in two photos, is found and framed there."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image, ImageDraw

import deepemd
from deepemd import FCN, FewShotClassifier, Grid, InputError
from deepemd.apps.reports.drawing import Drawings
from deepemd.explain.matches import Match, heat, match
from deepemd.explain.plots import plot_matching
from deepemd.model.pretrained import pretrained


def _wall(width: int, height: int) -> Image.Image:
    picture = Image.new("RGB", (width, height), (200, 200, 195))
    draw = ImageDraw.Draw(picture)
    for row, y in enumerate(range(0, height, 24)):
        for x in range(-50 + 30 * (row % 2), width, 60):
            draw.rectangle((x, y, x + 54, y + 19), fill=(150, 70, 50))
    return picture


def _leaves(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(3)
    picture = Image.new("RGB", (width, height), (20, 60, 20))
    draw = ImageDraw.Draw(picture)
    for x, y, red, green in rng.integers([0, 0, 20, 90], [width, height, 80, 190], (400, 4)).tolist():
        draw.ellipse((x, y, x + 40, y + 14), fill=(red, green, 30))
    return picture


def _target(side: tuple[int, int]) -> Image.Image:
    """Rings of red and white: like nothing else in the two pictures."""
    y, x = np.mgrid[-1:1:200j, -1:1:200j]
    ring = (np.hypot(x, y) * 3.5).astype(int) % 2 == 0
    return Image.fromarray(np.where(ring[..., None], [230, 20, 30], [250, 250, 250]).astype(np.uint8)).resize(side)


# Query and support, neither of them square, both larger than the model's 160: where the patch is, x0, y0, x1, y1.
QUERY, SUPPORT = (640, 400), (500, 900)
PLANTED = {"fcn": ((256, 80, 512, 240), (100, 360, 300, 720)), "grid": ((256, 80, 512, 240), (100, 360, 300, 720))}
REGIONS = {"fcn": FCN(), "grid": Grid((5,), 1.0)}


def _planted(name: str) -> tuple[Image.Image, Image.Image]:
    pictures = _wall(*QUERY), _leaves(*SUPPORT)
    for picture, (x0, y0, x1, y1) in zip(pictures, PLANTED[name], strict=True):
        picture.paste(_target((x1 - x0, y1 - y0)), (x0, y0))
    return pictures


def _covered(box: np.ndarray, patch: tuple[int, int, int, int]) -> float:
    """The share of a patch that lies in a box, or of the box that lies in the patch, whichever is more."""
    x0, y0 = np.maximum(box[:2], patch[:2])
    x1, y1 = np.minimum(box[2:], patch[2:])
    shared = max(0, x1 - x0) * max(0, y1 - y0)
    return float(shared / min((box[2] - box[0]) * (box[3] - box[1]), (patch[2] - patch[0]) * (patch[3] - patch[1])))


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("kept_small", [False, True])
def test_the_strongest_flow_is_between_the_planted_patches(name, kept_small, monkeypatch):
    """In pixels of the originals, also where the support is kept as a picture of 320 pixels."""
    monkeypatch.setattr("deepemd.embedding.stream.choose_precision", lambda *_: "32-true")  # as `match` encodes
    query, support = _planted(name)
    model = pretrained(regions=REGIONS[name])
    model.power = None  # raw nodes, whose weights differ more
    if kept_small:
        classifier = FewShotClassifier(model, adapt="none").fit([support, _wall(300, 500)], ["ringed", "plain"])
        found = classifier.explain(query, label="ringed").match
        assert max(found.support.size) == 320
    else:
        found = match(model, query, support)
    assert (found.query_size, found.support_size) == (QUERY[::-1], SUPPORT[::-1])
    i, j, _ = found.flows(1)[0]
    assert _covered(found.query_boxes[i], PLANTED[name][0]) > 0.95
    assert _covered(found.support_boxes[j], PLANTED[name][1]) > 0.95
    assert found.pairs(1)[0][:2] == (i, j)
    _drawn_in_pixels_of_the_originals(found)


def _drawn_in_pixels_of_the_originals(found: Match) -> None:
    """The picture's axes and frames, and those of the page's drawing, say the same place."""
    i, j, _ = found.pairs(1)[0]
    sizes, boxes = (found.query_size, found.support_size), (found.query_boxes[i], found.support_boxes[j])
    for axes, (height, width), box in zip(plot_matching(found).axes[:2], sizes, boxes, strict=True):
        assert tuple(axes.images[0].get_extent()) == (0, width, height, 0)
        frame = axes.patches[-1]  # the first pair is drawn last
        assert frame.get_xy() == pytest.approx(box[:2])
        assert (frame.get_width(), frame.get_height()) == pytest.approx(box[2:] - box[:2])
    svg = ElementTree.fromstring(Drawings().draw(found, query="q", example="s").partition("</svg>")[2])
    frames = [e for e in svg.iter("rect") if e.get("class") == "part0"]
    for picture, frame, size, box in zip((svg.find("image"), svg.find("use")), frames, sizes, boxes, strict=True):
        whole, part = (np.array([float(e.get(key)) for key in ("x", "y", "width", "height")]) for e in (picture, frame))
        scale = np.array(size[::-1]) / whole[2:]
        assert (part[:2] - whole[:2]) * scale == pytest.approx(box[:2], abs=0.1)
        assert part[2:] * scale == pytest.approx(box[2:] - box[:2], abs=0.1)


def test_pictures_of_every_kind(tmp_path):
    query, support = _planted("fcn")
    query.save(tmp_path / "query.png")
    for suffix, begins in ((".pdf", b"%PDF"), (".svg", b"<?xml"), (".png", b"\x89PNG")):
        path = tmp_path / "new" / f"match{suffix}"
        deepemd.plot_matching(tmp_path / "query.png", np.asarray(support), path, model=pretrained(regions=FCN()))
        assert (tmp_path / "new" / f"match{suffix}").read_bytes().startswith(begins)
    drawn = (tmp_path / "new" / "match.svg").read_text()
    assert drawn.count("<path") > 50  # lines and frames stay vectors
    assert len(re.findall("<image", drawn)) == 2 + 2 * 6  # both photos, and six pairs cut out


def test_a_name_that_looks_like_a_formula_is_drawn_as_it_is(tmp_path):
    figure = plot_matching(*_planted("fcn"), tmp_path / "a.png", title="$\\frac$ \x1b[2J", parts=0)
    assert figure.get_suptitle() == "$\\frac$ \\x1b[2J"
    assert len(figure.axes) == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((Image.new("RGB", (90, 90)),), "support: pass the second image"),
        ((Image.new("RGB", (90, 90)), "/no/such.jpg"), "/no/such.jpg: there is no such file"),
        ((Image.new("RGB", (90, 90)), Image.new("RGB", (90, 90)), "match.odd"), "choose one of them"),
    ],
)
def test_what_cannot_be_drawn(arguments, says):
    with pytest.raises(InputError, match=says):
        plot_matching(*arguments)


def test_heat_keeps_the_weight_of_overlapping_boxes():
    """Integrated over the image, the heat is in proportion to the weights, and it fills the image without a gap."""
    boxes = np.array([[0, 0, 10, 10], [5, 5, 20, 15], [18, -5, 30, 25.0]])
    weights = np.array([0.5, 0.3, 0.2])
    cells = heat(boxes, weights, (20, 30))
    areas = np.array([(c.x1 - c.x0) * (c.y1 - c.y0) for c in cells])
    assert areas.sum() == 600
    densest = 0.5 / 100 + 0.3 / 150
    inside = 0.5 + 0.3 + 0.2 * 20 / 30  # a third of the last box lies outside
    assert (areas * [c.heat for c in cells]).sum() * densest == pytest.approx(inside)

"""The demo end to end on its real data, with recipes cut to seconds; and the report that it writes.

Tests deepemd.apps.reports.tables, deepemd.commands.train.
"""

import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from deepemd import FCN, DeepEMD, conv4
from deepemd.apps.demo import run_demo
from deepemd.apps.reports.curves import learning_curve
from deepemd.apps.reports.page import simple_page, write_standalone
from deepemd.apps.reports.tables import TextTable, accuracy_table, write_json
from deepemd.data import Episodes, load
from deepemd.errors import InputError
from deepemd.evaluation.evaluate import Evaluation
from deepemd.explain.matches import match
from deepemd.explain.plots import matches_picture
from deepemd.training.recipes import GLYPHS_METATRAIN, GLYPHS_PRETRAIN, Validation

FEW = Validation(n_episodes=5)
PRETRAINING = replace(GLYPHS_PRETRAIN, epochs=1, batch_size=512, validation=FEW)
METATRAINING = replace(GLYPHS_METATRAIN, epochs=1, episodes_per_epoch=2, validation=FEW)


@pytest.fixture(scope="module")
def glyphs(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPEMD_DATA", str(root))
        yield load("glyphs")


def test_demo(glyphs, tmp_path, capsys):
    options = {"n_episodes": 10, "pretraining": PRETRAINING, "metatraining": METATRAINING}
    evaluations = run_demo(tmp_path / "out", **options)
    out = capsys.readouterr().out
    assert "DeepEMD, meta-trained, minus" in out
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["evaluations"]["meta-trained"]["fingerprint"]["sha256"] == glyphs.splits["novel"].fingerprint.sha256
    found = report["evaluations"]["pre-trained"]["accuracy"]["DeepEMD"]["mean"]
    assert found == pytest.approx(evaluations["pre-trained"].accuracies["DeepEMD"].mean())
    for name in ("matches.png", "learning_curve.png"):
        with Image.open(tmp_path / "out" / name) as image:
            assert min(image.size) > 300
            assert np.asarray(image.convert("L")).std() > 10
    _check_page(tmp_path / "out" / "index.html")

    with pytest.raises(InputError, match="is not empty"):
        run_demo(tmp_path / "out", **options)
    again = run_demo(tmp_path / "out", resume=True, **options)  # all of it is there: the same figures at once
    for name, evaluation in evaluations.items():
        np.testing.assert_array_equal(again[name].accuracies["DeepEMD"], evaluation.accuracies["DeepEMD"])


def _check_page(path):
    """Every tag is closed, and nothing lies outside the page."""
    void, stack = {"img", "meta", "input"}, []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            for name in ("src", "href"):
                assert (dict(attrs).get(name) or "#").startswith(("#", "data:image/"))
            if tag not in void:
                stack.append(tag)

        def handle_startendtag(self, tag, attrs):
            assert tag in ("image", "use", "rect", "path", "circle")
            assert (dict(attrs).get("href") or "#").startswith(("#", "data:image/"))

        def handle_endtag(self, tag):
            assert stack.pop() == tag

    Reader().feed(path.read_text().removeprefix("<!doctype html>"))
    assert not stack


def test_a_match_is_a_transport_plan_between_boxes_of_the_original_image(glyphs, tmp_path):
    images = glyphs.splits["val"]
    model = DeepEMD(conv4(pools=3), FCN((2,)), image_size=40, resize=40)
    one = match(model, images.image(0), images.image(1), title="title")
    assert one.plan.shape == (29, 29)
    np.testing.assert_allclose(one.plan.sum(1), one.a, atol=1e-6)
    np.testing.assert_allclose(one.plan.sum(0), one.b, atol=1e-6)
    assert one.a.sum() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(
        one.query_boxes[4:], [[8 * (k % 5), 8 * (k // 5), 8 * (k % 5) + 8, 8 * (k // 5) + 8] for k in range(25)]
    )
    assert match(model, images.image(3), images.image(3)).similarity == pytest.approx(1, abs=1e-5)
    assert matches_picture([one], tmp_path / "one.png").is_file()
    with pytest.raises(InputError, match="at least one match"):
        matches_picture([], tmp_path / "none.png")


def test_learning_curve_of_no_run(tmp_path):
    with pytest.raises(InputError, match=r"metrics\.csv: cannot be read"):
        learning_curve([("a run", tmp_path)], tmp_path / "curve.png")


def test_table_and_page_escape_what_they_show(tmp_path):
    values = {"DeepEMD": np.array([0.5, 1.0]), "<b>other</b>": np.array([0.5, 0.5])}
    table = accuracy_table({"": Evaluation(values, Episodes(n_episodes=2), {}, {}, {})})
    assert list(table.rows[0]) == ["DeepEMD", "75.00 ± 34.65", ""]
    assert list(table.rows[1]) == ["<b>other</b>", "50.00 ± 0.00", "+25.00 ± 34.65"]
    sections = [table.html(), TextTable("t", ["h"], [["c"]]).html()]
    body = simple_page("a < b", ["&"], sections, [("k", "<v>")])
    path = write_standalone("a < b", body, tmp_path / "new" / "p.html")
    _check_page(path)
    assert "<b>" not in path.read_text()


def test_long_names_leave_the_other_columns_in_sight():
    table = TextTable("t", ["", "image", "1 - EMD"], [["1", "x" * 200, "0.75"]], names=(1,)).html()
    assert '<th scope="col"></th><th scope="col" class="words">image</th><th scope="col">1 - EMD</th>' in table
    cut = f'<td class="words"><bdi title="{"x" * 200}">{"x" * 29}…{"x" * 30}</bdi></td>'
    assert f"<tr><td>1</td>{cut}<td>0.75</td></tr>" in table


def test_reports_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_json({}, tmp_path / "file" / "report.json")

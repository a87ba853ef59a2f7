"""The answers as files."""

import csv
import io

import pytest

from deepemd import InputError
from deepemd.apps.samples import sample_classes, sample_queries
from deepemd.apps.web.results import DOWNLOADS, download
from deepemd.apps.web.session import Visitor
from deepemd.model.pretrained import pretrained


@pytest.fixture(scope="module")
def visitor() -> Visitor:
    made = Visitor(pretrained())
    for name, photos in sample_classes().items():
        made = made.added(name, photos[:2])[0]
    for query, name in zip(sample_queries(), ["a,b.jpg", "=1+1.jpg", "<img src=x>.jpg", "d.jpg"], strict=True):
        made = made.ask(query, name)
    return made


def test_the_table_has_a_row_for_each_photo(visitor, tmp_path):
    text = download("predictions.csv", visitor, tmp_path).decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["image"] for row in rows] == ["a,b.jpg", "./=1+1.jpg", "<img src=x>.jpg", "d.jpg"]
    assert [row["label"] for row in rows[:3]] == ["temple", "flower", "portrait"]
    assert [float(row["probability"]) for row in rows] == pytest.approx(
        [one.prediction.probability for one in visitor.asked], rel=1e-5
    )
    assert list(tmp_path.iterdir()) == []


def test_the_report_shows_each_photo(visitor, tmp_path):
    page = download("predictions.html", visitor, tmp_path).decode()
    assert page.count('<svg class="match"') == 4
    assert "<img src=x>" not in page
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", DOWNLOADS)
def test_nothing_to_download(visitor, tmp_path, name):
    with pytest.raises(InputError, match="There are no"):
        download(name, Visitor(visitor.model).ask(sample_queries()[0]), tmp_path)

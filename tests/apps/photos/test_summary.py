"""The terminal's summary fits a screen, however many photos there are, and begins with what to look at."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from deepemd.apps.photos.summary import Foremost, Summary
from deepemd.apps.photos.truth import Scores
from deepemd.classifier.prediction import Prediction
from deepemd.embedding.stream import Embedded

CLASSES = [f"class {k}" for k in range(30)]


def summary(photos: int, *, truth: bool = False, limit: int = 5) -> Summary:
    """Photos of falling probability; every tenth is wrong, every seventh resembles no class."""
    made, rng = Summary(Scores(CLASSES)), np.random.default_rng(0)
    for k in range(photos):
        label, probability = CLASSES[int(rng.integers(30))], 1 - k / (2 * photos)
        found = Prediction(label, probability, CLASSES[0], np.zeros(30), 0.5, k % 7 != 6)
        true = None if not truth else "class 0" if k % 10 == 9 else label
        made.add(Path(f"new/{k}.jpg"), Embedded(torch.full((2, 3), 1 / 3), k), found, limit=limit, true=true)
    return made


def lines(made: Summary) -> list[str]:
    console = Console(width=100, record=True, file=io.StringIO(), highlight=False)
    for table in made.tables():
        console.print(table.rich())
    return console.export_text().splitlines() + made.sentences()


@pytest.mark.parametrize("truth", [False, True])
@pytest.mark.parametrize("photos", [21, 900])
def test_many_photos_take_at_most_40_lines(photos, truth):
    shown = lines(summary(photos, truth=truth))
    assert len(shown) <= 40
    text = "\n".join(shown)
    assert f"{photos} photos by label" in text
    assert "more labels" in text
    assert ("Wrong labels, the surest first" in text) == truth
    assert ("accuracy" in text) == truth
    assert "The least certain photos" in text
    assert "(resembles no class)" in text


def test_few_photos_are_all_listed():
    shown = "\n".join(lines(summary(20)))
    assert all(f"new/{k}.jpg" in shown for k in range(20))


def test_the_page_begins_with_the_wrong_ones_then_those_that_resemble_no_class():
    made = summary(100, truth=True, limit=40)
    order = [int(one.image.stem) for one in made.to_show]
    wrong = [k for k in order if made.to_show[order.index(k)].correct is False]
    assert order[: len(wrong)] == wrong == sorted(wrong)  # the surest first
    strange = [k for k in order[len(wrong) :] if k % 7 == 6]
    assert order[len(wrong) : len(wrong) + len(strange)] == strange == sorted(strange, reverse=True)
    rest = order[len(wrong) + len(strange) :]
    assert rest == sorted(rest, reverse=True)
    assert len(order) == 40


def test_without_a_report_nothing_large_is_stored():
    assert summary(50, limit=0).to_show == []


def test_doubtful_photos_are_counted():
    made = Summary(Scores(["a", "b"]))
    for k in range(30):
        found = Prediction("a", 0.4 if k < 3 else 0.9, "b", np.zeros(2), 0.5, familiar=True)
        made.add(Path(f"{k}.jpg"), Embedded(torch.zeros(1, 2), k), found, limit=0)
    assert made.sentences() == ["3 of 30 photos have a probability below 50%: look at these first"]


def test_foremost_keeps_the_first_of_equals():
    kept: Foremost[int] = Foremost(3)
    for k, rank in enumerate((1.0, 2.0, 1.0, 2.0, 1.0)):
        kept.add((rank,), lambda k=k: k)
    assert kept.items() == [1, 3, 0]

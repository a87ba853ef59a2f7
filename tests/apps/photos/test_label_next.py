"""The photos to label next: uncertain and typical ones, which differ from each other."""

import csv
from pathlib import Path

import numpy as np
import torch

from deepemd.apps.photos.label_next import LabelNext, choose, write_label_next
from deepemd.classifier.prediction import Prediction
from deepemd.embedding.stream import Embedded


def groups(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Thirty photos in three groups of ten, the group of each, and one outlier."""
    rng = np.random.default_rng(seed)
    centres = np.eye(8)[:3]
    each = np.repeat(range(3), 10)
    embeddings = centres[each] + 0.1 * rng.standard_normal((30, 8))
    return np.concatenate([embeddings, [np.eye(8)[7]]]), np.append(each, 3)


def test_of_photos_that_are_equally_uncertain_each_group_gets_one():
    for seed in range(20):
        embeddings, group = groups(seed)
        chosen = choose(np.full(31, 0.1), embeddings, 3)
        assert sorted(group[chosen]) == [0, 1, 2]  # and not the outlier, which is like no other


def test_photos_that_are_certain_are_left():
    embeddings, group = groups(0)
    margins = np.where(group == 1, 0.0, 0.99)
    assert set(group[choose(margins, embeddings, 1)]) == {1}


def test_it_is_a_choice_without_repetition_for_any_number():
    embeddings, _ = groups(1)
    margins = np.random.default_rng(1).random(31)
    assert sorted(choose(margins, embeddings, 100)) == list(range(31))
    assert choose(margins, np.zeros((31, 8)), 5) == choose(margins, np.zeros((31, 8)), 5)
    assert len(set(choose(margins, np.zeros((31, 8)), 31))) == 31
    assert choose(np.array([0.5]), np.ones((1, 4)), 3) == [0]


def test_the_table_has_an_empty_column_for_the_labels(tmp_path):
    wanted = LabelNext(2)
    assert wanted.chosen() == []
    for k, p in enumerate((0.9, 0.5, 0.55)):
        found = Prediction("=a", p, "b", np.array([p, 1 - p]), 0.5, familiar=True)
        wanted.add(Path(f"{k}.jpg"), Embedded(torch.eye(3)[k : k + 1], k), found)
    path = write_label_next(wanted.chosen(), tmp_path / "label_next.csv")
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["1.jpg", "2.jpg"]
    assert rows[0] == {"image": "1.jpg", "label": "", "suggested_label": "'=a", "probability": "0.5"}

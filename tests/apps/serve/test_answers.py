"""Predictions as JSON: deepemd.apps.serve.answers."""

from types import SimpleNamespace

import numpy as np

from deepemd.apps.serve.answers import Model, PhotoAnswer, answer, error_answer, model_answer
from deepemd.classifier.prediction import Prediction

LABELS = {"unknown_label": "unknown", "unsure_label": "unsure", "coverage": None, "threshold": None}
FOUND = Prediction("daisy", 0.7, "rose", np.array([0.7, 0.3]), 0.65, True)


def settings(**given):
    return SimpleNamespace(classes_=np.array(["daisy", "rose"]), unknown=None, **{**LABELS, **given})


def test_an_answer_is_of_the_type_that_is_described():
    row = answer("1.jpg", FOUND, settings())
    assert PhotoAnswer.model_validate(row, strict=True).model_dump() == row
    assert row == {
        "name": "1.jpg", "label": "daisy", "probability": 0.7, "runner_up": "rose", "similarity": 0.65,
        "probabilities": {"daisy": 0.7, "rose": 0.3}, "prediction_set": None, "resembles_a_class": True,
        "unknown": False, "unsure": False, "error": None,
    }  # fmt: skip


def test_unknown_unsure_and_sets():
    unknown = settings()
    unknown.unknown = 0.05
    assert answer("1.jpg", FOUND._replace(label="unknown"), unknown)["unknown"] is True
    assert answer("1.jpg", FOUND, unknown)["unknown"] is False
    assert answer("1.jpg", FOUND._replace(label="unsure"), settings(threshold=0.8))["unsure"] is True
    assert answer("1.jpg", FOUND, settings(threshold=0.6))["unsure"] is False
    with_set = FOUND._replace(labels=("daisy", "rose"))
    assert answer("1.jpg", with_set, settings(coverage=0.95))["prediction_set"] == ["daisy", "rose"]


def test_numbers_as_labels():
    numbers = settings()
    numbers.classes_ = np.array([3, 7])
    row = answer("1.jpg", FOUND._replace(label=3, runner_up=7), numbers)
    assert (row["label"], row["probabilities"]) == (3, {"3": 0.7, "7": 0.3})


def test_an_error_has_the_same_fields():
    row = error_answer("1.jpg", "1.jpg: truncated")
    assert list(row) == list(PhotoAnswer.model_fields)
    assert PhotoAnswer.model_validate(row, strict=True).error == "1.jpg: truncated"
    assert {value for name, value in row.items() if name not in ("name", "error")} == {None}


def test_the_description_of_the_classifier(classifier):
    found = model_answer(classifier, {"photos": 4})
    assert Model.model_validate(found).model_dump() == found
    assert found["classes"] == {"flower": 3, "portrait": 3, "temple": 3}

"""True labels from folders and tables, and the accuracy that they allow."""

import unicodedata

import pytest

from deepemd.apps.photos.truth import Scores, true_labels
from deepemd.data.photos import Origin


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        ([("test", "apple"), ("test", "pear", "big")], ["apple", "pear"]),
        ([("test", "2024", "apple"), ("test", "apple", "pear")], ["apple", "apple"]),  # from the outside in
        ([("apple",), ("pear",)], ["apple", "pear"]),  # each folder was passed
        ([("apple", "series")], ["apple"]),
        ([("apple", "pear")], ["pear"]),  # what is inside goes before what was passed
        ([("test", "apple"), ("test", "plum"), ("test",)], ["apple", "plum", None]),
        ([("apple",), ("plum",)], ["apple", "plum"]),
        ([("new",), ("new", "monday")], [None, None]),
        ([()], [None]),
    ],
)
def test_folders_say_the_true_label(folders, expected):
    assert true_labels([Origin(one) for one in folders], ["apple", "pear"]) == expected


def test_accents_of_either_kind_and_labels_that_are_numbers():
    origin = Origin(("new", unicodedata.normalize("NFD", "café")))
    assert true_labels([origin], [unicodedata.normalize("NFC", "café"), "tea"]) == ["café"]
    assert true_labels([Origin(("new", "3"))], [3, 4]) == ["3"]


def test_a_label_of_a_table_counts_whatever_it_is():
    origins = [Origin((), "plum"), Origin((), None), Origin(("x", "apple"), "pear")]
    assert true_labels(origins, ["apple", "pear"]) == ["plum", None, "pear"]


def test_counts_recall_and_interval():
    scores = Scores(["a", "b", "c"])
    given = [("a", "a", True), ("a", "b", False), ("b", "b", True), (None, "c", None), ("b", "unsure", None)]
    assert [scores.add(true, label, "1.jpg") for true, label, _ in given] == [correct for _, _, correct in given]
    found = scores.confusion()
    assert found.labels == ["a", "b", "unsure"]  # those that occur
    assert found.counts.tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 0]]
    assert scores.sentence().startswith("accuracy 50.0% (2 of 4 photos with a true label; 95 % interval 15.0% to 85.0%")
    assert "guessing: 33.3%); 3 photos have an answer, 66.7% of them correct" in scores.sentence()
    assert scores.as_dict()["accuracy"]["recall"] == [0.5, 0.5, None]


def test_labels_that_are_no_class_are_named_and_left_out():
    scores = Scores(["a", "b"])
    assert [scores.add(true, "a", "1.jpg") for true in ("a", "plum", "plum", "fig")] == [True, None, None, None]
    (note,) = scores.notes()
    assert note.title == "3 photos have a true label that is no class, left out of the accuracy:"
    assert note.lines == ["plum: 2", "fig: 1"]
    assert scores.confusion().photos == 1


def test_labels_that_are_no_class_count_as_unknown_if_that_is_a_label():
    scores = Scores(["a", "b"], "unknown")
    added = [
        scores.add(true, given, "1") for true, given in (("plum", "unknown"), ("plum", "a"), ("unknown", "unknown"))
    ]
    assert added == [True, False, True]
    assert scores.notes()[0].title.endswith("counted as 'unknown':")
    assert scores.confusion().labels == ["a", "unknown"]


def test_photos_of_the_classes_prove_nothing():
    scores = Scores(["a", "b"])
    assert scores.add("a", "a", "1.jpg", seen=True) is None
    assert (scores.confusion(), scores.sentence(), scores.as_dict()) == (None, "", {})
    assert scores.notes()[0].title == "1 photo is among the photos of the classes, left out of the accuracy:"

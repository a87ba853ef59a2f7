"""What tells splits, and a folder that is a level too high, from classes."""

import pytest

from deepemd.data.layout import (
    are_splits,
    first_split,
    layout_warnings,
    listed,
    pack_folder,
    split_of,
    top_folders,
    wrapper,
)

CLASSES = ("cat/1.jpg", "dog/1.jpg")


def within(*folders: str) -> list[str]:
    return [f"{folder}/{name}" for folder in folders for name in CLASSES]


@pytest.mark.parametrize(
    "names",
    [
        within("train", "val", "test"),
        within("Train", "Test"),
        within("training", "validation"),
        within("train", "valid"),
        within("val", "test"),
        within("support", "query"),
        within("gallery", "query"),
        within("train_images", "test_images"),
        within("train2017", "val2017"),
        within("trainset", "testset"),
        within("labeled", "unlabeled"),
        within("train_1", "train_2"),
        within("seg_train", "seg_test", "seg_pred"),
        within("cifar10-train", "cifar10-test"),
        [*within("seg_train", "seg_test"), "seg_pred/1.jpg"],
        [*within("reference"), "query/1.jpg"],
        within("examples", "query"),
        within("train"),
        [*within("train"), "test/1.jpg"],  # without labels
        [*within("train", "test"), "extra/1.jpg"],
        ["train/1.jpg", "test/1.jpg"],
        ["support/1.jpg", "query/1.jpg"],
        ["base/cat/1.jpg", "novel/dog/1.jpg"],  # other classes in each
    ],
)
def test_splits(names):
    assert are_splits(top_folders(names))


@pytest.mark.parametrize(
    "names",
    [
        ["train/1.jpg", "bus/1.jpg", "car/1.jpg"],
        ["train/1.jpg", "bus/1.jpg"],
        ["train/session1/1.jpg", "bus/session1/1.jpg", "car/1.jpg"],
        ["Train/1.jpg", "trains/1.jpg"],
        ["base/1.jpg", "support/1.jpg"],  # parts of a machine
        ["base/s1/1.jpg", "support/s1/1.jpg"],
        ["bus/s1/1.jpg", "test/1.jpg"],
        ["train 1/s1/1.jpg", "train 2/s2/1.jpg"],
        ["valid/1.jpg", "invalid/1.jpg"],
        ["test tube/1.jpg", "train station/1.jpg"],
        list(CLASSES),
        within("cat", "dog"),
        ["train/1.jpg"],
        [],
    ],
)
def test_classes(names):
    assert not are_splits(top_folders(names))


def test_the_split_to_pass_is_the_one_with_the_examples():
    assert first_split(top_folders(within("query", "support"))) == "support"
    assert first_split(top_folders(within("val", "test"))) == "test"
    assert first_split(top_folders(["train/1.jpg", "test/1.jpg"])) is None


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (within("photos"), "photos/"),
        (within("my/photos"), "my/photos/"),
        ([*within("photos"), "photos/loose.jpg"], "photos/"),
        (["cat/1.jpg", "cat/2.jpg"], ""),
        (["cat/s1/1.jpg"], ""),
        (["cat/s1/1.jpg", "cat/2.jpg"], ""),
        (list(CLASSES), ""),
        (["1.jpg"], ""),
        ([], ""),
    ],
)
def test_a_folder_that_holds_all_classes(names, expected):
    assert wrapper(names) == expected


def test_the_folder_of_a_pack():
    assert pack_folder(within("flowers")) == "flowers/"
    assert pack_folder(["flowers/rose/1.jpg"]) == "flowers/"
    assert pack_folder(within("train")) == ""
    assert pack_folder(CLASSES) == ""


def test_names_of_splits():
    names = ["base", "Train", "training_set", "val", "VALID", "dev", "novel", "test-images", "query", "rose", "contest"]
    assert [split_of(name) for name in names] == [*["base"] * 3, *["val"] * 3, *["novel"] * 2, None, None, None]


def test_doubts_are_reported():
    (same,) = layout_warnings(top_folders(within("camera1", "camera2")))
    assert "camera1 and camera2 hold the same folders (cat and dog)" in same
    (deep,) = layout_warnings(top_folders(["train/s1/1.jpg", "bus/1.jpg"]))
    assert "the folder 'train' holds only folders (s1) and is taken as one class" in deep
    (test,) = layout_warnings(top_folders([*CLASSES, "test/1.jpg"]))
    assert "the folder 'test' is taken as a class: if it is none, move it elsewhere" in test
    assert layout_warnings(top_folders(["train/1.jpg", "bus/1.jpg", "car/s1/1.jpg"])) == []
    assert layout_warnings({}) == []


def test_long_lists_are_cut():
    assert listed("a") == "a"
    assert listed("ba") == "a and b"
    assert listed("edcba") == "a, b, c, d and e"
    assert listed("gfedcba") == "a, b, c, d and 3 more"

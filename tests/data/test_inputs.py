"""Images and labels in whatever users hold them are taken by position, and one image is no list of images."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageSequence

from deepemd import InputError
from deepemd.data.inputs import as_images, as_labels, iterate_images


class Numbered:
    """Answers to every number, as some data sets of torch do, which have a length and cannot be iterated over."""

    def __len__(self):
        return len(PATHS)

    def __getitem__(self, k):
        return PATHS[k % len(PATHS)]


PATHS = ["c.jpg", "a.jpg", "b.jpg"]
SHUFFLED = pd.DataFrame({"path": PATHS, "label": [3, 1, 2]}, index=[7, 0, 2])
PIXELS = np.zeros((5, 6, 3), np.uint8)


@pytest.mark.parametrize(
    "held",
    [
        PATHS,
        tuple(PATHS),
        iter(PATHS),
        (path for path in PATHS),
        np.array(PATHS),
        np.array(PATHS, dtype=object),
        np.array(PATHS)[:, None],
        [[path] for path in PATHS],
        SHUFFLED.path,
        SHUFFLED[["path"]],
        SHUFFLED.path.astype("string"),
        SHUFFLED.path.astype("category"),
        pd.Index(PATHS),
        Numbered(),
    ],
    ids=lambda held: f"{type(held).__name__}",
)
def test_paths_are_taken_by_position(held):
    assert as_images(held) == PATHS


@pytest.mark.parametrize(
    "held",
    [
        [PIXELS, PIXELS],
        np.stack([PIXELS, PIXELS]),
        torch.zeros(2, 5, 6, 3),
        torch.zeros(2, 5, 6, 3, requires_grad=True),
        torch.zeros(2, 5, 6, 3, dtype=torch.bfloat16),
        pd.Series([PIXELS, PIXELS], index=[9, 1]),
        [Image.fromarray(PIXELS)] * 2,
        np.zeros((2, 28, 28)),
        np.zeros((2, 6, 5)),
    ],
    ids=lambda held: f"{type(held).__name__}-{getattr(held, 'ndim', '')}",
)
def test_a_stack_of_images_is_its_images(held):
    assert len(as_images(held)) == 2


@pytest.mark.parametrize("held", [[], (), np.array([]), np.zeros((0, 8, 8, 3)), pd.Series([], dtype=object), iter(())])
def test_no_images_are_an_empty_list(held):
    assert as_images(held) == []


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ("a.jpg", r"X is one path, 'a\.jpg': pass a list, such as \['a\.jpg'\]"),
        (Path("a.jpg"), r"X is one path, 'a\.jpg'"),
        (np.str_("a.jpg"), r"X is one path, 'a\.jpg'"),
        (Image.fromarray(PIXELS), r"X is one image: pass a list"),
        (PIXELS, r"X has shape \(5, 6, 3\), as one image has: pass a list, such as \[image\]"),
        (np.zeros((5, 6, 4)), "as one image has"),
        (np.zeros((5, 6, 1)), "as one image has"),
        (PIXELS[..., 0], r"X has shape \(5, 6\): one grey image or a table of numbers"),
        (PIXELS.tolist(), r"X\[0\] is of type list: pass a list of images"),
        (torch.zeros(3, 5, 6), r"X has shape \(3, 5, 6\): pass list\(X\) if it holds 3 grey images"),
        (np.zeros((4, 1)), r"X has shape \(4, 1\)"),
        (np.zeros(4), r"X has shape \(4,\)"),
        (np.array(3), r"X has shape \(\)"),
        (SHUFFLED, r"X has shape \(3, 2\): pass one column"),
        (np.array([PATHS]), r"X has shape \(1, 3\): pass one column"),
        ({"a.jpg": 1}, "X is of type dict"),
        (set(PATHS), "X is of type set"),
        (b"a.jpg", "X is of type bytes"),
        (io.BytesIO(b"a.jpg"), "X is of type BytesIO"),
        (3, "X is of type int"),
        (None, "X is of type NoneType"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_list_of_images_is_refused_with_the_remedy(held, message):
    with pytest.raises(InputError, match=message):
        as_images(held)
    with pytest.raises(InputError, match=message):
        iterate_images(held)


def test_a_generator_is_read_as_it_is_needed():
    asked = []
    images = iterate_images(asked.append(path) or path for path in PATHS)
    assert next(images) == PATHS[0]
    assert len(asked) == 1


def test_a_generator_may_use_an_array_and_a_file_again():
    file, frames = io.BytesIO(), [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    for k, frame in enumerate(frames):
        frame.putpixel((k, 0), (255, 255, 255))
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:], lossless=True)

    def arrays():
        array = np.zeros((8, 8, 3), np.uint8)
        for frame in frames:
            array[:] = frame
            yield array

    for listed in (as_images, lambda X: list(iterate_images(X))):
        for images in (arrays(), ImageSequence.Iterator(Image.open(file))):
            assert [np.asarray(image).tolist() for image in listed(images)] == [np.asarray(f).tolist() for f in frames]


@pytest.mark.parametrize(
    "held",
    [
        [3, 1, 2],
        (label for label in (3, 1, 2)),
        np.array([3, 1, 2])[:, None],
        [[3], [1], [2]],
        torch.tensor([3, 1, 2]),
        SHUFFLED.label,
        SHUFFLED[["label"]],
        SHUFFLED.label.astype("Int64"),
        SHUFFLED.label.astype("category"),
    ],
    ids=lambda held: type(held).__name__,
)
def test_labels_are_taken_by_position(held):
    assert as_labels(held).tolist() == [3, 1, 2]


def test_texts_of_every_kind_of_array_are_labels():
    for held in (np.array(PATHS), pd.array(PATHS), np.array(PATHS, dtype=np.dtypes.StringDType())):
        assert np.unique(as_labels(held)).tolist() == sorted(PATHS)
        assert as_labels(held).dtype.kind in "UO"


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (["a", None], r"y\[1\] is None: give every image a label"),
        (["a", float("nan")], r"y\[1\] is nan"),
        ([np.float32("nan"), 1.0], r"y\[0\] is nan"),
        ([1.0, np.nan], r"y\[1\] is nan"),
        (pd.Series(["a", None], index=[3, 1]), r"y\[1\] is"),
        (pd.Series([1, pd.NA], dtype="Int64"), r"y\[1\] is"),
        (np.ma.array(["a", "b"], mask=[0, 1]), r"y\[1\] is None"),
        (pd.to_datetime(pd.Series(["2026-01-01", None])), r"y\[1\] is"),
        (["a", 1], r"y holds texts and other labels \('a' and 1\)"),
        (pd.Series([True, "a"]), r"y holds texts and other labels"),
        ([[1, 2], [3]], "y holds lists of different lengths"),
        (SHUFFLED, r"y has shape \(3, 2\)"),
        ("ab", "y is of type str"),
        (None, "y is of type NoneType"),
        (3, "y is of type int"),
        ({"a": 1}, "y is of type dict"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_labels_that_are_missing_or_mixed_are_refused(held, message):
    with pytest.raises(InputError, match=message):
        as_labels(held)

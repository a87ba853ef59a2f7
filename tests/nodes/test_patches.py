"""Grid against the authors' boxes, Sampling by what it promises, and cutting against Pillow.

Tests deepemd.nodes.cutting, deepemd.nodes.regions.
"""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from deepemd.errors import InputError
from deepemd.nodes import FCN, Grid, Sampling, cut, parse_regions, regions_from


def test_grid_boxes_are_the_authors(golden):
    cases = json.loads((golden / "grid_boxes.json").read_text())
    assert len(cases) > 10
    for case in cases:
        boxes = Grid((case["grid"],), case["ratio"]).boxes([[case["height"], case["width"]]])[0]
        expected = [[x0, y0, x1, y1] for y0, y1 in case["y"] for x0, x1 in case["x"]]
        assert boxes.tolist() == expected, case


def test_grid_levels_follow_each_other():
    grid, sizes = Grid((3, 2)), [[84, 84], [375, 500]]
    both = grid.boxes(sizes)
    assert both.shape == (2, grid.patches, 4) == (2, 13, 4)
    for i in range(2):
        assert both[i].tolist() == np.concatenate([Grid((g,)).boxes(sizes[i : i + 1])[0] for g in (3, 2)]).tolist()
    assert np.array_equal(both, grid.boxes(sizes, seed=5, indices=[8, 9]))  # nothing is drawn at test


def test_grid_draws_a_ratio_from_1_to_3_for_each_image_and_level_in_training():
    grid, sizes = Grid((3, 5)), np.full((400, 2), 3000)
    boxes = grid.boxes(sizes, seed=1, training=True)
    middle = boxes[:, [4, 9 + 12]]  # the central cell of either level is never clipped, up to a ratio of 3
    ratios = (middle[..., 2] - middle[..., 0]) / (3000 / np.array([3, 5]))  # (400, 2)
    assert 1 <= ratios.min() < 1.05
    assert 2.95 < ratios.max() <= 3
    assert abs(np.corrcoef(ratios.T)[0, 1]) < 0.15
    assert len(np.unique(ratios[:, 0])) > 200
    for i in (0, 7):  # one ratio for all cells of a level
        for k, (level, own) in enumerate(((3, boxes[i, :9]), (5, boxes[i, 9:]))):
            again = Grid((level,), float(ratios[i, k] + 1e-9)).boxes(sizes[:1])[0]
            assert np.abs(own - again).max() <= 1
    assert np.array_equal(boxes[[3, 1]], grid.boxes(sizes[:2], seed=1, indices=[3, 1], training=True))
    assert not np.array_equal(boxes, grid.boxes(sizes, seed=2, training=True))


def test_sampling_is_a_function_of_seed_and_index():
    sampling, sizes = Sampling(25), np.array([[84, 84], [375, 500], [30, 400]])
    boxes = sampling.boxes(sizes, seed=1, indices=[4, 9, 2])
    assert np.array_equal(boxes[[2, 0]], sampling.boxes(sizes[[2, 0]], seed=1, indices=[2, 4]))
    assert not np.array_equal(boxes, sampling.boxes(sizes, seed=2, indices=[4, 9, 2]))
    assert not np.array_equal(boxes[0], sampling.boxes(sizes[:1], seed=1, indices=[5])[0])
    # more patches begin with the same ones
    assert np.array_equal(Sampling(9).boxes(sizes, seed=1, indices=[4, 9, 2]), boxes[:, :9])


def test_sampling_covers_its_ranges_and_stays_inside():
    size = np.array([[300, 400]])
    x0, y0, x1, y1 = Sampling(4000).boxes(size, seed=0, indices=[0])[0].T
    assert min(x0.min(), y0.min()) == 0
    assert x1.max() == 400
    assert y1.max() == 300
    share, aspect = (x1 - x0) * (y1 - y0) / 120_000, (x1 - x0) / (y1 - y0)
    assert 0.079 < share.min() < 0.09
    assert 0.98 < share.max() <= 1
    assert 0.74 < aspect.min() < 0.76
    assert 1.31 < aspect.max() < 1.35
    assert abs(np.log(aspect[share < 0.5]).mean()) < 0.02  # as often wide as high


def test_an_image_too_long_for_any_aspect_gives_central_crops():
    boxes = Sampling(3, scale=(1.0, 1.0)).boxes([[10, 400]], seed=0, indices=[0])[0]
    assert boxes.tolist() == [[193, 0, 206, 10]] * 3  # 13 wide: 4 : 3 of 10


@pytest.mark.parametrize("size", [84, 20])
@pytest.mark.parametrize("shape", [(84, 84), (130, 97), (31, 256)])
def test_a_cut_is_a_crop_resized_by_pillow(shape, size):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, *shape, 3), dtype=np.uint8)
    padded = np.zeros((2, 3, 260, 260), np.uint8)
    padded[:, :, : shape[0], : shape[1]] = pixels.transpose(0, 3, 1, 2)
    boxes = np.concatenate(
        [Grid((3, 2)).boxes([shape] * 2), Sampling(6).boxes([shape] * 2, seed=0, indices=[0, 1])], axis=1
    )
    flip = torch.from_numpy(rng.random(boxes.shape[:2]) < 0.5)
    found = cut(torch.from_numpy(padded), torch.from_numpy(boxes), size, flip=flip)
    assert found.shape == (2, boxes.shape[1], 3, size, size)
    for i in range(2):
        for k, box in enumerate(boxes[i]):
            expected = Image.fromarray(pixels[i]).crop(tuple(box)).resize((size, size), Image.Resampling.BILINEAR)
            expected = np.asarray(expected)[:, ::-1] if flip[i, k] else np.asarray(expected)
            off = np.abs(found[i, k].numpy().transpose(1, 2, 0) * 255 - expected)
            assert off.max() < 1.01  # Pillow rounds to whole numbers twice


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Grid(()), "levels"),
        (lambda: Grid((3, 0)), "levels"),
        (lambda: Grid((2, 2)), "levels"),
        (lambda: Grid((2,), 0.0), "ratio"),
        (lambda: Grid((30,)).boxes([[84, 20]]), "levels holds 30"),
        (lambda: Grid((5,), 0.05).boxes([[84, 84]]), "no pixel"),
        (lambda: Grid((1,)).boxes([[84, 0]]), "at least one pixel"),
        (lambda: Sampling(0), "patches is 0"),
        (lambda: Sampling(9, scale=(0.0, 1.0)), "scale"),
        (lambda: Sampling(9, aspect=(2.0, 1.0)), "aspect"),
        (lambda: cut(torch.zeros(1, 3, 9, 9), torch.tensor([[[0, 0, 10, 9]]]), 4), "boxes"),
        (lambda: cut(torch.zeros(1, 3, 9, 9), torch.tensor([[[3, 0, 3, 9]]]), 4), "boxes"),
    ],
)
def test_what_makes_no_patch_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fcn", FCN()),
        ("fcn:2,1", FCN((2, 1))),
        ("pooled:3", FCN((3,), dense=False)),
        ("grid", Grid((3, 2))),
        ("grid:5,3,2", Grid((5, 3, 2))),
        ("sampling", Sampling(9)),
        ("sampling:25", Sampling(25)),
    ],
)
def test_regions_are_read_as_they_are_written_and_saved(text, expected):
    assert parse_regions(text) == expected
    assert regions_from(json.loads(json.dumps(expected.config))) == expected


@pytest.mark.parametrize("text", ["", "cells", "grid:x", "grid:3;2", "sampling:9,3", "sampling:0", "grid:0", "fcn:-1"])
def test_regions_that_are_none_are_refused(text):
    with pytest.raises(InputError, match=r"regions|patches|levels|pyramid"):
        parse_regions(text)


def test_settings_that_regions_do_not_have_are_refused():
    with pytest.raises(InputError, match="does not take"):
        regions_from({"name": "grid", "patches": 3})
    with pytest.raises(InputError, match="choose one of fcn, multiscale, grid, sampling"):
        regions_from({"patches": 3})

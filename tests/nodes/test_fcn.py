"""Node order and boxes, by hand-computed values."""

import numpy as np
import pytest
import torch

from deepemd.errors import InputError
from deepemd.nodes import FCN, conv4, to_original


class Identity:
    """An encoder that returns its input, so that nodes can be read off."""

    def __init__(self) -> None:
        self.channels = 1
        self.config = {"name": "identity"}

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images


def test_nodes_come_level_by_level_and_row_by_row() -> None:
    maps = torch.arange(9.0).reshape(1, 1, 3, 3)
    nodes = FCN((2, 1))(Identity(), maps)
    # the 2 x 2 cells of a 3 x 3 map overlap: rows 0-1 and 1-2
    assert nodes[0, :, 0].tolist() == [2.0, 3.0, 5.0, 6.0, 4.0, *range(9)]


def test_pooled_levels_alone() -> None:
    maps = torch.arange(9.0).reshape(1, 1, 3, 3)
    regions = FCN((2,), dense=False)
    assert regions(Identity(), maps)[0, :, 0].tolist() == [2.0, 3.0, 5.0, 6.0]
    assert regions.boxes(3, 3, 3, 3).tolist() == [[0, 0, 2, 2], [1, 0, 3, 2], [0, 1, 2, 3], [1, 1, 3, 3]]
    assert FCN((3,), dense=False)(Identity(), maps)[0, :, 0].tolist() == list(range(9))  # the map itself, by its size
    with pytest.raises(InputError, match="an image would have no nodes"):
        FCN(dense=False)


def test_boxes_are_where_the_nodes_come_from() -> None:
    boxes = FCN((2,)).boxes(60, 30, 3, 3)  # cells are 10 wide and 20 high
    assert boxes.shape == (13, 4)
    assert boxes[:4].tolist() == [[0, 0, 20, 40], [10, 0, 30, 40], [0, 20, 20, 60], [10, 20, 30, 60]]
    assert boxes[4].tolist() == [0, 0, 10, 20]
    assert boxes[5].tolist() == [10, 0, 20, 20]
    assert boxes[7].tolist() == [0, 20, 10, 40]
    assert boxes[12].tolist() == [20, 40, 30, 60]


def test_a_box_averages_to_its_node() -> None:
    """Every node of every level is the mean of the map inside its box."""
    maps = torch.randn(1, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    regions = FCN((3, 2, 1))
    nodes = regions(Identity(), maps)[0, :, 0]
    for node, (x0, y0, x1, y1) in zip(nodes, regions.boxes(5, 5, 5, 5).astype(int), strict=True):
        torch.testing.assert_close(node, maps[0, 0, y0:y1, x0:x1].mean())


@pytest.mark.parametrize(
    ("width", "height", "box"),
    [
        (92, 92, [4, 4, 88, 88]),
        (184, 92, [8, 4, 176, 88]),
        (46, 184, [2, 8, 44, 176]),
        (84, 84, [4 * 84 / 92, 4 * 84 / 92, 88 * 84 / 92, 88 * 84 / 92]),
    ],
)
def test_the_whole_input_in_the_original_image(width: int, height: int, box: list[float]) -> None:
    np.testing.assert_allclose(to_original(np.array([[0.0, 0.0, 84.0, 84.0]]), width, height), [box])


def test_levels_that_make_no_sense_are_refused() -> None:
    images = torch.zeros(1, 3, 84, 84)
    with pytest.raises(InputError, match=r"level 5 repeats the 5 x 5 map.*leave it out"):
        FCN((5, 2, 1))(conv4(), images)
    with pytest.raises(InputError, match="finer than the 5 x 5 map"):
        FCN((6,))(conv4(), images)
    with pytest.raises(InputError, match="named twice"):
        FCN((2, 1, 2))
    with pytest.raises(InputError, match="it must be from 1"):
        FCN((0,))


def test_nodes_are_float32_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert FCN()(conv4(), torch.zeros(1, 3, 84, 84)).dtype == torch.float32

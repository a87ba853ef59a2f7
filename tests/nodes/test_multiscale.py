"""Nodes of several input sizes: the windows, their boxes, and their settings."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from deepemd.errors import InputError
from deepemd.model import DeepEMD
from deepemd.nodes import MultiScale, conv4, parse_regions, regions_from


def _stride(cell):
    """Return an encoder whose cells are the means of cell x cell pixels."""
    return lambda images: F.avg_pool2d(images, cell)


def test_nodes_are_the_means_of_their_boxes():
    image = torch.rand(1, 3, 112, 112)
    regions = MultiScale((112,), window=0.4, step=2)
    nodes = regions(_stride(16), image)[0]  # a map of 7 x 7: windows of 3, step 2
    boxes = regions.boxes(112, {112: (7, 7)})
    assert nodes.shape == (9, 3)
    assert boxes.shape == (9, 4)
    for node, (x0, y0, x1, y1) in zip(nodes, boxes.round().astype(int).tolist(), strict=True):
        torch.testing.assert_close(node, image[0, :, y0:y1, x0:x1].mean((1, 2)))


@pytest.mark.parametrize(("size", "cells", "nodes"), [(224, 7, 9), (320, 10, 16), (416, 13, 25)])
def test_the_default_windows(size, cells, nodes):
    regions = MultiScale((size,))
    assert regions(_stride(32), torch.zeros(1, 3, size, size)).shape == (1, nodes, 3)
    assert len(regions.boxes(1.0, {size: (cells, cells)})) == nodes


def test_all_sizes_make_one_set():
    image = torch.rand(1, 3, 96, 96)
    found = MultiScale((48, 96))(_stride(16), image)
    small = F.interpolate(image, size=(48, 48), mode="bilinear", antialias=True)
    torch.testing.assert_close(found[:, :4], MultiScale((48,))(_stride(16), small)[:, :4])
    torch.testing.assert_close(found[:, -4:], MultiScale((96,))(_stride(16), image)[:, -4:])


def test_the_smaller_size_is_that_of_pillow():
    from PIL import Image

    picture = Image.effect_noise((96, 96), 80).convert("RGB")
    image, peer = (
        torch.from_numpy(np.array(one)).permute(2, 0, 1)[None].float()
        for one in (picture, picture.resize((40, 40), Image.Resampling.BILINEAR))
    )
    seen = []
    MultiScale((40, 96))(lambda images: seen.append(images) or images, image)
    torch.testing.assert_close(seen[0], peer, rtol=0, atol=1.0)  # Pillow rounds to whole values


def test_a_model_has_the_boxes_of_all_sizes():
    model = DeepEMD(conv4(), MultiScale((40, 84)), image_size=84, resize=84)
    nodes, boxes = model.embed(torch.rand(2, 3, 84, 84)), model.boxes([(168, 84)])
    assert nodes.shape[:2] == (2, boxes.shape[1])
    assert boxes[0, 0].tolist() == [0, 0, 42, 84]  # (height, width) are 168 and 84: one cell of the 2 x 2 map


def test_settings_come_back():
    regions = MultiScale((224, 320), window=0.3, step=1)
    assert regions_from(regions.config) == regions
    assert parse_regions("multiscale:224,320") == MultiScale((224, 320))
    assert parse_regions("multiscale") == MultiScale()


@pytest.mark.parametrize(
    "settings", [{"sizes": ()}, {"sizes": (416, 224)}, {"sizes": (224, 224)}, {"window": 0}, {"window": 2}, {"step": 0}]
)
def test_bad_settings(settings):
    with pytest.raises(InputError):
        MultiScale(**settings)


def test_images_of_another_size_are_refused():
    with pytest.raises(InputError, match="image_size"):
        MultiScale((40, 80))(conv4(), torch.zeros(1, 3, 84, 84))

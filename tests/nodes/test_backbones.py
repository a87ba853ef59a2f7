"""ResNet-12 against the authors' implementation, conv4 by its shapes."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from deepemd.errors import InputError
from deepemd.nodes import FCN, backbone, conv4, patch_nodes, resnet12


def draw_weights(model: nn.Module) -> None:
    """Return the weights with which the golden values were computed."""
    state = {}
    for name, tensor in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            state[name] = tensor
            continue
        rng = np.random.default_rng(zlib.crc32(name.encode()) + 1)
        z = np.asarray(rng.standard_normal(tuple(tensor.shape))).astype(np.float32)
        if z.ndim == 4:
            z = z * np.float32(np.sqrt(2 / (z.shape[1] * z.shape[2] * z.shape[3])))
        elif name.endswith("running_var"):
            z = 1 + np.float32(0.1) * np.abs(z)
        elif name.endswith("weight"):
            z = 1 + np.float32(0.1) * z
        else:
            z = np.float32(0.1) * z
        state[name] = torch.from_numpy(z)
    model.load_state_dict(state)


def relative_error(found: torch.Tensor, expected: np.ndarray) -> float:
    return float(np.abs(found.numpy() - expected).max() / np.abs(expected).max())


@pytest.fixture(scope="module")
def encoder() -> nn.Module:
    model = resnet12().eval()
    draw_weights(model)
    return model


def test_resnet12_has_the_authors_names_and_shapes(golden: Path) -> None:
    expected = json.loads((golden / "resnet12_state_dict.json").read_text())
    found = {name: list(tensor.shape) for name, tensor in resnet12().state_dict().items()}
    assert found == expected
    assert sum(parameter.numel() for parameter in resnet12().parameters()) == 12_424_320


def test_resnet12_computes_the_authors_features(golden: Path, encoder: nn.Module) -> None:
    values = np.load(golden / "resnet12.npz")
    with torch.no_grad():
        maps = encoder(torch.from_numpy(values["images"]))
        pyramid = FCN((2, 1))(encoder, torch.from_numpy(values["images"]))
        patches = patch_nodes(encoder, torch.from_numpy(values["patches"]))
    assert relative_error(maps, values["features"]) < 1e-5
    assert relative_error(pyramid.transpose(1, 2)[:, :, None], values["pyramid_2_1"]) < 1e-5
    assert relative_error(patches.transpose(1, 2)[..., None], values["patch_features"]) < 1e-5


@pytest.mark.parametrize(("size", "pools", "side"), [(84, 4, 5), (84, 3, 10), (32, 3, 4), (28, 2, 7), (16, 0, 16)])
def test_conv4_map_sizes(size: int, pools: int, side: int) -> None:
    assert conv4(pools=pools)(torch.zeros(2, 3, size, size)).shape == (2, 64, side, side)


def test_pooling_before_the_activation_changes_nothing() -> None:
    """Compare values and gradients with the published order: convolution, batch norm, ReLU, pooling."""
    torch.manual_seed(0)
    model = conv4(channels=8).double()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    x = images
    for block in model.blocks:
        x = torch.max_pool2d(torch.relu(block.bn(block.conv(x))), 2)
    (expected,) = torch.autograd.grad(x.square().sum(), images)
    maps = model(images)
    (found,) = torch.autograd.grad(maps.square().sum(), images)
    torch.testing.assert_close(maps, x)
    torch.testing.assert_close(found, expected)


def test_a_folded_resnet12_sees_each_pixel_and_has_the_map_of_the_paper() -> None:
    encoder = resnet12((4, 6, 8, 10), space_to_depth=2).eval()
    for size, side in ((84, 5), (64, 4), (48, 3), (33, 2)):
        assert encoder(torch.zeros(1, 3, size, size)).shape == (1, 10, side, side)
    images = torch.randn(1, 3, 84, 84, generator=torch.Generator().manual_seed(0)).requires_grad_()
    encoder(images).square().sum().backward()
    assert (images.grad.abs().sum(1) > 0)[0, 8:-8, 8:-8].all()
    settings = {"name": "resnet12", "widths": [4, 6, 8, 10], "space_to_depth": 2}
    assert backbone(**encoder.config).config == encoder.config == settings
    earlier = {"name": "resnet12", "widths": [4, 6, 8, 10], "fold": 2}  # as models were saved before
    assert backbone(**earlier).config == settings
    assert resnet12().config == {"name": "resnet12"}
    for widths, space_to_depth, says in (
        ((4, 6, 8), 1, "widths is"),
        ((4, 6, 8, 0), 1, "widths is"),
        ((4, 6, 8, 10), 3, "space_to_depth is"),
    ):
        with pytest.raises(InputError, match=says):
            resnet12(widths, space_to_depth)


def test_a_backbone_is_rebuilt_from_its_config() -> None:
    for model in (conv4(channels=16, pools=3), resnet12()):
        again = backbone(**model.config)
        assert again.config == model.config
        assert again.channels == model.channels
        assert [*again.state_dict()] == [*model.state_dict()]


def test_wrong_settings_are_named() -> None:
    with pytest.raises(InputError, match=r"'vgg'.*conv4, efficientnet-lite0, resnet12, transformers"):
        backbone("vgg")
    with pytest.raises(InputError, match="depth"):
        backbone("resnet12", depth=3)
    with pytest.raises(InputError, match="pools is 5"):
        conv4(pools=5)

"""The power transform: roots that keep their sign, of length 1."""

import torch

from deepemd.model import DeepEMD
from deepemd.nodes import conv4, power_transform


def test_roots_of_length_one():
    nodes = torch.tensor([[4.0, 0.0, -9.0], [0.0, 0.0, 0.0]])
    expected = torch.tensor([[2.0, 0.0, -3.0], [0.0, 0.0, 0.0]])
    expected[0] /= 13**0.5
    torch.testing.assert_close(power_transform(nodes), expected)


def test_one_only_scales():
    nodes = torch.randn(5, 7)
    torch.testing.assert_close(power_transform(nodes, 1), nodes / nodes.norm(dim=-1, keepdim=True))


def test_a_model_transforms_its_nodes():
    images = torch.rand(2, 3, 84, 84)
    torch.manual_seed(0)
    plain = DeepEMD(conv4()).eval()
    torch.manual_seed(0)
    roots = DeepEMD(conv4(), power=0.5).eval()
    with torch.no_grad():
        torch.testing.assert_close(roots.embed(images), power_transform(plain.embed(images)))
    assert roots.config["power"] == 0.5
    assert "power" not in plain.config


def test_the_gradient_is_finite_where_channels_are_zero():
    nodes = torch.tensor([[4.0, 0.0, -9.0], [0.0, 0.0, 0.0]], requires_grad=True)
    power_transform(nodes)[:, 0].sum().backward()
    assert nodes.grad.isfinite().all()
    assert nodes.grad[0, 1] == 0

"""The model as a whole: an episode in, logits out."""

import pickle
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import nn

from deepemd.errors import InputError
from deepemd.matching import emd_logits
from deepemd.model import DeepEMD
from deepemd.nodes import FCN, Grid, conv4


@pytest.fixture
def model() -> DeepEMD:
    torch.manual_seed(0)
    return DeepEMD(conv4(channels=8, pools=3), FCN((2,)), image_size=32, resize=36, temperature=10.0)


def draw(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(len(shape)))


def test_logits_are_those_of_the_mean_node_sets(model: DeepEMD) -> None:
    model.eval()
    support, query = draw(6, 3, 32, 32), draw(4, 3, 32, 32)
    logits = model(support, query, n_way=3)
    nodes = model.embed(support)
    classes = torch.stack([(nodes[k] + nodes[k + 3]) / 2 for k in range(3)])  # shots come one after the other
    torch.testing.assert_close(logits, emd_logits(model.embed(query), classes, temperature=10.0))
    batched = model.match(nodes.expand(2, -1, -1, -1), model.embed(query).expand(2, -1, -1, -1), n_way=3)
    torch.testing.assert_close(batched, logits.expand(2, -1, -1))


def test_batch_norm_sees_support_and_query_together(model: DeepEMD) -> None:
    support, query = draw(3, 3, 32, 32), draw(4, 3, 32, 32)
    model.train()
    first = model(support, query, n_way=3)
    second = model(support, 255 - query, n_way=3)
    assert not torch.allclose(first[:, 0], second[:, 0])
    assert int(model.backbone.blocks[0].bn.num_batches_tracked) == 2


def test_gradients_reach_the_encoder(model: DeepEMD) -> None:
    loss = model(draw(3, 3, 32, 32), draw(4, 3, 32, 32), n_way=3).square().sum()
    loss.backward()
    gradient = model.backbone.blocks[0].conv.weight.grad
    assert gradient is not None
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0


def test_larger_images_are_cut_to_their_centre(model: DeepEMD) -> None:
    model.eval()
    images = draw(2, 3, 36, 36)
    torch.testing.assert_close(model.embed(images), model.embed(images[:, :, 2:34, 2:34]))
    torch.testing.assert_close(model.embed(images), model.embed(images.float() / 255))


class Counting(nn.Conv2d):
    """Returns an 8 x 8 map of an image of 32 x 32, and counts its calls."""

    calls = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return super().forward(images)


def test_where_nodes_lie_is_learned_from_the_encoder_once() -> None:
    net = Counting(3, 6, 4, stride=4)
    model = DeepEMD(net, FCN(), image_size=32, resize=32).train()
    first = model.boxes([[64, 64]])
    assert first.shape == (1, 64, 4)
    calls = net.calls
    assert (model.boxes([[64, 64], [64, 64]]) == first).all()
    assert net.calls == calls
    assert all(part.training for part in model.modules())


def test_where_nodes_lie_follows_every_change_of_the_model() -> None:
    model = DeepEMD(Counting(3, 6, 4, stride=4), FCN(), image_size=32, resize=32)
    sizes = [[32, 32]]
    assert model.boxes(sizes).shape == (1, 64, 4)
    model.regions = FCN((3,))
    assert model.boxes(sizes).shape == (1, 73, 4)
    model.image_size = 24
    assert model.boxes(sizes).shape == (1, 9 + 36, 4)
    model.image_size = 32
    model.regions = Grid((2,))
    assert model.boxes(sizes).shape == (1, 4, 4)
    model.regions = FCN()
    model.backbone = DeepEMD(nn.Conv2d(3, 6, 8, stride=8), image_size=32, resize=32).backbone
    assert model.boxes(sizes).shape == (1, 16, 4)


def test_where_nodes_lie_survives_copying_pickling_and_loading(model: DeepEMD, tmp_path: Path) -> None:
    sizes = [[40, 30], [7, 9]]
    boxes = model.boxes(sizes)
    folder = model.save(tmp_path / "model")
    for again in (deepcopy(model), pickle.loads(pickle.dumps(model)), DeepEMD.load(folder)):
        assert (again.boxes(sizes) == boxes).all()
        again.image_size = 24
        assert again.boxes(sizes).shape != boxes.shape
    assert (model.boxes(sizes) == boxes).all()


def test_wrong_shapes_are_named(model: DeepEMD) -> None:
    with pytest.raises(InputError, match=r"\(2, 3, 16, 16\).*at least 32"):
        model.embed(draw(2, 3, 16, 16))
    with pytest.raises(InputError, match="support holds 4 images"):
        model(draw(4, 3, 32, 32), draw(2, 3, 32, 32), n_way=3)
    with pytest.raises(InputError, match="resize is 80"):
        DeepEMD(conv4(), resize=80)

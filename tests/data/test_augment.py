"""Augmentation of whole batches."""

import pytest
import torch

from deepemd.data.augment import Augment
from deepemd.errors import InputError


@pytest.fixture
def ramp() -> torch.Tensor:
    """Images that grow brighter from left to right, uint8 (16, 3, 40, 40)."""
    return (torch.arange(40) * 6).to(torch.uint8).expand(16, 3, 40, 40).contiguous()


def test_crops_are_a_function_of_the_seed(ramp: torch.Tensor) -> None:
    augment = Augment(32, jitter=0.2)
    state = torch.get_rng_state()
    crops = augment(ramp, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(augment(ramp, seed=5), crops)
    assert not torch.equal(augment(ramp, seed=6), crops)
    assert crops.shape == (16, 3, 32, 32)
    assert crops.min() >= 0
    assert crops.max() <= 1


def test_images_of_a_batch_vary_apart(ramp: torch.Tensor) -> None:
    crops = Augment(32)(ramp, seed=0)
    assert len({float(crop.mean()) for crop in crops}) == 16


def test_letters_are_never_mirrored(ramp: torch.Tensor) -> None:
    rises = (Augment(32, flip=False)(ramp, seed=1).diff(dim=-1)[..., 1:-1] > 0).flatten(1).all(1)
    assert rises.all()
    some = (Augment(32, flip=True)(ramp, seed=1).diff(dim=-1)[..., 1:-1] > 0).flatten(1).all(1)
    assert 0 < some.sum() < 16


def test_a_crop_of_everything_is_the_image(ramp: torch.Tensor) -> None:
    crops = Augment(40, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=False)(ramp, seed=2)
    torch.testing.assert_close(crops, ramp.float() / 255, atol=1e-4, rtol=0)


def test_a_crop_shows_what_is_there() -> None:
    """The mean brightness of small crops of a ramp spreads over the whole ramp."""
    ramp = torch.arange(64).to(torch.uint8).expand(200, 3, 64, 64).contiguous() * 4
    means = Augment(16, crop_scale=(0.1, 0.2), flip=False)(ramp, seed=3).mean((1, 2, 3))
    assert means.min() < 0.3
    assert means.max() > 0.7
    assert abs(float(means.mean()) - 0.494) < 0.03


def test_wrong_settings_are_named() -> None:
    with pytest.raises(InputError, match="crop_scale"):
        Augment(32, crop_scale=(0.0, 1.0))
    with pytest.raises(InputError, match="jitter"):
        Augment(32, jitter=-1.0)

"""Encoders, which turn a batch of normalised images into a batch of feature maps.

Both encoders pool before the activation. A rectifier is monotone, so max-pooling commutes with it: values and
gradients are those of the published order, and the activation does a quarter of the work.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepemd.checks import whole_number, whole_numbers
from deepemd.errors import InputError

__all__ = ["CUSTOM", "Backbone", "Conv4", "ResNet12", "backbone", "conv4", "resnet12"]

CUSTOM = "custom"  # the name of an encoder that the user builds
WIDTHS = (64, 160, 320, 640)  # channels of the blocks of the paper's ResNet-12
_MAX_CHANNELS = 4096  # of a block; more than any published network has
Run = Callable[[nn.Module, Tensor], Tensor]  # runs a block on its input


class Backbone(Protocol):
    """The interface of an encoder: any ``nn.Module`` with these two attributes.

    ``channels`` is the C of its feature maps; ``config`` holds a ``name`` and the settings with which
    :func:`backbone` rebuilds it.
    """

    channels: int
    config: dict[str, Any]

    def __call__(self, images: Tensor) -> Tensor:
        """Encode (B, 3, H, W) images into (B, C, h, w) maps."""


def _call(block: nn.Module, maps: Tensor) -> Tensor:
    result: Tensor = block(maps)
    return result


class ConvBlock(nn.Sequential):
    """3 x 3 convolution, batch norm, optional 2 x 2 max-pooling, ReLU: (B, c, H, W) -> (B, C, H/2, W/2)."""

    def __init__(self, inputs: int, outputs: int, *, pool: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)  # the batch norm has the bias
        self.bn = nn.BatchNorm2d(outputs)
        if pool:
            self.pool = nn.MaxPool2d(2)
        self.relu = nn.ReLU(inplace=True)


class Conv4(nn.Module):
    """Four convolutional blocks; see :func:`conv4`."""

    def __init__(self, channels: int = 64, pools: int = 4) -> None:
        super().__init__()
        channels = whole_number("channels", channels, 1, _MAX_CHANNELS, hint="64 is usual for conv4")
        pools = whole_number("pools", pools, 0, 4, hint="conv4 has four blocks")
        self.channels = channels
        self.config: dict[str, Any] = {"name": "conv4", "channels": channels, "pools": pools}
        widths = (3, channels, channels, channels, channels)
        self.blocks = nn.Sequential(*(ConvBlock(widths[k], widths[k + 1], pool=k < pools) for k in range(4)))
        initialise(self, slope=0.0)

    def forward(self, images: Tensor, run: Run = _call) -> Tensor:
        """Encode (B, 3, H, W) images into (B, C, H / 2^pools, W / 2^pools) maps; `run` calls each block."""
        _check_size(images, self.config["pools"])
        return reduce(lambda maps, block: run(block, maps), self.blocks, images)


class ResidualBlock(nn.Module):
    """Three 3 x 3 convolutions with a 1 x 1 shortcut, then 2 x 2 max-pooling: (B, c, H, W) -> (B, C, H/2, W/2)."""

    def __init__(self, inputs: int, outputs: int, *, pool: bool = True) -> None:
        super().__init__()
        self.pool = pool
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv3 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        y = F.leaky_relu(self.bn1(self.conv1(x)), 0.1, inplace=True)  # (B, c, H, W) -> (B, C, H, W)
        y = F.leaky_relu(self.bn2(self.conv2(y)), 0.1, inplace=True)
        y = self.bn3(self.conv3(y)) + self.downsample(x)
        return F.leaky_relu(F.max_pool2d(y, 2) if self.pool else y, 0.1, inplace=True)  # -> (B, C, H/2, W/2)


class ResNet12(nn.Module):
    """Four residual blocks; see :func:`resnet12`."""

    def __init__(self, widths: Sequence[int] = WIDTHS, space_to_depth: int = 1) -> None:
        super().__init__()
        widths = whole_numbers("widths", widths, 1, _MAX_CHANNELS, count=4, hint="resnet12 has four blocks")
        space_to_depth = whole_number(
            "space_to_depth", space_to_depth, 1, 2, hint="1 uses pixels as they are, 2 merges each 2 x 2 of them"
        )
        self.channels = widths[-1]
        self.space_to_depth = space_to_depth
        self.config: dict[str, Any] = {"name": "resnet12"}
        if (widths, space_to_depth) != (WIDTHS, 1):
            self.config |= {"widths": list(widths), "space_to_depth": space_to_depth}
        # one-block stages: the parameter names are those of the authors' checkpoints
        self.layer1 = nn.Sequential(ResidualBlock(3 * space_to_depth**2, widths[0]))
        self.layer2 = nn.Sequential(ResidualBlock(widths[0], widths[1]))
        self.layer3 = nn.Sequential(ResidualBlock(widths[1], widths[2]))
        self.layer4 = nn.Sequential(ResidualBlock(widths[2], widths[3], pool=space_to_depth == 1))
        initialise(self, slope=0.1)

    def forward(self, images: Tensor, run: Run = _call) -> Tensor:
        """Encode (B, 3, H, W) images into (B, C, H // 16, W // 16) maps; `run` calls each block."""
        _check_size(images, 4)
        if self.space_to_depth > 1:  # (B, 3, H, W) -> (B, 12, H/2, W/2)
            images = F.pixel_unshuffle(_even(images), self.space_to_depth).contiguous(memory_format=torch.channels_last)
        blocks = (self.layer1, self.layer2, self.layer3, self.layer4)
        return reduce(lambda maps, block: run(block, maps), blocks, images)


def _even(images: Tensor) -> Tensor:
    """Drop the last row or column of an odd size, as the first pooling would."""
    return images[..., : images.shape[-2] // 2 * 2, : images.shape[-1] // 2 * 2]


def _check_size(images: Tensor, pools: int) -> None:
    """Raise an InputError if the images are too small to be halved so often."""
    if min(images.shape[-2:]) < 2**pools:
        raise InputError(
            f"images of {images.shape[-2]} x {images.shape[-1]} are too small for an encoder that halves them {pools}"
            f" times: image_size must be at least {2**pools}; enlarge it, or lower pools (conv4)"
        )


def initialise(module: nn.Module, slope: float) -> None:
    """Initialise convolutions by Kaiming's normal rule (fan out) for a leaky rectifier of this slope."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, a=slope, mode="fan_out", nonlinearity="leaky_relu")


def conv4(channels: int = 64, pools: int = 4) -> Conv4:
    """Build four blocks of 3 x 3 convolution, batch norm, ReLU and 2 x 2 max-pooling, with random weights.

    It is small and fast, for a CPU and for small images.

    Args:
        channels: width of every block, and the C of the feature maps.
        pools: number of blocks that pool, from the first on. 4 turn 84 x 84 into 5 x 5. Use fewer for small images, so
            that several nodes are left (3 turn 32 x 32 into 4 x 4).

    Raises:
        InputError: `channels` or `pools` is out of range.

    >>> import torch
    >>> conv4(pools=3)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 64, 4, 4])

    Source: Vinyals et al., Matching Networks for One Shot Learning (NeurIPS 2016), section 4.1.
    """
    return Conv4(channels, pools)


def resnet12(widths: Sequence[int] = WIDTHS, space_to_depth: int = 1) -> ResNet12:
    """Build the paper's ResNet-12 with random weights: 12.4 million parameters, 84 x 84 -> 5 x 5.

    Args:
        widths: channels of its four blocks; the last is the C of the feature maps. Use fewer without a GPU.
        space_to_depth: 2 merges each 2 x 2 pixels into one of 12 channels at the start and skips the last pooling: the
            same 5 x 5 map for about a quarter of the work, for training on a CPU.

    Raises:
        InputError: `widths` or `space_to_depth` is out of range.

    >>> sum(parameter.numel() for parameter in resnet12().parameters())
    12424320
    >>> resnet12((32, 64, 160, 320), space_to_depth=2)(torch.zeros(2, 3, 84, 84)).shape
    torch.Size([2, 320, 5, 5])

    Source: Zhang et al., DeepEMD (CVPR 2020), section 5.1.
    """
    return ResNet12(widths, space_to_depth)


def _efficientnet_lite0(**settings: Any) -> Backbone:
    from deepemd.nodes.efficientnet import EfficientNetLite0  # another package's network

    return EfficientNetLite0(**settings)


def _transformers(**settings: Any) -> Backbone:
    from deepemd.nodes.transformer import Transformer  # an optional library

    return Transformer(**settings)


BACKBONES: dict[str, Callable[..., Backbone]] = {
    "conv4": Conv4,
    "resnet12": ResNet12,
    "efficientnet-lite0": _efficientnet_lite0,
    "transformers": _transformers,
}


def backbone(name: str, **settings: Any) -> Backbone:
    """Build an encoder with random weights, from its name and settings in a saved model's config.json.

    Args:
        name: ``"conv4"``, ``"resnet12"``, ``"efficientnet-lite0"`` or ``"transformers"``.
        **settings: the settings of the encoder: see :func:`conv4`, :func:`deepemd.nodes.efficientnet_lite0` and
            :class:`deepemd.nodes.transformer.Transformer`.

    Raises:
        InputError: the name or a setting is unknown, or the encoder is the user's own, which must be passed as a
            module.

    >>> backbone("conv4", pools=3).config
    {'name': 'conv4', 'channels': 64, 'pools': 3}
    """
    if name == CUSTOM:
        raise InputError(
            f"backbone is one of your own, {settings.get('class', 'a module')}, of which only the weights are saved;"
            " build the module and pass it: load(folder, backbone=module)"
        )
    if "fold" in settings:  # the old name, in older saved models
        settings["space_to_depth"] = settings.pop("fold")
    if not isinstance(name, str) or name not in BACKBONES:
        raise InputError(
            f"backbone is {name!r:.80}: choose one of {', '.join(sorted(BACKBONES))}; pass an encoder of your own as"
            " load(folder, backbone=module)"
        )
    try:
        return BACKBONES[name](**settings)
    except TypeError as error:
        raise InputError(
            f"backbone {name!r} does not take these settings: {settings!r:.200} ({error!s:.200})"
        ) from error

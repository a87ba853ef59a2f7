"""Models for photos, by one word: the encoder that is installed, a saved model, or any module that returns a map."""

import os
from copy import deepcopy
from pathlib import Path

from torch import nn

from deepemd.model import DeepEMD
from deepemd.nodes import FCN, Regions, efficientnet_lite0

__all__ = ["DEFAULT", "pretrained"]

DEFAULT = "efficientnet-lite0"


def pretrained(name: "str | os.PathLike[str] | nn.Module" = DEFAULT, *, regions: Regions | None = None) -> DeepEMD:
    """A model that is ready to compare photos.

    Args:
        name: ``"efficientnet-lite0"``, which needs no download; the folder of a saved model; or a model.
        regions: how an image becomes nodes, where the model's own way is not wanted.

    Returns:
        The model in evaluation mode.

    Raises:
        InputError: no model of this name.

    >>> pretrained().embed(torch.zeros(1, 3, 160, 160)).shape
    torch.Size([1, 25, 1280])
    """
    if isinstance(name, DeepEMD):
        model = deepcopy(name)  # its regions and its mode may change
    elif str(name) == DEFAULT:
        model = _efficientnet()
    else:
        model = DeepEMD.load(Path(str(name)))
    if regions is not None:
        model.regions = regions
    return model.eval()


def _efficientnet() -> DeepEMD:
    """The settings that were chosen on miniImageNet's base classes, see docs/photos.md."""
    mean, std = (127 / 255,) * 3, (128 / 255,) * 3  # to -1..1, as it was trained
    return DeepEMD(efficientnet_lite0("head"), FCN(), image_size=160, resize=160, mean=mean, std=std)

"""Load a model for photos by name: the installed encoder, a folder, a model on the hub, or any module."""

import os
import warnings
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from deepemd.errors import InputError
from deepemd.model import DeepEMD
from deepemd.model.folder import CONFIG_FILE, read_json
from deepemd.model.hub import find_model
from deepemd.nodes import MultiScale, Regions, efficientnet_lite0

__all__ = ["DEFAULT", "pretrained"]

DEFAULT = "efficientnet-lite0"
_PROCESSOR_FILE = "preprocessor_config.json"
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and standard deviation of its channels
_SIZES = (224, 352)  # pixels, the sizes at which the default encoder reads a photo
_SIDE = 224  # pixels, the image size of most encoders trained on ImageNet
_CELLS = 7  # side of a transformer's map: 49 nodes


def pretrained(
    name: "str | os.PathLike[str] | nn.Module" = DEFAULT,
    *,
    regions: Regions | None = None,
    side: int | None = None,
    fast: bool = False,
) -> DeepEMD:
    """Return a model that is ready to compare photos.

    Args:
        name: one of

            - ``"efficientnet-lite0"``: installed with the package, needs no download; the best choice for photos;
            - ``"resnet12-miniimagenet"``: also installed; the paper's encoder, trained on small images of 64 classes
              (see docs/results.md), for experiments with the method;
            - a folder, or ``"owner/name"`` on the Hugging Face Hub, that holds a saved model
              (:meth:`deepemd.DeepEMD.save`) or one of the library `transformers`, such as ``"facebook/dinov2-small"``
              (:data:`deepemd.nodes.transformer.FAMILIES`; weights as safetensors only). Mean, deviation and size come
              from its preprocessor_config.json, if it has one;
            - a module that returns (B, C, h, w) maps. Images are scaled to 224 x 224 and normalised by ImageNet's mean
              and deviation; for other settings pass a ``DeepEMD(module, ...)``;
            - a ``DeepEMD``. Modules and models are copied.
        regions: how an image becomes nodes; by default the model's own regions.
        side: side of the map to which a transformer's tokens are averaged; by default 7 (49 nodes). Larger is slower.
        fast: read photos at the smallest size of the model alone, where it reads them at several: "efficientnet-lite0"
            then takes 224 pixels instead of 224 and 352, in a quarter of the time. Things that are small in the photo
            are recognised less well.

    Returns:
        The model in evaluation mode.

    Raises:
        InputError: there is no model of this name, the hub cannot be reached, `transformers` is not installed, a file
            is damaged, or the module returns no map.

    >>> import torch
    >>> pretrained().embed(torch.zeros(1, 3, 352, 352)).shape
    torch.Size([1, 25, 1280])
    """
    if isinstance(name, nn.Module):
        copy = deepcopy(name)  # mode, regions and memory layout of the weights may change
        model = copy if isinstance(copy, DeepEMD) else _for_photos(copy)
    elif str(name) == DEFAULT:
        model = _efficientnet()
    else:
        folder = find_model(name)
        config = read_json(folder / CONFIG_FILE)
        if "model_type" in config and "format" not in config:
            return _transformer(folder, regions, _CELLS if side is None else side)
        model = DeepEMD.load(folder)
    if side is not None:
        raise InputError(f"side is {side}, but this encoder is not one of transformers: leave it out")
    if regions is not None:
        if isinstance(model.regions, MultiScale):
            model.image_size = model.resize = model.regions.sizes[0]
        model.regions = regions
    if fast and isinstance(model.regions, MultiScale):
        model.regions = replace(model.regions, sizes=model.regions.sizes[:1])
    if isinstance(model.regions, MultiScale):
        model.image_size = model.resize = model.regions.sizes[-1]
    return model.eval()


def _for_photos(encoder: nn.Module, regions: Regions | None = None, **settings: Any) -> DeepEMD:
    """Return a model that sees whole images, by default like most encoders trained on ImageNet."""
    mean, std = _IMAGENET
    return DeepEMD(encoder, regions, **{"image_size": _SIDE, "resize": _SIDE, "mean": mean, "std": std, **settings})


def _efficientnet() -> DeepEMD:
    """Return the default model; its settings were chosen on miniImageNet's base classes, see docs/results.md."""
    mean, std = (127 / 255,) * 3, (128 / 255,) * 3  # scales to -1..1, as in its training
    side = _SIZES[-1]
    regions = MultiScale(_SIZES)
    settings: dict[str, Any] = {"image_size": side, "resize": side, "mean": mean, "std": std}
    return DeepEMD(efficientnet_lite0("head"), regions, **settings, context=1.0, power=0.5)


def _transformer(folder: Path, regions: Regions | None, side: int) -> DeepEMD:
    from deepemd.nodes.transformer import transformer  # an optional library

    settings = _processor(folder / _PROCESSOR_FILE)
    return _for_photos(transformer(folder, side), regions, **settings).eval()


def _processor(path: Path) -> dict[str, Any]:
    """Read the settings of a model from preprocessor_config.json; if it is missing, warn and use ImageNet's.

    It is read as plain JSON, because the processors of transformers need torchvision. The whole image is scaled to
    ``size``, and the encoder sees the central ``crop_size``; ConvNeXt's ``crop_pct`` is the ratio of the two. The
    aspect ratio is ignored, as everywhere in this package.
    """
    if not path.is_file():
        warnings.warn(
            f"{path} is missing: images are scaled to {_SIDE} x {_SIDE} and normalised by ImageNet's mean and"
            " deviation; if the model was trained with other settings, download this file too",
            stacklevel=2,
        )
        return {}
    processor = read_json(path)
    try:
        size = _pixels(processor.get("size"), _SIDE)
        crop, ratio = size, processor.get("crop_pct")
        if ratio and size < 384:  # ConvNeXt's own rule: larger images are not cut
            size = int(size / float(ratio))
        elif processor.get("do_center_crop") and processor.get("crop_size"):
            crop = min(_pixels(processor["crop_size"], _SIDE), size)
        mean, std = processor.get("image_mean") or _IMAGENET[0], processor.get("image_std") or _IMAGENET[1]
        if processor.get("do_normalize") is False:
            mean, std = (0.0,) * 3, (1.0,) * 3
        mean, std = [float(value) for value in mean], [float(value) for value in std]
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0 or min(size, crop) < 1:
            raise ValueError("three channels, deviations above 0 and sizes of at least 1 are needed")
    except (TypeError, ValueError, KeyError, ZeroDivisionError, OverflowError) as error:
        raise InputError(
            f"{path}: image_mean, image_std, size or crop_size cannot be understood ({error}); download the model again"
        ) from error
    return {"image_size": crop, "resize": size, "mean": mean, "std": std}


def _pixels(size: Any, default: int) -> int:
    """Return the side of a square, given as a number or as a dict with height and width or with shortest_edge."""
    if isinstance(size, dict):
        size = size.get("shortest_edge") or min(size["height"], size["width"])
    return default if size is None else int(size)

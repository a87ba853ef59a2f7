"""Save a fitted classifier in a folder: the model and its classes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deepemd.checks import real_number
from deepemd.classifier.adaptation import Setting, Way, adapted
from deepemd.classifier.settings import SAVED
from deepemd.classifier.support import Support
from deepemd.classifier.trust import Trust
from deepemd.errors import InputError
from deepemd.model import DeepEMD
from deepemd.model.folder import CONFIG_FILE, read_config, read_tensors, write_saved

__all__ = ["SavedClassifier", "read_classifier", "write_classifier"]

_PREFIX = "classifier."  # the classifier's tensors in the file of weights have names with this prefix


@dataclass(frozen=True)
class SavedClassifier:
    """The contents of a saved classifier.

    Attributes:
        model: the DeepEMD model.
        support: node sets and examples of the classes.
        classes: (M,) the labels, sorted.
        setting: how images are compared with the classes.
        trust: how the photos were classified when they were left out.
        options: the settings of the classifier, see :data:`deepemd.classifier.settings.SAVED`.
    """

    model: DeepEMD
    support: Support
    classes: NDArray[Any]
    setting: Setting
    trust: Trust
    options: Mapping[str, Any]


def write_classifier(saved: SavedClassifier, folder: Path) -> Path:
    """Write model.safetensors and config.json.

    Raises:
        InputError: the folder cannot be written, or a label is neither text nor a number.
    """
    settings = {
        "classes": _plain(saved.classes.tolist()),
        "kind": saved.classes.dtype.kind,
        **saved.options,
        **{name: _plain(np.asarray([saved.options[name]]).tolist())[0] for name in ("unknown_label", "unsure_label")},
        "way": saved.setting.way,
        "smallest": saved.setting.smallest,
        "reason": saved.trust.reason,
        "examples": saved.support.config(),
    }
    tensors = {f"{_PREFIX}{name}": tensor for name, tensor in saved.support.tensors().items()}
    tensors |= {f"{_PREFIX}left_out": saved.trust.which, f"{_PREFIX}similarity": saved.trust.similarity}
    return write_saved(folder, {**saved.model.config, "classifier": settings}, {**saved.model.state_dict(), **tensors})


def read_classifier(path: Path, *, backbone: nn.Module | None = None) -> SavedClassifier:
    """Read a folder that :func:`write_classifier` wrote; nothing in it is executed.

    Args:
        path: the folder.
        backbone: your own encoder, if the classifier was saved with one; built as it was then.

    Raises:
        InputError: a file is missing, damaged or truncated, or the folder holds a model without classes.
    """
    config = read_config(path)
    if "classifier" not in config:
        raise InputError(
            f"{path} holds a model without classes: pass it as backbone= and fit it, or pass a saved classifier"
        )
    model = DeepEMD.load(path, backbone=backbone)
    tensors = {
        name.removeprefix(_PREFIX): tensor for name, tensor in read_tensors(path).items() if name.startswith(_PREFIX)
    }
    try:
        return _restored(config["classifier"], tensors, model)
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
        raise InputError(f"{path / CONFIG_FILE}: the classifier is incomplete ({error}); save it again") from error


def _restored(settings: dict[str, Any], tensors: dict[str, Tensor], model: DeepEMD) -> SavedClassifier:
    """Restore a classifier from its part of config.json and its tensors.

    Raises:
        InputError: a value is of another type or out of range, or the parts do not match.
    """
    names = settings["classes"]
    if not isinstance(names, list) or len({*_plain(names)}) < len(names):
        raise InputError(f"classes is {names!r:.80}: it must be a list of different names")
    classes = np.asarray(names, dtype=object if settings["kind"] == "O" else None)
    if classes.ndim != 1 or classes.dtype.kind != {"u": "i"}.get(settings["kind"], settings["kind"]):
        raise InputError(f"classes are of kind {classes.dtype.kind!r}, not {settings['kind']!r:.80}")
    if classes.shape != tensors["count"].shape:
        raise InputError(f"{classes.size} classes in the settings, {len(tensors['count'])} in the tensors")
    support = Support.restored(tensors, settings["examples"])
    n, channels = support.total.shape[1:]
    if channels != model.backbone.channels or n != (model.regions.nodes or n):
        raise InputError(f"its classes have {n} nodes of {channels} channels, which are not those of the model")
    order = np.argsort(classes, kind="stable")  # classifiers of older versions are not sorted
    support, classes = support.sorted(order), classes[order]
    options = {name: settings[name] for name in SAVED if name in settings}
    for name in ("unknown_label", "unsure_label"):
        _plain([options.get(name, name)])
    if "way" not in settings:  # an older version, which compared nodes as they are, and saved the temperature alone
        real_number("temperature", settings["temperature"], 0, 1e9, above=True)
        options["adapt"] = "none"
        found = adapted(model, support, "none")
        trust = Trust(found.which, found.similarity, support.labels[found.which], "none", found.reason)
        return SavedClassifier(model, support, classes, found.setting, trust, options)
    return SavedClassifier(model, support, classes, _setting(settings), _trust(settings, tensors, support), options)


def _setting(settings: dict[str, Any]) -> Setting:
    way, smallest = settings["way"], settings["smallest"]
    if way not in get_args(Way) or not isinstance(smallest, bool):
        raise InputError(f"way is {way!r:.80} and smallest is {smallest!r:.80}: they name no way of comparison")
    return Setting(way, smallest)


def _trust(settings: dict[str, Any], tensors: dict[str, Tensor], support: Support) -> Trust:
    """Restore how the photos were classified when they were left out."""
    which, similarity = tensors["left_out"], tensors["similarity"]
    if which.dtype != torch.int64 or similarity.dtype != torch.float64 or not similarity.isfinite().all():
        raise InputError("left_out and similarity are of other types, or not finite")
    if similarity.shape != (len(which), len(support.count)) or which.ne(which.clamp(0, len(support.labels) - 1)).any():
        raise InputError(f"similarity of {tuple(similarity.shape)} does not fit {len(support.count)} classes")
    return Trust(which, similarity, support.labels[which], settings["way"], str(settings["reason"])[:2000])


def _plain(labels: list[Any]) -> list[Any]:
    """Return labels, which JSON must be able to store.

    Raises:
        InputError: a label is neither text nor a finite number.
    """
    for label in labels:
        if not isinstance(label, str | int | float | bool) or (isinstance(label, float) and not math.isfinite(label)):
            raise InputError(f"the label {label!r:.80} is a {type(label).__name__}: only text and numbers can be saved")
    return labels

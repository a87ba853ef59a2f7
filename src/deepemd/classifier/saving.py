"""Save a fitted classifier in a folder: the model and its classes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from deepemd.classifier.support import Support
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
        classes: (M,) the labels.
        temperature: T of the probabilities.
        unknown: the share of photos of known classes that may be called unknown, or None.
        unknown_label: the label of unknown images.
    """

    model: DeepEMD
    support: Support
    classes: NDArray[Any]
    temperature: float
    unknown: float | None
    unknown_label: Any


def write_classifier(saved: SavedClassifier, folder: Path) -> Path:
    """Write model.safetensors and config.json.

    Raises:
        InputError: the folder cannot be written, or a label is neither text nor a number.
    """
    settings = {
        "classes": _plain(saved.classes),
        "kind": saved.classes.dtype.kind,
        "temperature": saved.temperature,
        "unknown": saved.unknown,
        "unknown_label": _plain(np.asarray([saved.unknown_label]))[0],
        "examples": saved.support.config(),
    }
    tensors = {f"{_PREFIX}{name}": tensor for name, tensor in saved.support.tensors().items()}
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
    tensors = {
        name.removeprefix(_PREFIX): tensor for name, tensor in read_tensors(path).items() if name.startswith(_PREFIX)
    }
    settings = config["classifier"]
    model = DeepEMD.load(path, backbone=backbone)
    try:
        classes = np.asarray(settings["classes"], dtype=object if settings["kind"] == "O" else None)
        if classes.shape != tensors["count"].shape:
            raise InputError(f"{classes.size} classes in the settings, {len(tensors['count'])} in the tensors")
        support = Support.restored(tensors, settings["examples"])
        temperature, unknown = float(settings["temperature"]), settings["unknown"]
        return SavedClassifier(model, support, classes, temperature, unknown, settings["unknown_label"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{path / CONFIG_FILE}: the classifier is incomplete ({error}); save it again") from error


def _plain(labels: NDArray[Any]) -> list[Any]:
    """Return labels as JSON stores them."""
    plain: list[Any] = labels.tolist()
    for label in plain:
        if not isinstance(label, str | int | float | bool):
            raise InputError(f"the label {label!r} is a {type(label).__name__}: only text and numbers can be saved")
    return plain

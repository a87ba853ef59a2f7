"""A fitted classifier as a folder: a saved model with the classes beside its weights."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from deepemd.apps.support import Support
from deepemd.errors import InputError
from deepemd.model import DeepEMD
from deepemd.saved import CONFIG_FILE, read_config, read_tensors, write_saved

if TYPE_CHECKING:
    from deepemd.apps.classifier import FewShotClassifier

__all__ = ["read_classifier", "write_classifier"]

_PREFIX = "classifier."  # of its tensors in a saved model's file
Kind = TypeVar("Kind", bound="FewShotClassifier")


def write_classifier(classifier: "FewShotClassifier", folder: Path) -> Path:
    """What :meth:`deepemd.FewShotClassifier.save` writes."""
    kept = {
        "classes": _plain(classifier.classes_),
        "kind": classifier.classes_.dtype.kind,
        "temperature": classifier.temperature_,
        "unknown": classifier.unknown,
        "unknown_label": _plain(np.asarray([classifier.unknown_label]))[0],
        "examples": classifier.support_.config(),
    }
    model = classifier.model_
    tensors = {f"{_PREFIX}{name}": tensor for name, tensor in classifier.support_.tensors().items()}
    return write_saved(folder, {**model.config, "classifier": kept}, {**model.state_dict(), **tensors})


def read_classifier(
    kind: type[Kind], path: Path, *, cache: bool | str | os.PathLike[str], backbone: nn.Module | None
) -> Kind:
    """What :meth:`deepemd.FewShotClassifier.load` reads."""
    config = read_config(path)
    if "classifier" not in config:
        raise InputError(f"{path}: a model without classes: pass it as backbone= and fit it, or a saved classifier")
    tensors = {
        name.removeprefix(_PREFIX): tensor for name, tensor in read_tensors(path).items() if name.startswith(_PREFIX)
    }
    kept = config["classifier"]
    try:
        made = kind(path, unknown=kept["unknown"], unknown_label=kept["unknown_label"], cache=cache)
        made.model_ = DeepEMD.load(path, backbone=backbone)
        made.classes_ = np.asarray(kept["classes"], dtype=object if kept["kind"] == "O" else None)
        if made.classes_.shape != tensors["count"].shape:
            raise InputError(f"{made.classes_.size} classes in the settings, {len(tensors['count'])} in the tensors")
        made.support_ = Support.restored(tensors, kept["examples"])
        made.calibrate()
        made.temperature_ = float(kept["temperature"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{path / CONFIG_FILE}: not a whole classifier ({error}); save it again") from error
    return made


def _plain(labels: NDArray[Any]) -> list[Any]:
    """Labels as JSON holds them."""
    plain: list[Any] = labels.tolist()
    for label in plain:
        if not isinstance(label, str | int | float | bool):
            raise InputError(f"the label {label!r} is a {type(label).__name__}: text and numbers can be saved")
    return plain

"""Build the model that a config.json describes, and load its weights."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from deepemd.errors import InputError
from deepemd.model.folder import CONFIG_FILE
from deepemd.nodes import Backbone, as_backbone, backbone, regions_from

__all__ = ["build_model", "load_weights"]

M = TypeVar("M", bound=nn.Module)
_SETTINGS = ("image_size", "resize", "max_side", "mean", "std", "temperature", "weights", "floor", "context", "power")
_LATER_SETTINGS = {"max_side": 256, "floor": 1e-3, "context": 0.0, "power": None}  # settings that older models lack


def build_model(
    model_class: Callable[..., M],
    config: Mapping[str, Any],
    path: Path,
    *,
    encoder: Backbone | nn.Module | None = None,
) -> M:
    """Build the model that a config.json describes, with random weights.

    Args:
        model_class: :class:`deepemd.DeepEMD` or a subclass.
        config: the content of config.json.
        path: the file, for messages.
        encoder: a module to use instead of the encoder that the config names.

    Raises:
        InputError: the config describes no model.
    """
    config = {**_LATER_SETTINGS, **config}
    try:
        encoder = backbone(**config["backbone"]) if encoder is None else as_backbone(encoder, config["image_size"])
        return model_class(encoder, regions_from(config["regions"]), **{key: config[key] for key in _SETTINGS})
    except InputError as error:
        raise InputError(f"{path}: not the settings of a model that can be built: {error}") from error
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError, OverflowError, MemoryError) as error:
        raise InputError(f"{path}: not the settings of a model ({error!r:.200}); save it again") from error


def load_weights(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Copy weights into a model that has the same names and shapes.

    Args:
        model: the model to fill.
        state: the weights, by name.
        path: the file of the weights, for messages.

    Raises:
        InputError: the weights belong to another architecture; the first difference is named.
    """
    expected = model.state_dict()
    for name in [*expected, *state]:
        found = tuple(state[name].shape) if name in state else "absent"
        wanted = tuple(expected[name].shape) if name in expected else "absent"
        if found != wanted:
            raise InputError(
                f"{path}: weights of another architecture: {name} is {found} in the file and {wanted} in the model that"
                f" {CONFIG_FILE} describes; both files must come from the same model{_version_hint(model)}"
            )
    model.load_state_dict(state)


def _version_hint(model: nn.Module) -> str:
    version = model.backbone.config.get("version")  # type: ignore[union-attr, operator]
    return f", which was saved under transformers {version}: install that version" if version else ""

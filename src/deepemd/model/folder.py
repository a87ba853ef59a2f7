"""The folder of a saved model, always with two files: model.safetensors and config.json."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from deepemd import json_files
from deepemd.errors import InputError
from deepemd.files import atomic_file, atomic_write, file_sha256
from deepemd.json_files import json_text

__all__ = [
    "CONFIG_FILE",
    "WEIGHTS_FILE",
    "read_config",
    "read_json",
    "read_tensors",
    "refuse_other_settings",
    "round_to_half",
    "verify_weights",
    "write_saved",
]

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
FORMAT = 1  # of config.json
CHECK = "weights_sha256"  # of config.json: the sha256 of model.safetensors; older folders have none
_REMEDY = "copy or save the model again"
_MOVE = "choose another folder, or move the file away"


def write_saved(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    """Write both files into a folder, which is created if needed.

    Both are written under temporary names, flushed to disk and renamed. Anyone who loads the folder meanwhile, or after
    a crash, finds the old model or the new one, never the weights of one with the settings of the other.

    Raises:
        InputError: the folder holds a file of one of these names that is not a saved model's, or a classifier, and the
            new model is none; a setting is NaN or infinite; or the folder cannot be written (no space, no permission).
    """
    from safetensors.torch import save

    path, remedy = folder / CONFIG_FILE, "free some space or choose another folder"
    before = _refuse_other(folder)
    if before is not None and "classifier" in before and "classifier" not in config:
        raise InputError(f"{path}: of a classifier, whose classes would be lost: choose another folder, or remove it")
    state, seen = dict[str, Tensor](), set[int]()
    for name, tensor in tensors.items():
        whole = tensor.detach().cpu().contiguous()
        state[name] = (
            whole.clone() if whole.untyped_storage().data_ptr() in seen else whole
        )  # an encoder may share tensors
        seen.add(whole.untyped_storage().data_ptr())
    content = save(state, metadata={"format": "pt"})
    described = {"format": FORMAT, **config, CHECK: hashlib.sha256(content).hexdigest()}
    text = _text(described, path)
    with (
        atomic_file(path, len(content), remedy) as settings,
        atomic_file(folder / WEIGHTS_FILE, len(content), remedy) as weights,
    ):
        settings.write(text)
        weights.write(content)
        settings.flush()
        weights.flush()  # now both are known to fit on the disk
        # The settings come first: of weights alone, nobody knows whose they are. The check sum tells the old weights
        # from the new, so a process that is killed between the renames that follow leaves a model or an error. With the
        # same settings both weights are right: a run's best model is always there.
        same = before is not None and _text({**before, CHECK: None}, path) == _text({**described, CHECK: None}, path)
        old = before.get(CHECK) if before is not None else None
        both = {**described, CHECK: [old, described[CHECK]] if isinstance(old, str) else None}
        atomic_write(path, _text(both, path) if same else text, remedy)
    return folder


def _text(config: Mapping[str, Any], path: Path) -> bytes:
    return (json_text(config, path, ascii_only=False) + "\n").encode()


def _refuse_other(folder: Path) -> dict[str, Any] | None:
    """Return the settings of the model in a folder, if there is one; refuse files of other programs.

    Raises:
        InputError: config.json or model.safetensors is not of a saved model.
    """
    config, weights = refuse_other_settings(folder), folder / WEIGHTS_FILE
    if config is None and weights.exists():
        raise InputError(f"{weights}: without the {CONFIG_FILE} of a model, and would be replaced: {_MOVE}")
    return config


def refuse_other_settings(folder: Path) -> dict[str, Any] | None:
    """Return the settings of the model in a folder; None if the folder holds no config.json.

    Raises:
        InputError: config.json is not of a saved model.
    """
    path = folder / CONFIG_FILE
    if not path.exists():
        return None
    config = json_files.read_json(path, remedy=_MOVE)
    if "format" not in config or "backbone" not in config:
        raise InputError(f"{path}: of another program or library, and would be replaced: {_MOVE}")
    return config


def round_to_half(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Round matrices and filters to float16; vectors, such as the statistics of a batch norm, stay as they are.

    Raises:
        InputError: a value is too large for float16.
    """
    rounded = {name: x.half() if x.is_floating_point() and x.ndim > 1 else x for name, x in tensors.items()}
    for name, x in rounded.items():
        if not x.isfinite().all():
            raise InputError(f"half: {name} holds values too large for float16; save the model without half")
    return rounded


def read_config(folder: Path) -> dict[str, Any]:
    """Read the settings of a saved model.

    Raises:
        InputError: config.json is missing, damaged, or of another format.
    """
    path = folder / CONFIG_FILE
    config = read_json(path)
    if "model_type" in config and "format" not in config:
        raise InputError(
            f"{folder}: a model of transformers, not of deepemd: deepemd.model.pretrained.pretrained() loads it"
        )
    if config.get("format") != FORMAT:
        raise InputError(
            f"{path}: format {config.get('format')!r}, this version reads format {FORMAT}; save the model again"
        )
    return config


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a model's folder, without checking its format.

    Raises:
        InputError: the file is missing or damaged.
    """
    return json_files.read_json(
        path,
        missing=f"{path.parent}: no model here",
        remedy=f"pass a folder that holds {WEIGHTS_FILE} and {CONFIG_FILE}, or {_REMEDY}",
    )


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Read all tensors of a saved model, including those that a classifier adds; see also :func:`verify_weights`.

    Raises:
        InputError: model.safetensors is missing, damaged or truncated.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / WEIGHTS_FILE
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: not a file; {_REMEDY}")
    try:
        return load_file(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error}); a model needs both its files") from error
    except (SafetensorError, ValueError, TypeError, KeyError, RuntimeError, AttributeError, AssertionError) as error:
        raise InputError(f"{path}: damaged or truncated ({error}); {_REMEDY}") from error


def verify_weights(folder: Path, config: Mapping[str, Any]) -> None:
    """Compare model.safetensors with the check sum in config.json, if it has one, as models of this version do.

    Args:
        folder: the folder.
        config: the content of config.json.

    Raises:
        InputError: the weights are not those that the config was saved with.
    """
    known, path = config.get(CHECK), folder / WEIGHTS_FILE
    if known is None:
        return
    found = file_sha256(path)
    if found not in (known if isinstance(known, list) else [known]):
        raise InputError(
            f"{path}: damaged, or not the file that {CONFIG_FILE} was saved with (its sha256 begins with"
            f" {found[:12]}); {_REMEDY}. If you changed the weights on purpose, remove {CHECK!r} from {CONFIG_FILE}"
        )

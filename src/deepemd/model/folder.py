"""The folder of a saved model, always with two files: model.safetensors and config.json."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from deepemd.errors import InputError
from deepemd.files import atomic_file

__all__ = ["CONFIG_FILE", "WEIGHTS_FILE", "read_config", "read_json", "read_tensors", "round_to_half", "write_saved"]

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
FORMAT = 1  # of config.json


def write_saved(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    """Write both files into a folder, which is created if needed.

    Both are written under temporary names, flushed to disk and renamed. Anyone who loads the folder meanwhile, or after
    a crash, finds the old model or the new one, never the weights of one with the settings of the other.

    Raises:
        InputError: the folder cannot be written (no space, no permission).
    """
    from safetensors.torch import save

    state, seen = dict[str, Tensor](), set[int]()
    for name, tensor in tensors.items():
        whole = tensor.detach().cpu().contiguous()
        state[name] = (
            whole.clone() if whole.untyped_storage().data_ptr() in seen else whole
        )  # an encoder may share tensors
        seen.add(whole.untyped_storage().data_ptr())
    text = json.dumps({"format": FORMAT, **config}, indent=2, ensure_ascii=False) + "\n"
    content, path = save(state, metadata={"format": "pt"}), folder / CONFIG_FILE
    remedy = "free some space or choose another folder"
    with (
        atomic_file(path, len(content), remedy) as settings,
        atomic_file(folder / WEIGHTS_FILE, len(content), remedy) as weights,
    ):
        settings.write(text.encode())
        weights.write(content)
        settings.flush()
        weights.flush()  # now both are known to fit on the disk
        if not path.is_file() or path.read_bytes() != text.encode():
            # A process killed between the two renames that follow would leave the old settings with the new weights.
            path.unlink(missing_ok=True)
    return folder


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
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{path.parent}: no model here, {path.name} cannot be read ({error.strerror}); pass a folder that holds"
            f" {WEIGHTS_FILE} and {CONFIG_FILE}"
        ) from error
    except ValueError as error:
        raise InputError(f"{path}: damaged, not JSON ({error}); copy or save the model again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: damaged, it holds a {type(content).__name__}; copy or save the model again")
    return content


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Read all tensors of a saved model, including those that a classifier adds.

    Raises:
        InputError: model.safetensors is missing, damaged or truncated.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / WEIGHTS_FILE
    try:
        return load_file(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error}); a model needs both its files") from error
    except SafetensorError as error:
        raise InputError(f"{path}: damaged or truncated ({error}); copy or save the model again") from error

"""Convert the authors' checkpoints, and others of the same ResNet-12, to saved models."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deepemd.errors import InputError
from deepemd.model import DeepEMD
from deepemd.nodes import Regions, resnet12

__all__ = ["Conversion", "convert", "read_checkpoint"]

# The keys under which checkpoints hold their weights, and the prefixes of the weights' names.
KEYS = ("params", "state_dict", "model")
PREFIXES = ("", "encoder.", "module.encoder.", "module.")
COUNTER = "num_batches_tracked"  # of a batch norm; unused, and absent from old checkpoints


class Conversion(NamedTuple):
    """A converted model, and its differences from the checkpoint."""

    model: DeepEMD
    left_out: list[str]  # entries of the checkpoint that are not used, such as a classifier of the base classes
    absent: list[str]  # counters that the checkpoint lacks; they are set to 0


def convert(checkpoint: str | Path, regions: Regions | None = None) -> Conversion:
    """Convert the ResNet-12 in a checkpoint to a model.

    The weights are expected under the key "params", "state_dict" or "model", or as the whole file, and with the names
    that the authors use, after "encoder.", "module.encoder.", "module." or no prefix. The model's other settings are
    the paper's.

    Args:
        checkpoint: a file of ``torch.save``, of either format, or of safetensors.
        regions: how an image becomes nodes, because a checkpoint does not record it; by default FCN.

    Raises:
        InputError: as for :func:`read_checkpoint`; or a weight is missing, of another shape, or not finite; or the
            regions do not fit the network.
    """
    path = Path(checkpoint)
    entries = read_checkpoint(path)
    encoder = resnet12()
    expected = encoder.state_dict()
    prefix = max(PREFIXES, key=lambda p: sum(p + name in entries for name in expected))
    found = {name: entries[prefix + name] for name in expected if prefix + name in entries}
    if not found:
        raise InputError(
            f"{path}: no weights of a ResNet-12: it holds {_examples(entries)}, but the authors' names are expected,"
            f" such as {next(iter(expected))!r}; rename the weights, or convert another file"
        )
    left_out = [name for name in entries if not (name.startswith(prefix) and name.removeprefix(prefix) in found)]
    unknown = [name for name in left_out if name.startswith(f"{prefix}layer")]
    if unknown:
        raise InputError(
            f"{path}: not the paper's ResNet-12, which has no {unknown[0]}; only that network can be converted"
        )
    absent = [name for name in expected if name not in found]
    for name, tensor in expected.items():
        if name in absent and not name.endswith(COUNTER):
            raise InputError(
                f"{path}: {prefix}{name} is missing, {len(absent)} of {len(expected)} entries in all; check that"
                " the file is complete and holds the paper's ResNet-12"
            )
        if name in found:
            _check(path, prefix + name, found[name], tensor)
            found[name] = found[name].to(tensor.dtype)
    encoder.load_state_dict({**expected, **found})
    model = DeepEMD(encoder, regions).eval()
    with torch.no_grad():
        model.embed(torch.zeros(1, 3, model.image_size, model.image_size))  # raises if the regions do not fit
    return Conversion(model, left_out, absent)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read the weights and other entries of a checkpoint, by name; nothing in the file is executed.

    Raises:
        InputError: the file cannot be read, is damaged, or holds more than tensors and plain values, so that reading it
            could execute code.
    """
    path = Path(path)
    content: object = _safetensors(path) if path.suffix == ".safetensors" else _pickle(path)
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a dictionary of weights; convert another file")
    entries = {str(name): value for name, value in content.items()}
    key = next((key for key in KEYS if isinstance(entries.get(key), Mapping)), None)
    return entries if key is None else {**entries.pop(key), **entries}


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error}); pass the file of a checkpoint") from error
    except SafetensorError as error:
        raise InputError(f"{path}: damaged or truncated ({error}); copy or download it again") from error


def _pickle(path: Path) -> object:
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); pass the file of a checkpoint") from error
    with file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings about old formats; unreadable ones raise an error
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged pickle can raise anything
            message = str(error).lower()
            if any(words in message for words in ("unsupported global", "unsupported class", "legacy .tar")):
                raise InputError(
                    f"{path}: refused, because it holds more than tensors and plain values, and reading it could"
                    " execute code; if you trust it, load it with torch.load(weights_only=False), save only its weights"
                    " with torch.save, and convert those"
                ) from error
            raise InputError(
                f"{path}: damaged, truncated or not a checkpoint of torch.save or safetensors"
                f" ({type(error).__name__}); copy or download it again"
            ) from error


def _check(path: Path, name: str, found: object, expected: Tensor) -> None:
    if not isinstance(found, Tensor):
        raise InputError(
            f"{path}: {name} is a {type(found).__name__} and not a tensor; check that the file is complete"
        )
    if found.shape != expected.shape:
        raise InputError(
            f"{path}: {name} is {tuple(found.shape)}, but {tuple(expected.shape)} in the paper's ResNet-12; only that"
            " network can be converted"
        )
    if found.is_complex() or not torch.isfinite(found).all():
        raise InputError(
            f"{path}: {name} holds NaN or an infinite value, as after a training that diverged; convert an earlier"
            " checkpoint"
        )


def _examples(entries: Mapping[str, Any]) -> str:
    names = ", ".join(repr(name) for name in list(entries)[:3])
    return f"{names}{', ...' if len(entries) > 3 else ''}" if entries else "nothing"

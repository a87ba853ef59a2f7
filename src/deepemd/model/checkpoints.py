"""The authors' checkpoints, and others of the same ResNet-12, become a saved model."""

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

# Where a checkpoint keeps its weights, and what their names begin with.
KEYS = ("params", "state_dict", "model")
PREFIXES = ("", "encoder.", "module.encoder.", "module.")
COUNTER = "num_batches_tracked"  # of a batch norm; nothing reads it, and old checkpoints lack it


class Conversion(NamedTuple):
    """A converted model, and what of the checkpoint is not in it."""

    model: DeepEMD
    left_out: list[str]  # names, such as those of a classifier of the base classes
    absent: list[str]  # counters that the checkpoint lacks; they are 0 now


def convert(checkpoint: str | Path, regions: Regions | None = None) -> Conversion:
    """Make a model of the ResNet-12 in a checkpoint.

    The weights lie under the key "params", "state_dict" or "model", or are the whole file; their names are those that
    the authors use, with "encoder.", "module.encoder.", "module." or nothing before them. The model's other settings
    are the paper's.

    Args:
        checkpoint: a file of ``torch.save``, of either format, or of safetensors.
        regions: how the model cuts images into nodes; the checkpoint does not know.

    Raises:
        InputError: see :func:`read_checkpoint`; a weight that is missing, of another shape, or not finite; regions that
            do not fit the network.
    """
    path = Path(checkpoint)
    entries = read_checkpoint(path)
    encoder = resnet12()
    expected = encoder.state_dict()
    prefix = max(PREFIXES, key=lambda p: sum(p + name in entries for name in expected))
    found = {name: entries[prefix + name] for name in expected if prefix + name in entries}
    if not found:
        raise InputError(
            f"{path}: no weights of a ResNet-12: it holds {_some(entries)}; names such as {next(iter(expected))!r} are"
            " wanted, the authors'; rename the weights, or convert another file"
        )
    left_out = [name for name in entries if not (name.startswith(prefix) and name.removeprefix(prefix) in found)]
    strange = [name for name in left_out if name.startswith(f"{prefix}layer")]
    if strange:
        raise InputError(
            f"{path}: not the paper's ResNet-12, which has no {strange[0]}; only that network is converted"
        )
    absent = [name for name in expected if name not in found]
    for name, tensor in expected.items():
        if name in absent and not name.endswith(COUNTER):
            raise InputError(
                f"{path}: {prefix}{name} is missing, {len(absent)} of {len(expected)} entries in all; is the file"
                " whole, and of the paper's ResNet-12?"
            )
        if name in found:
            _check(path, prefix + name, found[name], tensor)
            found[name] = found[name].to(tensor.dtype)
    encoder.load_state_dict({**expected, **found})
    model = DeepEMD(encoder, regions).eval()
    with torch.no_grad():
        model.embed(torch.zeros(1, 3, model.image_size, model.image_size))  # refuses regions that do not fit
    return Conversion(model, left_out, absent)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The weights of a file by their names, and whatever lies beside them; nothing in the file is executed.

    Raises:
        InputError: the file cannot be read, is damaged, or holds more than tensors and plain values, so that reading it
            could execute code.
    """
    path = Path(path)
    content: object = _safetensors(path) if path.suffix == ".safetensors" else _pickle(path)
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds a {type(content).__name__}; a dictionary of weights by their names is wanted")
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
        warnings.simplefilter("ignore")  # of formats that PyTorch does not write; those that it cannot read are refused
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged pickle can raise anything
            told = str(error).lower()
            if any(words in told for words in ("unsupported global", "unsupported class", "legacy .tar")):
                raise InputError(
                    f"{path}: refused, because it holds more than tensors and plain values, and reading it could"
                    " execute code; whoever trusts it loads it with torch.load(weights_only=False), saves its weights"
                    " alone with torch.save, and converts those"
                ) from error
            raise InputError(
                f"{path}: damaged, truncated or not a checkpoint of torch.save or safetensors"
                f" ({type(error).__name__}); copy or download it again"
            ) from error


def _check(path: Path, name: str, found: object, expected: Tensor) -> None:
    if not isinstance(found, Tensor):
        raise InputError(f"{path}: {name} is a {type(found).__name__} and not a tensor; is the file whole?")
    if found.shape != expected.shape:
        raise InputError(
            f"{path}: {name} is {tuple(found.shape)}, but {tuple(expected.shape)} in the paper's ResNet-12; only that"
            " network is converted"
        )
    if found.is_complex() or not torch.isfinite(found).all():
        raise InputError(f"{path}: {name} holds NaN or an infinite value; the training that wrote it diverged")


def _some(entries: Mapping[str, Any]) -> str:
    names = ", ".join(repr(name) for name in list(entries)[:3])
    return f"{names}{', ...' if len(entries) > 3 else ''}" if entries else "nothing"

"""The checkpoint files of a run: never left half-written, checked when read, with the previous one as a backup."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from deepemd.files import atomic_file

__all__ = ["STATE", "Checkpoint", "CheckpointFiles", "previous", "read"]

STATE = "deepemd"  # key of our callback's state in a checkpoint
_PARTS = {"global_step": int, "state_dict": dict, "callbacks": dict, "optimizer_states": list, "loops": dict}


class Checkpoint(NamedTuple):
    """An undamaged checkpoint and its file."""

    path: Path
    content: dict[str, Any]


class CheckpointFiles(TorchCheckpointIO):
    """Writes Lightning's checkpoints in one step; the older file becomes :func:`previous`.

    Lightning itself first writes to the folder for temporary files, perhaps on another disk, and leaves the file there
    if it is killed.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: ARG002
        """Write a checkpoint to `path`."""
        file = io.BytesIO()
        torch.save(checkpoint, file)
        with atomic_file(Path(path), file.tell(), "free space and --resume", previous=previous(Path(path))) as whole:
            whole.write(file.getbuffer())


def previous(path: Path) -> Path:
    """Return the path of the checkpoint before `path`: previous.ckpt in the same folder."""
    return path.with_name("previous.ckpt")


def read(path: Path) -> Checkpoint:
    """Read a checkpoint and verify its check sums, which torch writes but does not verify.

    Raises:
        ValueError: the file is damaged or truncated, or holds something else.
    """
    if path.exists() and not path.is_file():
        raise ValueError("not a file")
    try:
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("it is compressed, which a checkpoint is not")
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"the check sum of {damaged} is wrong")
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        _check(content)
    except Exception as error:  # torch raises many types for a truncated archive
        raise ValueError(str(error)) from error
    return Checkpoint(path, content)


def _check(content: Any) -> None:
    """Raise ValueError or KeyError unless a checkpoint has the parts that a resumed run reads, of their types."""
    if not isinstance(content, Mapping):
        raise ValueError(f"it holds a {type(content).__name__}")
    for name, kind in _PARTS.items():
        if not isinstance(content[name], kind):
            raise ValueError(f"{name} is a {type(content[name]).__name__}")
    if content["global_step"] < 0:
        raise ValueError(f"global_step is {content['global_step']}")
    for name, tensor in content["state_dict"].items():
        if not isinstance(tensor, torch.Tensor) or not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} is no tensor of finite numbers")
    state = content["callbacks"][STATE]
    best, rows, seconds = state["best"], state["rows"], state["seconds"]
    numbers = [best["accuracy"], best["ci95"], best["step"], seconds] if best else [seconds]
    if not isinstance(rows, list) or not all(isinstance(number, int | float) for number in numbers):
        raise ValueError("the state of the run is incomplete")

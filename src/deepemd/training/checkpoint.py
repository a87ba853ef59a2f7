"""The checkpoints of a run: written whole, checked when they are read, the one before the last kept."""

import io
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from deepemd.files import atomic_file

__all__ = ["Checkpoint", "CheckpointFiles", "previous", "read"]


class Checkpoint(NamedTuple):
    """A checkpoint that is whole, and its file."""

    path: Path
    content: dict[str, Any]


class CheckpointFiles(TorchCheckpointIO):
    """How Lightning's trainer writes: in one step, the older file staying as :func:`previous`.

    Lightning's own way begins in the folder for temporary files, maybe on another disk; killed, it leaves that there.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: ARG002
        """Write a checkpoint."""
        file = io.BytesIO()
        torch.save(checkpoint, file)
        with atomic_file(Path(path), file.tell(), "free space and --resume", previous=previous(Path(path))) as whole:
            whole.write(file.getbuffer())


def previous(path: Path) -> Path:
    """Where the checkpoint before this one is: previous.ckpt beside last.ckpt."""
    return path.with_name("previous.ckpt")


def read(path: Path) -> Checkpoint:
    """Read a checkpoint, comparing its check sums, which torch writes and does not look at.

    Raises:
        ValueError: it is damaged or truncated.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"the check sum of {damaged} is wrong")
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        _ = content["global_step"], content["callbacks"], content["state_dict"]
    except Exception as error:  # torch raises all kinds for a truncated archive
        raise ValueError(str(error)) from error
    return Checkpoint(path, content)

"""The checkpoint files of a run: never left half-written, checked when read, with the previous one as a backup."""

import io
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from deepemd.files import atomic_file

__all__ = ["Checkpoint", "CheckpointFiles", "previous", "read"]


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
        ValueError: the file is damaged or truncated.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"the check sum of {damaged} is wrong")
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        _ = content["global_step"], content["callbacks"], content["state_dict"]
    except Exception as error:  # torch raises many types for a truncated archive
        raise ValueError(str(error)) from error
    return Checkpoint(path, content)

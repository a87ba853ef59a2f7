"""Embeddings kept on the disk, in float16: what is read is whole, and whatever is lost or damaged costs time alone.

root/<model>/<images>/<piece>.npz    an evaluation's: the nodes of some images of a split, in their order
root/<model>/<ab>/<sha256>.npz       the nodes of one photo, by the file's content

A file is written beside its place and renamed, so that it is there whole or not at all; the check sums of the npz
format tell a damaged one. There are no locks: two processes that write the same file write the same.
"""

import hashlib
import json
import logging
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deepemd.files import temporary_sibling
from deepemd.model import DeepEMD

__all__ = ["default_cache", "fingerprint", "load", "prune", "rounded", "store"]

_BYTES = 4_000_000_000  # kept on the disk; what was not used for longest goes first


def default_cache() -> Path:
    """Where embeddings are kept: the environment variable DEEPEMD_CACHE, else ~/.cache/deepemd/embeddings."""
    return Path(os.environ.get("DEEPEMD_CACHE") or Path.home() / ".cache" / "deepemd" / "embeddings")


def fingerprint(model: DeepEMD) -> str:
    """sha256 of all that the nodes depend on: the settings and the weights."""
    seen = {key: value for key, value in model.config.items() if key not in ("temperature", *model.head)}
    digest = hashlib.sha256(json.dumps(seen, sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def rounded(nodes: Tensor) -> Tensor:
    """Nodes as float16 holds them, in float32; as they are where float16 would overflow.

    Every path rounds so, whether it keeps them or not: what is computed from nodes does not depend on the cache.
    """
    half = nodes.half().float()
    return half if bool(half.isfinite().all()) else nodes.float()


def store(path: Path, nodes: Tensor) -> None:
    """Keep nodes that are rounded, on the CPU.

    Raises:
        OSError: they cannot be kept: the disk is full, or not to be written.
    """
    half = nodes.half()
    with temporary_sibling(path) as temporary:
        with temporary.open("wb") as file:
            np.savez(file, nodes=(half if bool((half.float() == nodes).all()) else nodes).numpy())
        temporary.replace(path)


def load(path: Path) -> Tensor | None:
    """Nodes as they were kept, in float32; None where they were not. Damaged ones are told and not taken."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            nodes = torch.from_numpy(archive["nodes"]).float()
    except FileNotFoundError:  # another process has just removed it
        return None
    except Exception as error:  # zip and NumPy raise all kinds for a damaged archive
        logging.getLogger(__name__).warning("%s: damaged (%s); embedding these images again", path, error)
        return None
    with suppress(OSError):
        os.utime(path)  # used now
    return nodes


def prune(root: Path, limit: int = _BYTES) -> None:
    """Remove the embeddings that were not used for longest, until the rest takes at most `limit` bytes."""
    files = []
    for path in root.glob("*/*/*"):
        with suppress(OSError):  # another process was first
            status = path.stat()
            files.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= limit:
            break
        path.unlink(missing_ok=True)
        total -= size

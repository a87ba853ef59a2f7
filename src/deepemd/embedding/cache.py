"""The cache of embeddings on disk, in float16; damaged files are ignored, and a lost file only costs time.

root/<model>/<images>/<piece>.npz    for evaluations: the nodes of some images of a split, in their order
root/<model>/<ab>/<sha256>.npz       the nodes of one photo, named by the file's content

A file is written under a temporary name and renamed; the check sums of the npz format reveal damage. There are no
locks: two processes that write the same file write the same content.
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

__all__ = ["default_cache", "fingerprint", "load", "node_settings", "prune", "rounded", "store"]

_MAX_BYTES = 4_000_000_000  # on the disk; the least recently used files are removed first


def default_cache() -> Path:
    """Return the folder of the cached embeddings: $DEEPEMD_CACHE, else ~/.cache/deepemd/embeddings."""
    return Path(os.environ.get("DEEPEMD_CACHE") or Path.home() / ".cache" / "deepemd" / "embeddings")


def node_settings(model: DeepEMD) -> str:
    """Return the settings of a model that its nodes depend on, as JSON."""
    seen = {key: value for key, value in model.config.items() if key not in ("temperature", *model.head)}
    # the setting's first name, so that older caches and runs still match
    seen["backbone"] = {"fold" if key == "space_to_depth" else key: v for key, v in seen["backbone"].items()}
    return json.dumps(seen, sort_keys=True)


def fingerprint(model: DeepEMD) -> str:
    """Return the sha256 of everything that the nodes depend on: the settings and the weights."""
    digest = hashlib.sha256(node_settings(model).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def rounded(nodes: Tensor) -> Tensor:
    """Round nodes to float16 and return them in float32; return them unchanged where float16 would overflow.

    All nodes are rounded like this, cached or not, so that results do not depend on the cache.
    """
    half = nodes.half().float()
    return half if bool(half.isfinite().all()) else nodes.float()


def store(path: Path, nodes: Tensor) -> None:
    """Write rounded nodes, which are on the CPU, to a file of the cache.

    Raises:
        OSError: the disk is full or read-only.
    """
    half = nodes.half()
    with temporary_sibling(path) as temporary:
        with temporary.open("wb") as file:
            np.savez(file, nodes=(half if bool((half.float() == nodes).all()) else nodes).numpy())
        temporary.replace(path)


def load(path: Path) -> Tensor | None:
    """Read nodes from a file of the cache, in float32; return None if it is missing or damaged, and log damage."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            nodes = torch.from_numpy(archive["nodes"]).float()
    except FileNotFoundError:  # another process has just removed it
        return None
    except Exception as error:  # zip and NumPy raise many types for a damaged archive
        logging.getLogger(__name__).warning("%s: damaged (%s); embedding these images again", path, error)
        return None
    with suppress(OSError):
        os.utime(path)  # mark it as just used
    return nodes


def prune(root: Path, limit: int = _MAX_BYTES) -> None:
    """Remove the least recently used embeddings until the rest takes at most `limit` bytes."""
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

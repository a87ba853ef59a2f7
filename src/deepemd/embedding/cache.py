"""The cache of embeddings on disk, in float16; whatever does not fit is made again, and a lost file only costs time.

<cache>/deepemd-embeddings/CACHEDIR.TAG                  marks the folder as ours; backups can leave it out
<cache>/deepemd-embeddings/<model>/<images>/<piece>.npz  for evaluations: the nodes of some images of a split, in order
<cache>/deepemd-embeddings/<model>/<ab>/<sha256>.npz     the nodes of one photo, named by the file's content

A file is written under a temporary name and renamed. It holds a check sum of its nodes and of its own place, so a file
that was damaged, changed or moved is not believed. There are no locks: two processes that write the same file write the
same content. Only files of these names and places are ever removed, and links are not followed.
"""

import functools
import hashlib
import json
import logging
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deepemd.arrays import read_npz
from deepemd.data.decoding import DECODING
from deepemd.errors import InputError
from deepemd.files import atomic_write, contents, temporary_sibling
from deepemd.model import DeepEMD

__all__ = ["default_cache", "fingerprint", "load", "model_folder", "node_settings", "prune", "rounded", "store"]

_MAX_BYTES = 4_000_000_000  # on the disk; the least recently used files are removed first
_OWN = "deepemd-embeddings"
_TAG = "CACHEDIR.TAG"
_TAG_TEXT = b"""Signature: 8a477f597d28d172789f06886806bc55
# This folder holds embeddings of images that deepemd can compute again; it removes the oldest ones.
# For the tag, see https://bford.info/cachedir/
"""
_PIECE, _PHOTO, _FOLDER = re.compile(r"[0-9]{6,}\.npz"), re.compile(r"[0-9a-f]{64}\.npz"), re.compile("[0-9a-f]{16}")


def default_cache() -> Path | None:
    """Return the folder of the cached embeddings: $DEEPEMD_CACHE, else ~/.cache/deepemd/embeddings.

    For a user without a home folder, as in some containers, warn and return None: nothing is cached.
    """
    if given := os.environ.get("DEEPEMD_CACHE"):
        return Path(given)
    try:
        return Path.home() / ".cache" / "deepemd" / "embeddings"
    except RuntimeError:
        _warn_of_no_home()
        return None


@functools.cache
def _warn_of_no_home() -> None:
    """Warn once, as a command asks several times."""
    logging.getLogger(__name__).warning(
        "there is no home folder, so embeddings are not stored: set DEEPEMD_CACHE to a folder to store them there"
    )


def model_folder(root: Path | None, model: DeepEMD, precision: str = "") -> Path | None:
    """Return the folder of a model's embeddings in a cache, which is created with its tag if needed.

    Its name depends on everything that the nodes of an image depend on: the settings, the weights, and the version of
    the decoding of images.

    Args:
        root: the folder that the user names; only a folder of its own in it is used. None for no cache.
        model: the model.
        precision: the number format of the encoder, if it is not named by the files in the folder.

    Returns:
        The folder; None, with a warning, if the cache cannot be created, or its place is taken by something else.
    """
    if root is None:
        return None
    own, log = root / _OWN, logging.getLogger(__name__)
    try:
        own.mkdir(parents=True, exist_ok=True)
        if not _is_ours(own):
            if own.is_symlink() or (contents(own) and not _is_ours(own)):  # another process may be faster
                log.warning("%s: holds other files than embeddings, and is not used; choose another cache", own)
                return None
            atomic_write(own / _TAG, _TAG_TEXT)
    except OSError as error:
        log.warning("%s: embeddings cannot be stored (%s)", root, error.strerror)
        return None
    except InputError as error:
        log.warning("embeddings cannot be stored: %s", error)
        return None
    return (
        own
        / hashlib.sha256(f"{fingerprint(model)} {DECODING}{precision and f' {precision}'}".encode()).hexdigest()[:16]
    )


def _is_ours(own: Path) -> bool:
    """Return whether a folder is one that :func:`model_folder` has created, and no link to it."""
    try:
        tag = own / _TAG
        # a pipe or a device in its place is not opened: reading it may not end
        return not own.is_symlink() and tag.is_file() and tag.read_bytes() == _TAG_TEXT
    except OSError:
        return False


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
    """Write rounded nodes, which are on the CPU, to a file of the cache; nodes that are not finite are not stored.

    Raises:
        OSError: the disk is full or read-only.
    """
    if not bool(nodes.isfinite().all()):
        return
    half = nodes.half()
    array = (half if bool((half.float() == nodes).all()) else nodes).numpy()
    with temporary_sibling(path) as temporary:
        with temporary.open("wb") as file:
            np.savez(file, nodes=array, check=_check(path, array))
        temporary.replace(path)


def load(path: Path) -> Tensor | None:
    """Read nodes from a file of the cache, in float32; return None if it is missing or damaged, and log damage.

    Damaged is whatever :func:`store` has not written to this very place, such as a file that was moved or filled with
    zeros.
    """
    try:
        found = read_npz(path, ("nodes", "check"))
        nodes = found["nodes"]
        if found["check"].tolist() != _check(path, nodes):
            raise ValueError("not what was stored here")
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        logging.getLogger(__name__).warning("%s: damaged (%s); embedding these images again", path, error)
        return None
    with suppress(OSError):
        os.utime(path)  # mark it as just used
    return torch.from_numpy(nodes).float()


def _check(path: Path, nodes: np.ndarray) -> str:
    """Return the sha256 of nodes, and of the place where they are stored, which says what they are of."""
    about = f"{'/'.join(path.parts[-3:])} {nodes.dtype.str} {nodes.shape} "
    return hashlib.sha256(about.encode() + np.ascontiguousarray(nodes).tobytes()).hexdigest()


def prune(root: Path, limit: int = _MAX_BYTES) -> None:
    """Remove the least recently used embeddings of a cache until the rest takes at most `limit` bytes.

    Args:
        root: as for :func:`model_folder`.
        limit: bytes that may remain.
    """
    if not _is_ours(root / _OWN):
        return
    files = sorted(_stored(root / _OWN))
    total = sum(size for _, size, _ in files)
    for _, size, path in files:
        if total <= limit:
            break
        with suppress(OSError):  # another process was first
            path.unlink()
        total -= size


def _stored(own: Path) -> Iterator[tuple[float, int, Path]]:
    """Yield the time, the size and the path of each file that :func:`store` has written."""
    for model in _entries(own):
        for folder in _entries(Path(model)) if _FOLDER.fullmatch(model.name) else ():
            for file in _entries(Path(folder)):
                of_photo = _PHOTO.fullmatch(file.name) and file.name[:2] == folder.name
                if of_photo or (_PIECE.fullmatch(file.name) and _FOLDER.fullmatch(folder.name)):
                    with suppress(OSError):  # another process was first
                        status = file.stat(follow_symlinks=False)
                        if stat.S_ISREG(status.st_mode):
                            yield status.st_mtime, status.st_size, Path(file)


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    """Return the entries of a folder; none if it is a link or no folder."""
    with suppress(OSError):
        if not folder.is_symlink():
            with os.scandir(folder) as found:
                return list(found)
    return []

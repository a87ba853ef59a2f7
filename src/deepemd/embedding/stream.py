"""Images of any kind become node sets, once: those of a file that has not changed are kept on the disk."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from deepemd.data.decoding import Picture, as_picture, decode
from deepemd.data.images import WORKERS
from deepemd.device import keep_freed_memory
from deepemd.embedding.cache import fingerprint, load, prune, rounded, store
from deepemd.embedding.views import look
from deepemd.errors import InputError
from deepemd.model import DeepEMD
from deepemd.nodes import FCN

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Embedder"]


class Embedded(NamedTuple):
    """One image, encoded; or why it could not be."""

    nodes: Tensor | None  # (N, C) float32, rounded to float16
    key: int  # tells the image from others by its content: which patches Sampling draws
    error: InputError | None = None


@dataclass
class Embedder:
    """Encodes images with a model, a batch at a time, in bounded memory.

    Nodes are rounded to float16 on every path, and a batch is always full (its last image is repeated where images
    are wanting): so an image's nodes depend neither on the cache nor on what it is encoded with.

    Args:
        model: in evaluation mode.
        cache: folder where the nodes of files are kept, by the files' content and the model; None keeps none. Files
            alone are kept: images and arrays in memory never reach the disk.
        batch_size: images encoded together; lower it where memory is short.
    """

    model: DeepEMD
    cache: Path | None = None
    batch_size: int = 8
    _folder: Path | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"batch_size is {self.batch_size}: at least 1 image must be encoded at a time")
        if self.cache is not None:
            self._folder = self.cache / fingerprint(self.model)[:16]
        keep_freed_memory()

    def stream(self, images: "Sequence[Picture]") -> Iterator[Embedded]:
        """Encode images in order; the next batch is read while this one is encoded.

        An image that cannot be read comes with its error; the others are not held up by it.
        """
        step = self.batch_size
        with ThreadPoolExecutor(WORKERS) as pool:
            numbered = iter(enumerate(images))
            ahead = [pool.submit(self._read, k, image) for k, image in islice(numbered, step)]
            while ahead:
                batch = [future.result() for future in ahead]
                ahead = [pool.submit(self._read, k, image) for k, image in islice(numbered, step)]
                yield from self._encode(batch)
        if self.cache is not None:
            prune(self.cache)

    def _read(self, place: int, image: "Picture") -> "_Read":
        """Find an image's nodes in the cache, or decode it."""
        name = str(image) if isinstance(image, str | os.PathLike) else f"image {place}"
        try:
            if isinstance(image, str | os.PathLike):
                content = _content(Path(image), name)
                digest = hashlib.sha256(content).hexdigest()
                path = self._file(digest)
                nodes = None if path is None else load(path)
                if nodes is not None:
                    return _Read(digest, nodes, None, keep=True)
                return _Read(digest, None, self._fitting(decode(content, name), name), keep=True)
            picture = self._fitting(as_picture(image, name), name)
            return _Read(hashlib.sha256(picture.tobytes()).hexdigest(), None, picture)
        except InputError as error:
            return _Read("", None, None, error=error)

    def _fitting(self, picture: "Image", name: str) -> "Image":
        """The picture, unless it is too small for the regions: the others of its batch must not fail with it."""
        if not isinstance(self.model.regions, FCN):
            try:
                self.model.regions.boxes([(picture.height, picture.width)])
            except InputError as error:
                raise InputError(f"{name}: {error}") from error
        return picture

    def _encode(self, batch: "list[_Read]") -> Iterator[Embedded]:
        new = [one for one in batch if one.picture is not None]
        if new:
            full = new + new[-1:] * (self.batch_size - len(new))
            keys = np.array([one.key for one in full])
            seen = look(self.model, [one.picture for one in full if one.picture is not None], indices=keys)
            with torch.inference_mode():
                device = self.model.mean.device
                nodes = rounded(self.model.eval().embed(seen.images.to(device), seen.boxes).cpu())  # (B, N, C)
            for one, its in zip(new, nodes, strict=False):  # those that only fill the batch come last
                one.nodes = its
                path = self._file(one.digest) if one.keep else None
                if path is not None:
                    with suppress(OSError):  # without it the next run only takes longer
                        store(path, its)
        for one in batch:
            yield Embedded(one.nodes, one.key, one.error)

    def _file(self, digest: str) -> Path | None:
        return None if self._folder is None else self._folder / digest[:2] / f"{digest}.npz"


@dataclass
class _Read:
    """An image on its way through a batch."""

    digest: str
    nodes: Tensor | None
    picture: "Image | None"
    keep: bool = False
    error: InputError | None = None

    @property
    def key(self) -> int:
        return int(self.digest[:8] or "0", 16)


def _content(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{name}: there is no such file: check the path") from error
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror}): check the file") from error

"""Embed images of any kind, a batch at a time; the nodes of files are cached on disk."""

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from deepemd.checks import whole_number
from deepemd.data.decoding import Picture, as_picture, decode, read_file, read_image, thumbnail
from deepemd.data.images import WORKERS
from deepemd.device import Precision, choose_precision
from deepemd.embedding.cache import load, model_folder, node_settings, prune, rounded, store
from deepemd.embedding.views import scale_picture, view_pictures
from deepemd.errors import InputError
from deepemd.model import DeepEMD
from deepemd.nodes import WholeImage
from deepemd.threads import single_threads, thread_count

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Embedded", "Embedder"]

Side = Callable[[int], float]
"""Function of k: the longest side, in pixels, of the thumbnail of the k-th image; 0 for none, inf for the picture."""


class Embedded(NamedTuple):
    """One image after embedding, or the reason why it could not be read."""

    nodes: Tensor | None  # (N, C) float32, rounded to float16
    key: int  # identifies the image by its content; Sampling draws its patches from it
    picture: "Image | None" = None  # the decoded image, if requested
    thumbnail: bytes = b""  # a small JPEG of it, if requested
    size: tuple[int, int] = (0, 0)  # (height, width) of the original, if there is a picture or a thumbnail
    error: InputError | None = None


@dataclass
class Embedder:
    """Embeds images with one model, a batch at a time, in bounded memory.

    Nodes are always rounded to float16, so an image's nodes depend neither on the cache nor on the other images of its
    batch. A batch is divided among single threads, which a busy machine slows down far less than threads that wait for
    each other in every layer. One image is encoded as a batch of two, because a batch of one is computed in another
    way, whose last digits differ.

    Args:
        model: the model, in evaluation mode.
        cache: folder of the cached embeddings, by the files' content and the model; None for no cache. Only files are
            cached: images and arrays in memory never reach the disk.
        batch_size: number of images encoded together; lower it if memory is short.
        precision: the number format of the encoder, see :func:`deepemd.device.choose_precision`; by default bfloat16
            where the processor multiplies in it, which is several times as fast, and changes similarities by less than
            0.01.
    """

    model: DeepEMD
    cache: Path | None = None
    batch_size: int = 8
    precision: Precision = "auto"
    _state: object = field(default=None, init=False, repr=False)
    _folder: Path | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.batch_size = whole_number("batch_size", self.batch_size, hint="so many images are encoded at a time")

    def stream(self, images: "Iterable[Picture]", *, side: Side | None = None) -> Iterator[Embedded]:
        """Embed images in order; the next batch is read while this one is encoded.

        For an image that cannot be read, the error is returned, and the others follow.

        Args:
            images: paths, PIL images or arrays.
            side: the sizes of the pictures to return with the images. Each is decoded once, for picture and nodes.
        """
        folder, step, stored = self._model_folder(), self.batch_size, False
        with ThreadPoolExecutor(WORKERS) as pool:
            numbered = iter(enumerate(images))

            def begin() -> "list[Future[_Read]]":
                some = islice(numbered, step)
                return [pool.submit(self._read, k, image, side(k) if side else 0.0, folder) for k, image in some]

            ahead = begin()
            while ahead:
                batch = [future.result() for future in ahead]
                ahead = begin()
                stored |= self._encode(batch, folder)
                for one in batch:
                    yield Embedded(one.nodes, one.key, one.picture, one.thumbnail, one.size, one.error)
        if stored and self.cache is not None:
            prune(self.cache)

    @property
    def _bf16(self) -> bool:
        return choose_precision(self.precision, self.model.mean.device.type) == "bf16-mixed"

    def _model_folder(self) -> Path | None:
        """Return the folder of this model in the cache; hash the weights again only if they have changed."""
        if self.cache is None:
            return None
        state = (node_settings(self.model), _weights_state(self.model))
        if state != self._state:
            precision = "bf16" if self._bf16 else "32"
            self._state, self._folder = state, model_folder(self.cache, self.model, precision)
        return self._folder

    def _read(self, place: int, image: "Picture", side: float, folder: Path | None) -> "_Read":
        """Find an image's nodes in the cache, or decode it to the size at which the model sees it."""
        name = str(image) if isinstance(image, str | os.PathLike) else f"image {place}"
        try:
            if isinstance(image, str | os.PathLike):
                content = read_file(Path(image), name)
                one = _Read(hashlib.sha256(content).hexdigest(), cached=folder is not None)
                one.nodes = None if folder is None else load(_file(folder, one.digest))
                if one.nodes is None:
                    self._prepare(one, decode(content, name), side, name)
                elif side:
                    picture, one.size = read_image(content, name, None if side == math.inf else int(side))
                    one.show(picture, side)
                return one
            picture = as_picture(image, name)
            one = _Read(hashlib.sha256(picture.tobytes()).hexdigest())
            self._prepare(one, picture, side, name)
            return one
        except InputError as error:
            return _Read("", error=error)

    def _prepare(self, one: "_Read", picture: "Image", side: float, name: str) -> None:
        """Store in `one` the decoded picture as the model sees it, and the picture itself if it was requested.

        A picture that is too small for the regions is refused here, so that the rest of its batch does not fail.
        """
        one.size = (picture.height, picture.width)
        if not isinstance(self.model.regions, WholeImage):
            try:
                self.model.regions.boxes([one.size])
            except InputError as error:
                raise InputError(f"{name}: {error}") from error
        one.seen = scale_picture(self.model, picture)
        one.show(picture, side)

    def _encode(self, batch: "list[_Read]", folder: Path | None) -> bool:
        """Encode the images of a batch that are not cached; return whether any were added to the cache."""
        new = [one for one in batch if one.seen is not None]
        if not new:
            return False
        device = self.model.mean.device
        count = thread_count(device)
        size = max(2, math.ceil(len(new) / count))
        pieces = [new[k : k + size] for k in range(0, len(new), size)]
        with single_threads(count) if count > 1 else nullcontext(map) as run:
            nodes = torch.cat(list(run(self._nodes, pieces)))
        stored = False
        for one, its in zip(new, nodes, strict=True):
            one.nodes, one.seen = its, None  # (N, C)
            if folder is not None and one.cached:
                with suppress(OSError):  # without the cache the next run only takes longer
                    store(_file(folder, one.digest), its)
                    stored = True
        return stored

    def _nodes(self, piece: "list[_Read]") -> Tensor:
        """Encode images that are encoded together: (B, N, C), rounded."""
        full = piece * 2 if len(piece) == 1 else piece
        seen = view_pictures(
            self.model,
            [one.seen for one in full if one.seen is not None],
            sizes=[one.size for one in full],
            indices=np.array([one.key for one in full]),
        )
        device = self.model.mean.device
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=self._bf16):
            nodes = self.model.eval().embed(seen.images.to(device), seen.boxes)
        return rounded(nodes.cpu())[: len(piece)]


@dataclass
class _Read:
    """An image on its way through a batch."""

    digest: str
    cached: bool = False  # whether its nodes are cached
    nodes: Tensor | None = None
    seen: "Image | None" = None  # as the model sees it, until it is encoded
    picture: "Image | None" = None
    thumbnail: bytes = b""
    size: tuple[int, int] = (0, 0)
    error: InputError | None = None

    @property
    def key(self) -> int:
        return int(self.digest[:8] or "0", 16)

    def show(self, picture: "Image", side: float) -> None:
        """Store the picture or its thumbnail, as requested."""
        if side == math.inf:
            self.picture = picture
        elif side:
            self.thumbnail = thumbnail(picture, int(side))


def _weights_state(model: DeepEMD) -> list[list[int]]:
    """Return the version of each weight and buffer, and the sum of its bits, which shows changes past torch's versions.

    It takes a third of the time of a hash.
    """
    tensors = list(model.state_dict(keep_vars=True).values())
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    bits = [t.detach().view(integers[t.element_size()]) if t.is_floating_point() else t for t in tensors]
    sums = torch.stack([b.sum(dtype=torch.int64) for b in bits]).tolist()
    return [[0 if t.is_inference() else t._version, total] for t, total in zip(tensors, sums, strict=True)]


def _file(folder: Path, digest: str) -> Path:
    return folder / digest[:2] / f"{digest}.npz"

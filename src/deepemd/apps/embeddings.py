"""Images of any kind become node sets, once: those of a file that has not changed are kept on the disk."""

import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepemd.data import decode
from deepemd.data.images import WORKERS
from deepemd.errors import InputError
from deepemd.model import DeepEMD
from deepemd.nodes import FCN
from deepemd.training.device import keep_freed_memory
from deepemd.training.views import look

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Embedder", "Picture", "as_picture", "default_cache"]

Picture: TypeAlias = "str | os.PathLike[str] | Image | NDArray[np.uint8]"
_CACHE_BYTES = 4_000_000_000  # kept on the disk; what was not used for longest goes first


class Embedded(NamedTuple):
    """One image, encoded; or why it could not be."""

    nodes: Tensor | None  # (N, C) float32, rounded to float16
    key: int  # tells the image from others by its content: which patches Sampling draws
    error: InputError | None = None


def default_cache() -> Path:
    """Where embeddings are kept: the environment variable DEEPEMD_CACHE, else ~/.cache/deepemd/embeddings."""
    return Path(os.environ.get("DEEPEMD_CACHE") or Path.home() / ".cache" / "deepemd" / "embeddings")


def as_picture(image: "Picture", name: str = "image") -> "Image":
    """An image as RGB: of a file, a PIL image (turned upright) or an array.

    Args:
        image: a path, a PIL image, or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4): uint8, or floats from 0 to 1.
        name: what to call it in a message.

    Raises:
        InputError: a file that is no image, or an array of another shape, type or range.
    """
    from PIL import Image

    if isinstance(image, str | os.PathLike):
        return decode(Path(image), str(image))
    if isinstance(image, Image.Image):
        file = io.BytesIO()
        image.save(file, "PNG", compress_level=0)  # one way for every mode, and EXIF's orientation
        return decode(file.getvalue(), name)
    return Image.fromarray(_as_bytes(image, name)).convert("RGB")


def _as_bytes(image: object, name: str) -> NDArray[np.uint8]:
    """An array's pixels as uint8 (H, W) or (H, W, 3)."""
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.dtype == bool or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)):
        raise InputError(
            f"{name}: {type(image).__name__} of {pixels.dtype} {pixels.shape}: pass a path, a PIL image, or an array"
            " (height, width) or (height, width, 3)"
        )
    if 0 in pixels.shape:
        raise InputError(f"{name}: an array of shape {pixels.shape} has no pixels")
    if pixels.dtype != np.uint8:
        if not np.issubdtype(pixels.dtype, np.floating) or not (pixels.min() >= 0 and pixels.max() <= 1):
            raise InputError(
                f"{name}: {pixels.dtype} from {pixels.min():g} to {pixels.max():g}: pass uint8, or floats from 0 to 1"
            )
        pixels = np.round(255 * pixels).astype(np.uint8)
    return pixels[..., :3] if pixels.ndim == 3 else pixels


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
            prune(self.cache, _CACHE_BYTES)

    def _read(self, place: int, image: "Picture") -> "_Read":
        """Find an image's nodes in the cache, or decode it."""
        name = str(image) if isinstance(image, str | os.PathLike) else f"image {place}"
        try:
            if isinstance(image, str | os.PathLike):
                content = _content(Path(image), name)
                digest = hashlib.sha256(content).hexdigest()
                nodes = self._kept(digest)
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
                if one.keep:
                    self._keep(one.digest, its)
        for one in batch:
            yield Embedded(one.nodes, one.key, one.error)

    def _file(self, digest: str) -> Path | None:
        return None if self._folder is None else self._folder / digest[:2] / f"{digest}.npy"

    def _kept(self, digest: str) -> Tensor | None:
        """The nodes of a file as they were kept; None where they were not, or are damaged."""
        path = self._file(digest)
        try:
            if path is None:
                return None
            nodes = torch.from_numpy(np.load(path)).float()
            os.utime(path)  # used now
        except (OSError, ValueError, EOFError):
            return None
        return nodes if nodes.ndim == 2 and nodes.isfinite().all() else None

    def _keep(self, digest: str, nodes: Tensor) -> None:
        """Keep a file's nodes, whole or not at all; without them the next run only takes longer."""
        path = self._file(digest)
        if path is None:
            return
        half = nodes.half()
        temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                np.save(file, (half if bool((half.float() == nodes).all()) else nodes).numpy())
            temporary.replace(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink()


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


def rounded(nodes: Tensor) -> Tensor:
    """Nodes as float16 holds them, in float32; as they are where float16 would overflow."""
    half = nodes.half().float()
    return half if bool(half.isfinite().all()) else nodes.float()


def fingerprint(model: DeepEMD) -> str:
    """sha256 of all that the nodes depend on: the settings and the weights."""
    seen = {
        key: value for key, value in model.config.items() if key not in ("temperature", "weights", "floor", "context")
    }
    digest = hashlib.sha256(json.dumps(seen, sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def prune(folder: Path, limit: int) -> None:
    """Remove the embeddings that were not used for longest, until the rest takes at most `limit` bytes."""
    files = []
    for path in folder.glob("*/*/*.npy"):
        try:
            status = path.stat()
        except OSError:  # another process was first
            continue
        files.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= limit:
            break
        path.unlink(missing_ok=True)
        total -= size

"""Image retrieval: every image is embedded once; a query takes a shortlist by pooled cosine and sorts it by EMD.

An index is a self-contained folder: ``images/`` (a prepared data set: the unchanged images, their names and classes),
``model/`` (the model that embedded them), ``nodes.npy`` (N, n, C), ``pooled.npy`` (N, C), ``checks.npy`` (N,) with a
check sum of each image's nodes, and ``index.json`` with the check sums of the other files.
"""

import hashlib
import os
import re
from collections.abc import Iterable
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from deepemd.apps.retrieval.checksums import file_sha256, node_checks, sampled
from deepemd.arrays import open_npy
from deepemd.data import Images, load
from deepemd.data.archives import open_archive
from deepemd.data.decoding import as_picture
from deepemd.data.folders import index_draft
from deepemd.data.inputs import as_images
from deepemd.data.store import Draft, is_store_file, open_store, write_store
from deepemd.embedding.cache import rounded
from deepemd.embedding.splits import embed
from deepemd.embedding.views import view_pictures
from deepemd.errors import InputError
from deepemd.files import atomic_folder, contents
from deepemd.json_files import json_text, read_json
from deepemd.matching import emd_logits
from deepemd.matching.cost import unit_centred
from deepemd.model import DeepEMD
from deepemd.model.folder import CONFIG_FILE, WEIGHTS_FILE
from deepemd.processes import barrier, broadcast, rank

if TYPE_CHECKING:
    from PIL.Image import Image

    from deepemd.data.decoding import Picture

__all__ = ["Hits", "Index", "build_index", "embed_files", "open_index"]

FORMAT = 1  # format of index.json
_INDEX_FILE = "index.json"
_CANDIDATE_BYTES = 32_000_000  # bytes of node sets that are matched together
_REMEDY = "make the index again with --force (force=True)"
_FILES = re.compile(r"index\.json|(nodes|pooled|checks)\.npy|model/(config\.json|model\.safetensors)")


class Hits(NamedTuple):
    """The images found for each of Q queries, the best first."""

    images: Tensor  # int64 (Q, K), places of images in the index
    similarity: Tensor  # float32 (Q, K), 1 - EMD, at most 1
    cosine: Tensor  # float32 (Q, K), between pooled embeddings


@dataclass(frozen=True)
class Index:
    """Embedded images, ready to be searched.

    Attributes:
        path: the folder.
        model: the model that embedded them, on the CPU.
        images: the images themselves, with names and classes.
        nodes: (N, n, C) float16, or float32 where float16 would overflow; a read-only memory map.
        pooled: (N, C) float32, the mean of each image's nodes.
        checks: (N,) a check sum of each image's nodes; None in an index of an earlier version.
    """

    path: Path
    model: DeepEMD = field(repr=False)
    images: Images
    nodes: np.ndarray = field(repr=False)
    pooled: Tensor = field(repr=False)
    checks: np.ndarray | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def _units(self) -> Tensor:
        """The pooled embeddings, centred over their channels and scaled to length 1: (N, C)."""
        return unit_centred(self.pooled)

    @cached_property
    def _verified(self) -> np.ndarray:
        """Whether the nodes of each image have been verified, (N,) bool."""
        return np.zeros(len(self.nodes), bool)

    def rows(self, places: np.ndarray) -> Tensor:
        """Read the nodes of some images, and verify each image's the first time.

        Args:
            places: int64 (...), places of images in the index.

        Returns:
            (..., n, C) float32.

        Raises:
            InputError: they are not the nodes that the index was written with.
        """
        new = np.unique(places)
        new = new[~self._verified[new]]
        if self.checks is None:  # the mean of an image's nodes is in a file of its own
            means, pooled = torch.from_numpy(self.nodes[new]).float().mean(1), self.pooled[torch.from_numpy(new)]
            right = ((means - pooled).abs().amax(1) <= 1e-4 * (1 + pooled.abs().amax(1))).numpy()
        else:
            right = node_checks(self.nodes, new.tolist()) == self.checks[new]
        if not right.all():
            raise InputError(
                f"{self.path / 'nodes.npy'}: damaged, the nodes of image {new[~right][0]} are not those that were"
                f" written: {_REMEDY}"
            )
        self._verified[new] = True
        return torch.from_numpy(self.nodes[places]).float()

    def cosines(self, nodes: Tensor) -> Tensor:
        """Return the cosines of pooled embeddings, centred over their channels: nodes (Q, n, C) -> (Q, N)."""
        return unit_centred(nodes.mean(1)) @ self._units.T

    def similarities(self, nodes: Tensor, candidates: Tensor) -> Tensor:
        """Return 1 - EMD of each query and its own candidates: nodes (Q, n, C), candidates int64 (Q, K) -> (Q, K)."""
        together = max(1, _CANDIDATE_BYTES // (4 * nodes[0].numel() * candidates.shape[1]))
        rows = []
        with torch.inference_mode():
            for some, theirs in zip(nodes.split(together), candidates.split(together), strict=True):
                support = self.rows(theirs.numpy())  # (q, K, n, C)
                logits = emd_logits(some[:, None], support, temperature=1.0, **self.model.head)  # (q, 1, K)
                rows.append(logits[:, 0])
        return torch.cat(rows)

    def search(self, nodes: Tensor, *, top: int = 10, shortlist: int = 100) -> Hits:
        """Find the images that are most similar to each query.

        Args:
            nodes: (Q, n, C) float32, the queries, embedded by the index's model.
            top: number of images to find; all of them if there are fewer.
            shortlist: number of images with the largest pooled cosine that are sorted by the EMD; at least `top`. The
                cost of a query grows with it; beyond some tens it gains little.

        Raises:
            InputError: `top` or `shortlist` below 1, or nodes that are not those of the index's model.
        """
        if nodes.ndim != 3 or not len(nodes) or nodes.shape[1:] != self.nodes.shape[1:]:
            expected = f"(Q, {', '.join(map(str, self.nodes.shape[1:]))})"
            raise InputError(f"nodes are {tuple(nodes.shape)}, but those of the index are {expected}: use its model")
        for name, value in (("top", top), ("shortlist", shortlist)):
            if value < 1:
                raise InputError(f"{name} is {value}: it must be at least 1")
        cosine, candidates = self.cosines(nodes).topk(min(max(top, shortlist), len(self)), dim=1)  # (Q, K)
        similarity, order = self.similarities(nodes, candidates).sort(dim=1, descending=True, stable=True)
        found = candidates.gather(1, order), similarity, cosine.gather(1, order)
        return Hits(*(part[:, :top] for part in found))


def build_index(
    model: Path,
    data: str | Path,
    path: Path,
    *,
    split: str | None = None,
    root: Path | None = None,
    force: bool = False,
    skip_bad: bool = False,
    bf16: bool = False,
    cache: Path | None = None,
) -> Index:
    """Embed images and write the index, which appears only when it is complete.

    Several processes share the images; the first one writes the index, to a disk that all of them see.

    Args:
        model: folder of a saved model, or ``"resnet12-miniimagenet"``; the index holds a copy.
        data: a folder of class folders, or of images without classes, which have the class ``"."``; or, with `split` or
            by the name of a prepared data set, one of its splits.
        path: folder for the index.
        split: the split of the data set.
        root: folder of the prepared data sets; by default $DEEPEMD_DATA, else ~/.cache/deepemd/data.
        force: replace an existing index.
        skip_bad: leave out images that cannot be decoded; ``images/skipped.txt`` lists them.
        bf16, cache: see :func:`deepemd.embedding.splits.embed`; with a cache, a killed run continues where it stopped.

    Raises:
        InputError: `path` holds something else, there are no images, the folders are splits or a level too high, an
            image or the model cannot be read, or the disk is full.
    """
    _refuse_other(path, force)
    network = DeepEMD.from_pretrained(model)
    barrier()  # until all processes have checked the folder
    with atomic_folder(path, needed=0) if rank() == 0 else nullcontext() as made:
        if made is not None:
            _copy_images(data, split, root, made / "images", skip_bad)
        folder = broadcast(made)
        assert folder is not None
        (images,) = open_store(folder / "images").splits.values()
        nodes = embed(network, images, bf16=bf16, cache=cache)  # (N, n, C)
        if made is not None:
            _fill(made, network, images, nodes)
    barrier()
    return open_index(path)


def _fill(folder: Path, network: DeepEMD, images: Images, nodes: Tensor) -> None:
    """Write all files of an index except the images, which already exist."""
    if not bool(nodes.isfinite().all()):
        bad = images.names[int((~nodes.isfinite()).flatten(1).any(1).nonzero()[0, 0])]
        raise InputError(f"{bad}: its embedding is not finite, so it cannot be compared: use another model")
    half = nodes.half()
    stored = (half if half.isfinite().all() else nodes).numpy()
    arrays = {"nodes": stored, "pooled": nodes.mean(1).numpy(), "checks": node_checks(stored, range(len(stored)))}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    for pixels in images.path.parent.glob("*.npy"):  # made to embed them
        pixels.unlink()
    network.save(folder / "model")
    description = {
        "format": FORMAT,
        "model": _fingerprint(folder / "model"),
        "data": images.fingerprint.sha256,
        "files": {name: file_sha256(folder / name) for name in ("pooled.npy", "checks.npy")},
    }
    (folder / _INDEX_FILE).write_text(json_text(description, folder / _INDEX_FILE, indent=1), encoding="utf-8")


def _refuse_other(path: Path, force: bool) -> None:
    if not path.exists() or (path.is_dir() and not contents(path)):
        return
    if not (path / _INDEX_FILE).is_file():
        raise InputError(f"{path}: holds something other than an index: choose another folder")
    if not force:
        raise InputError(f"{path}: holds an index already: pass --force (force=True) to make it again")
    for place, _, names in os.walk(path):
        within = Path(place).relative_to(path).as_posix()
        for name in contents(Path(place)) if within in (".", "images", "model") else names:
            full = name if within == "." else f"{within}/{name}"
            ours = is_store_file(name) if within == "images" else _FILES.fullmatch(full)
            if not ours and full not in ("images", "model"):
                raise InputError(
                    f"{path}: holds {full}, which is not of an index: move it away, or choose another folder"
                )


def _copy_images(data: str | Path, split: str | None, root: Path | None, path: Path, skip_bad: bool) -> None:
    """Check the images and store them as a data set with one split."""
    folder = Path(data)
    if split is None and folder.is_dir() and not (folder / "store.json").is_file():
        with closing(open_archive(folder, path.parent)) as archive:
            draft, found = index_draft(archive)
            notes = {"source": str(folder), "messages": "\n".join(found.messages("has no class"))}
            write_store(path, folder.resolve().name, {"all": draft}, notes, skip_bad=skip_bad)
            return
    splits = load(data, root).splits
    if split is None and len(splits) > 1:
        raise InputError(f"split: {data} has the splits {', '.join(splits)}: choose one with --split")
    split = split or next(iter(splits))
    if split not in splits:
        raise InputError(f"split: {data} has no split {split!r}; choose one of {', '.join(splits)}")
    images = splits[split]
    size = int(images.offsets[-1])
    draft = Draft(images.classes, images.labels, images.names, images.encoded, images.groups, size)
    write_store(path, images.name.rpartition("/")[0], {split: draft}, {"source": str(data)})


def _fingerprint(model: Path) -> str:
    """sha256 of a saved model's two files."""
    return hashlib.sha256(b"".join((model / name).read_bytes() for name in (CONFIG_FILE, WEIGHTS_FILE))).hexdigest()


def open_index(path: Path) -> Index:
    """Open an index; nodes stay on disk until they are needed.

    Raises:
        InputError: there is no index, a file is missing or damaged, or the index was made with another model or other
            images.
    """
    try:
        description = _description(path / _INDEX_FILE)
        if description["format"] != FORMAT:
            raise InputError(
                f"{path}: an index of format {description['format']!r:.80}, but this version reads {FORMAT}: {_REMEDY}"
            )
        found = _fingerprint(path / "model")
        if found != description["model"]:
            raise InputError(
                f"{path / 'model'}: not the model that the index was made with (sha256 {found[:12]}, the index says "
                f"{description['model'][:12]}); its distances would mean nothing: {_REMEDY}"
            )
        (images,) = open_store(path / "images").splits.values()
        if images.fingerprint.sha256 != description["data"]:
            raise InputError(f"{path / 'images'}: not the images that the index was made with: {_REMEDY}")
        index = _with_arrays(path, DeepEMD.load(path / "model"), images, description.get("files"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no index, {error.filename} is missing: pass a folder of `retrieve index`") from error
    except (KeyError, TypeError, ValueError, OSError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: the index is damaged ({error}): {_REMEDY}") from error
    index.rows(sampled(index.nodes))
    return index


def _description(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise FileNotFoundError(None, None, str(path))
    try:
        return read_json(path, remedy=_REMEDY)
    except InputError as error:
        raise InputError(f"{path.parent}: the index is damaged: {error}") from error


def _with_arrays(path: Path, model: DeepEMD, images: Images, sums: dict[str, str] | None) -> Index:
    """Open the arrays of an index, and check that they fit the model and the images.

    Args:
        path: the folder.
        model, images: those of the index.
        sums: the sha256 of files, by name; None in an index of an earlier version.
    """
    nodes, pooled = open_npy(path / "nodes.npy"), open_npy(path / "pooled.npy")
    if not (nodes.ndim == 3 and pooled.shape == (len(images), nodes.shape[2]) and len(nodes) == len(images)):
        raise InputError(f"{path}: {len(images):,} images, but nodes of shape {nodes.shape}: {_REMEDY}")
    _, n, channels = nodes.shape
    if nodes.dtype not in (np.float16, np.float32) or pooled.dtype != np.float32:
        raise InputError(f"{path}: the index is damaged (nodes of {nodes.dtype}, means of {pooled.dtype}): {_REMEDY}")
    if channels != model.backbone.channels or n != (model.regions.nodes or n):
        raise InputError(f"{path}: {n} nodes of {channels} channels, which are not those of its model: {_REMEDY}")
    for name in sums or ():
        if name not in ("pooled.npy", "checks.npy") or sums is None or file_sha256(path / name) != sums[name]:
            raise InputError(f"{path / name}: damaged, not the file that the index was written with: {_REMEDY}")
    checks = None if sums is None else open_npy(path / "checks.npy")
    if checks is not None and (checks.dtype != np.uint64 or checks.shape != (len(images),)):
        raise InputError(f"{path}: the index is damaged (check sums of {checks.dtype}{checks.shape}): {_REMEDY}")
    means = torch.from_numpy(np.array(pooled))
    if not bool(means.isfinite().all()):
        raise InputError(f"{path / 'pooled.npy'}: the index is damaged, a value is not finite: {_REMEDY}")
    return Index(path, model, images, nodes, means, checks)


def embed_files(model: DeepEMD, images: "Iterable[Picture]") -> tuple[list["Image"], Tensor]:
    """Decode and embed images as an index does; return the pictures and their nodes (Q, n, C).

    Args:
        model: the index's model.
        images: paths, PIL images or arrays, in a list, a column of pandas or a generator.

    Raises:
        InputError: an image cannot be read, or there is none, or `images` is one image instead of a list.
    """
    pictures = [as_picture(image, f"image {k}") for k, image in enumerate(as_images(images, "images"))]
    if not pictures:
        raise InputError("images is empty: pass at least one image")
    with torch.inference_mode():
        views = (view_pictures(model, [picture], indices=np.array([q])) for q, picture in enumerate(pictures))
        return pictures, torch.cat([rounded(model.eval().embed(*view)) for view in views])  # (Q, n, C)

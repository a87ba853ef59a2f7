"""Search an index of embedded images: a query takes a shortlist by pooled cosine and sorts it by EMD.

An index is a self-contained folder: ``images/`` (a prepared data set: the unchanged images, their names and classes),
``model/`` (the model that embedded them), ``nodes.npy`` (N, n, C), ``pooled.npy`` (N, C), ``checks.npy`` (N,) with a
check sum of each image's nodes, and ``index.json`` with the check sums of the other files. If the nodes are whitened,
``whitening.npy`` holds how (:mod:`deepemd.apps.retrieval.whitening`).
"""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from deepemd.apps.retrieval.checksums import node_checks, sampled
from deepemd.apps.retrieval.whitening import Groups, open_whitening
from deepemd.arrays import open_npy
from deepemd.data import Images
from deepemd.data.store import open_store
from deepemd.device import Precision
from deepemd.errors import InputError
from deepemd.files import file_sha256
from deepemd.json_files import read_description
from deepemd.matching import emd_logits
from deepemd.matching.cost import unit_centred
from deepemd.matching.whitening import Whitening
from deepemd.model import DeepEMD
from deepemd.model.folder import CONFIG_FILE, WEIGHTS_FILE

__all__ = ["FORMATS", "INDEX_FILE", "Hits", "Index", "model_sha256", "open_index"]

FORMATS = {False: 1, True: 2}
"""Whether the nodes are whitened -> format of index.json; programs that know format 1 alone cannot whiten a query."""
INDEX_FILE = "index.json"
_CANDIDATE_BYTES = 32_000_000  # bytes of node sets that are matched together
_REMEDY = "make the index again with --force (force=True)"


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
        nodes: (N, n, C) float16, or float32 where float16 would overflow; a read-only memory map. Whitened nodes have
            one channel more than the model.
        pooled: (N, C) float32, the mean of each image's nodes.
        checks: (N,) a check sum of each image's nodes; None in an index of an earlier version.
        whitening: how `nodes` and `pooled` are whitened, and a query must be; None if they are not.
        groups: what the whitening was fitted to: "classes" or "neighbours"; None if there is none.
        precision: number format of the encoder, for queries too; "auto" in an index of an earlier version.
    """

    path: Path
    model: DeepEMD = field(repr=False)
    images: Images
    nodes: np.ndarray = field(repr=False)
    pooled: Tensor = field(repr=False)
    checks: np.ndarray | None = field(default=None, repr=False)
    whitening: Whitening | None = field(default=None, repr=False)
    groups: Groups | None = None
    precision: Precision = "auto"

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
            nodes: (Q, n, C) float32, the queries, as :func:`deepemd.apps.retrieval.queries.embed_queries` returns them.
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


def model_sha256(model: Path) -> str:
    """sha256 of a saved model's two files."""
    return hashlib.sha256(b"".join((model / name).read_bytes() for name in (CONFIG_FILE, WEIGHTS_FILE))).hexdigest()


def open_index(path: Path) -> Index:
    """Open an index; nodes stay on disk until they are needed.

    Raises:
        InputError: there is no index, a file is missing or damaged, or the index was made with another model or other
            images.
    """
    try:
        description = read_description(path / INDEX_FILE, "the index is damaged", remedy=_REMEDY)
        if description["format"] not in FORMATS.values():
            known = " and ".join(map(str, FORMATS.values()))
            raise InputError(
                f"{path}: an index of format {description['format']!r:.80}, but this version reads {known}: {_REMEDY}"
            )
        found = model_sha256(path / "model")
        if found != description["model"]:
            raise InputError(
                f"{path / 'model'}: not the model that the index was made with (sha256 {found[:12]}, the index says "
                f"{description['model'][:12]}); its distances would mean nothing: {_REMEDY}"
            )
        (images,) = open_store(path / "images").splits.values()
        if images.fingerprint.sha256 != description["data"]:
            raise InputError(f"{path / 'images'}: not the images that the index was made with: {_REMEDY}")
        index = _with_arrays(path, DeepEMD.load(path / "model"), images, description)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no index, {error.filename} is missing: pass a folder of `retrieve index`") from error
    except (KeyError, TypeError, ValueError, OSError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: the index is damaged ({error}): {_REMEDY}") from error
    index.rows(sampled(index.nodes))
    return index


def _with_arrays(path: Path, model: DeepEMD, images: Images, description: dict[str, Any]) -> Index:
    """Open the arrays of an index, and check that they fit the model and the images.

    Args:
        path: the folder.
        model, images: those of the index.
        description: the content of index.json.
    """
    groups = description["whiten"] if description["format"] == FORMATS[True] else None
    sums, precision = description.get("files"), description.get("precision", "auto")  # earlier versions have neither
    for value, known in ((groups, (None, *get_args(Groups))), (precision, get_args(Precision))):
        if value not in known:
            raise InputError(f"{path / INDEX_FILE}: the index is damaged ({value!r:.80}): {_REMEDY}")
    nodes, pooled = open_npy(path / "nodes.npy"), open_npy(path / "pooled.npy")
    if not (nodes.ndim == 3 and pooled.shape == (len(images), nodes.shape[2]) and len(nodes) == len(images)):
        raise InputError(f"{path}: {len(images):,} images, but nodes of shape {nodes.shape}: {_REMEDY}")
    _, n, channels = nodes.shape
    if nodes.dtype not in (np.float16, np.float32) or pooled.dtype != np.float32:
        raise InputError(f"{path}: the index is damaged (nodes of {nodes.dtype}, means of {pooled.dtype}): {_REMEDY}")
    if channels != model.backbone.channels + (groups is not None) or n != (model.regions.nodes or n):
        raise InputError(f"{path}: {n} nodes of {channels} channels, which are not those of its model: {_REMEDY}")
    _verify_files(path, sums, groups is not None)
    checks = None if sums is None else open_npy(path / "checks.npy")
    if checks is not None and (checks.dtype != np.uint64 or checks.shape != (len(images),)):
        raise InputError(f"{path}: the index is damaged (check sums of {checks.dtype}{checks.shape}): {_REMEDY}")
    means = torch.from_numpy(np.array(pooled))
    if not bool(means.isfinite().all()):
        raise InputError(f"{path / 'pooled.npy'}: the index is damaged, a value is not finite: {_REMEDY}")
    whitening = None
    if groups is not None:
        stored = open_npy(path / "whitening.npy")
        whitening = open_whitening(path / "whitening.npy", stored, model.backbone.channels)
    return Index(path, model, images, nodes, means, checks, whitening, groups, precision)


def _verify_files(path: Path, sums: dict[str, str] | None, whitened: bool) -> None:
    """Compare files with their check sums, which an index of an earlier version lacks."""
    expected = {"pooled.npy", "checks.npy"} | ({"whitening.npy"} if whitened else set())
    if sums is None and not whitened:
        return
    for name in sorted(expected | set(sums or ())):
        if sums is None or name not in expected or file_sha256(path / name) != sums.get(name):
            raise InputError(f"{path / name}: damaged, not the file that the index was written with: {_REMEDY}")

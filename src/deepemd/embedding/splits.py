"""Embed a split: every image is encoded once, however many episodes use it."""

import hashlib
import json
import logging
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepemd.data import Images
from deepemd.embedding.cache import load, model_folder, prune, rounded, store
from deepemd.embedding.views import prepare, view
from deepemd.model import DeepEMD
from deepemd.nodes import Sampling, WholeImage
from deepemd.processes import all_gather, all_reduce_max, rank, rank_zero_first, shard, world_size
from deepemd.progress import track

__all__ = ["embed"]

_SQUARES = 128  # encoded together: whole images, or patches
_FORMAT = 1  # of the cache; increase it when images are prepared differently for the model


def embed(
    model: DeepEMD,
    images: Images,
    indices: NDArray[np.int64] | None = None,
    *,
    seed: int = 0,
    bf16: bool = False,
    cache: Path | None = None,
) -> Tensor:
    """Embed images of a split once: (N, nodes, C) float32, rounded to float16, on the CPU.

    The split is encoded in pieces that always hold the same images. So an image's nodes are bit-identical whichever
    other images are embedded, and with or without the cache (on one device and version of torch; on CPUs tested for
    one thread and two).

    Several processes share the pieces, and each receives all nodes: see :mod:`deepemd.processes`. ``model.boxes``
    returns the places of the nodes in the images.

    Args:
        model: the model, which is temporarily put into evaluation mode.
        images: the split.
        indices: indices of the images to return, in this order; by default all. Their pieces are encoded whole.
        seed: seed of Sampling's patches, which are a function of (seed, index): the same in every episode, so that the
            embeddings can be stored and a run repeats. The authors' code draws new patches in every episode.
        bf16: encode under bfloat16 autocast: about twice as fast on CPUs that have it, within 0.1 % accuracy.
        cache: folder of the cached embeddings, such as :func:`deepemd.embedding.cache.default_cache`; None for no
            cache. A piece is stored by the weights, the settings, the fingerprint of the images, the number format and
            Sampling's seed, and read by the next call, even after a call that was killed. Use None for your own encoder
            while you change its code, because the cache sees only its name and weights.
    """
    indices = np.arange(len(images)) if indices is None else np.asarray(indices)
    step = max(1, _SQUARES // (1 if isinstance(model.regions, WholeImage) else model.regions.patches))
    of_model = model_folder(cache, model)
    folder = None if of_model is None else of_model / _key(model, images, step, seed, bf16)
    if world_size() > 1:
        with rank_zero_first():
            prepare(model, images)
    writable, stored, blocks = folder is not None, False, []
    pieces = np.unique(indices // step)
    mine = shard(pieces.tolist())
    count = min(len(mine) * step, len(images))
    for k in track(mine, f"embedding {images.name}", count, "images", each=step):
        path = None if folder is None else folder / f"{k:06}.npz"
        own = np.arange(k * step, min((k + 1) * step, len(images)))
        piece = None if path is None else load(path)
        if piece is None:
            piece = _encode(model, images, own, seed=seed, bf16=bf16)  # (step, nodes, C)
            if path is not None and writable:
                try:
                    store(path, piece)
                    stored = True
                except OSError as error:
                    logging.getLogger(__name__).warning("%s: embeddings cannot be stored (%s)", cache, error.strerror)
                    writable = False
        blocks.append(piece)
    nodes = all_gather(torch.cat(blocks) if blocks else None)
    (stored_by_any,) = all_reduce_max(int(stored))
    if cache is not None and stored_by_any and rank() == 0:
        prune(cache)
    return nodes[torch.from_numpy(np.searchsorted(pieces, indices // step) * step + indices % step)]


def _encode(model: DeepEMD, images: Images, indices: NDArray[np.int64], *, seed: int, bf16: bool) -> Tensor:
    """Encode the images of one piece."""
    device, training = model.mean.device, model.training
    model.eval()
    try:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            shown, boxes = view(model, images, indices, seed=seed)  # (B, 3, H, W), (B, M, 4)
            return rounded(model.embed(shown.to(device), boxes).cpu())  # (B, N, C)
    finally:
        model.train(training)


def _key(model: DeepEMD, images: Images, step: int, seed: int, bf16: bool) -> str:
    """Return a hash of what the nodes depend on, apart from the model."""
    about = {
        "format": _FORMAT,
        "images": images.fingerprint.sha256,
        "step": step,
        "seed": seed if isinstance(model.regions, Sampling) else None,
        "bf16": bf16,
        "device": model.mean.device.type,
    }
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]

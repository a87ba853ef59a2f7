"""Embedding a split: every image is encoded once, whatever number of episodes it will be in."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepemd.data import Images
from deepemd.data.images import track
from deepemd.model import DeepEMD
from deepemd.nodes import FCN
from deepemd.processes import first, merge, share
from deepemd.training.device import keep_freed_memory
from deepemd.training.views import prepare, view

__all__ = ["embed"]


def embed(
    model: DeepEMD,
    images: Images,
    indices: NDArray[np.int64] | None = None,
    *,
    seed: int = 0,
    batch_size: int = 256,
    bf16: bool = False,
) -> Tensor:
    """Embed images of a split once: (N, nodes, C) float32, on the CPU.

    Of several processes each embeds some of the batches, and all get all of them: see :mod:`deepemd.processes`.

    Where the nodes lie in the images, ``model.boxes`` says from the images' sizes, the seed and the indices.

    Args:
        model: put into evaluation mode for the time being.
        images: the split.
        indices: which images, in this order; all of them unless given.
        seed: of Sampling's patches, which are a function of (seed, index): the same in every episode, so that the
            embedding can be kept and a run repeats. The authors' code draws anew in every episode.
        batch_size: squares encoded together, whole images or patches; lower it where memory is short.
        bf16: encode under bfloat16 autocast: about twice as fast on CPUs that have it, within 0.1 % accuracy.
    """
    device, training = model.mean.device, model.training
    if device.type == "cpu":
        keep_freed_memory()
    indices = np.arange(len(images)) if indices is None else indices
    each = 1 if isinstance(model.regions, FCN) else model.regions.patches
    step = max(1, batch_size // each)
    nodes: list[Tensor] = []
    with first():
        prepare(model, images)
    model.eval()
    try:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            starts = share(range(0, len(indices), step))
            for start in track(starts, f"embedding {images.name}", len(starts)):
                seen, boxes = view(model, images, indices[start : start + step], seed=seed)  # (B, 3, H, W), (B, M, 4)
                nodes.append(model.embed(seen.to(device), boxes).float().cpu())  # (B, N, C)
    finally:
        model.train(training)
    return merge(torch.cat(nodes) if nodes else None)

"""Validate a model: measure DeepEMD's accuracy on fixed episodes, over embeddings computed once for each image."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from deepemd.data import Images
from deepemd.embedding.cache import rounded
from deepemd.embedding.views import view
from deepemd.errors import InputError
from deepemd.evaluation.intervals import MeanCI
from deepemd.evaluation.methods import choose
from deepemd.evaluation.scoring import score
from deepemd.model import DeepEMD
from deepemd.nodes import WholeImage
from deepemd.processes import all_gather, shard, world_size
from deepemd.training.settings import Validation

__all__ = ["Validator"]

IMAGES = 128  # images of a batch
SQUARES = 128  # whole images, or patches, that are encoded together


@dataclass
class Validator:
    """Embeds the images of the fixed episodes, then measures the accuracy.

    Several processes share both the images and the episodes.

    Args:
        images: the split to validate on.
        validation: the settings of the episodes.
    """

    images: Images
    validation: Validation
    _nodes: list[Tensor] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        episodes = list(self.validation.episodes.sampler(self.images))
        self.used = np.unique(np.concatenate([part for e in episodes for part in (e.support, e.query)]))
        self.episodes = [  # their indices count the images in `used`
            replace(e, support=np.searchsorted(self.used, e.support), query=np.searchsorted(self.used, e.query))
            for e in episodes
        ]

    def __len__(self) -> int:
        """Return the number of batches, which is the same in each process."""
        return -(-len(self._batches()) // world_size())

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the indices of the images that this process embeds, in batches; the last one may be empty."""
        mine = shard(self._batches())
        yield from mine
        yield from [self.used[:0]] * (len(self) - len(mine))

    def _batches(self) -> list[np.ndarray]:
        return [self.used[start : start + IMAGES] for start in range(0, len(self.used), IMAGES)]

    def embed(self, model: DeepEMD, indices: np.ndarray) -> None:
        """Embed one batch and store its nodes."""
        if not len(indices):
            return
        together = SQUARES // (1 if isinstance(model.regions, WholeImage) else model.regions.patches) or 1
        for start in range(0, len(indices), together):
            images, boxes = view(model, self.images, np.asarray(indices[start : start + together]))
            nodes = model.embed(images.to(model.mean.device), boxes)  # (B, 3, H, W) -> (B, N, C)
            if not torch.isfinite(nodes).all():
                raise InputError("the embeddings of validation images are not finite: training has diverged; lower lr")
            self._nodes.append(rounded(nodes))

    def measure(self, model: DeepEMD) -> MeanCI:
        """Match the episodes, over the nodes embedded since the last measurement."""
        nodes = all_gather(torch.cat(self._nodes) if self._nodes else None)  # (U, N, C)
        self._nodes.clear()
        methods = choose("deepemd", model, n_shot=self.validation.n_shot)
        return MeanCI.of(score(nodes, self.episodes, methods, quiet=True)["DeepEMD"])

    def run(self, model: DeepEMD) -> MeanCI:
        """Embed all images and measure the accuracy, without gradients and in evaluation mode."""
        training = model.training
        model.eval()
        try:
            with torch.no_grad():
                for indices in self:
                    self.embed(model, indices)
                return self.measure(model)
        finally:
            self._nodes.clear()
            model.train(training)

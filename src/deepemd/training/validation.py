"""DeepEMD accuracy on fixed episodes: each image is embedded once, then episodes are matched in batches."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from deepemd.data import EpisodeSampler, Images
from deepemd.errors import InputError
from deepemd.model import DeepEMD
from deepemd.training.batches import read
from deepemd.training.recipes import Validation

__all__ = ["Accuracy", "Validator"]

IMAGES = 128  # encoded at once
EPISODES = 8  # matched at once


@dataclass(frozen=True)
class Accuracy:
    """Mean accuracy over episodes, in 0..1, and half the width of its 95 % confidence interval."""

    mean: float
    ci95: float
    episodes: int

    def __str__(self) -> str:
        return f"{100 * self.mean:.2f} ± {100 * self.ci95:.2f} %"


@dataclass
class Validator:
    """Collects the embeddings of the images that the fixed episodes use, then measures.

    Args:
        images: the split to validate on.
        validation: which episodes.
        size: side to which images are decoded; the model's ``resize``.
    """

    images: Images
    validation: Validation
    size: int
    _nodes: list[Tensor] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        v = self.validation
        sampler = EpisodeSampler(
            self.images.labels, v.n_way, v.n_shot, v.n_query, v.n_episodes, v.seed, groups=self.images.groups
        )
        indices = np.stack([np.concatenate((episode.support, episode.query)) for episode in sampler])
        self.used, places = np.unique(indices, return_inverse=True)
        self.places = torch.from_numpy(places.reshape(indices.shape))  # (E, n_way * (n_shot + n_query)) into `used`

    def __len__(self) -> int:
        return -(-len(self.used) // IMAGES)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Indices of the images to embed, in batches."""
        return (self.used[start : start + IMAGES] for start in range(0, len(self.used), IMAGES))

    def embed(self, model: DeepEMD, indices: np.ndarray) -> None:
        """Embed one batch and keep its nodes."""
        images = read(self.images.pixels(self.size), np.asarray(indices))
        nodes = model.embed(images.to(model.mean.device))  # (B, 3, S, S) -> (B, N, C)
        if not torch.isfinite(nodes).all():
            raise InputError("the embeddings of validation images are not finite: the weights are spoilt; lower lr")
        self._nodes.append(nodes)

    def measure(self, model: DeepEMD) -> Accuracy:
        """Match the episodes over what was embedded since the last measurement."""
        nodes = torch.cat(self._nodes)  # (U, N, C)
        self._nodes.clear()
        v = self.validation
        labels = torch.arange(v.n_way * v.n_query, device=nodes.device) % v.n_way  # (Q,)
        hits = []
        for places in self.places.to(nodes.device).split(EPISODES):
            support, query = nodes[places].split((v.n_way * v.n_shot, v.n_way * v.n_query), dim=1)  # (E, *, N, C)
            hits.append((model.match(support, query, v.n_way).argmax(-1) == labels).double().mean(-1))  # -> (E,)
        accuracy = torch.cat(hits)
        ci95 = 1.96 * float(accuracy.std(correction=0)) / len(accuracy) ** 0.5
        return Accuracy(float(accuracy.mean()), ci95, len(accuracy))

    def run(self, model: DeepEMD) -> Accuracy:
        """Embed and measure in one go, without gradients, in evaluation mode."""
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

"""Evaluate several methods on the same embeddings and the same episodes."""

import platform
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepemd.data import Episodes, Images
from deepemd.embedding.splits import embed
from deepemd.evaluation.intervals import MeanCI
from deepemd.evaluation.methods import SFC, choose
from deepemd.evaluation.scoring import score
from deepemd.model import DeepEMD
from deepemd.versions import versions

__all__ = ["METHOD", "Evaluation", "evaluate"]

METHOD = "deepemd,protonet,local-knn"  # the methods compared by default


@dataclass(frozen=True)
class Evaluation:
    """Accuracies of several methods on the same episodes.

    Attributes:
        accuracies: method -> (n_episodes,) accuracy of each episode in 0..1.
        episodes: settings of the episodes; after Ctrl-C, fewer than `n_episodes` have been matched.
        regions: settings of the regions, by which images became nodes.
        fingerprint: fingerprint of the images.
        seconds: wall time of "embedding" and of each method.
    """

    accuracies: dict[str, NDArray[np.float64]] = field(repr=False)
    episodes: Episodes
    regions: dict[str, Any]
    fingerprint: dict[str, Any]
    seconds: dict[str, float]

    @property
    def first(self) -> str:
        """The method that the others are compared with."""
        return next(iter(self.accuracies))

    @property
    def complete(self) -> bool:
        """Return whether all episodes were matched."""
        return self.count == self.episodes.n_episodes

    @property
    def count(self) -> int:
        """Number of episodes that were matched."""
        return len(self.accuracies[self.first])

    def accuracy(self, method: str) -> MeanCI:
        """Return the mean accuracy of a method with its interval."""
        return MeanCI.of(self.accuracies[method])

    def difference(self, method: str, other: str) -> MeanCI:
        """Return the mean of `method` minus `other`, episode by episode, with its paired interval."""
        return MeanCI.of(self.accuracies[method] - self.accuracies[other])

    def best(self, prefix: str) -> str:
        """Return the most accurate method whose name starts with `prefix`, such as a baseline in its best form."""
        return max((m for m in self.accuracies if m.startswith(prefix)), key=lambda m: self.accuracies[m].mean())

    def as_dict(self) -> dict[str, Any]:
        """Return the evaluation for JSON, without single episodes."""
        return {
            "episodes": asdict(self.episodes),
            "regions": self.regions,
            "fingerprint": self.fingerprint,
            "accuracy": {name: asdict(self.accuracy(name)) for name in self.accuracies},
            "compared_with": self.first,
            "difference": {
                name: asdict(self.difference(self.first, name)) for name in self.accuracies if name != self.first
            },
            "seconds": self.seconds,
            "versions": versions(),
            "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        }


def evaluate(
    model: DeepEMD,
    images: Images,
    episodes: Episodes | None = None,
    *,
    method: str = METHOD,
    sfc: SFC | None = None,
    bf16: bool = False,
    nodes: Tensor | None = None,
    cache: Path | None = None,
) -> Evaluation:
    """Measure the accuracy of several methods on the same embeddings and the same episodes.

    Args:
        model: the model to evaluate; its temperature does not matter, its `weights` and `regions` do.
        images: the split to draw episodes from.
        episodes: settings of the episodes; by default 1,000 5-way 1-shot ones. Their seed also sets Sampling's patches.
        method: names of :data:`deepemd.evaluation.methods.METHODS`, separated by commas; all are compared with the
            first.
        sfc: how the method ``deepemd-sfc`` is fitted.
        bf16, cache: see :func:`deepemd.embedding.splits.embed`.
        nodes: the embeddings of the split, if they are already computed.

    Raises:
        InputError: the split has too few classes or images for the episodes, or a method is unknown.

    Source: section 5.2 of the paper; the baselines are those of its tables.
    """
    episodes = episodes or Episodes()
    sampler = episodes.sampler(images)  # refuses impossible episodes before the long work
    methods = choose(method, model, n_shot=episodes.n_shot, sfc=sfc)
    began = time.perf_counter()
    if nodes is None:
        nodes = embed(model, images, seed=episodes.seed, bf16=bf16, cache=cache)
    seconds = {"embedding": time.perf_counter() - began}
    accuracies = score(nodes, sampler, methods, seconds=seconds)
    return Evaluation(accuracies, episodes, model.regions.config, images.fingerprint.as_dict(), seconds)

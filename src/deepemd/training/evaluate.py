"""Evaluation: every image is embedded once, and all methods see the same episodes of the embeddings."""

import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepemd.data import Episode, EpisodeSampler, Images
from deepemd.data.images import track
from deepemd.errors import InputError
from deepemd.matching import emd_logits, local_knn_logits, protonet_logits
from deepemd.model import DeepEMD

__all__ = ["METHODS", "Episodes", "Evaluation", "Figure", "deepemd_method", "embed", "evaluate", "score"]

# Bytes of embeddings that a batch of episodes gathers; larger batches gain nothing.
_BATCH_BYTES = 32_000_000

# How a class of several shots becomes one node set: the mean of its sets, or all their nodes together.
_mean_of_shots, _all_nodes = "mean", "all"


@dataclass(frozen=True)
class Method:
    """A way to classify: a head of node sets, and what it makes of several shots of a class."""

    logits: Callable[[Tensor, Tensor], Tensor]
    shots: str = _mean_of_shots


METHODS: Mapping[str, Method] = {
    "DeepEMD": Method(emd_logits),
    "ProtoNet (cosine)": Method(lambda q, s: protonet_logits(q, s)),
    "ProtoNet (centred cosine)": Method(lambda q, s: protonet_logits(q, s, centred=True)),
    "ProtoNet (Euclidean)": Method(lambda q, s: protonet_logits(q, s, similarity="euclidean")),
    "local k-NN (k = 1)": Method(lambda q, s: local_knn_logits(q, s, k=1), _all_nodes),
    "local k-NN (k = 3)": Method(lambda q, s: local_knn_logits(q, s, k=min(3, s.shape[-2])), _all_nodes),
}


def deepemd_method(model: DeepEMD) -> Method:
    """DeepEMD with a model's own settings of the head."""
    return Method(lambda q, s: emd_logits(q, s, temperature=model.temperature, weights=model.weights))


@dataclass(frozen=True)
class Episodes:
    """Which episodes an evaluation draws.

    Args:
        n_way: classes of an episode.
        n_shot: labelled images of a class.
        n_query: images to classify of each class.
        n_episodes: how many; the interval narrows with their square root. The paper takes 5,000 for one shot.
        seed: the same seed gives the same episodes, whatever the model.
    """

    n_way: int = 5
    n_shot: int = 1
    n_query: int = 15
    n_episodes: int = 1000
    seed: int = 0

    def sampler(self, images: Images) -> EpisodeSampler:
        """The episodes over a split."""
        return EpisodeSampler(images.labels, groups=images.groups, names=images.classes, **asdict(self))


@dataclass(frozen=True)
class Figure:
    """A mean over episodes, in 0..1, and half the width of its 95 % confidence interval. Printed in percent.

    >>> print(Figure.of(np.array([0.5, 0.7, 0.6, 0.6])))
    60.00 ± 6.93
    """

    mean: float
    ci95: float
    episodes: int

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> "Figure":
        """Of one value per episode; the half width is 1.96 standard deviations / sqrt(episodes)."""
        return cls(float(values.mean()), 1.96 * float(values.std()) / math.sqrt(len(values)), len(values))

    def __str__(self) -> str:
        return f"{100 * self.mean:.2f} ± {100 * self.ci95:.2f}"


@dataclass(frozen=True)
class Evaluation:
    """Accuracies of several methods on the same episodes.

    Attributes:
        accuracies: method -> (n_episodes,) accuracy of each episode in 0..1.
        episodes: which episodes.
        fingerprint: of the images.
        seconds: wall time of "embedding" and of "matching", all methods together.
    """

    accuracies: dict[str, NDArray[np.float64]] = field(repr=False)
    episodes: Episodes
    fingerprint: dict[str, Any]
    seconds: dict[str, float]

    def figure(self, method: str) -> Figure:
        """Mean accuracy with its interval."""
        return Figure.of(self.accuracies[method])

    def difference(self, method: str, other: str) -> Figure:
        """Mean of `method` minus `other`, episode by episode: the interval of a paired comparison."""
        return Figure.of(self.accuracies[method] - self.accuracies[other])

    def best(self, prefix: str) -> str:
        """The most accurate method whose name starts so: a baseline is reported in its best form."""
        return max((m for m in self.accuracies if m.startswith(prefix)), key=lambda m: self.accuracies[m].mean())

    def as_dict(self) -> dict[str, Any]:
        """Everything but the single episodes, ready for JSON."""
        return {
            "episodes": asdict(self.episodes),
            "fingerprint": self.fingerprint,
            "accuracy": {name: asdict(self.figure(name)) for name in self.accuracies},
            "difference_from_DeepEMD": {
                name: asdict(self.difference("DeepEMD", name)) for name in self.accuracies if name != "DeepEMD"
            },
            "seconds": self.seconds,
            "versions": versions(),
        }


def versions() -> dict[str, str]:
    """What ran: for every report."""
    import numba

    import deepemd

    return {
        "deepemd": deepemd.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "numba": numba.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
    }


def embed(model: DeepEMD, images: Images, *, batch_size: int = 256, bf16: bool = False) -> Tensor:
    """Embed every image of a split once: (N, nodes, C) float32, on the CPU.

    Args:
        model: put into evaluation mode for the time being.
        images: the split.
        batch_size: images encoded together; lower it where memory is short.
        bf16: encode under bfloat16 autocast: about twice as fast on CPUs that have it, within 0.1 % accuracy.
    """
    from deepemd.training.batches import read
    from deepemd.training.device import keep_freed_memory

    if model.mean.device.type == "cpu":
        keep_freed_memory()
    pixels = images.pixels(model.resize)
    device, training = model.mean.device, model.training
    model.eval()
    nodes: list[Tensor] = []
    try:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            starts = range(0, len(images), batch_size)
            for start in track(starts, f"embedding {images.name}", len(starts)):
                batch = read(pixels, np.arange(start, min(start + batch_size, len(images))))  # (B, 3, S, S)
                nodes.append(model.embed(batch.to(device)).float().cpu())  # (B, N, C)
    finally:
        model.train(training)
    return torch.cat(nodes)


def score(
    nodes: Tensor,
    episodes: Sequence[Episode] | EpisodeSampler,
    methods: Mapping[str, Method] = METHODS,
    *,
    quiet: bool = False,
) -> dict[str, NDArray[np.float64]]:
    """Accuracy of every method on every episode over cached embeddings (N, nodes, C).

    Args:
        nodes: the node sets of all images, on any device.
        episodes: all of one shape; their indices count the first dimension of `nodes`.
        methods: name -> how to classify.
        quiet: no progress bar.

    Returns:
        name -> (n_episodes,) accuracy of each episode, in 0..1.
    """
    n_way, n_shot, n_query = episodes[0].n_way, episodes[0].n_shot, episodes[0].n_query
    size = nodes[0].numel() * nodes.element_size() * n_way * (n_shot + n_query)
    together = max(1, _BATCH_BYTES // size)
    labels = torch.arange(n_way * n_query, device=nodes.device) % n_way  # (Q,)
    hits: dict[str, list[Tensor]] = {name: [] for name in methods}
    with torch.inference_mode():
        starts = range(0, len(episodes), together)
        for start in starts if quiet else track(starts, "matching episodes", len(starts)):
            some = [episodes[i] for i in range(start, min(start + together, len(episodes)))]
            query = nodes[torch.from_numpy(np.stack([e.query for e in some]))]  # (E, Q, N, C)
            shots = nodes[torch.from_numpy(np.stack([e.support for e in some]))]  # (E, n_shot * n_way, N, C)
            shots = shots.unflatten(1, (n_shot, n_way))  # (E, n_shot, n_way, N, C)
            classes = {
                _mean_of_shots: shots.mean(1),  # (E, n_way, N, C)
                _all_nodes: shots.transpose(1, 2).flatten(2, 3),  # (E, n_way, n_shot * N, C)
            }
            for name, method in methods.items():
                predicted = method.logits(query, classes[method.shots]).argmax(-1)  # (E, Q)
                hits[name].append((predicted == labels).double().mean(-1))  # (E,)
    return {name: torch.cat(parts).cpu().numpy() for name, parts in hits.items()}


def evaluate(model: DeepEMD, images: Images, episodes: Episodes | None = None, *, bf16: bool = False) -> Evaluation:
    """Accuracy of DeepEMD and of the baselines on the same embeddings and the same episodes.

    Args:
        model: the model to judge; its temperature does not matter, its `weights` do.
        images: the split to draw episodes from.
        episodes: which; 1,000 5-way 1-shot episodes unless said otherwise.
        bf16: see :func:`embed`.

    Raises:
        InputError: the split cannot give such episodes.

    Source: section 5.2 of the paper; the baselines are those of its tables.
    """
    episodes = episodes or Episodes()
    if episodes.n_episodes < 1 or episodes.n_query < 1:
        raise InputError(f"n_episodes and n_query must be at least 1, got {episodes.n_episodes} and {episodes.n_query}")
    sampler = episodes.sampler(images)  # refuses impossible episodes before the long work
    began = time.perf_counter()
    nodes = embed(model, images, bf16=bf16)
    embedded = time.perf_counter()
    accuracies = score(nodes, sampler, {**METHODS, "DeepEMD": deepemd_method(model)})
    seconds = {"embedding": embedded - began, "matching": time.perf_counter() - embedded}
    return Evaluation(accuracies, episodes, images.fingerprint.as_dict(), seconds)

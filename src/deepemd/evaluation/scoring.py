"""Compute the accuracy over embeddings: batches of episodes are matched, each on its own thread."""

import time
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepemd.data import Episode, EpisodeSampler
from deepemd.evaluation.methods import Logits
from deepemd.matching.cost import NodeSets, measured
from deepemd.processes import all_gather, shard, world_size
from deepemd.progress import track
from deepemd.threads import single_threads, thread_count

__all__ = ["score"]

# Bytes of embeddings that a batch of episodes gathers: five 5-shot episodes, which the SFC fits together.
_BATCH_BYTES = 32_000_000
_MEASURED = 256  # images that are measured together


def score(
    nodes: Tensor,
    episodes: Sequence[Episode] | EpisodeSampler,
    methods: Mapping[str, Logits],
    *,
    quiet: bool = False,
    seconds: dict[str, float] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Compute the accuracy of every method on every episode over embeddings (N, nodes, C).

    Every image is measured once, see :func:`deepemd.matching.cost.measured`. Each of PyTorch's threads matches a batch
    of episodes at a time; the accuracies do not depend on their number. Several processes share the episodes, and each
    receives all accuracies: see :mod:`deepemd.processes`. After Ctrl-C, the episodes that all methods have finished are
    returned; if there are none, or several processes, KeyboardInterrupt is raised.

    Args:
        nodes: the node sets of all images, on any device.
        episodes: episodes of one shape, whose indices are rows of `nodes`.
        methods: name -> function that classifies, called from several threads; see
            :func:`deepemd.evaluation.methods.choose`.
        quiet: show no progress.
        seconds: if given, the time of each method is added to it: the sum over threads, divided by their number.

    Returns:
        name -> (n_episodes,) accuracy of each episode, in 0..1.
    """
    n_way, n_shot, n_query = episodes[0].n_way, episodes[0].n_shot, episodes[0].n_query
    images = n_way * (n_shot + n_query)  # of an episode
    together = min(len(episodes), max(1, _BATCH_BYTES // (images * nodes[0].numel() * nodes.element_size())))
    labels = torch.arange(n_way * n_query, device=nodes.device) % n_way  # (Q,)
    count = thread_count(nodes.device)
    with torch.inference_mode():
        spaces = [nodes.new_empty(together * images, *nodes.shape[1:]) for _ in range(count)]  # reused

    def match(start: int, split: NodeSets) -> dict[str, tuple[Tensor, float]]:
        """Return the accuracies (E,) of every method on a batch of episodes, and its time."""
        some = [episodes[i] for i in range(start, min(start + together, len(episodes)))]
        index = torch.from_numpy(np.stack([np.concatenate((e.support, e.query)) for e in some])).to(nodes.device)
        space = spaces.pop()
        try:
            with torch.inference_mode():
                torch.index_select(nodes, 0, index.flatten(), out=space[: index.numel()])
                known = (t.index_select(0, index.flatten()) for t in split[1:])
                drawn = NodeSets(*(t.unflatten(0, index.shape) for t in (space[: index.numel()], *known)))
                shots = drawn.nodes[:, : n_shot * n_way].unflatten(1, (n_shot, n_way))  # (E, n_shot, n_way, N, C)
                query = NodeSets(*(t[:, n_shot * n_way :] for t in drawn))  # (E, Q, N, C)
                return {name: timed(logits, query, shots) for name, logits in methods.items()}
        finally:
            spaces.append(space)

    def timed(logits: Logits, query: NodeSets, shots: Tensor) -> tuple[Tensor, float]:
        began = time.perf_counter()
        predicted = logits(query, shots).argmax(-1)  # (E, Q)
        return (predicted == labels).double().mean(-1), time.perf_counter() - began

    starts = shard(range(0, len(episodes), together))
    batches: list[dict[str, tuple[Tensor, float]]] = []
    try:
        with single_threads(count) as run:
            blocks = list(run(torch.inference_mode()(measured), nodes.split(_MEASURED)))
            split = NodeSets(nodes, *(torch.cat(parts) for parts in list(zip(*blocks, strict=True))[1:]))
            found = run(partial(match, split=split), starts)
            count = min(len(starts) * together, len(episodes))
            batches.extend(found if quiet else track(found, "matching", count, "episodes", each=together))
    except KeyboardInterrupt:
        if not batches or world_size() > 1:
            raise
    if seconds is not None:
        for name in methods:
            seconds[name] = seconds.get(name, 0.0) + sum(batch[name][1] for batch in batches) / count
    hits = {name: [batch[name][0] for batch in batches] for name in methods}
    return {name: all_gather(torch.cat(parts) if parts else None).cpu().numpy() for name, parts in hits.items()}

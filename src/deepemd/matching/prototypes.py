"""The structured fully connected layer (SFC): one learnable node set for each class, fitted to its shots."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, get_args

import torch
from torch import Generator, Tensor

from deepemd.matching._descent import Descent
from deepemd.matching.head import Weights
from deepemd.matching.shots import members_of
from deepemd.threads import single_threads, stopped, thread_count

__all__ = ["class_means", "fit_prototypes"]

# Episodes that are fitted together: enough that matrix products outweigh calls, few enough for the cache.
_TOGETHER = 8

_NOT_FINITE = "support holds NaN or an infinite value; embeddings must be finite: did training diverge?"
_DIVERGED = "the prototypes diverge: lr is too large for these embeddings; lower it"


def class_means(support: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Return the mean of the node sets of each class, node by node, from which the SFC starts.

    Args:
        support: (..., K, m, C) node sets.
        labels: (..., K) int64, classes from 0 to n_way - 1; each class at least once.
        n_way: number of classes.

    Returns:
        (..., n_way, m, C), of the type of support.

    Raises:
        ValueError: shapes that do not match, a label that is not a class, or a class without a shot.

    >>> class_means(torch.tensor([[[1.0]], [[2.0]], [[4.0]]]), torch.tensor([0, 1, 1]), 2).flatten()
    tensor([1., 3.])
    """
    member = members_of(support, labels, n_way).to(support)  # (..., K, n_way)
    return torch.einsum("...kw,...kmc->...wmc", member, support) / member.sum(-2)[..., None, None]


def fit_prototypes(
    support: Tensor,
    labels: Tensor,
    *,
    n_way: int,
    epochs: int = 100,
    lr: float = 0.1,
    batch_size: int = 4,
    momentum: float = 0.9,
    dampening: float = 0.9,
    temperature: float = 12.5,
    weights: Weights = "cross-reference",
    floor: float = 1e-3,
    detach_weights: bool = False,
    generator: Generator | None = None,
    track: Callable[[Iterable[Any], str, int], Iterable[Any]] | None = None,
) -> Tensor:
    """Fit a node set to the shots of each class, the paper's structured fully connected layer, for batches of episodes.

    The node sets start as the class means; stochastic gradient descent changes them until the head classifies the shots
    correctly. The encoder is not involved. Classify with ``emd_logits(query, prototypes)``.

    Args:
        support: (..., K, m, C) float, the node sets of an episode's shots; leading dimensions are episodes.
        labels: (..., K) int64, their classes, 0 to n_way - 1; each class at least once, not necessarily equally often.
        n_way: number of classes.
        epochs: passes over the shots. 100 in the paper; fewer save time.
        lr: learning rate. The authors' code uses 0.1 in training and 100 in evaluation; the best value depends on the
            size of the embeddings: try several on validation classes.
        batch_size: number of shots of a step; a new order is drawn in every epoch, the same for all episodes.
        momentum, dampening: settings of the descent. The authors' dampening of 0.9, where 0 is usual, shortens steps.
        temperature, weights, floor: settings of the head, as in :func:`deepemd.matching.emd_logits`.
        detach_weights: True gives the nodes' weights no gradient, as in the authors' OpenCV path.
        generator: generator that draws the order; by default PyTorch's global one.
        track: function that shows progress, such as :func:`deepemd.progress.track`; by default nothing is shown.

    Returns:
        (..., n_way, m, C) node sets, float32 (float64 if support is), detached. Those of an episode do not depend on
        the other episodes.

    Raises:
        ValueError: shapes do not match, a label is not a class, a class has no shot, a setting is out of range, or
            embeddings are not finite, at the start or because lr is far too large.

    Source: section 3.5 of the paper and the authors' code.

    >>> nodes = torch.randn(10, 4, 8, generator=torch.Generator().manual_seed(0))
    >>> labels = torch.arange(10) % 5
    >>> fit_prototypes(nodes, labels, n_way=5, epochs=2).shape
    torch.Size([5, 4, 8])
    """
    _check_settings(epochs=epochs, batch_size=batch_size, lr=lr)
    if weights not in get_args(Weights):
        raise ValueError(f"weights must be 'cross-reference' or 'uniform', got {weights!r}")
    *lead, shots, m, channels = support.shape if support.ndim > 2 else (0, 0, 0)
    with torch.autocast(support.device.type, enabled=False), torch.no_grad():
        support = support if support.dtype == torch.float64 else support.float()
        prototypes = class_means(support, labels, n_way).reshape(-1, n_way, m, channels)  # (E, n_way, m, C)
        episodes = len(prototypes)
        support, labels = support.reshape(episodes, shots, m, channels), labels.reshape(episodes, shots)
        order = list(_batches(epochs, shots, batch_size, generator))

        def begin(some: slice) -> Descent:
            return Descent(
                support[some], labels[some], prototypes[some],
                lr=lr, momentum=momentum, dampening=dampening, temperature=temperature, floor=floor,
                uniform=weights == "uniform", detach_weights=detach_weights,
            )  # fmt: skip

        try:
            fitted = _descend(begin, len(support), order, support.device, track or _untracked)
        except ValueError as error:
            raise ValueError(_DIVERGED if support.isfinite().all() else _NOT_FINITE) from error
        prototypes = torch.cat(fitted) if fitted else prototypes
    if not prototypes.isfinite().all():
        raise ValueError(_DIVERGED)
    return prototypes.view(*lead, n_way, m, channels)


def _batches(epochs: int, shots: int, batch_size: int, generator: Generator | None) -> Iterator[Tensor]:
    """Yield the shots of each step, in a new order in every epoch."""
    for _ in range(epochs):
        yield from torch.randperm(shots, generator=generator).split(batch_size)


def _descend(
    begin: Callable[[slice], Descent],
    episodes: int,
    order: Sequence[Tensor],
    device: torch.device,
    track: Callable[[Iterable[Any], str, int], Iterable[Any]],
) -> list[Tensor]:
    """Fit all episodes, piece by piece."""
    count = thread_count(device)
    size = max(1, min(_TOGETHER, math.ceil(episodes / count)))
    pieces = [slice(k, k + size) for k in range(0, episodes, size)]

    def fit(piece: slice) -> Tensor:
        with torch.no_grad():  # a setting of the thread
            descent = begin(piece)
            for some in order:
                if stopped():
                    break
                descent.step(some)
            return descent.prototypes()

    with single_threads(count) as run:
        return list(track(run(fit, pieces), "fitting prototypes", len(pieces)))


def _untracked(items: Iterable[Any], description: str, total: int) -> Iterable[Any]:  # noqa: ARG001
    return items


def _check_settings(**settings: float) -> None:
    for name, value in settings.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be above 0 and finite, got {value}; leave it out for the default")

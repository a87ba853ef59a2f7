"""The methods that an evaluation compares, by name: each turns the nodes of queries and shots into logits."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from deepemd.errors import InputError
from deepemd.matching import (
    class_means,
    cosine_classifier_logits,
    emd_logits,
    fit_prototypes,
    fusion_logits,
    linear_logits,
    local_knn_logits,
    matching_net_logits,
    mean_over_shots,
    nearest_shot,
    protonet_logits,
    ridge_logits,
    whiten,
)
from deepemd.matching.cost import NodeSets
from deepemd.model import DeepEMD
from deepemd.nodes import power_transform
from deepemd.transport.solvers import sinkhorn

__all__ = ["METHODS", "SFC", "Logits", "choose"]

Logits = Callable[[NodeSets, Tensor], Tensor]
"""A method, called from any thread: measured query (E, Q, n, C) and shots (E, n_shot, n_way, m, C) -> (E, Q, n_way)."""


@dataclass(frozen=True)
class SFC:
    """The structured fully connected layer: a node set for each class, fitted to its shots.

    Args:
        epochs: passes over the shots.
        lr: learning rate; the authors evaluate with 100. A good one grows with the square of the embeddings' length:
            start with 0.1 times the squared length of a node, see docs/sfc.md.
        batch_size: shots of a step.
        seed: seed of the order of the shots.
    """

    epochs: int = 100
    lr: float = 100.0
    batch_size: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "lr", "batch_size"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"sfc.{name} is {getattr(self, name)}: it must be above 0")

    def fit(self, model: DeepEMD, support: Tensor, labels: Tensor, n_way: int) -> Tensor:
        """Fit the prototypes to the head of a model; see :func:`deepemd.matching.fit_prototypes`.

        The shots have the same order in every episode, so that an episode's result does not depend on its batch.

        Args:
            model: the model whose head classifies.
            support: (..., K, m, C), the nodes of the shots.
            labels: int64 (..., K), from 0 to n_way - 1.
            n_way: number of classes.

        Returns:
            (..., n_way, m, C)

        Raises:
            InputError: the model has context, which the fit does not support.
        """
        refuse_context(model)
        return fit_prototypes(
            support,
            labels,
            n_way=n_way,
            epochs=self.epochs,
            lr=self.lr,
            batch_size=self.batch_size,
            temperature=model.temperature,
            weights=model.weights,
            floor=model.floor,
            generator=torch.Generator().manual_seed(self.seed),
        )


def refuse_context(model: DeepEMD) -> None:
    """Raise InputError for a model with context, because the SFC is fitted to the head without context."""
    if model.context:
        raise InputError(
            f"deepemd-sfc fits node sets to the head without context, but this model's context is {model.context:g}:"
            " leave it out, or set the model's context to 0"
        )


@dataclass(frozen=True)
class Method:
    """A method of classification."""

    title: str  # name in tables
    make: Callable[[DeepEMD, SFC], Logits]
    several_shots: bool = False  # whether it equals another method for one shot


def _deepemd(model: DeepEMD, _: SFC) -> Logits:
    return lambda query, shots: _emd(model)(query, shots.mean(1))


def _emd(model: DeepEMD, **settings: Any) -> Logits:
    """Return the model's head with some settings changed: query (E, Q, n, C), support (E, S, m, C) -> (E, Q, S)."""
    return partial(emd_logits, **{"temperature": model.temperature, **model.head, **settings})


def _altered(**settings: Any) -> Callable[[DeepEMD, SFC], Logits]:
    """Return the method that applies the head, with some settings changed, to the mean of the shots' node sets."""

    def make(model: DeepEMD, _: SFC) -> Logits:
        head = _emd(model, **settings)
        return lambda query, shots: head(query, shots.mean(1))

    return make


def _sfc(model: DeepEMD, sfc: SFC) -> Logits:
    refuse_context(model)

    def logits(query: NodeSets, shots: Tensor) -> Tensor:
        support, labels = _flat(shots)
        with torch.inference_mode(False):
            prototypes = sfc.fit(model, support.clone(), labels.clone(), n_way=shots.shape[2])  # (E, n_way, m, C)
        return _emd(model)(query, prototypes)

    return logits


def _whitened(model: DeepEMD, _: SFC) -> Logits:
    """Return the head on nodes that are whitened by the shots."""

    def logits(query: NodeSets, shots: Tensor) -> Tensor:
        support, labels = _flat(shots)
        n_way = shots.shape[2]
        found = []
        for e, (one, its) in enumerate(zip(support, labels, strict=True)):  # a matrix of C x C for each episode
            whitening = whiten(one, its, n_way=n_way)
            means = class_means(whitening(one), its, n_way)
            head = {"temperature": model.temperature, **model.head}
            found.append(emd_logits(whitening(query.nodes[e]), means, **head))
        return torch.stack(found)

    return logits


def _by_shots(combine: Callable[..., Tensor]) -> Callable[[DeepEMD, SFC], Logits]:
    """Return the method that matches queries with every single shot; `combine` turns its logits into one per class."""

    def make(model: DeepEMD, _: SFC) -> Logits:
        def logits(query: NodeSets, shots: Tensor) -> Tensor:
            support, labels = _flat(shots)
            return combine(_emd(model)(query, support), labels, n_way=shots.shape[2])

        return logits

    return make


def _of_means(head: Callable[[Tensor, Tensor], Tensor]) -> Callable[[DeepEMD, SFC], Logits]:
    """Return a head over one node set per class: the mean of the shots' node sets."""
    return lambda _model, _sfc: lambda query, shots: head(query.nodes, shots.mean(1))


def _of_all_nodes(head: Callable[[Tensor, Tensor], Tensor]) -> Callable[[DeepEMD, SFC], Logits]:
    """Return a head over one node set per class: the nodes of all its shots together."""
    return lambda _model, _sfc: lambda query, shots: head(query.nodes, shots.transpose(1, 2).flatten(2, 3))


def _local_knn(query: Tensor, support: Tensor, *, centred: bool) -> Tensor:
    """Classify by the three nearest neighbours, or by all if there are fewer."""
    return local_knn_logits(query, support, k=min(3, support.shape[-2]), centred=centred)


def _fitted(head: Callable[..., Tensor]) -> Callable[[DeepEMD, SFC], Logits]:
    """Return a classifier that is fitted to the single shots."""

    def logits(query: NodeSets, shots: Tensor) -> Tensor:
        support, labels = _flat(shots)
        return head(query.nodes, support, labels, n_way=shots.shape[2])

    return lambda _model, _sfc: logits


def _ridge_on_nodes(query: Tensor, support: Tensor, labels: Tensor, *, n_way: int) -> Tensor:
    """Classify by ridge regression on nodes of length 1, one episode at a time: each takes a matrix of C x C."""
    query, support = (power_transform(nodes, 1) for nodes in (query, support))
    each = zip(query, support, labels, strict=True)
    return torch.stack([ridge_logits(one, shots, its, n_way=n_way) for one, shots, its in each])


def _flat(shots: Tensor) -> tuple[Tensor, Tensor]:
    """Flatten the shots (E, n_shot, n_way, m, C) to (E, K, m, C), and return them with their labels (E, K)."""
    labels = torch.arange(shots.shape[1] * shots.shape[2], device=shots.device) % shots.shape[2]
    return shots.flatten(1, 2), labels.expand(len(shots), -1)


METHODS: Mapping[str, Method] = {
    "deepemd": Method("DeepEMD", _deepemd),
    "deepemd-sfc": Method("DeepEMD, SFC", _sfc),
    "deepemd-average": Method("DeepEMD, mean over shots", _by_shots(mean_over_shots), several_shots=True),
    "deepemd-nearest": Method("DeepEMD, nearest shot", _by_shots(nearest_shot), several_shots=True),
    "deepemd-whitened": Method("DeepEMD, whitened nodes", _whitened),
    "ridge-nodes": Method("ridge on nodes", _fitted(_ridge_on_nodes)),
    "ridge": Method("ridge on means", _fitted(partial(ridge_logits, pooled=True, penalty=0.1))),
    "uniform": Method("EMD, uniform weights", _altered(weights="uniform")),
    # so large an entropy takes 0.1 s per episode on two cores; 0.01, nearly exact, takes 3 to 30 s
    "sinkhorn": Method("Sinkhorn EMD (0.1)", _altered(transport=partial(sinkhorn, epsilon=0.1, tolerance=1e-2))),
    "protonet-cosine": Method("ProtoNet (cosine)", _of_means(protonet_logits)),
    "protonet-centred": Method("ProtoNet (centred cosine)", _of_means(partial(protonet_logits, centred=True))),
    "protonet-euclidean": Method("ProtoNet (Euclidean)", _of_means(partial(protonet_logits, similarity="euclidean"))),
    "local-knn-1": Method("local k-NN (k = 1)", _of_all_nodes(local_knn_logits)),
    "local-knn-3": Method("local k-NN (k = 3)", _of_all_nodes(partial(_local_knn, centred=False))),
    "local-knn-centred": Method("local k-NN (k = 3, centred)", _of_all_nodes(partial(_local_knn, centred=True))),
    "matching-net": Method("MatchingNet", _fitted(matching_net_logits), several_shots=True),
    "fusion": Method("prediction fusion", _of_means(fusion_logits)),
    "cosine-classifier": Method("cosine classifier", _fitted(cosine_classifier_logits)),
    "linear": Method("linear classifier", _fitted(linear_logits)),
}
"""Name on the command line -> method."""


def choose(names: str, model: DeepEMD, *, n_shot: int, sfc: SFC | None = None) -> dict[str, Logits]:
    """Return the named methods for a model: title -> function that classifies.

    Args:
        names: names of ``METHODS``, separated by commas. The common beginning of several names (``protonet``,
            ``local-knn``) stands for all of them, and ``all`` for every method.
        model: the model, whose temperature and weights the methods use.
        n_shot: labelled images of a class. With one shot, ``all`` leaves out methods that equal another. For a model
            with context, it leaves out the SFC.
        sfc: settings of ``deepemd-sfc``.

    Raises:
        InputError: a name is unknown, or the SFC is requested for a model with context.

    >>> from deepemd import conv4
    >>> list(choose("deepemd,local-knn", DeepEMD(conv4()), n_shot=1))
    ['DeepEMD', 'local k-NN (k = 1)', 'local k-NN (k = 3)', 'local k-NN (k = 3, centred)']
    """
    chosen: dict[str, Logits] = {}
    for name in (part.strip() for part in names.split(",")):
        if name == "all":
            left_out = {"deepemd-sfc"} if model.context else set()
            found = [
                k for k, method in METHODS.items() if k not in left_out and (n_shot > 1 or not method.several_shots)
            ]
        else:
            found = [name] if name in METHODS else [key for key in METHODS if key.startswith(f"{name}-")]
        if not found:
            raise InputError(f"method: there is no {name!r}; choose from all, {', '.join(METHODS)}")
        chosen |= {METHODS[key].title: METHODS[key].make(model, sfc or SFC()) for key in found}
    return chosen

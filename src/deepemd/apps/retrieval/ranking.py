"""Evaluate an index: search for the other images of each image's class, by pooled cosine and by the EMD."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepemd.apps.reports.tables import TextTable, signed
from deepemd.apps.retrieval.index import Index
from deepemd.data.folders import LOOSE
from deepemd.errors import InputError
from deepemd.evaluation.intervals import MeanCI
from deepemd.matching import protonet_logits
from deepemd.progress import track
from deepemd.versions import versions

__all__ = ["MEASURES", "Ranking", "evaluate_index", "measures"]

_RANKS = (1, 2, 4, 8)
MEASURES = (*(f"Recall@{k}" for k in _RANKS), "mAP")
EMD = "EMD re-ranking"
_CENTRED, _COSINE = "pooled centred cosine", "pooled cosine"
_BATCH = 64  # queries ranked at a time


@dataclass(frozen=True)
class Ranking:
    """Results of three ways to sort the images of an index, over the same queries.

    Attributes:
        values: way -> measure -> (Q,) the value of each query, in 0..1.
        shortlist: number of images that the EMD sorted.
        classes, images: numbers of classes and images in the index.
        fingerprint: sha256 of the images.
        whiten: what the nodes of the index are whitened by; None if they are not.
    """

    values: dict[str, dict[str, NDArray[np.float64]]] = field(repr=False)
    shortlist: int
    classes: int
    images: int
    fingerprint: str
    whiten: str | None = None

    def mean(self, way: str, measure: str) -> MeanCI:
        """Return the mean over the queries, with its 95 % interval."""
        return MeanCI.of(self.values[way][measure])

    def difference(self, measure: str) -> MeanCI:
        """Return the paired difference, over the queries, of EMD re-ranking minus the better cosine."""
        return MeanCI.of(self.values[EMD][measure] - self.values[self.best_cosine(measure)][measure])

    def best_cosine(self, measure: str) -> str:
        """Return the name of the cosine with the larger mean, so that the baseline is reported in its best form."""
        return max((_CENTRED, _COSINE), key=lambda way: self.values[way][measure].mean())

    def table(self) -> TextTable:
        """Return the table: a row for each way and one for the paired difference."""
        queries = len(self.values[EMD]["mAP"])
        title = (
            f"{queries:,} queries, {self.images:,} images of {self.classes:,} classes, shortlist {self.shortlist};"
            " in % ± 95 % interval"
        )
        rows = [[way, *(str(self.mean(way, measure)) for measure in MEASURES)] for way in self.values]
        rows.append(["EMD minus the better cosine", *(signed(self.difference(measure)) for measure in MEASURES)])
        return TextTable(title, ["order", *MEASURES], rows)

    def as_dict(self) -> dict[str, Any]:
        """Return the results for JSON, without single queries."""

        def plain(figure: MeanCI) -> dict[str, float]:
            return {"mean": figure.mean, "ci95": figure.ci95}

        return {
            "queries": len(self.values[EMD]["mAP"]),
            "images": self.images,
            "classes": self.classes,
            "shortlist": self.shortlist,
            "fingerprint": self.fingerprint,
            "whiten": self.whiten,
            "figures": {way: {m: plain(self.mean(way, m)) for m in MEASURES} for way in self.values},
            "EMD_minus_the_better_cosine": {
                m: {"than": self.best_cosine(m), **plain(self.difference(m))} for m in MEASURES
            },
            "versions": versions(),
        }


def evaluate_index(index: Index, *, queries: int | None = None, shortlist: int = 100, seed: int = 0) -> Ranking:
    """Search an index for the class of each of its own images.

    Three ways to sort all other images are compared on the same queries: by the cosine of the pooled embeddings; by the
    cosine after centring over the channels; and by the latter with its first `shortlist` images re-ranked by the EMD.
    An image without a class, or whose class has no other image, is not a query.

    Recall@k is 1 if an image of the class is among the first k, else 0. The average precision of a query is the mean of
    the precision at the rank of each image of its class; mAP is its mean over the queries. Intervals are over the
    queries; the images and classes are fixed.

    Args:
        index: an open index; its classes are the folders of its images.
        queries: number of images to draw at random as queries; by default all of them.
        shortlist: as in :meth:`deepemd.apps.retrieval.index.Index.search`.
        seed: seed of the random queries.

    Raises:
        InputError: `queries` or `shortlist` is below 1, or the index has fewer than two classes, or no class with two
            images.
    """
    for name, value in (("queries", queries), ("shortlist", shortlist)):
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}: it must be at least 1")
    labels = torch.from_numpy(index.images.labels)
    classes = [label for label in index.images.classes if label != LOOSE]
    several = np.bincount(index.images.labels)[index.images.labels] > 1
    asked = torch.from_numpy(np.flatnonzero(several & (np.array(index.images.classes)[index.images.labels] != LOOSE)))
    if len(classes) < 2 or not len(asked):
        raise InputError(
            f"{index.path}: {len(index)} images in {len(classes)} classes: an evaluation needs at "
            "least two folders of images, one of them with at least two images"
        )
    if queries is not None and queries < len(asked):
        asked = asked[np.sort(np.random.default_rng(seed).permutation(len(asked))[:queries])]
    shortlist = min(shortlist, len(index) - 1)
    found: dict[str, list[dict[str, Tensor]]] = {_COSINE: [], _CENTRED: [], EMD: []}
    for some in track(asked.split(_BATCH), "ranking", len(asked), "queries", each=_BATCH):
        nodes = index.rows(some.numpy())  # (q, n, C)
        cosine = protonet_logits(nodes, index.pooled[:, None])  # (q, N); the mean of one pooled node is itself
        orders = {_COSINE: _order(cosine, some), _CENTRED: _order(index.cosines(nodes), some)}
        first, rest = orders[_CENTRED].split([shortlist, len(index) - 1 - shortlist], dim=1)
        by_emd = index.similarities(nodes, first).argsort(dim=1, descending=True, stable=True)
        orders[EMD] = torch.cat((first.gather(1, by_emd), rest), dim=1)
        for way, order in orders.items():
            found[way].append(measures(labels[order] == labels[some, None]))
    values = {
        way: {measure: torch.cat([part[measure] for part in parts]).numpy() for measure in MEASURES}
        for way, parts in found.items()
    }
    return Ranking(values, shortlist, len(classes), len(index), index.images.fingerprint.sha256, index.groups)


def _order(scores: Tensor, own: Tensor) -> Tensor:
    """Sort all images except the query itself, the largest score first: scores (q, N) -> int64 (q, N - 1)."""
    scores = scores.scatter(1, own[:, None], -torch.inf)
    return scores.argsort(dim=1, descending=True, stable=True)[:, :-1]


def measures(relevant: Tensor) -> dict[str, Tensor]:
    """Compute the measures of sorted lists.

    Args:
        relevant: bool (Q, K), whether the image at each rank is of the query's class; at least one is.

    Returns:
        measure -> float64 (Q,).

    >>> {name: value.item() for name, value in measures(torch.tensor([[False, True, False, True]])).items()}
    {'Recall@1': 0.0, 'Recall@2': 1.0, 'Recall@4': 1.0, 'Recall@8': 1.0, 'mAP': 0.5}
    """
    hits = relevant.double()
    precision = hits.cumsum(1) / torch.arange(1, hits.shape[1] + 1)  # (Q, K)
    result = {f"Recall@{k}": relevant[:, :k].any(1).double() for k in _RANKS}
    return {**result, "mAP": (precision * hits).sum(1) / hits.sum(1)}

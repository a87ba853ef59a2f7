"""Compare images with classes by nodes that are adapted to the photos of the classes.

There are three ways of comparison, all in closed form:

- "whiten": the EMD between nodes that are whitened by the photos (:mod:`deepemd.matching.whitening`);
- "ridge": the evidence of each part by ridge regression on the nodes (:mod:`deepemd.matching.ridge`);
- "none": the EMD between the nodes as they are.

Where the model reads photos at several sizes, each way can use the nodes of all sizes or those of the smallest alone.
"auto" begins with what suits the number and the size of the photos, and takes another setting if the photos show that
it is better: each photo is classified by the others (cross-validation), and the log loss must be clearly smaller.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Self, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from deepemd.classifier.calibration import fit_temperature, prior_temperature
from deepemd.classifier.folds import folds_of, series_of
from deepemd.classifier.support import Support
from deepemd.errors import InputError
from deepemd.matching import NodeMoments, Ridge, Whitening, emd_logits, ridge_from, whitening_from
from deepemd.model import DeepEMD
from deepemd.nodes import MultiScale
from deepemd.threads import single_threads, thread_count

__all__ = ["ADAPT", "Adapt", "Comparison", "Head", "Setting", "Way", "adapted", "check_adapt"]

Adapt = Literal["auto", "whiten", "ridge", "none"]
ADAPT = get_args(Adapt)
Way = Literal["whiten", "ridge", "none"]

_FEW = 2.5  # photos of a class on average, below which "auto" begins with "ridge"
_ENOUGH = 20  # photos that are left out in turn, below which settings are not compared
_ENLARGED = 3.0  # a photo that is enlarged more than this shows nothing new
_SHRINKAGE, _PENALTY = 0.5, 1.0


class Setting(NamedTuple):
    """A way to compare images with classes."""

    way: Way
    smallest: bool = False  # use the nodes of the smallest input size alone

    @property
    def name(self) -> str:
        return f"{self.way}, smallest size" if self.smallest else self.way


def check_adapt(adapt: object) -> None:
    """Raise an error if this is no way of adaptation.

    Raises:
        InputError: `adapt` is none of :data:`ADAPT`.
    """
    if adapt not in ADAPT:
        raise InputError(f"adapt is {adapt!r:.80}: choose one of {', '.join(ADAPT)}")


@dataclass(frozen=True)
class Head:
    """Compares images with M classes; made by :meth:`fit`.

    Attributes:
        model: the model, for the settings of the transport.
        setting: how images and classes are compared.
        classes: (M, N, C) the mean node set of each class, as it is compared.
        whitening: what whitens nodes, for "whiten".
        ridge: the regression, for "ridge".
    """

    model: DeepEMD = field(repr=False)
    setting: Setting
    classes: Tensor = field(repr=False)
    whitening: Whitening | None = field(default=None, repr=False)
    ridge: Ridge | None = field(default=None, repr=False)

    @classmethod
    def fit(cls, model: DeepEMD, support: Support, setting: Setting) -> Self:
        """Fit the comparison to the photos of the classes."""
        with torch.inference_mode():
            nodes, means = (_used(model, x, setting) for x in (support.nodes, support.prototypes))
            moments = _moments(nodes, support, setting)
            return cls._fit(model, setting, moments, means if moments is None else means.to(nodes))

    @classmethod
    def _fit(cls, model: DeepEMD, setting: Setting, moments: NodeMoments | None, means: Tensor) -> Self:
        """Fit the comparison to the moments of the nodes, and to the mean node sets (M, N, C) of the classes."""
        if moments is None:
            return cls(model, setting, means)
        if setting.way == "ridge":
            square = float(moments.square.trace() / moments.nodes.sum())  # mean squared length of a node
            return cls(model, setting, means, ridge=ridge_from(moments, penalty=_PENALTY * max(square, 1e-12)))
        whitening = whitening_from(moments, shrinkage=_SHRINKAGE)
        return cls(model, setting, whitening(means), whitening=whitening)

    def prepare(self, nodes: Tensor) -> Tensor:
        """Return nodes (K, N, C) as this head compares them: those of its input sizes, adapted."""
        return self._adapt(_used(self.model, nodes, self.setting))

    def _adapt(self, nodes: Tensor) -> Tensor:
        with torch.inference_mode():
            return nodes if self.whitening is None else self.whitening(nodes)

    def similarities(self, nodes: Tensor) -> Tensor:
        """Compare images with the classes.

        Args:
            nodes: (Q, N, C) float32.

        Returns:
            (Q, M) float64: 1 - EMD, or for "ridge" the evidence for each class, which sums to 1.
        """
        return self._similarities(_used(self.model, nodes, self.setting))

    def _similarities(self, nodes: Tensor) -> Tensor:
        with torch.inference_mode():
            if self.ridge is not None:
                return self.ridge.logits(nodes.double())
            nodes = self._adapt(nodes)
            return emd_logits(nodes.double(), self.classes.double(), temperature=1.0, **self.model.head)

    def evidence(self, nodes: Tensor) -> NDArray[np.float64] | None:
        """Return what each node of an image, (N, C), adds to the evidence for each class, (N, M); None without "ridge".

        Their sum is the similarity of the class minus 1 / M.
        """
        if self.ridge is None:
            return None
        with torch.inference_mode():
            nodes = self.prepare(nodes[None]).double()
            shares = self.ridge.evidence(nodes)[0] - 1 / len(self.classes)  # (N, M)
            found: NDArray[np.float64] = (self.ridge.weights(nodes)[0, :, None] * shares).numpy()
            return found

    def nearest(self, nodes: Tensor, photos: Tensor) -> int:
        """Return which of some photos is most similar to an image; nodes (N, C) and (K, N, C) from :meth:`prepare`."""
        with torch.inference_mode():
            query, support = nodes[None].double(), photos.double()
            return int(emd_logits(query, support, temperature=1.0, **self.model.head)[0].argmax())


class Comparison(NamedTuple):
    """The setting that was chosen for a support set, and how the photos are classified when they are left out."""

    setting: Setting
    which: Tensor  # (P,) the examples that were left out in turn
    similarity: Tensor  # (P, M) float64 of each with the classes, fitted without it
    reason: str  # why this setting was chosen


def adapted(model: DeepEMD, support: Support, adapt: Adapt) -> Comparison:
    """Choose how images are compared with the classes of a support set, and compare each photo with the others."""
    settings, folds = _settings(model, support, adapt), folds_of(support, series_of(model, support))
    labels = support.labels[torch.cat(folds)] if folds else support.labels[:0]
    if len(labels) < _ENOUGH:  # too few to compare settings with each other
        settings = settings[:1]
    with single_threads(thread_count(support.nodes.device)) as run:
        rests = [_Rest(model, support, setting) for setting in settings]
        pieces = [(rest, fold) for rest in rests for fold in folds]
        found = list(run(lambda piece: piece[0].similarities(piece[1]), pieces))
    empty = torch.zeros(0, len(support.count), dtype=torch.float64)
    tried = [torch.cat((empty, *found[k * len(folds) :][: len(folds)])) for k in range(len(settings))]
    place, reason = _choose(settings, tried, labels, adapt)
    which = torch.cat(folds) if folds else support.labels[:0]
    order = which.argsort()
    return Comparison(settings[place], which[order], tried[place][order], reason)


class _Rest:
    """Compares photos of a support set with the classes, which are fitted without these photos."""

    def __init__(self, model: DeepEMD, support: Support, setting: Setting) -> None:
        self.model, self.setting, self.labels, self.count = model, setting, support.labels, support.count
        with torch.inference_mode():
            self.nodes, self.total = (_used(model, x, setting) for x in (support.nodes, support.total))
            if setting.way != "none" and len(self.labels) == support.count.sum():
                self.nodes = _in_span(self.nodes)
                total = self.nodes.new_zeros(len(self.count), *self.nodes.shape[1:], dtype=torch.float64)
                self.total = total.index_add(0, self.labels, self.nodes.double())
            self.moments = _moments(self.nodes, support, setting)

    def similarities(self, photos: Tensor) -> Tensor:
        """Compare some photos (P,) with the classes without them: (P, M)."""
        with torch.inference_mode():
            nodes, labels = self.nodes[photos], self.labels[photos]
            total = self.total.index_add(0, labels, nodes.double(), alpha=-1)
            means = total / (self.count - labels.bincount(minlength=len(self.count)))[:, None, None]
            less = None if self.moments is None else self.moments.without(nodes, labels)
            if less is not None:
                means = means.float()
            return Head._fit(self.model, self.setting, less, means)._similarities(nodes)


def _in_span(nodes: Tensor) -> Tensor:
    """Return nodes (K, N, C) in coordinates of the space that they span, (K, N, r), if it has fewer dimensions.

    All inner products stay the same, and so does everything that is computed from them.
    """
    rows = nodes.flatten(0, 1)  # (K N, C)
    if len(rows) >= rows.shape[1]:
        return nodes
    found: Tensor = torch.linalg.qr(rows.mT, mode="r").R.mT.unflatten(0, nodes.shape[:2])
    return found


def _settings(model: DeepEMD, support: Support, adapt: Adapt) -> list[Setting]:
    """Return the settings to try, at most four, the one to begin with first."""
    if adapt != "auto":
        ways: list[Way] = [adapt]
    elif model.power is None:  # an encoder that may have been trained to be matched
        ways = ["none", "whiten"]
    else:
        few = len(support.labels) < _FEW * len(support.count)
        ways = ["ridge", "whiten"] if few else ["whiten", "ridge"]
    sizes = model.regions.sizes if isinstance(model.regions, MultiScale) else ()
    if len(sizes) < 2:
        return [Setting(way) for way in ways]
    if adapt != "auto":
        return [Setting(ways[0], _too_small(support, sizes[1]))]
    smallest = _too_small(support, sizes[1])
    return [Setting(way, small) for small in (smallest, not smallest) for way in ways]


def _too_small(support: Support, size: int) -> bool:
    """Return whether most photos would be enlarged so much for this input size that it shows nothing new."""
    sides = sorted(min(example.size) for example in support.examples)
    return bool(sides) and sides[len(sides) // 2] * _ENLARGED < size


def _used(model: DeepEMD, nodes: Tensor, setting: Setting) -> Tensor:
    """Return the nodes (..., N, C) that a setting uses; those of the smallest input size come first."""
    return nodes[..., : model.node_counts[0], :] if setting.smallest else nodes


def _moments(nodes: Tensor, support: Support, setting: Setting) -> NodeMoments | None:
    return None if setting.way == "none" else NodeMoments.of(nodes, support.labels, len(support.count))


def _choose(settings: Sequence[Setting], tried: Sequence[Tensor], labels: Tensor, adapt: Adapt) -> tuple[int, str]:
    """Return the place of the best setting, and why: the first, unless another has a clearly smaller log loss."""
    first = f'"{settings[0].name}"'
    if len(settings) == 1:
        few = f"as usual for so few photos: {len(labels)} can be left out, and {_ENOUGH} are needed to compare settings"
        return 0, f"{first}, {few if adapt == 'auto' else 'as set'}"
    losses = [
        F.cross_entropy(
            fit_temperature(s, labels, prior=prior_temperature(one.way, s.shape[1])) * s, labels, reduction="none"
        )
        for one, s in zip(settings, tried, strict=True)
    ]
    best, gain = 0, 0.0
    for k in range(1, len(settings)):
        less = losses[0] - losses[k]
        mean, error = float(less.mean()), float(less.std()) / math.sqrt(len(less))
        if mean > 2 * error and mean > gain:
            best, gain = k, mean
    right = [f'"{one.name}" {int((s.argmax(1) == labels).sum())}' for one, s in zip(settings, tried, strict=True)]
    counts = f"of {len(labels):,} photos, each left out in turn, these were given their label: {', '.join(right)}"
    better = f'"{settings[best].name}", as it is clearly better than {first}' if best else f"{first}, as usual"
    return best, f"{better}: {counts}"

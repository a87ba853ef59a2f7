"""How far predictions can be trusted: what the photos of the classes show when they are left out in turn."""

from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from deepemd.classifier.calibration import conformal_threshold, fit_temperature, prior_temperature

__all__ = ["Trust"]

_UNFAMILIAR = 0.05  # share of known photos that may count as unfamiliar if nothing else is set


@dataclass(frozen=True)
class Trust:
    """How P photos were classified by the others, and what follows for new photos.

    Attributes:
        which: (P,) int64, their places among the examples of the support set.
        similarity: (P, M) float64 of each with the M classes, which were fitted without it.
        labels: (P,) int64, their classes.
        way: how they were compared: "whiten", "ridge" or "none".
        reason: why they were compared in this way.
    """

    which: Tensor = field(repr=False)
    similarity: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    way: str
    reason: str

    @cached_property
    def temperature(self) -> float:
        """The temperature T for which softmax(T * similarity) fits these photos, pulled towards a prior."""
        return fit_temperature(
            self.similarity, self.labels, prior=prior_temperature(self.way, self.similarity.shape[1])
        )

    def familiar_from(self, unknown: float | None) -> float:
        """Return the similarity that this share of photos of known classes falls below; by default 5 %."""
        own = self.similarity.gather(1, self.labels[:, None])[:, 0]
        return conformal_threshold(own, _UNFAMILIAR if unknown is None else unknown)

    def set_from(self, coverage: float, temperature: float) -> float:
        """Return the probability that the own class of new photos has with this coverage."""
        own = (temperature * self.similarity).softmax(1).gather(1, self.labels[:, None])[:, 0]
        return conformal_threshold(own, 1 - coverage)

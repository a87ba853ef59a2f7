"""95 % confidence intervals: of a mean over episodes, and of a share."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["MeanCI", "wilson"]


@dataclass(frozen=True)
class MeanCI:
    """A mean over episodes, in 0..1, and half the width of its 95 % confidence interval; printed in percent.

    >>> print(MeanCI.of(np.array([0.5, 0.7, 0.6, 0.6])))
    60.00 ± 6.93
    """

    mean: float
    ci95: float
    episodes: int

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> "MeanCI":
        """Return the mean of one value per episode; ci95 is 1.96 standard deviations / sqrt(episodes)."""
        return cls(float(values.mean()), 1.96 * float(values.std()) / math.sqrt(len(values)), len(values))

    def __str__(self) -> str:
        return f"{100 * self.mean:.2f} ± {100 * self.ci95:.2f}"


def wilson(right: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of the share right / count, which is valid even for few cases and shares near 0 or 1.

    >>> [round(end, 3) for end in wilson(10, 10)]
    [0.722, 1.0]

    Source: Wilson, Probable inference (JASA 1927).
    """
    z, p = 1.959964, right / count
    middle = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)

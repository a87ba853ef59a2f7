"""What the classifier says of an image: its label with its probability, and why."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepemd.errors import InputError
from deepemd.explain.matches import Match
from deepemd.explain.plots import matches_picture

__all__ = ["Explanation", "Prediction"]


class Prediction(NamedTuple):
    """What was found for one image, as :meth:`FewShotClassifier.stream` gives it."""

    label: Any
    """The class; the word for unknown where the image resembles none."""
    probability: float
    """Of the most similar class."""
    runner_up: Any
    """The next most similar class; of an image called unknown, the most similar one."""
    probabilities: NDArray[np.float64]
    """(M,) of every class."""
    similarity: float
    """1 - EMD with the most similar class, at most 1."""
    familiar: bool
    """Whether the image resembles a class at all: as much as 95 % of the photos do, or as ``unknown`` says."""
    error: InputError | None = None
    """Why the image could not be read; then nothing else is meant."""


@dataclass(frozen=True)
class Explanation:
    """Why an image was given its label: which of its parts were matched with which parts of a photo of the class.

    Attributes:
        prediction: the label, its probability, and the others'.
        match: the image beside the photo of its class that is most like it: boxes, weights and the transport plan.
        example: the name of that photo.
    """

    prediction: Prediction
    match: Match = field(repr=False)
    example: str

    def plot(self, path: str | Path) -> Path:
        """Draw it, see :func:`deepemd.explain.plots.matches_picture`."""
        return matches_picture([self.match], Path(path), columns=1)

"""The classifier's result for an image: its label, the probabilities, and an explanation."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deepemd.errors import InputError
from deepemd.explain.matches import Match
from deepemd.explain.plots import plot_matching

__all__ = ["Explanation", "Prediction", "Rule"]


class Prediction(NamedTuple):
    """The result for one image, as :meth:`FewShotClassifier.stream` yields it."""

    label: Any
    """The class, or the label for unknown images."""
    probability: float
    """The probability of the most similar class."""
    runner_up: Any
    """The second most similar class; for an unknown image, the most similar one."""
    probabilities: NDArray[np.float64]
    """(M,) the probability of every class."""
    similarity: float
    """1 - EMD between the image and the most similar class, at most 1."""
    familiar: bool
    """Whether the image resembles a class as much as 95 % of the known photos do (1 - ``unknown`` of them, if set)."""
    error: InputError | None = None
    """The reason if the image could not be read; the other fields then mean nothing."""


@dataclass(frozen=True)
class Rule:
    """The rule by which similarities to the classes become a prediction.

    Attributes:
        classes: the M labels.
        temperature: T of the probabilities, softmax(T * similarity).
        threshold: similarity below which an image is not familiar.
        names_unknown: whether an image that is not familiar is labelled `unknown_label`.
        unknown_label: the label of such images.
    """

    classes: Sequence[Any]
    temperature: float
    threshold: float
    names_unknown: bool
    unknown_label: Any

    def predict(self, similarity: Tensor) -> Prediction:
        """Predict the class of an image from its similarities (M,) to the classes."""
        probabilities = (self.temperature * similarity).softmax(0).numpy()
        first, second = similarity.argsort(descending=True, stable=True)[:2].tolist()
        best = float(similarity[first])
        familiar = best >= self.threshold
        unknown = self.names_unknown and not familiar
        return Prediction(
            label=self.unknown_label if unknown else self.classes[first],
            probability=float(probabilities[first]),
            runner_up=self.classes[first if unknown else second],
            probabilities=probabilities,
            similarity=best,
            familiar=familiar,
        )

    def refuse(self, error: InputError) -> Prediction:
        """Return the prediction for an image that could not be read."""
        return Prediction(None, 0.0, None, np.zeros(len(self.classes)), 0.0, False, error)


@dataclass(frozen=True)
class Explanation:
    """The reason for a label: which parts of the image were matched with which parts of a photo of the class.

    Attributes:
        prediction: the label, and the probabilities of all classes.
        match: the image and the most similar photo of the class: boxes, weights and the transport plan.
        example: the name of that photo.
    """

    prediction: Prediction
    match: Match = field(repr=False)
    example: str

    def plot(self, path: "str | os.PathLike[str]") -> Path:
        """Draw the matched parts into a file, whose suffix sets the format; see :func:`deepemd.plot_matching`."""
        plot_matching(self, path=path)
        return Path(path)

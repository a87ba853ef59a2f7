"""The classifier's result for an image: its label, the probabilities, and an explanation."""

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deepemd.errors import InputError
from deepemd.explain.matches import Match
from deepemd.explain.plots import plot_matching

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Explanation", "Prediction", "Rule"]


class Prediction(NamedTuple):
    """The result for one image, as :meth:`FewShotClassifier.stream` yields it."""

    label: Any
    """The class, or the label for unknown or unsure images."""
    probability: float
    """The probability of the most similar class."""
    runner_up: Any
    """The second most similar class; for an unknown or unsure image, the most similar one."""
    probabilities: NDArray[np.float64]
    """(M,) the probability of every class."""
    similarity: float
    """The similarity of the image to the most similar class, at most about 1: 1 - EMD, or the evidence for it."""
    familiar: bool
    """Whether the image resembles a class as much as 95 % of the known photos do (1 - ``unknown`` of them, if set)."""
    error: InputError | None = None
    """The reason if the image could not be read; the other fields then mean nothing."""
    labels: tuple[Any, ...] = ()
    """The prediction set: the classes of which one is right with the probability `coverage`, the most probable first;
    empty if no coverage is set."""


@dataclass(frozen=True)
class Rule:
    """The rule by which similarities to the classes become a prediction.

    Attributes:
        classes: the M labels.
        temperature: T of the probabilities, softmax(T * similarity).
        familiar_from: similarity below which an image is not familiar.
        unknown_label: None, or in a tuple the label of images that are not familiar.
        unsure_label: None, or in a tuple the label of images whose class is less probable than `unsure_below`.
        unsure_below: this probability.
        set_from: None for no prediction sets, or the probability of the classes in them.
    """

    classes: Sequence[Any]
    temperature: float
    familiar_from: float
    unknown_label: tuple[Any] | None = None
    unsure_label: tuple[Any] | None = None
    unsure_below: float = 0.0
    set_from: float | None = None

    def predict(self, similarity: Tensor) -> Prediction:
        """Predict the class of an image from its similarities (M,) to the classes."""
        probabilities = (self.temperature * similarity).softmax(0).numpy()
        order = similarity.argsort(descending=True, stable=True).tolist()
        first, second = order[:2]
        best, probability = float(similarity[first]), float(probabilities[first])
        familiar = best >= self.familiar_from
        other = None
        if self.unknown_label is not None and not familiar:
            other = self.unknown_label
        elif self.unsure_label is not None and probability < self.unsure_below:
            other = self.unsure_label
        labels: tuple[Any, ...] = ()
        if self.set_from is not None:
            labels = tuple(self.classes[k] for k in order if k == first or probabilities[k] >= self.set_from)
        return Prediction(
            label=other[0] if other else self.classes[first],
            probability=probability,
            runner_up=self.classes[first if other else second],
            probabilities=probabilities,
            similarity=best,
            familiar=familiar,
            labels=labels,
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
        evidence: (N, M) what each part adds to the similarity of each class, where ridge regression decides: positive
            for the class, negative against it; a column sums to the similarity minus 1 / M. None if the match decides.
    """

    prediction: Prediction
    match: Match = field(repr=False)
    example: str
    evidence: NDArray[np.float64] | None = field(default=None, repr=False)

    @overload
    def plot(self, path: None = None) -> "Figure": ...

    @overload
    def plot(self, path: "str | os.PathLike[str]") -> Path: ...

    def plot(self, path: "str | os.PathLike[str] | None" = None) -> "Figure | Path":
        """Draw the matched parts, and the evidence of each part if there is any.

        Args:
            path: file to write, whose suffix sets the format; by default none is written.

        Returns:
            The path; or without one, the Matplotlib figure, which a notebook shows. See :func:`deepemd.plot_matching`.
        """
        figure = plot_matching(self, path=path)
        return figure if path is None else Path(path)

    def _repr_html_(self) -> str:
        """Return the explanation as HTML for a notebook: the label, its probability, and the matched parts."""
        one = self.prediction
        figure = self.plot()
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=90, bbox_inches="tight", pad_inches=0.1)
        picture = base64.b64encode(file.getvalue()).decode()
        title = f"<b>{escape(str(one.label))}</b>, {one.probability:.0%}; next: {escape(str(one.runner_up))}"
        alt = f"The image and {escape(self.example, quote=True)}, with their matched parts"
        return f'<p>{title}</p><img style="max-width:100%" alt="{alt}" src="data:image/png;base64,{picture}">'

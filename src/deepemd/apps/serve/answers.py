"""The JSON of the endpoint: its types, which the OpenAPI description shows, and how predictions become it."""

from typing import Any

from pydantic import BaseModel, Field

from deepemd.classifier.classifier import PhotoClassifier
from deepemd.classifier.prediction import Prediction
from deepemd.versions import versions

__all__ = ["Answer", "ErrorAnswer", "Health", "Model", "PhotoAnswer", "answer", "error_answer", "model_answer"]

_DIGITS = 6
Label = str | int | float | bool


class PhotoAnswer(BaseModel):
    """The result for one photo. If there is an error, all other fields but the name are null."""

    name: str = Field(description="file name of the photo, as it was sent; 'photo' if it has none", examples=["1.jpg"])
    label: Label | None = Field(description="the class, or the label of unknown or unsure photos", examples=["daisy"])
    probability: float | None = Field(description="probability of the most probable class", examples=[0.93])
    runner_up: Label | None = Field(description="the class that comes next", examples=["rose"])
    probabilities: dict[str, float] | None = Field(
        description="probability of every class; they sum to 1", examples=[{"daisy": 0.93, "rose": 0.07}]
    )
    prediction_set: list[Label] | None = Field(
        description="the classes of which one is right as often as the coverage says; null without a coverage"
    )
    similarity: float | None = Field(
        description="similarity to the most similar class, at most about 1", examples=[0.71]
    )
    resembles_a_class: bool | None = Field(description="false if the photo resembles no class as your own photos do")
    unknown: bool | None = Field(description="whether the label says that the photo is of no class")
    unsure: bool | None = Field(description="whether the label says that the probability is below the threshold")
    error: str | None = Field(description="why the photo has no result, and what to do; null if it has one")


class Answer(BaseModel):
    """The results of all photos of a request."""

    photos: list[PhotoAnswer] = Field(description="one for each photo, in the order in which they were sent")


class ErrorAnswer(BaseModel):
    """A request that has no result."""

    error: str = Field(description="what is wrong, and what to do", examples=["photo: an empty file: send a photo"])
    photos: list[PhotoAnswer] = Field([], description="the error of each photo, where the request has photos")


class Health(BaseModel):
    """Whether the server classifies photos."""

    status: str = Field(description="ok, or failed if the server must be started again", examples=["ok"])
    waiting: int = Field(description="number of requests that are being answered", examples=[0])


class Model(BaseModel):
    """What the server classifies, and its limits."""

    classes: dict[str, int] = Field(description="number of photos of every class")
    adaptation: str = Field(description="how photos are compared with the classes, and why")
    temperature: float = Field(description="T of the probabilities, softmax(T * similarity)")
    unknown: float | None = Field(description="share of known photos that may be labelled unknown by mistake")
    coverage: float | None = Field(description="share of photos whose own class is in their prediction set")
    threshold: float | None = Field(description="probability below which a photo is unsure")
    limits: dict[str, float] = Field(description="limits of a request")
    versions: dict[str, str] = Field(description="versions of Python and of the packages that results depend on")


def answer(name: str, found: Prediction, classifier: PhotoClassifier) -> dict[str, Any]:
    """Return the prediction for a photo as a :class:`PhotoAnswer`, in plain types."""
    unknown = classifier.unknown is not None and found.label == classifier.unknown_label
    unsure = classifier.threshold is not None and found.label == classifier.unsure_label
    probabilities = zip(map(str, classifier.classes_.tolist()), found.probabilities.tolist(), strict=True)
    return {
        "name": name,
        "label": found.label,
        "probability": round(found.probability, _DIGITS),
        "runner_up": found.runner_up,
        "probabilities": {label: round(share, _DIGITS) for label, share in probabilities},
        "prediction_set": None if classifier.coverage is None else list(found.labels),
        "similarity": round(found.similarity, _DIGITS),
        "resembles_a_class": bool(found.familiar),
        "unknown": unknown,
        "unsure": unsure,
        "error": None,
    }


def error_answer(name: str, error: str) -> dict[str, Any]:
    """Return the error of a photo as a :class:`PhotoAnswer`."""
    return {**dict.fromkeys(PhotoAnswer.model_fields), "name": name, "error": error}


def model_answer(classifier: PhotoClassifier, limits: dict[str, float]) -> dict[str, Any]:
    """Return the settings of a classifier as a :class:`Model`."""
    counts = classifier.support_.count.tolist()
    return {
        "classes": dict(zip(map(str, classifier.classes_.tolist()), map(int, counts), strict=True)),
        "adaptation": classifier.adaptation_,
        "temperature": round(float(classifier.temperature_), _DIGITS),
        "unknown": classifier.unknown,
        "coverage": classifier.coverage,
        "threshold": classifier.threshold,
        "limits": limits,
        "versions": versions("fastapi", "uvicorn"),
    }

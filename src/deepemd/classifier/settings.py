"""The settings of a classifier: checked before any work, and saved with it."""

from typing import Any, Protocol

from deepemd.checks import real_number
from deepemd.classifier.adaptation import check_adapt
from deepemd.errors import InputError

__all__ = ["SAVED", "check_settings", "settings_of", "share"]

SAVED = ("adapt", "temperature", "unknown", "unknown_label", "coverage", "threshold", "unsure_label")
"""The settings that are saved with a classifier."""


class Settings(Protocol):
    """A classifier, as far as its settings are concerned; see :class:`deepemd.FewShotClassifier`."""

    adapt: Any
    temperature: float | None
    unknown: float | None
    coverage: float | None
    threshold: float | None


def share(name: str, value: Any) -> float:
    """Return a number between 0 and 1, neither of them included.

    Raises:
        InputError: the value is no such number.
    """
    hints = {
        "unknown": "it is the share of photos of known classes that may be labelled unknown, such as 0.05",
        "coverage": "it is the share of photos whose own class is in their set, such as 0.95",
        "threshold": "it is the probability below which a label is unsure, such as 0.8",
    }
    number = real_number(name, value, 0, 1, above=True, hint=hints[name])
    if number == 1:
        raise InputError(f"{name} is {value!r}: it must be above 0 and below 1; {hints[name]}")
    return number


def check_settings(classifier: Settings) -> None:
    """Check the settings of a classifier.

    Raises:
        InputError: a setting is of another type or out of range.
    """
    check_adapt(classifier.adapt)
    if classifier.temperature is not None:
        real_number("temperature", classifier.temperature, 0, above=True, hint="None fits it")
    for name in ("unknown", "coverage", "threshold"):
        if getattr(classifier, name) is not None:
            share(name, getattr(classifier, name))


def settings_of(classifier: Settings) -> dict[str, Any]:
    """Return the settings that are saved with a classifier."""
    return {name: getattr(classifier, name) for name in SAVED}

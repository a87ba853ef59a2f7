"""Build regions by name; there are four kinds, each a way to turn an image into nodes."""

from collections.abc import Callable, Mapping
from typing import Any

from deepemd.errors import InputError
from deepemd.nodes.fcn import FCN
from deepemd.nodes.multiscale import MultiScale
from deepemd.nodes.patches import Grid, Sampling

__all__ = ["Regions", "WholeImage", "parse_regions", "regions_from"]

WholeImage = FCN | MultiScale
"""Regions that see the image as one square; the others cut patches from it."""
Regions = WholeImage | Grid | Sampling
_KINDS: Mapping[str, Callable[..., Regions]] = {
    "fcn": FCN,
    "multiscale": MultiScale,
    "grid": Grid,
    "sampling": Sampling,
}
_FORMS = (
    "fcn, fcn:2,1 (with a pyramid), pooled:3 (its levels alone), multiscale:224,416 (input sizes), grid:3,2 (levels) or"
    " sampling:9 (patches)"
)


def regions_from(config: Mapping[str, Any]) -> Regions:
    """Build regions from their ``config``, which a saved model's config.json contains.

    Args:
        config: a ``name``, ``"fcn"``, ``"multiscale"``, ``"grid"`` or ``"sampling"``, and the settings of :class:`FCN`,
            :class:`MultiScale`, :class:`Grid` or :class:`Sampling`.

    Raises:
        InputError: the name or a setting is unknown, or a value is out of range.

    >>> regions_from({"name": "grid", "levels": [5, 3, 2]}).patches
    38
    """
    if not isinstance(config, Mapping):
        raise InputError(f"regions is {config!r:.80}: give a name, one of {', '.join(_KINDS)}, and its settings")
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
    name = str(settings.pop("name", None))
    if name not in _KINDS:
        raise InputError(f"regions is {name!r:.80}: choose one of {', '.join(_KINDS)}")
    try:
        return _KINDS[name](**settings)
    except TypeError as error:
        raise InputError(
            f"regions {name!r} does not take these settings: {settings!r:.200} ({error!s:.200})"
        ) from error


def parse_regions(text: str) -> Regions:
    """Parse regions from the command line: a name, which a colon and numbers may follow.

    Raises:
        InputError: the form is not one of fcn, fcn:2,1, pooled:3, multiscale:224,416, grid:3,2 or sampling:9,
            or a number is out of range.

    >>> parse_regions("fcn:2,1"), parse_regions("sampling:25").patches
    (FCN(pyramid=(2, 1), dense=True), 25)
    """
    name, _, rest = text.partition(":")
    try:
        numbers = tuple(int(part) for part in rest.split(",")) if rest else ()
    except ValueError as error:
        raise InputError(f"regions is {text!r}: write {_FORMS}") from error
    if name == "fcn":
        return FCN(numbers)
    if name == "pooled" and rest:
        return FCN(numbers, dense=False)
    if name == "multiscale":
        return MultiScale(numbers) if rest else MultiScale()
    if name == "grid":
        return Grid(numbers) if rest else Grid()
    if name == "sampling" and len(numbers) < 2:
        return Sampling(numbers[0]) if rest else Sampling()
    raise InputError(f"regions is {text!r}: write {_FORMS}")

"""Images and labels as users pass them to Python functions: lists, arrays, pandas columns or generators."""

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Set
from io import IOBase
from typing import TYPE_CHECKING, Any

import numpy as np

from deepemd.data.decoding import as_picture
from deepemd.data.pixels import as_array
from deepemd.errors import InputError

if TYPE_CHECKING:
    from deepemd.data.decoding import Picture

__all__ = ["as_images", "as_labels", "iterate_images"]

_CHANNELS = (1, 3, 4)
_PASS_A_LIST = "pass a list of images: paths, PIL images or arrays"


def as_images(X: Any, name: str = "X") -> "list[Picture]":
    """Return images as a list, by position, whatever holds them.

    Args:
        X: a list, tuple or other sequence, an array or a column of pandas with any index, or a generator. A table with
            one column, or an array (n, 1), counts as that column.
        name: name of the argument in messages.

    Raises:
        InputError: X is one image, or holds no images; the message says what to pass. The images are not read here.

    >>> as_images(np.array([["a.jpg"], ["b.jpg"]]))
    ['a.jpg', 'b.jpg']
    >>> as_images("a.jpg")
    Traceback (most recent call last):
    deepemd.errors.InputError: X is one path, 'a.jpg': pass a list, such as ['a.jpg']
    """
    if isinstance(X, str | os.PathLike):
        path = repr(str(os.fspath(X)))
        raise InputError(f"{name} is one path, {path}: pass a list, such as [{path}]")
    if _is_picture(X):
        raise InputError(f"{name} is one image: pass a list, such as [image]")
    if isinstance(X, Mapping | Set | bytes | bytearray | IOBase):
        raise InputError(f"{name} is of type {type(X).__name__}: {_PASS_A_LIST}")
    if hasattr(X, "shape"):
        return _unstacked(X, name)
    if not isinstance(X, Iterable) and not hasattr(X, "__getitem__"):
        raise InputError(f"{name} is of type {type(X).__name__}: {_PASS_A_LIST}")
    images = _listed(X)
    if images and all(isinstance(row, list | tuple) and len(row) == 1 for row in images):
        images = [row[0] for row in images]
    for k, image in enumerate(images):
        if isinstance(image, list | tuple):
            raise InputError(f"{name}[{k}] is of type {type(image).__name__}: {_PASS_A_LIST}")
    return images


def iterate_images(X: Any, name: str = "X") -> "Iterator[Picture]":
    """Return an iterator over images; those of a generator are fetched one at a time, so that they need not fit memory.

    Args:
        X, name: as for :func:`as_images`.

    Raises:
        InputError: as for :func:`as_images`.
    """
    return map(_still, X) if isinstance(X, Iterator) and not isinstance(X, IOBase) else iter(as_images(X, name))


def as_labels(y: Any, name: str = "y") -> np.ndarray[Any, Any]:
    """Return labels as an array (n,), by position.

    Args:
        y: a list, array, column of pandas or generator of texts or numbers. A table with one column, or an array
            (n, 1), counts as that column.
        name: name of the argument in messages.

    Raises:
        InputError: `y` is not one-dimensional, a label is missing (None or NaN), or texts and numbers are mixed.

    >>> as_labels(["daisy", None])
    Traceback (most recent call last):
    deepemd.errors.InputError: y[1] is None: give every image a label, or leave the image out
    """
    if hasattr(y, "shape"):
        labels = _column(y)
        values = labels.tolist()
    else:
        is_list = _is_indexed(y) or isinstance(y, Iterable)
        values = _listed(y) if is_list and not isinstance(y, str | bytes | Mapping | Set) else y
        labels = None
        if isinstance(values, list) and values and all(isinstance(v, list | tuple) and len(v) == 1 for v in values):
            values = [value[0] for value in values]
    if not isinstance(values, list):
        raise InputError(f"{name} is of type {type(y).__name__}: pass one label for each image, in a list")
    for k, value in enumerate(values):
        if _is_missing(value):
            raise InputError(f"{name}[{k}] is {value}: give every image a label, or leave the image out")
    texts = sum(isinstance(value, str) for value in values)
    if 0 < texts < len(values):
        raise InputError(f"{name} holds texts and other labels ({_two_kinds(values)}): convert them to one type")
    if labels is None:
        try:
            labels = np.asarray(values)
        except ValueError as error:  # rows of different lengths
            raise InputError(f"{name} holds lists of different lengths: pass one label for each image") from error
    if labels.ndim != 1:
        raise InputError(f"{name} has shape {labels.shape}: pass one label for each image")
    return labels.astype(object) if labels.dtype.kind == "T" else labels  # texts that scikit-learn does not know


def _is_indexed(values: Any) -> bool:
    """Return whether something has items by number and no other way to list them, as data sets of torch do."""
    return not isinstance(values, Iterable) and hasattr(values, "__getitem__") and hasattr(values, "__len__")


def _listed(values: Any) -> list[Any]:
    """Return the items of a sequence or generator; only those up to its length, as more may be answered without end."""
    if _is_indexed(values):
        return [values[k] for k in range(len(values))]
    return list(map(_still, values) if isinstance(values, Iterator) else values)


def _still(image: Any) -> Any:
    """Return an image as it is now: a generator may use one array, or one file with several frames, again and again."""
    if isinstance(image, np.ndarray):
        return image.copy()
    try:
        return as_picture(image) if _is_picture(image) and getattr(image, "is_animated", False) else image
    except Exception:  # the file is damaged or closed, which is an error for this image once it is read
        return image


def _unstacked(X: Any, name: str) -> "list[Picture]":
    """Return the images of an array, a tensor, or a column of pandas."""
    images, shape = _column(X), tuple(X.shape)
    if images.size == 0 and not (shape and shape[0]):
        return []
    if images.dtype.kind in "OUST":  # paths or objects
        if images.ndim == 1:
            return as_images(images.tolist(), name)
        raise InputError(f"{name} has shape {shape}: pass one column, with the path or the image in each row")
    if images.ndim == 4:
        return list(images)
    if images.ndim != 3:
        raise InputError(f"{name} has shape {shape}: one grey image or a table of numbers; {_PASS_A_LIST}")
    if shape[2] in _CHANNELS:
        raise InputError(f"{name} has shape {shape}, as one image has: pass a list, such as [image]")
    if shape[0] in _CHANNELS[1:]:
        raise InputError(
            f"{name} has shape {shape}: pass list({name}) if it holds {shape[0]} grey images, or"
            f" [{name}.transpose(1, 2, 0)] if it is one image with its channels first"
        )
    return list(images)  # grey images


def _column(values: Any) -> np.ndarray[Any, Any]:
    """Return an array, tensor or table of pandas as an array, by position; (n, 1) becomes (n,)."""
    if np.ma.is_masked(values):  # what is masked is missing
        values = np.where(np.ma.getmaskarray(values), None, values.astype(object).data)
    array = as_array(values.to_numpy() if hasattr(values, "to_numpy") else values)
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _is_picture(image: object) -> bool:
    from PIL.Image import Image

    return isinstance(image, Image)


def _is_missing(value: object) -> bool:
    if isinstance(value, float | np.floating):
        return math.isnan(value)
    return value is None or type(value).__name__ in ("NAType", "NaTType")  # pandas' own


def _two_kinds(values: list[Any]) -> str:
    text = next(value for value in values if isinstance(value, str))
    other = next(value for value in values if not isinstance(value, str))
    return f"{text!r} and {other!r}"

"""Read arrays from untrusted pickles: only plain data is accepted, and no code in a pickle is ever run.

A pickle is a program that can call anything in Python by its name. Here, each name is looked up in a short table of the
names by which numpy pickles arrays. Each of these stands for a function below that checks its arguments; every other
name is refused before anything is imported. Arrays of numbers, text and Python objects are supported. Structured
arrays, which could contain pointers, are refused.
"""

import io
import math
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from deepemd.data.archives import Archive
from deepemd.errors import InputError

__all__ = ["array", "field", "text", "unpickle", "words"]

_REMEDY = "if it is the benchmark's own file, get it again; one that runs code is not read"


def unpickle(archive: Archive, name: str) -> Any:
    """Read the plain data in a pickle: dicts, lists, text, bytes, numbers, and arrays of them.

    Text of Python 2 becomes ``str``, each byte a character of latin-1. Arrays are instances of a subclass of numpy's:
    convert them with numpy.asarray.

    Args:
        archive: the archive that holds the pickle.
        name: path of the pickle in the archive.

    Raises:
        InputError: the pickle needs more than plain arrays (nothing is run), is truncated, or is not a pickle.
    """
    where = f"{archive.path}/{name}"
    try:
        if archive.path.is_dir():
            with (archive.path / name).open("rb") as file:  # not read as a whole: such files can have gigabytes
                return _Unpickler(file, encoding="latin1").load()
        return _Unpickler(io.BytesIO(archive.read(name)), encoding="latin1").load()
    except _RefusedError as refusal:
        raise InputError(f"{where}: a pickle that would {refusal}, which plain arrays need not: {_REMEDY}") from None
    except InputError:
        raise
    except Exception as error:  # a damaged pickle raises every kind of exception
        raise InputError(f"{where}: not a pickle of arrays, or a truncated one ({error}): get it again") from error


def field(table: object, key: str, where: str) -> Any:
    """Return the value of a ``key``, stored as text or bytes, in a pickled dict.

    Raises:
        InputError: `table` is not a dict, or has no such key.
    """
    if isinstance(table, dict):
        for name in (key, key.encode()):
            if name in table:
                return table[name]
        found = ", ".join(sorted(text(name) for name in table)[:8]) or "nothing"
    else:
        found = f"a {type(table).__name__}"
    raise InputError(f"{where}: expected a pickled dict with {key!r}, but found {found}: get the benchmark's own file")


def words(table: object, key: str, where: str) -> list[str]:
    """Return the texts that a pickled dict holds under ``key``.

    Raises:
        InputError: there is no such key, or its value is not a list of text or bytes.
    """
    value = field(table, key, where)
    if not isinstance(value, list | tuple | np.ndarray) or not all(isinstance(one, str | bytes) for one in value):
        raise InputError(f"{where}: {key!r} must be a list of names, but there is another value: get the file again")
    return [text(one) for one in value]


def array(table: object, key: str, where: str) -> np.ndarray:
    """Return the array, or list of numbers, that a pickled dict holds under ``key``.

    Raises:
        InputError: there is no such key, or its value is not an array.
    """
    value = field(table, key, where)
    try:
        found = np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise InputError(f"{where}: {key!r} is no array ({error}): get the benchmark's own file") from error
    if found.ndim == 0:
        raise InputError(f"{where}: {key!r} is no array, but {type(value).__name__}: get the benchmark's own file")
    return found


def text(value: object) -> str:
    """Return a name as text; pickles hold names as text or as bytes.

    >>> text(b"apple"), text("pear"), text(7)
    ('apple', 'pear', '7')
    """
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


class _RefusedError(Exception):
    """Raised with the refused action of a pickle, such as "call os.system"."""


class _Unpickler(pickle._Unpickler):  # in Python: that in C reserves memory for any number of a memo that is claimed
    def find_class(self, module: str, name: str) -> Any:
        """Return a new function for a name each time, so that a pickle cannot modify it for the next pickle."""
        if (module, name) == ("numpy", "ndarray"):
            return "ndarray"  # only used as the first argument of _reconstruct, which ignores it
        usual = module.replace("numpy._core", "numpy.core").replace("__builtin__", "builtins")
        function = _ALLOWED.get((usual, name))
        if function is None:
            raise _RefusedError(f"call {module:.80}.{name:.80}")
        return lambda *arguments: function(*arguments)


class _Type:
    """Replaces a numpy.dtype of numbers, text or objects."""

    def __init__(self, code: object, align: object = False, copy: object = True) -> None:  # noqa: ARG002
        if not isinstance(code, str) or not re.fullmatch(r"[|<>=]?([biufcSU]\d{1,9}|O8?|\?)", code):
            raise _RefusedError(f"make an array of type {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Set the byte order; refuse fields and subarrays."""
        order, within = state[1], state[2:5]
        if any(part is not None for part in within):
            raise _RefusedError(f"make a structured array of {within}")
        if order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(">" if order == ">" else "<")


class _Array(np.ndarray):
    """An array that accepts only a consistent state: a shape, a plain type, and the right number of bytes or items."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, content = state
        if isinstance(kind, _Type) and kind.dtype.hasobject:
            if not isinstance(content, list) or len(content) != math.prod(shape):  # numpy does not count them
                raise _RefusedError(f"fill an array of {shape} objects with something else")
            dtype = kind.dtype
        else:
            content = content.encode("latin-1") if isinstance(content, str) else bytes(content)
            dtype = _numbers(kind, content, shape).dtype
        super().__setstate__((1, shape, dtype, bool(fortran), content))  # type: ignore[arg-type]


def _numbers(kind: object, content: object, shape: tuple[int, ...]) -> np.ndarray:
    """Return an array (prod(shape),) over bytes, in their order; refuse a wrong number of bytes."""
    if not isinstance(kind, _Type) or kind.dtype.hasobject:
        raise _RefusedError("make objects of bytes")
    data = content.encode("latin-1") if isinstance(content, str) else content
    return np.frombuffer(data, kind.dtype).reshape(math.prod(shape))  # type: ignore[call-overload,no-any-return]


def _from_buffer(content: object, kind: object, shape: tuple[int, ...], order: str, *_: object) -> np.ndarray:
    return _numbers(kind, content, shape).reshape(shape, order="F" if order == "F" else "C")


def _scalar(kind: object, content: object = b"") -> object:
    return _numbers(kind, content, (1,))[0]


def _latin1(characters: str, encoding: str = "latin1") -> bytes:
    """Convert text to bytes, as Python 2 and the oldest protocols write them."""
    if encoding not in ("latin1", "latin-1"):
        raise _RefusedError(f"encode by {encoding!r}")
    return characters.encode("latin-1")


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _Type,
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Array((0,), np.uint8),
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _latin1,
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "bytes"): bytes,  # empty bytes in protocol 2
    ("builtins", "bytearray"): bytearray,  # the buffer of an array in protocol 5
}

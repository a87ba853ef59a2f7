"""Read and write JSON: what is written is JSON by the standard, and whatever is read, damage has one kind of error."""

import json
import math
from pathlib import Path
from typing import Any

from deepemd.errors import InputError
from deepemd.files import atomic_write

__all__ = ["json_text", "read_description", "read_json", "write_json"]

_MAX_BYTES = 200_000_000  # of a file; none of ours comes near it


def json_text(content: Any, name: str | Path, *, indent: int | None = 2, ascii_only: bool = True) -> str:
    """Return JSON text; values of other types, such as paths, are written as text.

    Args:
        content: dicts, lists, text and numbers.
        name: the file or the object, for the message.
        indent: spaces of a level; None for a single line.
        ascii_only: write other characters as codes. Text that UTF-8 cannot hold is always written as codes.

    Raises:
        InputError: a number is NaN or infinite, which JSON cannot hold.

    >>> json_text({"a": [1, float("nan")]}, "report.json")
    Traceback (most recent call last):
        ...
    deepemd.errors.InputError: report.json: a[1] is nan, and JSON holds finite numbers only: nothing was written; find \
out why it is not finite
    """
    try:
        text = json.dumps(content, indent=indent, ensure_ascii=ascii_only, allow_nan=False, default=str)
        if not ascii_only:
            text.encode()
    except UnicodeEncodeError:  # names of files need not be text
        return json_text(content, name, indent=indent)
    except ValueError as error:
        found = _not_finite(content, "")
        if found is None:
            raise
        raise InputError(
            f"{name}: {found}, and JSON holds finite numbers only: nothing was written; find out why it is not finite"
        ) from error
    return text


def write_json(content: Any, path: Path, *, indent: int | None = 2) -> Path:
    """Write a JSON file, which appears only when it is complete.

    Raises:
        InputError: a number is not finite, the disk is full, or the folder cannot be written.
    """
    return atomic_write(path, (json_text(content, path, indent=indent) + "\n").encode())


def read_json(path: Path, *, missing: str = "", remedy: str = "restore the file") -> dict[str, Any]:
    """Read a JSON file that holds an object, of UTF-8 (with or without a byte order mark), UTF-16 or UTF-32.

    Numbers must be finite, and a key may occur once.

    Args:
        path: the file.
        missing: begins the message if the file cannot be read, such as "model: no model here".
        remedy: what to do if it is damaged, for the message.

    Raises:
        InputError: the file is missing, cannot be read, or is damaged.
    """
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: not a file: {remedy}")
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise InputError(f"{path}: damaged, {size:,} bytes are far too many: {remedy}")
        data = path.read_bytes()
    except OSError as error:
        place = f"{missing}, {path.name}" if missing else path
        raise InputError(f"{place} cannot be read ({error.strerror}): {remedy}") from error
    try:
        content = json.loads(data, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_once)
    except RecursionError as error:
        raise InputError(f"{path}: damaged, nested too deeply: {remedy}") from error
    except ValueError as error:
        raise InputError(f"{path}: damaged, not JSON ({_short(error)}): {remedy}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: damaged, it holds a {type(content).__name__}: {remedy}")
    return content


def read_description(path: Path, problem: str, *, remedy: str) -> dict[str, Any]:
    """Read the JSON file that describes a folder of ours.

    Args:
        path: the file.
        problem: what is wrong with the folder if the file is damaged, such as "the index is damaged".
        remedy: what to do then.

    Raises:
        InputError: the file is damaged.
        FileNotFoundError: there is none.
    """
    if not path.exists():
        raise FileNotFoundError(None, None, str(path))
    try:
        return read_json(path, remedy=remedy)
    except InputError as error:
        raise InputError(f"{path.parent}: {problem}: {error}") from error


def _refuse(text: str) -> float:
    raise ValueError(f"{text} is not a number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:20]} is too large for a number")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is given twice")
    return found


def _short(error: Exception) -> str:
    return str(error)[:200]


def _not_finite(content: Any, where: str) -> str | None:
    """Return the place and value of the first number that is not finite."""
    if isinstance(content, float) and not math.isfinite(content):
        return f"{where or 'the content'} is {content}"
    items: Any = ()
    if isinstance(content, dict):
        items = ((f"{where}.{key}" if where else str(key), value) for key, value in content.items())
    elif isinstance(content, list | tuple):
        items = ((f"{where}[{k}]", value) for k, value in enumerate(content))
    return next((found for name, value in items if (found := _not_finite(value, name)) is not None), None)

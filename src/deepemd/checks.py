"""Check the numbers of settings, wherever they come from: an argument, a command line, or a file."""

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from deepemd.errors import InputError

__all__ = ["real_number", "real_numbers", "whole_number", "whole_numbers"]

_MOST = 2**31 - 1


def whole_number(name: str, value: Any, low: int = 1, high: int = _MOST, *, hint: str = "") -> int:
    """Return a whole number from `low` to `high` as int; 84.0 counts, and neither 84.5 nor True does.

    Args:
        name: the setting, for the message.
        value: its value, of any type.
        low, high: the smallest and the largest value.
        hint: what is usual, for the message.

    Raises:
        InputError: the value is no such number.

    >>> whole_number("patches", 9.0)
    9
    >>> whole_number("patches", "9", hint="9 is usual")
    Traceback (most recent call last):
        ...
    deepemd.errors.InputError: patches is '9': it must be a whole number, at least 1; 9 is usual
    """
    whole = isinstance(value, Integral) or (isinstance(value, Real) and float(value).is_integer())
    whole = whole and not isinstance(value, bool)
    if not whole or not low <= value <= high:
        least = f"from {low} to {high}" if high != _MOST else f"at least {low}"
        kind = "" if whole else "a whole number, "
        raise InputError(f"{name} is {_shown(value)}: it must be {kind}{least}{hint and '; '}{hint}")
    return int(value)


def real_number(
    name: str, value: Any, low: float = -math.inf, high: float = math.inf, *, above: bool = False, hint: str = ""
) -> float:
    """Return a finite number from `low` to `high` as float.

    Args:
        name: the setting, for the message.
        value: its value, of any type.
        low, high: the smallest and the largest value.
        above: refuse `low` itself.
        hint: what is usual, for the message.

    Raises:
        InputError: the value is no such number.
    """
    number = math.nan
    if isinstance(value, Real) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:  # a whole number of more than 308 digits
            number = math.inf
    if not (low < number if above else low <= number) or not number <= high or math.isinf(number):
        least = "" if low == -math.inf else f", {'above' if above else 'at least'} {low:g}"
        most = "" if high == math.inf else f", at most {high:g}"
        raise InputError(f"{name} is {_shown(value)}: it must be a finite number{least}{most}{hint and '; '}{hint}")
    return number


def whole_numbers(
    name: str, values: Any, low: int = 1, high: int = _MOST, *, count: int | None = None, hint: str = ""
) -> tuple[int, ...]:
    """Return a list of whole numbers as a tuple, `count` of them if it is given; see :func:`whole_number`."""
    return tuple(whole_number(name, value, low, high, hint=hint) for value in _listed(name, values, count, hint))


def real_numbers(
    name: str, values: Any, low: float = -math.inf, high: float = math.inf, *, count: int | None = None, hint: str = ""
) -> tuple[float, ...]:
    """Return a list of finite numbers as a tuple, `count` of them if it is given; see :func:`real_number`."""
    return tuple(real_number(name, value, low, high, hint=hint) for value in _listed(name, values, count, hint))


def _listed(name: str, values: Any, count: int | None, hint: str) -> Sequence[Any]:
    values = values.tolist() if hasattr(values, "tolist") else values  # an array
    if not isinstance(values, list | tuple) or (count is not None and len(values) != count):
        wanted = "a list of numbers" if count is None else f"a list of {count} numbers"
        raise InputError(f"{name} is {_shown(values)}: it must be {wanted}{hint and '; '}{hint}")
    return values


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # a whole number of more digits than Python prints
        return f"a {type(value).__name__} of thousands of digits"
    return text if len(text) <= 80 else f"{text[:77]}..."

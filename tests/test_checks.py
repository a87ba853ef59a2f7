"""Numbers of settings: what is accepted, and that everything else is an InputError with name, value and remedy."""

import math
from decimal import Decimal

import numpy as np
import pytest

from deepemd.checks import real_number, real_numbers, whole_number, whole_numbers
from deepemd.errors import InputError

NEVER = [
    None,
    "3",
    [3],
    {},
    True,
    math.nan,
    math.inf,
    -math.inf,
    3 + 0j,
    b"3",
    Decimal("NaN"),
    10**5000,
    10**400,
    1e300,
]


@pytest.mark.parametrize("value", [3, 3.0, np.int64(3), np.float32(3), np.uint8(3)])
def test_whole_numbers_of_every_type_become_int(value):
    assert whole_number("n", value) == 3
    assert type(whole_number("n", value)) is int
    assert whole_numbers("n", [value, 1]) == (3, 1)
    assert type(real_number("x", value)) is float


@pytest.mark.parametrize("value", [*NEVER, 3.5, 0, -1], ids=lambda value: type(value).__name__)
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises(
        InputError, match=r"^patches is .{1,100}: it must be (a whole number, )?at least 1; 9 is usual$"
    ):
        whole_number("patches", value, hint="9 is usual")


@pytest.mark.parametrize("value", [*NEVER, -0.1], ids=lambda value: type(value).__name__)
def test_what_is_no_finite_number_in_range_is_refused(value):
    with pytest.raises(InputError, match=r"^floor is .{1,100}: it must be a finite number, at least 0, at most 100$"):
        real_number("floor", value, 0, 100)


def test_an_open_range_and_lists():
    with pytest.raises(InputError, match="above 0"):
        real_number("t", 0.0, 0, above=True)
    assert real_numbers("mean", np.zeros(3), count=3) == (0.0, 0.0, 0.0)
    for bad in (0.5, [0.5], "abc", [0.1, 0.2, math.nan], None, {"a": 1}, [[1, 2, 3]]):
        with pytest.raises(InputError, match="mean is"):
            real_numbers("mean", bad, count=3)
    with pytest.raises(InputError, match="widths is 'abcd'"):
        whole_numbers("widths", "abcd", count=4)

"""Limits of requests, and the memory of all of them: deepemd.apps.serve.limits."""

import pytest

from deepemd.apps.serve.limits import Limits, Memory, Refused
from deepemd.errors import InputError


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("megabytes", 0, "max_megabytes is 0"), ("megabytes", float("nan"), "max_megabytes is nan"),
        ("megabytes", 5000, "at most 1024"), ("megapixels", 200, "an image has at most 89"),
        ("megapixels", 0, "max_megapixels is 0"), ("photos", 0, "max_photos is 0"), ("photos", 1.5, "whole number"),
        ("waiting", -1, "max_waiting is -1"), ("seconds", 0, "timeout is 0"),
    ],
)  # fmt: skip
def test_limits_out_of_range(name, value, message):
    with pytest.raises(InputError, match=message):
        Limits(**{name: value})


def test_a_photo_of_any_size_that_is_allowed_fits_the_memory():
    for megabytes in (0.001, 20, 1024):
        limits = Limits(megabytes=megabytes)
        assert limits.photo_bytes <= limits.request_bytes <= limits.memory_bytes


def test_requests_share_the_memory():
    memory = Memory(100)
    with memory.lease() as one, memory.lease() as other:
        one.take(60)
        with pytest.raises(Refused) as found:
            other.take(41)
        assert found.value.status == 503
        assert found.value.headers == {"retry-after": "2"}
        other.take(40)
        one.take(-60)
        other.take(60)
        assert memory.used == 100
    assert memory.used == 0

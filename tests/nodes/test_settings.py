"""Settings of encoders and regions: whatever a config holds, it is used or refused with its name.

Tests deepemd.nodes.regions.
"""

import math
from typing import Any

import pytest

from deepemd import FCN, Grid, InputError, Sampling, conv4, resnet12
from deepemd.nodes import Memory, regions_from
from deepemd.nodes.backbones import backbone

BAD: list[Any] = [
    None,
    "3",
    "abcd",
    [],
    [None],
    {},
    math.nan,
    math.inf,
    -1,
    10**400,
    1e300,
    [math.nan] * 4,
    [10**9] * 4,
]
PLACES = [
    (lambda v: conv4(channels=v), "channels"),
    (lambda v: conv4(pools=v), "pools"),
    (lambda v: resnet12(widths=v), "widths"),
    (lambda v: resnet12(space_to_depth=v), "space_to_depth"),
    (lambda v: FCN((v,)), "pyramid"),
    (lambda v: FCN((2,), dense=v), "dense"),
    (lambda v: Grid(v), "levels"),
    (lambda v: Grid((2,), ratio=v), "ratio"),
    (lambda v: Sampling(v), "patches"),
    (lambda v: Sampling(9, scale=v), "scale"),
    (lambda v: Sampling(9, aspect=v), "aspect"),
    (lambda v: Memory(query_chunk=v if v is not None else 0), "query_chunk"),
]


@pytest.mark.parametrize(("make", "name"), PLACES, ids=[name for _, name in PLACES])
@pytest.mark.parametrize("value", BAD, ids=lambda value: type(value).__name__)
def test_bad_values_are_named(make: Any, name: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"{name} is ") as caught:
        make(value)
    assert len(str(caught.value)) < 400


def test_bad_names_and_settings_are_named() -> None:
    for bad in (None, [], "fcn", 7, {"name": []}, {"name": "fcn", "depth": "x" * 9000}, {"name": "grid", "levels": 3}):
        with pytest.raises(InputError, match=r"regions|levels"):
            regions_from(bad)  # type: ignore[arg-type]
    for name in (None, [], {}, 7, "x" * 9000):
        with pytest.raises(InputError, match="backbone is") as caught:
            backbone(name)  # type: ignore[arg-type]
        assert len(str(caught.value)) < 400


def test_the_number_of_nodes_is_known_where_it_does_not_depend_on_the_encoder() -> None:
    assert (FCN((3, 1), dense=False).nodes, FCN((2,)).nodes, Grid((3, 2)).nodes, Sampling(7).nodes) == (10, None, 13, 7)

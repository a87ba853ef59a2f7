"""Tables of several splits and settings hold what each evaluation gives alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deepemd import FCN, DeepEMD, conv4
from deepemd.data import Episodes, Store
from deepemd.embedding import splits as embedding
from deepemd.errors import InputError
from deepemd.evaluation.evaluate import evaluate
from deepemd.evaluation.table import evaluate_all

SETTINGS = [Episodes(way, shot, n_query=3, n_episodes=4, seed=2) for way in (2, 7) for shot in (1, 2)]


@pytest.fixture(scope="module")
def model() -> DeepEMD:
    torch.manual_seed(0)
    return DeepEMD(conv4(channels=8, pools=2), FCN(), image_size=20, resize=24).eval()


def test_every_split_is_embedded_once_and_evaluated_as_alone(
    model: DeepEMD, patterns: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = {name: patterns.splits[name] for name in ("base", "val")}  # of 8 and 6 classes
    possible = [("base", one) for one in SETTINGS] + [("val", one) for one in SETTINGS[:2]]
    alone = [evaluate(model, splits[name], one, method="deepemd,uniform") for name, one in possible]
    encode, encoded, refused = embedding._encode, [], {}
    monkeypatch.setattr(embedding, "_encode", lambda *a, **k: encoded.append(len(a[2])) or encode(*a, **k))
    found = evaluate_all(model, splits, SETTINGS, method="deepemd,uniform", left_out=refused.__setitem__)
    assert {name: str(error) for name, error in refused.items()} == {
        f"val, 7-way {shot}-shot": "n_way: 7 classes asked for, but there are 6: lower n_way" for shot in (1, 2)
    }
    assert sum(encoded) == sum(map(len, splits.values()))
    assert [one.seconds["embedding"] > 0 for one in found] == [True, False, False, False, True, False]
    for one, other in zip(found, alone, strict=True):
        assert replace(one, accuracies={}, seconds={}) == replace(other, accuracies={}, seconds={})
        for name, values in one.accuracies.items():
            np.testing.assert_array_equal(values, other.accuracies[name])


def test_what_cannot_be_is_refused_before_the_work(
    model: DeepEMD, patterns: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "_encode", None)
    with pytest.raises(InputError, match="there is no 'best'"):
        evaluate_all(model, patterns.splits, SETTINGS, method="best")
    with pytest.raises(InputError, match="there are 6"):
        evaluate_all(model, {"val": patterns.splits["val"]}, SETTINGS[2:])

"""A saved classifier: any value in its files is used or refused, and what cannot be saved is said."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from deepemd import FCN, DeepEMD, FewShotClassifier, conv4
from deepemd.errors import InputError


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    photos = [Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)) for _ in range(6)]
    model = DeepEMD(conv4(channels=4, pools=2), FCN((2,), dense=False), image_size=16, resize=16)
    fitted = FewShotClassifier(model, cache=False).fit(photos, [1, 2] * 3)
    return fitted.save(tmp_path_factory.mktemp("saved") / "classifier")


def copy(saved: Path, to: Path, **settings: Any) -> Path:
    """Copy a classifier with other settings, and without the check sum of its weights."""
    to.mkdir()
    config = json.loads((saved / "config.json").read_text())
    config["classifier"] |= settings
    config["weights_sha256"] = None
    (to / "config.json").write_text(json.dumps(config))
    (to / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes())
    return to


SETTINGS = [
    *({"temperature": value} for value in (math.nan, math.inf, 0, -1, "hot", [1], True)),
    *({"unknown": value} for value in (0, 1, -0.1, math.nan, "0.1", [])),
    *({"classes": value} for value in ([], [1], [1, 1], [1, 2, 3], "12", None, [[1], [2]], [1, None], ["1", "2"])),
    *({"kind": value} for value in ("U", None, 7, [])),
    *({"examples": value} for value in (None, [], [None] * 6, [{}] * 6, 7)),
    *({"examples": [{"name": n, "key": k, "size": s}] * 6} for n, k, s in ((1, 1, [1, 1]), ("a", -1, [1, 1]))),
    *({"examples": [{"name": "a", "key": 1, "size": s}] * 6} for s in ([0, 1], [1], "ab", None, [1, math.nan])),
    {"unknown_label": None},
    *({name: value} for name in ("coverage", "threshold") for value in (0, 1, 2, "0.9")),
    *({"adapt": value} for value in ("some", None, 3)),
    *({"way": value} for value in ("some", None, 3, [])),
    *({"smallest": value} for value in ("yes", None, 3)),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_settings_that_make_no_classifier_are_refused(saved: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"config\.json: "):
        FewShotClassifier.load(copy(saved, tmp_path / "c", **settings))


TENSORS = {
    "count": [torch.tensor([0, 3]), torch.tensor([-1, 3]), torch.tensor([1, 1]), torch.ones(2), torch.ones(3).long()],
    "total": [torch.full((2, 4, 4), math.nan).double(), torch.ones(2, 4), torch.ones(2, 4, 9).double(), torch.ones(2)],
    "nodes": [torch.full((6, 4, 4), math.inf), torch.ones(5, 4, 4), torch.ones(6, 4, 4).long(), torch.ones(6, 3, 4)],
    "labels": [torch.full((6,), 2), torch.full((6,), -1), torch.zeros(6), torch.zeros(6, 1).long()],
    "ends": [torch.arange(6), torch.full((6,), 10**12), torch.tensor([5, 4, 3, 2, 1, 0]), torch.ones(6)],
    "pictures": [torch.zeros(3).byte(), torch.zeros(3)],
}


@pytest.mark.parametrize(("name", "place"), [(name, k) for name, all_ in TENSORS.items() for k in range(len(all_))])
def test_tensors_that_make_no_classifier_are_refused(saved: Path, tmp_path: Path, name: str, place: int) -> None:
    path = copy(saved, tmp_path / "c")
    tensors = load_file(path / "model.safetensors")
    tensors[f"classifier.{name}"] = TENSORS[name][place]
    save_file(tensors, path / "model.safetensors")
    with pytest.raises(InputError, match="the classifier is incomplete"):
        FewShotClassifier.load(path)


def test_exchanged_weights_are_refused_and_an_older_classifier_is_read(saved: Path, tmp_path: Path) -> None:
    path = copy(saved, tmp_path / "older")
    assert FewShotClassifier.load(path).classes_.tolist() == [1, 2]
    tensors = load_file(path / "model.safetensors")
    tensors["classifier.total"] = tensors["classifier.total"].flip(0)
    save_file(tensors, path / "model.safetensors")
    (path / "config.json").write_bytes((saved / "config.json").read_bytes())
    with pytest.raises(InputError, match=r"not the file that config\.json was saved with"):
        FewShotClassifier.load(path)

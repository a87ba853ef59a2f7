"""What a run prints where there is no terminal: its steps, the progress of its validations, no carriage return."""

import re

import pytest

from deepemd import progress
from deepemd.data import Store
from deepemd.training.metatrain import metatrain
from deepemd.training.pretrain import pretrain
from deepemd.training.recipes import Augmentation, MetatrainRecipe, ModelConfig, PretrainRecipe, Validation

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE = PretrainRecipe(
    ModelConfig("conv4", channels=16, pools=3, image_size=20, resize=24),
    epochs=3,
    batch_size=48,
    augmentation=Augmentation(flip=False, crop_scale=(0.6, 1.0)),
    validation=Validation(n_episodes=20, n_way=3, n_query=5),
)
META = MetatrainRecipe(
    epochs=2,
    episodes_per_epoch=4,
    n_way=3,
    n_query=4,
    augmentation=RECIPE.augmentation,
    validation=RECIPE.validation,
)


@pytest.fixture
def often(monkeypatch):
    """Lines are due all the time."""
    for name in ("FIRST", "SHORTEST"):
        monkeypatch.setattr(progress, name, 0.001)
    monkeypatch.setattr(progress, "GROWTH", 1.0)


@pytest.mark.usefixtures("often")
def test_a_run_prints_lines_without_a_terminal(patterns: Store, tmp_path, capfd):
    base, val = patterns.splits["base"], patterns.splits["val"]
    first = pretrain(RECIPE, base, val, tmp_path / "first")
    err = capfd.readouterr().err
    steps = int(re.search(r"^pre-training: 3 epochs, (\d+) steps$", err, re.MULTILINE)[1])
    assert re.search(
        rf"^epoch [123]/3: \d+ of {steps} steps, \d+ %, (loss .*, accuracy .* %, )?\d+ s", err, re.MULTILINE
    )
    assert re.search(rf"^epoch 3/3: {steps} steps, (.*, )?\d+ s$", err, re.MULTILINE)
    assert re.search(r"^epoch 3  loss .* validation ", err, re.MULTILINE)
    metatrain(META, first.model, base, val, tmp_path / "second")
    assert "\r" not in err
    err = capfd.readouterr().err
    assert re.search(r"^validating the initial model: ", err, re.MULTILINE)
    assert re.search(r"^epoch \d/2: \d+ of \d+ steps, ", err, re.MULTILINE)


def test_a_quick_run_prints_its_validations_alone(patterns: Store, tmp_path, capfd, monkeypatch):
    for name in ("FIRST", "LONGEST"):
        monkeypatch.setattr(progress, name, 1e6)
    pretrain(RECIPE, patterns.splits["base"], patterns.splits["val"], tmp_path / "run")
    lines = capfd.readouterr().err.splitlines()
    assert not [line for line in lines if re.match(r"epoch \d+/\d+", line)]
    assert sum(line.startswith("epoch ") for line in lines) == 3

"""Recipes: the paper's numbers, and settings that make no sense."""

import pytest

from deepemd.errors import InputError
from deepemd.training.recipes import METATRAIN, PRETRAIN, MetatrainRecipe, PretrainRecipe, Schedule, Validation


def test_the_defaults_are_the_papers() -> None:
    pretrain, meta = PretrainRecipe(), MetatrainRecipe()
    assert (pretrain.epochs, pretrain.batch_size, pretrain.lr, pretrain.weight_decay) == (120, 128, 0.1, 5e-4)
    assert [pretrain.schedule.factor(epoch, 120) for epoch in (0, 29, 30, 119)] == pytest.approx([1, 1, 0.2, 0.008])
    assert (meta.epochs, meta.episodes_per_epoch, meta.lr, meta.n_way, meta.n_query) == (100, 50, 5e-4, 5, 15)
    assert [meta.schedule.factor(epoch, 100) for epoch in (0, 10, 25)] == [1, 0.5, 0.25]
    model = pretrain.model.build()
    assert model.config["backbone"] == {"name": "resnet12"}
    assert (model.image_size, model.resize, model.temperature) == (84, 92, 12.5)


@pytest.mark.parametrize("name", PRETRAIN)
def test_presets_can_be_built(name: str) -> None:
    recipe = PRETRAIN[name]
    assert name in METATRAIN
    if recipe.model.backbone == "conv4":
        model = recipe.model.build()
        side = model.image_size >> recipe.model.pools
        assert side == 5  # several nodes are left


def test_settings_that_make_no_sense_are_named() -> None:
    with pytest.raises(InputError, match=r"validation\.every is 7"):
        PretrainRecipe(validation=Validation(every=7))
    with pytest.raises(InputError, match="lr is -1"):
        PretrainRecipe(lr=-1)
    with pytest.raises(InputError, match="episodes_per_step is 3"):
        MetatrainRecipe(episodes_per_step=3)
    with pytest.raises(InputError, match="n_way is 0"):
        Validation(n_way=0)
    with pytest.raises(InputError, match=r"schedule\.kind is 'linear'"):
        Schedule(kind="linear")  # type: ignore[arg-type]

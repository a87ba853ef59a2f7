"""Recipes: the paper's numbers, and settings that make no sense.

Tests deepemd.training.settings.
"""

from pathlib import Path

import pytest
import torch
import yaml

from deepemd import DeepEMD, cli, conv4
from deepemd.errors import InputError
from deepemd.evaluation.methods import choose
from deepemd.nodes import parse_regions
from deepemd.training.recipes import (
    GLYPHS_METATRAIN,
    GLYPHS_PRETRAIN,
    MetatrainRecipe,
    ModelConfig,
    PretrainRecipe,
    Schedule,
    Validation,
)


def test_the_defaults_are_the_papers() -> None:
    pretrain, meta = PretrainRecipe(), MetatrainRecipe()
    assert (pretrain.epochs, pretrain.batch_size, pretrain.lr, pretrain.weight_decay) == (120, 128, 0.1, 5e-4)
    assert [pretrain.schedule.factor(epoch, 120) for epoch in (0, 29, 30, 119)] == pytest.approx([1, 1, 0.2, 0.008])
    assert (meta.epochs, meta.episodes_per_epoch, meta.lr, meta.n_way, meta.n_query) == (100, 50, 5e-4, 5, 15)
    assert [meta.schedule.factor(epoch, 100) for epoch in (0, 10, 25)] == [1, 0.5, 0.25]
    model = pretrain.model.build()
    assert model.config["backbone"] == {"name": "resnet12"}
    assert (model.image_size, model.resize, model.temperature) == (84, 92, 12.5)


def test_the_glyphs_recipe_leaves_several_nodes() -> None:
    model = GLYPHS_PRETRAIN.model.build()
    assert model.embed(torch.zeros(1, 3, 40, 40)).shape == (1, 25, 64)
    assert GLYPHS_METATRAIN.validation == GLYPHS_PRETRAIN.validation


RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_commands_in_a_recipes_header_take_it(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = [line.removeprefix("#").split() for line in path.read_text().splitlines() if line.startswith("#")]
    commands = [words[1:] for words in header if words[:1] == ["deepemd"] and f"recipes/{path.name}" in words]
    assert commands
    for words in commands:
        words[words.index("--config") + 1] = str(path)
        with pytest.raises(SystemExit) as stop:
            cli.main([*words, "--print_config"])
        assert stop.value.code == 0
        resolved, given = yaml.safe_load(capsys.readouterr().out), yaml.safe_load(path.read_text())
        if "recipe" in given:
            resolved, given = resolved["recipe"], given["recipe"]
        for key, value in given.items():
            assert resolved[key] == (value if not isinstance(value, dict) else {**resolved[key], **value})


def test_every_row_of_the_papers_table_has_a_recipe() -> None:
    """Those of its regions; each says what to expect and whether it was run."""
    rows = {"fcn", "pyramid", "grid-2", "grid-3", "grid-3-2", "grid-5-3-2", "sampling-9", "sampling-16", "sampling-25"}
    found = {path.stem.removeprefix("miniimagenet-resnet12-"): path for path in RECIPES if "resnet12-" in path.stem}
    assert set(found) == {*rows, "pretrain", "cosine-pretrain", "cosine-metatrain"}  # the last two are ours
    for row in rows:
        text = found[row].read_text()
        assert "# Expected (paper): " in text
        assert "# Run: " in text
        recipe = MetatrainRecipe(**{"regions": yaml.safe_load(text)["recipe"]["regions"]})
        assert parse_regions(recipe.regions or "")
    papers = MetatrainRecipe()
    given = yaml.safe_load(found["fcn"].read_text())["recipe"]
    assert (given["epochs"], given["episodes_per_epoch"], given["lr"]) == (papers.epochs, 50, papers.lr)


ABLATION = {  # the paper's 1-shot rows on miniImageNet, 5-way and 10-way
    "protonet": "60.37 % 5-way, 44.34 % 10-way",
    "matching-net": "63.08 % 5-way, 47.09 % 10-way",
    "cosine-classifier": "55.43 % 5-way, 40.42 % 10-way",
    "local-knn": "62.52 % 5-way, 47.08 % 10-way",
    "fusion": "62.38 % 5-way, 47.04 % 10-way",
}


def test_every_row_of_the_papers_ablation_has_a_recipe() -> None:
    found = {path.stem.removeprefix("miniimagenet-ablation-"): path for path in RECIPES if "ablation-" in path.stem}
    assert set(found) == set(ABLATION)
    for row, path in found.items():
        assert f"# Expected (paper): {ABLATION[row]}" in path.read_text()
        given = yaml.safe_load(path.read_text())
        assert (given["n_way"], given["n_shot"], given["n_episodes"]) == ("5,10", 1, 5000)
        methods = choose(given["method"], DeepEMD(conv4(channels=8)), n_shot=1)
        assert next(iter(methods)) == "DeepEMD"
        assert len(methods) > 1


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_header_says_what_to_expect_and_whether_it_was_run(path: Path) -> None:
    header = path.read_text().partition("\nrecipe:")[0]
    assert "\n# Expected" in header
    assert "\n# Run: " in header


def test_settings_that_make_no_sense_are_named() -> None:
    with pytest.raises(InputError, match=r"validation\.every is 7"):
        PretrainRecipe(validation=Validation(every=7))
    with pytest.raises(InputError, match="lr is -1"):
        PretrainRecipe(lr=-1)
    with pytest.raises(InputError, match="episodes_per_step is 3"):
        MetatrainRecipe(episodes_per_step=3)
    with pytest.raises(InputError, match="n_way is 0"):
        Validation(n_way=0)
    with pytest.raises(InputError, match="n_query is 0"):
        MetatrainRecipe(n_query=0)
    with pytest.raises(InputError, match=r"label_smoothing is 7: it must be from 0 to 1"):
        PretrainRecipe(label_smoothing=7)
    for recipe in (PretrainRecipe, MetatrainRecipe):
        with pytest.raises(InputError, match=r"weight_decay is -1: it must be at least 0"):
            recipe(weight_decay=-1)
    with pytest.raises(InputError, match="warmup is -1"):
        Schedule(warmup=-1)
    with pytest.raises(InputError, match="lr is nan"):
        PretrainRecipe(lr=float("nan"))
    with pytest.raises(InputError, match="temperature is 0"):
        ModelConfig(temperature=0)
    with pytest.raises(InputError, match=r"sizes is .*: its last must be model\.image_size, 84"):
        PretrainRecipe(sizes=(48, 64))
    with pytest.raises(InputError, match=r"schedule\.kind is 'linear'"):
        Schedule(kind="linear")  # type: ignore[arg-type]

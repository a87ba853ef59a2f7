"""Old names of settings still work: on the command line, in YAML files and in the folder of an earlier run."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from deepemd import cli
from deepemd.data import Store
from deepemd.errors import InputError
from deepemd.training.old_names import rename_keys
from deepemd.training.pretrain import pretrain
from deepemd.training.recipes import ModelConfig, PretrainRecipe, Validation

OLD_YAML = "recipe:\n  parts: 4\n  batch_size: 64\n  model:\n    fold: 2\n"


def resolved(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, int]:
    """Run pretrain with --print_config; return the two renamed settings as the command understands them."""
    with pytest.raises(SystemExit) as stop:
        cli.main(["pretrain", "glyphs", "out", *words, "--print_config"])
    out, err = capsys.readouterr()
    assert stop.value.code == 0, err
    recipe = yaml.safe_load(out)["recipe"]
    assert "parts" not in recipe
    assert "fold" not in recipe["model"]
    return recipe["grad_accum_steps"], recipe["model"]["space_to_depth"]


@pytest.mark.parametrize(
    "words",
    [
        ["--recipe.parts", "4", "--recipe.model.fold", "2"],
        ["--recipe.parts=4", "--recipe.model.fold=2"],
        ["--recipe", "{parts: 4, model: {fold: 2}}"],
        ["--recipe.grad_accum_steps", "4", "--recipe.model.space_to_depth", "2"],
    ],
)
def test_command_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert resolved(capsys, *words) == (4, 2)


def test_yaml_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, recipe = tmp_path / "config.yaml", tmp_path / "recipe.yaml"
    whole.write_text(OLD_YAML)
    recipe.write_text(yaml.safe_dump(yaml.safe_load(OLD_YAML)["recipe"]))
    assert resolved(capsys, "--config", str(whole)) == (4, 2)
    assert resolved(capsys, "--recipe", str(recipe)) == (4, 2)
    assert resolved(capsys, "--config", str(whole), "--recipe.parts", "2") == (2, 2)


def test_meta_training_and_help(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("recipe:\n  parts: 2\n  episodes_per_step: 2\n")
    with pytest.raises(SystemExit):
        cli.main(["metatrain", "m", "glyphs", "out", "--config", str(path), "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out)["recipe"]["grad_accum_steps"] == 2
    with pytest.raises(SystemExit):
        cli.main(["metatrain", "--help"])
    shown = capsys.readouterr().out
    assert "--recipe.grad_accum_steps" in shown
    assert "--recipe.parts" not in shown


def test_both_names_at_once_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="parts is the old name of grad_accum_steps, and both are given"):
        rename_keys({"recipe": {"parts": 2, "grad_accum_steps": 2}})
    path = tmp_path / "config.yaml"
    path.write_text("recipe:\n  parts: 2\n  grad_accum_steps: 2\n")
    assert cli.main(["pretrain", "glyphs", "out", "--config", str(path)]) == 2
    assert "parts is the old name of grad_accum_steps, and both are given" in capsys.readouterr().err


def test_an_earlier_run_is_resumed(patterns: Store, tmp_path: Path) -> None:
    model = ModelConfig("conv4", channels=8, pools=3, image_size=16, resize=16)
    few = Validation(n_episodes=4, n_way=3, n_query=5)
    recipe = PretrainRecipe(model, epochs=1, batch_size=96, grad_accum_steps=2, validation=few)
    splits, run = (patterns.splits["base"], patterns.splits["val"]), tmp_path / "run"
    result = pretrain(recipe, *splits, run)
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["recipe"]["parts"] = settings["recipe"].pop("grad_accum_steps")
    settings["recipe"]["model"]["fold"] = settings["recipe"]["model"].pop("space_to_depth")
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    assert pretrain(recipe, *splits, run, resume=True) == result
    with pytest.raises(InputError, match=r"recipe\.grad_accum_steps: .* started with 2, but 1 is requested"):
        pretrain(replace(recipe, grad_accum_steps=1), *splits, run, resume=True)

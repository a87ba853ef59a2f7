"""Runs killed within a write, and files damaged afterwards: a run continues from its last good state, to the bit.

Tests deepemd.training.checkpoint, deepemd.training.folder.
"""

import json
import logging
import os
import shutil
import signal
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from fork_server import ForkServer

from deepemd import FCN, DeepEMD, conv4
from deepemd.data import Store
from deepemd.errors import InputError
from deepemd.training.checkpoint import read
from deepemd.training.folder import RunFolder, TrainingResult
from deepemd.training.pretrain import pretrain
from deepemd.training.recipes import ModelConfig, PretrainRecipe, Validation

RECIPE = PretrainRecipe(
    ModelConfig("conv4", channels=8, pools=3, image_size=16, resize=16),
    epochs=3,
    batch_size=48,
    validation=Validation(n_episodes=10, n_way=3, n_query=5),
)
pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.fixture(scope="module")
def whole(patterns: Store, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """Train without a disturbance."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return pretrain(RECIPE, patterns.splits["base"], patterns.splits["val"], out)


def assert_same(one: TrainingResult, other: TrainingResult) -> None:
    """Compare everything but the seconds."""
    tables = [[line.rpartition(",")[0] for line in result.metrics.read_text().splitlines()] for result in (one, other)]
    assert tables[0] == tables[1]
    assert (one.model / "model.safetensors").read_bytes() == (other.model / "model.safetensors").read_bytes()
    states = [read(result.metrics.parent / "last.ckpt").content["state_dict"] for result in (one, other)]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert (one.accuracy, one.step, one.steps) == (other.accuracy, other.step, other.steps)


def resumed(patterns: Store, out: Path) -> TrainingResult:
    return pretrain(RECIPE, patterns.splits["base"], patterns.splits["val"], out, resume=True)


KILLED = """
import os, signal, sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_faults import RECIPE
from deepemd.data import load
from deepemd.training.pretrain import pretrain
if __name__ == "__main__":
    torch.set_num_threads(1)
    replace, count = Path.replace, 0
    def killed(path, target):  # the second checkpoint: written and not yet in its place
        global count
        count += Path(target).name == "last.ckpt"
        if count == 2:
            if sys.argv[4] == "half":
                os.truncate(path, os.path.getsize(path) // 2)
                Path(target).with_name("previous.ckpt").rename(target)  # as it is while the bytes are written
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(path, target)
    Path.replace = killed
    store = load(sys.argv[2])
    pretrain(RECIPE, store.splits["base"], store.splits["val"], Path(sys.argv[3]))
"""


@pytest.mark.parametrize(("when", "there"), [("half", "last.ckpt"), ("between", "previous.ckpt")])
def test_killed_within_the_write_of_a_checkpoint(
    when: str, there: str, whole: TrainingResult, patterns: Store, tmp_path: Path, forks: ForkServer
) -> None:
    out = tmp_path / "run"
    done = forks.run(KILLED, Path(__file__).parent, patterns.path, out, when)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [path.name for path in out.glob("*.ckpt") if not path.name.startswith(".")] == [there]
    assert len(list(out.glob(".tmp-*-last.ckpt"))) == 1
    assert read(out / there).content["global_step"] == 4
    assert_same(resumed(patterns, out), whole)
    assert not list(out.rglob(".tmp-*"))


@pytest.mark.parametrize("damage", ["a bit", "the end", "all"])
def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(
    damage: str, whole: TrainingResult, patterns: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = Path(shutil.copytree(whole.metrics.parent, tmp_path / "run"))
    (out / "result.json").unlink()
    content = bytearray((out / "last.ckpt").read_bytes())
    if damage == "a bit":  # of the weights: torch.load reads it without a word
        weights = read(out / "last.ckpt").content["state_dict"]["task.classifier.weight"]
        place = content.index(weights.numpy().tobytes())
        content[place] ^= 1
        (out / "last.ckpt").write_bytes(content)
        torch.load(out / "last.ckpt", weights_only=True)
    else:
        (out / "last.ckpt").write_bytes(content[: -100 if damage == "the end" else 0])
    with caplog.at_level(logging.WARNING):
        assert_same(resumed(patterns, out), whole)
    assert f"{out / 'last.ckpt'}: damaged (" in caplog.text
    assert "continuing from previous.ckpt, step 8" in caplog.text
    assert read(out / "last.ckpt").content["global_step"] == 12


def test_without_a_whole_checkpoint_the_run_is_not_begun_again_unasked(
    whole: TrainingResult, patterns: Store, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(whole.metrics.parent, tmp_path / "run"))
    (out / "result.json").unlink()
    for name in ("last.ckpt", "previous.ckpt"):
        (out / name).write_bytes((out / name).read_bytes()[:5000])
    with pytest.raises(
        InputError, match=r"last\.ckpt: damaged or truncated .* no undamaged one before it; start again"
    ):
        resumed(patterns, out)


@pytest.mark.parametrize("step", range(4))
@pytest.mark.parametrize("floor", [1e-3, 1e-2])
@pytest.mark.parametrize("older", [False, True])
def test_a_model_saved_over_another_is_never_half_of_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, floor: float, older: bool
) -> None:
    """Killed before any of its renames: with the same settings there is a model, with others one or an error."""
    replace, count = Path.replace, [0]

    def killed(path: Path, target: Path) -> Path:
        if count[0] == step:
            raise KeyboardInterrupt
        count[0] += 1
        return replace(path, target)

    def model(floor: float) -> DeepEMD:
        return DeepEMD(conv4(channels=4, pools=2), FCN(), image_size=16, resize=16, floor=floor)

    one, other = model(1e-3), model(floor)
    folder = one.save(tmp_path / "model")
    if older:  # saved by a version without check sums
        config = json.loads((folder / "config.json").read_text())
        del config["weights_sha256"]
        (folder / "config.json").write_text(json.dumps(config))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt) if step < 3 else nullcontext():
            other.save(folder)
    try:
        found = DeepEMD.load(folder)
    except InputError as error:
        refusal = str(error)
        assert floor != 1e-3
        assert "not the file that config.json was saved with" in refusal
    else:
        source = next(m for m in (one, other) if torch.equal(next(m.parameters()), next(found.parameters())))
        assert found.config == source.config
    assert not list(folder.glob(".tmp-*"))
    again = DeepEMD.load(other.save(folder))  # the same command finishes
    assert torch.equal(next(again.parameters()), next(other.parameters()))


@pytest.mark.parametrize("step", range(4))
def test_a_first_save_that_is_killed_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    replace, count = Path.replace, [0]

    def killed(path: Path, target: Path) -> Path:
        if count[0] == step:
            raise KeyboardInterrupt
        count[0] += 1
        return replace(path, target)

    model = DeepEMD(conv4(channels=4, pools=2), FCN(), image_size=16, resize=16)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt) if step < 3 else nullcontext():
            model.save(tmp_path)
    again = DeepEMD.load(model.save(tmp_path))
    assert torch.equal(next(again.parameters()), next(model.parameters()))


@pytest.mark.parametrize("name", ["last.ckpt", "previous.ckpt", "metrics.csv", "result.json", "best", "tensorboard"])
@pytest.mark.parametrize("resume", [False, True])
def test_files_of_another_run_or_program_are_not_replaced(tmp_path: Path, name: str, resume: bool) -> None:
    (tmp_path / name).write_text("years of work")
    (tmp_path / "epoch-3.ckpt").write_text("theirs")
    with pytest.raises(InputError, match=rf"holds {name} but no config\.yaml, so it is not of a run"):
        RunFolder(tmp_path).open({}, resume=resume)
    assert (tmp_path / name).read_text() == "years of work"


def begun(path: Path) -> RunFolder:
    folder = RunFolder(path)
    folder.begin({"seed": 1})
    folder.finish({"accuracy": 0.5, "ci95": 0.1, "step": 3}, 6)
    return folder


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "seed: " + "[" * 3000,
        "7",
        "a: &a [x]\nb: [*a, *a]",
        "seed: 2026-99-99",
        "? [1]\n: 2",
        "\0",
        "seed: !!python/x 1",
    ],
    ids=lambda text: repr(text[:12]),
)
def test_a_damaged_config_of_a_run_is_explained(tmp_path: Path, text: str) -> None:
    folder = begun(tmp_path)
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=r"config\.yaml: damaged"):
        folder.open({"seed": 1}, resume=True)


@pytest.mark.parametrize("value", ["NaN", "-1", '"half"', "null", "1e999", "[]"])
def test_a_damaged_result_of_a_run_is_explained(tmp_path: Path, value: str) -> None:
    folder = begun(tmp_path)
    result = folder.open({"seed": 1}, resume=True)
    assert result is not None
    assert (result.accuracy, result.step, result.steps) == (0.5, 3, 6)
    text = (tmp_path / "result.json").read_text()
    (tmp_path / "result.json").write_text(text.replace("0.5", value))
    with pytest.raises(InputError, match=r"result\.json: damaged .*remove it and resume the run"):
        folder.open({"seed": 1}, resume=True)

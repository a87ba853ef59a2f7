"""The estimate of a step's memory, compared with the memory that a process needs for the step."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fork_server import ForkServer

from deepemd import DeepEMD, cli, conv4
from deepemd.data import Store
from deepemd.errors import InputError, Interrupted
from deepemd.nodes import FCN, Memory
from deepemd.training import metatrain as meta
from deepemd.training.estimate import estimate
from deepemd.training.metatrain import metatrain
from deepemd.training.recipes import MetatrainRecipe, PretrainRecipe, Validation

STEP = """
import json, sys, torch
from deepemd import DeepEMD, FCN
from deepemd.bench.measure import peak_rise
from deepemd.nodes import Memory, resnet12
from deepemd.training.estimate import estimate

torch.set_num_threads(1)
memory = Memory(**json.loads(sys.argv[1]))
model = DeepEMD(resnet12((32, 32, 32, 32)), FCN()).train()
images = torch.rand(40, 3, 84, 84)

def step(images):
    nodes = model.embed(images, memory=memory)
    model.match(nodes[:5], nodes[5:], 5).sum().backward()

step(images[:6])
model.zero_grad()
expected = estimate(model, memory, len(images), n_way=5).total
print(json.dumps([expected, peak_rise(lambda: step(images)) * 2**20]))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's account of peak memory")
@pytest.mark.parametrize("memory", [{}, {"checkpoint": True}, {"chunk": 20, "freeze_batch_norm": True}])
def test_the_estimate_is_near_what_a_process_takes(memory: dict[str, object], forks: ForkServer) -> None:
    done = forks.run(STEP, json.dumps(memory))
    assert done.returncode == 0, done.stderr
    expected, found = json.loads(done.stdout)
    assert found > 100e6
    assert expected == pytest.approx(found, rel=0.35)


def test_the_estimate_leaves_the_model_unchanged() -> None:
    model = DeepEMD(conv4(8), FCN()).eval()
    before, random = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    estimate(model, Memory(checkpoint=True), 80, n_way=5)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    assert not model.training


def test_settings_that_save_memory_lower_it() -> None:
    """Settings that store less take less memory; with chunks, more squares add their pixels only."""
    model = DeepEMD(conv4(16), FCN())
    settings = Memory(), Memory(checkpoint=True), Memory(chunk=80, freeze_batch_norm=True)
    plain, blocks, chunks = (estimate(model, memory, 200, n_way=5) for memory in settings)
    assert plain.total > blocks.total > chunks.total
    more = estimate(model, settings[2], 300, n_way=5)
    assert more.encoder == chunks.encoder
    assert more.inputs - chunks.inputs == 2 * 100 * 3 * 84 * 84 * 4  # as they come, and normalised


def test_pre_training_takes_checkpoint_alone() -> None:
    assert PretrainRecipe(memory=Memory(checkpoint=True)).memory.checkpoint
    for memory in (Memory(freeze_batch_norm=True), Memory(chunk=8, freeze_batch_norm=True), Memory(query_chunk=8)):
        with pytest.raises(InputError, match=r"set memory\.checkpoint alone"):
            PretrainRecipe(memory=memory)


VALIDATION = Validation(n_episodes=4, n_way=3, n_query=5)
RECIPE = MetatrainRecipe(epochs=1, episodes_per_epoch=3, n_way=3, n_query=4, lr=1e-3, validation=VALIDATION)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = DeepEMD(conv4(8, pools=3), FCN(), image_size=20, resize=24)
    return model.save(tmp_path_factory.mktemp("start") / "model")


def test_checkpointing_changes_nothing_and_frozen_batch_norm_does(start: Path, patterns: Store, tmp_path: Path) -> None:
    ends = {}
    for name, memory in {
        "plain": Memory(),
        "blocks": Memory(checkpoint=True),
        "chunks": Memory(chunk=4, freeze_batch_norm=True, query_chunk=5),
    }.items():
        metatrain(
            replace(RECIPE, memory=memory, regions="sampling:3"),
            start, patterns.splits["base"], patterns.splits["val"], tmp_path / name, precision="32",
        )  # fmt: skip
        ends[name] = torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state_dict"]
    before = DeepEMD.load(start).state_dict()
    for name, plain in ends["plain"].items():
        torch.testing.assert_close(ends["blocks"][name], plain, rtol=1e-5, atol=1e-6, msg=name)
        if "running" in name:
            assert torch.equal(ends["chunks"][name], before[name.removeprefix("task.model.")])
            assert not torch.equal(plain, before[name.removeprefix("task.model.")])


@pytest.mark.parametrize("memory", [Memory(checkpoint=True), Memory(chunk=4, freeze_batch_norm=True, query_chunk=5)])
def test_a_resumed_run_gives_the_same_result(
    memory: Memory, start: Path, patterns: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, val, recipe = patterns.splits["base"], patterns.splits["val"], replace(RECIPE, memory=memory)
    expected = metatrain(recipe, start, base, val, tmp_path / "whole")
    plain = meta.episode_batches

    def signalled(*arguments):  # while the second step is prepared, the signal comes
        batches = plain(*arguments)
        make = batches.make
        batches.make = lambda k, part: (os.kill(os.getpid(), signal.SIGTERM) if k == 1 else None, make(k, part))[1]
        return batches

    monkeypatch.setattr(meta, "episode_batches", signalled)
    with pytest.raises(Interrupted):
        metatrain(recipe, start, base, val, tmp_path / "run")
    monkeypatch.undo()
    assert metatrain(recipe, start, base, val, tmp_path / "run", resume=True).accuracy == expected.accuracy
    ends = [torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state_dict"] for name in ("whole", "run")]
    for name, tensor in ends[0].items():
        assert torch.equal(ends[1][name], tensor), name


def test_the_command_line_prints_it(capsys, start: Path, patterns: Store, tmp_path: Path) -> None:
    words = ["metatrain", start, patterns.path, tmp_path / "run", "--precision", "32", "--resume"]
    words += ["--recipe.epochs", 1, "--recipe.episodes_per_epoch", 2, "--recipe.n_way", 3, "--recipe.n_query", 4]
    words += ["--recipe.validation.n_episodes", 4, "--recipe.validation.n_way", 3, "--recipe.validation.n_query", 5]
    checkpoint = ["--recipe.memory.checkpoint", "true"]
    assert cli.main([str(word) for word in [*words, *checkpoint]]) == 0
    err = capsys.readouterr().err
    assert (
        "memory: about 0.1 GB in addition to weights and optimizer (15 squares of 20 x 20, checkpointed by block)"
        in err
    )
    assert err.index("memory: about") < err.index("meta-training: 1 epochs")

    assert cli.main([str(word) for word in words]) == 2
    assert "recipe.memory.checkpoint: the run in" in capsys.readouterr().err
    assert cli.main([str(word) for word in [*words, "--recipe.memory.chunk", 8]]) == 2
    assert "memory.freeze_batch_norm too" in capsys.readouterr().err

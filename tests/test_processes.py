"""Two processes, started by torchrun and connected by gloo, give the same results as one."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from deepemd import cli, processes
from deepemd.data import EpisodeSampler, Store
from deepemd.embedding.views import view
from deepemd.errors import InputError
from deepemd.model import DeepEMD
from deepemd.processes import (
    ProcessInfo,
    all_gather,
    all_reduce,
    all_reduce_max,
    broadcast,
    rank_zero_first,
    shard,
    torchrun_info,
)
from deepemd.training.batches import Batch, Batches, episode_batches
from deepemd.training.metatrain import Metatraining, metatrain
from deepemd.training.pretrain import pretrain
from deepemd.training.recipes import Augmentation, MetatrainRecipe, ModelConfig, PretrainRecipe, Schedule, Validation
from deepemd.training.steps import Statistics

if TYPE_CHECKING:  # the processes of torchrun do not see the folder of helpers
    from fork_server import ForkServer

pytestmark = pytest.mark.usefixtures("one_thread")  # as in the processes that are started

VALIDATION = Validation(n_episodes=5, n_way=3, n_query=2)
PRE = PretrainRecipe(  # 20 steps, a validation after each, so that metrics.csv has the loss of each
    ModelConfig("conv4", channels=8, pools=3, image_size=20, resize=24),
    epochs=20,
    batch_size=192,
    grad_accum_steps=2,
    schedule=Schedule("cosine", warmup=0.5),
    augmentation=Augmentation(flip=False, crop_scale=(0.6, 1.0)),
    validation=VALIDATION,
)
META = MetatrainRecipe(
    epochs=20,
    episodes_per_epoch=2,
    episodes_per_step=2,
    grad_accum_steps=2,
    n_way=5,
    n_query=2,
    regions="fcn",
    lr=0.01,
    augmentation=PRE.augmentation,
    validation=VALIDATION,
)
EVALUATE = ["--split=val", "--n_way=3", "--n_query=5", "--n_episodes=40", "--precision=32"]
INDEX = ["--split=base", "--precision=32"]

SCRIPT = """
import os, signal, sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_processes import EVALUATE, INDEX, META, PRE
from deepemd import cli
from deepemd.data import load
from deepemd.errors import Interrupted, ProcessLost
from deepemd.evaluation import scoring
from deepemd.training import metatrain as meta
from deepemd.training.pretrain import pretrain

_, _, what, store, model, out = sys.argv
data, store, out = store, load(store), Path(out)
splits = store.splits["base"], store.splits["val"]

def whole():
    scoring._BATCH_BYTES = 1  # an episode at a time: shares of twenty
    pretrain(PRE, *splits, out / "pre", precision="32")
    meta.metatrain(META, model, *splits, out / "meta", precision="32")
    assert cli.main(["evaluate", model, data, *EVALUATE, "--out", str(out / "report.json")]) == 0
    assert cli.main(["retrieve", "index", model, data, str(out / "index"), *INDEX]) == 0

def broken(number, step, resume=False):
    "The meta-training in which the last of the processes gets a signal while a step is prepared."
    episode_batches = meta.episode_batches
    def signalled(*arguments):
        batches = episode_batches(*arguments)
        make = batches.make
        def made(k, part):
            if k == step and part == 1:
                os.kill(os.getpid(), number)
            return make(k, part)
        batches.make = made
        return batches
    meta.episode_batches = signalled
    try:
        meta.metatrain(META, model, *splits, out / "broken", precision="32", resume=resume)
    except (Interrupted, ProcessLost) as stop:
        print(type(stop).__name__, stop, flush=True)
        sys.exit(stop.exit_code)

if __name__ == "__main__":
    if what == "whole":
        whole()
        broken(signal.SIGTERM, 5)
    else:
        broken(signal.SIGKILL, 11, resume=True)
"""


FORKED = """
import runpy, sys
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

logs, *words = sys.argv[1:]

def worker():
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")

if __name__ == "__main__":
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=2, run_id="test", rdzv_backend="c10d", rdzv_endpoint="localhost:0",
        max_restarts=0, start_method="fork", logs_specs=DefaultLogsSpecs(log_dir=logs, redirects=Std.ALL),
    )
    elastic_launch(config, worker)()
"""


def started(
    what: str, patterns: Store, model: Path, out: Path, forks: "ForkServer | None" = None
) -> tuple[int, list[str]]:
    """Run the script above in two processes of torchrun; return its exit code, and what each of the two wrote.

    With `forks`, torchrun's own launcher forks the two from a process that has imported everything, which is faster.
    """
    script, logs = out / "script.py", out / f"logs-{what}"
    script.write_text(SCRIPT)
    words = [script, Path(__file__).parent, what, patterns.path, model, out]
    if forks is not None:
        done = forks.run(FORKED, logs, *words)
    else:
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
        command += [f"--log-dir={logs}", "--redirects=3", *map(str, words)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "DEEPEMD_CACHE": str(out / "cache")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    wrote = [
        "".join((path.parent / name).read_text() for name in ("stderr.log", "stdout.log"))
        for path in sorted(logs.rglob("stderr.log"))
    ]
    assert len(wrote) == 2, done.stderr
    return done.returncode, wrote


@pytest.fixture(scope="module")
def alone(patterns: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Let one process make a pre-training and a meta-training with two micro-batches a step, a report and an index."""
    out = tmp_path_factory.mktemp("alone")
    patch = pytest.MonkeyPatch()
    patch.setenv("DEEPEMD_CACHE", str(out / "cache"))  # nothing that others embedded
    splits = patterns.splits["base"], patterns.splits["val"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = str(replace(PRE.model, regions="sampling:3").build().save(out / "model"))
    pretrain(PRE, *splits, out / "pre", precision="32")
    metatrain(META, model, *splits, out / "meta", precision="32")
    assert cli.main(["evaluate", model, str(patterns.path), *EVALUATE, "--out", str(out / "report.json")]) == 0
    assert cli.main(["retrieve", "index", model, str(patterns.path), str(out / "index"), *INDEX]) == 0
    yield out
    patch.undo()


@pytest.fixture(scope="module")
def pair(alone: Path, patterns: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Let two processes make the same."""
    out = tmp_path_factory.mktemp("pair")
    _, wrote = started("whole", patterns, alone / "model", out)
    for text in wrote:  # at last the second was asked to stop; both did
        assert "Traceback" not in text, text
        assert text.endswith("--resume to continue\n")
    assert "validation" in wrote[0]
    assert len(wrote[1].splitlines()) == 1  # the first one speaks
    return out


def rows(run: Path) -> dict[str, np.ndarray]:
    """Return the columns of metrics.csv without the seconds."""
    with (run / "metrics.csv").open() as file:
        table = [{k: float(v or "nan") for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
    return {name: np.array([row[name] for row in table]) for name in table[0]}


@pytest.mark.parametrize("run", ["pre", "meta"])
def test_two_processes_with_a_micro_batch_each_train_as_one_with_both(run: str, alone: Path, pair: Path) -> None:
    one, two = rows(alone / run), rows(pair / run)
    assert one["step"].tolist()[-20:] == list(range(1, 21))
    assert np.ptp(one["loss"][-20:]) > 0.1
    np.testing.assert_allclose(two["loss"], one["loss"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(two["val_accuracy"], one["val_accuracy"], atol=0.02)  # a query more or less
    last, other = (torch.load(out / run / "last.ckpt", weights_only=True)["state_dict"] for out in (alone, pair))
    assert sum("running" in name for name in last) == 8
    for name, tensor in last.items():
        torch.testing.assert_close(other[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def test_micro_batches_make_a_difference(alone: Path, patterns: Store, tmp_path: Path) -> None:
    """The result depends on the number of micro-batches: otherwise the test above would show nothing."""
    splits = patterns.splits["base"], patterns.splits["val"]
    whole = metatrain(
        replace(META, epochs=1, grad_accum_steps=1), alone / "model", *splits, tmp_path / "run", precision="32"
    )
    assert abs(rows(whole.metrics.parent)["loss"][1] - rows(alone / "meta")["loss"][1]) > 1e-3


def test_an_evaluation_by_two_processes_is_the_same_report(alone: Path, pair: Path) -> None:
    one, two = (json.loads((out / "report.json").read_text()) for out in (alone, pair))
    assert set(one.pop("seconds")) == set(two.pop("seconds"))
    assert one == two


def test_an_index_by_two_processes_is_the_same_index(alone: Path, pair: Path) -> None:
    assert len(np.load(alone / "index" / "nodes.npy")) == 192
    for name in ("nodes.npy", "pooled.npy", "index.json", "images/base.bin"):
        assert (pair / "index" / name).read_bytes() == (alone / "index" / name).read_bytes(), name


def test_processes_stop_together_outlive_one_that_dies_and_resume_as_the_run(
    alone: Path, pair: Path, patterns: Store, forks: "ForkServer"
) -> None:
    model, run = alone / "model", pair / "broken"
    assert not (run / "result.json").exists()
    assert torch.load(run / "last.ckpt", weights_only=True)["global_step"] == 6  # of SIGTERM in step 6

    code, wrote = started("kill", patterns, model, pair, forks)
    assert code != 0
    assert "ProcessLost process 0 of 2 ends, because another one died" in wrote[0]
    assert "with --resume" in wrote[0]
    assert "Traceback" not in wrote[0]
    assert torch.load(run / "last.ckpt", weights_only=True)["global_step"] == 11

    splits = patterns.splits["base"], patterns.splits["val"]
    metatrain(META, model, *splits, run, precision="32", resume=True)  # alone: the recipe says what is computed
    np.testing.assert_allclose(rows(run)["loss"], rows(alone / "meta")["loss"], rtol=0, atol=1e-5)
    ours, theirs = (load_file(out / "best" / "model.safetensors") for out in (run, alone / "meta"))
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def test_a_step_is_the_mean_of_its_micro_batches(patterns: Store, alone: Path) -> None:
    """Compare with plain autograd: one micro-batch after the other, each from the first statistics."""
    base = patterns.splits["base"]
    sampler = EpisodeSampler(base.labels, 5, 1, 2, n_episodes=2, seed=0)
    model = DeepEMD.load(alone / "model").train()
    task = Metatraining(model, META)
    (parts,) = episode_batches(lambda i, seed: view(model, base, i, seed=seed, training=True), sampler, 2, 2)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    gradients, statistics = [], []
    for batch in parts:
        model.load_state_dict(before, strict=False)
        loss, _ = task(task.augment(batch))
        gradients.append(torch.autograd.grad(loss, list(model.parameters())))
        statistics.append({name: buffer.clone() for name, buffer in model.named_buffers()})
    for order in (parts, parts[::-1]):
        model.load_state_dict(before, strict=False)
        model.zero_grad()
        accumulated = Statistics(model)
        for batch in order:
            accumulated.begin()
            loss, _ = task(task.augment(batch))
            (loss / 2).backward()
            accumulated.end()
        accumulated.finish(accumulated.change, 2)
        for parameter, one, two in zip(model.parameters(), *gradients, strict=True):
            torch.testing.assert_close(parameter.grad, (one + two) / 2, rtol=1e-4, atol=1e-6)
        for name, buffer in model.named_buffers():
            if "running" in name:
                assert not torch.equal(statistics[0][name], statistics[1][name])
                torch.testing.assert_close(buffer, (statistics[0][name] + statistics[1][name]) / 2)
            elif "tracked" in name:
                assert buffer == before[name] + 1
            else:
                assert torch.equal(buffer, before[name])


def at(monkeypatch: pytest.MonkeyPatch, rank: int, count: int) -> None:
    monkeypatch.setattr(processes, "_info", ProcessInfo(rank, count, rank, count))


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("items", [0, 1, 2, 7, 8, 9])
def test_shares_in_order_are_the_whole(items: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = []
    for rank in range(count):
        at(monkeypatch, rank, count)
        shares.append(list(shard(range(items))))
    assert [item for some in shares for item in some] == list(range(items))
    assert max(map(len, shares)) == -(-items // count)


def test_processes_that_do_not_divide_the_micro_batches_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(step: int, part: int) -> Batch:
        return Batch(step, part, torch.empty(0), torch.empty(0))

    at(monkeypatch, 1, 2)
    assert [[batch.seed for batch in step] for step in Batches(make, 2, grad_accum_steps=6)] == [[3, 4, 5]] * 2
    with pytest.raises(
        InputError, match=r"recipe\.grad_accum_steps is 3, and 2 processes .*: set recipe\.grad_accum_steps to 4 "
    ):
        Batches(make, 2, grad_accum_steps=3)
    with pytest.raises(InputError, match=r"recipe\.grad_accum_steps is 1, .*: set recipe\.grad_accum_steps to 2 "):
        Batches(make, 2)
    with pytest.raises(InputError, match="grad_accum_steps is 3: it must divide episodes_per_step, 2"):
        replace(META, grad_accum_steps=3)
    with pytest.raises(InputError, match="grad_accum_steps is 5: it must divide batch_size, 192"):
        replace(PRE, grad_accum_steps=5)


def test_where_a_process_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert torchrun_info() == ProcessInfo(0, 1, 0, 1)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    assert cli.main(["evaluate", "model", "data"]) == 2
    assert "srun started this command 8 times" in capsys.readouterr().err
    for name, value in (("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    assert torchrun_info() == ProcessInfo(5, 8, 1, 4)
    assert cli.main(["warmup"]) == 2
    err = capsys.readouterr().err
    assert err == (
        "deepemd: error: process 5 of 8: warmup runs in one process, but torchrun started 8: run it without torchrun\n"
    )


def test_alone_there_is_nothing_to_do() -> None:
    one = nn.Linear(2, 2).weight.detach()
    assert all_gather(one) is one
    assert all_reduce(one) is one
    assert all_reduce_max(3, 4) == (3, 4)
    assert broadcast("thing") == "thing"
    with rank_zero_first():
        pass

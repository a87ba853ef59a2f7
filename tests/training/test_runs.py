"""Small runs from start to end: a resumed run gives the same result as an uninterrupted one, whatever interrupts it.

Tests deepemd.training.saving, deepemd.training.signals, deepemd.training.display, deepemd.training.fit,
deepemd.training.metatrain, deepemd.training.pretrain, deepemd.training.run, deepemd.training.steps,
deepemd.training.validation.
"""

import csv
import os
import re
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fork_server import ForkServer

from deepemd.data import EpisodeSampler, Store
from deepemd.errors import InputError, Interrupted
from deepemd.model import DeepEMD
from deepemd.nodes import parse_regions
from deepemd.training import fit as fitting
from deepemd.training.batches import Batch, Batches, classification_batches
from deepemd.training.folder import RunFolder, TrainingResult
from deepemd.training.metatrain import metatrain
from deepemd.training.pretrain import Pretraining, pretrain
from deepemd.training.recipes import Augmentation, MetatrainRecipe, ModelConfig, PretrainRecipe, Schedule, Validation
from deepemd.training.steps import Training
from deepemd.training.validation import Validator

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE = PretrainRecipe(
    ModelConfig("conv4", channels=16, pools=3, image_size=20, resize=24),
    epochs=3,
    batch_size=48,
    schedule=Schedule("cosine", warmup=0.5),
    augmentation=Augmentation(flip=False, crop_scale=(0.6, 1.0)),
    validation=Validation(n_episodes=20, n_way=3, n_query=5),
)
META = MetatrainRecipe(
    epochs=2,
    episodes_per_epoch=4,
    episodes_per_step=2,
    n_way=3,
    n_query=4,
    lr=0.01,
    augmentation=RECIPE.augmentation,
    validation=RECIPE.validation,
)


@pytest.fixture(scope="module")
def whole(patterns: Store, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """Train without an interruption."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return pretrain(RECIPE, patterns.splits["base"], patterns.splits["val"], out)


def rows(result: TrainingResult) -> list[dict[str, str]]:
    """Return the validations without the seconds."""
    with result.metrics.open() as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def weights(result: TrainingResult) -> bytes:
    return (result.model / "model.safetensors").read_bytes()


def assert_same(one: TrainingResult, other: TrainingResult) -> None:
    assert rows(one) == rows(other)
    assert weights(one) == weights(other)
    assert (one.accuracy, one.ci95, one.step, one.steps) == (other.accuracy, other.ci95, other.step, other.steps)


def test_a_run_learns_and_keeps_its_best_model(whole: TrainingResult, patterns: Store) -> None:
    table = rows(whole)
    assert [float(row["epoch"]) for row in table] == [1, 2, 3]
    assert float(table[-1]["loss"]) < float(table[0]["loss"])
    assert float(table[-1]["accuracy"]) > 0.2  # of 8 classes
    best = max(float(row["val_accuracy"]) for row in table)
    assert whole.accuracy == best > 0.5  # of 3 classes
    model = DeepEMD.load(whole.model)
    validator = Validator(patterns.splits["val"], RECIPE.validation)
    with torch.autocast("cpu", torch.bfloat16, enabled="bf16" in (whole.metrics.parent / "config.yaml").read_text()):
        assert validator.run(model).mean == best


def test_validation_is_the_mean_over_single_episodes(whole: TrainingResult, patterns: Store) -> None:
    """Compare with the slow way: each episode through the model on its own."""
    model, val = DeepEMD.load(whole.model), patterns.splits["val"]
    found = Validator(val, RECIPE.validation).run(model)
    pixels = torch.from_numpy(val.pixels(24)[:].copy())
    hits = []
    for episode in EpisodeSampler(val.labels, n_way=3, n_shot=1, n_query=5, n_episodes=20, seed=0):
        with torch.no_grad():
            predicted = model(pixels[episode.support], pixels[episode.query], 3).argmax(1)
        hits.append(float((predicted == torch.from_numpy(episode.query_labels)).double().mean()))
    assert found.mean == pytest.approx(sum(hits) / 20)
    assert found.ci95 == pytest.approx(1.96 * torch.tensor(hits).std(correction=0).item() / 20**0.5)


def interrupted_at(step: int, number: int, patterns: Store, out: Path) -> TrainingResult:
    """Pre-train, send the process a signal while a step is prepared, and resume."""
    base, val = patterns.splits["base"], patterns.splits["val"]

    def run(*, interrupt: bool) -> TrainingResult:
        plain = classification_batches(base.pixels(24), base.labels, RECIPE.batch_size, RECIPE.epochs, seed=0)

        def make(k: int, part: int) -> Batch:
            if interrupt and k == step:
                os.kill(os.getpid(), number)
            return plain.make(k, part)

        torch.manual_seed(0)
        task = Pretraining(RECIPE.model.build(), 8, RECIPE, len(plain))
        return fitting.fit(
            Training(task, RECIPE, Validator(val, RECIPE.validation), 4),
            Batches(make, len(plain)),
            RunFolder(out),
            title="test",
            steps_per_epoch=4,
            validate_every=4,
            precision="32-true",
            accelerator="cpu",
        )

    out.mkdir()
    with pytest.raises(Interrupted) as stop:
        run(interrupt=True)
    assert stop.value.exit_code == 128 + number
    assert (stop.value.step, stop.value.steps) == (step + 1, 12)
    assert RunFolder(out).last.exists()
    return run(interrupt=False)


@pytest.fixture(scope="module")
def whole_32(patterns: Store, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """Train without an interruption, in float32."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return pretrain(RECIPE, patterns.splits["base"], patterns.splits["val"], out, precision="32")


def test_training_crops_grow_in_equal_parts_of_the_run(patterns: Store) -> None:
    recipe = replace(RECIPE, sizes=(16, 18, 20), epochs=3)
    batches = classification_batches(
        patterns.splits["base"].pixels(24), patterns.splits["base"].labels, recipe.batch_size, recipe.epochs, seed=0
    )
    steps = len(batches) // recipe.epochs
    task = Pretraining(recipe.model.build(), 3, recipe, len(batches))
    sides = [task.augment(batch).images.shape[-1] for (batch,) in batches]
    assert sides == [16] * steps + [18] * steps + [20] * steps


@pytest.mark.parametrize(
    ("step", "number"),
    [
        (0, signal.SIGTERM),
        (2, signal.SIGINT),
        (3, signal.SIGTERM),  # a validation follows
        (4, signal.SIGTERM),  # the first step of an epoch
        (7, signal.SIGINT),
        (9, signal.SIGTERM),
    ],
)
def test_a_run_interrupted_at_any_step_resumes_to_the_same_result(
    step: int, number: int, whole_32: TrainingResult, patterns: Store, tmp_path: Path
) -> None:
    handlers = [signal.getsignal(k) for k in (signal.SIGINT, signal.SIGTERM)]
    assert_same(interrupted_at(step, number, patterns, tmp_path / "run"), whole_32)
    assert [signal.getsignal(k) for k in (signal.SIGINT, signal.SIGTERM)] == handlers


SCRIPT = """
import sys, torch
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_runs import LONG
from deepemd.data import load
from deepemd.errors import Interrupted
from deepemd.training.pretrain import pretrain
if __name__ == "__main__":
    torch.set_num_threads(1)
    store = load(sys.argv[2])
    try:
        pretrain(LONG, store.splits["base"], store.splits["val"], Path(sys.argv[3]))
    except Interrupted as stop:
        sys.exit(stop.exit_code)
"""
LONG = replace(RECIPE, epochs=20, validation=replace(RECIPE.validation, every=2))


@pytest.fixture(scope="module")
def whole_long(patterns: Store, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """Train the run of the tests below without an interruption."""
    return pretrain(LONG, patterns.splits["base"], patterns.splits["val"], tmp_path_factory.mktemp("whole") / "run")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_process_that_is_ended_from_outside_resumes_to_the_same_result(
    number: int, whole_long: TrainingResult, patterns: Store, tmp_path: Path, forks: ForkServer
) -> None:
    base, val = patterns.splits["base"], patterns.splits["val"]
    out = tmp_path / "run"
    process = forks.start(SCRIPT, Path(__file__).parent, patterns.path, out)
    deadline = time.monotonic() + 300
    while not (out / "last.ckpt").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, number)
    done = process.wait()
    assert done.returncode == (143 if number == signal.SIGTERM else -9), done.stderr
    assert done.stdout == ""
    assert not (out / "result.json").exists()
    assert_same(pretrain(LONG, base, val, out, resume=True), whole_long)


@pytest.fixture(scope="module")
def whole_meta(whole: TrainingResult, patterns: Store, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """Meta-train without an interruption, from the model of the whole pre-training."""
    out = tmp_path_factory.mktemp("whole") / "meta"
    return metatrain(META, whole.model, patterns.splits["base"], patterns.splits["val"], out)


def test_meta_training_repeats_and_counts_its_start(
    whole: TrainingResult, whole_meta: TrainingResult, patterns: Store, tmp_path: Path
) -> None:
    base, val = patterns.splits["base"], patterns.splits["val"]
    table = rows(whole_meta)
    assert [int(row["step"]) for row in table] == [0, 2, 4]
    assert float(table[0]["val_accuracy"]) == whole.accuracy
    assert whole_meta.accuracy >= whole.accuracy
    assert_same(metatrain(META, whole.model, base, val, tmp_path / "again"), whole_meta)

    ruinous = replace(META, lr=3.0, schedule=Schedule(decay=1.0))
    spoilt = metatrain(ruinous, whole.model, base, val, tmp_path / "spoilt")
    assert spoilt.step == 0
    assert weights(spoilt) == weights(whole)


META_SCRIPT = """
import os, signal, sys, torch
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_runs import META
from deepemd.data import load
from deepemd.errors import Interrupted
from deepemd.training import metatrain as meta
if __name__ == "__main__":
    torch.set_num_threads(1)
    store, step, episode_batches = load(sys.argv[2]), int(sys.argv[5]), meta.episode_batches
    def signalled(*arguments):  # while a step is prepared, the signal comes
        batches = episode_batches(*arguments)
        make = batches.make
        def made(k, part):
            if k == step:
                os.kill(os.getpid(), signal.SIGTERM)
            return make(k, part)
        batches.make = made
        return batches
    meta.episode_batches = signalled
    try:
        recipe = replace(META, regions=sys.argv[6] or None)
        meta.metatrain(recipe, sys.argv[3], store.splits["base"], store.splits["val"], Path(sys.argv[4]))
    except Interrupted as stop:
        sys.exit(stop.exit_code)
"""


@pytest.mark.parametrize("step", [1, 2])  # before a validation, within an epoch
def test_meta_training_ended_by_sigterm_resumes_to_the_same_result(
    step: int, whole: TrainingResult, whole_meta: TrainingResult, patterns: Store, tmp_path: Path, forks: ForkServer
) -> None:
    out = tmp_path / "run"
    done = forks.run(META_SCRIPT, Path(__file__).parent, patterns.path, whole.model, out, step, "")
    assert done.returncode == 143, done.stderr
    assert not (out / "result.json").exists()
    assert torch.load(out / "last.ckpt", weights_only=True)["global_step"] == step + 1
    resumed = metatrain(META, whole.model, patterns.splits["base"], patterns.splits["val"], out, resume=True)
    assert_same(resumed, whole_meta)
    ends = [torch.load(r.metrics.parent / "last.ckpt", weights_only=True) for r in (resumed, whole_meta)]
    for name, tensor in ends[0]["state_dict"].items():
        assert torch.equal(tensor, ends[1]["state_dict"][name]), name  # the last weights, not only the best
    assert [e["global_step"] for e in ends] == [4, 4]


@pytest.mark.parametrize("regions", ["grid:2,1", "sampling:3"])
def test_training_on_patches_resumes_to_the_same_result(
    regions: str, whole: TrainingResult, patterns: Store, tmp_path: Path, forks: ForkServer
) -> None:
    base, val, out = patterns.splits["base"], patterns.splits["val"], tmp_path / "run"
    recipe = replace(META, regions=regions, augmentation=Augmentation(jitter=0.2))
    plain = metatrain(recipe, whole.model, base, val, tmp_path / "plain")
    model = DeepEMD.load(plain.model)
    assert model.regions == parse_regions(regions)
    assert Validator(val, META.validation).run(model).mean == pytest.approx(plain.accuracy, abs=0.02)  # bfloat16

    again = replace(META, regions=regions)
    expected = metatrain(again, whole.model, base, val, tmp_path / "expected")
    assert rows(expected) != rows(plain)  # the jitter makes a difference
    unflipped = replace(again, augmentation=replace(META.augmentation, flip=True))
    assert rows(metatrain(unflipped, whole.model, base, val, tmp_path / "flipped")) != rows(expected)
    done = forks.run(META_SCRIPT, Path(__file__).parent, patterns.path, whole.model, out, 2, regions)
    assert done.returncode == 143, done.stderr
    assert_same(metatrain(again, whole.model, base, val, out, resume=True), expected)


LIMITED = """
import resource, sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_runs import RECIPE
from deepemd.data import load
from deepemd.errors import InputError
from deepemd.training.pretrain import pretrain
if __name__ == "__main__":
    torch.set_num_threads(1)
    store = load(sys.argv[2])
    for split in store.splits.values():
        split.pixels(RECIPE.model.resize)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), int(sys.argv[4])))
    try:
        pretrain(RECIPE, store.splits["base"], store.splits["val"], Path(sys.argv[3]), resume=True)
    except InputError as error:
        sys.exit(f"InputError {error}")
"""


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX")
@pytest.mark.parametrize(
    ("limit", "says", "there"),
    [
        (45_000, r"run: a quota or file size limit was reached.*free space and --resume; no half-written file", True),
        (10_000, r"best: a quota or file size limit was reached.*no half-written file is left", False),
        (60, r"run: cannot be written .*File too large.*free space and --resume", False),  # TensorBoard's file
    ],
)
def test_a_disk_that_takes_no_more_loses_nothing(
    limit: int, says: str, there: bool, whole: TrainingResult, patterns: Store, tmp_path: Path, forks: ForkServer
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    shutil.copy(whole.metrics.parent / "config.yaml", out)  # so small a file finds room
    done = forks.run(LIMITED, Path(__file__).parent, patterns.path, out, limit)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert re.search(f"InputError .*{says}", done.stderr), done.stderr
    assert not (out / "last.ckpt").exists()
    assert (out / "best" / "model.safetensors").exists() == there
    if there:
        DeepEMD.load(out / "best")
    leftovers = [path.name for path in out.rglob(".*")]
    assert not leftovers
    assert_same(
        pretrain(RECIPE, patterns.splits["base"], patterns.splits["val"], out, resume=True), whole
    )  # there is room again


def test_settings_that_do_not_fit_leave_nothing_in_the_way(patterns: Store, tmp_path: Path) -> None:
    base, val = patterns.splits["base"], patterns.splits["val"]
    for wrong, says in (
        (
            replace(RECIPE, validation=replace(RECIPE.validation, n_way=7)),
            "n_way: 7 classes asked for, but there are 6",
        ),
        (replace(RECIPE, validation=replace(RECIPE.validation, n_query=16)), "class 'val0' has 16 images"),
        (replace(RECIPE, model=replace(RECIPE.model, regions="fcn:2")), "level 2 repeats the 2 x 2 map"),
        (replace(RECIPE, model=replace(RECIPE.model, image_size=4)), "images of 4 x 4 are too small"),
    ):
        with pytest.raises(InputError, match=says):
            pretrain(wrong, base, val, tmp_path / "run")
        assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="seed is -1"):
        pretrain(RECIPE, base, val, tmp_path / "run", seed=-1)
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_another_architecture_is_refused(
    whole: TrainingResult, patterns: Store, tmp_path: Path
) -> None:
    base, val = patterns.splits["base"], patterns.splits["val"]
    other = replace(RECIPE, epochs=1, model=replace(RECIPE.model, channels=8))
    pretrain(other, base, val, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    shutil.copy(whole.metrics.parent / "last.ckpt", tmp_path / "run")
    with pytest.raises(InputError, match=r"last\.ckpt: of another architecture: .* \(16, 3, 3, 3\) .* \(8, 3, 3, 3\)"):
        pretrain(other, base, val, tmp_path / "run", resume=True)


def test_a_folder_with_a_run_is_not_overwritten(whole: TrainingResult, patterns: Store) -> None:
    base, val = patterns.splits["base"], patterns.splits["val"]
    out = whole.metrics.parent
    with pytest.raises(InputError, match="holds a run already: pass --resume"):
        pretrain(RECIPE, base, val, out)
    assert pretrain(RECIPE, base, val, out, resume=True) == whole  # it has ended
    with pytest.raises(InputError, match=r"recipe\.lr: .* started with 0\.1, but 0\.05"):
        pretrain(replace(RECIPE, lr=0.05), base, val, out, resume=True)
    with pytest.raises(InputError, match=r"recipe\.schedule\.warmup: .* 0\.5, but 1"):
        pretrain(replace(RECIPE, schedule=Schedule("cosine", warmup=1)), base, val, out, resume=True)
    with pytest.raises(InputError, match=r"seed: .* 0, but 1"):
        pretrain(RECIPE, base, val, out, resume=True, seed=1)
    with pytest.raises(InputError, match=r"data\.base\.name"):
        pretrain(RECIPE, val, val, out, resume=True)


def test_a_damaged_checkpoint_is_explained(patterns: Store, tmp_path: Path) -> None:
    base, val = patterns.splits["base"], patterns.splits["val"]
    out = tmp_path / "run"
    short = replace(RECIPE, epochs=1)
    pretrain(short, base, val, out)
    (out / "result.json").unlink()
    content = (out / "last.ckpt").read_bytes()
    (out / "last.ckpt").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"last\.ckpt: damaged or truncated"):
        pretrain(short, base, val, out, resume=True)


def test_a_run_that_diverges_says_where_and_keeps_what_it_had(patterns: Store, tmp_path: Path) -> None:
    base, val = patterns.splits["base"], patterns.splits["val"]
    wild = replace(RECIPE, lr=1e30, schedule=Schedule("step", warmup=1.0))
    with pytest.raises(InputError, match=r"not finite at step \d+: the run has diverged.* lower lr"):
        pretrain(wild, base, val, tmp_path / "run")
    assert (tmp_path / "run" / "config.yaml").exists()
    assert not (tmp_path / "run" / "last.ckpt").exists()


def test_a_run_is_quiet_but_for_its_own_lines(
    patterns: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pretrain(replace(RECIPE, epochs=1), patterns.splits["base"], patterns.splits["val"], tmp_path / "run")
    stdout, stderr = capfd.readouterr()
    assert stdout == ""
    memory, first, line = stderr.splitlines()
    assert memory.startswith("memory: about 0.1")
    assert first == "pre-training: 1 epochs, 4 steps"
    assert line.startswith("epoch 1  loss ")
    assert line.endswith("(best so far)")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "best",
        "config.yaml",
        "last.ckpt",
        "metrics.csv",
        "result.json",
        "tensorboard",
    }

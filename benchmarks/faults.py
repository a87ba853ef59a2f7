"""Kill a run with SIGKILL at random moments, resume it each time, and compare its end with an undisturbed run's.

    nice -n 10 python benchmarks/faults.py

The run: prepare a class folder, pre-train, meta-train, evaluate with the cache, index for retrieval; tiny, on one
thread. Of the kills one half comes at moments drawn uniformly over the stage's time, the other at the first moment
after such a one at which the stage's store, checkpoint, piece of the cache or index is half-written. After each kill
all that is there under its final name is read and must be whole. At the end weights, metrics, result, report, store,
index and embeddings must equal the undisturbed run's, to the bit. Linux; some four minutes of one core. Writes
benchmarks/results/faults.json.
"""

import argparse
import csv
import json
import os
import random
import select
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

os.environ |= {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}

import numpy as np
import torch
from PIL import Image

from deepemd.apps.reports.tables import write_json
from deepemd.apps.retrieval.index import build_index, open_index
from deepemd.data import Episodes, load
from deepemd.data.store import open_store, verify
from deepemd.errors import InputError
from deepemd.evaluation.evaluate import evaluate
from deepemd.model import DeepEMD
from deepemd.training.checkpoint import read
from deepemd.training.metatrain import metatrain
from deepemd.training.pretrain import pretrain
from deepemd.training.recipes import Augmentation, MetatrainRecipe, ModelConfig, PretrainRecipe, Schedule, Validation
from deepemd.versions import versions

PRE = PretrainRecipe(
    ModelConfig("conv4", channels=32, pools=3, image_size=32, resize=32),
    epochs=60,
    batch_size=64,
    schedule=Schedule("cosine", warmup=0.5),
    augmentation=Augmentation(flip=False, crop_scale=(0.6, 1.0)),
    validation=Validation(n_episodes=20, n_way=4, n_query=5),
)
META = MetatrainRecipe(
    epochs=40,
    episodes_per_epoch=8,
    n_way=4,
    n_query=6,
    lr=0.003,
    augmentation=PRE.augmentation,
    validation=PRE.validation,
)
EPISODES = Episodes(n_way=5, n_query=5, n_episodes=200)
KILLS = {"prepare": 4, "pretrain": 8, "metatrain": 8, "evaluate": 5, "index": 5}  # of 30
AIM = {"prepare": "", "pretrain": "last.ckpt", "metatrain": "last.ckpt", "evaluate": ".npz", "index": "index"}
PER_CLASS = {"base": (10, 40), "val": (6, 20), "novel": (8, 160)}  # split: classes, images of each


class Life(NamedTuple):
    """What became of one process."""

    stage: str  # in which it was
    killed: bool
    seconds: float
    entered: dict[str, float]  # when each stage began


def draw(folder: Path) -> None:
    """Class folders of noisy stripes, 32 x 32."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:32, :32]
    for split, (classes, count) in PER_CLASS.items():
        for k in range(classes):
            (folder / split / f"{split}{k}").mkdir(parents=True)
            angle = np.pi * (k + (split == "val") / 2 + (split == "novel") / 3) / classes
            for i in range(count):
                along = (rows * np.sin(angle) + columns * np.cos(angle)) * (0.6 + 0.1 * (k % 3))
                pixels = 128 + 70 * np.sin(along + rng.uniform(0, 6))[..., None] + rng.normal(0, 40, (32, 32, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / split / f"{split}{k}" / f"{i}.png")


def run(source: Path, out: Path, tell: Callable[[str], None]) -> None:
    """All stages, each of which goes on where it was or is done already."""
    tell("prepare")
    splits = load(source, out / "stores").splits
    tell("pretrain")
    first = pretrain(PRE, splits["base"], splits["val"], out / "pretrain", resume=True, precision="32")
    tell("metatrain")
    second = metatrain(META, first.model, splits["base"], splits["val"], out / "metatrain", resume=True, precision="32")
    tell("evaluate")
    if not (out / "report.json").exists():
        found = evaluate(DeepEMD.load(second.model), splits["novel"], EPISODES, cache=out / "cache")
        write_json({name: values.tolist() for name, values in found.accuracies.items()}, out / "report.json")
    tell("index")
    if not (out / "indexed").exists():  # killed before this: once more, in the place of the one that may be there
        build_index(second.model, source / "novel", out / "index", force=True)
        (out / "indexed").touch()
    tell("end")


def live(source: Path, out: Path, kill: Callable[[str, float], bool]) -> Life:
    """One process, killed when `kill` says so, which is asked again and again with the stage and its age."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reader)
            log = os.open(out.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1), os.dup2(log, 2)
            run(source, out, lambda stage: os.write(writer, f"{stage}\n".encode()))
        except BaseException:  # told in the log
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    os.close(writer)
    began = time.monotonic()
    stage, entered, killed = "start", dict[str, float](), False
    while True:
        if select.select([reader], [], [], 0)[0]:
            told = os.read(reader, 1000).decode().split()
            if not told:
                break
            stage = told[-1]
            entered |= dict.fromkeys(told, time.monotonic() - began)
        if stage in entered and stage != "end" and kill(stage, time.monotonic() - began - entered[stage]):
            os.kill(child, signal.SIGKILL)
            killed = True
            break
        time.sleep(0.0005)
    _, status = os.waitpid(child, 0)
    os.close(reader)
    if not killed and status:
        sys.exit(f"a process failed by itself, see {out.with_suffix('.log')}")
    return Life(stage, killed, time.monotonic() - began, entered)


def half_written(out: Path) -> list[str]:
    """What was being written."""
    return [str(path.relative_to(out)) for path in out.rglob(".tmp-*")]


def all_whole(out: Path) -> int:
    """Read everything that is there under its final name; how many things there were."""
    count = 0
    for description in out.glob("stores/[!.]*/store.json"):
        assert verify(open_store(description.parent)) == []
        count += 1
    for stage in ("pretrain", "metatrain"):
        for name in ("last.ckpt", "previous.ckpt"):
            if (out / stage / name).exists():
                read(out / stage / name)
                count += 1
        if (out / stage / "best").exists() and any((out / stage / "best").glob("[!.]*")):
            DeepEMD.load(out / stage / "best")
            count += 1
        if (out / stage / "result.json").exists():
            json.loads((out / stage / "result.json").read_text())
            count += 1
    for piece in out.glob("cache/*/*/[!.]*"):
        with np.load(piece) as archive:
            assert np.isfinite(archive["nodes"]).all()
        count += 1
    if (out / "index").exists():
        open_index(out / "index")
        count += 1
    return count


def ends(out: Path) -> dict[str, Any]:
    """All that a run leaves, but for what the clock says."""
    found: dict[str, Any] = {}
    for stage in ("pretrain", "metatrain"):
        with (out / stage / "metrics.csv").open() as file:
            found[f"{stage} metrics"] = [
                {key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)
            ]
        found[f"{stage} result"] = (out / stage / "result.json").read_text()
        found[f"{stage} best weights"] = (out / stage / "best" / "model.safetensors").read_bytes()
        state = read(out / stage / "last.ckpt").content["state_dict"]
        found[f"{stage} last weights"] = {name: tensor.numpy().tobytes() for name, tensor in state.items()}
    found["report"] = (out / "report.json").read_text()
    for folder in ("index", "cache", "stores"):
        files = sorted(path for path in (out / folder).rglob("*") if path.is_file())
        found[folder] = {str(path.relative_to(out)): path.read_bytes() for path in files}
    return found


def main() -> None:
    """Run undisturbed, run with kills, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "faults.json")
    settings = parser.parse_args()
    torch.set_num_threads(1)
    numbers = random.Random(settings.seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "photos"
        draw(source)
        whole, broken = Path(place) / "undisturbed", Path(place) / "killed"
        whole.mkdir(), broken.mkdir()
        plain = live(source, whole, lambda *_: False)
        names = [*KILLS, "end"]
        lasts = {a: plain.entered[b] - plain.entered[a] for a, b in pairwise(names)}
        print("undisturbed:", ", ".join(f"{name} {value:.1f} s" for name, value in lasts.items()), flush=True)

        plan = [stage for stage, share in KILLS.items() for _ in range(round(share * settings.kills / 30))]
        stages, writes, checked = Counter[str](), Counter[str](), 0
        for k, aim in enumerate(plan):
            # what goes on where it was ends after some lives; the store begins again, and may be killed anywhere
            delay = numbers.uniform(0, lasts[aim] * (1 if aim == "prepare" else 2 / plan.count(aim)))

            def kill(stage: str, age: float, aim: str = aim, delay: float = delay, aimed: bool = k % 2 == 1) -> bool:
                late = names.index(stage) > names.index(aim)
                due = late or (stage == aim and age >= delay)
                return due and (not aimed or any(late or name.endswith(AIM[aim]) for name in half_written(broken)))

            old = set(half_written(broken))
            life = live(source, broken, kill)
            left = set(half_written(broken)) - old
            if life.killed:
                stages[life.stage] += 1
                writes[life.stage] += bool(left)
            else:  # it was through before the kill came: the index once more, for the kills that are left
                (broken / "indexed").unlink()
            try:
                checked += all_whole(broken)
            except (AssertionError, InputError, ValueError, OSError) as error:
                sys.exit(f"read as whole, and is not: {error}")
            print(
                f"{k + 1:3}  {life.stage:10}{life.seconds:6.1f} s  {'killed' if life.killed else 'ended'}"
                f"  {', '.join(sorted(left))}",
                flush=True,
            )
        last = live(source, broken, lambda *_: False)
        one, other = ends(whole), ends(broken)
        equal = {name: one[name] == other[name] for name in one}
        leftovers = half_written(broken)
        result = {
            "kills": sum(stages.values()),
            "by_stage": dict(stages),
            "within_a_write": dict(writes),
            "whole_things_read_after_kills": checked,
            "resumed": sum(stages.values()),
            "leftovers_at_the_end": leftovers,
            "equal": equal,
            "seed": settings.seed,
            "seconds_undisturbed": plain.seconds,
            "seconds_of_the_last_process": last.seconds,
            "seconds": time.monotonic() - began,
            "versions": versions(),
        }
    write_json(result, settings.out)
    print(json.dumps(result, indent=1))
    if not all(equal.values()):
        sys.exit("the killed run ended otherwise than the undisturbed one")


if __name__ == "__main__":
    main()

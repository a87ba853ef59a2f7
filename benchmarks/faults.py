"""Kill every command that writes, run the same command again, and compare its result with an undisturbed run's.

    nice -n 10 python benchmarks/faults.py --out benchmarks/results/faults.json

The commands: data prepare, predict, check, pretrain, metatrain, evaluate, retrieve index and app; on small images, on
one thread. Of the kills (SIGKILL), half come at random moments of a command. The others come while a file is
half-written, or between two files of one result: just before a file is renamed to its final name. After each kill,
everything under a final name is read and must be undamaged. Then the same command must finish, and all that it leaves
must equal the undisturbed run's to the byte, but for the seconds; the app must remove the uploads of the killed one.
Linux; under 20 minutes of one core. `--kills 10` is a rehearsal.
"""

import argparse
import json
import os
import random
import re
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}

import numpy as np
import torch
import yaml
from PIL import Image

import deepemd.apps.photos.check_page
import deepemd.apps.photos.predict_page
import deepemd.apps.web.app
import deepemd.training.metatrain
import deepemd.training.pretrain  # noqa: F401  (imported before the processes fork)
from deepemd import cli
from deepemd.apps.reports.tables import write_json
from deepemd.apps.retrieval.index import open_index
from deepemd.data.store import open_store, verify
from deepemd.model import DeepEMD
from deepemd.results import is_lock
from deepemd.training.checkpoint import read
from deepemd.training.recipes import Augmentation, MetatrainRecipe, ModelConfig, PretrainRecipe, Schedule, Validation
from deepemd.versions import versions

PRE = PretrainRecipe(
    ModelConfig("conv4", channels=32, pools=3, image_size=32, resize=32),
    epochs=30,
    batch_size=64,
    schedule=Schedule("cosine", warmup=0.5),
    augmentation=Augmentation(flip=False, crop_scale=(0.6, 1.0)),
    validation=Validation(n_episodes=20, n_way=4, n_query=5),
)
META = MetatrainRecipe(
    epochs=20,
    episodes_per_epoch=8,
    n_way=4,
    n_query=6,
    lr=0.003,
    augmentation=PRE.augmentation,
    validation=PRE.validation,
)
PER_CLASS = {"base": (10, 40), "val": (6, 20), "novel": (8, 160), "support": (4, 6), "query": (4, 15)}
LATE = 8  # the last renames of a command, among which are those of its result
ATTEMPTS = 4  # to kill a command before it has ended


@dataclass(frozen=True)
class Stage:
    """A command and what it leaves.

    Attributes:
        words: the command, in the folder of a run.
        kills: number of kills, of 34.
        results: patterns of the files and folders that it leaves.
        resumes: whether a killed run continues where it was.
    """

    words: str
    kills: int
    results: tuple[str, ...]
    resumes: bool = False


STAGES = {
    "data prepare": Stage("data prepare {set} --root stores", 4, ("stores",)),
    "predict": Stage(
        "predict --support {photos}/support --query {photos}/query --out predicted --report predicted --cache cache-p",
        6,
        ("predicted", "cache-p"),
    ),
    "check": Stage(
        "check {photos}/support --out checked/check.json --report checked --cache cache-c", 4, ("checked", "cache-c")
    ),
    "pretrain": Stage(
        "pretrain {set} pretrain --config ../pre.yaml --resume --root stores --precision 32",
        5,
        ("pretrain/*.*", "pretrain/best"),
        True,
    ),
    "metatrain": Stage(
        "metatrain pretrain/best {set} metatrain --config ../meta.yaml --resume --root stores --precision 32",
        5,
        ("metatrain/*.*", "metatrain/best"),
        True,
    ),
    "evaluate": Stage(
        "evaluate metatrain/best {set} --root stores --n_query 5 --n_episodes 200 --out evaluated/report.json"
        " --picture evaluated/matches.png --cache cache-e",
        3,
        ("evaluated", "cache-e"),
    ),
    "retrieve index": Stage("retrieve index metatrain/best {set}/novel index --cache cache-i", 4, ("index", "cache-i")),
}
APP_KILLS = 3


@dataclass
class Life:
    """What became of one process.

    Attributes:
        code: its exit code; -9 if it was killed.
        seconds: how long it lived.
        renames: number of files that it renamed, if it ended by itself.
        left: temporary files and marks that it left.
    """

    code: int
    seconds: float
    renames: int = 0
    left: list[str] = field(default_factory=list)


def draw(root: Path) -> dict[str, Path]:
    """Draw class folders of noisy stripes: a data set with three splits, and photos to predict and check."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:32, :32]
    places = {"set": root / "set", "photos": root / "photos"}
    for split, (classes, count) in PER_CLASS.items():
        parent = places["photos" if split in ("support", "query") else "set"] / split
        for k in range(classes):
            (parent / f"class {k} of {split[0]}").mkdir(parents=True)
            angle = np.pi * (k + (split == "val") / 2 + (split == "novel") / 3) / classes
            for i in range(count):
                along = (rows * np.sin(angle) + columns * np.cos(angle)) * (0.6 + 0.1 * (k % 3))
                pixels = 128 + 70 * np.sin(along + rng.uniform(0, 6))[..., None] + rng.normal(0, 40, (32, 32, 3))
                picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                picture.save(parent / f"class {k} of {split[0]}" / f"{i}.png")
    for name, recipe in (("pre", PRE), ("meta", META)):
        (root / f"{name}.yaml").write_text(yaml.safe_dump({"recipe": json.loads(json.dumps(asdict(recipe)))}))
    return places


def count_renames(last: int) -> Callable[[], int]:
    """Kill this process just before its rename number `last`; return a function that returns how many there were."""
    count = 0

    def counted(original: Callable[[Path, Any], Path]) -> Callable[[Path, Any], Path]:
        def rename(path: Path, target: Any) -> Path:
            nonlocal count
            count += 1
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(path, target)

        return rename

    for name in ("replace", "rename"):
        setattr(Path, name, counted(getattr(Path, name)))
    return lambda: count


def start(folder: Path, words: list[str], last: int = 0) -> tuple[int, int]:
    """Fork a process that runs a command in a folder; return its number and a pipe with what it reports at its end."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        with suppress(OSError):  # both do it, whoever is first
            os.setpgid(child, child)
        os.close(writer)
        return child, reader
    code = 1
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        os.close(reader)
        log = os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(folder)
        renames = count_renames(last)
        code = cli.main(words)
        os.write(writer, str(renames()).encode())
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def live(folder: Path, words: list[str], due: Callable[[float], bool] = lambda _: False, last: int = 0) -> Life:
    """Run a command in a process of its own, killed when `due` of its age says so or before rename number `last`."""
    before, began = set(unfinished(folder)), time.monotonic()
    child, reader = start(folder, words, last)
    renames = b""
    while True:
        if select.select([reader], [], [], 0.0005)[0]:
            renames = os.read(reader, 100)
            break  # it ends, or was killed
        if due(time.monotonic() - began):
            os.killpg(child, signal.SIGKILL)
            break
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(reader)
    left = sorted(set(unfinished(folder)) - before)
    return Life(code, time.monotonic() - began, int(renames or 0), left)


def unfinished(folder: Path) -> list[str]:
    """Return the temporary files, but for locks, and the marks of results that are being put in place."""
    found = []
    for parent, folders, files in os.walk(folder):
        names = [name for name in [*folders, *files] if name.startswith((".tmp-", ".unfinished-"))]
        found += [os.path.relpath(os.path.join(parent, name), folder) for name in names if not is_lock(name)]
    return found


def all_whole(out: Path) -> int:
    """Read everything that is there under its final name; return how many things there were."""
    count = 0
    for description in out.glob("stores/[!.]*/store.json"):
        assert verify(open_store(description.parent)) == []
        count += 1
    for stage in ("pretrain", "metatrain"):
        for path in (out / stage / name for name in ("last.ckpt", "previous.ckpt")):
            if path.exists():
                read(path)
                count += 1
        if (out / stage / "best" / "config.json").exists():
            DeepEMD.load(out / stage / "best")
            count += 1
    for path in [*out.glob("*/[!.]*.json"), *out.glob("*/best/[!.]*.json")]:
        json.loads(path.read_text())
        count += 1
    for path in out.rglob("[!.]*.npz"):
        with np.load(path) as archive:
            assert all(archive[name] is not None for name in archive.files)
        count += 1
    for path in out.glob("*/[!.]*.html"):
        assert path.read_text().endswith("</html>\n")
        count += 1
    for path in out.glob("*/[!.]*.png"):
        with Image.open(path) as picture:
            picture.load()
        count += 1
    if (out / "index").exists():
        open_index(out / "index")
        count += 1
    return count


def ends(out: Path, stage: Stage) -> dict[str, Any]:
    """Return all that a command leaves, but for what the clock says."""
    found: dict[str, Any] = {}
    paths = [path for pattern in stage.results for path in out.glob(pattern)]
    for path in sorted(inner for one in paths for inner in ([one] if one.is_file() else one.rglob("*"))):
        if path.is_file():
            found[str(path.relative_to(out))] = _content(path)
    return found


def _content(path: Path) -> Any:
    if path.suffix == ".json":
        return re.sub(r'"seconds": (\{[^}]*\}|[0-9.e-]+)', "", path.read_text())
    if path.name == "metrics.csv":  # the last column is the seconds
        return [line.rpartition(",")[0] for line in path.read_text().splitlines()]
    if path.suffix == ".ckpt":
        state = read(path).content["state_dict"]
        return {name: tensor.numpy().tobytes() for name, tensor in state.items()}
    return path.read_bytes()


@dataclass
class Outcome:
    """What the kills of one command led to.

    Attributes:
        kills: number of kills.
        half_written: of these, with a file half-written.
        between: of these, just before a file was put in place.
        finished: kills after which the same command finished, or had finished before.
        read: number of files and folders that were read after kills.
        equal: whether the result equals that of an undisturbed run.
        leftovers: temporary files at the end.
        different: names of what differs.
    """

    kills: int = 0
    half_written: int = 0
    between: int = 0
    finished: int = 0
    read: int = 0
    equal: bool = False
    leftovers: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)


def torture(stage: Stage, words: list[str], whole: Path, broken: Path, kills: int, dice: random.Random) -> Outcome:
    """Run a command undisturbed, then kill it again and again, and compare."""
    plain = live(whole, words)
    if plain.code:
        sys.exit(f"{' '.join(words)}: failed by itself, see {whole.with_suffix('.log')}")
    expected, outcome = ends(whole, stage), Outcome()
    for k in range(kills):
        for _ in range(ATTEMPTS):
            life = live(broken, words, *_moment(k, plain, stage, broken, kills, dice))
            if life.code == -signal.SIGKILL:
                break
            _remove(broken, stage)  # it had ended before
        killed = life.code == -signal.SIGKILL
        outcome.kills += killed
        outcome.between += killed and k % 4 == 1
        outcome.half_written += killed and bool(life.left) and k % 4 != 1
        outcome.read += all_whole(broken)
        if not stage.resumes or k == kills - 1:  # a training is killed again and again on its way
            again = live(broken, words)
            found = ends(broken, stage)
            complete = found.keys() == expected.keys() and all(found[name] == expected[name] for name in expected)
            outcome.finished += killed and (again.code == 0 or complete)
            outcome.different = [
                name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
            ]
            outcome.leftovers += unfinished(broken)
            if k < kills - 1:
                _remove(broken, stage)
        else:
            outcome.finished += killed
        print(f"  {k + 1}: {life.seconds:5.1f} s, left: {', '.join(life.left) or 'nothing'}", flush=True)
        if outcome.different or outcome.leftovers:
            print(f"  different: {outcome.different}, left over: {outcome.leftovers}", flush=True)
            break
    outcome.equal = not outcome.different
    return outcome


def _moment(
    k: int, plain: Life, stage: Stage, broken: Path, kills: int, dice: random.Random
) -> tuple[Callable[[float], bool], int]:
    """Choose when to kill: at a random moment, before a rename, or when a file is half-written."""
    share = min(1.0, 2 / kills) if stage.resumes else 1.0
    delay = dice.uniform(0, plain.seconds * share)
    if k % 2 == 0:
        return lambda age: age >= delay, 0
    if k % 4 == 1:
        low = 1 if stage.resumes else max(1, plain.renames - LATE + 1)
        return lambda _: False, dice.randint(low, max(low, round(plain.renames * share)))
    old = set(unfinished(broken))
    return lambda age: age >= delay * 0.7 and bool(set(unfinished(broken)) - old), 0


def _remove(out: Path, stage: Stage) -> None:
    """Remove what a command has left, so that it starts anew."""
    for name in {pattern.partition("/")[0] for pattern in stage.results}:
        shutil.rmtree(out / name, ignore_errors=True)


def torture_app(out: Path, kills: int, dice: random.Random) -> Outcome:
    """Kill the app while it starts or while a photo is uploaded; the next one must remove all uploads and serve."""
    outcome, uploads = Outcome(), out / "tmp"
    uploads.mkdir()
    tempfile.tempdir = str(uploads)
    for k in range(kills + 1):
        port = _free_port()
        began = time.monotonic()
        child, reader = start(out, ["app", "--port", str(port)])
        delay = dice.uniform(0, 6)
        if k % 2 == 0 and k < kills:
            time.sleep(delay)
        else:
            _wait_for(port)
            old = [path for path in uploads.rglob("*") if path.is_file() and path.stat().st_size]
            outcome.different += [str(path.relative_to(out)) for path in old]
            outcome.read += 1
            _upload(port, whole=k == kills)
        os.killpg(child, signal.SIGINT if k == kills else signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        left = [path for path in uploads.rglob("*") if path.is_file() and path.stat().st_size]
        outcome.kills += k < kills
        outcome.half_written += bool(left) and k < kills
        print(f"  {k + 1}: {time.monotonic() - began:5.1f} s, {len(left)} uploads left", flush=True)
    outcome.finished = outcome.kills
    outcome.leftovers = [str(path.relative_to(out)) for path in uploads.iterdir()]
    outcome.equal = not outcome.different
    tempfile.tempdir = None
    return outcome


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _wait_for(port: int, limit: float = 120) -> None:
    """Wait until the page answers."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    sys.exit("the app does not answer")


def _upload(port: int, *, whole: bool) -> None:
    """Upload a photo of 4 MB, or its first half."""
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    body = head + bytes(4_000_000) + b"\r\n--b--\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(
            f"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(body)}\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\nConnection: close\r\n\r\n".encode()
        )
        connection.sendall(body if whole else body[: len(body) // 2])
        if whole:
            assert b" 200 " in connection.recv(100)
        else:
            time.sleep(0.5)


def table(outcomes: Mapping[str, Outcome]) -> str:
    """Return the table of docs/faults.md."""
    heads = ["", *outcomes, "all"]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    rows = {
        "kills": "kills",
        "of these, with a file half-written": "half_written",
        "of these, between two files": "between",
        "the same command finished": "finished",
    }
    for title, name in rows.items():
        numbers = [int(getattr(one, name)) for one in outcomes.values()]
        lines.append(f"| {' | '.join([title, *map(str, [*numbers, sum(numbers)])])} |")
    lines.append(f"| {' | '.join(['equal', *('yes' if one.equal else 'no' for one in outcomes.values()), ''])} |")
    return "\n".join(lines)


def main() -> None:
    """Run every command undisturbed and with kills; write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=34, help="number of kills in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one command")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "faults.json")
    settings = parser.parse_args()
    for command in cli.COMMANDS.values():  # before the processes fork
        import_module(command.function.partition(":")[0])
    torch.set_num_threads(1)
    dice, began, outcomes = random.Random(settings.seed), time.monotonic(), dict[str, Outcome]()
    with tempfile.TemporaryDirectory() as place:
        places = draw(Path(place))
        whole, broken = Path(place) / "undisturbed", Path(place) / "killed"
        whole.mkdir()
        broken.mkdir()
        for name, stage in STAGES.items() if settings.only != "app" else ():
            words = [word.format(**places) for word in stage.words.split()]
            kills = max(1, round(stage.kills * settings.kills / 34)) if settings.only in (None, name) else 0
            print(f"{name} ({time.monotonic() - began:.0f} s so far)", flush=True)
            outcomes[name] = torture(stage, words, whole, broken, kills, dice)
            if not kills:
                shutil.copytree(whole, broken, dirs_exist_ok=True)
        if settings.only in (None, "app"):
            print(f"app ({time.monotonic() - began:.0f} s so far)", flush=True)
            outcomes["app"] = torture_app(broken, max(1, round(APP_KILLS * settings.kills / 34)), dice)
    report = {name: asdict(one) for name, one in outcomes.items()}
    total = Counter({key: sum(one[key] for one in report.values()) for key in ("kills", "finished", "read")})
    about = {"seed": settings.seed, "seconds": time.monotonic() - began, "versions": versions()}
    write_json({"all": total, "commands": report, "table": table(outcomes), **about}, settings.out)
    print(table(outcomes))
    if total["finished"] < total["kills"] or not all(one.equal and not one.leftovers for one in outcomes.values()):
        sys.exit(f"not every command finished with an equal result, see {settings.out}")


if __name__ == "__main__":
    main()

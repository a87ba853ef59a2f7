"""Solve a million random problems of twenty kinds and judge every answer by its own duals.

    pip install -c constraints.txt ".[bench]"
    python benchmarks/soak.py --problems 1000000   # minutes, on all cores; benchmarks/results/soak.json
    python benchmarks/soak.py --batch 1234         # one batch again, named by the report

A batch is problems of one kind, shape and type; batch k of a seed is the same on every machine. Workers are processes
of their own, so that a hang (a batch that outlasts --limit) and a crash are findings with a name like any other, and
the soak goes on. Ctrl-C keeps what is done; the same command goes on from there. Exits with 1 if anything was found.
"""

import argparse
import json
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))
from problems import FAMILIES, FLOAT32_ROUNDING, defects, draw_batch

from deepemd.bench.measure import processor
from deepemd.transport import emd
from deepemd.versions import versions

RESULTS = Path(__file__).parent / "results" / "soak.json"
LARGEST_DEFECT = 1e-9  # relative to max |c| and sum a
ENTRIES = 200_000  # of a batch's costs: large enough for vectorised checks, small enough for the caches
BATCH = 50  # at most, so that a million problems have tens of thousands of shapes
COMPILING = 600.0  # seconds that a worker may take longer than a batch before its first one
SCALES = (1.0, 1.0, 2.0**-30, 2.0**13, 2.0**60)  # powers of two keep ties
SIZES = ((1, "1"), (16, "2 - 16"), (32, "17 - 32"), (64, "33 - 64"), (130, "65 - 130"), (256, "131 - 256"))


# --- what batch k is --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """Everything about batch `k` of a seed but its numbers."""

    seed: int
    k: int
    family: str
    n: int
    m: int
    count: int
    dtype: str
    scale: float
    threads: int

    @classmethod
    def of(cls, seed: int, k: int) -> "Batch":
        rng = np.random.default_rng([seed, k, 0])
        kind = rng.random()
        if kind < 0.03:
            n, m = rng.integers(257, 1001, 2)
        elif kind < 0.4:
            n, m = rng.integers(1, 257, 2)
        else:
            n, m = (130 ** rng.random(2)).round().astype(int)
        family, dtype = FAMILIES[k % len(FAMILIES)], ("float64", "float32")[rng.integers(2)]
        scale = 1.0 if family == "limits of float32" else float(rng.choice(SCALES))
        count = int(np.clip(ENTRIES // (n * m), 1, BATCH))
        return cls(seed, k, family, int(n), int(m), count, dtype, scale, 1 + k % 2)

    @property
    def size(self) -> str:
        return next((name for top, name in SIZES if max(self.n, self.m) <= top), "257 - 1000")

    def draw(self) -> list[np.ndarray]:
        rng = np.random.default_rng([self.seed, self.k, 1])
        problems = draw_batch(rng, self.family, self.count, self.n, self.m, self.scale)
        return [t.astype(self.dtype) for t in problems]

    def solve(self) -> dict[str, Any]:
        """The largest defect of each kind over the batch, and the seconds that emd took."""
        cost, a, b = self.draw()
        torch.set_num_threads(self.threads)
        began = time.perf_counter()
        solution = emd(*(torch.from_numpy(t) for t in (cost, a, b)))
        seconds = time.perf_counter() - began
        answer = [t.double().numpy() for t in (solution.plan, solution.u, solution.v, solution.value)]
        cost, a, b = (t.astype(float) for t in (cost, a, b))
        b = b * (a.sum(1, keepdims=True) / b.sum(1, keepdims=True))
        found = defects(cost, a, b, *answer, rounding=FLOAT32_ROUNDING if self.dtype == "float32" else 0.0)
        return {"defects": {name: float(d.max()) for name, d in found.items()}, "seconds": seconds}


# --- workers ----------------------------------------------------------------------------------------------------------


def work(pipe: Connection) -> None:
    """Solve the batches that come through the pipe until its other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, who ends us
    try:
        for dtype in ("float32", "float64"):  # compile, or load what is compiled, before the clock of a batch runs
            for n in (2, 40, 140):
                Batch(0, 0, "random", n, n, 2, dtype, 1.0, 1).solve()
        pipe.send(None)
        while True:
            batch = pipe.recv()
            try:
                pipe.send(batch.solve())
            except Exception as error:  # a finding like any other
                pipe.send({"error": f"{type(error).__name__}: {error}"})
    except EOFError:
        pass


@dataclass
class Worker:
    """A process, our end of its pipe, and the batch it is at."""

    process: Any
    pipe: Connection
    ready: bool = False
    batch: Batch | None = None
    since: float = field(default_factory=time.monotonic)

    @classmethod
    def start(cls) -> "Worker":
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(theirs,), daemon=True)
        process.start()
        theirs.close()
        return cls(process, ours)

    def take(self, batch: Batch) -> None:
        self.batch, self.since = batch, time.monotonic()
        self.pipe.send(batch)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


# --- the report -------------------------------------------------------------------------------------------------------


def enter(rows: dict[str, dict], name: str, batch: Batch, answer: dict[str, Any]) -> None:
    """Add a batch to the row of that name: counts, the largest defect of each kind, the slowest problem."""
    row = rows.setdefault(name, {"problems": 0, "seconds": 0.0, "largest": {}, "us": 0.0, "slowest": None})
    row["problems"] += batch.count
    row["seconds"] += answer["seconds"]
    largest = row["largest"].setdefault(batch.dtype, {})
    for kind, d in answer["defects"].items():
        largest[kind] = max(largest.get(kind, 0.0), d)
    each = 1e6 * answer["seconds"] / batch.count
    if each > row["us"]:
        row["us"], row["slowest"] = each, f"{batch.n} x {batch.m} {batch.dtype}, {batch.family}, batch {batch.k}"


def judge(report: dict, batch: Batch, answer: dict[str, Any]) -> None:
    """Enter the answer to a batch, or what was wrong with it."""
    report["next_batch"], report["problems"] = batch.k + 1, report["problems"] + batch.count
    found = answer.get("error")
    if found is None:
        wrong = {name: d for name, d in answer["defects"].items() if not d <= LARGEST_DEFECT}  # NaN is wrong too
        if wrong:
            found = ", ".join(f"{name} {d:.2g}" for name, d in wrong.items())
        else:
            enter(report["families"], batch.family, batch, answer)
            enter(report["sizes"], batch.size, batch, answer)
    if found is not None:
        report["failures"].append({**vars(batch), "found": found})


def save(report: dict, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(report, indent=1) + "\n")
    os.replace(part, path)


def load(path: Path, seed: int) -> dict:
    """The unfinished report of this seed that lies there, or a new one."""
    if path.is_file():
        report = json.loads(path.read_text())
        same = report["seed"] == seed and report["machine"] == processor() and report["versions"] == versions()
        if same and not report["complete"]:
            print(f"going on from batch {report['next_batch']}: {report['problems']:,} problems are done")
            return report
    return {
        "machine": processor(), "versions": versions(), "seed": seed, "complete": False, "problems": 0,
        "next_batch": 0, "seconds": 0.0, "families": {}, "sizes": {}, "failures": [],
    }  # fmt: skip


# --- the soak ---------------------------------------------------------------------------------------------------------


def soak(report: dict, problems: int, count: int, limit: float, path: Path) -> None:
    """Solve batches until that many problems are done. Modifies the report, and saves it now and then."""
    workers = [Worker.start() for _ in range(count)]
    following, ahead = report["next_batch"], report["problems"]  # of the batches given out, in order
    early: dict[int, tuple[Batch, dict]] = {}  # answers that wait for those of earlier batches
    began, before, saved = time.monotonic(), report["seconds"], time.monotonic()
    columns = *Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns) as progress:
        bar = progress.add_task("compiling", total=problems, completed=report["problems"])
        try:
            while report["problems"] < problems:
                wait([w.pipe for w in workers], timeout=1.0)
                for i, worker in enumerate(workers):
                    batch, answer = worker.batch, None
                    try:
                        if worker.pipe.poll():
                            answer, worker.ready, worker.batch = worker.pipe.recv(), True, None
                            progress.update(bar, description="soaking")
                    except (EOFError, ConnectionResetError):
                        worker.process.join()
                        answer = {"error": f"crash: the worker ended with exit code {worker.process.exitcode}"}
                        if batch is None:
                            raise RuntimeError(f"{answer['error']} before its first batch") from None
                    if batch is not None and answer is None and time.monotonic() - worker.since > limit:
                        answer = {"error": f"hang: more than {limit:g} s"}
                    if not worker.ready and time.monotonic() - worker.since > limit + COMPILING:
                        raise RuntimeError("a worker does not come to its first batch")
                    if batch is not None and answer is not None:
                        early[batch.k] = batch, answer
                        if "error" in answer:
                            progress.print(f"batch {batch.k} ({batch}): {answer['error']}")
                            worker.end()
                            workers[i] = worker = Worker.start()
                    if worker.ready and worker.batch is None and ahead < problems:
                        worker.take(Batch.of(report["seed"], following))
                        following, ahead = following + 1, ahead + worker.batch.count  # type: ignore[union-attr]
                while report["next_batch"] in early:
                    judge(report, *early.pop(report["next_batch"]))
                progress.update(bar, completed=report["problems"])
                report["seconds"] = before + time.monotonic() - began
                if time.monotonic() - saved > 10:
                    save(report, path)
                    saved = time.monotonic()
            report["complete"] = True
        finally:
            for worker in workers:
                worker.end()
            save(report, path)


def table(rows: dict[str, dict]) -> None:
    for name, row in rows.items():
        worst = {dtype: max(largest.values()) for dtype, largest in sorted(row["largest"].items())}
        print(
            f"{name:22}{row['problems']:9,} problems {1e6 * row['seconds'] / row['problems']:9.1f} us; largest defect "
            + ", ".join(f"{d:.1e} ({dtype})" for dtype, d in worst.items())
            + f"; slowest {row['us']:,.0f} us: {row['slowest']}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=1_000_000, help="how many at least; whole batches")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--limit", type=float, default=300.0, help="seconds after which a batch counts as hung")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--batch", type=int, help="solve this batch alone, in this process, and print what comes of it")
    options = parser.parse_args()
    if options.batch is not None:
        batch = Batch.of(options.seed, options.batch)
        print(batch, flush=True)
        print(json.dumps(batch.solve(), indent=1))
        return
    report = load(options.out, options.seed)
    try:
        soak(report, options.problems, options.workers, options.limit, options.out)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here")
    table(report["families"])
    table(dict(sorted(report["sizes"].items(), key=lambda row: int(row[0].split()[0]))))
    print(f"{report['problems']:,} problems in {report['seconds']:.0f} s, failures: {len(report['failures'])}")
    for failure in report["failures"]:
        print(failure)
    print(options.out)
    sys.exit(0 if report["complete"] and not report["failures"] else 1)


if __name__ == "__main__":
    main()

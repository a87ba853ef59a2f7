"""Time emd, the head and the evaluation beside what users have today, in one run.

    pip install -c constraints.txt ".[bench]"
    python benchmarks/spine.py            # about two minutes; writes benchmarks/results/spine.json

Peers take turns with us on fresh problems in every round, because machines are noisy: compare the ratios of one run,
not the milliseconds of two.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cosine_similarity

from deepemd.data import EpisodeSampler
from deepemd.emd import emd
from deepemd.matching import emd_logits
from deepemd.training.evaluate import METHODS, score, versions

RESULTS = Path(__file__).parent / "results" / "spine.json"


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def summary(values: list[float]) -> dict[str, float]:
    quarters = statistics.quantiles(values, n=4)
    return {"median": statistics.median(values), "iqr": quarters[2] - quarters[0]}


# --- emd against cv2.EMD and POT's core -------------------------------------------------------------------------------


def problems(generator: torch.Generator, batch: int, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Costs and weights as the head makes them, from embeddings of 64 channels."""
    x, y = (torch.rand(batch, n, 64, generator=generator).square() for _ in range(2))
    cost = 1 - cosine_similarity(
        x[:, :, None] - x.mean(-1)[:, :, None, None], y[:, None] - y.mean(-1)[:, None, :, None], -1
    )
    a, b = (torch.rand(batch, n, generator=generator) + 1e-3 for _ in range(2))
    return cost, a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)


def solve_each(solve: Callable, singles: list[tuple]) -> None:
    for problem in singles:
        solve(*problem)


def cv2_emd(cv2, cost, a, b):
    return cv2.EMD(a[:, None], b[:, None], cv2.DIST_USER, cost)


def pot_core(emd_c, cost, a, b):
    return emd_c(a, b, cost, 1_000_000, 0, 1)


def bench_emd(rounds: int) -> list[dict]:
    import cv2
    from ot.lp.emd_wrap import emd_c

    rows = []
    for n in (9, 13, 25, 49, 100):
        batch, few = max(40, 375 * 25 * 25 // (n * n)), max(4, 40_000 // n**3)
        times: dict[str, list[float]] = {"ours, 1 thread": [], "ours, 2 threads": [], "cv2.EMD": [], "POT core": []}
        generator = torch.Generator().manual_seed(n)
        for r in range(rounds + 1):
            for threads, name in ((1, "ours, 1 thread"), (2, "ours, 2 threads")):
                torch.set_num_threads(threads)
                cost, a, b = problems(generator, batch, n)
                times[name].append(seconds(partial(emd, cost, a, b)) / batch)
            single = [(c.numpy(), p.numpy(), q.numpy()) for c, p, q in zip(cost[:few], a, b, strict=False)]
            double = [tuple(np.ascontiguousarray(t, dtype=np.float64) for t in s) for s in single]
            double = [(c, p / p.sum(), q / q.sum()) for c, p, q in double]
            times["cv2.EMD"].append(seconds(partial(solve_each, partial(cv2_emd, cv2), single)) / few)
            times["POT core"].append(seconds(partial(solve_each, partial(pot_core, emd_c), double)) / few)
            if r == 0:  # compilation and warm caches
                for values in times.values():
                    values.clear()
        one = times["ours, 1 thread"]
        row = {
            "n": n,
            "batch": batch,
            "us": {name: summary([1e6 * t for t in values]) for name, values in times.items()},
            "times_faster": {
                name: summary([peer / ours for peer, ours in zip(times[name], one, strict=True)])
                for name in ("cv2.EMD", "POT core")
            },
            "two_threads": summary([o / t for o, t in zip(one, times["ours, 2 threads"], strict=True)]),
        }
        rows.append(row)
        print(
            f"emd n = {n:3}: {row['us']['ours, 1 thread']['median']:7.2f} us, two threads "
            f"{row['us']['ours, 2 threads']['median']:7.2f} us; cv2 x {row['times_faster']['cv2.EMD']['median']:.1f}, "
            f"POT core x {row['times_faster']['POT core']['median']:.1f}",
            flush=True,
        )
    return rows


# --- the head against the reference's way of doing it -----------------------------------------------------------------


def episode(generator: torch.Generator, queries: int = 75) -> tuple[torch.Tensor, torch.Tensor]:
    """Node sets like those of ResNet-12: 25 nodes of 640 channels, non-negative."""
    return tuple(torch.randn(s, 25, 640, generator=generator).relu() for s in (queries, 5))  # type: ignore[return-value]


def reference_logits(query: torch.Tensor, support: torch.Tensor) -> torch.Tensor:
    """The published way, in few lines: every pair's nodes are expanded, cv2.EMD is called in a Python loop."""
    import cv2

    q, s = (t - t.mean(-1, keepdim=True) for t in (query, support))
    pairs = (len(q), len(s), q.shape[1], s.shape[1], q.shape[2])
    left, right = q[:, None, :, None].expand(pairs), s[None, :, None].expand(pairs)  # (Q, S, n, m, C)
    similarity = cosine_similarity(left, right, dim=-1)  # (Q, S, n, m)
    a = torch.einsum("qnc,sc->qsn", query, support.mean(1)).relu() + 1e-3
    b = torch.einsum("qc,smc->qsm", query.mean(1), support).relu() + 1e-3
    a, b = (w * w.shape[-1] / w.sum(-1, keepdim=True) for w in (a, b))
    flows = torch.zeros_like(similarity)
    cost = (1 - similarity).detach().numpy()
    for i in range(len(q)):
        for j in range(len(s)):
            weights = (w[i, j].detach().numpy()[:, None] for w in (a, b))
            flows[i, j] = torch.from_numpy(cv2.EMD(*weights, cv2.DIST_USER, cost[i, j])[2])
    return (12.5 / q.shape[1]) * (similarity * flows).sum((-1, -2))


HEADS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "ours": emd_logits,
    "reference": reference_logits,
}


def measure_head(name: str, backward: bool) -> dict[str, float]:
    """One head in this process: milliseconds, and how far the peak of resident memory rises."""
    head, generator = HEADS[name], torch.Generator().manual_seed(0)

    def run(queries: int) -> None:
        query, support = (t.requires_grad_(backward) for t in episode(generator, queries))
        logits = head(query, support)
        if backward:
            logits.logsumexp(-1).sum().backward()

    run(5)
    before = reset_peak()
    times = [seconds(lambda: run(75)) for _ in range(20 if name == "ours" else 2)]
    return {"ms": 1e3 * statistics.median(times), "mb": (status("VmHWM") - before) / 1024}


def status(name: str) -> int:
    """A line of Linux's account of this process, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def reset_peak() -> int:
    """Forget the peak of resident memory so far. -> the memory that is resident now, in kB."""
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def bench_head() -> list[dict]:
    rows = []
    for backward in (False, True):
        row: dict = {"what": "forward and backward" if backward else "forward"}
        for name in HEADS:  # each in a fresh process: the peak of memory is a property of the process
            command = [sys.executable, __file__, "--head", name, *(["--backward"] if backward else [])]
            row[name] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        row["times_faster"] = row["reference"]["ms"] / row["ours"]["ms"]
        rows.append(row)
        print(
            f"head {row['what']}: {row['ours']['ms']:.1f} ms, {row['ours']['mb']:.0f} MB; the reference's way "
            f"{row['reference']['ms']:.0f} ms, {row['reference']['mb']:.0f} MB: x {row['times_faster']:.0f}",
            flush=True,
        )
    return rows


# --- evaluation -------------------------------------------------------------------------------------------------------


def bench_evaluation() -> dict:
    """Episodes per second over cached embeddings: 5-way 1-shot, 15 queries a class, ResNet-12's 25 x 640."""
    nodes = torch.randn(1200, 25, 640, generator=torch.Generator().manual_seed(0)).relu()
    labels = np.repeat(np.arange(20), 60)
    rates = []
    for seed in range(5):
        sampler = EpisodeSampler(labels, n_episodes=100, seed=seed)
        rates.append(100 / seconds(lambda: score(nodes, sampler, {"DeepEMD": METHODS["DeepEMD"]})))  # noqa: B023
    print(f"evaluation: {statistics.median(rates):.0f} episodes/s over cached embeddings", flush=True)
    return summary(rates)


def processor() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--head", choices=HEADS, help=argparse.SUPPRESS)
    parser.add_argument("--backward", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.head:
        print(json.dumps(measure_head(options.head, options.backward)))
        return
    result = {"machine": processor(), "versions": versions(), "emd": bench_emd(options.rounds)}
    torch.set_num_threads(2)
    result |= {"head": bench_head(), "evaluation_episodes_per_second": bench_evaluation()}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(options.out)


if __name__ == "__main__":
    main()

"""Time the head and the evaluation beside what users have today, in one run. `deepemd bench emd` times emd alone.

    pip install -c constraints.txt ".[bench]"
    python benchmarks/head.py             # about a minute; writes benchmarks/results/head.json

Machines are noisy: compare the ratios of one run, not the milliseconds of two.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cosine_similarity

from deepemd import DeepEMD, emd_logits, resnet12
from deepemd.bench.measure import peak_rise, processor, seconds, summary
from deepemd.data import EpisodeSampler
from deepemd.training.evaluate import score, versions
from deepemd.training.methods import choose

RESULTS = Path(__file__).parent / "results" / "head.json"


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


def measure_head(name: str, backward: bool) -> dict[str, float | None]:
    """One head in this process: milliseconds, and how far the peak of resident memory rises."""
    head, generator = HEADS[name], torch.Generator().manual_seed(0)

    def run(queries: int) -> None:
        query, support = (t.requires_grad_(backward) for t in episode(generator, queries))
        logits = head(query, support)
        if backward:
            logits.logsumexp(-1).sum().backward()

    run(5)
    times: list[float] = []
    rise = peak_rise(lambda: times.extend(seconds(lambda: run(75)) for _ in range(20 if name == "ours" else 2)))
    return {"ms": 1e3 * statistics.median(times), "mb": rise}


def bench_head() -> list[dict]:
    rows = []
    for backward in (False, True):
        row: dict = {"what": "forward and backward" if backward else "forward"}
        for name in HEADS:  # each in a fresh process: the peak of memory is a property of the process
            command = [sys.executable, __file__, "--head", name, *(["--backward"] if backward else [])]
            row[name] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        row["times_faster"] = row["reference"]["ms"] / row["ours"]["ms"]
        rows.append(row)
        ours, reference = (
            f"{row[name]['ms']:.1f} ms" + (f", {row[name]['mb']:.0f} MB" if row[name]["mb"] is not None else "")
            for name in HEADS
        )
        print(f"head {row['what']}: {ours}; the reference's way {reference}: x {row['times_faster']:.0f}", flush=True)
    return rows


# --- evaluation -------------------------------------------------------------------------------------------------------


def bench_evaluation() -> dict:
    """Episodes per second over cached embeddings: 5-way 1-shot, 15 queries a class, ResNet-12's 25 x 640."""
    nodes = torch.randn(1200, 25, 640, generator=torch.Generator().manual_seed(0)).relu()
    labels = np.repeat(np.arange(20), 60)
    rates = []
    for seed in range(5):
        sampler = EpisodeSampler(labels, n_episodes=100, seed=seed)
        methods = choose("deepemd", DeepEMD(resnet12()), n_shot=1)
        rates.append(100 / seconds(lambda: score(nodes, sampler, methods)))  # noqa: B023
    print(f"evaluation: {statistics.median(rates):.0f} episodes/s over cached embeddings", flush=True)
    return summary(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--head", choices=HEADS, help=argparse.SUPPRESS)
    parser.add_argument("--backward", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.head:
        print(json.dumps(measure_head(options.head, options.backward)))
        return
    result = {"machine": processor(), "versions": versions()}
    torch.set_num_threads(2)
    result |= {"head": bench_head(), "evaluation_episodes_per_second": bench_evaluation()}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(options.out)


if __name__ == "__main__":
    main()

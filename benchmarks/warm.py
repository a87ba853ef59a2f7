"""Time WarmStart beside emd on problems that drift, in one run.

    pip install -c constraints.txt .
    python benchmarks/warm.py             # a minute; writes benchmarks/results/warm.json
    python benchmarks/warm.py --quick     # a few seconds

Node sets of 64 channels like those of ResNet-12 (non-negative) pose the first batch as the head does. In each round
every cost moves by `step` of the standard deviation of the costs and every weight by `step` of itself, drawn
independently: drifts of gradient steps are smoother. Both solvers get the same fresh batch, one right after the other,
on one thread. The report holds the largest difference of their values too.
"""

import argparse
import json
from pathlib import Path

import torch

from deepemd.bench.measure import machine, ratios, seconds, summary, threads
from deepemd.matching.head import transport_problem
from deepemd.transport import WarmStart, emd

RESULTS = Path(__file__).parent / "results" / "warm.json"
PROBLEMS = {25: 375, 49: 100, 100: 25}  # n: problems of a batch
STEPS = (1e-3, 1e-2, 1e-1)


def first_batch(n: int, problems: int, generator: torch.Generator) -> list[torch.Tensor]:
    """cost (B, n, n), a (B, n), b (B, n), float32."""
    query, support = (torch.randn(problems, 1, n, 64, generator=generator).relu() for _ in range(2))
    return [t[:, 0, 0] for t in transport_problem(query, support)]


def drift(problem: list[torch.Tensor], spread: float, step: float, generator: torch.Generator) -> list[torch.Tensor]:
    """The batch one step later."""
    cost, *weights = problem
    moved = [(w * (1 + step * torch.randn(w.shape, generator=generator))).clamp(min=1e-5) for w in weights]
    return [
        cost + step * spread * torch.randn(cost.shape, generator=generator),
        *(w / w.sum(-1, keepdim=True) for w in moved),
    ]


def bench(n: int, problems: int, step: float, rounds: int) -> dict:
    """One size and step: microseconds a problem, their ratio in each round, and the share solved warm."""
    generator = torch.Generator().manual_seed(0)
    start = first_batch(n, problems, generator)
    spread, problem, solver = float(start[0].std()), start, WarmStart()
    solver(*start), solver(*start), emd(*start)  # compiled, and the bases remembered
    warm, cold, share, difference = [], [], [], 0.0
    for k in range(rounds):
        problem = drift(problem if k % 10 else start, spread, step, generator)  # not so far that costs become noise
        if k % 10 == 0:
            solver(*start)
        solutions = {}
        for name, solve in (("warm", solver), ("cold", emd)) if k % 2 else (("cold", emd), ("warm", solver)):
            took = seconds(lambda: solutions.__setitem__(name, solve(*problem)))  # noqa: B023
            (warm if name == "warm" else cold).append(1e6 * took / problems)
        share.append(solver.warm / problems)
        difference = max(difference, float((solutions["warm"].value - solutions["cold"].value).abs().max()))
    return {
        "n": n,
        "problems": problems,
        "step": step,
        "warm_us": summary(warm),
        "cold_us": summary(cold),
        "times_faster": ratios(cold, warm),
        "share_warm": sum(share) / rounds,
        "largest_difference_of_values": difference,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    options = parser.parse_args()
    result: dict = {"machine": machine(), "threads": 1, "rows": []}
    with threads(1):
        for n, problems in PROBLEMS.items():
            for step in STEPS:
                row = bench(n, problems, step, 10 if options.quick else 100)
                result["rows"].append(row)
                print(
                    f"n = {n}, step {step:g}: warm {row['warm_us']['median']:.1f} us, cold "
                    f"{row['cold_us']['median']:.1f} us, x {row['times_faster']['median']:.2f}, "
                    f"{100 * row['share_warm']:.0f} % warm",
                    flush=True,
                )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(options.out)


if __name__ == "__main__":
    main()

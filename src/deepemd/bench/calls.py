"""Measure the time of a call: one problem, small and large batches, one thread and several, float32 and float64."""

from collections.abc import Callable
from typing import Any

import torch

from deepemd.bench.measure import ratios, seconds, summary, threads
from deepemd.bench.problems import Problems, embedding_problems
from deepemd.bench.race import Settings, ours
from deepemd.transport import emd

__all__ = ["calls"]

N = 25
BATCHES = (1, 5, 25, 75, 375, 3000)
LARGE = 3000  # the overhead of a batch of this size is negligible
EPISODE = 375  # 75 queries x 5 classes
ENOUGH = (
    3000  # smallest number of problems timed in a round, so that the first call, with cold caches, is one of several
)


def calls(settings: Settings, result: dict[str, Any], report: Callable[[str], None]) -> None:
    """Measure `emd` on embedding costs of 25 x 25. Modifies result, which is filled even after an interruption."""
    step = f"calls: one problem, batches, float64, at {N} x {N}"
    report(step)
    generator = torch.Generator().manual_seed(0)
    _lap(settings, generator)
    laps: list[dict[str, float]] = []
    try:
        for _ in range(settings.rounds):
            report(step)
            laps.append(_lap(settings, generator))
    finally:
        if laps:
            result.update(_summary(settings, {name: [lap[name] for lap in laps] for name in laps[0]}))


def _lap(settings: Settings, generator: torch.Generator) -> dict[str, float]:
    """Measure microseconds a problem, for every batch and thread count, and for special cases on the first count."""
    lap = {}
    for count in settings.threads:
        for batch in BATCHES:
            lap[f"{batch} on {count}"] = _each(generator, batch, N, count)
    first = settings.threads[0]
    lap["single"] = _each(generator, 1, N, first, batched=False)
    lap["tiny"] = _each(generator, 1, 2, first, batched=False)
    lap["tiny, large batch"] = _each(generator, LARGE, 2, first)
    lap["float64"] = _each(generator, EPISODE, N, first, dtype=torch.float64)
    return lap


def _each(
    generator: torch.Generator,
    batch: int,
    n: int,
    count: int,
    *,
    batched: bool = True,
    dtype: torch.dtype = torch.float32,
) -> float:
    """Measure microseconds a problem, over enough calls on new problems."""
    drawn = []
    for _ in range(-(-ENOUGH // batch)):
        problems = Problems(*(t.to(dtype) for t in embedding_problems(generator, batch, n)))
        drawn.append(problems if batched else tuple(t[0] for t in problems))

    def call_all() -> None:
        for problems in drawn:
            emd(*problems)

    with threads(count):
        return 1e6 * seconds(call_all) / (len(drawn) * batch)


def _summary(settings: Settings, us: dict[str, list[float]]) -> dict[str, Any]:
    """Summarise the microseconds of all rounds for the report."""
    first = settings.threads[0]
    large = us[f"{LARGE} on {first}"]
    return {
        "n": N,
        "kind": "embedding",
        "us_a_problem": {
            str(batch): {ours(count): summary(us[f"{batch} on {count}"]) for count in settings.threads}
            for batch in BATCHES
        },
        "speedup_of_threads": {
            ours(count): {str(batch): ratios(us[f"{batch} on {first}"], us[f"{batch} on {count}"]) for batch in BATCHES}
            for count in settings.threads[1:]
        },
        "one_problem_us": summary(us["single"]),
        "one_tiny_problem_us": summary(us["tiny"]),
        "overhead_us": summary([one - each for one, each in zip(us["single"], large, strict=True)]),
        "tiny_overhead_us": summary(
            [one - each for one, each in zip(us["tiny"], us["tiny, large batch"], strict=True)]
        ),
        "float64_over_float32": ratios(us["float64"], us[f"{EPISODE} on {first}"]),
    }

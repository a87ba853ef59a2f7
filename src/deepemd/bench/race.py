"""The race: `emd` and its peers take turns on problems of the same sizes, new ones in every round."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from deepemd.bench.measure import ratios, seconds, summary, threads
from deepemd.bench.peers import PEERS, Peer, Solve
from deepemd.bench.problems import KINDS, Problems
from deepemd.errors import InputError
from deepemd.transport import Transport, emd

__all__ = ["PARTS", "Settings", "batch_of", "ours", "race"]

CORES = os.cpu_count() or 1
CALLS = 4  # calls of emd in a turn, in a loop like the peers' calls: the first finds the caches cold
PARTS = ("race", "calls", "gradient", "start")


@dataclass(frozen=True)
class Settings:
    """Settings of the benchmark: what to measure, and for how long.

    Attributes:
        sizes: n of the n x n problems of the race.
        rounds: number of turns of every solver, over which medians and interquartile ranges are taken.
        threads: thread counts for `emd`; the peers are compared with the first.
        peers: names in PEERS.
        parts: names in PARTS.
        kinds: kinds of problems, names in KINDS.
        peer_seconds: approximate time limit of each peer for one size and kind. To respect it, a slow peer solves fewer
            problems of a round and takes part in fewer rounds.
        batched: smallest number of problems in a call of a batched solver.
        processes: number of new processes for each figure that needs them.
        pairs: number of problems of the batch whose gradient is measured: one 5-way episode with 75 queries.
    """

    sizes: Sequence[int] = (9, 13, 25, 49, 100, 196, 256)
    rounds: int = 15
    threads: Sequence[int] = (1, 2) if CORES > 1 else (1,)
    peers: Sequence[str] = tuple(PEERS)
    parts: Sequence[str] = PARTS
    kinds: Sequence[str] = tuple(KINDS)
    peer_seconds: float = 1.5
    batched: int = 100
    processes: int = 3
    pairs: int = 375

    def __post_init__(self) -> None:
        for name, values, most in (("sizes", self.sizes, 2000), ("threads", self.threads, CORES)):
            wrong = [value for value in values if not 1 <= value <= most]
            if wrong or not values:
                example = ",".join(str(value) for value in (9, 25) if value <= most) or "1"
                found = f"holds {wrong[0]}" if wrong else "is empty"
                raise InputError(f"{name} {found}; give whole numbers from 1 to {most:,}, such as --{name} {example}")
        if self.rounds < 1:
            raise InputError(f"rounds is {self.rounds}; at least 1 is needed, and 15 give steady medians")
        for name, words, known in (("peers", self.peers, tuple(PEERS)), ("parts", self.parts, PARTS)):
            for word in words:
                if word not in known:
                    raise InputError(f"{name} holds {word!r}; choose from {', '.join(known)}, separated by commas")


def ours(count: int) -> str:
    """Return the name of `emd` on `count` threads in tables."""
    return f"emd, {count} thread{'s' * (count > 1)}"


def batch_of(n: int) -> int:
    """Return the problems in a batch of ours: an episode's 375, more below 25 nodes, fewer above 100."""
    return max(16, 375 * 25**2 // n**2, min(375, 375 * 100**2 // n**2))


@dataclass
class _Turn:
    """The number of problems that a peer solves in a round, and the rounds in which it takes part."""

    solve: Solve
    problems: int
    every: int  # it takes part in rounds 0, every, 2 * every, ...


def race(
    settings: Settings, solvers: dict[str, Solve], rows: list[dict[str, Any]], report: Callable[[str], None]
) -> None:
    """Measure every size and kind. Modifies rows: appends each row when it is measured or interrupted."""
    for kind in settings.kinds:
        for n in settings.sizes:
            report(f"race: {kind} costs, n = {n}")
            _one_race(settings, solvers, rows, kind, n)


def _one_race(settings: Settings, solvers: dict[str, Solve], rows: list[dict[str, Any]], kind: str, n: int) -> None:
    """Measure one size and kind. Modifies rows."""
    generator = torch.Generator().manual_seed(n)
    fresh = partial(KINDS[kind], generator, batch_of(n), n)
    _our_turn(settings.threads, fresh)  # compiles
    turns: dict[str, _Turn] = {}
    errors: dict[str, float] = {}
    failed: dict[str, str] = {}
    for name, solve in solvers.items():
        if n <= (PEERS[name].largest or n):
            with _failing(failed, name):
                turns[name] = _plan(PEERS[name], solve, settings, fresh())
    gap = _gap(fresh())
    laps: list[dict[str, float]] = []
    try:
        for r in range(settings.rounds):
            now = {name: turn for name, turn in turns.items() if r % turn.every == 0 and name not in failed}
            laps.append(_lap(settings, now, fresh, errors, failed))
    finally:  # after Ctrl-C, report the complete rounds
        if laps:
            row = _row(kind, n, settings, turns, laps, errors)
            rows.append(row | {"failed": failed, "duality_gap": gap})


@contextmanager
def _failing(failed: dict[str, str], name: str) -> Iterator[None]:
    """Catch and report the error of a peer, which then drops out of this size. Modifies failed."""
    try:
        yield
    except (ArithmeticError, RuntimeError, ValueError) as error:
        failed[name] = f"{type(error).__name__}: {error}"


def _our_turn(counts: Sequence[int], fresh: Callable[[], Problems]) -> tuple[dict[str, float], Problems, Transport]:
    """Time `emd` in CALLS calls on new batches. Return seconds a problem, the last batch and its solution."""
    times = dict.fromkeys(map(ours, counts), 0.0)
    for count in reversed(counts):  # the first count comes last, because the peers use its batch
        batches = [fresh() for _ in range(CALLS)]
        found: list[Transport] = []
        with threads(count):
            took = seconds(lambda: found.extend([emd(*problems) for problems in batches]))  # noqa: B023
        times[ours(count)] = took / (CALLS * len(batches[0].a))
    return times, batches[-1], found[-1]


def _lap(
    settings: Settings,
    turns: dict[str, _Turn],
    fresh: Callable[[], Problems],
    errors: dict[str, float],
    failed: dict[str, str],
) -> dict[str, float]:
    """Give every solver a turn. Return seconds a problem.

    Modifies errors, the largest of each peer relative to max |c|, and failed.
    """
    times, problems, solution = _our_turn(settings.threads, fresh)
    for name, turn in turns.items():
        few = problems.first(turn.problems)
        prepared = PEERS[name].prepare(few)
        values: list[Sequence[float]] = []
        with _failing(failed, name), threads(settings.threads[0]), torch.no_grad():
            took = seconds(lambda: values.append(turn.solve(prepared)))  # noqa: B023
            off = torch.as_tensor(values[0], dtype=torch.float64) - solution.value[: len(few.a)]
            if not off.isfinite().all():
                raise ValueError("a value that is not a finite number")
            error = float((off.abs() / few.cost.abs().amax((1, 2))).max())
            errors[name] = max(error, errors.get(name, 0.0))
            times[name] = took / len(few.a)
    return times


def _plan(peer: Peer, solve: Solve, settings: Settings, problems: Problems) -> _Turn:
    """Distribute a peer's time over the rounds, after a first call to warm it up."""
    fewest = min(settings.batched if peer.batched else 1, len(problems.a))
    least = peer.prepare(problems.first(fewest))
    with threads(settings.threads[0]), torch.no_grad():
        first = seconds(lambda: solve(least))
        once = first if first > settings.peer_seconds else seconds(lambda: solve(least))
    share = settings.peer_seconds / settings.rounds
    affordable = int(fewest * share / once)
    turns = max(3, int(settings.peer_seconds / once))  # at least three rounds, however slow it is
    every = -(-settings.rounds // turns)
    return _Turn(solve, max(fewest, min(affordable, len(problems.a))), every)


def _gap(problems: Problems) -> float:
    """Return the certificate of our values: the defects of their duals, relative to max |c|."""
    solution = emd(*problems)
    cost, a, b = (t.double() for t in problems)
    u, v = solution.u.double(), solution.v.double()
    top = cost.abs().amax((1, 2))
    infeasible = (u[:, :, None] + v[:, None] - cost).amax((1, 2))  # <= 0 but for rounding
    b = b * (a.sum(-1) / b.sum(-1))[:, None]
    gap = solution.value.double() - (a * u).sum(-1) - (b * v).sum(-1)
    return float((torch.maximum(infeasible, gap.abs()) / top).max())


def _row(
    kind: str,
    n: int,
    settings: Settings,
    turns: dict[str, _Turn],
    laps: list[dict[str, float]],
    errors: dict[str, float],
) -> dict[str, Any]:
    """Return the row of a size and kind. A peer that should be exact but is not gets an error instead of a time."""
    first = ours(settings.threads[0])
    times, faster, disagree = {}, {}, {}
    for name in {name: None for lap in laps for name in lap}:
        own = [lap for lap in laps if name in lap]
        if name in PEERS and errors[name] > (PEERS[name].agree or math.inf):
            disagree[name] = errors[name]
            continue
        times[name] = summary([1e6 * lap[name] for lap in own])
        if name != first:
            faster[name] = ratios([lap[name] for lap in own], [lap[first] for lap in own])
    return {
        "kind": kind,
        "n": n,
        "problems": {ours(count): batch_of(n) for count in settings.threads}
        | {name: turn.problems for name, turn in turns.items()},
        "us": times,
        "times_ours": faster,
        "error": errors,
        "disagree": disagree,
    }

"""Other people's solvers, each called in its fastest way; the data is prepared before the timing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from deepemd.bench.problems import Problems

__all__ = ["PEERS", "Peer", "load_peers"]

Solve = Callable[[Any], Sequence[float]]  # prepared problems -> their values


@dataclass(frozen=True)
class Peer:
    """A solver to compare with.

    Attributes:
        title: its name in tables and the chart.
        install: the command that installs it.
        how: a description of how it is called.
        load: function that imports it and returns the function to time.
        prepare: function that turns problems into the argument of the timed function; not timed.
        agree: largest allowed difference of its values from ours, relative to max |c|; None for an inexact solver.
        batched: whether it is fast only on batches; it then gets at least `Settings.batched` problems.
        largest: the largest n to measure.
    """

    title: str
    install: str
    how: str
    load: Callable[[], Solve]
    prepare: Callable[[Problems], Any]
    agree: float | None = 1e-6
    batched: bool = False
    largest: int | None = None


def single(problems: Problems) -> list[tuple[np.ndarray, ...]]:
    """Return contiguous float32 arrays, problem by problem: cost (n, n), a (n, 1), b (n, 1)."""
    return [
        (c.numpy().copy(), a.numpy()[:, None].copy(), b.numpy()[:, None].copy())
        for c, a, b in zip(*problems, strict=True)
    ]


def double(problems: Problems) -> list[tuple[np.ndarray, ...]]:
    """Return contiguous float64 arrays, problem by problem: cost (n, n), a (n,), b (n,), of sum 1 in float64."""
    arrays = [(c.double().numpy(), a.double().numpy(), b.double().numpy()) for c, a, b in zip(*problems, strict=True)]
    return [(c, a / a.sum(), b / b.sum()) for c, a, b in arrays]


def _opencv() -> Solve:
    import cv2

    return lambda problems: [cv2.EMD(a, b, cv2.DIST_USER, c)[0] for c, a, b in problems]


def _pot() -> Solve:
    import ot

    return lambda problems: [ot.emd2(a, b, c, numItermax=1_000_000) for c, a, b in problems]


def _pot_core() -> Solve:
    from ot.lp.emd_wrap import emd_c

    return lambda problems: [emd_c(a, b, c, 1_000_000, 1)[1] for c, a, b in problems]


def _pot_batch() -> Solve:
    from ot.batch import solve_batch

    def solve(p: Problems) -> Sequence[float]:
        solution = solve_batch(p.cost, 0.01, p.a, p.b, method="log_sinkhorn", grad="detach")
        return list(solution.value_linear.tolist())

    return solve


def _highs() -> Solve:
    from scipy.optimize import linprog
    from scipy.sparse import csc_array, eye_array, kron, vstack

    @lru_cache
    def sums(n: int) -> csc_array:
        """Return the (2n, n * n) matrix that maps a plan to its row sums and column sums."""
        ones = np.ones((1, n))
        return csc_array(vstack([kron(eye_array(n), ones), kron(ones, eye_array(n))]))

    def value(c: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
        options = {"presolve": False}  # faster for these problems
        found = linprog(c.ravel(), A_eq=sums(len(a)), b_eq=np.concatenate([a, b]), method="highs", options=options)
        return float(found.fun)

    return lambda problems: [value(*problem) for problem in problems]


def _qpth() -> Solve:
    import qpth.qp  # noqa: F401

    from deepemd.transport.solvers import qpth as solve

    return lambda p: solve(*p, form="QP").value.tolist()


def _sinkhorn() -> Solve:
    from deepemd.transport.solvers import sinkhorn

    return lambda p: sinkhorn(*p).value.tolist()


def as_it_is(problems: Problems) -> Problems:
    """Return the problems unchanged, a batch of float32 tensors."""
    return problems


_POT = "pip install --upgrade POT"
PEERS = {
    "opencv": Peer(
        "cv2.EMD",
        "pip install --upgrade opencv-python-headless",
        "in a Python loop over float32 arrays; it computes in float32",
        _opencv,
        single,
        agree=1e-5,
    ),
    "pot": Peer("POT emd2", _POT, "ot.emd2 in a Python loop over float64 arrays", _pot, double),
    "pot-core": Peer(
        "POT's core", _POT, "ot.lp.emd_wrap.emd_c in a Python loop over contiguous float64 arrays", _pot_core, double
    ),
    "pot-batch": Peer(
        "ot.batch",
        _POT,
        "ot.batch.solve_batch, log_sinkhorn with reg = 0.01, on a batch of float32 tensors; inexact",
        _pot_batch,
        as_it_is,
        agree=None,
        batched=True,
    ),
    "highs": Peer(
        "HiGHS", "pip install --upgrade scipy", "scipy.optimize.linprog, sparse, without presolve", _highs, double
    ),
    "qpth": Peer(
        "QPTH",
        "pip install cvxpy && pip install --no-deps qpth",
        "deepemd.transport.solvers.qpth, form QP: the quadratic programme of the published code, on a batch; inexact",
        _qpth,
        as_it_is,
        agree=None,
        largest=25,
    ),
    "sinkhorn": Peer(
        "Sinkhorn",
        "",
        "deepemd.transport.solvers.sinkhorn on a batch of float32 tensors; inexact",
        _sinkhorn,
        as_it_is,
        agree=None,
        batched=True,
    ),
}


def load_peers(names: Sequence[str]) -> tuple[dict[str, Solve], dict[str, str]]:
    """Import the peers; return the installed ones, and for each of the others a message with a remedy."""
    found, missing = {}, {}
    for name in names:
        try:
            found[name] = PEERS[name].load()
        except ImportError as error:
            missing[name] = f"{PEERS[name].title} is left out: {error}; '{PEERS[name].install}' installs it"
    return found, missing

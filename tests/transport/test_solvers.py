"""Every other solver against ``emd``, within the errors that its docstring states.

Tests deepemd.transport.solvers._batch, deepemd.transport.solvers._cvxpy, deepemd.transport.solvers._highs,
deepemd.transport.solvers._opencv, deepemd.transport.solvers._pot, deepemd.transport.solvers._qpth,
deepemd.transport.solvers._sinkhorn.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from problems import FAMILIES, draw

from deepemd.matching import emd_logits
from deepemd.transport import Transport, emd, solvers

# qpth 0.0.18 writes TeX into plain docstrings, of which Python complains when it compiles the file.
pytestmark = [
    pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:invalid escape sequence:SyntaxWarning"),
]

PEERS = 'pip install -c constraints.txt ".[peers]"'
UNIQUE = ("random", "embeddings", "negative cost")  # families of one optimal plan and one set of potentials


@dataclass(frozen=True)
class Solver:
    """A solver and the errors that its docstring states."""

    solve: Callable[..., Transport]
    module: str  # what it imports
    package: str  # what its error message calls it
    value: float
    marginal: float
    gradient: tuple[float, float]  # to cost, to the weights
    potentials: float | None = None  # of u_i + v_j <= c_ij and of a.u + b.v; None if there are none
    hard: dict[str, float] = field(default_factory=dict)  # of all but gradients, for families that it finds hard
    most: tuple[float, float, float] | None = None  # value and gradients of most problems, where the worst is far worse

    def need(self):
        command = f"{PEERS} && pip install --no-deps qpth" if self.module == "qpth.qp" else PEERS
        pytest.importorskip(self.module, reason=f"needs {self.package}: {command}")


# OpenCV computes in float32, and HiGHS takes what is below 1e-10 for 0.
WIDE_FOR_FLOAT32 = {"tiny and huge weights": 2e-5, "clusters": 2e-6, "heavy tails": 2e-6}
BELOW_ITS_TOLERANCE = dict.fromkeys(("tiny and huge weights", "dominant weight", "heavy tails"), 3e-10)
SOLVERS = {
    "opencv": Solver(solvers.opencv, "cv2", "OpenCV", 2e-7, 2e-7, (2e-7, 0.0), hard=WIDE_FOR_FLOAT32),
    "pot": Solver(solvers.pot, "ot.lp", "POT", 1e-15, 1e-15, (1e-15, 3e-14), 3e-14),
    "highs": Solver(
        solvers.highs, "scipy.optimize", "SciPy", 1e-15, 1e-15, (1e-15, 1e-15), 1e-15, hard=BELOW_ITS_TOLERANCE
    ),
    "cvxpy": Solver(solvers.cvxpy, "cvxpy", "CVXPY", 5e-8, 5e-8, (2e-6, 1e-4), 5e-8),
    # With some room: where qpth stops early depends on rounding.
    "qpth": Solver(solvers.qpth, "qpth.qp", "qpth", 1e-2, 1e-4, (1e-2, 1e-2), most=(1e-12, 1e-7, 1e-10)),
    "qpth-QP": Solver(
        partial(solvers.qpth, form="QP"), "qpth.qp", "qpth", 0.1, 1e-4, (1e-2, 1e-2), most=(1e-12, 1e-7, 1e-7)
    ),
    "sinkhorn": Solver(solvers.sinkhorn, "torch", "PyTorch", 4e-3, 1e-15, (0.1, 0.5), 0.1),
}
each = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)


def _batch(seed, family="random", batch=4, n=None, m=None):
    """Draw problems of 2 to 12 nodes a side, with costs of at most 1 and weights of sum 1."""
    rng = np.random.default_rng(seed)
    n, m = n or rng.integers(2, 13), m or rng.integers(2, 13)
    drawn = [draw(rng, family, n, m) for _ in range(batch)]
    cost, a, b = (torch.from_numpy(np.stack(t)) for t in zip(*drawn, strict=True))
    unit = cost.abs().amax((1, 2), keepdim=True)  # (batch, 1, 1)
    return cost / torch.where(unit > 0, unit, 1), a / a.sum(1, keepdim=True), b / b.sum(1, keepdim=True)


@pytest.mark.parametrize("family", FAMILIES)
@each
def test_value_marginals_and_potentials(solver, family):
    solver.need()
    hard = solver.hard.get(family, 0.0)
    off = []
    for seed in range(5):
        cost, a, b = _batch(seed, family)
        if solver is SOLVERS["qpth-QP"] and cost.min() < 0:  # it squares the total cost
            with pytest.raises(ValueError, match="must not be negative"):
                solver.solve(cost, a, b)
            cost = (cost - cost.min()) / (cost.max() - cost.min())  # the same plans are optimal
        exact, found = emd(cost, a, b), solver.solve(cost, a, b)
        off += (found.value - exact.value).abs().tolist()
        torch.testing.assert_close(found.plan.sum(2), a, rtol=0, atol=max(solver.marginal, hard))
        torch.testing.assert_close(found.plan.sum(1), b, rtol=0, atol=max(solver.marginal, hard))
        if solver.potentials is None:
            assert found.u.isnan().all()
            assert found.v.isnan().all()
            continue
        feasible = max(solver.potentials, hard)
        bound = (a * found.u).sum(1) + (b * found.v).sum(1)  # (batch,)
        assert float((found.u[:, :, None] + found.v[:, None] - cost).max()) <= feasible
        torch.testing.assert_close(bound, exact.value, rtol=0, atol=feasible)
        torch.testing.assert_close((a * found.u).sum(1), bound / 2)  # the constant, as emd shares it out
        if solver is SOLVERS["sinkhorn"]:
            assert (bound <= exact.value + 1e-14).all()
            assert (exact.value <= found.value + 1e-14).all()
    assert max(off) <= max(solver.value, hard)
    if solver.most and family in UNIQUE:
        assert np.median(off) <= solver.most[0]


@pytest.mark.parametrize("family", UNIQUE)
@each
def test_gradients(solver, family):
    solver.need()
    if family == "negative cost" and solver is SOLVERS["qpth-QP"]:
        return
    solve = solver.solve
    if solver is SOLVERS["qpth"]:
        solve = partial(solve, l2=1e-4)  # at the default it meets a singular matrix now and then
    off = []
    for seed in range(5):
        inputs = [t.requires_grad_() for t in _batch(seed, family)]
        exact = torch.autograd.grad(emd(*inputs).value.sum(), inputs)
        found = torch.autograd.grad(solve(*inputs).value.sum(), inputs, allow_unused=True)
        if solver is SOLVERS["opencv"]:
            assert found[1] is None
            assert found[2] is None
            exact, found = exact[:1], found[:1]
        off.append([float((f - e).abs().max()) for f, e in zip(found, exact, strict=True)])
    to_cost, *to_weights = np.max(off, axis=0)
    assert to_cost <= solver.gradient[0]
    assert max(to_weights, default=0.0) <= solver.gradient[1]
    if solver.most:
        assert (np.median(off, axis=0) <= (*solver.most[1:], solver.most[2])).all(), off


def test_gradients_of_qpth_become_those_of_emd_as_its_l2_tends_to_0():
    """The quadratic term smooths the programme; as it vanishes, its KKT system and our envelope theorem agree."""
    SOLVERS["qpth"].need()
    off = {l2: [] for l2 in (0.3, 0.1, 0.03, 0.01, 1e-4)}
    for seed in range(16):
        inputs = [t.requires_grad_() for t in _batch(seed, "random", batch=1, n=5, m=6)]  # alone: see its docstring
        exact = torch.autograd.grad(emd(*inputs).value.sum(), inputs)
        for l2, errors in off.items():
            found = torch.autograd.grad(solvers.qpth(*inputs, l2=l2).value.sum(), inputs)
            errors.append([float((f - e).abs().max()) for f, e in zip(found, exact, strict=True)])
    mean = [np.mean(errors, axis=0) for errors in off.values()]
    for larger, smaller in pairwise(mean):
        assert (smaller < larger).all(), mean
    assert (mean[0] > 1e-2).all(), mean
    assert (np.median(off[1e-4], axis=0) < (1e-7, 1e-9, 1e-9)).all(), off[1e-4]


@each
def test_leading_dimensions_broadcast_and_dtypes_follow_emd(solver):
    solver.need()
    cost, a, b = _batch(1, batch=6, n=4, m=5)
    for dtype in (torch.float64, torch.float32, torch.float16):
        arguments = (cost.view(2, 3, 4, 5).to(dtype), a[0].to(dtype), b[:3].to(dtype))
        exact, found = emd(*arguments), solver.solve(*arguments)
        for name in ("value", "u", "v", "plan"):
            assert getattr(found, name).shape == getattr(exact, name).shape
            assert getattr(found, name).dtype == getattr(exact, name).dtype
            assert not (name != "value" and getattr(found, name).requires_grad)
        torch.testing.assert_close(found.value, exact.value, rtol=0, atol=max(solver.value, 1e-6))


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 4), (3, 1)])
@each
def test_single_nodes_and_empty_batches(solver, n, m):
    solver.need()
    cost, a, b = _batch(2, batch=2, n=n, m=m)
    torch.testing.assert_close(solver.solve(cost, a, b).value, emd(cost, a, b).value, rtol=0, atol=solver.value)
    assert solver.solve(cost[0], a[0], b[0]).value.shape == ()
    assert solver.solve(cost[:0], a[:0], b[:0]).plan.shape == (0, n, m)


@each
def test_weights_of_any_total(solver):
    solver.need()
    cost = torch.tensor([[6.0, 4, 6], [6, 5, 5]])
    found = solver.solve(cost, torch.tensor([200.0, 300]), torch.tensor([150.0, 150, 200]))
    assert float(found.value) == pytest.approx(2500, abs=max(solver.value, 1e-6) * 6 * 500)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("name", ["opencv", "pot", "highs", "cvxpy", "sinkhorn"])
def test_costs_of_any_size(name, scale):
    solver = SOLVERS[name]
    solver.need()
    cost, a, b = _batch(3)
    found = solver.solve(cost * scale, a, b).value / scale
    torch.testing.assert_close(found, emd(cost, a, b).value, rtol=0, atol=solver.value)


def _bad():
    cost, a, b = _batch(4, batch=6, n=3, m=4)
    cost, a, b = cost.view(2, 3, 3, 4), a.view(2, 3, 3), b.view(2, 3, 4)

    def but(tensor, value):
        changed = tensor.clone()
        changed[1, 2, ..., 1] = value
        return changed

    yield from ((but(cost, v), a, b) for v in (float("nan"), float("inf")))
    yield from ((cost, but(a, v), b) for v in (float("nan"), -0.1))
    yield from ((cost, a, but(b, v)) for v in (float("inf"), -0.1))
    yield from ((cost, a * 0, b), (cost, a, b * 1.01), (cost, a[..., :2], b), (cost[0, 0, 0], a, b))
    yield from ((cost.long(), a, b), (cost.numpy(), a, b), (cost, a[:, :2], b), (cost[..., :0, :], a[..., :0], b))


@each
def test_bad_input_is_refused_in_the_words_of_emd(solver):
    solver.need()
    for arguments in _bad():
        with pytest.raises((TypeError, ValueError)) as expected:
            emd(*arguments)
        with pytest.raises(expected.type) as got:
            solver.solve(*arguments)
        assert str(got.value) == str(expected.value)


@pytest.mark.parametrize("name", [name for name in SOLVERS if name != "sinkhorn"])
def test_a_missing_dependency_is_named_with_the_command(name, monkeypatch):
    solver = SOLVERS[name]
    monkeypatch.setitem(sys.modules, solver.module, None)
    with pytest.raises(ImportError, match=rf"needs {solver.package}.*pip install") as error:
        solver.solve(*_batch(0))
    assert PEERS in str(error.value)


@each
def test_in_the_head(solver):
    solver.need()
    generator = torch.Generator().manual_seed(0)
    query, support = (torch.randn(k, 5, 16, generator=generator) for k in (3, 2))
    logits = emd_logits(query, support, transport=solver.solve)
    torch.testing.assert_close(logits, emd_logits(query, support), rtol=0, atol=12.5 * 2 * max(solver.value, 1e-6))


def test_qpth_refuses_what_its_programmes_cannot_mean():
    problem = _batch(0)
    with pytest.raises(ValueError, match="form must be 'L2' or 'QP', got 'LP'"):
        solvers.qpth(*problem, form="LP")
    for l2 in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="l2 must be above 0"):
            solvers.qpth(*problem, l2=l2)


def test_cvxpy_takes_another_solver():
    SOLVERS["cvxpy"].need()
    problem = _batch(5)
    torch.testing.assert_close(solvers.cvxpy(*problem, solver="HIGHS").value, emd(*problem).value, rtol=0, atol=1e-9)


def test_sinkhorn_tends_to_emd_and_says_when_it_does_not_converge():
    problem = _batch(6, "embeddings")
    exact = emd(*problem).value
    off = [
        float((solvers.sinkhorn(*problem, epsilon=e, tolerance=e / 10).value - exact).max()) for e in (0.1, 0.03, 0.01)
    ]
    assert off[0] > 2 * off[1] > 4 * off[2] > 0
    with pytest.raises(RuntimeError, match="after 2 iterations the row sums are still off by"):
        solvers.sinkhorn(*problem, max_iterations=2)
    with pytest.raises(ValueError, match="epsilon must be above 0"):
        solvers.sinkhorn(*problem, epsilon=0.0)

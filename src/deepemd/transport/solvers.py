"""Other people's transport solvers behind the signature of ``emd``.

They are here to compare with, and for code that comes from the authors' implementation; each is a drop-in for ``emd``:

    from deepemd.transport import solvers
    logits = emd_logits(query, support, transport=solvers.opencv)

What they share: arguments, shapes, dtypes and the errors for bad input are those of :func:`deepemd.emd`; tensors
travel to the host and back, but for ``qpth`` and ``sinkhorn``, which are written in PyTorch; all compute in double
precision, but for OpenCV. They differ in what they can tell:

| | solves | u, v | gradient to cost | to a and b |
|---|---|---|---|---|
| opencv | network simplex in float32, one by one | NaN | the plan | none |
| pot | network simplex in C++, one by one | yes | the plan | u, v |
| highs | dual simplex for any linear programme, one by one | yes | the plan | u, v |
| cvxpy | an interior point for any linear programme, one by one | yes | the plan | u, v |
| qpth | the programme made quadratic; an interior point, batched | NaN | its KKT system's | its KKT system's |
| sinkhorn | the programme with entropy, batched | approximate | its plan | its u, v |

The errors in the docstrings are the largest found, over 1,600 problems of the twenty kinds that
``tests/helpers/problems.py`` draws and 240 or 320 more of each kind that proved hard, with 2 to 12 nodes a side, costs
scaled to at most 1 and weights to sum 1, four a batch; a gradient's is that of its worst entry, over problems that have
one optimum. ``tests/transport/test_solvers.py`` holds every solver to them.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from deepemd.transport._emd import Transport, emd, pose

__all__ = ["cvxpy", "highs", "opencv", "pot", "qpth", "sinkhorn"]


def opencv(cost: Tensor, a: Tensor, b: Tensor) -> Transport:
    """``cv2.EMD``, the solver of the authors' OpenCV path: a plan and nothing else.

    Value: the cost of the plan. Differentiable in cost alone, as with the authors: a and b get no gradient, and u, v
    are NaN because OpenCV returns no potentials. Error: value, marginals and gradient 2e-7 (OpenCV computes in
    float32); where costs span many orders of magnitude 2e-6, where weights span fifteen 2e-5.

    Raises:
        ImportError: OpenCV is missing.
        TypeError, ValueError: as ``emd``.

    >>> cost = torch.tensor([[6.0, 4.0, 6.0], [6.0, 5.0, 5.0]])
    >>> round(float(opencv(cost, torch.tensor([200.0, 300.0]), torch.tensor([150.0, 150.0, 200.0])).value), 2)
    2500.0

    Source: https://docs.opencv.org, ``cv::EMD``; Rubner, Tomasi, Guibas, The Earth Mover's Distance as a metric for
        image retrieval, IJCV 2000.
    """
    cv2 = _require("cv2", "OpenCV", "opencv-python-headless")

    def solve(c: Any, p: Any, q: Any) -> tuple[Any]:
        c, p, q = (t.astype("float32") for t in (c, p[:, None], q[:, None]))
        return (cv2.EMD(p, q, cv2.DIST_USER, c)[2],)

    return _one_by_one(_batch(cost, a, b), solve)


def pot(cost: Tensor, a: Tensor, b: Tensor) -> Transport:
    """``ot.lp.emd`` of Python Optimal Transport: an exact network simplex in C++.

    Differentiable in cost, a and b by the envelope theorem. Error: value, marginals and gradient to cost 1e-15;
    potentials, and so the gradient to a and b, 3e-14.

    Raises:
        ImportError: POT is missing.
        RuntimeError: POT reports that it did not find the optimum.
        TypeError, ValueError: as ``emd``.

    >>> cost = torch.tensor([[6.0, 4.0, 6.0], [6.0, 5.0, 5.0]])
    >>> pot(cost, torch.tensor([200.0, 300.0]), torch.tensor([150.0, 150.0, 200.0])).value
    tensor(2500.)

    Source: Flamary et al., POT, JMLR 2021; Bonneel et al., Displacement interpolation, SIGGRAPH Asia 2011.
    """
    lp = _require("ot.lp", "POT", "POT")

    def solve(c: Any, p: Any, q: Any) -> tuple[Any, Any, Any]:
        plan, log = lp.emd(p, q, c, numItermax=10_000_000, log=True)
        if log["warning"] is not None:
            raise RuntimeError(f"POT found no optimum: {log['warning']}")
        return plan, log["u"], log["v"]

    return _one_by_one(_batch(cost, a, b), solve)


def highs(cost: Tensor, a: Tensor, b: Tensor) -> Transport:
    """``scipy.optimize.linprog(method="highs-ds")``: the linear programme, written out, to a general solver.

    Differentiable in cost, a and b by the envelope theorem. Error: value, marginals, potentials and gradients 1e-15.
    Its tolerances are absolute and cannot be less than 1e-10: smaller weights (of a sum of 1) and smaller differences
    between costs (of at most 1) may count as 0, with value, marginals and potentials off by up to 3e-10.

    Raises:
        ImportError: SciPy is missing.
        RuntimeError: HiGHS reports that it did not find the optimum.
        TypeError, ValueError: as ``emd``.

    >>> cost = torch.tensor([[6.0, 4.0, 6.0], [6.0, 5.0, 5.0]])
    >>> highs(cost, torch.tensor([200.0, 300.0]), torch.tensor([150.0, 150.0, 200.0])).value
    tensor(2500.)

    Source: Huangfu, Hall, Parallelizing the dual revised simplex method, 2018; https://highs.dev.
    """
    optimize = _require("scipy.optimize", "SciPy", "scipy")
    sparse = import_module("scipy.sparse")
    batch = _batch(cost, a, b)
    n, m = cost.shape[-2:]
    sums = _sums(n, m).numpy()
    sums = sparse.csr_array(sums[:-1])  # the last constraint follows from the others
    exact = {"presolve": False, "primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}

    def solve(c: Any, p: Any, q: Any) -> tuple[Any, Any, Any]:
        answer = optimize.linprog(c.ravel(), A_eq=sums, b_eq=[*p, *q[:-1]], method="highs-ds", options=exact)
        if answer.status != 0:
            raise RuntimeError(f"HiGHS found no optimum: {answer.message}")
        duals = answer.eqlin.marginals
        return answer.x.reshape(n, m), duals[:n], [*duals[n:], 0.0]

    return _one_by_one(batch, solve)


def cvxpy(cost: Tensor, a: Tensor, b: Tensor, *, solver: str = "CLARABEL") -> Transport:
    """The linear programme in the modelling language CVXPY.

    Differentiable in cost, a and b by the envelope theorem (cvxpylayers is not needed). Error, the interior point's:
    value, marginals and potentials 5e-8, gradient to cost 2e-6, to a and b 1e-4 (median 1e-8). Of several optimal plans
    it returns one between the vertices.

    Args:
        cost, a, b: as for ``emd``.
        solver: what CVXPY hands the programme to. Clarabel, an interior point, comes with it;
            ``cvxpy.installed_solvers()`` names the others, of which "HIGHS" gives a vertex.

    Raises:
        ImportError: CVXPY is missing.
        RuntimeError: the solver reports that it did not find the optimum.
        TypeError, ValueError: as ``emd``.

    >>> cost = torch.tensor([[6.0, 4.0, 6.0], [6.0, 5.0, 5.0]])
    >>> round(float(cvxpy(cost, torch.tensor([200.0, 300.0]), torch.tensor([150.0, 150.0, 200.0])).value), 2)
    2500.0

    Source: Diamond, Boyd, CVXPY, JMLR 2016; Goulart, Chen, Clarabel, 2024.
    """
    cp = _require("cvxpy", "CVXPY", "cvxpy")
    batch = _batch(cost, a, b)
    n, m = cost.shape[-2:]
    price, supply, demand = cp.Parameter((n, m)), cp.Parameter(n), cp.Parameter(m)
    plan = cp.Variable((n, m), nonneg=True)
    rows, columns = cp.sum(plan, axis=1) == supply, cp.sum(plan, axis=0) == demand
    problem = cp.Problem(cp.Minimize(cp.sum(cp.multiply(price, plan))), [rows, columns])

    def solve(c: Any, p: Any, q: Any) -> tuple[Any, Any, Any]:
        price.value, supply.value, demand.value = c, p, q
        problem.solve(solver=solver)
        if problem.status != cp.OPTIMAL:
            raise RuntimeError(f"{solver} found no optimum: CVXPY calls the problem {problem.status}")
        return plan.value, -rows.dual_value, -columns.dual_value  # CVXPY's multipliers are of (sum - weight)

    return _one_by_one(batch, solve)


def qpth(cost: Tensor, a: Tensor, b: Tensor, *, form: Literal["L2", "QP"] = "L2", l2: float | None = None) -> Transport:
    """The two quadratic programmes that the authors solve by qpth, differentiable through their KKT systems.

    With both weights scaled to sum to n, as the authors do, and x >= 0, row sums <= a, column sums <= b, sum(x) = n,

        "L2":  x = argmin  c.x + l2 / 2 |x|^2            "QP":  x = argmin  (c.x)^2 / 2 + l2 / 2 |x|^2

    and the value is c.x. Differentiable in cost, a and b: the gradient is that of these programmes. For small l2 and a
    unique optimal plan, x is the plan of the linear programme itself. l2 is not scaled with the costs, which should be
    of about 1: of problems with costs of 0 to 9, given one at a time, "QP" failed on a third, off by up to a half.
    u, v are NaN: qpth keeps its multipliers.

    Error at the default l2: most answers are sharp, but one problem whose factorisation fails stops its whole batch
    early. "L2": value 1e-12 for most, above 1e-6 for one in 60, 5e-3 at worst; gradient to cost 1e-7, to a and b 1e-11
    for most, 5e-3 at worst; marginals 5e-5. "QP": value 1e-12 for most, above 1e-6 for one in 7, nearly all of these
    with ties or with costs that span many orders of magnitude, 6e-2 at worst; gradients 1e-7 for most, 2e-3 at worst;
    marginals 2e-6. A problem of 25 x 25 takes 0.6 s and 35 MB.

    Args:
        cost, a, b: as for ``emd``; for "QP" the cost must not be negative.
        form: which of the two programmes.
        l2: weight of the quadratic term, above 0; by default that of the authors, 1e-6 for "L2" and 1e-4 for "QP".
            Larger ones smooth the value and its gradient, and qpth fails less often.

    Raises:
        ImportError: qpth or CVXPY, which it imports, is missing. qpth pins NumPy below 2 but runs with NumPy 2, so it
            is installed without its dependencies: ``pip install --no-deps qpth`` beside CVXPY.
        RuntimeError: qpth met a singular matrix, on the way back in one batch of 114; a larger l2 helps.
        TypeError, ValueError: as ``emd``; or an unknown form, an l2 of 0 or less, a negative cost for "QP".

    Source: Amos, Kolter, OptNet, ICML 2017; section 3.3 of DeepEMD (arXiv 2003.06777).
    """
    if form not in ("L2", "QP"):
        raise ValueError(f"form must be 'L2' or 'QP', got {form!r}")
    l2 = l2 if l2 is not None else {"L2": 1e-6, "QP": 1e-4}[form]
    if not l2 > 0:
        raise ValueError(f"l2 must be above 0, for the programme to be strictly convex; got {l2}")
    qp = _require("qpth.qp", "qpth", "--no-deps qpth", peers=True)
    batch = _batch(cost, a, b)
    size, n, m = batch.cost.shape
    c = batch.cost.flatten(1)  # (B, nm)
    if form == "QP" and bool((c.amin(1) < -1e-6 * c.abs().amax(1)).any()):
        raise ValueError("form 'QP' minimises the square of the total cost, so cost must not be negative; use 'L2'")
    share = batch.a.sum(1, keepdim=True) / n  # (B, 1)
    a, b = batch.a / share, batch.b / share  # (B, n), (B, m) of sum n

    if size == 0 or n == 1 or m == 1:  # nothing to choose, and qpth cannot
        x = (a[:, :, None] * b[:, None] / n).flatten(1)  # (B, nm)
    else:
        eye = torch.eye(n * m, dtype=c.dtype, device=c.device)
        quadratic, linear = l2 * eye.expand(size, -1, -1), c  # (B, nm, nm), (B, nm)
        if form == "QP":
            quadratic, linear = quadratic + c[:, :, None] * c[:, None], torch.zeros_like(c)
        below = torch.cat([-eye, _sums(n, m).to(eye)])  # (nm + n + m, nm)
        bounds = torch.cat([torch.zeros_like(c), a, b], 1)  # (B, nm + n + m)
        total = torch.minimum(a.sum(1), b.sum(1))[:, None]  # (B, 1)
        x = qp.QPFunction(verbose=-1, check_Q_spd=False)(
            quadratic, linear, below, bounds, torch.ones_like(eye[:1]), total
        )
    value = (c * x).sum(1) * share[:, 0]  # (B,)
    return _answer(batch, value, (x * share).view(size, n, m))


def sinkhorn(
    cost: Tensor, a: Tensor, b: Tensor, *, epsilon: float = 1e-2, tolerance: float = 1e-3, max_iterations: int = 10_000
) -> Transport:
    """Entropic transport by Sinkhorn's iteration on the potentials, batched.

    With weights of sum 1 and e = epsilon * (max c - min c), it solves min <c, x> + e sum_ij x_ij (log x_ij - 1), whose
    solution x_ij = exp((u_i + v_j - c_ij) / e) spreads over the whole table. The iteration stops early, so x is then
    moved onto the marginals. The EMD lies between a.u + b.v, as u_i + v_j <= c_ij, and the value <c, x>. The gradient
    is that of the entropic objective by the envelope theorem, x, u and v, with no graph through the iterations.

    Error at the default: value 4e-3, marginals 1e-15, gradient to cost 0.1, to a and b 0.5 (median 0.01 and 0.04).

    The 375 problems of an episode, 25 x 25 between embeddings of a trained conv4, costs of a spread of 1; two cores:

    | epsilon, tolerance | value off by at most | mean | queries classified as by emd | time |
    |---|---|---|---|---|
    | 0.1, 0.01 | 0.11 | 0.066 | 98.2 % | 0.09 s |
    | 0.03, 0.01 | 0.029 | 0.015 | 99.3 % | 0.4 s |
    | 0.01, 0.01 | 0.006 | 0.002 | 99.8 % | 1.7 s |
    | 0.01, 0.001 | 0.006 | 0.002 | 99.8 % | 12 s |
    | emd | | | | 0.01 s |

    So over many episodes take a tolerance of 0.01, and an epsilon of 0.03 to 0.1.

    Args:
        cost, a, b: as for ``emd``.
        epsilon: weight of the entropy, relative to the spread of each problem's costs. Smaller is closer to the EMD,
            and needs more iterations.
        tolerance: stop when the row sums are off by at most this share of the total, added up (the column sums are
            exact). Lower it together with epsilon.
        max_iterations: when to give up.

    Raises:
        RuntimeError: the row sums are not within the tolerance after max_iterations.
        TypeError, ValueError: as ``emd``; or an epsilon of 0 or less.

    >>> cost = torch.tensor([[6.0, 4.0, 6.0], [6.0, 5.0, 5.0]])
    >>> round(float(sinkhorn(cost, torch.tensor([200.0, 300.0]), torch.tensor([150.0, 150.0, 200.0])).value))
    2500

    Source: Cuturi, Sinkhorn distances, NeurIPS 2013; Peyré, Cuturi, Computational Optimal Transport, 2019, section 4.4.
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon must be above 0, got {epsilon}; use emd for the limit of 0")
    batch = _batch(cost, a, b)
    c, p, q = batch.normalised()  # (B, n, m), (B, n), (B, m)
    spread = c.flatten(1).amax(1) - c.flatten(1).amin(1)  # (B,)
    e = epsilon * torch.where(spread > 0, spread, 1)[:, None]  # (B, 1)
    u, v, x = torch.zeros_like(p), torch.zeros_like(q), torch.zeros_like(c)
    off, iterations = (torch.inf if len(c) else 0.0), 0
    while not off <= tolerance:
        if iterations == max_iterations:
            raise RuntimeError(
                f"after {max_iterations} iterations the row sums are still off by {off:.1e} of the total, more than "
                f"{tolerance:g}; raise max_iterations, tolerance or epsilon"
            )
        iterations += 1
        u = e * (p.log() - torch.logsumexp((v[:, None] - c) / e[:, None], 2))  # (B, n)
        v = e * (q.log() - torch.logsumexp((u[:, :, None] - c) / e[:, None], 1))  # (B, m)
        x = ((u[:, :, None] + v[:, None] - c) / e[:, None]).exp()  # (B, n, m)
        off = float((x.sum(2) - p).abs().sum(1).amax())
    # Onto the marginals: shrink the rows and columns that are too large, then share out what is missing.
    tiny = torch.finfo(x.dtype).tiny
    x = x * (p / x.sum(2).clamp_min(tiny)).clamp_max(1)[:, :, None]
    x = x * (q / x.sum(1).clamp_min(tiny)).clamp_max(1)[:, None]
    rows, columns = (p - x.sum(2)).clamp_min(0), (q - x.sum(1)).clamp_min(0)  # (B, n), (B, m), of one total
    missing = torch.maximum(rows.sum(1), columns.sum(1)).clamp_min(tiny)  # (B,)
    x = x + rows[:, :, None] * columns[:, None] / missing[:, None, None]
    # A weight of 0 has potential -inf by now: give it the largest feasible one.
    u = torch.where(p > 0, u, (c - v[:, None]).amin(2))
    v = torch.where(q > 0, v, (c - u[:, :, None]).amin(1))
    return _by_envelope(batch, x, u, v)


class _Batch(NamedTuple):
    """B problems in float64, attached to the arguments, b scaled to the total of a."""

    cost: Tensor  # (B, n, m)
    a: Tensor  # (B, n)
    b: Tensor  # (B, m)
    shape: list[int]  # leading dimensions of the answer
    dtype: torch.dtype  # of the answer

    def units(self) -> tuple[Tensor, Tensor]:
        """The largest |cost| and the total weight of each problem, (B, 1)."""
        unit, total = self.cost.detach().abs().flatten(1).amax(1, keepdim=True), self.a.detach().sum(1, keepdim=True)
        return torch.where(unit > 0, unit, 1), total

    def normalised(self) -> tuple[Tensor, Tensor, Tensor]:
        """Costs of at most 1 and weights of sum 1, detached: solvers judge rounding by absolute numbers."""
        unit, total = self.units()
        return self.cost.detach() / unit[:, None], self.a.detach() / total, self.b.detach() / total


def _batch(cost: Tensor, a: Tensor, b: Tensor) -> _Batch:
    c, p, q, tolerance, shape = pose(cost, a, b)
    dtype = c.dtype
    c, p, q = c.double(), p.double(), q.double()
    ratio = p.sum(1, keepdim=True) / q.sum(1, keepdim=True)  # (B, 1)
    sound = (c.isfinite().all(), (p >= 0).all(), (q >= 0).all(), ((ratio - 1).abs() <= tolerance).all())
    if not all(sound):
        emd(cost, a, b)  # says what is wrong, and where
    return _Batch(c, p, q * ratio, shape, dtype)


def _one_by_one(batch: _Batch, solve: Callable[[Any, Any, Any], tuple[Any, ...]]) -> Transport:
    """Give every problem to `solve`, as NumPy arrays; it returns the plan and, if it has them, the potentials."""
    normalised = batch.normalised()
    outputs = [torch.empty_like(t, device="cpu") for t in normalised]  # plan, u, v
    found = len(outputs)
    for k, problem in enumerate(zip(*(t.cpu().numpy() for t in normalised), strict=True)):
        answer = solve(*problem)
        found = len(answer)
        for whole, part in zip(outputs, answer, strict=False):
            whole[k] = torch.as_tensor(part)
    return _by_envelope(batch, *(t.to(batch.cost.device) for t in outputs[:found]))


def _by_envelope(batch: _Batch, plan: Tensor, u: Tensor | None = None, v: Tensor | None = None) -> Transport:
    """The transport of a normalised answer (x, u, v), with the gradient of the envelope theorem.

    The value is <c, x> + <a - a', u> + <b - b', v>, where a' and b' are a and b without their graphs: the last two are
    0, and the derivatives are x, u and v (see _autograd.py). Without potentials it is <c, x>.
    """
    unit, total = batch.units()
    plan = plan * total[:, None]
    value = (batch.cost * plan).sum((1, 2))  # (B,)
    if u is None or v is None:
        return _answer(batch, value, plan)
    a, b = batch.a.detach(), batch.b.detach()
    u, v = u * unit, v * unit
    even = ((b * v).sum(1, keepdim=True) - (a * u).sum(1, keepdim=True)) / (2 * total)
    u, v = u + even, v - even  # a.u = b.v
    return _answer(batch, value + ((batch.a - a) * u).sum(1) + ((batch.b - b) * v).sum(1), plan, u, v)


def _answer(batch: _Batch, value: Tensor, plan: Tensor, u: Tensor | None = None, v: Tensor | None = None) -> Transport:
    u, v = (torch.full_like(w, torch.nan) if t is None else t for t, w in ((u, batch.a), (v, batch.b)))
    value, plan, u, v = (t.to(batch.dtype).view([*batch.shape, *t.shape[1:]]) for t in (value, plan, u, v))
    return Transport(value, u.detach(), v.detach(), plan.detach(), (batch.cost, batch.a, batch.b))


def _sums(n: int, m: int) -> Tensor:
    """(n + m, nm): what maps a plan, row after row, to its row sums and column sums."""
    cells = torch.eye(n * m, dtype=torch.float64).view(n, m, n * m)
    return torch.cat([cells.sum(1), cells.sum(0)])


def _require(module: str, name: str, install: str, peers: bool = False) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        extra = 'pip install -c constraints.txt ".[peers]"'
        command = f"{extra} && pip install {install}" if peers else f"pip install {install}, or in a checkout {extra}"
        raise ImportError(f"this solver needs {name}, and importing {module} failed ({error}); {command}") from error

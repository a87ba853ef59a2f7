"""Solvers called through the modelling language CVXPY."""

from typing import Any

from torch import Tensor

from deepemd.transport._emd import Transport
from deepemd.transport.solvers._batch import pose_batch, require, solve_one_by_one


def cvxpy(cost: Tensor, a: Tensor, b: Tensor, *, solver: str = "CLARABEL") -> Transport:
    """Solve the linear programme through CVXPY, a modelling language.

    Differentiable in cost, a and b by the envelope theorem (cvxpylayers is not needed). Error of the interior-point
    method: value, marginals and potentials 5e-8, gradient to cost 2e-6, to a and b 1e-4 (median 1e-8). Of several
    optimal plans it returns one between the vertices.

    Args:
        cost, a, b: as for ``emd``.
        solver: the solver that CVXPY calls. Clarabel, an interior-point method, comes with it;
            ``cvxpy.installed_solvers()`` names the others, of which "HIGHS" returns a vertex.

    Raises:
        ImportError: CVXPY is missing.
        RuntimeError: the solver reports that it did not find the optimum.
        TypeError, ValueError: as ``emd``.

    >>> import torch
    >>> cost = torch.tensor([[6.0, 4.0, 6.0], [6.0, 5.0, 5.0]])
    >>> round(float(cvxpy(cost, torch.tensor([200.0, 300.0]), torch.tensor([150.0, 150.0, 200.0])).value), 2)
    2500.0

    Source: Diamond, Boyd, CVXPY, JMLR 2016; Goulart, Chen, Clarabel, 2024.
    """
    cp = require("cvxpy", "CVXPY", "cvxpy")
    batch = pose_batch(cost, a, b)
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

    return solve_one_by_one(batch, solve)

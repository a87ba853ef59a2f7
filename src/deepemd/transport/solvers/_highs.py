"""HiGHS, a solver for general linear programmes, called through SciPy."""

from importlib import import_module
from typing import Any

from torch import Tensor

from deepemd.transport._emd import Transport
from deepemd.transport.solvers._batch import pose_batch, require, row_and_column_sums, solve_one_by_one


def highs(cost: Tensor, a: Tensor, b: Tensor) -> Transport:
    """Solve by ``scipy.optimize.linprog(method="highs-ds")``, a solver for general linear programmes.

    Differentiable in cost, a and b by the envelope theorem. Error: value, marginals, potentials and gradients 1e-15.
    Its tolerances are absolute and cannot be less than 1e-10: smaller weights (of a sum of 1) and smaller differences
    between costs (of at most 1) may count as 0, with value, marginals and potentials off by up to 3e-10.

    Raises:
        ImportError: SciPy is missing.
        RuntimeError: HiGHS reports that it did not find the optimum.
        TypeError, ValueError: as ``emd``.

    >>> import torch
    >>> cost = torch.tensor([[6.0, 4.0, 6.0], [6.0, 5.0, 5.0]])
    >>> highs(cost, torch.tensor([200.0, 300.0]), torch.tensor([150.0, 150.0, 200.0])).value
    tensor(2500.)

    Source: Huangfu, Hall, Parallelizing the dual revised simplex method, 2018; https://highs.dev.
    """
    optimize = require("scipy.optimize", "SciPy", "scipy")
    sparse = import_module("scipy.sparse")
    batch = pose_batch(cost, a, b)
    n, m = cost.shape[-2:]
    sums = row_and_column_sums(n, m).numpy()
    sums = sparse.csr_array(sums[:-1])  # the last constraint follows from the others
    exact = {"presolve": False, "primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}

    def solve(c: Any, p: Any, q: Any) -> tuple[Any, Any, Any]:
        answer = optimize.linprog(c.ravel(), A_eq=sums, b_eq=[*p, *q[:-1]], method="highs-ds", options=exact)
        if answer.status != 0:
            raise RuntimeError(f"HiGHS found no optimum: {answer.message}")
        duals = answer.eqlin.marginals
        return answer.x.reshape(n, m), duals[:n], [*duals[n:], 0.0]

    return solve_one_by_one(batch, solve)

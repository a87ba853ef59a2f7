"""The network simplex of Python Optimal Transport."""

from typing import Any

from torch import Tensor

from deepemd.transport._emd import Transport
from deepemd.transport.solvers._batch import pose_batch, require, solve_one_by_one


def pot(cost: Tensor, a: Tensor, b: Tensor) -> Transport:
    """Solve by ``ot.lp.emd`` of Python Optimal Transport, an exact network simplex in C++.

    Differentiable in cost, a and b by the envelope theorem. Error: value, marginals and gradient to cost 1e-15;
    potentials, and so the gradient to a and b, 3e-14.

    Raises:
        ImportError: POT is missing.
        RuntimeError: POT reports that it did not find the optimum.
        TypeError, ValueError: as ``emd``.

    >>> import torch
    >>> cost = torch.tensor([[6.0, 4.0, 6.0], [6.0, 5.0, 5.0]])
    >>> pot(cost, torch.tensor([200.0, 300.0]), torch.tensor([150.0, 150.0, 200.0])).value
    tensor(2500.)

    Source: Flamary et al., POT, JMLR 2021; Bonneel et al., Displacement interpolation, SIGGRAPH Asia 2011.
    """
    lp = require("ot.lp", "POT", "POT")

    def solve(c: Any, p: Any, q: Any) -> tuple[Any, Any, Any]:
        plan, log = lp.emd(p, q, c, numItermax=10_000_000, log=True)
        if log["warning"] is not None:
            raise RuntimeError(f"POT found no optimum: {log['warning']}")
        return plan, log["u"], log["v"]

    return solve_one_by_one(pose_batch(cost, a, b), solve)

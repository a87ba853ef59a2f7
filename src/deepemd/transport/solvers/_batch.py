"""Code that all the solvers share: the checked batch, the result, and the error for a missing package."""

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deepemd.transport._emd import Transport, emd, pose, versions_of


class Batch(NamedTuple):
    """A batch of B problems in float64, still in the graph of the arguments, with b scaled to the total of a."""

    cost: Tensor  # (B, n, m)
    a: Tensor  # (B, n)
    b: Tensor  # (B, m)
    shape: list[int]  # leading dimensions of the answer
    dtype: torch.dtype  # dtype of the answer

    def units(self) -> tuple[Tensor, Tensor]:
        """Return the largest |cost| and the total weight of each problem, each (B, 1)."""
        unit, total = self.cost.detach().abs().flatten(1).amax(1, keepdim=True), self.a.detach().sum(1, keepdim=True)
        return torch.where(unit > 0, unit, 1), total

    def normalised(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return costs of at most 1 and weights of sum 1, detached: the tolerances of solvers are absolute."""
        unit, total = self.units()
        return self.cost.detach() / unit[:, None], self.a.detach() / total, self.b.detach() / total


def pose_batch(cost: Tensor, a: Tensor, b: Tensor) -> Batch:
    """Check the arguments as ``emd`` does, with the same errors, and return them as one batch."""
    c, p, q, tolerance, shape = pose(cost, a, b)
    dtype = c.dtype
    c, p, q = c.double(), p.double(), q.double()
    ratio = p.sum(1, keepdim=True) / q.sum(1, keepdim=True)  # (B, 1)
    sound = (c.isfinite().all(), (p >= 0).all(), (q >= 0).all(), ((ratio - 1).abs() <= tolerance).all())
    if not all(sound):
        emd(cost, a, b)  # raises an error with the argument and the place
    return Batch(c, p, q * ratio, shape, dtype)


def solve_one_by_one(batch: Batch, solve: Callable[[Any, Any, Any], tuple[Any, ...]]) -> Transport:
    """Pass every problem to `solve` as NumPy arrays; it returns the plan and, if it has them, the potentials."""
    normalised = batch.normalised()
    outputs = [torch.empty_like(t, device="cpu") for t in normalised]  # plan, u, v
    found = len(outputs)
    for k, problem in enumerate(zip(*(t.cpu().numpy() for t in normalised), strict=True)):
        answer = solve(*problem)
        found = len(answer)
        for whole, part in zip(outputs, answer, strict=False):
            whole[k] = torch.as_tensor(part)
    return transport_by_envelope(batch, *(t.to(batch.cost.device) for t in outputs[:found]))


def transport_by_envelope(batch: Batch, plan: Tensor, u: Tensor | None = None, v: Tensor | None = None) -> Transport:
    """Return the result of a normalised answer (x, u, v), with the gradient of the envelope theorem.

    The value is <c, x> + <a - a', u> + <b - b', v>, where a' and b' are a and b without their graphs: the last two are
    0, and the derivatives are x, u and v (see _autograd.py). Without potentials it is <c, x>.
    """
    unit, total = batch.units()
    plan = plan * total[:, None]
    value = (batch.cost * plan).sum((1, 2))  # (B,)
    if u is None or v is None:
        return transport_of(batch, value, plan)
    a, b = batch.a.detach(), batch.b.detach()
    u, v = u * unit, v * unit
    even = ((b * v).sum(1, keepdim=True) - (a * u).sum(1, keepdim=True)) / (2 * total)
    u, v = u + even, v - even  # a.u = b.v
    return transport_of(batch, value + ((batch.a - a) * u).sum(1) + ((batch.b - b) * v).sum(1), plan, u, v)


def transport_of(
    batch: Batch, value: Tensor, plan: Tensor, u: Tensor | None = None, v: Tensor | None = None
) -> Transport:
    """Return the result with the shape and dtype of ``emd``; missing potentials are NaN."""
    u, v = (torch.full_like(w, torch.nan) if t is None else t for t, w in ((u, batch.a), (v, batch.b)))
    value, plan, u, v = (t.to(batch.dtype).view([*batch.shape, *t.shape[1:]]) for t in (value, plan, u, v))
    posed = batch.cost, batch.a, batch.b
    return Transport(value, u.detach(), v.detach(), plan.detach(), posed, versions_of(*posed))


def row_and_column_sums(n: int, m: int) -> Tensor:
    """Return the matrix (n + m, nm) that maps a plan, row after row, to its row sums and column sums."""
    cells = torch.eye(n * m, dtype=torch.float64).view(n, m, n * m)
    return torch.cat([cells.sum(1), cells.sum(0)])


def require(module: str, name: str, install: str, peers: bool = False) -> Any:
    """Import a module, or raise an ImportError with the command that installs it."""
    try:
        return import_module(module)
    except ImportError as error:
        extra = 'pip install -c constraints.txt ".[peers]"'
        command = f"{extra} && pip install {install}" if peers else f"pip install {install}, or in a checkout {extra}"
        raise ImportError(f"this solver needs {name}, and importing {module} failed ({error}); {command}") from error

"""``emd``, which solves transport problems, and ``Transport``, the solution that it returns."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deepemd.transport._autograd import dense_plan, transport
from deepemd.transport._memory import FEW, SIDES, require, require_for

_FULL = (torch.float32, torch.float64)  # all other float dtypes count as half precision


@dataclass(eq=False)
class Transport:
    """The solution of a batch of transport problems.

    Attributes:
        value: (...) the least total cost. Differentiable in cost, a and b.
        u: (..., n) dual potentials of the rows, detached.
        v: (..., m) dual potentials of the columns, detached. u_i + v_j <= c_ij, with equality wherever the plan moves
            mass, and value = a.u + b.v with b scaled to the total of a. The free constant between u and v is chosen
            such that a.u = b.v.
        plan: (..., n, m) the optimal transport plan, detached, with at most n + m - 1 positive entries. It is computed
            on first access.
    """

    value: Tensor
    u: Tensor
    v: Tensor
    _basis: tuple[Tensor, Tensor] | Tensor  # arcs i m + j (B, n + m - 1) int32 and their flow; or the plan itself
    _posed: tuple[Tensor, Tensor, Tensor]  # cost (B, n, m), a (B, n) and b (B, m)
    _versions: tuple[int, int, int]  # PyTorch's count of in-place changes of each when it was solved

    @property
    def plan(self) -> Tensor:
        if not isinstance(self._basis, Tensor):  # cached_property would take a lock, which torch.compile refuses
            n, m = self.u.shape[-1], self.v.shape[-1]
            self._basis = dense_plan(*self._basis, n, m).view(*self.value.shape, n, m)  # (..., n, m)
        return self._basis

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_versions": self._changed()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        now = versions_of(*state["_posed"])  # of copies, which PyTorch counts anew
        vars(self).update(state, _versions=tuple(-1 if c else n for c, n in zip(state["_versions"], now, strict=True)))

    def _changed(self) -> tuple[bool, ...]:
        """Return whether cost, a and b were each changed in place after the problems were solved."""
        return tuple(before != now for before, now in zip(self._versions, versions_of(*self._posed), strict=True))

    def certificate(self) -> "Certificate":
        """Check the solution: return its defects as a proof of optimality, computed in float64.

        A plan with the right marginals is optimal if its cost equals a.u + b.v for potentials with u_i + v_j <= c_ij,
        because no plan costs less than a.u + b.v of any such potentials. Needs memory for a few copies of the costs.
        The solution refers to the tensors that were passed to ``emd``; it copies them only to convert or broadcast
        them. If one was changed in place since, the certificate is refused. Changes that PyTorch does not count,
        namely through ``.data`` or NumPy or of tensors made in inference mode, appear as defects. The solution itself
        is not affected by either.

        Raises:
            RuntimeError: cost, a or b was changed in place.

        >>> cost = torch.tensor([[6.0, 4.0, 6.0], [6.0, 5.0, 5.0]])
        >>> proof = emd(cost, torch.tensor([200.0, 300.0]), torch.tensor([150.0, 150.0, 200.0])).certificate()
        >>> max(float(part) for part in proof) < 1e-15
        True
        """
        for name, changed in zip(("cost", "a", "b"), self._changed(), strict=True):
            if changed:
                raise RuntimeError(
                    f"{name} was changed in place after it was solved, so this solution cannot be checked any more; "
                    f"ask for the certificate before, or pass emd a copy: {name}.clone()"
                )
        size = 8 * self._posed[0].numel()
        require(5 * size, f"the certificate of {size // 8:,} costs", "solve and check the batch in parts")
        cost, a, b = (t.detach().to(self.value.device, torch.float64) for t in self._posed)
        shape = self.value.shape
        plan = self.plan.double().reshape(cost.shape)  # (B, n, m)
        u, v = self.u.double().reshape(a.shape), self.v.double().reshape(b.shape)
        unit = cost.abs().amax((1, 2)).clamp_min(torch.finfo(torch.float64).tiny)  # (B,)
        total = a.sum(1)  # (B,)
        b = b * (total / b.sum(1))[:, None]
        marginal = torch.maximum((plan.sum(2) - a).abs().amax(1), (plan.sum(1) - b).abs().amax(1))
        excess = (u[:, :, None] + v[:, None] - cost).amax((1, 2)).clamp_min(0)
        share = (plan / total[:, None, None] * (cost / unit[:, None, None])).sum((1, 2))  # both below 1: no overflow
        worth = ((a / total[:, None]) * (u / unit[:, None])).sum(1) + ((b / total[:, None]) * (v / unit[:, None])).sum(
            1
        )
        parts = marginal / total, excess / unit, (share - worth).abs()
        return Certificate(*(t.view(shape) for t in parts))


class Certificate(NamedTuple):
    """The defects of a solution, each (...) float64; zeros prove it optimal.

    About 1e-15 is the rounding of float64. Float32 answers were rounded once more, to about 1e-7.
    """

    marginal_error: Tensor  # the plan's largest missing or surplus row or column sum, relative to sum(a)
    dual_infeasibility: Tensor  # the largest u_i + v_j - c_ij above 0, relative to max |c|
    gap: Tensor  # |<cost, plan> - (a.u + b.v)|, relative to max |c| sum(a)


def emd(cost: Tensor, a: Tensor, b: Tensor) -> Transport:
    """Compute the exact Earth Mover's Distance of weighted sets: min <cost, plan> with row sums a and column sums b.

    Every problem of the batch is solved to optimality by a network simplex on the CPU; tensors on a GPU are copied
    there and back. It runs on at most ``torch.get_num_threads()`` threads, and results do not depend on their number.
    Gradients are exact and take almost no time: the plan for ``cost``, the dual potentials for the weights.

    Args:
        cost: (..., n, m) cost of moving one unit from i to j; any finite values, also negative. Any float dtype.
        a: (..., n) supplies, at least 0, not all 0. Zero weights are allowed and serve as padding for sets of
            different sizes.
        b: (..., m) demands, likewise. They are scaled to the total of a; totals that differ by more than a relative
            1e-4 (2e-2 if an input is half precision) are refused. Leading dimensions of the three broadcast.

    Returns:
        A :class:`Transport` with value (...), u (..., n), v (..., m) and, on demand, plan (..., n, m): float64 if any
        input is, else float32. A value beyond the largest number of that type is returned as infinite.

    Raises:
        TypeError: an argument is not a tensor of floating-point numbers.
        ValueError: shapes, devices or totals do not match; a set is empty; weights are negative, non-finite or all
            zero; costs are non-finite; or there is not enough memory, in which case it is a MemoryError, too. The
            message names the argument and the first offending batch index.
        RuntimeError: the pivot limit was reached, or a second derivative was requested.

    A textbook problem, whose least cost is 2500:

    >>> cost = torch.tensor([[6.0, 4.0, 6.0], [6.0, 5.0, 5.0]])
    >>> solution = emd(cost, torch.tensor([200.0, 300.0]), torch.tensor([150.0, 150.0, 200.0]))
    >>> solution.value
    tensor(2500.)
    >>> solution.plan
    tensor([[ 50., 150.,   0.],
            [100.,   0., 200.]])

    Source: equation 1 and section 3.1 of DeepEMD (arXiv 2003.06777); the gradient is derived in
        ``deepemd/transport/_autograd.py``.
    """
    return solve(pose(cost, a, b), None)[0]


Posed = tuple[Tensor, Tensor, Tensor, float, list[int]]


def solve(posed: Posed, old_arcs: Tensor | None) -> tuple[Transport, Tensor]:
    """Solve a batch, from old basis arcs (B, n + m - 1) if given. Also return whether these were used, (B,) bool."""
    cost, a, b, tolerance, shape = posed
    home = cost.device
    if home.type not in ("cpu", "meta"):
        cost, a, b = cost.cpu(), a.cpu(), b.cpu()
    n, m = cost.shape[-2:]
    value, u, v, arcs, flow, resumed = transport(cost, a, b, old_arcs, tolerance, shape)
    if not shape:
        value, u, v = value.squeeze(0), u.squeeze(0), v.squeeze(0)
    elif len(shape) != 1:
        value, u, v = value.view(shape), u.view(*shape, n), v.view(*shape, m)
    if home != cost.device:
        value, u, v, arcs, flow = (t.to(home) for t in (value, u, v, arcs, flow))
    return Transport(value, u, v, (arcs, flow), (cost, a, b), versions_of(cost, a, b)), resumed


def versions_of(cost: Tensor, a: Tensor, b: Tensor) -> tuple[int, int, int]:
    """Return how often each was changed in place, as far as PyTorch counts: not in inference mode."""
    try:
        return cost._version, a._version, b._version
    except RuntimeError:
        return 0, 0, 0


def pose(cost: Tensor, a: Tensor, b: Tensor) -> Posed:
    """Check the arguments of ``emd``, except for their values, and return them as one batch of the answer's dtype.

    Returns:
        cost (B, n, m), a (B, n), b (B, m), the largest relative difference of the totals that counts as rounding, and
        the leading dimensions of the answer.
    """
    _check(cost, a, b)
    tolerance = 1e-4
    n, m = cost.shape[-2:]
    one = cost.ndim == 2 and a.ndim == b.ndim == 1
    shape = [] if one else list(cost.shape[:-2])
    if not one and not shape == list(a.shape[:-1]) == list(b.shape[:-1]):
        try:
            # torch.broadcast_shapes would do, but its first call imports half a second of symbolic shapes
            shape = list(torch.broadcast_tensors(cost[..., 0, 0], a[..., 0], b[..., 0])[0].shape)
        except RuntimeError:
            raise ValueError(
                f"leading dimensions do not broadcast: cost {tuple(cost.shape[:-2])}, a {tuple(a.shape[:-1])}, "
                f"b {tuple(b.shape[:-1])}"
            ) from None
    if (elements := math.prod(shape) * n * m) >= 2**31:
        raise ValueError(
            f"cost, broadcast to {(*shape, n, m)}, has {elements:,} elements, at most {2**31 - 1:,} are allowed; "
            "solve the batch in parts"
        )
    if elements >= FEW or n + m >= SIDES:
        require_for(cost, shape, _dtype(cost, a, b))
    if not cost.dtype == a.dtype == b.dtype or cost.dtype not in _FULL:
        tolerance = 1e-4 if all(t.dtype in _FULL for t in (cost, a, b)) else 2e-2
        dtype = _dtype(cost, a, b)
        cost, a, b = cost.to(dtype), a.to(dtype), b.to(dtype)
    if one:  # in a third of the time of the general case
        return cost.unsqueeze(0), a.unsqueeze(0), b.unsqueeze(0), tolerance, shape
    if len(shape) != 1 or cost.ndim != 3 or a.ndim != 2 or b.ndim != 2 or not len(cost) == len(a) == len(b):
        batch = math.prod(shape)
        cost = cost.expand(*shape, n, m).reshape(batch, n, m)
        a, b = a.expand(*shape, n).reshape(batch, n), b.expand(*shape, m).reshape(batch, m)
    return cost, a, b, tolerance, shape


def _dtype(*given: Tensor) -> torch.dtype:
    """Return the dtype in which the problems of these tensors are solved."""
    return torch.float64 if any(t.dtype == torch.float64 for t in given) else torch.float32


def _check(cost: Tensor, a: Tensor, b: Tensor) -> None:
    for name, t in (("cost", cost), ("a", a), ("b", b)):
        if not isinstance(t, Tensor):
            raise TypeError(
                f"{name} must be a torch.Tensor, got {type(t).__name__}; convert it with torch.as_tensor({name})"
            )
        if not t.is_floating_point():
            raise TypeError(f"{name} must be of a floating-point dtype, got {t.dtype}; convert it with {name}.float()")
        if t.is_nested:
            raise TypeError(f"{name} must not be nested; pad it with weights of 0: {name}.to_padded_tensor(0.0)")
        if t.layout is not torch.strided:
            raise TypeError(f"{name} must be dense, got layout {t.layout}; convert it with {name}.to_dense()")
    if cost.ndim < 2 or a.ndim < 1 or b.ndim < 1:
        raise ValueError(
            f"cost must be (..., n, m), a (..., n), b (..., m); "
            f"got {tuple(cost.shape)}, {tuple(a.shape)}, {tuple(b.shape)}"
        )
    n, m = cost.shape[-2:]
    if n == 0 or m == 0:
        raise ValueError(f"cost must have at least one row and one column, got shape {tuple(cost.shape)}")
    if a.shape[-1] != n or b.shape[-1] != m:
        raise ValueError(
            f"cost is (..., {n}, {m}), so a must be (..., {n}) and b (..., {m}); "
            f"got a {tuple(a.shape)} and b {tuple(b.shape)}"
        )
    if not cost.device == a.device == b.device:
        raise ValueError(f"cost, a and b must be on one device; got {cost.device}, {a.device} and {b.device}")

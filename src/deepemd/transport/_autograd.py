"""The transport solver as a PyTorch operator with a gradient, and the derivation of the gradient.

The value of the linear programme, as a function of its data,

    E(c, a, b) = min { <c, x> : x >= 0, x 1 = a, x' 1 = b } = max { a.u + b.v : u_i + v_j <= c_ij },

is a minimum of functions linear in c and a maximum of functions linear in (a, b). By the envelope theorem (Danskin),
with x the optimal plan and (u, v) the optimal duals that the simplex method returns,

    dE/dc = x,    dE/da = u,    dE/db = v.

E is defined only where the totals of a and b agree, and (u, v) only up to (u + t, v - t). `emd` scales b to the total
of a, so its value is F(c, a, b) = E(c, a, r b) with r = sum a / sum b, and by the chain rule

    dF/da = u + w,    dF/db = r (v - w),    w = sum_j v_j b_j / sum_j b_j,

the same for every t. At degenerate points (several optimal plans or duals) x is a subgradient of a concave function
and (u, v) of a convex one.

Reference: Zhang et al., DeepEMD (arXiv 2003.06777), section 3.3, differentiates the KKT system instead, at the cost
of a dense (nm + n + m)-square solve per problem; the two agree wherever the derivative exists.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from deepemd.transport import _solve, _threads
from deepemd.transport._memory import require, require_for
from deepemd.transport._resume import resume_batch

_REASONS = {
    _solve.COST_NOT_FINITE: ("cost", "holds NaN or an infinite value", "costs must be finite"),
    _solve.A_NEGATIVE: ("a", "holds a negative weight", "weights must be at least 0"),
    _solve.A_NOT_FINITE: ("a", "holds NaN or an infinite weight, or overflows when summed", "weights must be finite"),
    _solve.A_ZERO: ("a", "holds no positive weight", "at least one weight must be above 0"),
    _solve.B_NEGATIVE: ("b", "holds a negative weight", "weights must be at least 0"),
    _solve.B_NOT_FINITE: ("b", "holds NaN or an infinite weight, or overflows when summed", "weights must be finite"),
    _solve.B_ZERO: ("b", "sums to 0", "weights must be at least 0, and at least one above 0"),
}


def _raise_refusal(problem: int, reason: int, batch_shape: list[int], a: Tensor, b: Tensor, tolerance: float) -> None:
    """Raise the error for a problem that the solver has refused."""
    index = tuple(int(k) for k in torch.unravel_index(torch.tensor(problem), batch_shape)) if batch_shape else ()
    where = f" at batch index {index}" if index else ""
    if reason == _solve.TOTALS:
        ratio = float(a[problem].double().sum() / b[problem].double().sum())
        raise ValueError(
            f"a and b have different totals{where}: sum(a) / sum(b) = {ratio:.6g}, off 1 by more than "
            f"{tolerance:g}; scale the weights to one total first (smaller differences count as rounding)"
        )
    if reason == _solve.PIVOT_CAP:
        raise RuntimeError(
            f"the network simplex reached its pivot limit{where}; the result would not be certain to be optimal. "
            "Please report the problem (cost, a, b) to the authors of deepemd"
        )
    name, found, remedy = _REASONS[reason]
    raise ValueError(f"{name} {found}{where}; {remedy}")


# --- the operator -----------------------------------------------------------------------------------------------------

# Solve cost (B, n, m), a (B, n), b (B, m) of one dtype, float32 or float64, on the CPU. b counts as scaled to the total
# of a; totals that differ by more than a relative tolerance are refused. batch_shape locates the problem in errors.
# old_arcs, if given, are the basis arcs to start from. Returns value (B,), u (B, n), v (B, m); the basis, as arcs
# (B, n + m - 1) int32, each the number i m + j of its cell, and their flow (B, n + m - 1); and resumed (B,) bool, which
# says where the answer came from the old arcs. torch.compile, vmap and fake tensors see this operator, not the solver.
_SCHEMA = (
    "transport(Tensor cost, Tensor a, Tensor b, Tensor? old_arcs, float tolerance, int[] batch_shape)"
    " -> (Tensor value, Tensor u, Tensor v, Tensor arcs, Tensor flow, Tensor resumed)"
)
_library = torch.library.Library("deepemd", "DEF")
_library.define(_SCHEMA, tags=(torch.Tag.pt2_compliant_tag,))

_Answer = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


@torch.library.impl(_library, "transport", "CPU")
def _transport(
    cost: Tensor, a: Tensor, b: Tensor, old_arcs: Tensor | None, tolerance: float, batch_shape: list[int]
) -> _Answer:
    batch, n, m = cost.shape
    given = [t.contiguous().numpy() for t in (cost, a, b)]
    real, arcs = given[0].dtype, (batch, n + m - 1)
    answer = (
        np.empty(batch, real),
        np.empty((batch, n), real),
        np.empty((batch, m), real),
        np.empty(arcs, np.int32) if old_arcs is None else old_arcs.numpy().copy(),
        np.empty(arcs, real),
        np.zeros(batch, np.bool_),
    )
    if batch:
        if old_arcs is None:
            refused = _threads.solve(_solve.solve_batch, given, tolerance, answer[:-1])
        else:
            refused = _threads.solve(resume_batch, given, tolerance, answer)
        if refused is not None:
            _raise_refusal(*refused, batch_shape, a, b, tolerance)
    return tuple(torch.from_numpy(t) for t in answer)  # type: ignore[return-value]


@torch.library.register_fake("deepemd::transport", lib=_library)
def _(cost, a, b, old_arcs, tolerance, batch_shape):  # type: ignore[no-untyped-def]  # noqa: ARG001
    batch, n, m = cost.shape
    flow = cost.new_empty(batch, n + m - 1)
    return (
        cost.new_empty(batch), cost.new_empty(batch, n), cost.new_empty(batch, m),
        torch.empty_like(flow, dtype=torch.int32), flow, cost.new_empty(batch, dtype=torch.bool),
    )  # fmt: skip


@torch.library.register_vmap("deepemd::transport", lib=_library)
def _(info, in_dims, *given):  # type: ignore[no-untyped-def]
    """Merge the additional batch dimension into the existing one."""
    *tensors, tolerance, batch_shape = given
    size = info.batch_size
    wide: list[Any] = [
        t if t is None else t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0)
        for t, dim in zip(tensors, in_dims, strict=False)
    ]
    lead = wide[0].shape[:2]
    require_for(wide[0], lead, wide[0].dtype)
    joined = (t if t is None else t.reshape(math.prod(lead), *t.shape[2:]) for t in wide)
    answer = torch.ops.deepemd.transport(*joined, tolerance, [size, *batch_shape])
    return tuple(t.reshape(*lead, *t.shape[1:]) for t in answer), (0,) * len(answer)


# --- the gradient -----------------------------------------------------------------------------------------------------


def dense_plan(arcs: Tensor, flow: Tensor, n: int, m: int) -> Tensor:
    """Return the transport plan (B, n, m) of basis arcs (B, n + m - 1)."""
    batch = flow.shape[0]
    if flow.device.type == "cpu":
        what = f"the dense plan, or the gradient, of shape {(batch, n, m)}"
        require(batch * n * m * flow.element_size(), what, "solve the batch in parts")
    return flow.new_zeros(batch, n * m).scatter_add_(1, arcs.long(), flow).view(batch, n, m)


class _Solve(torch.autograd.Function):
    """The operator with its gradient, as an autograd.Function because torch.func.grad ignores register_autograd."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*given: Any) -> _Answer:
        answer: _Answer = torch.ops.deepemd.transport.default(*given)
        return answer

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: _Answer) -> None:
        _, a, b, *_ = inputs
        _, u, v, arcs, flow, resumed = output
        # not u and v: what is computed from them depends on the inputs
        ctx.mark_non_differentiable(arcs, flow, resumed)
        ctx.save_for_backward(a, b, u, v, arcs, flow)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple:
        if grad is None:
            return (None,) * 6
        return *_Gradient.apply(grad, *ctx.saved_tensors), *(None,) * 3


def transport(cost: Tensor, a: Tensor, b: Tensor, *others: Any) -> _Answer:
    """Call the operator, in autograd only if a gradient is needed; arguments and results as in its schema."""
    if forward_ad._current_level >= 0 and any(forward_ad.unpack_dual(t).tangent is not None for t in (cost, a, b)):
        raise RuntimeError(
            "emd has no forward-mode derivative; use reverse mode: backward(), torch.func.grad or jacrev"
        )
    if torch.is_grad_enabled() and (cost.requires_grad or a.requires_grad or b.requires_grad):
        value, u, v, *others = _Solve.apply(cost, a, b, *others)
        return value, u.detach(), v.detach(), *others
    answer: _Answer = torch.ops.deepemd.transport.default(cost, a, b, *others)
    return answer


class _Gradient(torch.autograd.Function):
    """Return dF/dc, dF/da, dF/db, each times the gradient (B,) of the value; they have no derivative themselves."""

    generate_vmap_rule = True

    @staticmethod
    def forward(grad: Tensor, a: Tensor, b: Tensor, u: Tensor, v: Tensor, arcs: Tensor, flow: Tensor) -> tuple:
        g = grad[:, None]  # (B, 1)
        total = b.sum(1, keepdim=True, dtype=torch.float64)  # (B, 1)
        r = (a.sum(1, keepdim=True, dtype=torch.float64) / total).to(b.dtype)  # (B, 1)
        w = (v * (b / total)).sum(1, keepdim=True).to(v.dtype)  # (B, 1)
        return dense_plan(arcs, flow * g, u.shape[1], v.shape[1]), (u + w) * g, (v - w) * (r * g)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        """Save nothing: there is no second derivative."""

    @staticmethod
    def backward(ctx: Any, *_: Any) -> tuple:  # noqa: ARG004
        raise RuntimeError(
            "emd has no second derivative: its value is piecewise linear in cost, a and b, so the second derivative is "
            "zero almost everywhere and does not exist elsewhere; use create_graph=False, or detach the gradient"
        )

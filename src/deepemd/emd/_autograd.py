"""The transport solver as a PyTorch operator, and the derivation of its gradient.

The value of the linear programme as a function of its data,

    E(c, a, b) = min { <c, x> : x >= 0, x 1 = a, x' 1 = b } = max { a.u + b.v : u_i + v_j <= c_ij },

is a minimum of functions linear in c and a maximum of functions linear in (a, b). By the envelope theorem (Danskin),
with x the optimal plan and (u, v) the optimal duals that the simplex method returns,

    dE/dc = x,    dE/da = u,    dE/db = v.

(u, v) is defined up to (u + t, v - t). E is defined only where the totals of a and b agree, and along such directions
the constant t cancels; `emd` scales b to the total of a before the operator, in differentiable torch operations,
which takes care of it for any change of a and b. At degenerate points (several optimal plans or duals) x is a
subgradient of a concave function and (u, v) of a convex one.

Reference: Zhang et al., DeepEMD (arXiv 2003.06777), section 3.3, differentiates the KKT system instead, at the cost
of a dense (nm + n + m)-square solve per problem; the two agree wherever the derivative exists.
"""

import torch
from torch import Tensor

from deepemd.emd import _solve, _threads
from deepemd.emd._operator import operator

_REASONS = {
    _solve.COST_NOT_FINITE: ("cost", "holds NaN or an infinite value", "costs must be finite"),
    _solve.A_NEGATIVE: ("a", "holds a negative weight", "weights must be at least 0"),
    _solve.A_NOT_FINITE: ("a", "holds NaN or an infinite weight, or overflows when summed", "weights must be finite"),
    _solve.A_ZERO: ("a", "holds no positive weight", "at least one weight must be above 0"),
    _solve.B_NEGATIVE: ("b", "holds a negative weight", "weights must be at least 0"),
    _solve.B_NOT_FINITE: ("b", "holds NaN or an infinite weight, or overflows when summed", "weights must be finite"),
    _solve.B_ZERO: ("b", "sums to 0", "weights must be at least 0, and at least one above 0"),
}


def _refuse(problem: int, reason: int, batch_shape: list[int], ratio: Tensor, tolerance: float) -> None:
    index = tuple(int(k) for k in torch.unravel_index(torch.tensor(problem), batch_shape)) if batch_shape else ()
    where = f" at batch index {index}" if index else ""
    if reason == _solve.TOTALS:
        raise ValueError(
            f"a and b have different totals{where}: sum(a) / sum(b) = {float(ratio[problem]):.6g}, off 1 by more than "
            f"{tolerance:g}; scale the weights to one total first (smaller differences count as rounding)"
        )
    if reason == _solve.PIVOT_CAP:
        raise RuntimeError(
            f"the network simplex reached its pivot limit{where}; the result would not be certain to be optimal. "
            "Please report the problem (cost, a, b) to the authors of deepemd"
        )
    name, found, remedy = _REASONS[reason]
    raise ValueError(f"{name} {found}{where}; {remedy}")


@operator("transport")
def transport(
    cost: Tensor, a: Tensor, b: Tensor, ratio: Tensor, tolerance: float, batch_shape: list[int]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Exact transport for cost (B, n, m), a (B, n), b (B, m) of one dtype, float32 or float64.

    b has been scaled to the total of a by ratio (B,) float64; problems where |ratio - 1| > tolerance are refused.
    batch_shape names the problem in errors. Returns value (B,), u (B, n), v (B, m) and the basis arcs: rows, cols (B,
    n + m - 1) int32, flow (B, n + m - 1).
    """
    batch, n, m = cost.shape
    host = [t.detach().cpu().contiguous() for t in (cost, a, b, ratio)]
    outputs = [
        torch.empty(batch, dtype=cost.dtype),
        torch.empty(batch, n, dtype=cost.dtype),
        torch.empty(batch, m, dtype=cost.dtype),
        torch.empty(batch, n + m - 1, dtype=torch.int32),
        torch.empty(batch, n + m - 1, dtype=torch.int32),
        torch.empty(batch, n + m - 1, dtype=cost.dtype),
    ]
    if batch:
        problem, reason = _threads.solve_batch(
            tuple(t.numpy() for t in host), tolerance, tuple(t.numpy() for t in outputs)
        )
        if reason != _solve.OK:
            _refuse(problem, reason, batch_shape, host[3], tolerance)
    value, u, v, rows, cols, flow = (t.to(cost.device) for t in outputs)
    return value, u, v, rows, cols, flow


@torch.library.register_fake(transport)
def _(cost, a, b, ratio, tolerance, batch_shape):  # type: ignore[no-untyped-def]  # noqa: ARG001
    batch, n, m = cost.shape
    arcs = cost.new_empty(batch, n + m - 1)
    return (
        cost.new_empty(batch),
        cost.new_empty(batch, n),
        cost.new_empty(batch, m),
        torch.empty_like(arcs, dtype=torch.int32),
        torch.empty_like(arcs, dtype=torch.int32),
        arcs,
    )


def dense_plan(rows: Tensor, cols: Tensor, flow: Tensor, n: int, m: int) -> Tensor:
    """The transport plan (B, n, m) from basis arcs (B, n + m - 1)."""
    arcs = rows.long() * m + cols  # (B, n + m - 1)
    return flow.new_zeros(flow.shape[0], n * m).scatter_add_(1, arcs, flow).view(-1, n, m)  # (B, n, m)


def _save(ctx, inputs, output):  # type: ignore[no-untyped-def]
    _, u, v, rows, cols, flow = output
    ctx.save_for_backward(u, v, rows, cols, flow)
    ctx.shape = inputs[0].shape
    ctx.set_materialize_grads(False)


@operator("transport_gradient")
def _gradient(
    grad: Tensor, u: Tensor, v: Tensor, rows: Tensor, cols: Tensor, flow: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    n, m = u.shape[1], v.shape[1]
    return dense_plan(rows, cols, flow * grad[:, None], n, m), u * grad[:, None], v * grad[:, None]


@torch.library.register_fake(_gradient)
def _(grad, u, v, rows, cols, flow):  # type: ignore[no-untyped-def]  # noqa: ARG001
    return u.new_empty(u.shape[0], u.shape[1], v.shape[1]), torch.empty_like(u), torch.empty_like(v)


def _backward(ctx, grad, *_):  # type: ignore[no-untyped-def]
    if grad is None:
        return None, None, None, None, None, None
    return *_gradient(grad, *ctx.saved_tensors), None, None, None


def _no_second_gradient(ctx, *_):  # type: ignore[no-untyped-def]  # noqa: ARG001
    raise RuntimeError(
        "emd has no second derivative: its value is piecewise linear in cost, a and b, so the second derivative is "
        "zero almost everywhere and does not exist elsewhere; use create_graph=False, or detach the gradient"
    )


torch.library.register_autograd(transport, _backward, setup_context=_save)
torch.library.register_autograd(_gradient, _no_second_gradient)

"""``WarmStart``: a solver that begins each batch where its last one ended."""

import torch
from torch import Tensor

from deepemd.emd import _autograd, _solve, _threads
from deepemd.emd._emd import Transport, pose
from deepemd.emd._warm import resume_range

__all__ = ["WarmStart"]


class WarmStart:
    """``emd`` for batches that drift, such as those of successive gradient steps: same answers, less time.

    The solver keeps the bases of the last batch and starts from them where the next batch has the same shape. After a
    small step few pivots are left. A problem whose basis does not fit any more (other weights are zero), or is too far
    from optimal, starts afresh as in ``emd``: that costs a little time and changes nothing else. Values, gradients,
    dtypes and errors are those of :func:`deepemd.emd.emd`; values agree to 1e-12 of max |cost| times sum(a) and every
    answer is optimal, but where several plans or duals are optimal it may be another of them.

    Keep one solver for each batch of problems that you follow, problems in the same order, and use it instead of
    ``emd`` or as ``emd_logits(..., transport=solver)``. For problems that have nothing to do with the last ones ``emd``
    is faster. A call that raises leaves the bases as they were. Not to be called by several threads at once.

    Attributes:
        warm: how many problems of the last call were solved from their old basis.
        cold: how many started afresh.

    >>> solver = WarmStart()
    >>> cost, weights = torch.rand(10, 25, 25, generator=torch.Generator().manual_seed(0)), torch.full((25,), 0.04)
    >>> before = solver(cost, weights, weights)
    >>> after = solver(cost + 0.001 * cost**2, weights, weights)
    >>> solver.warm, solver.cold
    (10, 0)

    Source: the flows and potentials of a basis, and the dual pivot, are those of any textbook of network flows, such as
        Ahuja, Magnanti, Orlin, Network Flows (1993), chapter 11.
    """

    def __init__(self) -> None:
        self.warm = self.cold = 0
        self._basis: tuple[Tensor, Tensor] | None = None  # rows, cols (B, n + m - 1) int32
        self._shape: torch.Size | None = None  # (B, n, m) that it is of

    def __call__(self, cost: Tensor, a: Tensor, b: Tensor) -> Transport:
        """Solve a batch; arguments, result and errors as :func:`deepemd.emd.emd`."""
        cost, a, b, tolerance, shape = pose(cost, a, b)
        batch, n, m = cost.shape
        ratio = a.sum(-1, dtype=torch.float64) / b.sum(-1, dtype=torch.float64)  # (B,)
        scaled = b * ratio.to(b.dtype)[:, None]  # (B, m), to the total of a
        problem = (cost, a, scaled, ratio.detach(), tolerance, list(shape))
        if self._basis is not None and self._shape == cost.shape:
            value, u, v, rows, cols, flow, resumed = transport_from(*problem, *self._basis)
            self.warm = int(resumed.sum())
        else:
            value, u, v, rows, cols, flow = _autograd.transport(*problem)
            self.warm = 0
        self.cold = batch - self.warm
        self._basis, self._shape = (rows, cols), cost.shape
        u, v = u.detach().view(*shape, n), v.detach().view(*shape, m)
        return Transport(value.view(shape), u, v, (rows, cols, flow.detach()))


@torch.library.custom_op("deepemd::transport_from", mutates_args=())
def transport_from(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    ratio: Tensor,
    tolerance: float,
    batch_shape: list[int],
    rows: Tensor,
    cols: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As the operator ``transport``, from the basis arcs rows, cols of another batch of the same shape.

    Returns besides: resumed (B,) bool, where they served.
    """
    batch, n, m = cost.shape
    host = [t.detach().cpu().contiguous() for t in (cost, a, b, ratio)]
    outputs = [
        torch.empty(batch, dtype=cost.dtype),
        torch.empty(batch, n, dtype=cost.dtype),
        torch.empty(batch, m, dtype=cost.dtype),
        rows.cpu().clone(),
        cols.cpu().clone(),
        torch.empty(batch, n + m - 1, dtype=cost.dtype),
        torch.empty(batch, dtype=torch.bool),
    ]
    if batch:
        problem, reason = _threads.solve_batch(
            tuple(t.numpy() for t in host), tolerance, tuple(t.numpy() for t in outputs), resume_range
        )
        if reason != _solve.OK:
            _autograd._refuse(problem, reason, batch_shape, host[3], tolerance)
    value, u, v, rows, cols, flow, resumed = (t.to(cost.device) for t in outputs)
    return value, u, v, rows, cols, flow, resumed


@transport_from.register_fake
def _(cost, a, b, ratio, tolerance, batch_shape, rows, cols):  # type: ignore[no-untyped-def]  # noqa: ARG001
    batch, n, m = cost.shape
    return (
        cost.new_empty(batch),
        cost.new_empty(batch, n),
        cost.new_empty(batch, m),
        torch.empty_like(rows),
        torch.empty_like(cols),
        cost.new_empty(batch, n + m - 1),
        torch.empty_like(ratio, dtype=torch.bool),
    )


def _save(ctx, inputs, output):  # type: ignore[no-untyped-def]
    _autograd._save(ctx, inputs, output[:-1])


def _backward(ctx, *grads):  # type: ignore[no-untyped-def]
    return *_autograd._backward(ctx, *grads), None, None


transport_from.register_autograd(_backward, setup_context=_save)

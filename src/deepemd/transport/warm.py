"""``WarmStart``, a solver that starts each batch from the solution of the last."""

import torch
from torch import Tensor

from deepemd.transport._emd import Transport, pose, solve
from deepemd.transport._memory import require

__all__ = ["WarmStart"]


class WarmStart:
    """A faster ``emd`` for batches that change in small steps, such as those of successive gradient steps.

    The solver stores the bases of the last batch and starts from them if the next batch has the same shape. After a
    small step, few pivots are left. A problem whose basis no longer fits (other weights are zero), or is too far
    from optimal, is solved as by ``emd``, which takes a little longer and changes nothing else. Values, gradients,
    dtypes and errors are those of :func:`deepemd.emd`: values agree to 1e-12 of max |cost| times sum(a), and every
    answer is optimal. If several plans or duals are optimal, it may return a different one.

    Use one solver for each batch of problems that you follow, with the problems in the same order, in place of ``emd``
    or as ``emd_logits(..., transport=solver)``. For problems that are unrelated to the last ones, ``emd`` is faster. A
    call that raises an exception does not change the bases. Do not call one solver from several threads at a time, nor
    in a transform of ``torch.func``.

    Attributes:
        warm: number of problems of the last call that were solved from their old basis.
        cold: number of problems of the last call that were solved anew.

    >>> import torch
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
        self._sides = (0, 0)  # n and m of the problems
        self._arcs = torch.empty(
            0, 0, dtype=torch.int32
        )  # bases of the problems (slots, n + m - 1) on the CPU; -1 if there is none yet

    def __call__(self, cost: Tensor, a: Tensor, b: Tensor, *, slots: Tensor | None = None) -> Transport:
        """Solve a batch. Arguments, result and errors are those of :func:`deepemd.emd`.

        Args:
            cost, a, b: the B problems.
            slots: (B,) int64, the number of each problem, from 0, if you pass only some of the problems that you
                follow. By default you pass all of them, in order. Memory is needed for the largest number.
        """
        if torch._C._functorch.peek_interpreter_stack() is not None:
            raise RuntimeError(
                "WarmStart stores the solutions of a batch, which transforms of torch.func (vmap, grad, ...) do not "
                "allow; pass the whole batch and call backward(), or use emd"
            )
        posed = pose(cost, a, b)
        batch, n, m = posed[0].shape
        arcs = self._arcs
        if self._sides != (n, m) or (slots is None and batch != len(arcs)):
            arcs = arcs.new_empty(0, n + m - 1)
        slots = torch.arange(batch) if slots is None else _checked(slots, batch)
        missing = int(slots.max()) + 1 - len(arcs) if batch else 0
        if missing > 0:
            require(4 * missing * (n + m - 1), f"slot {int(slots.max())}", "number the problems from 0")
            arcs = torch.cat((arcs, arcs.new_full((missing, n + m - 1), -1)))
        solution, resumed = solve(posed, arcs[slots])
        arcs = arcs.index_copy(0, slots, solution._basis[0].cpu())  # not in place: inference mode would not allow it
        self._sides, self._arcs = (n, m), arcs
        self.warm = int(resumed.sum())
        self.cold = len(resumed) - self.warm
        return solution


def _checked(slots: Tensor, batch: int) -> Tensor:
    """Return the slots of a batch on the CPU, as int64, if they can be ones."""
    if not isinstance(slots, Tensor) or slots.dtype not in (torch.int32, torch.int64):
        found = slots.dtype if isinstance(slots, Tensor) else type(slots).__name__
        raise TypeError(f"slots must be a tensor of int64, got {found}; number the problems from 0")
    if slots.shape != (batch,):
        raise ValueError(f"slots must name a slot for each of the {batch} problems, got shape {tuple(slots.shape)}")
    if batch and (least := int(slots.min())) < 0:
        raise ValueError(f"slots must be at least 0, got {least}")
    return slots.to("cpu", torch.int64)

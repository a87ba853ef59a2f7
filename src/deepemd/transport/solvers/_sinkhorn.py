"""Entropic transport by Sinkhorn's iteration, in PyTorch."""

import torch
from torch import Tensor

from deepemd.transport._emd import Transport
from deepemd.transport.solvers._batch import pose_batch, transport_by_envelope


def sinkhorn(
    cost: Tensor, a: Tensor, b: Tensor, *, epsilon: float = 1e-2, tolerance: float = 1e-3, max_iterations: int = 10_000
) -> Transport:
    """Solve entropic transport by Sinkhorn's iteration on the potentials, for a whole batch at a time.

    With weights of sum 1 and e = epsilon * (max c - min c), it solves min <c, x> + e sum_ij x_ij (log x_ij - 1), whose
    solution x_ij = exp((u_i + v_j - c_ij) / e) spreads over the whole table. The iteration stops early, so x is then
    moved onto the marginals. The EMD lies between a.u + b.v, as u_i + v_j <= c_ij, and the value <c, x>. The gradient
    is that of the entropic objective by the envelope theorem, x, u and v, with no graph through the iterations.

    Error at the default: value 4e-3, marginals 1e-15, gradient to cost 0.1, to a and b 0.5 (median 0.01 and 0.04).

    Measured on the 375 problems of an episode (25 x 25, embeddings of a trained conv4, costs that span 1; two cores):

    | epsilon, tolerance | value off by at most | mean | queries classified as by emd | time |
    |---|---|---|---|---|
    | 0.1, 0.01 | 0.11 | 0.066 | 98.2 % | 0.09 s |
    | 0.03, 0.01 | 0.029 | 0.015 | 99.3 % | 0.4 s |
    | 0.01, 0.01 | 0.006 | 0.002 | 99.8 % | 1.7 s |
    | 0.01, 0.001 | 0.006 | 0.002 | 99.8 % | 12 s |
    | emd | | | | 0.01 s |

    For many episodes, use a tolerance of 0.01 and an epsilon of 0.03 to 0.1.

    Args:
        cost, a, b: as for ``emd``.
        epsilon: weight of the entropy, relative to the spread of each problem's costs. Smaller is closer to the EMD,
            and needs more iterations.
        tolerance: stop when the row sums are off by at most this share of the total, added up (the column sums are
            exact). Lower it together with epsilon.
        max_iterations: number of iterations after which an error is raised.

    Raises:
        RuntimeError: the row sums are not within the tolerance after max_iterations.
        TypeError, ValueError: as ``emd``; or `epsilon` is 0 or less.

    >>> cost = torch.tensor([[6.0, 4.0, 6.0], [6.0, 5.0, 5.0]])
    >>> round(float(sinkhorn(cost, torch.tensor([200.0, 300.0]), torch.tensor([150.0, 150.0, 200.0])).value))
    2500

    Source: Cuturi, Sinkhorn distances, NeurIPS 2013; Peyré, Cuturi, Computational Optimal Transport, 2019, section 4.4.
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon must be above 0, got {epsilon}; use emd for the limit of 0")
    batch = pose_batch(cost, a, b)
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
    # Move x onto the marginals: shrink the rows and columns that are too large, then distribute what is missing.
    tiny = torch.finfo(x.dtype).tiny
    x = x * (p / x.sum(2).clamp_min(tiny)).clamp_max(1)[:, :, None]
    x = x * (q / x.sum(1).clamp_min(tiny)).clamp_max(1)[:, None]
    rows, columns = (p - x.sum(2)).clamp_min(0), (q - x.sum(1)).clamp_min(0)  # (B, n), (B, m), of one total
    missing = torch.maximum(rows.sum(1), columns.sum(1)).clamp_min(tiny)  # (B,)
    x = x + rows[:, :, None] * columns[:, None] / missing[:, None, None]
    # The potential of a weight of 0 is -inf here: replace it by the largest feasible one.
    u = torch.where(p > 0, u, (c - v[:, None]).amin(2))
    v = torch.where(q > 0, v, (c - u[:, :, None]).amin(1))
    return transport_by_envelope(batch, x, u, v)

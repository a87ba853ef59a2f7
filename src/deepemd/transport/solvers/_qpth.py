"""The differentiable quadratic programmes of the authors' code, solved by qpth."""

from typing import Literal

import torch
from torch import Tensor

from deepemd.transport._emd import Transport
from deepemd.transport.solvers._batch import pose_batch, require, row_and_column_sums, transport_of


def qpth(cost: Tensor, a: Tensor, b: Tensor, *, form: Literal["L2", "QP"] = "L2", l2: float | None = None) -> Transport:
    """Solve one of the authors' two quadratic programmes by qpth, differentiable through its KKT system.

    With both weights scaled to sum to n, as the authors do, and x >= 0, row sums <= a, column sums <= b, sum(x) = n,

        "L2":  x = argmin  c.x + l2 / 2 |x|^2            "QP":  x = argmin  (c.x)^2 / 2 + l2 / 2 |x|^2

    and the value is c.x. It is differentiable in cost, a and b; the gradient is that of these programmes. For small l2
    and a unique optimal plan, x is the plan of the linear programme itself. l2 is not scaled with the costs, which
    should be of about 1: on problems with costs of 0 to 9, solved one at a time, "QP" failed on a third, by up to a
    half. u, v are NaN because qpth does not return its multipliers.

    Error at the default l2: most answers are accurate, but one problem whose factorisation fails stops its whole batch
    early. "L2": value 1e-12 for most, above 1e-6 for one in 60, 5e-3 at worst; gradient to cost 1e-7, to a and b 1e-11
    for most, 5e-3 at worst; marginals 5e-5. "QP": value 1e-12 for most, above 1e-6 for one in 7, nearly all of these
    with ties or with costs that span many orders of magnitude, 6e-2 at worst; gradients 1e-7 for most, 2e-3 at worst;
    marginals 2e-6. A problem of 25 x 25 takes 0.6 s and 35 MB.

    Args:
        cost, a, b: as for ``emd``; for "QP" the cost must not be negative.
        form: the programme, "L2" or "QP".
        l2: weight of the quadratic term, above 0; by default the authors', 1e-6 for "L2" and 1e-4 for "QP". A larger
            weight smooths the value and its gradient, and qpth fails less often.

    Raises:
        ImportError: qpth or CVXPY, which it imports, is missing. qpth pins NumPy below 2 but runs with NumPy 2, so it
            is installed without its dependencies, after CVXPY: ``pip install --no-deps qpth``.
        RuntimeError: qpth met a singular matrix, which happened in the backward pass of one batch in 114; raise l2.
        TypeError, ValueError: as ``emd``; or `form` is unknown, `l2` is 0 or less, or a cost for "QP" is negative.

    Source: Amos, Kolter, OptNet, ICML 2017; section 3.3 of DeepEMD (arXiv 2003.06777).
    """
    if form not in ("L2", "QP"):
        raise ValueError(f"form must be 'L2' or 'QP', got {form!r}")
    l2 = l2 if l2 is not None else {"L2": 1e-6, "QP": 1e-4}[form]
    if not l2 > 0:
        raise ValueError(
            f"l2 must be above 0, so that the programme is strictly convex, got {l2}; leave it out for the default"
        )
    qp = require("qpth.qp", "qpth", "--no-deps qpth", peers=True)
    batch = pose_batch(cost, a, b)
    size, n, m = batch.cost.shape
    c = batch.cost.flatten(1)  # (B, nm)
    if form == "QP" and bool((c.amin(1) < -1e-6 * c.abs().amax(1)).any()):
        raise ValueError(
            "cost must not be negative for form 'QP', which minimises the square of the total cost; use form 'L2'"
        )
    share = batch.a.sum(1, keepdim=True) / n  # (B, 1)
    a, b = batch.a / share, batch.b / share  # (B, n), (B, m) of sum n

    if size == 0 or n == 1 or m == 1:  # there is one plan, and qpth does not accept such problems
        x = (a[:, :, None] * b[:, None] / n).flatten(1)  # (B, nm)
    else:
        eye = torch.eye(n * m, dtype=c.dtype, device=c.device)
        quadratic, linear = l2 * eye.expand(size, -1, -1), c  # (B, nm, nm), (B, nm)
        if form == "QP":
            quadratic, linear = quadratic + c[:, :, None] * c[:, None], torch.zeros_like(c)
        below = torch.cat([-eye, row_and_column_sums(n, m).to(eye)])  # (nm + n + m, nm)
        bounds = torch.cat([torch.zeros_like(c), a, b], 1)  # (B, nm + n + m)
        total = torch.minimum(a.sum(1), b.sum(1))[:, None]  # (B, 1)
        x = qp.QPFunction(verbose=-1, check_Q_spd=False)(
            quadratic, linear, below, bounds, torch.ones_like(eye[:1]), total
        )
    value = (c * x).sum(1) * share[:, 0]  # (B,)
    return transport_of(batch, value, (x * share).view(size, n, m))

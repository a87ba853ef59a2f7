"""The gradient against finite differences, at ties against one-sided derivatives, and through PyTorch's opcheck.

Tests deepemd.transport._autograd.
"""

import numpy as np
import pytest
import torch
from problems import FAMILIES, draw, draw_batch

from deepemd.transport import emd


def _problem(seed, n, m, family="random", batch=None, dtype=torch.float64):
    rng = np.random.default_rng(seed)
    drawn = [draw(rng, family, n, m) for _ in range(batch or 1)]
    stacked = [torch.from_numpy(np.stack(t)).to(dtype) for t in zip(*drawn, strict=True)]
    return stacked if batch else [t[0] for t in stacked]


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 4), (5, 1), (4, 4), (5, 7), (34, 33)])
@pytest.mark.parametrize(
    "needs", [(True, True, True), (True, False, False), (False, True, False), (False, False, True)]
)
def test_gradcheck(n, m, needs):
    inputs = [t.requires_grad_(need) for t, need in zip(_problem(1, n, m, batch=2), needs, strict=True)]
    assert torch.autograd.gradcheck(lambda c, a, b: emd(c, a, b).value, inputs)


def _central_differences(inputs, entries, step):
    """Return (value(x + step e) - value(x - step e)) / (2 step) for each (argument, flat index), in one batch."""
    batches = [t.detach().expand(2 * len(entries), *t.shape).clone() for t in inputs]
    for k, (which, index) in enumerate(entries):
        batches[which][k].view(-1)[index] += step
        batches[which][k + len(entries)].view(-1)[index] -= step
    plus, minus = emd(*batches).value.chunk(2)
    return (plus - minus) / (2 * step)


@pytest.mark.parametrize("family", ["random", "embeddings", "negative cost"])
@pytest.mark.parametrize(
    ("n", "m"),
    [(1, 9), (9, 9), (13, 13), (16, 17), (25, 25), (25, 125), (125, 25), (32, 33), (49, 49), (64, 65), (129, 20)],
)
def test_central_differences_where_the_gradient_exists(n, m, family):
    """At any size: all weights, all costs of arcs with flow, and 100 costs of arcs without."""
    inputs = [t.requires_grad_() for t in _problem(n + 1000 * m, n, m, family)]
    solution = emd(*inputs)
    grads = torch.autograd.grad(solution.value, inputs)

    # The premise: one optimal plan and, up to their constant, one pair of duals; and no step of ours changes that.
    plan, step = solution.plan, 1e-8
    reduced = inputs[0].detach() - solution.u[:, None] - solution.v[None]
    assert (plan > 0).sum() == n + m - 1
    assert plan[plan > 0].min() > 10 * step
    assert n == 1 or m == 1 or reduced[plan == 0].min() > 10 * step

    shipped = plan.flatten().nonzero().flatten().tolist()
    idle = (plan.flatten() == 0).nonzero().flatten()
    idle = idle[torch.randperm(len(idle), generator=torch.Generator().manual_seed(0))[:100]].tolist()
    entries = [*((0, k) for k in shipped + idle), *((1, i) for i in range(n)), *((2, j) for j in range(m))]
    expected = torch.stack([grads[which].view(-1)[index] for which, index in entries])
    torch.testing.assert_close(
        _central_differences(inputs, entries, step), expected, rtol=1e-6, atol=1e-6 * float(plan.sum())
    )


def test_gradcheck_through_normalised_weights_and_broadcasting():
    cost, a, b = _problem(2, 4, 5, batch=3)
    inputs = [
        cost[:, None].requires_grad_(),
        a.requires_grad_(),
        b[:2, None].requires_grad_(),
    ]  # (3,1,4,5), (3,4), (2,1,5)

    def value(cost, a, b):
        return emd(cost, a[:, None] / a.sum(-1)[:, None, None], (b / b.sum(-1, keepdim=True)).transpose(0, 1)).value

    assert value(*inputs).shape == (3, 2)
    assert torch.autograd.gradcheck(value, inputs)


@pytest.mark.parametrize("family", ["equal weights", "ties", "duplicates", "integers", "constant cost"])
def test_at_ties_the_gradient_lies_between_the_one_sided_derivatives(family):
    """The value is concave in the cost and convex in the weights, so <g, d> lies between its one-sided slopes."""
    generator = torch.Generator().manual_seed(3)
    step, slack = 1e-6, 1e-7
    for seed in range(30):
        cost, a, b = _problem(seed, 6, 6, family)
        a, b = a + 1.0, b + 1.0  # positive weights: both directions stay inside the domain
        b = b * (a.sum() / b.sum())
        unit = float(a.sum())
        inputs = [t.clone().requires_grad_() for t in (cost, a, b)]
        grads = torch.autograd.grad(emd(*inputs).value, inputs)
        for k in range(3):
            direction = torch.randn(inputs[k].shape, generator=generator, dtype=torch.float64)
            if k:  # weights keep their total, the only directions along which the value is convex
                direction -= direction.mean()
            moved = [
                [t.detach() + (sign * step * direction if i == k else 0) for i, t in enumerate(inputs)]
                for sign in (1, -1)
            ]
            here, plus, minus = (float(emd(*x).value.detach()) for x in (inputs, *moved))
            right, left = (plus - here) / step, (here - minus) / step
            slope = float((grads[k] * direction).sum())
            assert min(left, right) - slack * unit <= slope <= max(left, right) + slack * unit, (family, seed, k)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_choice_at_ties_is_a_supergradient_of_the_costs_and_a_subgradient_of_the_weights(family):
    """For steps of any length: E(c + d) <= E(c) + <x, d> and E(a + p, b + q) >= E(a, b) + u.p + v.q."""
    rng = np.random.default_rng(FAMILIES.index(family))
    cost, a, b = (torch.from_numpy(t) for t in draw_batch(rng, family, 20, 7, 9))
    solution = emd(cost, a, b)
    unit, total = cost.abs().amax((-1, -2)).clamp(min=1e-300), a.sum(-1)
    for length in (1e-3, 1.0, 10.0):
        d = length * unit[:, None, None] * torch.from_numpy(rng.standard_normal((20, 7, 9)))
        rise = (emd(cost + d, a, b).value - solution.value - (solution.plan * d).sum((-1, -2))) / unit / total
        assert rise.max() < 1e-12 * (1 + length), length

        other_a, other_b = torch.from_numpy(rng.random((20, 7))), torch.from_numpy(rng.random((20, 9)))
        p, q = (length * total[:, None] * t / t.sum(-1, keepdim=True) for t in (other_a, other_b))
        rise = (
            (emd(cost, a + p, b + q).value - solution.value - (solution.u * p).sum(-1) - (solution.v * q).sum(-1))
            / unit
            / total
        )
        assert rise.min() > -1e-12 * (1 + length), length


@pytest.mark.parametrize("family", ["equal weights", "ties", "duplicates", "integers", "constant cost", "split sums"])
def test_the_choice_at_ties_is_a_vertex_and_always_the_same(family):
    """The gradient is the plan of one basis, whatever else is in the batch; each side contributes half of the value."""
    rng = np.random.default_rng(12)
    cost, a, b = (torch.from_numpy(t) for t in draw_batch(rng, family, 40, 9, 11))
    inputs = [t.clone().requires_grad_() for t in (cost, a, b)]
    solution = emd(*inputs)
    grads = torch.autograd.grad(solution.value.sum(), inputs)
    torch.testing.assert_close(grads[0], solution.plan, rtol=0, atol=0)
    assert ((solution.plan > 0).sum((-1, -2)) <= 9 + 11 - 1).all()
    half = solution.value.detach() / 2
    torch.testing.assert_close((solution.u * a).sum(-1), half, rtol=1e-12, atol=1e-12 * float(a.sum(-1).max()))
    torch.testing.assert_close((solution.v * b).sum(-1), half, rtol=1e-12, atol=1e-12 * float(a.sum(-1).max()))

    order = torch.from_numpy(rng.permutation(40)[:17])
    inputs = [t[order].clone().requires_grad_() for t in (cost, a, b)]
    for again, first in zip(torch.autograd.grad(emd(*inputs).value.sum(), inputs), grads, strict=True):
        assert torch.equal(again, first[order])


def test_gradient_of_zero_weights_is_a_supergradient_of_growing_them():
    """If a padded node gets some weight, the value changes at least at the rate of its dual."""
    cost, a, b = _problem(4, 6, 7, "zero weights")
    solution = emd(cost, a, b)
    step = 1e-7
    for i in range(6):
        for j in range(7):
            grown = emd(cost, a + step * torch.eye(6, dtype=a.dtype)[i], b + step * torch.eye(7, dtype=b.dtype)[j])
            rate = float(grown.value - solution.value) / step
            assert rate >= float(solution.u[i] + solution.v[j]) - 1e-6


def test_float32_and_half_gradients_have_the_input_dtype_and_agree():
    exact = [t.requires_grad_() for t in _problem(6, 12, 9, batch=3)]
    expected = torch.autograd.grad(emd(*exact).value.sum(), exact)
    coarse = ((torch.float16, 5e-2), (torch.bfloat16, 0.2), (torch.float8_e4m3fn, 0.5))
    for dtype, tolerance in ((torch.float32, 1e-5), *coarse):
        inputs = [t.detach().to(dtype).requires_grad_() for t in exact]
        solution = emd(*inputs)
        assert solution.value.dtype == solution.u.dtype == solution.plan.dtype == torch.float32
        grads = torch.autograd.grad(solution.value.sum(), inputs)
        for g, e in zip(grads[1:], expected[1:], strict=True):
            assert g.dtype == dtype
            torch.testing.assert_close(g.double(), e, rtol=0, atol=tolerance)
        assert grads[0].dtype == dtype


def test_second_derivative_is_refused():
    cost, a, b = (t.requires_grad_() for t in _problem(7, 4, 4))
    (grad,) = torch.autograd.grad(emd(cost, a, b).value, cost, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(grad.sum(), cost)


def test_duals_and_plan_are_detached():
    solution = emd(*(t.requires_grad_() for t in _problem(8, 4, 5)))
    assert solution.value.requires_grad
    assert not any(t.requires_grad for t in (solution.u, solution.v, solution.plan))

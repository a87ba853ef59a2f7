"""The gradient against finite differences, at ties against one-sided derivatives, and through PyTorch's opcheck."""

import numpy as np
import pytest
import torch
from problems import draw

from deepemd.emd import emd


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


def test_gradient_of_zero_weights_is_a_supergradient_of_growing_them():
    """Giving a padded node some weight changes the value at least at the rate that its dual says."""
    cost, a, b = _problem(4, 6, 7, "zero weights")
    solution = emd(cost, a, b)
    step = 1e-7
    for i in range(6):
        for j in range(7):
            grown = emd(cost, a + step * torch.eye(6, dtype=a.dtype)[i], b + step * torch.eye(7, dtype=b.dtype)[j])
            rate = float(grown.value - solution.value) / step
            assert rate >= float(solution.u[i] + solution.v[j]) - 1e-6


def test_opcheck():
    cost, a, b = _problem(5, 5, 6, batch=4)
    ratio = torch.ones(4, dtype=torch.float64)
    inputs = (cost.requires_grad_(), a.requires_grad_(), b.requires_grad_(), ratio, 1e-4, [4])
    torch.library.opcheck(torch.ops.deepemd.transport.default, inputs)


def test_float32_and_half_gradients_have_the_input_dtype_and_agree():
    exact = [t.requires_grad_() for t in _problem(6, 12, 9, batch=3)]
    expected = torch.autograd.grad(emd(*exact).value.sum(), exact)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float16, 5e-2), (torch.bfloat16, 0.2)):
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

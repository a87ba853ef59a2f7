"""What ``emd`` accepts, refuses and promises.

Tests deepemd.transport._emd.
"""

import numpy as np
import pytest
import torch
from problems import draw

from deepemd.transport import emd

NAN, INF = float("nan"), float("inf")


def _batch(n=4, m=5, batch=(2, 3), dtype=torch.float32, seed=0):
    rng = np.random.default_rng(seed)
    drawn = [draw(rng, "random", n, m) for _ in range(int(np.prod(batch)))]
    return [torch.from_numpy(np.stack(t)).to(dtype).reshape(*batch, *t[0].shape) for t in zip(*drawn, strict=True)]


def test_batched_is_the_loop():
    cost, a, b = _batch(dtype=torch.float64)
    together = emd(cost, a, b)
    for i in range(2):
        for j in range(3):
            alone = emd(cost[i, j], a[i, j], b[i, j])
            for name in ("value", "u", "v", "plan"):
                assert torch.equal(getattr(together, name)[i, j], getattr(alone, name))


def test_leading_dimensions_broadcast():
    cost, a, b = _batch(batch=(6,))
    solution = emd(cost.view(2, 3, 4, 5), a[0] / a[0].sum(), (b / b.sum(-1, keepdim=True))[:3])
    assert solution.value.shape == (2, 3)
    assert solution.plan.shape == (2, 3, 4, 5)
    assert emd(cost[0], a[0], b[0]).value.shape == ()


def test_empty_batch():
    solution = emd(torch.empty(0, 3, 4), torch.empty(0, 3), torch.empty(0, 4))
    assert solution.value.shape == (0,)
    assert solution.plan.shape == (0, 3, 4)


def test_non_contiguous_inputs():
    cost, a, b = _batch(5, 5, batch=(4,))
    expected = emd(cost.transpose(1, 2).contiguous(), b, a).value
    assert torch.equal(emd(cost.transpose(1, 2), b, a).value, expected)


def test_inputs_are_left_as_they_were():
    inputs = _batch(20, 20, dtype=torch.float64)
    copies = [t.clone() for t in inputs]
    _ = emd(*inputs).plan
    assert all(torch.equal(t, c) for t, c in zip(inputs, copies, strict=True))


def test_padding_with_zero_weights_changes_nothing():
    cost, a, b = _batch(6, 7, batch=(5,), dtype=torch.float64)
    padded = torch.full((5, 9, 11), 0.3, dtype=torch.float64)
    padded[:, :6, :7] = cost
    solution = emd(padded, torch.nn.functional.pad(a, (0, 3)), torch.nn.functional.pad(b, (0, 4)))
    alone = emd(cost, a, b)
    torch.testing.assert_close(solution.value, alone.value, rtol=1e-14, atol=0)
    torch.testing.assert_close(solution.plan[:, :6, :7], alone.plan, rtol=0, atol=1e-14)
    assert not solution.plan[:, 6:].any()
    assert not solution.plan[..., 7:].any()
    assert (solution.u[:, :, None] + solution.v[:, None] - padded).max() < 1e-12


def test_small_differences_of_the_totals_are_scaled_away():
    cost, a, b = _batch(batch=(), dtype=torch.float64)
    assert float(emd(cost, a, b * 1.00005).value) == pytest.approx(float(emd(cost, a, b).value), rel=1e-12)
    half = emd(cost.half(), (a / a.sum()).half(), (b / b.sum() * 1.01).half())
    assert float(half.value) == pytest.approx(float(emd(cost, a / a.sum(), b / b.sum()).value), rel=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("cost", NAN, "NaN"),
        ("cost", INF, "infinite"),
        ("cost", -INF, "infinite"),
        ("a", NAN, "NaN"),
        ("a", INF, "infinite"),
        ("a", -0.1, "negative"),
        ("b", NAN, "NaN"),
        ("b", INF, "infinite"),
        ("b", -0.1, "negative"),
    ],
)
def test_bad_values_name_the_argument_and_the_first_batch_index(dtype, name, value, says):
    cost, a, b = _batch(dtype=dtype)
    {"cost": cost, "a": a, "b": b}[name][1, 1:].flatten(0, 1)[1] = value
    with pytest.raises(ValueError, match=rf"^{name} holds .*{says}.* at batch index \(1, 1\)"):
        emd(cost, a, b)


@pytest.mark.parametrize("name", ["a", "b"])
def test_all_zero_weights(name):
    cost, a, b = _batch()
    {"a": a, "b": b}[name][0, 2] = 0
    says = {"a": "holds no positive weight", "b": "sums to 0"}[name]
    with pytest.raises(ValueError, match=rf"^{name} {says} at batch index \(0, 2\)"):
        emd(cost, a, b)


def test_a_bad_cost_outside_the_positive_weights_is_still_refused():
    cost, a, b = _batch(batch=(), dtype=torch.float64)
    a = a.clone()
    a[1] = 0
    cost[1, 2] = NAN
    with pytest.raises(ValueError, match="cost holds NaN"):
        emd(cost, a, b * a.sum() / b.sum())


def test_different_totals():
    cost, a, b = _batch()
    b[1, 0] *= 1.001
    with pytest.raises(ValueError, match=r"different totals at batch index \(1, 0\).*0\.999"):
        emd(cost, a, b)
    with pytest.raises(ValueError, match="different totals"):
        emd(cost.half(), a.half(), (b * 1.05).half())


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ((np.zeros((2, 2)), torch.ones(2), torch.ones(2)), TypeError, "cost must be a torch.Tensor, got ndarray"),
        (
            (torch.zeros(2, 2), torch.ones(2, dtype=torch.int64), torch.ones(2)),
            TypeError,
            "a must be of a floating-point dtype",
        ),
        ((torch.zeros(2, 2), torch.ones(3), torch.ones(2)), ValueError, r"a must be \(..., 2\)"),
        ((torch.zeros(2, 2), torch.ones(2), torch.ones(1)), ValueError, r"b \(..., 2\)"),
        ((torch.zeros(0, 2), torch.ones(0), torch.ones(2)), ValueError, "at least one row and one column"),
        ((torch.zeros(2), torch.ones(2), torch.ones(2)), ValueError, r"cost must be \(..., n, m\)"),
        (
            (torch.zeros(3, 2, 2), torch.ones(4, 2), torch.ones(2)),
            ValueError,
            r"do not broadcast: cost \(3,\), a \(4,\)",
        ),
        ((torch.zeros(2, 2), torch.ones(2, device="meta"), torch.ones(2)), ValueError, "on one device"),
        (
            (torch.zeros(2, 2).to_sparse(), torch.ones(2), torch.ones(2)),
            TypeError,
            "cost must be dense, got .*sparse_coo",
        ),
        (
            (torch.nested.nested_tensor([torch.eye(2)] * 2, layout=torch.jagged), torch.ones(2, 2), torch.ones(2)),
            TypeError,
            "cost must not be nested; pad it",
        ),
        (
            (torch.zeros(1).expand(2**29, 2, 2), torch.ones(2), torch.ones(2)),
            ValueError,
            r"cost, broadcast to \(536870912, 2, 2\), has 2,147,483,648 elements.*in parts",
        ),
    ],
)
def test_bad_arguments(arguments, error, says):
    with pytest.raises(error, match=says):
        emd(*arguments)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_tensors_are_solved_and_come_back():
    inputs = _batch(25, 25)
    here, there = emd(*inputs), emd(*(t.cuda() for t in inputs))
    assert there.value.is_cuda
    torch.testing.assert_close(there.value.cpu(), here.value)
    torch.testing.assert_close(there.plan.cpu(), here.plan)


def test_certificate():
    cost, a, b = _batch(20, 30, dtype=torch.float64)
    solution = emd(cost, a, b)
    assert all(part.shape == (2, 3) and float(part.max()) < 1e-13 for part in solution.certificate())
    solution.u += 0.01  # no longer feasible, and worth more than the plan costs
    spoilt = solution.certificate()
    torch.testing.assert_close(spoilt.gap, 0.01 / cost.abs().amax((-1, -2)))
    assert float(spoilt.dual_infeasibility.min()) > 1e-3
    solution.plan[0, 0, 0, 0] += 0.5 * a[0, 0].sum()
    assert float(solution.certificate().marginal_error[0, 0]) == pytest.approx(0.5)
    assert max(float(part.max()) for part in emd(*(t.float() for t in (cost, a, b))).certificate()) < 1e-6
    huge = emd(torch.full((3, 3), 1e300, dtype=torch.float64), *(torch.full((3,), 1e30, dtype=torch.float64),) * 2)
    assert all(float(part) < 1e-13 for part in huge.certificate())


def test_memory_of_forward_and_backward():
    """In addition to inputs and gradients, a step saves the duals and the arcs, and no copy of the costs."""
    cost, a, b = (t.requires_grad_() for t in _batch(25, 25, batch=(375,)))
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: saved.append(t.numel() * t.element_size()) or t, lambda t: t
    ):
        value = emd(cost, a, b).value
    assert sum(saved) < 1e6
    value.sum().backward()
    assert cost.grad is not None

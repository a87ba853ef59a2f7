"""``emd`` under PyTorch's transforms: compile, vmap, grad, autocast, meta and fake tensors; and what it refuses."""

import numpy as np
import pytest
import torch
from problems import draw_batch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import grad, jacrev, vmap

from deepemd.transport import emd


@pytest.fixture
def problem():
    drawn = draw_batch(np.random.default_rng(0), "random", 15, 6, 7)
    cost, a, b = (torch.from_numpy(t) for t in drawn)
    return cost.view(5, 3, 6, 7), a.view(5, 3, 6), b.view(5, 3, 7)


def value(cost, a, b):
    return emd(cost, a, b).value


def total(cost, a, b):
    return value(cost, a, b).sum()


def gradients(function, problem):
    inputs = [t.clone().requires_grad_() for t in problem]
    return torch.autograd.grad(function(*inputs), inputs)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])  # inductor compiles the rest of a model by a C++ compiler
def test_compile_whole(problem, backend):
    torch._dynamo.reset()
    compiled = torch.compile(total, backend=backend, fullgraph=True)
    for got, want in zip(gradients(compiled, problem), gradients(total, problem), strict=True):
        torch.testing.assert_close(got, want)
    torch._dynamo.reset()
    compiled = torch.compile(lambda *p: emd(*p).plan, backend=backend, fullgraph=True)
    torch.testing.assert_close(compiled(*problem), emd(*problem).plan)


def test_vmap(problem):
    want = emd(*problem)
    assert torch.equal(vmap(value)(*problem), want.value)
    assert torch.equal(vmap(vmap(value))(*problem), want.value)
    assert torch.equal(vmap(lambda *p: emd(*p).plan, in_dims=1, out_dims=1)(*problem), want.plan)
    cost, a, b = problem
    shared = vmap(value, in_dims=(0, None, None))(cost, a[0], b[0])
    assert torch.equal(shared, emd(cost, a[0], b[0]).value)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # raised inside torch.func.jvp
@pytest.mark.parametrize("lead", [(0,), (0, 5), (5, 0), (2, 0, 3)])
def test_empty_batches(lead):
    """Every transform of a batch of nothing is nothing, of the right shape, as by PyTorch's own operations."""
    cost, a, b = torch.ones(*lead, 3, 4), torch.ones(*lead, 3), torch.full((*lead, 4), 0.75)
    assert vmap(value)(cost, a, b).shape == lead
    assert vmap(value, in_dims=(0, None, None))(cost, torch.ones(3), torch.full((4,), 0.75)).shape == lead
    assert vmap(lambda *p: emd(*p).plan)(cost, a, b).shape == cost.shape
    assert vmap(lambda *p: tuple(emd(*p).certificate()))(cost, a, b)[2].shape == lead
    for got in (grad(total, argnums=(0, 1, 2))(cost, a, b), vmap(grad(total, argnums=(0, 1, 2)))(cost, a, b)):
        assert [g.shape for g in got] == [cost.shape, a.shape, b.shape]
    out, pull = torch.func.vjp(value, cost, a, b)
    assert [g.shape for g in pull(out)] == [cost.shape, a.shape, b.shape]
    assert jacrev(lambda c: value(c, a, b))(cost).shape == (*lead, *cost.shape)
    with pytest.raises(RuntimeError, match="no forward-mode derivative"):
        torch.func.jvp(value, (cost, a, b), (cost, a, b))


@pytest.mark.parametrize("lead", [(0,), (0, 5), (5, 0)])
def test_empty_nested_vmap(lead):
    cost, a, b = torch.ones(*lead, 2, 3, 4), torch.ones(*lead, 2, 3), torch.full((*lead, 2, 4), 0.75)
    for function, shape in ((value, (*lead, 2)), (grad(total), cost.shape)):
        nested = function
        for _ in lead:
            nested = vmap(nested)
        assert nested(cost, a, b).shape == shape


def test_vmap_names_the_problem_that_is_wrong(problem):
    cost, a, b = problem
    a[3, 1, 2] = -1
    with pytest.raises(ValueError, match=r"a holds a negative weight at batch index \(3, 1\)"):
        vmap(vmap(value))(cost, a, b)


def test_functional_gradients(problem):
    want = gradients(total, problem)
    for got in (grad(total, argnums=(0, 1, 2))(*problem), vmap(vmap(grad(value, argnums=(0, 1, 2))))(*problem)):
        for g, w in zip(got, want, strict=True):
            torch.testing.assert_close(g, w, rtol=1e-12, atol=1e-14)
    jacobian = jacrev(lambda cost: value(cost, *problem[1:]).flatten())(problem[0])
    torch.testing.assert_close(jacobian.sum(0), want[0])


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # raised inside torch.func.jvp
def test_second_and_forward_derivatives_are_refused(problem):
    cost, a, b = problem
    with pytest.raises(RuntimeError, match="no second derivative"):
        grad(lambda c: grad(lambda c: total(c, a, b))(c).sum())(cost)
    with pytest.raises(RuntimeError, match="no forward-mode derivative"):
        torch.func.jvp(lambda c: value(c, a, b), (cost,), (cost,))


def test_autocast_changes_nothing(problem):
    problem = [t.float() for t in problem]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = emd(*problem)
    assert torch.equal(inside.value, emd(*problem).value)
    assert inside.value.dtype == torch.float32


def test_meta_and_fake_tensors_have_the_shapes_of_the_answer(problem):
    want, mode = emd(*problem), FakeTensorMode()
    for to in (lambda t: t.to("meta"), mode.from_tensor):
        found = emd(*(to(t) for t in problem))
        for name in ("value", "u", "v", "plan"):
            assert getattr(found, name).shape == getattr(want, name).shape
            assert getattr(found, name).dtype == torch.float64


def test_opcheck(problem):
    cost, a, b = (t.flatten(0, 1) for t in problem)
    torch.library.opcheck(torch.ops.deepemd.transport.default, (cost, a, b, None, 1e-4, [len(cost)]))

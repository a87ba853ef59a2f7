"""Warm starts give the answers of cold ones, whatever changes between two batches.

Tests deepemd.transport._resume.
"""

import numpy as np
import pytest
import torch
from problems import FAMILIES, FLOAT32_ROUNDING, defects, draw_batch

from deepemd.matching import emd_logits
from deepemd.transport import WarmStart, emd

pytestmark = pytest.mark.usefixtures("compiled_solver")

SHAPES = ((1, 1), (1, 7), (6, 1), (9, 14), (25, 25), (33, 30), (70, 65), (130, 140))
BATCH = 4


def _balance(cost, a, b):
    return cost, a, b * (a.sum(-1, keepdims=True) / b.sum(-1, keepdims=True))


def _nudge(rng, problem, step):
    """Change costs and weights by a relative `step`."""
    cost, a, b = problem
    spread = cost.std((1, 2), keepdims=True)
    cost = cost + step * spread * rng.standard_normal(cost.shape)
    a, b = (t * np.maximum(1 + step * rng.standard_normal(t.shape), 0.1) for t in (a, b))
    return _balance(cost, a, b)


def _without(rng, problem):
    """Set some weights to zero, sometimes all but one."""
    cost, *weights = problem
    weights = [t * (rng.random(t.shape) < rng.choice([0.05, 0.8])) for t in weights]
    for t, old in zip(weights, problem[1:], strict=True):
        best = old.argmax(1)
        t[np.arange(len(t)), best] = old[np.arange(len(t)), best]
    return _balance(cost, *weights)


def _sequence(family, n, m):
    """Yield batches of one shape, each with another kind of change from the one before."""
    rng = np.random.default_rng([FAMILIES.index(family), n, m])
    start = draw_batch(rng, family, BATCH, n, m)
    unlike = draw_batch(rng, family, BATCH, n, m)
    yield start
    yield start
    yield start[0] * 2.0, start[1], start[2]
    yield start[0], start[1] * 4.0, start[2] * 4.0
    yield _balance(start[0], unlike[1], unlike[2])
    yield _balance(unlike[0], unlike[1], unlike[2])
    near = _nudge(rng, unlike, 1e-3)
    yield near
    yield rng.permuted(near[0], axis=2), *near[1:]
    yield rng.permuted(near[0], axis=1), *near[1:]
    holes = _without(rng, near)
    yield holes
    yield _nudge(rng, holes, 1e-2)
    yield near
    for step in (1e-6, 1e-2, 0.1, 1.0):
        near = _nudge(rng, near, step)
        yield near
        yield start if step == 0.1 else _without(rng, near)


def _answer(solution):
    return [t.double().numpy() for t in (solution.plan, solution.u, solution.v, solution.value)]


def _judge(problem, solution, cold, bound, **rounding):
    """Check the certificate, and that the value is that of a cold start."""
    cost, a, b = problem
    found = defects(cost, a, b, *_answer(solution), **rounding)
    wrong = {name: d.max() for name, d in found.items() if not (d <= 1e-9).all()}
    assert not wrong
    unit = np.maximum(np.abs(cost).max((1, 2)), np.finfo(float).tiny)
    value, expected = (s.value.double().numpy() for s in (solution, cold))
    with np.errstate(invalid="ignore"):  # beyond the largest number of its type a value comes back as infinite
        off = np.where(value == expected, 0.0, np.abs(value / unit - expected / unit))
    assert (off <= bound * a.sum(1)).all(), off.max()


@pytest.mark.parametrize(("n", "m"), SHAPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_any_sequence_is_certified_and_equal_to_cold(family, n, m):
    solver = WarmStart()
    for k, problem in enumerate(_sequence(family, n, m)):
        tensors = [torch.from_numpy(np.ascontiguousarray(t)) for t in problem]
        solution = solver(*tensors)
        _judge(problem, solution, emd(*tensors), 1e-12)
        assert solver.warm + solver.cold == BATCH
        if k == 0:
            assert solver.warm == 0
        if k in (1, 2, 3):  # the same problems, or the same but for their units
            assert solver.warm == BATCH


@pytest.mark.parametrize(("n", "m"), [(1, 1), (9, 14), (25, 25), (70, 65)])
@pytest.mark.parametrize("family", FAMILIES)
def test_any_sequence_in_float32(family, n, m):
    solver = WarmStart()
    for cost, *weights in _sequence(family, n, m):
        problem = (cost / 16 if family == "limits of float32" else cost, *weights)  # room to move
        problem = [t.astype(np.float32) for t in problem]
        tensors = [torch.from_numpy(np.ascontiguousarray(t)) for t in problem]
        exact = _balance(*(t.astype(float) for t in problem))
        _judge(exact, solver(*tensors), emd(*tensors), 4 * FLOAT32_ROUNDING, rounding=FLOAT32_ROUNDING)


@pytest.mark.parametrize(("n", "m"), [(9, 14), (25, 25), (49, 40), (100, 100)])
def test_small_steps_stay_warm_where_the_optimum_is_unique_all_agrees(n, m):
    rng = np.random.default_rng(n)
    problem = draw_batch(rng, "embeddings", 20, n, m)
    solver = WarmStart()
    solver(*(torch.from_numpy(t) for t in problem))
    for _ in range(5):
        problem = _nudge(rng, problem, 1e-3)
        tensors = [torch.from_numpy(t) for t in problem]
        solution, cold = solver(*tensors), emd(*tensors)
        assert solver.warm == 20
        for got, expected in ((solution.plan, cold.plan), (solution.u, cold.u), (solution.v, cold.v)):
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-12 * float(tensors[1].sum(-1).max()))


def test_some_problems_of_a_batch_restart():
    rng = np.random.default_rng(0)
    cost, a, b = draw_batch(rng, "random", 12, 25, 25)
    solver = WarmStart()
    solver(*(torch.from_numpy(t) for t in (cost, a, b)))
    other = draw_batch(rng, "random", 4, 25, 25)
    for t, u in zip((cost, a, b), other, strict=True):
        t[[1, 5, 6, 11]] = u
    tensors = [torch.from_numpy(t) for t in (cost, a, b)]
    _judge((cost, a, b), solver(*tensors), emd(*tensors), 1e-12)
    assert (solver.warm, solver.cold) == (8, 4)


def test_gradients_are_those_of_emd():
    rng = np.random.default_rng(1)
    problem = draw_batch(rng, "random", 5, 13, 25)
    solver = WarmStart()
    for _ in range(3):
        problem = _nudge(rng, problem, 1e-3)
        grads = []
        for solve in (solver, emd):
            inputs = [torch.from_numpy(t).requires_grad_() for t in problem]
            solution = solve(*inputs)
            assert not any(t.requires_grad for t in (solution.plan, solution.u, solution.v))
            grads.append(torch.autograd.grad((solution.value * torch.arange(1, 6)).sum(), inputs))
        for got, expected in zip(*grads, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    assert solver.warm == 5


def test_gradcheck_and_opcheck():
    problem = [torch.from_numpy(t) for t in draw_batch(np.random.default_rng(2), "random", 2, 4, 5)]
    solver = WarmStart()
    solver(*problem)
    inputs = [t.requires_grad_() for t in problem]
    assert torch.autograd.gradcheck(lambda c, a, b: solver(c, a, b).value, inputs)
    assert solver.warm == 2
    problem = [t.detach() for t in problem]
    arguments = (*problem, solver._arcs, 1e-4, [2])
    torch.library.opcheck(torch.ops.deepemd.transport.default, arguments)
    (grad,) = torch.autograd.grad(solver(*inputs).value.sum(), inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(grad.sum(), inputs[0])


def test_without_gradients():
    tensors = [torch.from_numpy(t).requires_grad_() for t in draw_batch(np.random.default_rng(3), "random", 3, 8, 8)]
    solver = WarmStart()
    with torch.no_grad():
        solver(*tensors)
        assert not solver(*tensors).value.requires_grad
    assert solver(*tensors).value.requires_grad
    assert solver.warm == 3


def test_another_shape_starts_afresh_and_another_dtype_or_grouping_need_not():
    rng = np.random.default_rng(4)
    six, five = (tuple(torch.from_numpy(t) for t in draw_batch(rng, "random", batch, 8, 9)) for batch in (6, 5))
    solver = WarmStart()
    for problem, warm in ((six, 0), (six, 6), (five, 0), (six, 0)):
        torch.testing.assert_close(solver(*problem).value, emd(*problem).value, rtol=1e-12, atol=0)
        assert (solver.warm, solver.cold) == (warm, len(problem[0]) - warm)
    single = solver(*(t.float() for t in six))
    assert single.value.dtype == torch.float32
    assert solver.warm == 6
    assert solver(*(t.view(2, 3, *t.shape[1:]) for t in six)).value.shape == (2, 3)
    assert solver.warm == 6
    solver(six[0].mT, six[2], six[1])
    assert solver.warm == 0


def test_an_empty_batch_and_a_single_problem():
    solver = WarmStart()
    for _ in range(2):
        assert solver(torch.zeros(0, 3, 4), torch.ones(3), torch.full((4,), 0.75)).value.shape == (0,)
        assert (solver.warm, solver.cold) == (0, 0)
    cost = torch.tensor([[6.0, 4.0, 6.0], [6.0, 5.0, 5.0]])
    for _ in range(2):
        assert float(solver(cost, torch.tensor([200.0, 300.0]), torch.tensor([150.0, 150.0, 200.0])).value) == 2500
    assert solver.warm == 1


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, float("nan")), (0, float("inf")), (1, -1.0), (1, float("nan")), (2, -1.0), (2, float("inf")), (2, 1e3)],
)
def test_bad_input_raises_the_errors_of_emd_and_spoils_nothing(place, value):
    good = [torch.from_numpy(t) for t in draw_batch(np.random.default_rng(5), "random", 6, 8, 9)]
    solver = WarmStart()
    solver(*good)
    bad = [t.clone() for t in good]
    bad[place][3].view(-1)[2] = value
    with pytest.raises(ValueError, match="batch index") as expected:
        emd(*bad)
    for start in (solver, WarmStart()):
        with pytest.raises(ValueError, match="batch index") as got:
            start(*bad)
        assert str(got.value) == str(expected.value)
    with pytest.raises(TypeError, match=r"cost must be a torch\.Tensor"):
        solver([[1.0]], *good[1:])
    with pytest.raises(ValueError, match="so a must be"):
        solver(good[0], good[2], good[1])
    solver(*good)
    assert solver.warm == 6


def test_any_number_of_threads_gives_identical_results():
    rng = np.random.default_rng(6)
    first = draw_batch(rng, "embeddings", 200, 25, 25)
    batches = [first, *(_nudge(rng, first, step) for step in (1e-3, 0.05, 0.3))]
    before, runs = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            solver, run = WarmStart(), []
            for problem in batches:
                solution = solver(*(torch.from_numpy(t) for t in problem))
                run += [solution.value, solution.u, solution.v, solution.plan, torch.tensor(solver.warm)]
            runs.append(run)
    finally:
        torch.set_num_threads(before)
    for run in runs[1:]:
        assert all(torch.equal(x, y) for x, y in zip(run, runs[0], strict=True))


def test_as_the_solver_of_the_head():
    generator = torch.Generator().manual_seed(0)
    query, support = (torch.randn(k, 25, 32, generator=generator).relu() for k in (8, 5))
    solver = WarmStart()
    for _ in range(4):
        logits = emd_logits(query, support, transport=solver)
        torch.testing.assert_close(logits, emd_logits(query, support))
        support = support + 1e-3 * torch.randn(support.shape, generator=generator)
    assert solver.warm == 40


def test_degenerate_problems_stay_warm_through_small_steps_of_their_costs():
    """Equal weights: most flows are zero, and rounding must not make them negative."""
    rng = np.random.default_rng(7)
    cost, a, b = draw_batch(rng, "equal weights", 20, 25, 25)
    solver = WarmStart()
    solver(*(torch.from_numpy(t) for t in (cost, a, b)))
    for _ in range(10):
        cost = cost + 1e-3 * rng.standard_normal(cost.shape)
        problem = (cost, a, b)
        tensors = [torch.from_numpy(t) for t in problem]
        _judge(problem, solver(*tensors), emd(*tensors), 1e-12)
        assert solver.warm == 20


def test_slots_follow_problems_that_come_in_any_order():
    rng = np.random.default_rng(3)
    problem = draw_batch(rng, "embeddings", 12, 16, 16)
    solver = WarmStart()
    for some, warm in (([0, 1, 2, 3], 0), ([7, 2, 0], 2), ([11, 10, 9, 8, 7], 1), ([4, 1, 11, 3], 3), ([], 0)):
        problem = _nudge(rng, problem, 1e-4)
        tensors = [torch.from_numpy(t[some]) for t in problem]
        solution = solver(*tensors, slots=torch.tensor(some, dtype=torch.long))
        assert (solver.warm, solver.cold) == (warm, len(some) - warm)
        assert torch.allclose(solution.value, emd(*tensors).value, rtol=0, atol=1e-12)
    solver(*(torch.from_numpy(t) for t in problem))
    assert (solver.warm, solver.cold) == (10, 2)  # slots are places in a whole batch; 5 and 6 were never solved
    with pytest.raises(ValueError, match="slots must name a slot for each of the 12 problems"):
        solver(*(torch.from_numpy(t) for t in problem), slots=torch.arange(3))


@pytest.mark.parametrize(
    ("slots", "error", "message"),
    [
        (torch.tensor([True, False, True, True]), TypeError, "int64, got torch.bool"),  # would select three problems
        (torch.tensor([0, 1, 2, 3], dtype=torch.uint8), TypeError, "int64, got torch.uint8"),
        (torch.arange(4.0), TypeError, "int64, got torch.float32"),
        ([0, 1, 2, 3], TypeError, "int64, got list"),
        (torch.tensor([0, 1, 2, -1]), ValueError, "at least 0, got -1"),
        (torch.arange(4)[:, None], ValueError, "for each of the 4 problems"),
        (torch.tensor([0, 1, 2, 10**12]), MemoryError, "slot 1000000000000 needs .* number the problems from 0"),
        (torch.tensor([0, 1, 2, 2**63 - 1]), MemoryError, "slot 9223372036854775807 needs"),
    ],
)
def test_slots_that_can_be_none_are_refused_and_spoil_nothing(slots, error, message):
    tensors = [torch.from_numpy(t) for t in draw_batch(np.random.default_rng(3), "embeddings", 4, 16, 16)]
    solver = WarmStart()
    for _ in range(2):
        with pytest.raises(error, match=message):
            solver(*tensors, slots=slots)
        solver(*tensors)
    assert solver.warm == 4


def test_bases_of_inference_mode_serve_training_and_transforms_are_refused():
    tensors = [torch.from_numpy(t) for t in draw_batch(np.random.default_rng(3), "embeddings", 4, 16, 16)]
    solver = WarmStart()
    with torch.inference_mode():
        solver(*tensors)
    tensors[0].requires_grad_()
    solver(*tensors, slots=torch.arange(4)).value.sum().backward()
    assert solver.warm == 4
    for transform in (torch.func.vmap, torch.func.grad):
        with pytest.raises(RuntimeError, match=r"transforms of torch.func .* do not allow; pass the whole batch"):
            transform(lambda *given: solver(*given).value.sum())(*tensors)

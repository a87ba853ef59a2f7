"""Every answer is proved optimal by its own duals, and agrees with two independent solvers.

Tests deepemd.transport._solve, deepemd.transport._simplex, deepemd.transport._start.
"""

import numpy as np
import ot
import pytest
import scipy.optimize
import scipy.sparse
import torch
from problems import FAMILIES, FLOAT32_ROUNDING, defects, draw, draw_batch, sizes

from deepemd.transport import emd

pytestmark = pytest.mark.usefixtures("compiled_solver")

SCALES = (1.0, 2.0**-20, 2.0**13, 2.0**66)  # powers of two keep ties


def _solve(cost, a, b):
    solution = emd(torch.from_numpy(cost), torch.from_numpy(a), torch.from_numpy(b))
    return float(solution.value), solution.plan.numpy(), solution.u.numpy(), solution.v.numpy()


def _highs(problems):
    """Return the optimal values of several problems, solved as one block-diagonal linear programme."""
    blocks, right, costs = [], [], []
    for cost, a, b in problems:
        n, m = cost.shape
        rows = scipy.sparse.kron(scipy.sparse.eye(n), np.ones((1, m)))
        columns = scipy.sparse.kron(np.ones((1, n)), scipy.sparse.eye(m))
        blocks.append(
            scipy.sparse.vstack([rows, columns], format="csr")[:-1]
        )  # the last constraint follows from the others
        right += [a / a.sum(), b[:-1] / b.sum()]
        costs.append(cost.ravel())
    answer = scipy.optimize.linprog(
        np.concatenate(costs),
        options={"presolve": False},  # it calls weights of 1e-12 infeasible
        A_eq=scipy.sparse.block_diag(blocks, format="csc"),
        b_eq=np.concatenate(right),
        method="highs-ds",
    )
    assert answer.status == 0, answer.message
    pieces = np.split(answer.x, np.cumsum([c.size for c in costs])[:-1])
    return [float(c @ x) for c, x in zip(costs, pieces, strict=True)]


def _batches(family):
    """Draw 1,000 problems of a family, in 100 batches of one shape and scale each."""
    rng = np.random.default_rng(FAMILIES.index(family))
    for k in range(100):
        n, m = sizes(rng, 130 if k % 5 == 0 else 24)
        yield SCALES[k % 4], draw_batch(rng, family, 10, n, m, SCALES[k % 4])


def _wrong(cost, a, b, answer, **rounding):
    """Return the defects of a batch of answers that exceed 1e-9 or are NaN."""
    found = defects(cost, a, b, *answer, **rounding)
    return {name: d.max() for name, d in found.items() if not (d <= 1e-9).all()}


@pytest.mark.parametrize("family", FAMILIES)
def test_twenty_thousand_problems_are_certified_and_some_agree_with_highs_and_pot(family):
    """All are checked by their own duals, one in five also by POT and one in ten by HiGHS."""
    singles, values = [], []
    for scale, (cost, a, b) in _batches(family):
        solution = emd(*(torch.from_numpy(t) for t in (cost, a, b)))
        answer = [t.numpy() for t in (solution.plan, solution.u, solution.v, solution.value)]
        assert not _wrong(cost, a, b, answer), (cost.shape, scale)
        for k in (0, 5):
            unit, total = max(np.abs(cost[k]).max(), np.finfo(float).tiny), a[k].sum()
            c, p, q, value = cost[k] / unit, a[k] / total, b[k] / b[k].sum(), answer[3][k] / unit / total
            assert ot.emd2(p, q, c, numItermax=10**6) == pytest.approx(value, abs=1e-9)
        singles.append((c, p, q))
        values.append(value)
    for first in range(0, 100, 20):
        np.testing.assert_allclose(values[first : first + 20], _highs(singles[first : first + 20]), atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_answers_are_optimal_but_for_the_rounding_of_the_output(family):
    for scale, problem in _batches(family):
        if family == "limits of float32":
            problem = (problem[0] / scale, *problem[1:])
        cost, a, b = (t.astype(np.float32) for t in problem)
        solution = emd(*(torch.from_numpy(t) for t in (cost, a, b)))
        answer = [t.double().numpy() for t in (solution.plan, solution.u, solution.v, solution.value)]
        cost, a, b = (t.astype(float) for t in (cost, a, b))
        b *= a.sum(1, keepdims=True) / b.sum(1, keepdims=True)
        assert not _wrong(cost, a, b, answer, rounding=FLOAT32_ROUNDING), (cost.shape, scale)


def test_the_certificate_refuses_what_is_not_optimal():
    cost, a, b = draw_batch(np.random.default_rng(1), "random", 3, 6, 7)
    solution = emd(*(torch.from_numpy(t) for t in (cost, a, b)))
    good = [t.numpy() for t in (solution.plan, solution.u, solution.v, solution.value)]
    assert not _wrong(cost, a, b, good)
    product = a[:, :, None] * b[:, None] / a.sum(1)[:, None, None]  # feasible, not optimal
    sideways, down = good[0].copy(), good[0].copy()
    sideways[:, 0, :2] += [1e-4, -1e-4]  # the row's sum remains
    down[:, :2, 0] += [1e-4, -1e-4]
    for spoiled, name in (
        ((product, *good[1:]), "duality gap"),
        ((sideways, *good[1:]), "column marginal"),
        ((down, *good[1:]), "row marginal"),
        ((-good[0], *good[1:]), "negative flow"),
        ((good[0], good[1] + 1e-4, *good[2:]), "dual infeasibility"),
        ((good[0], good[1] - 1e-4, *good[2:]), "duality gap"),
        ((good[0], good[1] * np.nan, *good[2:]), "dual infeasibility"),
        ((*good[:3], good[3] + 1e-4), "value"),
        ((*good[:3], good[3] * np.inf), "value"),
    ):
        assert name in _wrong(cost, a, b, spoiled), name
        assert name in _wrong(cost, a, b, spoiled, rounding=FLOAT32_ROUNDING), name


def test_a_large_offset_does_not_hide_small_differences():
    """The error is small relative to the differences of the costs, not only to the costs."""
    cost, a, b = (torch.from_numpy(t) for t in draw_batch(np.random.default_rng(11), "random", 50, 20, 25))
    best = emd(cost, a, b).value
    for offset in (-1e3, 1e3, 1e6):  # the offset takes digits from the costs: 1e-16 of it is what remains
        shipped = (emd(cost + offset, a, b).plan * cost).sum((-1, -2))
        assert ((shipped - best) / a.sum(-1)).max() < 1e-12 * abs(offset)


@pytest.mark.parametrize(
    ("n", "m"),
    [
        (1, 1),
        (1, 200),
        (200, 1),
        (31, 33),
        (32, 32),
        (33, 32),
        (64, 64),
        (64, 65),
        (128, 128),
        (129, 127),
        (25, 125),
        (196, 196),
        (400, 300),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sizes_around_the_words_of_the_bitmask(n, m, dtype):
    rng = np.random.default_rng(n * m)
    for family in ("random", "equal weights", "embeddings"):
        cost, a, b = (t.astype(str(dtype)[6:]) for t in draw(rng, family, n, m))
        solution = emd(torch.from_numpy(cost), torch.from_numpy(a), torch.from_numpy(b))
        b = b.astype(float) * (a.sum(dtype=float) / b.sum(dtype=float))
        found = defects(
            cost.astype(float),
            a.astype(float),
            b,
            *(t.double().numpy() for t in (solution.plan, solution.u, solution.v)),
        )
        assert max(found.values()) < (1e-9 if dtype == torch.float64 else 1e-5), found
        assert float(solution.value) == pytest.approx(
            ot.emd2(a.astype(float) / a.sum(dtype=float), b / b.sum(), cost.astype(float), numItermax=10**7)
            * a.sum(dtype=float),
            rel=1e-6,
        )


def test_one_thousand_by_one_thousand():
    cost, a, b = draw(np.random.default_rng(0), "random", 1000, 1000)
    assert max(defects(cost, a, b, *_solve(cost, a, b)[1:]).values()) < 1e-9


def test_planted_permutation():
    """Moving every point nowhere costs nothing: the optimal plan is the permutation that was planted."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(40, 3, generator=generator, dtype=torch.float64)
    order = torch.randperm(40, generator=generator)
    weights = torch.full((40,), 1 / 40, dtype=torch.float64)
    solution = emd(torch.cdist(points, points[order], compute_mode="donot_use_mm_for_euclid_dist"), weights, weights)
    assert float(solution.value) == 0
    assert torch.equal(solution.plan.argmax(0), order)


def test_textbook_problem():
    cost = torch.tensor([[6.0, 4, 6], [6, 5, 5]])
    assert float(emd(cost, torch.tensor([200.0, 300]), torch.tensor([150.0, 150, 200])).value) == 2500


def test_symmetric_and_homogeneous():
    cost, a, b = (torch.from_numpy(t) for t in draw(np.random.default_rng(5), "random", 20, 30))
    value = emd(cost, a, b).value
    torch.testing.assert_close(emd(cost.T, b, a).value, value, rtol=1e-12, atol=0)
    torch.testing.assert_close(emd(cost * 8, a, b).value, value * 8, rtol=1e-12, atol=0)
    torch.testing.assert_close(emd(cost, a * 3, b * 3).value, value * 3, rtol=1e-12, atol=0)
    torch.testing.assert_close(emd(cost + 1, a, b).value, value + a.sum(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("scale", [1e-310, 1e-300, 1e-30, 1e29, 1e30, 1e300])
def test_costs_of_any_finite_size(scale):
    cost, a, b = draw(np.random.default_rng(7), "random", 30, 20)
    expected = _solve(cost, a, b)[0]
    assert _solve(cost * scale, a, b)[0] / scale == pytest.approx(expected, rel=1e-9 if scale > 1e-305 else 1e-3)


@pytest.mark.parametrize("total", [1e-300, 1e-44, 1e-30, 1e30, 1e40, 1e300])
@pytest.mark.parametrize("n", [5, 17, 40])
def test_weights_of_any_finite_total(total, n):
    cost, a, b = draw(np.random.default_rng(9), "random", n, n)
    expected = _solve(cost, a, b)[0]
    assert _solve(cost, a * total, b * total)[0] / total == pytest.approx(expected, rel=1e-9)


def test_float32_costs_near_its_largest_number():
    cost, a, b = (torch.from_numpy(t).float() for t in draw(np.random.default_rng(8), "random", 25, 25))
    a, b = a / a.sum(), b / b.sum()
    big = emd(cost * 1e38, a, b)
    torch.testing.assert_close(big.value / 1e38, emd(cost, a, b).value, rtol=1e-5, atol=0)

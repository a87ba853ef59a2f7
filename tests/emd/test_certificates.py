"""Every answer is proved optimal by its own duals, and agrees with two independent solvers."""

import numpy as np
import ot
import pytest
import scipy.optimize
import scipy.sparse
import torch
from problems import FAMILIES, defects, draw, sizes

from deepemd.emd import emd

SCALES = (1.0, 1e-6, 1e4, 1e30)


def _solve(cost, a, b):
    solution = emd(torch.from_numpy(cost), torch.from_numpy(a), torch.from_numpy(b))
    return float(solution.value), solution.plan.numpy(), solution.u.numpy(), solution.v.numpy()


def _highs(problems):
    """The optimal values of several problems, solved as one block-diagonal linear programme."""
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


@pytest.mark.parametrize("family", FAMILIES)
def test_ten_thousand_problems_are_certified_and_agree_with_highs_and_pot(family):
    rng = np.random.default_rng(FAMILIES.index(family))
    for _ in range(20):  # 10 families x 20 x 50 problems
        problems, values = [], []
        for k in range(50):
            scale = SCALES[k % 4]
            cost, a, b = draw(rng, family, *sizes(rng, 130 if k % 10 == 0 else 16), scale)
            value, *certificate = _solve(cost, a, b)
            wrong = {name: d for name, d in defects(cost, a, b, *certificate).items() if d > 1e-9}
            assert not wrong, (cost.shape, scale, wrong)
            unit = scale * a.sum()
            np.testing.assert_allclose(value, float((cost * certificate[0]).sum()), rtol=1e-9, atol=1e-9 * unit)
            problems.append((cost / scale, a, b))
            values.append(value / unit)
            assert ot.emd2(a / a.sum(), b / b.sum(), cost / scale) == pytest.approx(values[-1], abs=1e-9)
        np.testing.assert_allclose(values, _highs(problems), atol=1e-6)


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

"""The head against the authors' values, a slow twin, and what it promises of memory and gradients.

Tests deepemd.matching.cost.
"""

import numpy as np
import pytest
import scipy.optimize
import torch

from deepemd.matching import (
    centred_cosine_cost,
    cross_reference_weights,
    emd_logits,
    fit_prototypes,
    head,
    protonet_logits,
    transport_problem,
)
from deepemd.matching.cost import NodeSets, measured, products
from deepemd.transport import emd


def _nodes(maps):
    return torch.from_numpy(maps).flatten(2).transpose(1, 2)  # (B, C, h, w) -> (B, h w, C)


@pytest.mark.parametrize("name", ["head_fcn", "head_pyramid", "head_patches", "head_floor"])
def test_golden(golden, name):
    values = np.load(golden / f"{name}.npz")
    query, support = _nodes(values["query"]), _nodes(values["support"])
    a, b = cross_reference_weights(query, support)
    np.testing.assert_allclose(a, values["query_weight"], atol=2e-5, rtol=2e-5)
    np.testing.assert_allclose(b, values["support_weight"], atol=2e-5, rtol=2e-5)
    np.testing.assert_allclose(1 - centred_cosine_cost(query, support), values["similarity"], atol=2e-5)
    # the authors' solver floors a second time there, which moves the logits by up to 1e-3
    np.testing.assert_allclose(
        emd_logits(query, support), values["logits"], atol=1e-3 if name == "head_floor" else 2e-5
    )


def _slow_logit(u, v, temperature=12.5, floor=1e-3):
    """Compute the logit of one pair of node sets from the definition, by SciPy's linear programming."""
    n, m = len(u), len(v)
    cost = np.array([[1 - np.corrcoef(u[i], v[j])[0, 1] for j in range(m)] for i in range(n)])
    a = np.array([max(u[i] @ v.mean(0), 0) + floor for i in range(n)])
    b = np.array([max(v[j] @ u.mean(0), 0) + floor for j in range(m)])
    a, b = a / a.sum(), b / b.sum()
    sums = np.concatenate([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    return temperature * (
        1 - scipy.optimize.linprog(cost.ravel(), A_eq=sums[:-1], b_eq=np.concatenate([a, b])[:-1]).fun
    )


@pytest.mark.parametrize(("n", "m"), [(4, 4), (3, 6), (1, 5)])
def test_is_the_slow_twin(n, m):
    rng = np.random.default_rng(0)
    query, support = rng.standard_normal((2, 3, n, 8)), rng.standard_normal((2, 2, m, 8))
    expected = [[[_slow_logit(u, v) for v in s] for u in q] for q, s in zip(query, support, strict=True)]
    np.testing.assert_allclose(emd_logits(torch.from_numpy(query), torch.from_numpy(support)), expected, atol=1e-9)


def test_pieces_change_nothing(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(3, 7, 5, 16, generator=generator, dtype=torch.float64).requires_grad_()
    support = torch.randn(3, 4, 5, 16, generator=generator, dtype=torch.float64).requires_grad_()
    whole = emd_logits(query, support)
    expected = torch.autograd.grad(whole.square().sum(), (query, support))
    for limit in (1, 250, 1500):  # one query, some queries, two episodes at a time
        monkeypatch.setattr(head, "_CHUNK", limit)
        pieces = emd_logits(query, support)
        torch.testing.assert_close(pieces, whole)
        for got, want in zip(torch.autograd.grad(pieces.square().sum(), (query, support)), expected, strict=True):
            torch.testing.assert_close(got, want)


@pytest.mark.parametrize("weights", ["cross-reference", "uniform"])
def test_gradcheck(weights):
    generator = torch.Generator().manual_seed(1)
    query = torch.rand(2, 3, 4, 6, generator=generator, dtype=torch.float64).requires_grad_()
    support = torch.rand(2, 2, 5, 6, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda q, s: emd_logits(q, s, weights=weights), (query, support))


def test_detached_weights_get_no_gradient():
    generator = torch.Generator().manual_seed(2)
    query, support = (torch.rand(3, 4, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    query.requires_grad_()
    (got,) = torch.autograd.grad(emd_logits(query, support, detach_weights=True).sum(), query)
    cost, a, b = transport_problem(query, support)
    (want,) = torch.autograd.grad(12.5 * (1 - emd(cost, a.detach(), b.detach()).value).sum(), query)
    torch.testing.assert_close(got, want)
    (full,) = torch.autograd.grad(emd_logits(query, support).sum(), query)
    assert not torch.allclose(got, full)


def test_autocast_does_not_round_the_head():
    generator = torch.Generator().manual_seed(3)
    query, support = torch.randn(6, 9, 32, generator=generator), torch.randn(5, 9, 32, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(emd_logits(query, support), emd_logits(query.clone(), support))
        assert emd_logits(query.bfloat16(), support).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        inside = emd_logits(query, support)
    assert torch.equal(inside, emd_logits(query, support))


def test_any_solver_with_the_signature_will_do():
    nodes = torch.rand(2, 3, 4)
    calls = []

    def counted(cost, a, b):
        calls.append(cost.shape)
        return emd(cost, a, b)

    emd_logits(nodes, nodes, transport=counted)
    assert calls == [(1, 2, 2, 3, 3)]


@pytest.mark.parametrize(
    ("query", "support", "says"),
    [
        ((2, 3, 4), (2, 3, 5), "4 channels but support nodes have 5"),
        ((3, 4), (2, 3, 4), r"got \(3, 4\)"),
        ((2, 2, 3, 4), (1, 2, 3, 4), r"leading dimensions \(2,\) and \(1,\)"),
    ],
)
def test_bad_shapes(query, support, says):
    with pytest.raises(ValueError, match=says):
        emd_logits(torch.rand(query), torch.rand(support))


def test_bad_values():
    nodes = torch.rand(2, 3, 4)
    with pytest.raises(ValueError, match="weights must be 'cross-reference' or 'uniform', got 'none'"):
        emd_logits(nodes, nodes, weights="none")
    broken = nodes.clone()
    broken[1, 2, 0] = float("nan")
    with pytest.raises(ValueError, match=r"^query holds NaN.*\(0, 1, 2\)"):
        emd_logits(broken, nodes)
    with pytest.raises(ValueError, match=r"^support holds NaN.*\(0, 1, 2\)"):
        emd_logits(nodes, broken)


@pytest.mark.parametrize("settings", [{}, {"context": 1.0}, {"weights": "uniform"}])
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_what_is_measured_once_gives_the_same_logits(settings, offset):
    """This holds far from the origin too, where the nodes' lengths are those after subtracting their means."""
    generator = torch.Generator().manual_seed(4)
    images = torch.randn(9, 5, 32, generator=generator) + offset
    images[3, 2] = 0.0  # a node without direction
    support = torch.randn(2, 3, 4, 32, generator=generator) + offset
    drawn = torch.tensor([[3, 0, 8, 8], [1, 3, 2, 7]])
    sets = NodeSets(*(t[drawn] for t in measured(images)))
    expected = emd_logits(images[drawn].double(), support.double(), **settings)
    torch.testing.assert_close(emd_logits(sets, support, **settings).double(), expected, rtol=0, atol=2e-5)
    doubled = NodeSets(*(t[drawn] for t in measured(images.double())))
    torch.testing.assert_close(emd_logits(doubled, support.double(), **settings), expected, rtol=0, atol=1e-9)
    half = NodeSets(*(t[drawn] for t in measured(images.half())))
    plain = emd_logits(images.half()[drawn], support, **settings)
    torch.testing.assert_close(emd_logits(half, support, **settings), plain, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("supports", "m"), [(1, 1), (3, 5), (4, 4), (5, 25)])
def test_products_are_those_of_every_pair(supports, m):
    generator = torch.Generator().manual_seed(5)
    query = torch.randn(2, 3, 4, 6, generator=generator, dtype=torch.float64)
    support = torch.randn(2, supports, m, 6, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(products(query, support), torch.einsum("eqnc,esmc->eqnsm", query, support))


def test_no_queries():
    assert emd_logits(torch.rand(0, 3, 4), torch.rand(2, 3, 4)).shape == (0, 2)


def context_twin(query: torch.Tensor, support: torch.Tensor, context: float) -> torch.Tensor:
    """Add the mean of its set to each node, for the cost alone, pair by pair."""
    plain = transport_problem(query, support)
    q, s = (x + context * x.mean(-2, keepdim=True) for x in (query, support))
    return 12.5 * (1 - emd(centred_cosine_cost(q, s), plain.a, plain.b).value)


@pytest.mark.parametrize("context", [0.5, 1.0, 3.0])
def test_context_adds_the_whole_image_to_each_part(context: float) -> None:
    generator = torch.Generator().manual_seed(0)
    query, support = (torch.randn(2, count, 7, 16, generator=generator).double() + 0.3 for count in (6, 3))
    found = emd_logits(query, support, context=context)
    torch.testing.assert_close(found, context_twin(query, support, context), atol=1e-9, rtol=0)
    assert (found - emd_logits(query, support)).abs().max() > 0.1


def test_much_context_is_pooled_cosine() -> None:
    """As the context grows, the parts become equal, and the EMD becomes the centred cosine of their means."""
    query, support = (torch.randn(n, 9, 16, generator=torch.Generator().manual_seed(n)).double() for n in (6, 3))
    pooled = protonet_logits(query, support, centred=True)
    torch.testing.assert_close(emd_logits(query, support, context=1e5), pooled, atol=1e-3, rtol=0)
    assert (emd_logits(query, support) - pooled).abs().max() > 0.5


def test_the_gradient_with_context_is_right() -> None:
    generator = torch.Generator().manual_seed(1)
    query, support = (torch.randn(n, 4, 5, generator=generator, dtype=torch.float64).requires_grad_() for n in (2, 2))
    assert torch.autograd.gradcheck(lambda q, s: emd_logits(q, s, context=1.0), (query, support), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("chunk", [None, 2])
@pytest.mark.parametrize(("lead", "queries", "supports"), [((0,), 3, 5), ((2,), 0, 5), ((2,), 3, 0), ((0, 2), 0, 0)])
def test_empty_batches_have_empty_gradients(lead, queries, supports, chunk):
    query = torch.rand(*lead, queries, 9, 8, requires_grad=True)
    support = torch.rand(*lead, supports, 9, 8, requires_grad=True)
    logits = emd_logits(query, support, query_chunk=chunk)
    assert logits.shape == (*lead, queries, supports)
    for found, given in zip(torch.autograd.grad(logits.sum(), (query, support)), (query, support), strict=True):
        assert torch.equal(found, torch.zeros_like(given))


@pytest.mark.parametrize(("n", "channels"), [(0, 8), (9, 0)])
def test_node_sets_of_nothing_are_refused(n, channels):
    with pytest.raises(ValueError, match="at least one node of at least one channel"):
        emd_logits(torch.rand(3, n, channels), torch.rand(5, n, channels))
    with pytest.raises(ValueError, match="at least one node of at least one channel"):
        fit_prototypes(torch.rand(5, n, channels), torch.arange(5), n_way=5)

"""The fitted classifiers: at the optimum of what they say they minimise, and one episode at a time the same."""

import numpy as np
import pytest
import scipy.optimize
import torch
import torch.nn.functional as F

from deepemd.matching import classifiers, cosine_classifier_logits, linear_logits, protonet_logits

BOTH = pytest.mark.parametrize("logits", [linear_logits, cosine_classifier_logits])


def _episodes(count=3, shots=11, n_way=3, channels=6, spread=1.0, seed=0):
    """Draw different numbers of shots of each class, in any order."""
    rng = np.random.default_rng(seed)
    labels = torch.from_numpy(np.stack([rng.permutation(np.arange(shots) % n_way) for _ in range(count)]))
    centres = torch.from_numpy(rng.standard_normal((count, n_way, 1, channels)))
    noise = [torch.from_numpy(spread * rng.standard_normal((count, k, 4, channels))) for k in (shots, 5)]
    support = centres[torch.arange(count)[:, None], labels] + noise[0]
    return centres.repeat(1, 2, 1, 1)[:, :5] + noise[1], support, labels


def _unit(nodes):
    return F.normalize(nodes.mean(-2), dim=-1)


def _regression(x, y, c, n_way):
    """Minimise scikit-learn's objective by SciPy."""

    def objective(theta):
        theta = torch.tensor(theta, requires_grad=True)
        weight, bias = theta[:-n_way].view(n_way, -1), theta[-n_way:]
        value = weight.square().sum() / 2 + c * F.cross_entropy(x @ weight.T + bias, y, reduction="sum")
        value.backward()
        return value.item(), theta.grad.numpy()

    start = np.zeros(n_way * (x.shape[1] + 1))
    found = scipy.optimize.minimize(objective, start, jac=True, options={"gtol": 1e-9, "maxiter": 10_000})
    return torch.from_numpy(found.x[:-n_way].reshape(n_way, -1)), torch.from_numpy(found.x[-n_way:])


@pytest.mark.parametrize("c", [0.1, 1.0, 30.0])
def test_linear_is_scipys_answer(c):
    query, support, labels = _episodes()
    found = linear_logits(query, support, labels, n_way=3, c=c).softmax(-1)
    for e in range(3):
        weight, bias = _regression(_unit(support[e]), labels[e], c, 3)
        torch.testing.assert_close(found[e], (_unit(query[e]) @ weight.T + bias).softmax(-1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("c", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize(("shots", "channels"), [(3, 20), (11, 6), (40, 3)])
def test_linear_has_no_gradient_left(c, shots, channels):
    query, support, labels = _episodes(shots=shots, channels=channels)
    posed = classifiers._pose(query, support, labels, 3)
    weight, bias = classifiers._logistic_regression(posed, c)
    weight, x = posed.back(weight).requires_grad_(), _unit(support)
    bias.requires_grad_()
    logits = x @ weight.mT + bias[:, None]
    value = weight.square().sum() / 2 + c * F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    for gradient in torch.autograd.grad(value, (weight, bias)):
        assert gradient.abs().max() < 1e-9 * max(c, 1)


def test_linear_has_a_bias_and_scikit_learns_weight_of_the_penalty():
    """If all embeddings are equal, the biases alone are fitted, to the frequencies of the classes."""
    support, labels = torch.ones(7, 2, 4), torch.tensor([0, 0, 0, 0, 1, 1, 2])
    found = linear_logits(support[:1], support, labels, n_way=3).softmax(-1)
    torch.testing.assert_close(found, torch.tensor([[4 / 7, 2 / 7, 1 / 7]]))


def _cosine_loss(weight, x, labels):
    return F.cross_entropy(2 * x @ weight.T, labels)


def test_cosine_is_at_the_optimum_over_unit_vectors():
    query, support, labels = _episodes(spread=0.5)
    found = cosine_classifier_logits(query, support, labels, n_way=3)
    for e in range(3):
        x = _unit(support[e])

        def objective(theta, x=x, e=e):
            theta = torch.tensor(theta, requires_grad=True)
            value = _cosine_loss(F.normalize(theta.view(3, -1), dim=-1), x, labels[e])
            value.backward()
            return value.item(), theta.grad.numpy()

        answers = [
            scipy.optimize.minimize(objective, np.random.default_rng(k).standard_normal(18), jac=True, tol=1e-10)
            for k in range(5)
        ]
        best = F.normalize(torch.from_numpy(min(answers, key=lambda a: a.fun).x.reshape(3, -1)), dim=-1)
        torch.testing.assert_close(found[e], 2 * _unit(query[e]) @ best.T, rtol=0, atol=1e-5)


@pytest.mark.parametrize("spread", [0.1, 1.0, 10.0])
def test_cosine_carries_a_certificate(spread):
    """f(W) - min f <= sum_j (w_j . g_j + |g_j|) for a convex f over the unit balls, here in the full space."""
    query, support, labels = _episodes(shots=30, channels=3, spread=spread)
    posed = classifiers._pose(query, support, labels, 3)
    for e, weight in enumerate(posed.back(classifiers._cosine_weights(posed))):
        weight.requires_grad_()
        (gradient,) = torch.autograd.grad(_cosine_loss(weight, _unit(support[e]), labels[e]), weight)
        assert weight.norm(dim=-1).max() < 1 + 1e-12
        assert (weight * gradient).sum() + gradient.norm(dim=-1).sum() < 1e-11


@BOTH
def test_an_episode_is_alone(logits):
    query, support, labels = _episodes(count=4)
    together = logits(query, support, labels, n_way=3)
    assert together.dtype == torch.float64
    for e in range(4):
        torch.testing.assert_close(together[e], logits(query[e], support[e], labels[e], n_way=3), rtol=0, atol=1e-6)
    nested = logits(
        query.float().unflatten(0, (2, 2)), support.float().unflatten(0, (2, 2)), labels.unflatten(0, (2, 2)), n_way=3
    )
    assert nested.dtype == torch.float32
    torch.testing.assert_close(nested.flatten(0, 1), together.float(), rtol=0, atol=1e-4)


@BOTH
def test_the_order_of_shots_and_the_names_of_classes_do_not_matter(logits):
    query, support, labels = (t[0] for t in _episodes())
    order, names = torch.randperm(len(support), generator=torch.Generator().manual_seed(0)), torch.tensor([2, 0, 1])
    found = logits(query, support[order], names[labels[order]], n_way=3)
    torch.testing.assert_close(found[:, names], logits(query, support, labels, n_way=3), rtol=0, atol=1e-5)


@BOTH
def test_the_length_of_embeddings_and_a_rotation_do_not_matter(logits):
    query, support, labels = (t[0] for t in _episodes())
    turn = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).Q
    found = logits(3 * query @ turn, 0.1 * support @ turn, labels, n_way=3)
    torch.testing.assert_close(found, logits(query, support, labels, n_way=3), rtol=0, atol=1e-5)


@BOTH
def test_one_shot_each_of_orthogonal_classes_is_protonet(logits):
    """By symmetry the weights are the shots minus their mean, so the order of the classes is that of ProtoNet."""
    shots, query = torch.eye(5)[:, None], torch.randn(50, 3, 5, generator=torch.Generator().manual_seed(0))
    found = logits(query, shots, torch.arange(5), n_way=5)
    assert torch.equal(found.argsort(-1), protonet_logits(query, shots).argsort(-1))


@BOTH
def test_gradients_reach_the_query_alone(logits):
    query, support, labels = (t[0] for t in _episodes())
    query, support = query.requires_grad_(), support.requires_grad_()
    assert torch.autograd.gradcheck(lambda q: logits(q, support.detach(), labels, n_way=3), query)
    logits(query, support, labels, n_way=3).sum().backward()
    assert support.grad is None


@BOTH
def test_shots_that_contradict_each_other_leave_no_preference(logits):
    nodes = torch.rand(1, 4, 8).repeat(6, 1, 1)
    found = logits(nodes[:1], nodes, torch.arange(6) % 3, n_way=3)
    torch.testing.assert_close(found.softmax(-1), torch.full((1, 3), 1 / 3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.tensor([0, 1, 2])}, "labels"),
        ({"labels": torch.tensor([0, 0, 1, 1])}, "class 2 has none"),
        ({"labels": torch.tensor([0, 1, 2, 3])}, "found 3"),
        ({"labels": torch.tensor([0.0, 1, 2, 2])}, "whole numbers"),
        ({"query": torch.zeros(4, 2, 6)}, r"episodes and channels of support.*\(4, 2, 6\)"),
        ({"query": torch.zeros(2, 4, 2, 5)}, "episodes and channels"),
        ({"query": torch.full((4, 2, 5), float("nan"))}, "query holds NaN"),
        ({"support": torch.full((4, 2, 5), float("inf"))}, "support holds NaN"),
        ({"n_way": 0}, "n_way is 0: there must be at least 1 class"),
    ],
)
@BOTH
def test_what_does_not_fit_is_named(logits, change, message):
    nodes = torch.randn(4, 2, 5, generator=torch.Generator().manual_seed(0))
    given = {"query": nodes, "support": nodes, "labels": torch.tensor([0, 1, 2, 2]), "n_way": 3} | change
    with pytest.raises(ValueError, match=message):
        logits(**given)


@pytest.mark.parametrize("c", [0.0, -1.0, float("inf"), float("nan")])
def test_c_out_of_range(c):
    with pytest.raises(ValueError, match="c must be above 0"):
        linear_logits(torch.eye(2)[:, None], torch.eye(2)[:, None], torch.arange(2), n_way=2, c=c)

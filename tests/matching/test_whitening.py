"""Whitening: against its definition with loops and an eigenvector root, and at the edges of few and equal shots."""

import numpy as np
import pytest
import torch

from deepemd.matching import class_means, emd_logits, whiten


def _episodes(count=2, shots=7, n_way=3, m=4, channels=10, seed=0):
    """Draw classes of different numbers of shots, in any order, in float64."""
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.permutation(np.r_[np.arange(n_way), rng.integers(0, n_way, shots - n_way)])] * count)
    centres = rng.standard_normal((count, n_way, 1, channels))
    support = centres[np.arange(count)[:, None], labels] + rng.standard_normal((count, shots, m, channels))
    return torch.from_numpy(support), torch.from_numpy(labels)


def _twin(support, labels, n_way, shrinkage):
    """Whiten one episode by the definition: loops, and the symmetric root from eigenvectors."""
    x, y = support.numpy(), labels.numpy()
    shots, m, channels = x.shape
    means = [np.mean([node for k in range(shots) if y[k] == w for node in x[k]], axis=0) for w in range(n_way)]
    scatter = np.zeros((channels, channels))
    for k in range(shots):
        for node in x[k]:
            away = node - means[y[k]]
            scatter += np.outer(away, away) / (shots * m)
    rank = min(shots * m - n_way, channels)
    scaled = scatter / (np.trace(scatter) / rank) + 3 * shrinkage * np.eye(channels)
    values, vectors = np.linalg.eigh(scaled)
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    return lambda nodes: torch.from_numpy((nodes.numpy() - np.mean(means, axis=0)) @ root)


@pytest.mark.parametrize(("shots", "channels"), [(4, 40), (7, 10), (30, 6)])
def test_products_are_those_of_the_definition(shots, channels):
    support, labels = _episodes(shots=shots, channels=channels)
    query = torch.from_numpy(np.random.default_rng(1).standard_normal((2, 5, 3, channels)))
    w = whiten(support, labels, n_way=3, shrinkage=0.5)
    found_query, found_support = w(query), w(support)
    for e in range(2):
        twin = _twin(support[e], labels[e], 3, 0.5)
        expected = torch.einsum("qnc,kmc->qnkm", twin(query[e]), twin(support[e]))
        torch.testing.assert_close(torch.einsum("qnc,kmc->qnkm", found_query[e], found_support[e]), expected)
        lengths = twin(query[e]).norm(dim=-1)
        torch.testing.assert_close(found_query[e].norm(dim=-1), lengths)


def test_float32_is_close_to_float64():
    support, labels = _episodes(shots=20, channels=30)
    exact, rough = whiten(support, labels)(support), whiten(support.float(), labels)(support.float())
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough.double(), exact, rtol=1e-4, atol=1e-4)


def test_episodes_do_not_depend_on_each_other():
    support, labels = _episodes(count=3)
    together = whiten(support, labels, n_way=3)
    for e in range(3):
        torch.testing.assert_close(whiten(support[e], labels[e], n_way=3).root, together.root[e])


def test_the_gradient_is_right():
    support, labels = _episodes(count=1, shots=4, m=2, channels=5)
    query = torch.randn(1, 2, 2, 5, dtype=torch.float64)

    def logits(support, query):
        w = whiten(support, labels, n_way=3)
        return emd_logits(w(query), class_means(w(support), labels, 3))

    assert torch.autograd.gradcheck(logits, (support.requires_grad_(), query.requires_grad_()))


def test_the_mean_gives_all_classes_the_same_weight():
    support, labels = _episodes(count=1, shots=6)
    again = labels[0] == labels[0].mode().values
    more = torch.cat((support, support[:, again]), 1), torch.cat((labels, labels[:, again]), 1)
    torch.testing.assert_close(whiten(*more, n_way=3).mean, whiten(support, labels, n_way=3).mean)


def test_one_node_for_each_class_only_loses_the_mean():
    support = torch.randn(3, 1, 8)
    found = whiten(support, torch.arange(3))(support)
    scaled = ((support - support.mean(0)) / 0.9**0.5).flatten(0, 1)
    torch.testing.assert_close(found.flatten(0, 1) @ found.flatten(0, 1).T, scaled @ scaled.T)


def test_equal_photos_are_no_problem():
    support = torch.ones(4, 3, 8)
    assert whiten(support, torch.tensor([0, 0, 1, 1]))(support).isfinite().all()


def test_what_differs_within_classes_is_shortened():
    torch.manual_seed(0)
    support = torch.randn(40, 5, 6) * torch.tensor([10.0, 1, 1, 1, 1, 1])
    w = whiten(support, torch.arange(40) % 2, shrinkage=0.01)
    long, short = (w.mean + torch.eye(6)[[k]] for k in (0, 1))
    assert w(long[None]).norm() < 0.2 * w(short[None]).norm()


def test_the_heads_centring_changes_nothing():
    support, labels = _episodes()
    torch.testing.assert_close(whiten(support, labels)(support).mean(-1), torch.zeros(2, 7, 4, dtype=torch.float64))


@pytest.mark.parametrize("shrinkage", [0, -1, float("inf"), float("nan")])
def test_the_shrinkage_is_checked(shrinkage):
    with pytest.raises(ValueError, match="shrinkage must be above 0"):
        whiten(torch.ones(2, 1, 3), torch.arange(2), shrinkage=shrinkage)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="NaN"):
        whiten(torch.full((2, 1, 3), torch.nan), torch.arange(2))
    with pytest.raises(ValueError, match="class 1 has none"):
        whiten(torch.ones(2, 1, 3), torch.zeros(2, dtype=torch.int64), n_way=2)
    with pytest.raises(ValueError, match="support must be"):
        whiten(torch.ones(2, 3), torch.arange(2))

"""Ridge regression on nodes: against weighted least squares by loops, and at its edges."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from deepemd.matching import fit_ridge, ridge_logits


def _episodes(count=2, shots=7, n_way=3, m=4, channels=10, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.permutation(np.r_[np.arange(n_way), rng.integers(0, n_way, shots - n_way)])] * count)
    support = torch.from_numpy(rng.standard_normal((count, shots, m, channels)))
    query = torch.from_numpy(rng.standard_normal((count, 5, 3, channels)))
    return query, support, torch.from_numpy(labels)


def _twin(query, support, labels, n_way, penalty, floor=1e-3):
    """Classify one episode by the definition, with loops over classes and nodes."""
    _, m, channels = support.shape
    x, y = support.numpy().reshape(-1, channels), np.repeat(labels, m)
    means = np.array([x[y == w].mean(0) for w in range(n_way)])
    mean = means.mean(0)
    scatter = sum(np.outer(node - mean, node - mean) for node in x)
    inverse = np.linalg.inv(scatter + penalty * np.eye(channels))
    logits = []
    for nodes in query.numpy():
        agreement = [max(float(node @ mean), 0) + floor for node in nodes]
        evidence = [
            [(node - mean) @ inverse @ (means[w] - mean) * len(x) / n_way + 1 / n_way for w in range(n_way)]
            for node in nodes
        ]
        logits.append(np.average(evidence, axis=0, weights=agreement))
    return torch.from_numpy(np.array(logits))


@pytest.mark.parametrize(("shots", "channels"), [(3, 40), (7, 10), (30, 6)])
@pytest.mark.parametrize("penalty", [0.1, 3.0])
def test_it_is_the_definition(shots, channels, penalty):
    query, support, labels = _episodes(shots=shots, channels=channels)
    found = ridge_logits(query, support, labels, n_way=3, penalty=penalty)
    for e in range(2):
        torch.testing.assert_close(found[e], _twin(query[e], support[e], labels[e].numpy(), 3, penalty))


def test_pooled_is_scikit_learns_ridge():
    from sklearn.linear_model import Ridge

    query, support, _ = _episodes(count=1, shots=9)
    labels = torch.arange(9)[None] % 3
    found = ridge_logits(query, support, labels, n_way=3, penalty=0.1, pooled=True)[0]
    unit = [F.normalize(x[0].mean(-2), dim=-1).numpy() for x in (support, query)]
    peer = Ridge(alpha=0.1).fit(unit[0], np.eye(3)[labels[0].numpy()])
    np.testing.assert_allclose(found.numpy(), peer.predict(unit[1]), atol=1e-10)


def test_evidence_and_logits_sum_to_one():
    query, support, labels = _episodes()
    ridge = fit_ridge(support, labels, n_way=3)
    torch.testing.assert_close(ridge.evidence(query).sum(-1), torch.ones(2, 5, 3, dtype=torch.float64))
    torch.testing.assert_close(ridge.logits(query).sum(-1), torch.ones(2, 5, dtype=torch.float64))
    torch.testing.assert_close(ridge.weights(query).sum(-1), torch.ones(2, 5, dtype=torch.float64))


def test_the_gradient_is_right():
    query, support, labels = _episodes(count=1, shots=4, m=2, channels=5)
    query = query.clamp_min(-0.2)

    def logits(query, support):
        return ridge_logits(query, support, labels, n_way=3)

    assert torch.autograd.gradcheck(logits, (query.requires_grad_(), support.requires_grad_()))


def test_it_is_least_squares_where_classes_are_equal():
    _, support, _ = _episodes(count=1, shots=9)
    labels = np.arange(9) % 3
    x, y = support[0].numpy().reshape(-1, 10), np.eye(3)[np.repeat(labels, 4)]
    rows, targets = np.vstack((x - x.mean(0), 2**0.5 * np.eye(10))), np.vstack((y - 1 / 3, np.zeros((10, 3))))
    expected = np.linalg.lstsq(rows, targets, rcond=None)[0]
    found = fit_ridge(support[0], torch.from_numpy(labels), penalty=2.0)
    np.testing.assert_allclose(found.coefficients.numpy(), expected, atol=1e-12)


def test_a_class_of_many_shots_is_not_preferred():
    """Shots of two mirrored classes, and a query in the middle: no class has more evidence."""
    torch.manual_seed(0)
    shots, middle = torch.randn(30, 3, 8, dtype=torch.float64), torch.zeros(1, 1, 8, dtype=torch.float64)
    away = torch.zeros(8, dtype=torch.float64)
    away[0] = 3
    first, second = shots - shots.mean((0, 1)) + away, shots[:2] - shots[:2].mean((0, 1)) - away
    found = ridge_logits(middle, torch.cat((first, second)), torch.tensor([0] * 30 + [1] * 2), n_way=2)
    torch.testing.assert_close(found, torch.full((1, 2), 0.5, dtype=torch.float64))


def test_one_shot_and_equal_photos():
    query = torch.rand(4, 3, 8)
    assert ridge_logits(query, torch.rand(2, 1, 8), torch.arange(2), n_way=2).isfinite().all()
    equal = ridge_logits(query, torch.ones(4, 3, 8), torch.tensor([0, 0, 1, 1]), n_way=2)
    torch.testing.assert_close(equal, torch.full((4, 2), 0.5))


def test_float32_stays_float32():
    query, support, labels = _episodes()
    found = ridge_logits(query.float(), support.float(), labels, n_way=3)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), ridge_logits(query, support, labels, n_way=3), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("penalty", [0, -1, float("inf")])
def test_the_penalty_is_checked(penalty):
    with pytest.raises(ValueError, match="penalty must be above 0"):
        fit_ridge(torch.ones(2, 1, 3), torch.arange(2), penalty=penalty)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="NaN"):
        fit_ridge(torch.full((2, 1, 3), torch.nan), torch.arange(2))
    with pytest.raises(ValueError, match="query must be"):
        ridge_logits(torch.ones(1, 2, 4), torch.ones(2, 1, 3), torch.arange(2), n_way=2)

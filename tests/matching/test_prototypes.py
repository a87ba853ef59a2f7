"""The SFC against the authors' values and a plain twin, and what it promises of episodes and settings.

Tests deepemd.matching._descent.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from deepemd.matching import class_means, cross_reference_weights, emd_logits, fit_prototypes


def _nodes(maps):
    return torch.from_numpy(maps).flatten(2).transpose(1, 2)  # (B, C, h, w) -> (B, h w, C)


@pytest.mark.parametrize("lr", [0.1, 100.0])
def test_golden(golden, lr):
    values = np.load(golden / "sfc.npz")
    support, labels = _nodes(values["support"]), torch.arange(25) % 5
    found = fit_prototypes(support, labels, n_way=5, epochs=10, batch_size=25, lr=lr, detach_weights=True)
    expected, start = _nodes(values[f"prototypes_lr{lr:g}"]), class_means(support, labels, 5)
    assert (found - expected).norm() < 1e-2 * (expected - start).norm()
    np.testing.assert_allclose(
        emd_logits(_nodes(values["query"]), found), values[f"logits_lr{lr:g}"], atol=1e-2 if lr > 1 else 1e-4
    )


def _episodes(count=3, shots=7, m=4, channels=6, n_way=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.permutation(np.arange(shots) % n_way) for _ in range(count)])
    centres = rng.standard_normal((count, n_way, m, channels))
    support = centres[np.arange(count)[:, None], labels] + rng.standard_normal((count, shots, m, channels))
    return torch.from_numpy(support), torch.from_numpy(labels)


def _plain(support, labels, n_way, generator, *, epochs, lr, batch_size, **head):
    """Fit one episode with PyTorch's own optimizer, solving every transport problem from a cold start."""
    prototypes = torch.stack([support[labels == k].mean(0) for k in range(n_way)]).requires_grad_()
    sgd = torch.optim.SGD([prototypes], lr=lr, momentum=0.9, dampening=0.9)
    for _ in range(epochs):
        order = torch.randperm(len(support), generator=generator)
        for k in range(0, len(support), batch_size):
            some = order[k : k + batch_size]
            sgd.zero_grad()
            F.cross_entropy(emd_logits(support[some], prototypes, **head), labels[some]).backward()
            sgd.step()
    return prototypes.detach()


@pytest.mark.parametrize(
    "head", [{}, {"detach_weights": True}, {"weights": "uniform"}, {"temperature": 3.0, "floor": 0.1}]
)
def test_is_the_plain_twin_of_every_episode(head):
    support, labels = _episodes()
    settings = {"epochs": 6, "lr": 0.5, "batch_size": 3}
    found = fit_prototypes(support, labels, n_way=3, generator=torch.Generator().manual_seed(1), **settings, **head)
    assert found.dtype == torch.float64
    assert not found.requires_grad
    for e in range(3):
        expected = _plain(support[e], labels[e], 3, torch.Generator().manual_seed(1), **settings, **head)
        torch.testing.assert_close(found[e], expected, rtol=1e-9, atol=1e-9)
        assert (expected - class_means(support[e], labels[e], 3)).abs().max() > 1e-3


@pytest.mark.parametrize("sign", ["mixed", "positive"])
@pytest.mark.parametrize("head", [{}, {"detach_weights": True}, {"weights": "uniform"}])
def test_a_step_is_the_gradient_of_autograd(head, sign):
    """Compare one step of size 1 on all shots with autograd through the head, in float64 and through every ReLU."""
    support, labels = _episodes(count=2, m=9, channels=20, seed=3)
    support = support + 4 if sign == "positive" else support
    start = class_means(support, labels, 3).requires_grad_()
    a, b = cross_reference_weights(support, start, floor=0.0)
    active = torch.cat((a.flatten(), b.flatten())).gt(0).double().mean()
    assert active == 1 if sign == "positive" else 0.2 < active < 0.8
    loss = F.cross_entropy(emd_logits(support, start, **head).flatten(0, 1), labels.flatten())
    (gradient,) = torch.autograd.grad(2 * loss, start)  # the mean over the shots, summed over two episodes
    found = fit_prototypes(support, labels, n_way=3, epochs=1, batch_size=7, lr=1.0, **head)
    assert ((start - found) - gradient).norm() < 1e-10 * gradient.norm()


def test_episodes_do_not_depend_on_each_other():
    """This holds also for more episodes than one thread fits together."""
    support, labels = _episodes(count=19)
    settings = {"n_way": 3, "epochs": 3, "lr": 0.5}
    together = fit_prototypes(support, labels, generator=torch.Generator().manual_seed(1), **settings)
    for e in range(19):
        alone = fit_prototypes(support[e], labels[e], generator=torch.Generator().manual_seed(1), **settings)
        torch.testing.assert_close(together[e], alone, rtol=1e-10, atol=1e-10)


def test_an_interrupt_ends_the_fit_and_leaves_the_threads_as_they_were():
    support, labels = _episodes(count=19)
    before, seen = torch.get_num_threads(), []

    def interrupted(_, description, total):
        seen.append((description, total))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_prototypes(support, labels, n_way=3, epochs=20_000, track=interrupted)  # minutes, if it did not end
    assert seen[0][1] >= 2
    assert torch.get_num_threads() == before


def test_a_direction_without_length_stays_finite():
    """A node of equal channels has no direction: its cost to all others is 1, without a division by zero."""
    support, labels = _episodes(count=1)
    support[0, :, 0] = 2.0
    found = fit_prototypes(support, labels, n_way=3, epochs=2, weights="uniform")
    assert found.isfinite().all()


def test_leading_dimensions_and_types():
    support, labels = _episodes(count=4)
    generator = [torch.Generator().manual_seed(2) for _ in range(2)]
    flat = fit_prototypes(support.float(), labels, n_way=3, epochs=2, generator=generator[0])
    nested = fit_prototypes(
        support.float().view(2, 2, *support.shape[1:]), labels.view(2, 2, -1), n_way=3, epochs=2, generator=generator[1]
    )
    assert flat.dtype == torch.float32
    assert torch.equal(nested.flatten(0, 1), flat)


def test_learns_what_the_means_get_wrong():
    """The mean of two clusters is near neither, but a prototype can move until it classifies all shots correctly."""
    support, labels = _episodes(count=1, shots=40, seed=5)
    support[0, ::2] += 1.0 * torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    before = emd_logits(support, class_means(support, labels, 3))
    after = emd_logits(support, fit_prototypes(support, labels, n_way=3, epochs=60, lr=1.0))
    losses = [F.cross_entropy(logits.flatten(0, 1), labels.flatten()).item() for logits in (before, after)]
    assert losses[1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.tensor([0, 1, 2])}, "labels"),
        ({"labels": torch.tensor([0, 0, 1, 1])}, "class 2 has none"),
        ({"labels": torch.tensor([0, 1, 2, 3])}, "found 3"),
        ({"labels": torch.tensor([0.0, 1, 2, 2])}, "whole numbers"),
        ({"support": torch.zeros(4, 5)}, "support must be"),
        ({"support": torch.full((4, 2, 5), float("nan"))}, "NaN"),
        ({"epochs": 0}, "epochs"),
        ({"weights": "equal"}, "'cross-reference' or 'uniform'"),
        ({"lr": -1.0}, "lr"),
        ({"batch_size": 0}, "batch_size"),
        ({"lr": float("inf")}, "lr"),
        ({"lr": 1e38, "temperature": 1e4}, "lr is too large"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    support = torch.randn(4, 2, 5, generator=torch.Generator().manual_seed(0))
    given = {"support": support, "labels": torch.tensor([0, 1, 2, 2]), "n_way": 3} | change
    with pytest.raises(ValueError, match=message):
        fit_prototypes(**given)

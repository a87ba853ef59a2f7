"""From the logits of single shots to those of classes."""

import pytest
import torch

from deepemd.matching import emd_logits, mean_over_shots, nearest_shot


@pytest.mark.parametrize(("form", "plain"), [(mean_over_shots, torch.mean), (nearest_shot, torch.amax)])
def test_is_the_loop_over_classes(form, plain):
    generator = torch.Generator().manual_seed(0)
    query, shots = torch.randn(2, 3, 4, 5, 8, generator=generator), torch.randn(2, 3, 7, 5, 8, generator=generator)
    labels = torch.stack([torch.randperm(7, generator=generator) % 3 for _ in range(6)]).view(2, 3, 7)
    logits = emd_logits(query, shots)  # (2, 3, 4, 7)
    found = form(logits, labels, n_way=3)
    assert found.shape == (2, 3, 4, 3)
    for e in range(2):
        for f in range(3):
            for k in range(3):
                expected = plain(logits[e, f][:, labels[e, f] == k], dim=-1)
                torch.testing.assert_close(found[e, f, :, k], expected)


@pytest.mark.parametrize("form", [mean_over_shots, nearest_shot])
def test_one_shot_each_is_the_logits_in_the_order_of_the_labels(form):
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([2, 0, 3, 1])
    assert torch.equal(form(logits, labels, n_way=4)[:, labels], logits)


def test_gradients():
    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 1, 0, 2])
    for form in (mean_over_shots, nearest_shot):
        assert torch.autograd.gradcheck(lambda x, form=form: form(x, labels, n_way=3), logits)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 1]), r"got \(4, 3\) and \(2,\)"),
        (torch.tensor([0, 0, 0]), "class 1 has none"),
        (torch.tensor([0, 1, 2]), "found 2"),
        (torch.tensor([0, -1, 1]), "found -1"),
        (torch.tensor([0.0, 1, 1]), "whole numbers"),
    ],
)
@pytest.mark.parametrize("form", [mean_over_shots, nearest_shot])
def test_what_does_not_fit_is_named(form, labels, message):
    with pytest.raises(ValueError, match=message):
        form(torch.zeros(4, 3), labels, n_way=2)

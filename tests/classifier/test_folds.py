"""Folds: every class keeps a photo, and photos of one series stay together."""

import pytest
import torch

from deepemd import DeepEMD, conv4
from deepemd.classifier.folds import folds_of, series_of
from deepemd.classifier.support import Example, Support


def support_of(nodes, labels):
    examples = [Example(str(k), k, b"", (8, 8)) for k in range(len(labels))]
    return Support.empty(*nodes.shape[1:]).added(list(nodes), labels, examples, classes=max(labels) + 1)


def alone(labels):
    """Number the photos of each class, so that each is a series of its own."""
    return torch.tensor([labels[:k].count(label) for k, label in enumerate(labels)])


@pytest.mark.parametrize("labels", [[0, 0, 1], [0, 1], [0] * 2 + [1] * 2, [0] * 12 + [1] * 3 + [2], [0] * 7 + [1] * 2])
def test_every_photo_that_can_be_left_out_is_left_out_once_and_no_class_goes_missing(labels):
    support = support_of(torch.rand(len(labels), 2, 4), labels)
    folds = folds_of(support, alone(labels))
    held = torch.cat(folds).tolist() if folds else []
    assert sorted(held) == [k for k, label in enumerate(labels) if labels.count(label) > 1]
    for fold in folds:
        rest = [label for k, label in enumerate(labels) if k not in fold.tolist()]
        assert set(rest) == set(labels)
    assert len(folds) <= 5


def test_a_series_is_left_out_together():
    labels = [0] * 4 + [1] * 3
    folds = folds_of(support_of(torch.rand(7, 2, 4), labels), torch.tensor([0, 0, 0, 1, 0, 0, 0]))
    assert [fold.tolist() for fold in folds] == [[0, 1, 2], [3]]  # class 1 is one series, and cannot be left out


def test_series_are_found_by_nearly_equal_photos():
    torch.manual_seed(0)
    model = DeepEMD(conv4(), power=0.5)
    one, two, three = torch.rand(3, 2, 64).softmax(-1) * torch.rand(3, 2, 64)
    close = [one, one + 1e-3 * torch.rand(2, 64), two, one + 2e-3 * torch.rand(2, 64), three, three]
    support = support_of(torch.stack(close), [0, 0, 0, 0, 1, 1])
    assert series_of(model, support).tolist() == [0, 0, 1, 0, 0, 0]
    plain = DeepEMD(conv4())
    assert series_of(plain, support).tolist() == [0, 1, 2, 3, 0, 1]


def test_links_make_one_series():
    """The first and the last differ, but each photo looks like the next."""
    angles = torch.linspace(0, 1.2, 9)
    nodes = torch.stack((angles.cos(), angles.sin()), -1)[:, None]
    order = [4, 0, 8, 2, 6, 1, 7, 3, 5]
    assert series_of(DeepEMD(conv4(), power=0.5), support_of(nodes[order], [0] * 9)).tolist() == [0] * 9

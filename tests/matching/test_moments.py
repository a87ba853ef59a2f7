"""Moments of nodes: against sums by loops, and without some of the shots."""

import numpy as np
import pytest
import torch

from deepemd.matching import NodeMoments


def _shots(shots=7, m=4, channels=5):
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(np.r_[0, 1, 2, rng.integers(0, 3, shots - 3)])
    return torch.from_numpy(rng.standard_normal((shots, m, channels))), labels


def test_scatters_are_sums_over_nodes():
    support, labels = _shots()
    moments = NodeMoments.of(support, labels, 3)
    means = torch.stack([support[labels == w].flatten(0, 1).mean(0) for w in range(3)])
    torch.testing.assert_close(moments.means, means)
    within, total = torch.zeros(5, 5, dtype=torch.float64), torch.zeros(5, 5, dtype=torch.float64)
    for nodes, label in zip(support, labels.tolist(), strict=True):
        for node in nodes:
            within += torch.outer(node - means[label], node - means[label])
            total += torch.outer(node - means.mean(0), node - means.mean(0))
    torch.testing.assert_close(moments.scatter_within(), within)
    torch.testing.assert_close(moments.scatter(), total)


def test_without_some_shots():
    support, labels = _shots(shots=12)
    rest = NodeMoments.of(support, labels, 3).without(support[5:8], labels[5:8])
    keep = torch.arange(12).lt(5) | torch.arange(12).ge(8)
    for found, expected in zip(rest, NodeMoments.of(support[keep], labels[keep], 3), strict=True):
        torch.testing.assert_close(found, expected)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="NaN"):
        NodeMoments.of(torch.full((2, 1, 3), torch.nan), torch.arange(2), 2)
    with pytest.raises(ValueError, match="class 1 has none"):
        NodeMoments.of(torch.ones(2, 1, 3), torch.zeros(2, dtype=torch.int64), 2)

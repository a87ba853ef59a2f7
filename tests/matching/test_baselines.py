"""The baselines against loops over their definitions."""

import numpy as np
import pytest
import torch

from deepemd.matching import local_knn_logits, protonet_logits


@pytest.fixture
def nodes():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 4, 5, 8, generator=generator), torch.randn(2, 3, 6, 8, generator=generator)


def _cosine(x, y):
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def test_protonet(nodes):
    query, support = (t.numpy() for t in nodes)
    got = {
        "cosine": protonet_logits(*nodes, temperature=1),
        "centred": protonet_logits(*nodes, centred=True, temperature=1),
        "euclidean": protonet_logits(*nodes, similarity="euclidean", temperature=1),
    }
    for e in range(2):
        for i in range(4):
            for j in range(3):
                x, y = query[e, i].mean(0), support[e, j].mean(0)
                assert float(got["cosine"][e, i, j]) == pytest.approx(_cosine(x, y), abs=1e-5)
                assert float(got["centred"][e, i, j]) == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-5)
                assert float(got["euclidean"][e, i, j]) == pytest.approx(-((x - y) ** 2).sum(), abs=1e-4)


@pytest.mark.parametrize("k", [1, 3])
def test_local_knn(nodes, k):
    query, support = (t.numpy() for t in nodes)
    got = local_knn_logits(*nodes, k=k)
    for e in range(2):
        for i in range(4):
            for j in range(3):
                cosines = [sorted((_cosine(x, y) for y in support[e, j]), reverse=True)[:k] for x in query[e, i]]
                assert float(got[e, i, j]) == pytest.approx(np.sum(cosines), abs=1e-5)


def test_bad_arguments(nodes):
    with pytest.raises(ValueError, match="k must be from 1 to the 6 nodes"):
        local_knn_logits(*nodes, k=7)
    with pytest.raises(ValueError, match="similarity must be"):
        protonet_logits(*nodes, similarity="dot")

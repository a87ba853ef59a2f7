"""The baselines against loops over their definitions."""

import numpy as np
import pytest
import torch

from deepemd.matching import fusion_logits, local_knn_logits, matching_net_logits, protonet_logits


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


@pytest.mark.parametrize(("k", "centred"), [(1, False), (3, False), (3, True)])
def test_local_knn(nodes, k, centred):
    query, support = (t.numpy() for t in nodes)
    got = local_knn_logits(*nodes, k=k, centred=centred)
    if centred:
        query, support = (t - t.mean(-1, keepdims=True) for t in (query, support))
    for e in range(2):
        for i in range(4):
            for j in range(3):
                cosines = [sorted((_cosine(x, y) for y in support[e, j]), reverse=True)[:k] for x in query[e, i]]
                assert float(got[e, i, j]) == pytest.approx(np.sum(cosines), abs=1e-5)


def test_fusion(nodes):
    query, support = (t.numpy() for t in nodes)
    got = fusion_logits(*nodes, temperature=3.0)
    for e in range(2):
        for i in range(4):
            cosines = np.array([[_cosine(x, y.mean(0)) for y in support[e]] for x in query[e, i]])
            votes = np.exp(3 * cosines) / np.exp(3 * cosines).sum(1, keepdims=True)
            np.testing.assert_allclose(got[e, i], np.log(votes.mean(0)), atol=1e-5)


def test_fusion_of_one_node_is_protonet(nodes):
    query, support = nodes[0].mean(-2, keepdim=True), nodes[1]
    torch.testing.assert_close(fusion_logits(query, support), protonet_logits(query, support).log_softmax(-1))


def test_matching_net(nodes):
    query, shots = nodes[0], torch.cat((nodes[0], nodes[1][:, :, :5]), 1)  # (2, 4, 5, 8), (2, 7, 5, 8)
    labels = torch.tensor([[0, 1, 2, 0, 1, 2, 2], [2, 2, 1, 1, 0, 0, 0]])
    got = matching_net_logits(query, shots, labels, n_way=3, temperature=3.0)
    for e in range(2):
        for i in range(4):
            x = query[e, i].mean(0).numpy()
            attention = np.exp([3 * _cosine(x, y.mean(0).numpy()) for y in shots[e]])
            expected = [attention[labels[e].numpy() == k].sum() / attention.sum() for k in range(3)]
            np.testing.assert_allclose(got[e, i].exp(), expected, atol=1e-5)


def test_matching_net_of_one_shot_each_is_protonet(nodes):
    query, support = nodes
    got = matching_net_logits(query, support, torch.arange(3).expand(2, 3), n_way=3)
    torch.testing.assert_close(got, protonet_logits(query, support).log_softmax(-1))


def test_bad_arguments(nodes):
    with pytest.raises(ValueError, match="k must be from 1 to the 6 nodes"):
        local_knn_logits(*nodes, k=7)
    with pytest.raises(ValueError, match="similarity must be"):
        protonet_logits(*nodes, similarity="dot")
    with pytest.raises(ValueError, match="class 2 has none in episode"):
        matching_net_logits(*nodes, torch.tensor([[0, 1, 1]] * 2), n_way=3)

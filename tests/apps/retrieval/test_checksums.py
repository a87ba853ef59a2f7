"""Check sums of the nodes of an index."""

import numpy as np

from deepemd.apps.retrieval.checksums import node_checks, sampled


def test_a_check_sum_covers_values_place_type_and_shape():
    nodes = np.arange(24, dtype=np.float16).reshape(2, 3, 4)
    same = np.stack([nodes[0]] * 2)
    others = [nodes[0, None] + np.float16(1), nodes[:1].astype(np.float32), nodes[:1].reshape(1, 4, 3), nodes[:1, ::-1]]
    known = node_checks(nodes, [0])
    assert np.array_equal(node_checks(same, [0]), known)
    assert not any(np.array_equal(node_checks(other, [0]), known) for other in [*others, nodes[1:]])
    assert len(set(node_checks(same, [0, 1]).tolist())) == 2


def test_a_large_index_is_sampled_evenly_with_both_ends(monkeypatch):
    assert sampled(np.zeros((7, 1, 1))).tolist() == list(range(7))
    monkeypatch.setattr("deepemd.apps.retrieval.checksums._MAX_ROWS", 3)
    assert sampled(np.zeros((7, 1, 1))).tolist() == [0, 3, 6]
    monkeypatch.setattr("deepemd.apps.retrieval.checksums._MAX_BYTES", 2 * 8)
    assert sampled(np.zeros((7, 1, 1))).tolist() == [0, 6]

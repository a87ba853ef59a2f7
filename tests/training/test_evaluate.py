"""Evaluation over cached embeddings against the plain way: one episode at a time through the whole model."""

import numpy as np
import pytest
import torch

from deepemd import FCN, DeepEMD, conv4
from deepemd.data import load
from deepemd.errors import InputError
from deepemd.training.evaluate import METHODS, Episodes, Evaluation, Figure, embed, evaluate, score


@pytest.fixture(scope="module")
def greek(tmp_path_factory):
    return load("glyphs", tmp_path_factory.mktemp("data")).splits["val"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return DeepEMD(conv4(pools=3), FCN((2,)), image_size=40, resize=40)


@pytest.mark.parametrize("n_shot", [1, 3])
def test_cached_embeddings_give_the_same_predictions_as_embedding_every_episode(greek, model, n_shot):
    episodes = Episodes(n_way=4, n_shot=n_shot, n_query=3, n_episodes=6, seed=1)
    accuracies = evaluate(model, greek, episodes).accuracies["DeepEMD"]
    pixels = torch.from_numpy(np.array(greek.pixels(40)))
    model.eval()
    with torch.no_grad():
        for accuracy, episode in zip(accuracies, episodes.sampler(greek), strict=True):
            logits = model(pixels[episode.support], pixels[episode.query], n_way=4)
            hits = logits.argmax(-1).numpy() == episode.query_labels
            assert accuracy == pytest.approx(hits.mean())


def test_every_method_sees_the_same_episodes_and_repeats(greek, model):
    episodes = Episodes(n_way=5, n_query=5, n_episodes=30)
    first, second = (evaluate(model, greek, episodes) for _ in range(2))
    assert set(first.accuracies) == set(METHODS)
    for name, values in first.accuracies.items():
        assert values.shape == (30,)
        np.testing.assert_array_equal(values, second.accuracies[name])
    assert first.fingerprint["sha256"] == greek.fingerprint.sha256


def test_batching_of_episodes_changes_nothing(greek, model, monkeypatch):
    nodes, sampler = embed(model, greek), Episodes(n_way=5, n_query=4, n_episodes=11).sampler(greek)
    whole = score(nodes, sampler)
    monkeypatch.setattr("deepemd.training.evaluate._BATCH_BYTES", 1)
    for name, values in score(nodes, sampler).items():
        np.testing.assert_array_equal(values, whole[name])


def test_embed_leaves_the_model_as_it_was(greek, model):
    model.train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    nodes = embed(model, greek, batch_size=500)
    assert nodes.shape == (len(greek), 29, 64)
    assert model.training
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    torch.testing.assert_close(nodes, embed(model, greek, batch_size=77), rtol=1e-4, atol=1e-4)


def test_a_planted_embedding_is_classified_perfectly(greek):
    """One-hot nodes of the true class: every method must be right, and no difference remains."""
    nodes = torch.eye(23)[torch.from_numpy(greek.labels)][:, None].expand(-1, 4, -1).contiguous()
    accuracies = score(nodes, Episodes(n_shot=2, n_episodes=20).sampler(greek))
    assert all((values == 1).all() for values in accuracies.values())


def test_figures():
    values = {
        "DeepEMD": np.array([0.5, 0.7, 0.9]),
        "ProtoNet (a)": np.array([0.4, 0.6, 0.8]),
        "ProtoNet (b)": np.zeros(3),
    }
    half = 1.96 * np.std(values["DeepEMD"]) / 3**0.5
    evaluation = Evaluation(values, Episodes(), {}, {})
    assert evaluation.figure("DeepEMD") == Figure(pytest.approx(0.7), pytest.approx(half), 3)
    assert evaluation.difference("DeepEMD", "ProtoNet (a)") == Figure(pytest.approx(0.1), pytest.approx(0, abs=1e-9), 3)
    assert evaluation.best("ProtoNet") == "ProtoNet (a)"


def test_impossible_episodes_are_refused_before_the_work(greek, model):
    with pytest.raises(InputError, match="n_way: 24 classes asked for, but there are 23"):
        evaluate(model, greek, Episodes(n_way=24))
    with pytest.raises(InputError, match="must be at least 1"):
        evaluate(model, greek, Episodes(n_query=0))

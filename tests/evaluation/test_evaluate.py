"""Evaluation over cached embeddings against the plain way: one episode at a time through the whole model.

Tests deepemd.commands.evaluate, deepemd.evaluation.intervals, deepemd.evaluation.methods, deepemd.evaluation.scoring.
"""

import numpy as np
import pytest
import torch

from deepemd import FCN, DeepEMD, conv4, emd_logits, fit_prototypes
from deepemd.data import Episodes, load
from deepemd.embedding.splits import embed
from deepemd.errors import InputError
from deepemd.evaluation.evaluate import Evaluation, evaluate
from deepemd.evaluation.intervals import MeanCI
from deepemd.evaluation.methods import METHODS, SFC, choose
from deepemd.evaluation.scoring import score
from deepemd.matching import fusion_logits, local_knn_logits, protonet_logits
from deepemd.matching.cost import measured


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


QUICK = SFC(epochs=2)


def test_every_method_sees_the_same_episodes_and_repeats(greek, model):
    episodes = Episodes(n_way=5, n_shot=2, n_query=3, n_episodes=6)
    first, second = (evaluate(model, greek, episodes, method="all", sfc=QUICK) for _ in range(2))
    assert list(first.accuracies) == [method.title for method in METHODS.values()]
    for name, values in first.accuracies.items():
        assert values.shape == (6,)
        np.testing.assert_array_equal(values, second.accuracies[name])
    assert first.fingerprint["sha256"] == greek.fingerprint.sha256


def test_batching_of_episodes_changes_nothing(greek, model, monkeypatch):
    nodes, sampler = embed(model, greek), Episodes(n_way=5, n_shot=2, n_query=2, n_episodes=5).sampler(greek)
    methods = choose("all", model, n_shot=2, sfc=QUICK)
    whole = score(nodes, sampler, methods)
    monkeypatch.setattr("deepemd.evaluation.scoring._BATCH_BYTES", 1)
    for name, values in score(nodes, sampler, methods).items():
        np.testing.assert_array_equal(values, whole[name])


@pytest.mark.parametrize("n_shot", [1, 2])
def test_the_logits_are_those_of_each_episode_alone_on_every_number_of_threads(greek, model, monkeypatch, n_shot):
    nodes = embed(model, greek)
    sampler = Episodes(n_way=5, n_shot=n_shot, n_query=2, n_episodes=7).sampler(greek)
    ((name, logits),) = choose("deepemd", model, n_shot=n_shot).items()
    monkeypatch.setattr("deepemd.evaluation.scoring._MEASURED", 100)  # several parts
    monkeypatch.setattr("deepemd.evaluation.scoring._BATCH_BYTES", 2 * 5 * (n_shot + 2) * nodes[0].nbytes)
    before, found = torch.get_num_threads(), []
    for threads in (1, 3):
        seen: dict[float, torch.Tensor] = {}

        def keep(query, shots, seen=seen):
            answer = logits(query, shots)
            for one, some in zip(answer, query.nodes, strict=True):
                seen[some.double().sum().item()] = one
            return answer

        torch.set_num_threads(threads)
        try:
            accuracies = score(nodes, sampler, {name: keep})[name]
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
        expected = []
        for accuracy, episode in zip(accuracies, sampler, strict=True):
            query, support = nodes[episode.query], nodes[episode.support].unflatten(0, (n_shot, 5)).mean(0)
            expected.append(emd_logits(query, support))
            torch.testing.assert_close(seen[query.double().sum().item()], expected[-1], rtol=0, atol=2e-5)
            assert accuracy == (expected[-1].argmax(-1).numpy() == episode.query_labels).mean()
        found.append(seen)
    one, three = found
    assert all(torch.equal(one[key], three[key]) for key in one)


def test_embed_leaves_the_model_unchanged(greek, model):
    model.train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    nodes = embed(model, greek)
    assert nodes.shape == (len(greek), 29, 64)
    assert model.training
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_a_planted_embedding_is_classified_perfectly(greek, model):
    """One-hot nodes of the true class: every method must be right, and no difference remains."""
    nodes = torch.eye(23)[torch.from_numpy(greek.labels)][:, None].expand(-1, 4, -1).contiguous()
    methods = choose("all", model, n_shot=2, sfc=QUICK)
    accuracies = score(nodes, Episodes(n_shot=2, n_query=4, n_episodes=4).sampler(greek), methods)
    assert len(accuracies) == len(METHODS)
    assert all((values == 1).all() for values in accuracies.values())


def test_with_one_shot_methods_that_equal_another_are_left_out(model):
    one, two = (choose("all", model, n_shot=n) for n in (1, 2))
    assert set(two) - set(one) == {"DeepEMD, mean over shots", "DeepEMD, nearest shot", "MatchingNet"}
    assert list(choose("linear, protonet,deepemd", model, n_shot=1)) == [
        *("linear classifier", "ProtoNet (cosine)", "ProtoNet (centred cosine)", "ProtoNet (Euclidean)", "DeepEMD"),
    ]
    with pytest.raises(InputError, match="there is no 'deepnet'; choose from all, deepemd, "):
        choose("deepemd,deepnet", model, n_shot=1)


def test_every_method_gives_the_logits_of_its_definition(greek, model):
    """Compare each method with a direct computation, on one episode."""
    nodes = embed(model, greek)
    episode = Episodes(n_way=3, n_shot=2, n_query=4, n_episodes=1, seed=5).sampler(greek)[0]
    query, shots = nodes[episode.query][None], nodes[episode.support].unflatten(0, (2, 3))[None]
    sets, methods = measured(query), choose("all", model, n_shot=2, sfc=QUICK)
    found = {name: logits(sets, shots)[0] for name, logits in methods.items()}
    single = torch.stack([emd_logits(query[0], shots[0, k]) for k in range(2)])  # (n_shot, Q, n_way)
    torch.testing.assert_close(found["DeepEMD"], emd_logits(query[0], shots[0].mean(0)))
    torch.testing.assert_close(found["DeepEMD, mean over shots"], single.mean(0))
    torch.testing.assert_close(found["DeepEMD, nearest shot"], single.amax(0))
    torch.testing.assert_close(
        found["local k-NN (k = 1)"], local_knn_logits(query[0], torch.cat((shots[0, 0], shots[0, 1]), dim=1))
    )
    order = torch.Generator().manual_seed(QUICK.seed)
    fitted = fit_prototypes(
        shots[0].flatten(0, 1), torch.arange(6) % 3, n_way=3, epochs=2, lr=QUICK.lr, generator=order
    )
    torch.testing.assert_close(found["DeepEMD, SFC"], emd_logits(query[0], fitted))
    means, together = shots[0].mean(0), torch.cat((shots[0, 0], shots[0, 1]), dim=1)
    for name, logits in {
        "EMD, uniform weights": emd_logits(query[0], means, weights="uniform"),
        "ProtoNet (cosine)": protonet_logits(query[0], means),
        "ProtoNet (centred cosine)": protonet_logits(query[0], means, centred=True),
        "ProtoNet (Euclidean)": protonet_logits(query[0], means, similarity="euclidean"),
        "local k-NN (k = 3)": local_knn_logits(query[0], together, k=3),
        "local k-NN (k = 3, centred)": local_knn_logits(query[0], together, k=3, centred=True),
        "prediction fusion": fusion_logits(query[0], means),
    }.items():
        torch.testing.assert_close(found[name], logits)


def test_ctrl_c_keeps_what_was_matched(greek, model, monkeypatch):
    """Interrupted in its third batch, an evaluation reports the first two."""
    monkeypatch.setattr("deepemd.evaluation.scoring._BATCH_BYTES", 1)
    sampler = Episodes(n_way=3, n_query=2, n_episodes=5).sampler(greek)
    nodes = embed(model, greek)
    ((name, logits),) = choose("deepemd", model, n_shot=1).items()

    def stop_at(number):
        fatal = nodes[sampler[number].query]

        def stop(query, shots):
            if torch.equal(query.nodes[0], fatal):
                raise KeyboardInterrupt
            return logits(query, shots)

        return stop

    whole = score(nodes, sampler, {name: logits, "again": logits})
    part = score(nodes, sampler, {name: logits, "again": stop_at(2)})
    assert {key: values.tolist() for key, values in part.items()} == {k: v[:2].tolist() for k, v in whole.items()}
    with pytest.raises(KeyboardInterrupt):
        score(nodes, sampler, {"again": stop_at(0)})


def test_means_and_paired_differences():
    values = {
        "DeepEMD": np.array([0.5, 0.7, 0.9]),
        "ProtoNet (a)": np.array([0.4, 0.6, 0.8]),
        "ProtoNet (b)": np.zeros(3),
    }
    half = 1.96 * np.std(values["DeepEMD"]) / 3**0.5
    evaluation = Evaluation(values, Episodes(), {}, {}, {})
    assert evaluation.accuracy("DeepEMD") == MeanCI(pytest.approx(0.7), pytest.approx(half), 3)
    assert evaluation.difference("DeepEMD", "ProtoNet (a)") == MeanCI(pytest.approx(0.1), pytest.approx(0, abs=1e-9), 3)
    assert evaluation.best("ProtoNet") == "ProtoNet (a)"


def test_impossible_episodes_are_refused_before_the_work(greek, model):
    with pytest.raises(InputError, match="n_way: 24 classes asked for, but there are 23"):
        evaluate(model, greek, Episodes(n_way=24))
    with pytest.raises(InputError, match="must be at least 1"):
        Episodes(n_query=0)

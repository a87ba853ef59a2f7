"""The adapter against DeepEMD itself, through EasyFSL's interface and, where it is installed, through its own code."""

import inspect

import numpy as np
import pandas as pd
import pytest
import torch

from deepemd import DeepEMD, InputError, conv4, emd_logits
from deepemd.apps.easyfsl import DeepEMDClassifier
from deepemd.evaluation.methods import SFC


@pytest.fixture
def model() -> DeepEMD:
    torch.manual_seed(0)
    return DeepEMD(conv4(channels=8, pools=3), image_size=32, resize=36).eval()


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, 36, 36, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_scores_are_those_of_class_means_in_the_order_of_the_labels(model):
    support, labels, query = images(5), torch.tensor([2, 0, 1, 0, 2]), images(4, seed=1)
    classifier = DeepEMDClassifier(model)
    classifier.process_support_set(support, labels)
    nodes = model.embed(support)
    means = torch.stack([(nodes[1] + nodes[3]) / 2, nodes[2], (nodes[0] + nodes[4]) / 2])
    expected = emd_logits(model.embed(query), means)
    torch.testing.assert_close(classifier(query), expected)
    classifier.use_softmax = True
    torch.testing.assert_close(classifier(query), expected.softmax(-1))
    assert not classifier.is_transductive()


@torch.no_grad()
def test_a_data_sets_normalisation_is_undone(model):
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    normalised = (images(3) - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    found = DeepEMDClassifier(model, mean=mean, std=std).compute_features(normalised)
    torch.testing.assert_close(found, model.embed(images(3)), atol=1e-4, rtol=1e-4)
    pixels = (images(3) * 255).to(torch.uint8)
    torch.testing.assert_close(DeepEMDClassifier(model, mean=mean).compute_features(pixels), model.embed(pixels))


@torch.no_grad()
def test_labels_are_taken_by_position_and_images_from_lists_and_arrays(model):
    support, labels, query = images(5), [2, 0, 1, 0, 2], images(4, seed=1)
    classifier = DeepEMDClassifier(model)
    classifier.process_support_set(support, torch.tensor(labels))
    expected = classifier(query)
    for held in (support, support.numpy(), list(support), tuple(support.numpy())):
        for names in (labels, np.array(labels), np.array(labels)[:, None], pd.Series(labels, index=[4, 1, 0, 2, 3])):
            classifier.process_support_set(held, names)
            assert torch.equal(classifier(list(query)), expected)


@pytest.mark.parametrize(
    ("support", "labels", "message"),
    [
        (torch.rand(3, 36, 36), [0], r"images have the shape \(3, 36, 36\): pass \(n, 3, H, W\)"),
        ([torch.rand(3, 36, 36), torch.rand(3, 30, 36)], [0, 1], r"shapes \(3, 30, 36\), \(3, 36, 36\)"),
        ([], [], r"shapes \(\): pass"),
        (torch.rand(2, 3, 36, 36), [0, None], r"support_labels\[1\] is None"),
        (torch.rand(2, 3, 36, 36), ["a", "b"], "support_labels are <U1: pass whole numbers"),
        (torch.rand(2, 3, 36, 36), [0, 1, 1], "labels"),
        (torch.rand(2, 3, 36, 36), [0, -1], "label"),
    ],
)
def test_a_support_set_that_cannot_be_is_explained(model, support, labels, message):
    with pytest.raises(ValueError, match=message):
        DeepEMDClassifier(model).process_support_set(support, labels)


def test_gradients_reach_the_encoder_and_the_sfc_moves_the_classes(model):
    support, labels, query = images(6), torch.arange(6) % 2, images(4, seed=1)
    classifier = DeepEMDClassifier(model)
    classifier.process_support_set(support, labels)
    classifier(query).square().sum().backward()
    assert model.backbone.blocks[0].conv.weight.grad.abs().max() > 0
    fitted = DeepEMDClassifier(model, sfc=SFC(epochs=3, lr=1.0))
    fitted.process_support_set(support, labels)
    assert (fitted.prototypes - classifier.prototypes).abs().max() > 1e-4
    with torch.no_grad():
        assert fitted(query).shape == (4, 2)


def test_what_cannot_be_is_named(model):
    classifier = DeepEMDClassifier(model)
    with pytest.raises(InputError, match="call process_support_set"):
        classifier(images(1))
    with pytest.raises(ValueError, match="class 1 has none"):
        classifier.process_support_set(images(2), torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="class 2 has none, of those from 0 to 999999999"):
        classifier.process_support_set(images(3), [0, 1, 999_999_999])


@torch.no_grad()
def test_images_of_every_type_give_the_same_scores(model):
    whole = (images(4) * 255).round().byte()
    labels, expected = [0, 1, 0, 1], None
    for held in (
        *(whole, whole.long(), whole / 255, (whole / 255).double(), (whole / 255).double().numpy()),
        *((image for image in whole), pd.Series(list(whole), index=[7, 5, 9, 6]), [image.numpy() for image in whole]),
    ):
        classifier = DeepEMDClassifier(model)
        classifier.process_support_set(held, labels)
        scores = classifier(whole)
        expected = scores if expected is None else expected
        assert torch.allclose(scores, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (images(2) * 255, "images are torch.float32 up to 25.*: pass uint8, or divide them by 255"),
        (torch.full((2, 3, 36, 36), 300), "images are torch.int64 from 300 to 300: pass uint8"),
        (["a.jpg", "b.jpg"], "images are of type list, .*: pass a tensor"),
        (None, "images are of type NoneType"),
    ],
    ids=("floats", "whole numbers", "paths", "nothing"),
)
def test_images_that_cannot_be_are_named(model, held, message):
    with pytest.raises(InputError, match=message):
        DeepEMDClassifier(model).process_support_set(held, [0, 1])


@torch.no_grad()
def test_takes_part_in_a_loop_of_tasks_of_any_shape(model):
    """What EasyFSL's loops do with a classifier: tasks of other ways and unequal shots, one after another."""
    classifier = DeepEMDClassifier(model)
    for labels in ([0, 1], [2, 0, 1, 1, 2, 2], [0]):
        support, names = images(len(labels), seed=len(labels)), torch.tensor(labels)
        single = torch.tensor([labels.index(k) for k in range(max(labels) + 1)])
        classifier.process_support_set(support[single], names[single])
        scores = classifier(support[single])
        assert scores.shape == (len(single), len(single))
        assert torch.equal(scores.argmax(1), names[single])  # an image is nearest to itself
        classifier.process_support_set(support, names)
        assert classifier(support).shape == (len(labels), len(single))


def test_easyfsl_evaluates_it(model):
    """EasyFSL's own loop where the package can be imported, which needs torchvision; else only its classes."""
    pytest.importorskip("easyfsl", reason="needs easyfsl: pip install --no-deps easyfsl")
    methods = pytest.importorskip("easyfsl.methods", reason="needs torchvision beside easyfsl")
    theirs = methods.FewShotClassifier
    for name in ("process_support_set", "forward"):
        expected = list(inspect.signature(getattr(theirs, name)).parameters)
        assert list(inspect.signature(getattr(DeepEMDClassifier, name)).parameters) == expected
    assert DeepEMDClassifier.is_transductive() == methods.PrototypicalNetworks.is_transductive()
    utils = pytest.importorskip("easyfsl.utils", reason="needs pandas and tqdm beside easyfsl")
    support, labels = images(4), torch.tensor([1, 0, 1, 0])
    task = (support, labels, support.clone(), labels.clone(), [3, 8])
    assert utils.evaluate(DeepEMDClassifier(model), [task], device="cpu", use_tqdm=False) == 1.0

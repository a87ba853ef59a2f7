"""Photos are removed from a classifier as if they had never been there."""

import numpy as np
import pytest
import torch
from pictures import photo

from deepemd import FCN, DeepEMD, conv4
from deepemd.classifier.classifier import PhotoClassifier
from deepemd.classifier.removal import remove_photos

PHOTOS = [photo(30, 24) for _ in range(7)]
LABELS = ["a", "b", "a", "c", "b", "a", "b"]


@pytest.fixture(scope="module")
def encoder() -> DeepEMD:
    torch.manual_seed(0)
    return DeepEMD(conv4(channels=8, pools=2), FCN(), image_size=16, resize=16).eval()


def fitted(encoder, which) -> PhotoClassifier:
    return PhotoClassifier(encoder, cache=False).fit([PHOTOS[k] for k in which], [LABELS[k] for k in which])


@pytest.mark.parametrize("gone", [[], [0], [2, 6], [0, 1, 4]])
def test_it_equals_a_classifier_that_never_saw_them(encoder, gone):
    classifier = fitted(encoder, range(7))
    assert remove_photos(classifier, gone) == []
    classifier.calibrate()
    other = fitted(encoder, [k for k in range(7) if k not in gone])
    assert classifier.classes_.tolist() == other.classes_.tolist()
    assert classifier.support_.count.tolist() == other.support_.count.tolist()
    assert [example.key for example in classifier.support_.examples] == [e.key for e in other.support_.examples]
    np.testing.assert_allclose(classifier.predict_proba(PHOTOS), other.predict_proba(PHOTOS), atol=1e-9)
    assert classifier.familiar_threshold_ == pytest.approx(other.familiar_threshold_)


def test_a_class_without_a_photo_left_is_removed(encoder):
    classifier = fitted(encoder, range(7))
    assert remove_photos(classifier, [0, 2, 5, 3]) == ["a", "c"]
    assert classifier.classes_.tolist() == ["b"]
    classifier.partial_fit([PHOTOS[0], PHOTOS[3]], ["z", "y"])
    assert classifier.classes_.tolist() == ["b", "y", "z"]
    assert classifier.predict([PHOTOS[0], PHOTOS[3]]).tolist() == ["z", "y"]

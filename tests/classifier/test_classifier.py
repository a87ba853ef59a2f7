"""The estimator: scikit-learn's own checks, known answers, a slow twin, real photos.

Tests deepemd.classifier.adaptation, deepemd.classifier.answers, deepemd.classifier.calibration,
deepemd.classifier.estimator, deepemd.classifier.prediction, deepemd.classifier.saving, deepemd.classifier.settings,
deepemd.classifier.learning, deepemd.classifier.support, deepemd.classifier.trust.
"""

import copy
import json
import shutil
import warnings
import weakref
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import validate_data

from deepemd import FCN, DeepEMD, FewShotClassifier, InputError, Sampling, conv4, emd_logits
from deepemd.classifier import support as support_module
from deepemd.classifier.calibration import conformal_threshold, fit_temperature
from deepemd.data import load


def small_model() -> DeepEMD:
    torch.manual_seed(0)
    return DeepEMD(conv4(channels=8, pools=2), FCN(), image_size=16, resize=16)


@pytest.fixture(scope="module")
def model() -> DeepEMD:
    return small_model()


def texture(kind: str, seed: int, size: tuple[int, int] = (48, 40)) -> np.ndarray:
    """Stripes, dots or noise, of a phase and a colour that the seed decides: uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]] + rng.integers(0, 12, 2)[:, None, None]
    plane = {
        "stripes": np.sin(x * 0.8),
        "dots": np.sin(x * 0.6) * np.sin(y * 0.6),
        "noise": rng.standard_normal(size),
    }[kind]
    colour = rng.uniform(60, 120, 3)
    return np.clip(128 + plane[..., None] * colour, 0, 255).astype(np.uint8)


KINDS = ("dots", "noise", "stripes")


def photos(count: int, first: int = 0) -> tuple[list[np.ndarray], list[str]]:
    """`count` images of each kind, and their labels."""
    pairs = [(texture(kind, first + seed), kind) for kind in KINDS for seed in range(count)]
    return [image for image, _ in pairs], [kind for _, kind in pairs]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for image, kind, k in zip(*photos(4), [*range(4)] * 3, strict=True):
        path = tmp_path / "photos" / kind / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return tmp_path / "photos"


@pytest.fixture(scope="module")
def fitted() -> FewShotClassifier:
    return FewShotClassifier(cache=False).fit(*photos(4))


# scikit-learn


class Rows(FewShotClassifier):
    """Rows of numbers drawn as images of grey cells, so that scikit-learn's checks, which know rows only, apply."""

    def fit(self, X, y):
        X, y = validate_data(self, X, y)
        return super().fit(self._drawn(X), y)

    def partial_fit(self, X, y, classes=None):
        X, y = validate_data(self, X, y, reset=not hasattr(self, "support_"))
        return super().partial_fit(self._drawn(X), y, classes)

    def stream(self, images, **settings):
        if not hasattr(self, "support_"):
            return super().stream(images, **settings)
        return super().stream(self._drawn(validate_data(self, images, reset=False)), **settings)

    def _embedded(self, X):
        return super()._embedded(self._drawn(validate_data(self, X, reset=False)) if hasattr(self, "support_") else X)

    def _drawn(self, X):
        grey = np.round(255 / (1 + np.exp(-np.asarray(X, float) / 2))).astype(np.uint8)
        return [np.kron(row[None], np.ones((8, max(2, 16 // len(row))), np.uint8)) for row in grey]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.no_validation = True, False
        tags.classifier_tags.poor_score = True  # an untrained encoder of drawn numbers
        return tags


def test_scikit_learns_checks_pass(tmp_path):
    settings = {"backbone": str(small_model().save(tmp_path / "model")), "cache": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the checks, about skipped ones: counted below
        results = check_estimator(Rows(**settings), on_fail=None, on_skip=None)
    failed = {r["check_name"]: repr(r["exception"]) for r in results if r["status"] == "failed"}
    assert not failed
    assert sum(r["status"] == "passed" for r in results) > 40


def test_the_tags_say_that_it_takes_images():
    tags = FewShotClassifier().__sklearn_tags__()
    assert not tags.input_tags.two_d_array
    assert tags.estimator_type == "classifier"


def test_it_works_inside_scikit_learns_tools(folder, model):
    paths, labels = zip(*((path, path.parent.name) for path in sorted(folder.glob("*/*.png"))), strict=True)
    classifier = FewShotClassifier(model, cache=False)
    assert cross_val_score(classifier, list(paths), labels, cv=2).shape == (2,)
    search = GridSearchCV(classifier, {"temperature": [5.0, 50.0], "regions": ["fcn", "grid:2"]}, cv=2)
    assert search.fit(list(paths), labels).best_params_.keys() == {"temperature", "regions"}
    turned = make_pipeline(FunctionTransformer(lambda images: [np.asarray(Image.open(p)) for p in images]), classifier)
    found = turned.fit(list(paths), labels).predict_proba(list(paths))
    np.testing.assert_allclose(found, classifier.fit(list(paths), labels).predict_proba(list(paths)), atol=1e-6)
    assert clone(classifier).get_params()["cache"] is False


# What it computes


def test_probabilities_are_those_of_the_head_over_class_means(model, monkeypatch):
    monkeypatch.setattr("deepemd.embedding.stream.choose_precision", lambda *_: "32-true")
    images, labels = photos(3)
    queries, _ = photos(2, first=50)
    classifier = FewShotClassifier(model, cache=False, temperature=7.0).fit(images, labels)

    def nodes(image):
        square = np.asarray(Image.fromarray(image).resize((16, 16), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        return model.eval().embed(torch.from_numpy(square.copy())[None])[0].half().float()

    with torch.no_grad():
        means = torch.stack([torch.stack([nodes(i) for i, k in zip(images, labels, strict=True) if k == kind]).mean(0)
                             for kind in KINDS])  # fmt: skip
        expected = emd_logits(torch.stack([nodes(q) for q in queries]), means, temperature=7.0).softmax(-1)
    np.testing.assert_allclose(classifier.predict_proba(queries), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("adapt", ["none", "whiten", "ridge"])
def test_leaving_photos_out_is_fitting_without_them(model, adapt):
    images, labels = photos(3)
    images, labels = images[:7], labels[:7]  # 3 dots, 3 noise, 1 stripes
    classifier = FewShotClassifier(model, cache=False, temperature=7.0, adapt=adapt).fit(images, labels)
    examples, places, proba = classifier.leave_one_out()
    assert [example.name for example in examples] == [f"image {k}" for k in range(6)]  # the only stripes is left out
    for k in range(6):
        rest = FewShotClassifier(model, cache=False, temperature=7.0, adapt=adapt)
        others = [j for j in range(7) if j % 3 != k % 3 or j == 6]  # a fold holds the k-th photo of each class
        rest.fit([images[j] for j in others], [labels[j] for j in others])
        np.testing.assert_allclose(proba[k], rest.predict_proba([images[k]])[0], atol=1e-4)
        assert classifier.classes_[places[k]] == labels[k]


def test_adding_classes_and_photos_is_fitting_all_at_once(model):
    images, labels = photos(3)
    whole = FewShotClassifier(model, cache=False).fit(images, labels)
    parts = FewShotClassifier(model, cache=False).fit(images[:5], labels[:5])
    before = parts.support_.prototypes[0].clone()
    parts.partial_fit(images[5:], labels[5:])
    assert torch.equal(parts.support_.prototypes[0], before)  # no photo of it was added
    assert parts.classes_.tolist() == whole.classes_.tolist()
    np.testing.assert_allclose(parts.predict_proba(images), whole.predict_proba(images), atol=1e-5)
    assert parts.temperature_ == pytest.approx(whole.temperature_)


def test_a_class_added_later_takes_its_place_among_the_sorted_labels(model):
    images, labels = photos(3)
    later = FewShotClassifier(model, cache=False).fit(images[3:], labels[3:]).partial_fit(images[:3], labels[:3])
    whole = FewShotClassifier(model, cache=False).fit(images, labels)
    assert later.classes_.tolist() == list(KINDS)  # "dots", added last, comes first
    np.testing.assert_allclose(later.predict_proba(images), whole.predict_proba(images), atol=1e-9)
    assert later.predict(images).tolist() == whole.predict(images).tolist()
    assert [e.key for e in later.leave_one_out()[0]] != [e.key for e in whole.leave_one_out()[0]]  # order of the photos
    assert later.support_.count.tolist() == [3, 3, 3]
    assert later.forget("dots").classes_.tolist() == ["noise", "stripes"]


@pytest.mark.parametrize("index", ["shuffled", "split", "texts"])
def test_columns_of_pandas_are_taken_by_position(folder, index, tmp_path):
    files = sorted(folder.rglob("*.png"))
    table = pd.DataFrame({"path": list(map(str, files)), "label": [file.parent.name for file in files]})
    table = table.sample(frac=1, random_state=3)
    if index == "split":
        table = table[table.index % 2 == 0]
    if index == "texts":
        table.index = [f"row {k}" for k in range(len(table))]
    by_list = FewShotClassifier(cache=tmp_path).fit(table.path.tolist(), table.label.tolist())
    by_column = FewShotClassifier(cache=tmp_path).fit(table.path, table.label)
    by_table = FewShotClassifier(cache=tmp_path).partial_fit(table[["path"]], table[["label"]].to_numpy())
    for classifier in (by_list, by_column, by_table):
        assert [e.name for e in classifier.support_.examples] == table.path.tolist()
        shown = [np.asarray(e.image()).mean() for e in classifier.support_.examples]
        np.testing.assert_allclose(shown, [np.asarray(Image.open(path)).mean() for path in table.path], atol=1.5)
        assert torch.equal(classifier.support_.nodes, by_list.support_.nodes)
        assert classifier.predict(table.path).tolist() == by_list.predict(iter(table.path.tolist())).tolist()
        assert [row.label for row in classifier.stream(table[["path"]])] == by_list.predict(table.path).tolist()
        assert classifier.score(table.path, table.label) == by_list.score(table.path.tolist(), table.label.tolist())
        for path in table.path[:3]:
            assert classifier.explain(path).example == by_list.explain(path).example
    assert cross_val_score(FewShotClassifier(cache=tmp_path), table.path, table.label, cv=2).min() >= 0


def test_one_image_is_not_a_list_of_images(fitted, folder):
    picture = texture("dots", 5)
    path = next(folder.rglob("*.png"))
    for one in (picture, picture[..., 0], Image.fromarray(picture), str(path), path, torch.zeros(3, 8, 8)):
        for method in (fitted.predict, fitted.predict_proba, fitted.stream, lambda X: fitted.fit_readable(X, ["a"])):
            with pytest.raises(InputError, match="pass"):
                method(one)
    with pytest.raises(InputError, match="image is a list: pass one image"):
        fitted.explain([picture])
    assert fitted.predict([]).tolist() == []


def test_images_of_a_generator_are_not_held_in_memory(fitted):
    alive, most = 0, 0

    def died():
        nonlocal alive
        alive -= 1

    def frames():
        nonlocal alive, most
        for seed in range(200):
            frame = texture("dots", seed, (8, 8))
            weakref.finalize(frame, died)
            alive += 1
            most = max(most, alive)
            yield frame

    assert sum(1 for _ in fitted.stream(frames())) == 200
    assert most < 40  # two batches, not all 200


def test_batches_and_order_make_no_difference(fitted):
    queries, _ = photos(3, first=20)
    together = fitted.predict_proba(queries)
    one_by_one = copy.copy(fitted)
    one_by_one.batch_size = 1
    np.testing.assert_allclose(one_by_one.predict_proba(queries[::-1])[::-1], together, atol=2e-3)


def test_photos_beyond_those_kept_count_in_the_mean(model, monkeypatch):
    images, labels = photos(5)
    whole = FewShotClassifier(model, cache=False, temperature=7.0).fit(images, labels)
    monkeypatch.setattr("deepemd.classifier.learning.MAX_EXAMPLES", 2)
    few = FewShotClassifier(model, cache=False, temperature=7.0).fit(images, labels)
    assert len(few.support_.examples) == 6
    assert support_module.MAX_EXAMPLES == 100
    assert torch.equal(few.support_.prototypes, whole.support_.prototypes)


def test_textures_are_told_apart_by_the_encoder_that_is_installed(fitted):
    queries, kinds = photos(4, first=100)
    assert fitted.predict(queries).tolist() == kinds
    np.testing.assert_allclose(fitted.predict_proba(queries).sum(1), 1)


def test_labels_come_back_in_their_own_type(model):
    images, _ = photos(2)
    for labels in ([3, 3, 1, 1, 2, 2], [0.5, 0.5, 1.0, 1.0, 2.0, 2.0], [True, True, False, False, True, True]):
        if isinstance(labels[0], float):
            with pytest.raises(ValueError, match="continuous"):
                FewShotClassifier(model, cache=False).fit(images, labels)
            continue
        found = FewShotClassifier(model, cache=False).fit(images, labels).predict(images)
        assert found.dtype == np.asarray(labels).dtype


def test_what_resembles_nothing_is_unknown():
    images, labels = photos(20)
    asked = FewShotClassifier(cache=False, unknown=0.05).fit(images, labels)
    letters = [np.asarray(load("glyphs").splits["novel"].image(k)) for k in range(0, 600, 100)]
    strange = list(asked.stream(letters))
    assert np.mean([p.label == "unknown" for p in strange]) > 0.5
    assert all(not p.familiar for p in strange if p.label == "unknown")
    known = asked.predict(photos(10, first=300)[0])
    assert np.mean(known == "unknown") < 0.2
    silent = copy.copy(asked)
    silent.unknown = None
    assert "unknown" not in silent.predict(letters)


# Explanations


def test_too_few_photos_for_unknown_are_said(model):
    images, labels = photos(5)  # 15 photos, and a share of 0.05 takes 19
    with pytest.warns(UserWarning, match=r"unknown is 0\.05, which takes at least 19 photos .* there are 15: no image"):
        classifier = FewShotClassifier(model, cache=False, unknown=0.05).fit(images, labels)
    for method in (classifier.predict, lambda X: list(classifier.stream(X)), classifier.predict_proba):
        with pytest.warns(UserWarning, match="at least 19 photos"):
            method(images[:1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        more, kinds = photos(2, first=50)
        classifier.partial_fit(more, kinds).predict(images[:1])  # now there are 21
        assert classifier.familiar_threshold_ > -np.inf
        assert FewShotClassifier(model, cache=False, unknown=0.07).fit(images, labels).familiar_threshold_ > -np.inf
        FewShotClassifier(model, cache=False).fit(images[:6], labels[:6]).predict(images[:1])  # nobody asked
    alone = [f"class {k}" for k in range(15)]
    with pytest.warns(UserWarning, match="there are 0: no image is labelled 'unknown'. Add photos$"):
        FewShotClassifier(model, cache=False, unknown=0.05).fit(images, alone)


def test_a_class_named_as_the_unknown_label_is_refused(model):
    images, _ = photos(3)
    labels = ["dots"] * 3 + ["Unknown "] * 3 + ["stripes"] * 3
    with pytest.raises(InputError, match="a class is named 'Unknown ', and unknown images are labelled 'unknown'"):
        FewShotClassifier(model, cache=False, unknown=0.2).fit(images, labels)
    classifier = FewShotClassifier(model, cache=False, unknown=0.2).fit(images[:6], labels[:3] + labels[6:])
    with pytest.raises(InputError, match="a class is named 'unknown'"):
        classifier.partial_fit(images[6:], ["unknown"] * 3)
    assert classifier.classes_.tolist() == ["dots", "stripes"]
    FewShotClassifier(model, cache=False).fit(images, labels)  # without unknown=, it is a name like others
    FewShotClassifier(model, cache=False, unknown=0.2, unknown_label="none").fit(images, labels)
    for twin in ("unknown\u200b", "ｕｎｋｎｏｗｎ", "unknоwn"):  # marks, wide letters, a Cyrillic one
        with pytest.raises(InputError, match="a class is named"):
            FewShotClassifier(model, cache=False, unknown=0.2).fit(images, ["dots"] * 6 + [twin] * 3)
    with pytest.raises(InputError, match="a class is named 0"):
        FewShotClassifier(model, cache=False, unknown=0.2, unknown_label=0).fit(images, [0] * 3 + [1] * 6)


def test_an_explanation_is_the_transport_to_the_nearest_photo_of_the_class(fitted):
    query = texture("dots", 77, (90, 60))
    explanation = fitted.explain(query)
    m = explanation.match
    assert explanation.prediction.label == "dots"
    assert m.query.size == (60, 90)
    assert m.plan.sum() == pytest.approx(1)
    assert m.similarity == pytest.approx((m.plan * (1 - m.cost)).sum(), abs=1e-6)
    np.testing.assert_allclose(m.plan.sum(1), m.a, atol=1e-6)
    np.testing.assert_allclose(m.plan.sum(0), m.b, atol=1e-6)
    assert m.query_boxes.min() == 0
    assert m.query_boxes.max(0).tolist()[2:] == pytest.approx([60, 90])
    assert m.support_boxes.max(0).tolist()[2:] == pytest.approx([40, 48])
    flows = m.flows()
    assert flows == sorted(flows, key=lambda flow: -flow[2])
    assert sum(flow[2] for flow in flows) == pytest.approx(1)
    nearest = max((fitted.explain(query, label="dots").match.similarity, e.name) for e in fitted.support_.examples[:1])
    assert m.similarity >= nearest[0] - 1e-6
    assert fitted.explain(query, label="noise").example.split()[1] in map(str, range(4, 8))
    with pytest.raises(InputError, match="label is 'cat': choose one of dots, noise, stripes"):
        fitted.explain(query, label="cat")


def test_sampled_patches_of_an_explanation_are_those_that_were_encoded(folder, model):
    classifier = FewShotClassifier(model, regions=Sampling(4), cache=False).fit_folder(folder)
    path = folder / "dots" / "1.png"
    m = classifier.explain(path).match
    assert m.similarity == pytest.approx(1, abs=1e-3)  # the photo itself is among the support
    assert (m.query_boxes == m.support_boxes).all()


# Kinds of images


def test_paths_pictures_and_arrays_of_one_image_agree(folder, fitted):
    path = folder / "dots" / "0.png"
    picture = Image.open(path)
    array = np.asarray(picture)
    kinds = [path, str(path), picture, array, array / 255, Image.fromarray(array).convert("RGBA")]
    found = fitted.predict_proba(kinds)
    np.testing.assert_allclose(found, np.tile(found[:1], (len(kinds), 1)), atol=2e-3)
    grey = array[..., 0]
    np.testing.assert_allclose(
        fitted.predict_proba([grey, grey[..., None]]), fitted.predict_proba([np.stack([grey] * 3, -1)] * 2), atol=2e-3
    )


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (np.zeros((4, 4, 5), np.uint8), r"image 0: ndarray of uint8 \(4, 4, 5\): pass a path"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (np.full((4, 4, 3), 2.0), "from 2 to 2: pass uint8, or floats from 0 to 1"),
        (np.full((4, 4), np.nan), "pass uint8, or floats from 0 to 1"),
        (np.full((4, 4, 3), -300, np.int32), "pass uint8"),
        (None, "image 0"),
        ("missing.jpg", r"missing\.jpg: there is no such file"),
        (3, "image 0: int of int64"),
    ],
)
def test_what_is_no_image_is_refused_and_the_rest_goes_on(image, told, fitted):
    with pytest.raises(InputError, match=told):
        fitted.predict([image])
    good = texture("dots", 5)
    rows = list(fitted.stream([good, image, good]))
    assert [row.error is None for row in rows] == [True, False, True]
    assert rows[0].label == rows[2].label == "dots"


# Bad input


def test_bad_labels_and_settings_are_explained(model, tmp_path):
    images, labels = photos(2)
    for X, y, told in (
        (images, labels[:-1], "one label for each image"),
        (images, ["dots"] * 6, "pass photos of at least two classes"),
        (images, [*labels[:-1], None], r"y\[5\] is None"),
        (images, [*labels[:-1], 1], "y holds texts and other labels"),
        ([], [], "X is empty"),
        (images, list(map(Path, labels)), "y: Unknown label type.*: pass texts or whole numbers as labels"),
    ):
        with pytest.raises(InputError, match=told):
            FewShotClassifier(model, cache=False).fit(X, y)
    for settings, told in (
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"unknown": 1.5}, "unknown is 1.5"),
        ({"temperature": "30"}, "temperature is '30'"),
        ({"unknown": "0.05"}, "unknown is '0.05'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 2.5}, "batch_size is 2.5: it must be a whole number"),
        ({"regions": "circle"}, "regions is 'circle'"),
        ({"backbone": str(tmp_path / "nothing")}, "nothing"),
    ):
        with pytest.raises(InputError, match=told):
            FewShotClassifier(**{"backbone": model, "cache": False, **settings}).fit(images, labels)


def test_no_images_have_labels_of_the_type_of_the_classes(fitted):
    assert fitted.predict([]).dtype == fitted.classes_.dtype
    assert fitted.predict_proba([]).shape == (0, len(fitted.classes_))


def test_labels_of_another_type_are_not_converted(model):
    images, labels = photos(2)
    classifier = FewShotClassifier(model, cache=False).fit(images, [KINDS.index(label) for label in labels])
    with pytest.raises(InputError, match=r"y holds 'dots', but the classes so far are \[0, 1, 2\]"):
        classifier.partial_fit(images[:1], ["dots"])
    assert classifier.classes_.tolist() == [0, 1, 2]


def test_a_folder_with_a_bad_photo_is_learnt_without_it(folder, model):
    (folder / "dots" / "broken.jpg").write_bytes(b"\xff\xd8\xff no image")
    with pytest.warns(UserWarning, match=r"left out, as they cannot be read:\n.*broken\.jpg"):
        classifier = FewShotClassifier(model, cache=False).fit_folder(folder)
    assert classifier.support_.count.tolist() == [4, 4, 4]


def test_a_saved_model_is_replaced_only_on_request(fitted, tmp_path):
    folder = fitted.save(tmp_path / "saved")
    before = (folder / "config.json").read_bytes()
    other = copy.copy(fitted).partial_fit([texture("dots", 900)], ["spots"])
    with pytest.raises(InputError, match=r"config\.json and .*model\.safetensors: already there: .* pass force=True"):
        other.save(folder)
    assert (folder / "config.json").read_bytes() == before
    with pytest.raises(InputError, match=r"config\.json: of a classifier, whose classes would be lost"):
        fitted.model_.save(folder)
    other.save(folder, force=True)
    assert "spots" in FewShotClassifier.load(folder, cache=False).classes_


def test_a_photo_that_cannot_be_read_leaves_the_classifier_as_it_was(folder, model):
    classifier = FewShotClassifier(model, cache=False).fit_folder(folder)
    before = classifier.support_
    (folder / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"broken\.jpg: not an image"):
        classifier.partial_fit([folder / "dots" / "0.png", folder / "broken.jpg"], ["new", "new"])
    assert classifier.support_ is before
    assert classifier.classes_.tolist() == list(KINDS)


def test_a_classifier_whose_fit_failed_is_not_fitted(folder, model):
    classifier = FewShotClassifier(model, cache=False)
    (folder / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"broken\.jpg: not an image"):
        classifier.fit([folder / "dots" / "0.png", folder / "broken.jpg"], ["dots", "broken"])
    for ask in (classifier.predict, classifier.explain):
        with pytest.raises(NotFittedError, match="call fit before this method"):
            ask([folder / "dots" / "0.png"])


def test_a_single_class_that_is_left_tells_nothing(model):
    images, labels = photos(2)
    alone = FewShotClassifier(model, cache=False).partial_fit(images[:2], labels[:2])
    for ask in (alone.predict, alone.predict_proba):
        with pytest.raises(InputError, match="the only class is 'dots': at least two are needed"):
            ask(images)
    with pytest.raises(InputError, match="the only class is 'dots'"):
        alone.explain(images[0])
    assert set(alone.partial_fit(images[2:], labels[2:]).predict(images)) <= set(KINDS)


def test_one_photo_a_class_is_enough(model):
    images, labels = photos(1)
    classifier = FewShotClassifier(model, cache=False).fit(images, labels)
    assert classifier.predict(images).tolist() == labels
    assert classifier.familiar_threshold_ == -np.inf  # nothing is known of how alike photos of a class are
    assert classifier.leave_one_out()[2].shape == (0, 3)


# Saving


def test_a_saved_classifier_is_the_classifier(fitted, tmp_path):
    fitted.save(tmp_path / "saved")
    again = FewShotClassifier.load(tmp_path / "saved", cache=False)
    queries, _ = photos(2, first=60)
    np.testing.assert_array_equal(again.predict_proba(queries), fitted.predict_proba(queries))
    assert again.familiar_threshold_ == fitted.familiar_threshold_
    assert again.explain(queries[0]).example == fitted.explain(queries[0]).example
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == ["config.json", "model.safetensors"]
    alone = DeepEMD.load(tmp_path / "saved")
    assert alone.config == fitted.model_.config
    again.partial_fit([texture("dots", 900)], ["spots"])
    assert again.classes_.tolist() == sorted([*KINDS, "spots"])
    numbers = FewShotClassifier(small_model(), cache=False).fit(photos(2)[0], [7, 7, 5, 5, 9, 9])
    back = FewShotClassifier.load(numbers.save(tmp_path / "numbers"), cache=False)
    assert back.predict(photos(2)[0]).tolist() == [7, 7, 5, 5, 9, 9]


def test_a_damaged_classifier_is_explained(model, tmp_path):
    saved = FewShotClassifier(model, cache=False).fit(*photos(2)).save(tmp_path / "saved")

    def spoilt(name: str) -> Path:
        shutil.rmtree(tmp_path / "spoilt", ignore_errors=True)
        shutil.copytree(saved, tmp_path / "spoilt")
        return tmp_path / "spoilt" / name

    weights = spoilt("model.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"model\.safetensors: damaged or truncated"):
        FewShotClassifier.load(weights.parent)
    config = spoilt("config.json")
    kept = json.loads(config.read_text())
    for change in (
        {"examples": kept["classifier"]["examples"][:-1]},
        {"classes": None},
        {"classes": ["dots"]},
        {"temperature": "x"},
    ):
        config.write_text(json.dumps({**kept, "classifier": {**kept["classifier"], **change}}))
        with pytest.raises(InputError, match=r"config\.json: .*save (it|the classifier) again"):
            FewShotClassifier.load(config.parent)
    with pytest.raises(InputError, match="a model without classes"):
        FewShotClassifier.load(model.save(tmp_path / "model"))


# The cache


def test_files_that_have_not_changed_are_not_encoded_again(folder, tmp_path, monkeypatch):
    classifier = FewShotClassifier(cache=tmp_path / "cache").fit_folder(folder)
    paths = sorted(folder.glob("*/*.png"))
    first = classifier.predict_proba(paths)
    kept = sorted((tmp_path / "cache").rglob("*.npz"))
    assert len(kept) == 12
    encoded = []
    monkeypatch.setattr(DeepEMD, "embed", lambda _self, images, *_: encoded.append(len(images)))
    np.testing.assert_array_equal(classifier.predict_proba(paths), first)
    assert not encoded
    monkeypatch.undo()
    kept[0].write_bytes(kept[0].read_bytes()[:100])  # a damaged entry is made anew
    np.testing.assert_allclose(classifier.predict_proba(paths), first, atol=2e-3)
    assert len(np.load(kept[0])["nodes"]) == 25
    Image.fromarray(texture("noise", 7)).save(paths[0])
    assert classifier.predict([paths[0]])[0] == "noise"


def test_images_in_memory_and_other_models_share_nothing(folder, model, tmp_path):
    cache = tmp_path / "cache"
    FewShotClassifier(model, cache=cache).fit(*photos(2))
    assert not list(cache.rglob("*.npz"))
    FewShotClassifier(model, cache=cache).fit_folder(folder)
    FewShotClassifier(model, regions="grid:2", cache=cache).fit_folder(folder)
    assert len({file.parts[-3] for file in cache.rglob("*.npz")}) == 2  # a folder for each model
    assert model.regions == FCN()


def test_an_unwritable_cache_costs_time_only(folder, model, tmp_path):
    (tmp_path / "file").write_text("in the way")
    classifier = FewShotClassifier(model, cache=tmp_path / "file" / "cache").fit_folder(folder)
    assert classifier.predict(sorted(folder.glob("*/0.png"))).tolist() == list(KINDS)


# Calibration


def test_the_temperature_is_the_one_that_made_the_labels():
    rng = np.random.default_rng(0)
    similarity = torch.from_numpy(rng.uniform(0, 1, (4000, 5)))
    for truth in (5.0, 40.0):
        proba = (truth * similarity).softmax(1)
        labels = torch.multinomial(proba, 1, generator=torch.Generator().manual_seed(0))[:, 0]
        assert fit_temperature(similarity, labels, prior=30.0) == pytest.approx(truth, rel=0.08)
    assert fit_temperature(similarity[:0], labels[:0], prior=12.0) == 12.0
    perfect = torch.eye(3).repeat(2, 1)
    assert (
        fit_temperature(perfect, torch.arange(3).repeat(2), prior=30.0) < 200
    )  # six right answers are no proof of certainty


def test_the_threshold_is_crossed_by_the_share_that_was_asked_for():
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(3000):
        known = torch.from_numpy(rng.standard_normal(25))
        shares.append(rng.standard_normal() < conformal_threshold(known, 0.2))
    assert np.mean(shares) == pytest.approx(5 / 26, abs=0.025)
    assert conformal_threshold(torch.zeros(18), 0.05) == -np.inf


# Real photos


def test_real_photos_are_classified(shared_data, tmp_path):
    import zipfile

    rows = (shared_data / "miniimagenet" / "val.csv").read_text().split()[1:]
    by_class: dict[str, list[str]] = {}
    for name, label in (row.split(",") for row in rows):
        by_class.setdefault(label, []).append(name)
    chosen = ["n01855672", "n02091244", "n02138441", "n02981792", "n03417042"]
    with zipfile.ZipFile(shared_data / "miniimagenet" / "val.zip") as archive:
        entries = {Path(name).name: name for name in archive.namelist()}
        for label in chosen:
            (tmp_path / label).mkdir()
            for name in by_class[label][:15]:
                (tmp_path / label / name).write_bytes(archive.read(entries[name]))
    support = [path for label in chosen for path in sorted((tmp_path / label).iterdir())[:5]]
    query = [path for label in chosen for path in sorted((tmp_path / label).iterdir())[5:]]
    classifier = FewShotClassifier(cache=False).fit(support, [path.parent.name for path in support])
    assert classifier.score(query, [path.parent.name for path in query]) > 0.85


# Other outputs


def test_the_decision_function_is_the_logarithm_of_the_probabilities(fitted):
    queries, _ = photos(2, first=60)
    logits = fitted.decision_function(queries)
    proba = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(proba, fitted.predict_proba(queries), atol=1e-9)


def test_the_decision_function_of_two_classes_is_one_number(model):
    images, labels = photos(3)
    two = FewShotClassifier(model, cache=False).fit(images[:6], labels[:6])
    found = two.decision_function(images[:6])
    assert found.shape == (6,)
    assert (two.classes_[(found > 0).astype(int)] == two.predict(images[:6])).all()


def test_embeddings_for_other_tools(fitted, model):
    queries, labels = photos(3, first=60)
    found = fitted.transform(queries)
    assert found.shape[0] == 9
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    from sklearn.neighbors import KNeighborsClassifier

    piped = make_pipeline(FewShotClassifier(cache=False), KNeighborsClassifier(1)).fit(*photos(4))
    assert piped.score(queries, labels) > 0.8
    plain = FewShotClassifier(model, cache=False, adapt="none").fit(*photos(2))
    assert plain.transform(queries).shape == (9, 8)
    assert plain.transform([]).shape == (0, 8)


def test_score_takes_a_column_of_images(fitted, folder):
    paths = np.array(sorted(map(str, folder.glob("*/*.png"))), dtype=object)
    labels = [Path(path).parent.name for path in paths]
    assert fitted.score(paths[:, None], labels) == fitted.score(paths, labels) == 1


# Prediction sets and unsure labels


def test_prediction_sets_hold_the_probable_classes(model):
    fitted = FewShotClassifier(model, cache=False).fit(*photos(4))
    queries, _ = photos(3, first=60)
    sets = fitted.predict_set(queries, coverage=0.75)
    assert all(one and set(one) <= set(KINDS) for one in sets)
    assert [one[0] for one in sets] == fitted.predict(queries).tolist()
    wider = fitted.predict_set(queries, coverage=0.9)
    assert all(set(a) <= set(b) for a, b in zip(sets, wider, strict=True))


def test_a_coverage_out_of_reach_is_said_and_holds_all_classes(model):
    classifier = FewShotClassifier(model, cache=False).fit(*photos(3))
    with pytest.warns(UserWarning, match=r"coverage is 0\.95, which takes at least 19 photos .* there are 9"):
        assert all(len(one) == 3 for one in classifier.predict_set(photos(1)[0]))


@pytest.mark.parametrize("coverage", [0, 1, 1.5, -0.1, "0.9", None, float("nan"), True])
def test_a_coverage_is_a_share(fitted, coverage):
    with pytest.raises(InputError, match=r"coverage is .*such as 0\.95"):
        fitted.predict_set(photos(1)[0], coverage=coverage)


def test_predictions_have_their_sets(model):
    classifier = FewShotClassifier(model, cache=False, coverage=0.8).fit(*photos(4))
    queries, _ = photos(2, first=60)
    assert [one.labels for one in classifier.stream(queries)] == classifier.predict_set(queries, coverage=0.8)
    assert all(not one.labels for one in FewShotClassifier(model, cache=False).fit(*photos(4)).stream(queries))


def test_below_the_threshold_a_label_is_unsure(model):
    queries, _ = photos(2, first=60)
    plain = FewShotClassifier(model, cache=False).fit(*photos(2))
    middle = float(np.median(plain.predict_proba(queries).max(1)))
    classifier = FewShotClassifier(model, cache=False, threshold=middle).fit(*photos(2))
    for sure, one in zip(plain.stream(queries), classifier.stream(queries), strict=True):
        assert one.label == (sure.label if sure.probability >= middle else "unsure")
        if one.label == "unsure":
            assert one.runner_up == sure.label
    with pytest.raises(InputError, match="a class is named 'unsure', and unsure images are labelled 'unsure'"):
        FewShotClassifier(model, cache=False, threshold=0.5).fit(photos(1)[0], ["unsure", "a", "b"])


@pytest.mark.parametrize("settings", [{"adapt": "some"}, {"threshold": 1}, {"coverage": 0}, {"unknown": 2}], ids=str)
def test_settings_out_of_range_are_refused(model, settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        FewShotClassifier(model, cache=False, **settings).fit(*photos(2))


# Adaptation


def test_what_was_chosen_is_said(model):
    few = FewShotClassifier(cache=False).fit(*photos(2))
    assert few.adaptation_.startswith('"ridge')
    assert "too few" in few.adaptation_ or "so few photos" in few.adaptation_
    fixed = FewShotClassifier(model, cache=False, adapt="whiten").fit(*photos(2))
    assert fixed.adaptation_ == '"whiten", as set'


def test_the_evidence_explains_the_similarity():
    classifier = FewShotClassifier(cache=False, adapt="ridge").fit(*photos(3))
    found = classifier.explain(texture("dots", 77))
    similarity = classifier.decision_function([texture("dots", 77)])[0] / classifier.temperature_
    np.testing.assert_allclose(found.evidence.sum(0) + 1 / 3, similarity, atol=1e-9)
    np.testing.assert_array_equal(found.match.evidence, found.evidence[:, similarity.argmax()])


def test_the_match_explains_the_similarity_of_whitened_nodes():
    images, labels = photos(1)
    classifier = FewShotClassifier(cache=False, adapt="whiten").fit(images, labels)
    found = classifier.explain(texture("dots", 77))
    similarity = classifier.decision_function([texture("dots", 77)])[0] / classifier.temperature_
    assert found.match.similarity == pytest.approx(similarity.max(), abs=1e-9)  # one photo is the class
    assert found.evidence is None


def test_an_explanation_is_a_figure_and_html(fitted, tmp_path):
    found = fitted.explain(texture("dots", 77))
    assert found.plot().axes
    assert found.plot(tmp_path / "why.png").stat().st_size > 1000
    assert "<b>dots</b>" in found._repr_html_()
    assert "data:image/png;base64," in found._repr_html_()

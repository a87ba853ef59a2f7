"""Embedding images of any kind: each is decoded once, weights are hashed once, and no process is changed."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deepemd import FCN, DeepEMD, FewShotClassifier, Grid, InputError, Sampling, conv4
from deepemd.apps.photos.fitting import fit_photos
from deepemd.data import decoding
from deepemd.embedding import stream
from deepemd.embedding.stream import Embedder


@pytest.fixture
def model() -> DeepEMD:
    torch.manual_seed(0)
    return DeepEMD(conv4(channels=8, pools=2), FCN(), image_size=16, resize=16).eval()


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three classes of four photos each, of 100 x 70 pixels."""
    for k in range(12):
        path = tmp_path / "photos" / "abc"[k % 3] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(k).integers(0, 80, (70, 100, 3)) + np.array([0, 80, 160])[k % 3]
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return tmp_path / "photos"


@pytest.fixture
def calls(monkeypatch) -> dict[str, int]:
    """How often images are decoded, models hashed and caches listed."""
    counts = {"decoded": 0, "hashed": 0, "pruned": 0}

    def count(module: object, name: str, key: str) -> None:
        original = getattr(module, name)

        def counted(*args, **options):
            counts[key] += 1
            return original(*args, **options)

        monkeypatch.setattr(module, name, counted)

    count(decoding, "read_image", "decoded")
    count(stream, "read_image", "decoded")
    count(stream, "model_folder", "hashed")
    count(stream, "prune", "pruned")
    return counts


def test_a_folder_of_photos_is_decoded_once_and_the_next_run_decodes_no_query(folder, tmp_path, model, calls):
    saved = str(model.save(tmp_path / "model"))
    queries = sorted(folder.glob("*/*.png"))
    fitted = fit_photos(folder, backbone=saved, cache=tmp_path / "cache").classifier
    assert calls == {"decoded": 12, "hashed": 1, "pruned": 1}
    list(fitted.stream(queries))
    for query in queries[:3]:
        fitted.predict([query])
    assert calls == {"decoded": 12, "hashed": 1, "pruned": 1}  # all of it from the cache
    fitted.explain(queries[0])
    assert calls == {"decoded": 14, "hashed": 1, "pruned": 1}  # the query, and the small picture of the example


def test_an_image_comes_with_its_picture_whether_it_is_cached_or_not(folder, tmp_path, model):
    paths = sorted(folder.glob("*/*.png"))
    embedder = Embedder(model, tmp_path / "cache", batch_size=3)
    sides = [0, 50, math.inf] * 4
    for _ in range(2):
        rows = list(embedder.stream(paths, side=sides.__getitem__))
        for row, side in zip(rows, sides, strict=True):
            if not side:
                assert row.picture is None
                assert not row.thumbnail
                continue
            assert row.size == (70, 100)
            picture = row.picture if side == math.inf else decoding.decode(row.thumbnail, "thumbnail")
            assert max(picture.size) == min(side, 100)


@pytest.mark.parametrize("regions", [FCN(), FCN((2,)), Grid((2,)), Sampling(3)], ids=str)
def test_the_nodes_of_an_image_do_not_depend_on_its_batch(folder, model, regions):
    """Up to one rounding to float16: on some processors the size of a batch changes the last digit of float32."""
    model.regions = regions
    paths = sorted(folder.glob("*/*.png"))
    whole = torch.stack([row.nodes for row in Embedder(model, batch_size=12).stream(paths)])
    for size in (1, 2, 3, 5):
        found = torch.stack([row.nodes for row in Embedder(model, batch_size=size).stream(paths)])
        torch.testing.assert_close(found, whole, rtol=2**-10, atol=1e-6)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_nodes_do_not_depend_on_the_threads(folder, model, precision):
    paths = sorted(folder.glob("*/*.png"))
    expected = [row.nodes for row in Embedder(model, precision=precision).stream(paths)]
    torch.set_num_threads(3)
    found = [row.nodes for row in Embedder(model, precision=precision).stream(paths)]
    assert torch.get_num_threads() == 3
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_number_formats_do_not_share_the_cache(folder, model, tmp_path):
    paths = sorted(folder.glob("*/*.png"))[:2]
    for precision in ("32", "bf16"):
        list(Embedder(model, tmp_path / "cache", precision=precision).stream(paths))
    assert len(list((tmp_path / "cache").rglob("*.npz"))) == 4


@pytest.mark.usefixtures("one_thread")
def test_a_batch_is_as_large_as_its_images_need(folder, model, monkeypatch):
    sizes = []
    embed = DeepEMD.embed
    monkeypatch.setattr(
        DeepEMD, "embed", lambda self, images, boxes=None: sizes.append(len(images)) or embed(self, images, boxes)
    )
    paths = sorted(folder.glob("*/*.png"))
    for count in (1, 2, 5, 8, 11):
        list(Embedder(model, batch_size=8).stream(paths[:count]))
    assert sizes == [2, 2, 5, 8, 8, 3]


def test_changed_weights_or_regions_are_other_embeddings(folder, tmp_path, model):
    paths = sorted(folder.glob("*/*.png"))[:2]
    embedder = Embedder(model, tmp_path / "cache")
    before = [row.nodes for row in embedder.stream(paths)]
    with torch.no_grad():
        model.backbone.blocks[0].conv.weight.mul_(-1)
    after = [row.nodes for row in embedder.stream(paths)]
    assert not torch.equal(before[0], after[0])
    model.backbone.blocks[0].conv.weight.data.mul_(-1)  # torch counts no version for this
    torch.testing.assert_close([row.nodes for row in embedder.stream(paths)], before)
    model.regions = Grid((2,))
    assert next(iter(embedder.stream(paths))).nodes.shape == (4, 8)
    assert len({file.parts[-3] for file in (tmp_path / "cache").rglob("*.npz")}) == 3  # a folder for each model


def test_settings_that_change_after_fitting_are_used(folder, tmp_path, model):
    classifier = FewShotClassifier(model, cache=False).fit_folder(folder)
    paths = sorted(folder.glob("*/*.png"))
    classifier.predict(paths)
    classifier.set_params(cache=tmp_path / "cache", batch_size=2)
    classifier.predict(paths)
    assert len(list((tmp_path / "cache").rglob("*.npz"))) == 12


def test_photos_that_cannot_be_read_are_left_out_and_reported(folder, model):
    bad = folder / "a" / "bad.png"
    bad.write_text("milk")
    paths = sorted(folder.glob("*/*.png"))
    labels = [path.parent.name for path in paths]
    classifier = FewShotClassifier(model, cache=False)
    errors = classifier.fit_readable(paths, labels)
    assert [path for path, error in zip(paths, errors, strict=True) if error] == [bad]
    whole = FewShotClassifier(model, cache=False)
    whole.fit([p for p in paths if p != bad], [k for p, k in zip(paths, labels, strict=True) if p != bad])
    np.testing.assert_allclose(classifier.predict_proba(paths[:3]), whole.predict_proba(paths[:3]), atol=1e-3)
    with pytest.raises(InputError, match=r"no photo of 'b' can be read:\n  .*bad\.png: not an image"):
        classifier.fit_readable([paths[0], bad], ["a", "b"])


def test_photos_that_cannot_be_read_take_no_place_among_the_examples(folder, model, monkeypatch):
    monkeypatch.setattr("deepemd.classifier.learning.MAX_EXAMPLES", 2)
    (folder / "a" / "00.png").write_text("milk")  # the first of its class
    paths = sorted(folder.glob("*/*.png"))
    classifier = FewShotClassifier(model, cache=False)
    classifier.fit_readable(paths, [path.parent.name for path in paths])
    good = [path for path in paths if path.name != "00.png"]
    plain = FewShotClassifier(model, cache=False).fit(good, [path.parent.name for path in good])
    assert [e.name for e in classifier.support_.examples] == [e.name for e in plain.support_.examples]
    assert [e.size for e in classifier.support_.examples] == [(70, 100)] * 6
    assert classifier.support_.examples[1].image().size == (100, 70)


def test_a_library_call_leaves_the_memory_settings_of_the_process_alone(tmp_path):
    """Only commands and training tell the C library how to treat freed memory."""
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    code = f"""
import deepemd.device as device, numpy as np, torch
def refuse(): raise SystemExit("a library call changed the process")
device.keep_freed_memory = refuse
from deepemd import FCN, DeepEMD, FewShotClassifier, conv4
model = DeepEMD(conv4(channels=8, pools=2), FCN(), image_size=16, resize=16)
images = [np.full((20, 20, 3), tone, np.uint8) for tone in (10, 200)]
classifier = FewShotClassifier(model, cache=False).fit(images, ["dark", "light"])
classifier.explain({str(tmp_path / "a.png")!r})
import sys
assert not [name for name, module in sys.modules.items()
            if name.startswith("deepemd.") and name != "deepemd.device" and hasattr(module, "keep_freed_memory")]
"""
    subprocess.run([sys.executable, "-c", code], check=True)

"""What a model sees of images, against Pillow: one crop at a time from the original."""

import numpy as np
import pytest
import torch
from PIL import Image

from deepemd import FCN, DeepEMD, Grid, Sampling, conv4
from deepemd.data import Episodes, Images, load
from deepemd.embedding.splits import embed
from deepemd.embedding.views import view, view_pictures
from deepemd.errors import InputError
from deepemd.evaluation.evaluate import evaluate
from deepemd.explain.matches import match
from deepemd.explain.plots import matches_picture

SIZES = [(90, 60), (61, 122), (48, 48), (300, 200)]  # width, height


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """Two classes of smooth colour pictures of several sizes; the last one is turned by its EXIF orientation."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for label in ("a b", "ü"):
        (folder / label).mkdir()
        for i, (width, height) in enumerate(SIZES):
            coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
            image, exif = coarse.resize((width, height), Image.Resampling.BICUBIC), Image.Exif()
            if i == 3:
                exif[0x0112] = 6
            image.save(folder / label / f"{i}.png", exif=exif)
    return load(folder, tmp_path_factory.mktemp("stores")).splits["all"]


@pytest.fixture
def model() -> DeepEMD:
    torch.manual_seed(0)
    return DeepEMD(conv4(channels=8, pools=3), image_size=32, resize=36, max_side=1000).eval()


def pooled(model: DeepEMD, crop: Image.Image) -> torch.Tensor:
    """One patch, encoded on its own."""
    square = np.asarray(crop.resize((32, 32), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    with torch.no_grad():
        maps = model.backbone(model.normalise(torch.from_numpy(square.copy())[None]))
    return maps.mean((2, 3))[0]


@pytest.mark.parametrize("regions", [Grid((3, 2)), Sampling(5)])
def test_nodes_of_patches_are_those_of_crops_by_pillow(photos, model, regions):
    model.regions = regions
    nodes = embed(model, photos, seed=4)
    pictures = [photos.image(i) for i in range(len(photos))]
    assert [picture.size for picture in pictures[:4]] == [*SIZES[:3], (200, 300)]
    boxes = model.boxes([(p.height, p.width) for p in pictures], seed=4)
    assert nodes.shape == (8, boxes.shape[1], 8)
    for i, picture in enumerate(pictures):
        for k, box in enumerate(boxes[i].astype(int).tolist()):
            off = (nodes[i, k] - pooled(model, picture.crop(box))).abs().max()
            assert off < 0.1 * nodes.std(0).mean()  # Pillow rounds to whole numbers; another patch is far off


def test_a_patch_is_found_again_in_an_image_that_was_made_smaller(photos, model):
    model.regions = Grid((2, 1))
    whole = embed(model, photos)
    model.max_side = 64
    seen, boxes = view(model, photos, np.arange(len(photos)))
    assert seen.shape == (8, 3, 64, 64)
    assert boxes[3, 4].tolist() == [0, 0, 43, 64]  # 200 x 300 -> 43 x 64, the patch of level 1 holds it all
    small = embed(model, photos)
    error = (small - whole).abs().mean() / (whole - whole.mean(0)).abs().mean()
    assert 0 < error < 0.35
    images = photos.originals([3, 0], 64)
    assert images.sizes.tolist() == [[64, 43], [43, 64]]
    assert images.original_sizes.tolist() == [[300, 200], [60, 90]]
    assert images.pixels[1, :, 43:].max() == 0


def test_a_large_jpeg_is_decoded_small_and_looks_the_same(tmp_path, model):
    rng = np.random.default_rng(1)
    large = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((1400, 1000), 3)
    (tmp_path / "p" / "c").mkdir(parents=True)
    large.save(tmp_path / "p" / "c" / "1.jpg", quality=95)
    images = load(tmp_path / "p", tmp_path / "s").splits["all"]
    found = images.originals([0], 256)
    assert found.original_sizes.tolist() == [[1000, 1400]]
    assert found.sizes.tolist() == [[183, 256]]
    expected = np.asarray(large.resize((256, 183), Image.Resampling.BOX), dtype=float).transpose(2, 0, 1)
    assert np.abs(found.pixels[0] - expected).mean() < 2
    model.regions, model.max_side = Grid((2,)), 256
    shown = view_pictures(model, [images.image(0)])
    assert torch.equal(shown.boxes, view(model, images, np.array([0])).boxes)


def test_sampling_is_a_function_of_seed_and_image(photos, model):
    model.regions = Sampling(6)
    nodes = embed(model, photos, seed=1)
    assert torch.equal(nodes, embed(model, photos, seed=1))
    assert torch.equal(nodes[[6, 2]], embed(model, photos, np.array([6, 2]), seed=1))
    assert not torch.allclose(nodes, embed(model, photos, seed=2), atol=1e-2)
    episodes = Episodes(n_way=2, n_query=2, n_episodes=40, seed=3)
    first, second = (evaluate(model, photos, episodes) for _ in range(2))
    assert first.accuracies.keys() == second.accuracies.keys()
    assert all(np.array_equal(first.accuracies[m], second.accuracies[m]) for m in first.accuracies)


def test_a_whole_image_is_seen_as_the_paper_evaluates_it(photos, model):
    seen, boxes = view(model, photos, np.array([5, 1]))
    assert boxes is None
    again = view_pictures(model, [photos.image(5), photos.image(1)])
    assert torch.equal(seen, again.images)
    torch.testing.assert_close(embed(model, photos, np.array([5, 1])), model.embed(seen).detach(), atol=1e-4, rtol=1e-3)
    height, width = 122, 61
    expected = [2 * width / 36, 2 * height / 36, 34 * width / 36, 34 * height / 36]
    own = model.boxes([(height, width)])[0]
    assert [*own[0, :2], *own[-1, 2:]] == pytest.approx(expected)


def test_training_draws_new_patches_each_step(photos, model):
    model.regions = Grid((2,))
    indices = np.array([0, 0, 3])
    one, two = (view(model, photos, indices, seed=seed, training=True).boxes for seed in (1, 2))
    assert not torch.equal(one, two)
    assert not torch.equal(one[0], one[1])  # the same image twice in a batch
    assert torch.equal(one, view(model, photos, indices, seed=1, training=True).boxes)


def test_what_does_not_fit_is_refused(photos, model):
    with pytest.raises(InputError, match="boxes and flip are for Grid and Sampling"):
        model.embed(torch.zeros(1, 3, 32, 32), torch.tensor([[[0, 0, 9, 9]]]))
    model.regions = Grid((50,))
    with pytest.raises(InputError, match="levels holds 50, but an image is only 48 pixels"):
        embed(model, photos)
    with pytest.raises(InputError, match="max_side is 0"):
        DeepEMD(conv4(), FCN(), max_side=0)


def test_pictures_draw_the_boxes_of_the_nodes(photos, model, tmp_path):
    one = {}
    for regions in (FCN(), Grid((3, 2)), Sampling(4)):
        model.regions = regions
        pair = np.array([5, 1])
        one[regions] = found = match(model, photos.image(5), photos.image(1), seed=2, indices=pair)
        assert found.overlapping == (regions != FCN())
        assert found.query.size == found.support.size == (61, 122)
        assert np.array_equal(found.query_boxes, model.boxes([(122, 61)], seed=2, indices=[5])[0])
        assert np.array_equal(found.support_boxes, model.boxes([(122, 61)], seed=2, indices=[1])[0])
        assert found.plan.shape == (len(found.query_boxes), len(found.support_boxes))
        assert found.plan.sum() == pytest.approx(1, abs=1e-5)
    assert matches_picture([one[Grid((3, 2))], one[FCN()]], tmp_path / "p.png").stat().st_size > 10_000

"""A split of a store: its record, and pixels equal to what Pillow decodes and resizes."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, photo
from PIL import Image

from deepemd.data import Images, load
from deepemd.errors import InputError


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """Three classes of images of many shapes, one of them exactly 32 x 32."""
    folder = tmp_path_factory.mktemp("shapes")
    for label in ("c", "a", "b"):
        (folder / label).mkdir()
        for name, size in {"2.png": (32, 32), "10.jpg": (50, 33), "1.jpg": (31, 64)}.items():
            (folder / label / name).write_bytes(encoded(photo(*size), "PNG" if name.endswith("png") else "JPEG"))
    return load(folder, root=folder.parent / "root").splits["all"]


def test_order_and_record(images):
    assert images.classes == ("a", "b", "c")
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert images.labels.dtype == np.int64
    assert images.names[:3] == ("a/1.jpg", "a/10.jpg", "a/2.png")  # sorted as text
    assert (len(images), images.groups) == (9, None)
    fingerprint = images.fingerprint.as_dict()
    assert fingerprint.pop("sha256") != ""
    assert fingerprint == {
        "name": images.name, "classes": 3, "images": 9, "per_class_min": 3, "per_class_max": 3,
        "median_width": 32, "median_height": 33, "order": "sorted",
    }  # fmt: skip
    with pytest.raises(IndexError):
        images.encoded(9)
    assert images.encoded(-1) == images.encoded(8)


def test_pixels_equal_pillow(images):
    pixels = images.pixels(32)
    assert (pixels.dtype, pixels.shape, pixels.flags.writeable) == (np.uint8, (9, 3, 32, 32), False)
    for i in range(9):
        image = images.image(i)
        if image.size != (32, 32):
            image = image.resize((32, 32), Image.Resampling.BILINEAR)
        assert np.array_equal(pixels[i].transpose(1, 2, 0), np.asarray(image))


def test_pixels_are_cached_and_leave_nothing_else(images):
    first = Path(images.pixels(24).filename)
    made = first.stat().st_mtime_ns
    assert Path(images.pixels(24).filename).stat().st_mtime_ns == made
    assert not list(first.parent.glob(".tmp-*"))
    with pytest.raises(InputError, match="size: an image side of at least 1 pixel is needed, but got 0"):
        images.pixels(0)


def test_pixels_of_another_decoding_are_not_used(images, monkeypatch):
    old = Path(images.pixels(24).filename)
    monkeypatch.setattr("deepemd.data.images.DECODING", 999)
    assert Path(images.pixels(24).filename) != old


def test_images_travel_to_another_process(images):
    copy = pickle.loads(pickle.dumps(images))
    assert copy.encoded(4) == images.encoded(4)
    assert copy.fingerprint == images.fingerprint


def test_one_pixel(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "dot.png").write_bytes(encoded(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG"))
    images = load(tmp_path / "a" / "..", root=tmp_path / "root").splits["all"]
    assert images.fingerprint.median_width == 1
    assert np.array_equal(images.pixels(84)[0], np.broadcast_to(np.array([1, 2, 3])[:, None, None], (3, 84, 84)))

"""Decoding and pixels: equal to Pillow's own, and every damaged file named.

Tests deepemd.data.decoding.
"""

import io
import pickle
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepemd.data import Images, decode, load
from deepemd.data.images import _read_heif, measure
from deepemd.errors import InputError

RNG = np.random.default_rng(0)


def photo(width: int, height: int) -> Image.Image:
    """A smooth random image, as a photograph is."""
    coarse = RNG.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """Three classes of images of many shapes, one of them exactly 32 x 32."""
    folder = tmp_path_factory.mktemp("shapes")
    for label in ("c", "a", "b"):
        (folder / label).mkdir()
        for name, size in {"2.png": (32, 32), "10.jpg": (50, 33), "1.jpg": (31, 64)}.items():
            (folder / label / name).write_bytes(encoded(photo(*size), "PNG" if name.endswith("png") else "JPEG"))
    return load(folder, root=folder.parent / "root").splits["all"]


# What numpy does to an image that is shown upright, so that it is stored with this EXIF orientation.
STORED = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p, 1),
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: np.rot90(p, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
def test_every_exif_orientation_is_turned_upright(orientation, form):
    upright = np.asarray(photo(20, 10))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    data = encoded(stored, form, exif=exif, **({"lossless": True} if form == "WEBP" else {}))
    assert np.array_equal(np.asarray(decode(data, "turned")), upright)
    assert measure(data, "turned") == (20, 10)


def test_phone_photographs_are_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = photo(64, 48)
    data = encoded(image, exif=exif)
    assert measure(data, "IMG_1.jpg") == (48, 64)
    plain = np.asarray(Image.open(io.BytesIO(data)))
    assert np.array_equal(np.asarray(decode(data, "IMG_1.jpg")), np.rot90(plain, -1))


def test_decode_any_mode_to_rgb():
    palette = photo(16, 16).quantize(16)
    for options in ({}, {"transparency": 3}, {"transparency": bytes(range(16))}):
        got = decode(encoded(palette, "PNG", **options), "palette.png")
        assert np.array_equal(np.asarray(got), np.asarray(palette.convert("RGB")))
    grey = photo(16, 16).convert("L")
    for mode in ("L", "LA"):
        got = np.asarray(decode(encoded(grey.convert(mode), "PNG"), mode))
        assert np.array_equal(got, np.repeat(np.asarray(grey)[..., None], 3, axis=2))
    clear = photo(16, 16)
    clear.putalpha(Image.fromarray(RNG.integers(0, 256, (16, 16), dtype=np.uint8)))
    assert np.array_equal(np.asarray(decode(encoded(clear, "PNG"), "rgba.png")), np.asarray(clear)[..., :3])
    bits = photo(16, 16).convert("1")
    assert np.array_equal(np.asarray(decode(encoded(bits, "PNG"), "bits.png"))[..., 0], 255 * np.asarray(bits))
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert np.abs(np.asarray(decode(encoded(cyan, quality=100), "cmyk.jpg")).astype(int) - (0, 255, 255)).max() < 6


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_sixteen_bits_of_grey(form, order):
    grey = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    deep = decode(encoded(Image.fromarray(grey.astype(order)), form), "deep")
    assert deep.mode == "RGB"
    assert np.array_equal(np.asarray(deep), np.repeat((grey >> 8)[..., None], 3, axis=2))
    ramp = b"P5\n2 1\n1023\n" + bytes([0x03, 0xFF, 0x01, 0xFF])  # ten bits: 1023 and 511
    assert np.asarray(decode(ramp, "ramp.pgm"))[0, :, 0].tolist() == [255, 127]


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG of what Pillow cannot write, or of fewer rows than it says."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def test_sixteen_bits_of_colour():
    pixels = (65535, 256, 300), (0, 40000, 51200)
    got = decode(png(2, 1, 16, 2, b"\0" + struct.pack(">6H", *pixels[0], *pixels[1])), "deep.png")
    assert np.asarray(got)[0].tolist() == [[255, 1, 1], [0, 156, 200]]


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation(form):
    frames = [Image.new("RGB", (6, 5), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert np.asarray(decode(data, "moving"))[2, 3].tolist() == [255, 0, 0]


def test_one_pixel(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "dot.png").write_bytes(encoded(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG"))
    images = load(tmp_path / "a" / "..", root=tmp_path / "root").splits["all"]
    assert images.fingerprint.median_width == 1
    assert np.array_equal(images.pixels(84)[0], np.broadcast_to(np.array([1, 2, 3])[:, None, None], (3, 84, 84)))


@pytest.mark.parametrize(("width", "height"), [(12_000, 10_000), (20_000, 10_000)])
@pytest.mark.parametrize("read", [decode, measure])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(width, height, read):
    with pytest.raises(
        InputError, match=rf"big\.png: too many pixels .*{width * height} pixels, at most 89478485 .* scale it down"
    ):
        read(png(width, height, 1, 0, b"\0"), "big.png")
    assert read(png(100, 100, 1, 0, b"\0" * 1400), "small.png")


@pytest.mark.parametrize("mode", ["F", "I", "LAB"])
def test_pixels_without_a_known_range_are_refused(mode):
    data = encoded(Image.new(mode, (4, 4)), "TIFF")
    for read in (decode, measure):
        with pytest.raises(InputError, match=rf"x\.tif: a TIFF image of mode {mode}.* save it as PNG or JPEG"):
            read(data, "x.tif")


def test_postscript_is_not_run():
    page = io.BytesIO()
    photo(8, 8).save(page, "EPS")
    with pytest.raises(InputError, match=r"x\.jpg: a EPS image"):
        decode(page.getvalue(), "x.jpg")


def test_decode_refuses_and_names_the_file(tmp_path):
    whole = encoded(photo(80, 60))
    for part in (whole[: len(whole) // 2], encoded(photo(80, 60), "PNG")[:-60]):
        with pytest.raises(InputError, match=r"cut\.jpg: truncated or damaged image .*replace or remove the file"):
            decode(part, "cut.jpg")
    with pytest.raises(InputError, match=r"notes\.txt: not an image that Pillow can read"):
        decode(b"no image at all", "notes.txt")
    with pytest.raises(InputError, match=r"empty\.png: not an image"):
        decode(b"", "empty.png")
    with pytest.raises(InputError, match=r"gone\.jpg: there is no such file"):
        decode(tmp_path / "gone.jpg", "gone.jpg")
    (tmp_path / "there.jpg").write_bytes(whole)
    assert decode(tmp_path / "there.jpg", "there.jpg").size == (80, 60)


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


def test_images_travel_to_another_process(images):
    copy = pickle.loads(pickle.dumps(images))
    assert copy.encoded(4) == images.encoded(4)
    assert copy.fingerprint == images.fingerprint


def test_a_telephones_photo_is_read_upright(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif", reason="HEIC needs pillow-heif")
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :30] = (250, 20, 20)
    path = tmp_path / "IMG_0001.HEIC"
    pillow_heif.from_pillow(Image.fromarray(pixels)).save(path, quality=-1)
    found = np.asarray(decode(path, "IMG_0001.HEIC")).astype(int)
    assert found.shape == (40, 60, 3)
    assert abs(found - pixels).mean() < 6


def test_heic_without_its_reader_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as where it is not installed
    monkeypatch.setattr("deepemd.data.images._read_heif", _read_heif.__wrapped__)
    with pytest.raises(InputError, match=r"a\.HEIC: a HEIC photo, which needs pillow-heif"):
        decode(b"\0\0\0\x18ftypXXXX", "a.HEIC")


def test_a_damaged_heic_is_told_as_one():
    pytest.importorskip("pillow_heif", reason="HEIC needs pillow-heif")
    with pytest.raises(InputError, match=r"a\.HEIC: not an image that Pillow can read"):
        decode(b"\0\0\0\x18ftypXXXX", "a.HEIC")

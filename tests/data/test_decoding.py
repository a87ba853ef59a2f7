"""Decoding: equal to what Pillow and numpy do, and a clear message for every damaged file."""

import io
import os
import socket
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from pictures import RNG, encoded, photo
from PIL import Image

from deepemd.data.decoding import (
    _register_heif,
    as_picture,
    decode,
    measure,
    read_file,
    read_image,
    shrink,
    thumbnail,
    to_square,
)
from deepemd.errors import InputError

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
    monkeypatch.setattr("deepemd.data.decoding._register_heif", _register_heif.__wrapped__)
    with pytest.raises(InputError, match=r"a\.HEIC: a HEIC photo, which needs pillow-heif"):
        decode(b"\0\0\0\x18ftypnone", "a.HEIC")


def test_a_damaged_heic_is_refused_like_any_image():
    pytest.importorskip("pillow_heif", reason="HEIC needs pillow-heif")
    with pytest.raises(InputError, match=r"a\.HEIC: not an image that Pillow can read"):
        decode(b"\0\0\0\x18ftypnone", "a.HEIC")


def test_a_picture_is_a_path_an_image_or_an_array(tmp_path):
    image = photo(12, 8)
    image.save(tmp_path / "a.png")
    pixels = np.asarray(image)
    for same in (str(tmp_path / "a.png"), tmp_path / "a.png", image, pixels, (pixels / 255).astype(np.float32)):
        assert np.array_equal(np.asarray(as_picture(same)), pixels)
    grey = pixels[..., 0]
    for same in (grey, grey[..., None]):
        assert np.array_equal(np.asarray(as_picture(same)), np.repeat(grey[..., None], 3, axis=2))
    clear = np.concatenate([pixels, grey[..., None]], axis=2)
    assert np.array_equal(np.asarray(as_picture(clear)), pixels)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_a_pil_image_is_turned_upright_as_its_file_is(orientation, form):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photo(20, 10), form, exif=exif)
    upright = np.asarray(decode(data, "x"))
    assert np.array_equal(np.asarray(as_picture(Image.open(io.BytesIO(data)))), upright)
    read = Image.open(io.BytesIO(data))
    read.load()
    assert np.array_equal(np.asarray(as_picture(read.copy())), upright)
    assert np.array_equal(np.asarray(as_picture(as_picture(read))), upright)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"])
def test_a_pil_image_of_any_mode_is_converted(mode):
    image = photo(16, 16).convert("L" if mode in ("1", "LA") else "P" if mode == "PA" else "RGB").convert(mode)
    assert np.array_equal(np.asarray(as_picture(image)), np.asarray(image.convert("RGB")))


def test_a_pil_image_of_16_bits_keeps_the_upper_8():
    values = np.array([[0, 300, 40_000, 65_535]])
    for image in (Image.fromarray(values.astype(np.int32)), Image.fromarray(values.astype(np.uint16))):
        assert np.asarray(as_picture(image))[0, :, 0].tolist() == [0, 1, 156, 255]


def test_a_pil_image_that_cannot_be_decoded_is_named():
    for mode in ("F", "LAB"):
        with pytest.raises(InputError, match=rf"image 3: an image of mode {mode}.* save it as PNG or JPEG"):
            as_picture(Image.new(mode, (4, 4)), "image 3")
    cut = Image.open(io.BytesIO(encoded(photo(80, 60))[:900]))
    with pytest.raises(InputError, match=r"image 4: truncated or damaged image"):
        as_picture(cut, "image 4")


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.zeros((4, 4, 2), np.uint8), r"three: ndarray of uint8 \(4, 4, 2\): pass a path, a PIL image"),
        (np.zeros((4, 4), bool), r"three: ndarray of bool"),
        (np.zeros((0, 4), np.uint8), r"three: an array of shape \(0, 4\) has no pixels"),
        (np.full((4, 4), 2.0), r"three: float64 from 2 to 2: pass uint8, or floats from 0 to 1"),
        (np.full((4, 4), 7), r"three: int64 from 7 to 7"),
    ],
)
def test_arrays_that_are_no_images_are_refused(image, says):
    with pytest.raises(InputError, match=says):
        as_picture(image, "three")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
def test_an_image_is_scaled_down_while_it_is_read_and_its_own_size_is_known(form):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(photo(400, 200), form, exif=exif)
    whole, size = read_image(data, "x", None)
    assert (whole.size, size) == ((200, 400), (400, 200))
    small, size = read_image(data, "x", 50)
    assert (small.size, size) == ((25, 50), (400, 200))
    difference = np.asarray(small).astype(int) - np.asarray(shrink(whole, 50))
    assert np.abs(difference).mean() < 2
    assert shrink(whole, 400) is whole


def test_squares_and_thumbnails():
    image = photo(40, 20)
    assert to_square(image, 30).size == (30, 30)
    assert to_square(to_square(image, 30), 30).size == (30, 30)
    small = Image.open(io.BytesIO(thumbnail(image, 10)))
    assert (small.format, small.size, image.size) == ("JPEG", (10, 5), (40, 20))


def test_the_content_of_a_file(tmp_path):
    for content in (b"", b"a", bytes(100_000)):
        (tmp_path / "a.jpg").write_bytes(content)
        assert read_file(tmp_path / "a.jpg", "a.jpg") == content
    (tmp_path / "link.jpg").symlink_to(tmp_path / "a.jpg")
    assert read_file(tmp_path / "link.jpg", "link.jpg") == bytes(100_000)


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("socket.jpg")
    os.mkfifo("pipe.jpg")
    os.mkdir("folder.jpg")
    os.symlink("gone.jpg", "dangling.jpg")
    os.symlink("circle.jpg", "circle.jpg")
    with open("huge.jpg", "wb") as file:
        file.truncate(2**30 + 1)  # takes no space
    says = {
        "socket.jpg": "a socket, not an image file", "pipe.jpg": "a pipe, not an image file",
        "folder.jpg": "a folder, not an image file", "/dev/zero": "a device, not an image file",
        "dangling.jpg": "a link to a file that does not exist", "circle.jpg": r"cannot be read \(.*symbolic links",
        "huge.jpg": "larger than 1 GiB", "gone.jpg": "there is no such file", f"{'a' * 300}.jpg": "cannot be read",
        "a\0b.jpg": "not the path of a file",
    }  # fmt: skip
    for name, message in says.items():
        for read in (read_file, decode):
            with pytest.raises(InputError, match=f"{name}: {message}"):
                read(Path(name), name)
    listener.close()

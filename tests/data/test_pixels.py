"""Pixels of every kind become RGB: modes, transparency and arrays, by file, as PIL images and as arrays alike."""

import io

import numpy as np
import pytest
import torch
from pictures import GREY, MODES, RNG, cut_out, encoded, in_mode, photo
from PIL import Image

from deepemd.data.decoding import as_picture, decode
from deepemd.data.pixels import convertible, is_one_colour
from deepemd.errors import InputError


def pixels(image: object) -> np.ndarray:
    return np.asarray(as_picture(image)).astype(int)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_keeps_its_colours(mode):
    image = photo(60, 40)
    found = pixels(in_mode(image, mode))
    expected = pixels(image.convert("L") if mode in GREY else image)
    if mode == "1":
        expected = 255 * (expected > 127)
    most = {"P": 60, "PA": 60, "LAB": 60, "YCbCr": 4, "HSV": 8}.get(mode, 0)  # their own rounding
    assert np.abs(found - expected).max() <= most
    assert np.abs(found - expected).mean() <= (8 if mode in ("P", "PA") else 1.5)
    assert convertible(mode)


def test_an_unknown_mode_is_not_converted():
    assert not convertible("BGR;15")


def test_cmyk_colours_are_right_in_jpeg_which_stores_them_inverted_and_in_tiff():
    for colour, expected in (((255, 0, 0, 0), (0, 255, 255)), ((0, 0, 0, 255), (0, 0, 0)), ((0, 0, 0, 0), (255,) * 3)):
        ink = Image.new("CMYK", (16, 16), colour)
        for data in (encoded(ink, quality=100), encoded(ink, "TIFF")):
            found = np.asarray(decode(data, "ink")).astype(int)
            assert np.abs(found - expected).max() < 6


def as_files(image: Image.Image) -> dict[str, bytes]:
    """The files that hold an RGBA image without loss."""
    return {
        "png": encoded(image, "PNG"),
        "webp": encoded(image, "WEBP", lossless=True, exact=True),
        "tiff": encoded(image, "TIFF", compression="tiff_lzw"),
        "tga": encoded(image, "TGA"),
    }


@pytest.mark.parametrize(
    ("colour", "ground"),
    [
        ((0, 0, 0), 255), ((40, 0, 90), 255), ((128, 128, 128), 255), ((255, 0, 0), 255), ((255, 255, 0), 255),
        ((255, 255, 255), 0), ((230, 230, 230), 0), ((255, 225, 225), 0),
    ],
)  # fmt: skip
@pytest.mark.parametrize("soft", [False, True])
def test_a_shape_on_a_transparent_ground_is_seen(colour, ground, soft):
    """Whatever its colour, it has contrast; by file, as a PIL image and as an array it is the same."""
    image = cut_out(40, colour, soft=soft)
    found = pixels(image)
    assert (found[0, 0] == ground).all()
    assert found[20, 20].tolist() == list(colour)
    assert np.abs(found[0, 0] - found[20, 20]).max() >= 127
    if soft:
        half = np.asarray(image)[..., 3] == 128
        assert np.abs(found[half] - (np.array(colour) + ground) / 2).max() <= 1.5
    array = np.asarray(image)
    for same in (array, array.astype(np.int64), (array / 255).astype(np.float32), array.astype(np.uint16) * 257):
        assert np.array_equal(pixels(same), found)
    for name, data in as_files(image).items():
        assert np.array_equal(np.asarray(decode(data, name)), found), name
        assert np.array_equal(pixels(Image.open(io.BytesIO(data))), found), name
    # Colours that were multiplied by their transparency have lost a little.
    assert np.abs(pixels(image.convert("RGBa")) - found).max() <= 2


@pytest.mark.parametrize(("shade", "ground"), [(0, 255), (100, 255), (255, 0), (220, 0)])
def test_grey_and_palettes_with_transparency(shade, ground):
    image = cut_out(40, (shade,) * 3)
    expected = pixels(image)
    assert (expected[0, 0] == ground).all()
    alpha = image.getchannel("A")
    grey = Image.new("L", image.size, shade)
    grey.putalpha(alpha)
    for mode in ("LA", "La"):
        assert np.array_equal(pixels(grey.convert(mode)), expected)
    assert np.array_equal(np.asarray(decode(encoded(grey, "PNG"), "la.png")), expected)
    # Palettes: index 0 is transparent, by its number, by a table, or by a palette with alpha.
    shape = np.asarray(alpha) // 255
    palette, by_number, by_table, with_alpha = (Image.fromarray(shape).convert("P") for _ in range(4))
    for one in (palette, by_number, by_table):
        one.putpalette([7, 200, 7, shade, shade, shade])
    by_number.info["transparency"], by_table.info["transparency"] = 0, b"\0\xff"
    with_alpha.putpalette([7, 200, 7, 0, shade, shade, shade, 255], "RGBA")
    files = encoded(by_number, "PNG"), encoded(palette, "PNG", transparency=b"\0\xff"), encoded(by_number, "GIF")
    for one in (by_number, by_table, with_alpha, by_number.convert("PA")):
        assert np.array_equal(pixels(one), expected), (one.mode, one.info)
    for data in files:
        assert np.array_equal(np.asarray(decode(data, "p")), expected)
        assert np.array_equal(pixels(Image.open(io.BytesIO(data))), expected)


@pytest.mark.parametrize(("mode", "colour", "key"), [("RGB", (0, 0, 0), (9, 8, 7)), ("L", 0, 9), ("1", 0, 255)])
def test_a_colour_that_stands_for_transparency(mode, colour, key):
    """The tRNS chunk of a PNG without a palette."""
    image = Image.new(mode, (40, 40), key)
    image.paste(colour, (10, 10, 30, 30))
    data = encoded(image, "PNG", transparency=key)
    for found in (np.asarray(decode(data, "key.png")), pixels(Image.open(io.BytesIO(data)))):
        assert found[0, 0].tolist() == [255] * 3
        assert found[20, 20].tolist() == [0] * 3


def test_what_transparency_does_not_change():
    image = photo(30, 20)
    for alpha in (255, 0):  # opaque; and wholly invisible, as 32-bit files whose fourth byte is not used
        clear = image.copy()
        clear.putalpha(alpha)
        assert np.array_equal(pixels(clear), pixels(image))
    left = image.copy()
    left.info["transparency"] = 3  # left over from a palette
    assert np.array_equal(pixels(left), pixels(image))
    # A photo with round corners stays on white, as its neighbours do.
    corners = np.dstack((np.full((40, 40, 3), 150, np.uint8), np.full((40, 40), 255, np.uint8)))
    corners[:5, :5, 3] = 0
    assert pixels(corners)[0, 0].tolist() == [255] * 3


def test_arrays_of_all_shapes_and_types():
    image = photo(12, 8)
    colour = np.asarray(image)
    for kind in (np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64):
        assert np.array_equal(pixels(colour.astype(kind)), colour), kind
    for kind in (np.float16, np.float32, np.float64):
        assert np.array_equal(pixels((colour / 255).astype(kind)), colour), kind
    assert np.array_equal(pixels(colour.tolist()), colour)
    grey = colour[..., 0]
    for same in (grey, grey[..., None], grey[:, ::-1][:, ::-1], np.asfortranarray(grey)):
        assert np.array_equal(pixels(same), np.repeat(grey[..., None], 3, axis=2))
    one_bit = image.convert("1")
    assert np.array_equal(pixels(np.asarray(one_bit)), pixels(one_bit))
    for tensor in (torch.tensor(colour), torch.tensor(colour / 255.0, requires_grad=True)):
        assert np.array_equal(pixels(tensor), colour), tensor.dtype
    assert np.abs(pixels((torch.tensor(colour) / 255).bfloat16()).astype(int) - colour).max() <= 1
    clear = np.dstack((colour, RNG.integers(1, 256, grey.shape, dtype=np.uint8)))
    assert np.array_equal(pixels(clear), pixels(Image.fromarray(clear)))


def test_floats_may_exceed_their_range_by_a_rounding():
    values = np.array([[-1e-7, 0.0, 0.5, 1.0, 1 + 1e-6]])
    for kind in (np.float32, np.float64):
        assert pixels(values.astype(kind))[0, :, 0].tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.zeros((4, 4, 2), np.uint8), r"three: ndarray of uint8 \(4, 4, 2\): pass a path, a PIL image"),
        (np.zeros((3, 8, 9), np.uint8), r"\(3, 8, 9\): .*, channels last"),
        (np.zeros((4, 4), complex), r"three: ndarray of complex128"),
        (np.full((4, 4), "a"), r"three: ndarray of <U1"),
        (np.full((4, 4), None), r"three: ndarray of object"),
        (None, r"three: NoneType of object \(\)"),
        (3, r"three: int of int64 \(\)"),
        ([[1, 2], [3]], r"three: list is no image"),
        (np.zeros((0, 4), np.uint8), r"three: an array of shape \(0, 4\) has no pixels"),
        (np.full((4, 4), 2.0), r"three: float64 from 2 to 2: pass uint8, or floats from 0 to 1"),
        (np.array([[-0.5, 1.0]]), r"three: float64 from -0\.5 to 1:"),
        (np.array([[0.5, np.nan]]), r"three: float64 from nan to nan"),
        (np.array([[0.5, np.inf]]), r"three: float64 from 0\.5 to inf"),
        (np.array([[-1, 255]]), r"three: int64 from -1 to 255: pass uint8"),
        (np.array([[0, 70_000]]), r"three: int64 from 0 to 70000: pass uint8"),
    ],
)
def test_arrays_that_are_no_images_are_refused(image, says):
    with pytest.raises(InputError, match=says):
        as_picture(image, "three")


def test_one_colour():
    blue = Image.new("RGB", (5, 4), "blue")
    for image in (blue, blue.convert("P"), blue.convert("LA"), Image.new("I;16", (5, 4), 900), Image.new("F", (3, 3))):
        assert is_one_colour(image)
    hidden = photo(5, 4)
    hidden.putalpha(0)
    assert is_one_colour(hidden)
    blue.putpixel((2, 2), (0, 0, 254))
    assert not is_one_colour(blue)
    assert not is_one_colour(cut_out(20, (0, 0, 0)))

"""Deep values become 8 bits by the bits that are used, and what is dark stays dark."""

import io
import logging
import struct
import zlib

import numpy as np
import pytest
from pictures import RNG, encoded, photo, png, turned
from PIL import Image

from deepemd.data import depth
from deepemd.data.decoding import as_picture, decode
from deepemd.data.depth import stated_depth
from deepemd.errors import InputError

PHOTO = np.asarray(photo(40, 30))
GREY = np.asarray(Image.fromarray(PHOTO).convert("L")).copy()
GREY[0, :2] = 0, 255  # the whole range


def grey_of(image: object) -> np.ndarray:
    return np.asarray(as_picture(image))[..., 0]


def deep(bits: int) -> np.ndarray:
    """The grey photo with this many bits of each value used, the lower ones at random."""
    lower = RNG.integers(0, 2 ** (bits - 8), GREY.shape) if bits > 8 else 0
    return np.where(GREY == 255, 2**bits - 1, GREY.astype(np.int64) * 2 ** (bits - 8) + lower)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM", "JPEG2000", "IM"])
def test_files_of_16_bits_are_read_by_the_bits_that_are_used(bits, form):
    options = {"irreversible": False} if form == "JPEG2000" else {}
    data = encoded(Image.fromarray(deep(bits).astype(np.uint16)), form, **options)
    assert np.array_equal(np.asarray(decode(data, "deep")), np.repeat(GREY[..., None], 3, axis=2))
    opened, loaded = Image.open(io.BytesIO(data)), Image.open(io.BytesIO(data))
    loaded.load()
    for same in (opened, loaded, loaded.copy()):
        assert np.array_equal(grey_of(same), GREY)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_images_and_arrays_in_memory_are_read_by_the_same_rule(bits):
    values = deep(bits)
    for kind in (np.uint16, ">u2", np.int32, np.int64, np.uint32, np.float32, np.float64):
        found = grey_of(values.astype(kind))
        assert np.array_equal(found, GREY), kind
        assert np.array_equal(grey_of(np.dstack([values.astype(kind)] * 3)), GREY), kind
    for kind in (np.uint16, ">u2", np.int32, np.float32):  # the modes I;16, I;16B, I and F
        assert np.array_equal(grey_of(Image.fromarray(values.astype(kind))), GREY), kind


def test_floats_from_0_to_1_are_read_from_files_too():
    image = Image.fromarray((GREY / 255).astype(np.float32))
    data = encoded(image, "TIFF")
    for found in (grey_of(image), np.asarray(decode(data, "float.tif"))[..., 0]):
        assert np.array_equal(found, GREY)


@pytest.mark.parametrize("factor", [256, 257])
def test_a_dark_picture_stays_dark(factor):
    """What was spread from 8 to 16 bits uses all of them, however dark it is."""
    dark = GREY // 20  # at most 12
    assert grey_of(dark.astype(np.uint16) * factor).tolist() == dark.tolist()
    data = encoded(Image.fromarray(dark.astype(np.uint16) * factor), "PNG")
    assert np.asarray(decode(data, "dark.png"))[..., 0].tolist() == dark.tolist()
    one_lamp = deep(12)
    one_lamp[5, 5] = 65_535  # a single bright pixel shows the depth
    assert grey_of(one_lamp.astype(np.uint16)).max() == 255
    assert grey_of(one_lamp.astype(np.uint16)).mean() < 16


def test_noise_is_not_stretched_to_white():
    noise = RNG.integers(0, 40, (20, 20)).astype(np.uint16)
    assert grey_of(noise).max() <= 40
    assert grey_of(noise * 30).max() < 100  # 1,170 of 4,095


def test_what_a_file_says_about_its_depth_comes_first():
    values = Image.fromarray((GREY // 20).astype(np.uint16) * 100 + 7)  # at most 1,207
    for tag in (281, 341):  # MaxSampleValue, SMaxSampleValue
        for most, bits in ((65_535, 16), (16_383, 14), (4_095, 12), (4_000, 12)):
            data = encoded(values, "TIFF", tiffinfo={tag: most})
            expected = np.asarray(values) >> (bits - 8)
            loaded = Image.open(io.BytesIO(data))
            loaded.load()
            for found in (np.asarray(decode(data, "said.tif"))[..., 0], grey_of(loaded)):
                assert np.array_equal(found, expected), (tag, most)
    lying = encoded(Image.fromarray(deep(12).astype(np.uint16)), "TIFF", tiffinfo={281: 300})
    assert np.array_equal(np.asarray(decode(lying, "x"))[..., 0], GREY)
    ramp = b"P5\n2 1\n1023\n" + bytes([0x00, 0x40, 0x00, 0x00])  # 64 of 1,023 is dark, although nothing is brighter
    assert np.asarray(decode(ramp, "ramp.pgm"))[0, :, 0].tolist() == [16, 0]


def twelve_bits(values: np.ndarray) -> bytes:
    """A TIFF file that packs two values of 12 bits in three bytes."""
    a, b = values.reshape(-1, 2).T.astype(int)
    packed = np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], axis=1).astype(np.uint8).tobytes()
    data = bytearray(encoded(Image.fromarray(values.astype(np.uint16)), "TIFF", tiffinfo={258: 16}))
    at = data.index(values.astype("<u2").tobytes())
    data[at : at + len(packed)] = packed
    where = data.index(b"\x02\x01\x03\x00\x01\x00\x00\x00\x10\x00")  # BitsPerSample: one short, 16
    data[where + 8] = 12
    return bytes(data)


def test_a_tiff_of_12_bits_a_value():
    data = twelve_bits(deep(12))
    assert np.array_equal(np.asarray(decode(data, "packed.tif"))[..., 0], GREY)
    dark = twelve_bits(deep(12) // 16)
    assert np.array_equal(np.asarray(decode(dark, "dark.tif"))[..., 0], GREY // 16)


def test_white_is_zero():
    data = bytearray(encoded(Image.fromarray(deep(12).astype(np.uint16)), "TIFF"))
    where = data.index(b"\x06\x01\x03\x00\x01\x00\x00\x00\x01\x00")  # PhotometricInterpretation: one short, 1
    data[where + 8] = 0
    loaded = Image.open(io.BytesIO(data))
    loaded.load()
    for found in (np.asarray(decode(bytes(data), "negative.tif"))[..., 0], grey_of(loaded)):
        assert np.array_equal(found, 255 - GREY)


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_values_without_a_known_range_are_refused_unless_the_file_says_it(kind):
    values = (GREY.astype(kind) * 20 - 1_000).astype(kind)  # as of a CT
    data = encoded(Image.fromarray(values), "TIFF")
    for read in (lambda: decode(data, "ct.tif"), lambda: as_picture(Image.open(io.BytesIO(data)), "ct.tif")):
        with pytest.raises(InputError, match=r"ct\.tif: an image of mode [IF] with values from -1000 to 4100, whose"):
            read()
    said = encoded(Image.fromarray(values), "TIFF", tiffinfo={340: -1000.0, 341: 4100.0})
    assert np.array_equal(np.asarray(decode(said, "ct.tif"))[..., 0], GREY)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("form", ["PNG", "TIFF raw", "TIFF deflate"])
def test_colours_of_16_bits(bits, form):
    """Pillow reads the upper 8 bits; the lower are read too where the upper are nearly empty."""
    colour = PHOTO.copy()
    colour[0, 0] = 255
    values = (colour.astype(np.uint16) << (bits - 8)) + RNG.integers(0, 2 ** (bits - 8), colour.shape, dtype=np.uint16)
    if form == "PNG":
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
        data = png(40, 30, 16, 2, rows)
    else:
        data = colour_tiff(values, form.split()[1])
    assert np.array_equal(np.asarray(decode(data, "deep")), colour)
    assert np.array_equal(np.asarray(as_picture(Image.open(io.BytesIO(data)))), colour)
    assert np.array_equal(np.asarray(as_picture(values)), colour)


def colour_tiff(values: np.ndarray, compression: str) -> bytes:
    """A TIFF of 16-bit colours, which Pillow does not write."""
    height, width, _ = values.shape
    body = values.astype("<u2").tobytes()
    if compression != "raw":
        body = zlib.compress(body)
    tags = [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, 8), (259, 3, 1, 1 if compression == "raw" else 8),
        (262, 3, 1, 2), (273, 4, 1, 14), (277, 3, 1, 3), (278, 3, 1, height), (279, 4, 1, len(body)), (284, 3, 1, 1),
    ]  # fmt: skip
    head = struct.pack("<2sHI", b"II", 42, 14 + len(body)) + struct.pack("<3H", 16, 16, 16)
    return head + body + struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("colour", [4, 6])
def test_colours_and_grey_of_16_bits_with_transparency(bits, colour):
    values = np.repeat(deep(bits)[..., None], 3 if colour == 6 else 1, axis=2)
    alpha = np.full((*GREY.shape, 1), 65_535)
    alpha[3:9, 5:9] = 0
    rows = b"".join(b"\0" + row.tobytes() for row in np.concatenate((values, alpha), axis=2).astype(">u2"))
    found = np.asarray(decode(png(40, 30, 16, colour, rows), "deep.png"))[..., 0]
    assert np.array_equal(found, np.where(alpha[..., 0] > 0, GREY, 255))


def test_a_colour_of_16_bits_that_stands_for_transparency():
    for colour, size in ((0, 1), (2, 3)):
        key, dark, light = b"\x01\x02" * size, b"\x01\x03" * size, b"\x08\x00" * size
        data = png(3, 1, 16, colour, b"\0" + key + dark + light, (b"tRNS", key))
        for found in (np.asarray(decode(data, "x")), np.asarray(as_picture(Image.open(io.BytesIO(data))))):
            assert found[0].tolist() == [[255] * 3, [16] * 3, [128] * 3]  # of 12 bits


def test_a_guess_is_logged_once(caplog, monkeypatch):
    monkeypatch.setattr(depth, "_said", set())
    with caplog.at_level(logging.WARNING):
        for name in ("a.png", "b.png"):
            decode(encoded(Image.fromarray(deep(12).astype(np.uint16)), "PNG"), name)
        as_picture(deep(16).astype(np.uint16))
        as_picture(GREY.astype(np.int64))
    assert [record.getMessage() for record in caplog.records] == [
        "a.png: its values end at 4,095 of 65,535: read as 12 bits, with white at 4,095; images like it likewise"
    ]


def test_nothing_is_stated_of_other_images():
    assert stated_depth(photo(3, 3)) == depth.Depth()
    assert stated_depth(Image.open(io.BytesIO(encoded(photo(3, 3), "PNG")))) == depth.Depth()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_grey_tiff_files_are_upright_from_the_disk_too(orientation, tmp_path):
    """Pillow maps an uncompressed file into the memory, and shears it if it is turned by a quarter."""
    path = tmp_path / "x.tif"
    for image in (Image.fromarray(GREY), Image.fromarray(deep(16).astype(np.uint16))):
        stored, exif = turned(image, orientation)
        stored.save(path, exif=exif)
        opened, loaded = Image.open(path), Image.open(path)
        loaded.load()
        for same in (path, opened, loaded, opened):
            assert np.array_equal(grey_of(same), GREY)


def test_a_pil_image_that_was_drawn_on_keeps_the_drawing(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "x.tif")
    with Image.open(tmp_path / "x.tif") as image:
        image.paste(9, (0, 0, 40, 30))
        assert (grey_of(image) == 9).all()

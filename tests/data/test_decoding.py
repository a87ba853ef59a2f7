"""Decoding: a file, a PIL image and an array give the same upright pixels, in every format and mode."""

import io
import os
import struct
import threading

import numpy as np
import pytest
from pictures import MODES, STORED, encoded, in_mode, photo, png, turned
from PIL import Image

from deepemd.data.decoding import as_picture, decode, measure, read_image, shrink, thumbnail, to_square
from deepemd.errors import InputError

FORMS: dict[str, dict[str, object]] = {
    "PNG": {}, "TIFF": {"compression": "raw"}, "TIFF lzw": {"compression": "tiff_lzw"},
    "TIFF deflate": {"compression": "tiff_adobe_deflate"}, "JPEG": {"quality": 95, "subsampling": 0},
    "MPO": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}, "AVIF": {"quality": 95},
    "JPEG2000": {}, "GIF": {}, "BMP": {}, "TGA": {}, "PPM": {}, "SGI": {}, "PCX": {}, "QOI": {}, "DDS": {}, "IM": {},
}  # fmt: skip
TURNED = ("PNG", "TIFF", "JPEG", "MPO", "WEBP", "AVIF")  # the formats that hold an EXIF orientation
LOSSY = {"JPEG": 3, "MPO": 3, "AVIF": 6, "JPEG2000": 1, "GIF": 6}  # the mean error of a smooth photo
UPRIGHT = photo(60, 40)


def array(image: object) -> np.ndarray:
    return np.asarray(as_picture(image)).astype(int)


def written(mode: str, form: str, orientation: int) -> tuple[bytes, np.ndarray] | None:
    """A file, and the pixels that it shows; None if the format does not hold the mode."""
    stored, exif = turned(UPRIGHT, orientation)
    image = in_mode(stored, mode)
    name = form.split()[0]
    if (
        mode in ("I", "F", "I;16", "I;16B")
        and name in ("WEBP", "AVIF", "GIF", "PNG")
        and (name != "PNG" or mode == "I")
    ):
        return None  # converted by their writers, or a mode that PNG is about to lose
    try:
        data = encoded(image, name, exif=exif, **FORMS[form])
    except (OSError, ValueError, KeyError):
        return None
    shown = in_mode(UPRIGHT, mode) if name in TURNED else image
    return data, array(shown)


@pytest.mark.parametrize("form", FORMS)
def test_files_and_pil_images_of_every_mode_and_orientation_give_one_picture(form, tmp_path):
    tried, path, bound = 0, tmp_path / "file", LOSSY.get(form, 0.9)
    for mode in MODES:
        for orientation in STORED:
            made = written(mode, form, orientation)
            if made is None:
                continue
            data, expected = made
            path.write_bytes(data)
            found, case, tried = np.asarray(decode(data, "x")), (form, mode, orientation), tried + 1
            height, width = found.shape[:2]
            assert found.shape == expected.shape, case
            assert np.abs(found - expected).mean() <= bound, case
            with Image.open(path) as opened:
                same = [array(path), array(opened), array(opened), array(as_picture(opened))]
            same.append(array(Image.open(io.BytesIO(data))))
            assert all(np.array_equal(one, found) for one in same), case
            assert measure(data, "x") == (width, height), case
            small, original = read_image(data, "x", 20)
            assert original == (height, width), case
            assert small.size == shrink(decode(data, "x"), 20).size, case
            assert Image.open(io.BytesIO(thumbnail(decode(data, "x"), 20))).size == small.size, case
    assert tried >= 8


def test_a_copy_of_a_pil_image_is_turned_too():
    for form in ("PNG", "JPEG", "WEBP", "AVIF"):
        for orientation in STORED:
            stored, exif = turned(UPRIGHT, orientation)
            data = encoded(stored, form, exif=exif)
            read = Image.open(io.BytesIO(data))
            read.load()
            assert np.array_equal(array(read.copy()), np.asarray(decode(data, "x"))), (form, orientation)


def test_the_orientation_of_xmp_counts_as_well():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    chunk = b"XML:com.adobe.xmp\0\0\0\0\0" + xmp
    data = png(2, 4, 8, 0, b"\0\0\xff" * 4, (b"iTXt", chunk))
    assert decode(data, "x").size == measure(data, "x") == (4, 2)


def test_ordinary_images_are_read_as_pillow_reads_them():
    """Not a bit may change: users hold cached nodes of these pixels."""
    for data in (
        encoded(UPRIGHT),
        encoded(UPRIGHT, "PNG"),
        encoded(UPRIGHT.convert("L")),
        encoded(UPRIGHT, quality=40),
    ):
        plain = Image.open(io.BytesIO(data)).convert("RGB")
        assert np.array_equal(np.asarray(decode(data, "x")), np.asarray(plain))
        small, _ = read_image(data, "x", 7)
        drafted = Image.open(io.BytesIO(data))
        drafted.draft("RGB", (7, 5))
        assert np.array_equal(np.asarray(small), np.asarray(shrink(drafted.convert("RGB"), 7)))
    opaque = UPRIGHT.copy()
    opaque.putalpha(255)
    assert np.array_equal(array(opaque), np.asarray(UPRIGHT))


def test_an_image_in_memory_is_not_changed_and_carries_no_comments(tmp_path):
    stored, exif = turned(UPRIGHT, 6)
    stored.save(tmp_path / "x.jpg", exif=exif, comment=b"a secret place")
    with Image.open(tmp_path / "x.jpg") as image:
        before = image.size, dict(image.info), image.mode
        picture = as_picture(image)
        assert (image.size, dict(image.info), image.mode) == before
    assert picture.info == {}
    assert b"secret" not in thumbnail(picture, 30)
    assert np.array_equal(array(picture), array(tmp_path / "x.jpg"))


def test_a_pil_image_that_the_user_has_changed_is_taken_as_it_is(tmp_path):
    UPRIGHT.save(tmp_path / "x.jpg")
    with Image.open(tmp_path / "x.jpg") as drafted:
        drafted.draft("L", (15, 10))
        assert as_picture(drafted).size == (15, 10)
    UPRIGHT.save(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as drawn:
        drawn.paste("blue", (0, 0, 60, 40))
        assert array(drawn)[5, 5].tolist() == [0, 0, 255]


def test_one_pil_image_in_many_threads(tmp_path):
    """A list may hold it twice, and pictures are read in threads."""
    photo(800, 600).save(tmp_path / "x.png")
    expected = array(tmp_path / "x.png")
    for _ in range(5):
        with Image.open(tmp_path / "x.png") as image:
            found: list[object] = []

            def read(image=image, found=found):
                try:
                    found.append(np.array_equal(array(image), expected))
                except Exception as error:
                    found.append(error)

            threads = [threading.Thread(target=read) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert found == [True] * 8


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "TIFF"])
def test_a_truncated_pil_image_is_an_error_each_time(form):
    data = encoded(photo(80, 60), form)
    cut = Image.open(io.BytesIO(data[: len(data) * 2 // 3]))
    for _ in range(3):
        with pytest.raises(InputError, match=r"image 4: truncated or damaged image"):
            as_picture(cut, "image 4")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "TIFF", "MPO"])
def test_a_pil_image_whose_file_was_closed(form, tmp_path):
    path = tmp_path / "file"
    UPRIGHT.save(path, form)
    with Image.open(path) as image:
        pass
    with pytest.raises(
        InputError, match=r"image 5: a PIL image whose file was closed before it was read: pass its path"
    ):
        as_picture(image, "image 5")
    with Image.open(path) as image:
        image.load()
    assert np.array_equal(array(image), array(path))
    image.close()
    if form != "TIFF":  # what is mapped into the memory can still be read
        with pytest.raises(InputError, match=r"image 5: a PIL image whose file was closed"):
            as_picture(image, "image 5")


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "I;16", "F"])
def test_a_pil_image_without_pixels(size, mode):
    with pytest.raises(InputError, match=r"image 6: an image of \d x \d has no pixels"):
        as_picture(Image.new(mode, size), "image 6")


def test_paths_of_all_types(tmp_path):
    UPRIGHT.save(tmp_path / "x.png")
    (entry,) = os.scandir(tmp_path)
    for path in (tmp_path / "x.png", str(tmp_path / "x.png"), entry):
        assert np.array_equal(array(path), np.asarray(UPRIGHT))
    (tmp_path / "x.png").unlink()
    with pytest.raises(InputError, match=r"^/.*x\.png: there is no such file"):
        as_picture(entry)


def test_an_uncompressed_tiff_of_ycbcr_which_pillow_cannot_read():
    data = encoded(UPRIGHT.convert("YCbCr"), "TIFF")
    with pytest.raises(OSError, match="truncated"):
        Image.open(io.BytesIO(data)).load()
    assert np.array_equal(np.asarray(decode(data, "x")), array(UPRIGHT.convert("YCbCr")))


def test_phone_photographs_are_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = photo(64, 48)
    data = encoded(image, exif=exif)
    assert measure(data, "IMG_1.jpg") == (48, 64)
    plain = np.asarray(Image.open(io.BytesIO(data)))
    assert np.array_equal(np.asarray(decode(data, "IMG_1.jpg")), np.rot90(plain, -1))


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_sixteen_bits_of_grey(form, order):
    grey = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    deep = decode(encoded(Image.fromarray(grey.astype(order)), form), "deep")
    assert deep.mode == "RGB"
    assert np.array_equal(np.asarray(deep), np.repeat((grey >> 8)[..., None], 3, axis=2))
    ramp = b"P5\n2 1\n1023\n" + bytes([0x03, 0xFF, 0x01, 0xFF])  # ten bits: 1023 and 511
    assert np.asarray(decode(ramp, "ramp.pgm"))[0, :, 0].tolist() == [255, 127]


def test_sixteen_bits_of_colour():
    pixels = (65535, 256, 300), (0, 40000, 51200)
    got = decode(png(2, 1, 16, 2, b"\0" + struct.pack(">6H", *pixels[0], *pixels[1])), "deep.png")
    assert np.asarray(got)[0].tolist() == [[255, 1, 1], [0, 156, 200]]


def test_a_telephones_photo_is_read_upright(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif", reason="HEIC needs pillow-heif")
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :30] = (250, 20, 20)
    path = tmp_path / "IMG_0001.HEIC"
    pillow_heif.from_pillow(Image.fromarray(pixels)).save(path, quality=-1)
    found = np.asarray(decode(path, "IMG_0001.HEIC")).astype(int)
    assert found.shape == (40, 60, 3)
    assert abs(found - pixels).mean() < 6


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

"""Opening images: limits, frames, large texts, and one clear message for each kind of damage."""

import io
import sys
import zlib
from contextlib import suppress

import numpy as np
import pytest
from pictures import encoded, in_mode, photo, png, turned
from PIL import Image

from deepemd.data.decoding import as_picture, decode, measure, read_image
from deepemd.data.opening import image_size, register_heif
from deepemd.errors import InputError


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation(form):
    frames = [Image.new("RGB", (6, 5), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert np.asarray(decode(data, "moving"))[2, 3].tolist() == [255, 0, 0]


BLANK = Image.new("RGBA", (40, 30), (0, 0, 0, 0))


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("AVIF", {"quality": 100, "subsampling": "4:4:4"}),
        ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("blank", [BLANK, Image.new("RGB", (40, 30), "white"), Image.new("RGB", (40, 30))])
@pytest.mark.parametrize("count", [1, 3])
def test_blank_first_frames_are_passed_over(form, options, blank, count, tmp_path):
    shown = photo(40, 30).convert(blank.mode)
    frames = [*[blank] * (count - 1), shown, Image.new(blank.mode, (40, 30), "red")]
    path = tmp_path / f"moving.{form.lower()}"
    blank.save(
        path, form, save_all=True, append_images=frames, duration=list(range(50, 50 + len(frames) + 1)), **options
    )
    found = np.asarray(decode(path, "moving")).astype(int)
    assert np.abs(found - np.asarray(shown)[..., :3]).mean() < (20 if form == "GIF" else 3)
    assert measure(path.read_bytes(), "moving") == (40, 30)
    with Image.open(path) as opened, Image.open(path) as loaded:
        loaded.load()
        for image in (path, opened, loaded, opened):
            assert np.array_equal(np.asarray(as_picture(image)), found)
        assert opened.tell() == 0


def test_a_frame_that_was_chosen_is_the_one_that_is_read(tmp_path):
    pages = [photo(40, 30), photo(20, 25), photo(30, 30)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    with Image.open(tmp_path / "pages.tif") as image:
        for k in (2, 0, 1):
            image.seek(k)
            assert np.array_equal(np.asarray(as_picture(image)), np.asarray(pages[k]))
            assert np.array_equal(np.asarray(as_picture(image)), np.asarray(pages[k]))  # loaded by now


def test_a_blank_page_of_another_size():
    pages = [Image.new("L", (9, 5), 255), photo(40, 30).convert("L")]
    data = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert decode(data, "x").size == measure(data, "x") == (40, 30)
    assert read_image(data, "x", 20)[1] == (30, 40)


def test_of_a_photo_with_more_pictures_the_first_is_read():
    data = encoded(Image.new("RGB", (40, 30), "teal"), "MPO", save_all=True, append_images=[photo(40, 30)])
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert np.ptp(np.asarray(decode(data, "x")), axis=(0, 1)).max() == 0


def test_a_cut_animation_whose_first_frame_is_blank_is_read_as_far_as_it_goes():
    data = encoded(BLANK.convert("RGB"), "GIF", save_all=True, append_images=[photo(40, 30), photo(40, 30)])
    for keep in range(len(data) - 40, 60, -97):
        with suppress(InputError):
            assert decode(data[:keep], "cut.gif").size == (40, 30)


@pytest.mark.parametrize(("width", "height"), [(12_000, 10_000), (20_000, 10_000)])
@pytest.mark.parametrize("read", [decode, measure])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(width, height, read):
    with pytest.raises(
        InputError, match=rf"big\.png: too many pixels .*{width * height} pixels, at most 89478485 .* scale it down"
    ):
        read(png(width, height, 1, 0, b"\0"), "big.png")
    assert read(png(100, 100, 1, 0, b"\0" * 1400), "small.png")


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


def test_heic_without_its_reader_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as where it is not installed
    monkeypatch.setattr("deepemd.data.opening.register_heif", register_heif.__wrapped__)
    with pytest.raises(InputError, match=r"a\.HEIC: a HEIC photo, which needs pillow-heif"):
        decode(b"\0\0\0\x18ftypnone", "a.HEIC")


def test_a_damaged_heic_is_refused_like_any_image():
    pytest.importorskip("pillow_heif", reason="HEIC needs pillow-heif")
    with pytest.raises(InputError, match=r"a\.HEIC: not an image that Pillow can read"):
        decode(b"\0\0\0\x18ftypnone", "a.HEIC")


ROWS = b"".join(b"\0" + bytes(range(12)) for _ in range(4))
LARGE = b"w" * 3_000_000
PROFILE = b"sRGB\0\0" + zlib.compress(bytes(3_000_000))


@pytest.mark.parametrize(
    "chunks",
    [
        [(b"tEXt", b"Comment\0" + LARGE)],
        [(b"zTXt", b"Comment\0\0" + zlib.compress(LARGE))],
        [(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + LARGE)],
        [(b"iTXt", b"parameters\0\1\0\0\0" + zlib.compress(LARGE))],
        [(b"iCCP", PROFILE)],
        [(b"tEXt", b"Comment\0" + LARGE)] * 25,  # more than 64 MB in all
        [(b"iCCP", PROFILE), (b"zTXt", b"Comment\0\0" + zlib.compress(LARGE))],
    ],
)
@pytest.mark.parametrize("last", [False, True])
def test_a_png_with_large_texts_or_a_large_profile_is_read(chunks, last):
    plain = png(4, 4, 8, 2, ROWS)
    data = png(4, 4, 8, 2, ROWS, *chunks)
    if last:  # behind the pixels, where they are found only while these are loaded
        more = data[33 : data.index(b"IDAT") - 4]
        data = plain[:-12] + more + plain[-12:]
    assert np.array_equal(np.asarray(decode(data, "wordy.png")), np.asarray(decode(plain, "plain.png")))
    assert measure(data, "wordy.png") == (4, 4)
    if last:
        assert np.array_equal(np.asarray(as_picture(Image.open(io.BytesIO(data)))), np.asarray(decode(plain, "")))
    with pytest.raises(InputError, match=r"cut\.png: truncated or damaged image"):
        decode(data[: data.index(b"IDAT") + 9], "cut.png")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_an_orientation_that_is_damaged_is_left_out():
    for exif in (b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0rubbish", b"Exif\0\0MM\0*\xff\xff\xff\xff"):
        data = encoded(photo(20, 10), exif=exif)
        assert decode(data, "x.jpg").size == measure(data, "x.jpg") == (20, 10)
        assert as_picture(Image.open(io.BytesIO(data))).size == (20, 10)
    strange = Image.Exif()
    strange[0x0112] = 77
    assert decode(encoded(photo(20, 10), exif=strange), "x.jpg").size == (20, 10)


def test_too_little_memory_is_said(monkeypatch):
    def load(_):
        raise MemoryError

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(InputError, match=r"x\.png: the memory is too small"):
        decode(encoded(photo(20, 10), "PNG"), "x.png")


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """A file with some bytes replaced, mostly in its head, and sometimes cut."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 2, 5, 20])):
        place = int(rng.integers(min(len(changed), rng.choice([64, 200, len(changed)]))))
        changed[place] = rng.choice([0, 255, int(rng.integers(256)), changed[place] ^ 1 << int(rng.integers(8))])
    return bytes(changed[: int(rng.integers(len(changed)))] if rng.random() < 0.3 else changed)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("JPEG", {}), ("WEBP", {}), ("AVIF", {}),
        ("GIF", {}), ("JPEG2000", {}), ("BMP", {}), ("TGA", {}), ("PPM", {}), ("ICO", {}), ("PCX", {}), ("QOI", {}),
    ],
)  # fmt: skip
def test_damage_is_an_error_for_every_reader_or_for_none(form, options, monkeypatch):
    """A file is decoded, measured and opened with one outcome: the same picture, or an error with its name."""
    monkeypatch.setattr("deepemd.data.depth._said", {8, 10, 12, 14})
    rng, outcomes = np.random.default_rng(5), set()
    frames = {"save_all": True, "append_images": [photo(40, 30)]} if form in ("GIF", "WEBP", "TIFF") else {}
    images = [in_mode(photo(40, 30), mode) for mode in ("RGB", "L", "P", "RGBA", "I;16")]
    files = []
    for image in images:
        with suppress(OSError, KeyError, ValueError):
            files.append(encoded(image, form, **options))
    files.append(encoded(Image.new("RGB", (40, 30)), form, **options, **frames))
    for k in range(120):
        data = damaged(files[k % len(files)], rng)
        found: list[object] = []
        for read in (decode, measure, lambda d, name: read_image(d, name, None)[0]):
            try:
                found.append(read(data, "x"))
            except InputError as error:
                assert str(error).startswith("x: ")  # noqa: PT017
                found.append(None)
        picture, size, again = found
        assert (picture is None) == (size is None) == (again is None), k
        if picture is not None:
            assert picture.size == size
            assert np.array_equal(np.asarray(picture), np.asarray(as_picture(Image.open(io.BytesIO(data)))))
        outcomes.add(picture is None)
    assert outcomes == {True, False}


@pytest.mark.parametrize(
    ("content", "size"),
    [
        (encoded(photo(40, 30)), (40, 30, 1)),
        (encoded(turned(photo(40, 30), 6)[0], exif=turned(photo(40, 30), 6)[1]), (30, 40, 1)),
        (encoded(photo(40, 30), "GIF", save_all=True, append_images=[photo(40, 30), photo(40, 30)]), (40, 30, 3)),
        (encoded(photo(40, 30), "GIF")[:30], None),
        (png(9_000, 9_000, 1, 0, b""), (9_000, 9_000, 1)),  # there are no pixels to decode
        (png(20_000, 9_000, 1, 0, b""), None),
        (b"", None),
    ],
)
def test_the_size_comes_from_the_head(content, size):
    if size is None:
        with pytest.raises(InputError, match="a photo: "):
            image_size(content, "a photo")
    else:
        assert image_size(content, "a photo") == size

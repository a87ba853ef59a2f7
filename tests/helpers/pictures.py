"""Made-up photographs and their encoded files."""

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageCms

RNG = np.random.default_rng(0)
MODES = (
    "1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "I", "I;16", "I;16B",
    "F",
)  # fmt: skip
GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "F")

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


def photo(width: int, height: int) -> Image.Image:
    """A smooth random image, as a photograph is."""
    coarse = RNG.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def turned(image: Image.Image, orientation: int) -> tuple[Image.Image, Image.Exif]:
    """An upright image as a file stores it, and the EXIF data that say so."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return Image.fromarray(np.ascontiguousarray(STORED[orientation](np.asarray(image)))), exif


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """An RGB image in any mode of Pillow; deep grey uses all of 16 bits, and floats are from 0 to 1."""
    grey = image.convert("L")
    if mode.startswith("I") or mode == "F":
        values = np.asarray(grey)
        kind = {"I": np.int32, "I;16": "<u2", "I;16B": ">u2", "F": np.float32}[mode]
        return Image.fromarray((values / 255 if mode == "F" else values.astype(np.int32) * 257).astype(kind))
    if mode == "LAB":
        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        return ImageCms.applyTransform(image, ImageCms.buildTransform(srgb, lab, "RGB", "LAB"))
    if mode in ("1", "L"):
        return grey.convert(mode, dither=Image.Dither.NONE)
    if mode == "P":
        return image.quantize(256)
    between = {"LA": "L", "La": "LA", "PA": "P", "RGBa": "RGBA"}
    return in_mode(image, between[mode]).convert(mode) if mode in between else image.convert(mode)


def cut_out(size: int, colour: tuple[int, ...], *, soft: bool = False) -> Image.Image:
    """A disc of one colour on a transparent ground, RGBA; soft: with an edge that is half transparent."""
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    far = np.hypot(rows, columns) / size
    alpha = 255 * (far < 0.3) if not soft else np.select([far < 0.3, far < 0.35], [255, 128])
    pixels = np.zeros((size, size, 4), np.uint8)
    pixels[..., :3], pixels[..., 3] = colour, alpha
    return Image.fromarray(pixels)


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """A PNG of what Pillow cannot write, of fewer rows than it says, or with more chunks (name, data)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", head), *more, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)

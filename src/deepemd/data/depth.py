"""Scale values of more than 8 bits, and floats, to 8 bits.

Of a value, the upper 8 of the bits that are used remain. A file says how many are used (a TIFF of 12 bits, a largest
value among its tags, the largest value of a PGM), or the largest value in the image shows it: 255, 1,023, 4,095, 16,383
or 65,535, the least that holds it. So an image is never stretched to its own largest value, and what was spread from
8 over 16 bits is read as 16 bits: what is dark stays dark. A guess is logged once.
"""

import io
import logging
import sys
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepemd.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Depth", "deep_colour", "pieces", "stated_depth", "to_bytes"]

_BITS = (8, 10, 12, 14, 16)  # the depths of cameras, scanners and microscopes
_ROUNDING = 0.01  # how far floats may exceed their range; they are clipped
_OTHER_ORDER = {
    f"{mode};16{order}": f"{mode};16{other}"
    for mode in ("RGB", "RGBA", "RGBX")
    for order, other in ("BL", "LB", "NB" if sys.byteorder == "little" else "NL")
}  # names of Pillow for 16-bit colours, and for the same in the other byte order
_said: set[int] = set()


class Depth(NamedTuple):
    """What a file says about its values, beside their type."""

    bits: int = 0  # the bits of a value that are used; 0 if it does not say
    span: tuple[float, float] | None = None  # the values of black and white
    inverted: bool = False  # whether 0 is white


def stated_depth(image: "Image") -> Depth:
    """Return what the file of an image says about the depth of its values; read it before the pixels are loaded."""
    waiting = pieces(image)
    if image.format == "PPM" and waiting and waiting[0][0] == "ppm":
        return Depth(16)  # Pillow has scaled the values by the greatest value that the file names
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return Depth()

    def number(*names: int) -> float | None:
        values = [tags.get(name) for name in names if name in tags]
        values = [value[0] if isinstance(value, tuple) and value else value for value in values]
        return next((float(value) for value in values if isinstance(value, int | float)), None)

    high, low, bits = number(341, 281), number(340, 280) or 0.0, number(258)
    used = _bits(high) if high is not None and 255 < high <= 65_535 else 0
    if bits is not None and 8 < bits < 16:
        used = int(bits)
    return Depth(used, (low, high) if high is not None and high > low else None, inverted=number(262) == 0)


def to_bytes(
    values: NDArray[Any], name: str, depth: Depth, mode: str | None = None, *, say: bool = True
) -> NDArray[np.uint8]:
    """Scale values to 8 bits, by the depth that their file says, or by the least usual depth that holds them all."""
    if values.dtype == np.uint8:
        return values
    low, high = values.min().item(), values.max().item()
    if values.dtype.kind == "f":
        grey = _floats_to_bytes(values, low, high)
    else:
        grey = _integers_to_bytes(values, low, high, depth, name if say else None)
    if grey is None and depth.span is not None and depth.span[0] <= low <= high <= depth.span[1]:
        black, white = depth.span
        grey = np.round((values.astype(np.float64) - black) * (255 / (white - black))).astype(np.uint8)
    if grey is None and mode is None:
        raise InputError(f"{name}: {values.dtype} from {low:g} to {high:g}: pass uint8, or floats from 0 to 1")
    if grey is None:
        raise InputError(
            f"{name}: an image of mode {mode} with values from {low:g} to {high:g}, whose black and white are not "
            "known: save it as PNG or JPEG, or remove it"
        )
    return 255 - grey if depth.inverted else grey


def _integers_to_bytes(
    values: NDArray[Any], low: int, high: int, depth: Depth, name: str | None
) -> NDArray[np.uint8] | None:
    """Return the upper 8 of the bits that are used; None if a value is negative or above 16 bits."""
    if low < 0 or high > 65_535:
        return None
    bits = max(depth.bits, _bits(high))
    if not depth.bits and bits < 16:
        if high > 255 and _is_spread(values):
            bits = 16
        elif name is not None and (bits > 8 or values.dtype.itemsize == 2):
            _say_depth(bits, high, name)
    return (values >> (bits - 8)).astype(np.uint8)


def _floats_to_bytes(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8] | None:
    """Scale floats from 0 to 1, or of the range of 8 to 16 bits; None for another range, or NaN."""
    if low >= -_ROUNDING and high <= 1 + _ROUNDING:
        return np.asarray(np.round(255 * values.clip(0, 1)).astype(np.uint8))
    if not 16 <= high <= 65_535 * (1 + _ROUNDING) or not low >= -_ROUNDING * high:
        return None  # a range of 0 to 2, say, may be one that exceeds 0 to 1, or a dark one of 0 to 255
    bits = _bits(high / (1 + _ROUNDING))
    scaled = np.round(values) if bits == 8 else np.floor(values / 2 ** (bits - 8))
    return np.asarray(scaled.clip(0, 255).astype(np.uint8))


def _bits(high: float) -> int:
    """Return the least usual number of bits that holds a value."""
    return next((bits for bits in _BITS if high <= 2**bits - 1), 16)


def _is_spread(values: NDArray[Any]) -> bool:
    """Return whether values are those of 8 bits, spread over 16 (times 256 or 257): a picture that is really dark."""
    if not (values % 257).any():
        return True
    return not (values & 255).any() and len(np.unique(values)) > 4


def _say_depth(bits: int, high: int, name: str) -> None:
    if bits not in _said:  # once, not for each photo of a folder
        _said.add(bits)
        logging.getLogger(__name__).warning(
            "%s: its values end at %s of 65,535: read as %d bits, with white at %s; images like it likewise",
            name, f"{high:,}", bits, f"{2**bits - 1:,}",
        )  # fmt: skip


def deep_colour(image: "Image", encoded: bytes) -> NDArray[np.uint16] | None:
    """Return the 16-bit values of colours that are nearly black in the upper 8 bits, which are what Pillow reads.

    Args:
        image: the loaded image.
        encoded: the content of its file, if it is known.

    Returns:
        (H, W, 3) or (H, W, 4); None for any other image.
    """
    from PIL import Image

    if not encoded or image.mode not in ("RGB", "RGBA") or not _has_sixteen_bits(image, encoded):
        return None
    bands: Any = image.getextrema()
    if max(high for _, high in bands[:3]) > 63:
        return None
    if image.format == "PNG" and encoded[25:26] == b"\x04":
        return _grey_with_alpha(encoded)
    with Image.open(io.BytesIO(encoded)) as again:
        if again.tell() != image.tell():
            again.seek(image.tell())
        swapped = [_in_other_order(one) for one in pieces(again)]
        if None in swapped:
            return None
        again.tile = swapped  # type: ignore[attr-defined]
        again.load()
        values: NDArray[np.uint16] = np.asarray(image).astype(np.uint16) << 8 | np.asarray(again)
    key = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(key, tuple):
        return np.dstack((values, np.where((values == key).all(2), 0, 65_535).astype(np.uint16)))
    return values


def _has_sixteen_bits(image: "Image", encoded: bytes) -> bool:
    if image.format == "PNG":
        return encoded[24:25] == b"\x10"
    return image.format == "TIFF" and 16 in getattr(image, "tag_v2", {}).get(258, ())


def _grey_with_alpha(encoded: bytes) -> NDArray[np.uint16]:
    """Decode a PNG file of 16-bit grey with alpha to (H, W, 4), by its bytes: as if these were four 8-bit colours."""
    from PIL import Image

    head = encoded[12:24] + b"\x08\x06" + encoded[26:29]
    with Image.open(io.BytesIO(encoded[:12] + head + zlib.crc32(head).to_bytes(4, "big") + encoded[33:])) as image:
        upper, lower = np.asarray(image)[..., ::2].astype(np.uint16), np.asarray(image)[..., 1::2]
    values: NDArray[np.uint16] = (upper << 8 | lower)[..., [0, 0, 0, 1]]
    return values


def _in_other_order(piece: Any) -> Any:
    """Return a piece of a file so that the lower byte of each number is decoded; None for other kinds of pixels.

    The lower byte is the one that Pillow takes for the upper one in the other byte order.
    """
    args = piece[3]
    raw = args if isinstance(args, str) else args[0]
    if raw not in _OTHER_ORDER:
        return None
    other = _OTHER_ORDER[raw]
    return type(piece)(*piece[:3], other if isinstance(args, str) else (other, *args[1:]))


def pieces(image: "Image") -> Any:
    """Return what Pillow has yet to decode of a file: pieces (decoder, box, offset, arguments)."""
    return getattr(image, "tile", None) or []

"""The built-in data set ``glyphs``: letters of five scripts, rendered from the fonts inside matplotlib.

It is a real few-shot problem that needs no download. The base classes are Latin and Cyrillic letters, the validation
classes Greek ones, the novel classes Armenian and Georgian ones. Each 40 x 40 image shows one whole letter, of random
size, slant, rotation, position and contrast, among fragments of other letters of its split: averaging over the image
mixes the letter with the clutter, matching its parts does not. The typeface is the image's group: in an episode, the
support and the query of a class never share one.

Every image depends only on (seed, letter, face, rendering), through the raw words of a counter-based generator.
"""

import hashlib
import io
import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deepemd.data.drafts import Draft
from deepemd.data.letters import FACES, LETTERS, NOVEL_FACES, SCRIPTS, face_files
from deepemd.progress import track

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["GENERATOR_HASH", "drafts"]

SIZE = 40  # side of an image, in pixels
SEED = 0
RENDERINGS = 3  # images of each letter in each face
# Hash of the pixels of all splits, rendered with FreeType 2.14.3. It was fixed before any model saw the novel scripts.
GENERATOR_HASH = "b9e886befe2f4d12bf5aa344ce12f2a81709f5273f35ec4c76bd053d650844f0"

_FINE = 2  # the canvas is drawn larger by this factor, then reduced
_EM = 60  # font size of the masks, in pixels of the larger canvas
_MAX_NUMBERS = 96  # numbers that one image can draw
_SLOPE = np.linspace(-1, 1, SIZE, dtype=np.float32)


@dataclass(frozen=True)
class _Glyph:
    """One letter in one face; ``mask`` is its ink, cropped to the bounding box."""

    code: int
    face: int
    mask: "Image.Image"


class _Numbers:
    """The uniform random numbers of one image, in order, from the raw words of Philox 4x64-10."""

    def __init__(self, code: int, face: int, rendering: int) -> None:
        philox = np.random.Philox(key=SEED, counter=[0, code, face, rendering])
        self._values = ((philox.random_raw(_MAX_NUMBERS) >> np.uint64(11)) * 2.0**-53).tolist()
        self.noise = philox.random_raw(SIZE * SIZE // 4).astype("<u8").view(np.uint8).reshape(2, SIZE, SIZE)
        self._next = 0

    def uniform(self, low: float, high: float) -> float:
        """Draw a number from [low, high)."""
        self._next += 1
        return float(low + (high - low) * self._values[self._next - 1])

    def below(self, count: int) -> int:
        """Draw an integer from [0, count)."""
        return int(self.uniform(0, count))


def drafts() -> tuple[dict[str, Draft], dict[str, str]]:
    """Render the three splits.

    Returns:
        The splits, and notes with the hash of all pixels and the published hash.

    Raises:
        InputError: the fonts of matplotlib are missing.
    """
    splits, digest = {}, hashlib.sha256()
    for split, scripts in SCRIPTS.items():
        pixels, draft = _split(scripts, NOVEL_FACES if split == "novel" else FACES)
        digest.update(pixels.tobytes())
        splits[split] = draft
    found = digest.hexdigest()
    if found != GENERATOR_HASH:
        logging.getLogger(__name__).warning(
            "glyphs: these fonts and this Pillow render other pixels (%s) than the published set (%s): figures are "
            "comparable only between sets of the same hash; constraints.txt has the versions of the published one",
            found[:12], GENERATOR_HASH[:12],
        )  # fmt: skip
    return splits, {"source": "rendered", "pixels sha256": found, "published pixels sha256": GENERATOR_HASH}


def _split(scripts: tuple[str, ...], faces: tuple[str, ...]) -> tuple[np.ndarray, Draft]:
    """Render one split: uint8 (N, SIZE, SIZE), in the order of classes, faces and renderings."""
    letters = sorted(
        (f"{script}-{ord(letter):04x}-{letter}", letter) for script in scripts for letter in LETTERS[script]
    )
    glyphs = _masks([letter for _, letter in letters], faces)  # [letter][face]
    keys = [
        (label, face, rendering)
        for label in range(len(letters))
        for face in range(len(faces))
        for rendering in range(RENDERINGS)
    ]
    tracked = track(keys, f"rendering {', '.join(scripts)}", len(keys), "letters")
    pixels = np.stack([_render(glyphs, *key) for key in tracked])
    draft = Draft(
        classes=tuple(name for name, _ in letters),
        labels=np.array([label for label, _, _ in keys]),
        names=tuple(f"{letters[label][0]}/{faces[face]}-{rendering}.png" for label, face, rendering in keys),
        read=lambda i: _png(pixels[i]),
        groups=np.array([face for _, face, _ in keys]),
        size=pixels.size + 100 * len(pixels),
    )
    return pixels, draft


def _masks(letters: list[str], faces: tuple[str, ...]) -> list[list[_Glyph]]:
    """Draw each letter once in each face; images are made from affine maps of these masks."""
    from PIL import Image, ImageFont

    files = face_files()
    fonts = [ImageFont.truetype(str(files[face]), _EM, layout_engine=ImageFont.Layout.BASIC) for face in faces]
    glyphs: list[list[_Glyph]] = [[] for _ in letters]
    for row, letter in zip(glyphs, letters, strict=True):
        for face, font in enumerate(fonts):
            mask = font.getmask(letter, mode="L")
            image = Image.frombytes("L", mask.size, bytes(mask))
            row.append(_Glyph(ord(letter), face, image.crop(image.getbbox())))
    return glyphs


def _render(glyphs: list[list[_Glyph]], label: int, face: int, rendering: int) -> np.ndarray:
    """Render one image, uint8 (SIZE, SIZE): clutter, then the letter, then contrast, background and noise."""
    from PIL import Image

    target = glyphs[label][face]
    numbers = _Numbers(target.code, face, rendering)
    side = SIZE * _FINE
    letter = _mapped(target.mask, _matrix(numbers, numbers.uniform(0.60, 0.75) * side / max(target.mask.size), 0.15))
    left = round(numbers.uniform(0, side - letter.width))
    top = round(numbers.uniform(0, side - letter.height))

    ink = Image.new("L", (side, side))
    for _ in range(2 + numbers.below(3)):
        other = glyphs[(label + 1 + numbers.below(len(glyphs) - 1)) % len(glyphs)]
        piece = _fragment(numbers, other[numbers.below(len(other))].mask, side)
        x, y = numbers.uniform(0, side), numbers.uniform(0, side)
        ink.paste(255, (round(x - piece.width / 2), round(y - piece.height / 2)), piece)
    # The clutter may touch the letter, but not the inner part of its box.
    w, h = letter.width // 12, letter.height // 12
    ink.paste(0, (left + w, top + h, left + letter.width - w, top + letter.height - h))
    ink.paste(255, (left, top), letter)
    return _shaded(numbers, np.asarray(ink.reduce(_FINE), dtype=np.float32) / 255)


def _fragment(numbers: _Numbers, mask: "Image.Image", side: int) -> "Image.Image":
    """Cut a random piece out of a letter and rotate it; its strokes are as wide as those of a whole letter."""
    width, height = mask.size
    w, h = max(4, round(width * numbers.uniform(0.4, 0.7))), max(4, round(height * numbers.uniform(0.4, 0.7)))
    left, top = numbers.below(max(1, width - w)), numbers.below(max(1, height - h))
    scale = numbers.uniform(0.55, 0.75) * side / max(mask.size)
    return _mapped(mask.crop((left, top, left + w, top + h)), _matrix(numbers, scale, math.pi))


def _matrix(numbers: _Numbers, scale: float, turn: float) -> tuple[float, float, float, float]:
    """Draw a linear map (a, b, c, d), (x, y) -> (a x + b y, c x + d y): stretch, slant, rotate up to `turn`, scale."""
    angle, slant, stretch = numbers.uniform(-turn, turn), numbers.uniform(-0.2, 0.2), numbers.uniform(0.87, 1.15)
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    return cos * stretch, cos * slant - sin / stretch, sin * stretch, sin * slant + cos / stretch


def _mapped(mask: "Image.Image", matrix: tuple[float, float, float, float]) -> "Image.Image":
    """Transform a mask by ``matrix``, into the smallest box that holds the result."""
    from PIL import Image

    a, b, c, d = matrix
    width = math.ceil(abs(a) * mask.width + abs(b) * mask.height)
    height = math.ceil(abs(c) * mask.width + abs(d) * mask.height)
    det = a * d - b * c  # Pillow wants the inverse map, from pixel centre to pixel centre
    a, b, c, d = d / det, -b / det, -c / det, a / det
    shift_x = mask.width / 2 - a * width / 2 - b * height / 2
    shift_y = mask.height / 2 - c * width / 2 - d * height / 2
    data = (a, b, shift_x, c, d, shift_y)
    return mask.transform((width, height), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)


def _shaded(numbers: _Numbers, ink: np.ndarray) -> np.ndarray:
    """Turn ink in [0, 1] into grey levels: dark on light, of random tones, unevenly lit, with a little noise."""
    tone, contrast = numbers.uniform(0, 90), numbers.uniform(90, 160)
    paper = tone + contrast
    ground = paper + numbers.uniform(-25, 25) * _SLOPE[:, None] + numbers.uniform(-25, 25) * _SLOPE[None, :]
    noise = (numbers.noise[0].astype(np.float32) - numbers.noise[1]) / 24  # triangular, deviation about 4
    grey: np.ndarray = np.clip(np.rint(ground + (tone - ground) * ink + noise), 0, 255).astype(np.uint8)
    return grey


def _png(pixels: np.ndarray) -> bytes:
    """Encode as PNG without compression, which is faster and does not depend on the version of zlib."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=0)
    return file.getvalue()

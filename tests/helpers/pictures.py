"""Made-up photographs and their encoded files."""

import io

import numpy as np
from PIL import Image

RNG = np.random.default_rng(0)


def photo(width: int, height: int) -> Image.Image:
    """A smooth random image, as a photograph is."""
    coarse = RNG.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()

"""Sample photos that need no download: pieces of the photos inside scikit-learn and matplotlib.

A temple and a flower come with scikit-learn, a portrait with matplotlib.
"""

from importlib.resources import files
from typing import TYPE_CHECKING

from deepemd.data import decode

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["sample_classes", "sample_queries"]

# Package, file, and the box (x0, y0, x1, y1) of the interesting part, in pixels.
_SOURCES = {
    "temple": ("sklearn.datasets", "images/china.jpg", (60, 20, 400, 320)),
    "flower": ("sklearn.datasets", "images/flower.jpg", (130, 0, 560, 400)),
    "portrait": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", (90, 20, 420, 380)),
}
_CUTS = 7  # photos of each class; three classes are then just enough to recognise images of other things


def sample_classes() -> "dict[str, list[Image]]":
    """Return three classes of seven photos, each cut from one photo at different places and scales."""
    return {name: [_cut(_source(name), k) for k in range(_CUTS)] for name in _SOURCES}


def sample_queries() -> "list[Image]":
    """Return another piece of each photo, mirrored, and a letter, which resembles none of them."""
    from PIL import ImageOps

    return [*(ImageOps.mirror(_cut(_source(name), _CUTS + 2)) for name in _SOURCES), _letter()]


def _source(name: str) -> "Image":
    package, file, box = _SOURCES[name]
    return decode(files(package).joinpath(file).read_bytes(), file).crop(box)


def _cut(image: "Image", k: int) -> "Image":
    """Cut the k-th square out of an image, at its own place and in one of three sizes."""
    side = round(min(image.size) * (0.5, 0.7, 0.9)[k % 3])
    across, down = (k * 0.382) % 1, (k * 0.618) % 1  # the golden ratio spreads the places evenly
    left, top = round(across * (image.width - side)), round(down * (image.height - side))
    return image.crop((left, top, left + side, top + side))


def _letter() -> "Image":
    from PIL import Image, ImageDraw, ImageFont

    file = files("matplotlib").joinpath("mpl-data/fonts/ttf/DejaVuSerif-Bold.ttf")
    image = Image.new("RGB", (200, 200), (235, 235, 225))
    ImageDraw.Draw(image).text((100, 100), "Ж", fill=(30, 30, 40), font=ImageFont.truetype(str(file), 150), anchor="mm")
    return image

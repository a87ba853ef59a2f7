"""The letters of the built-in data set ``glyphs``, and the rule that selects them.

The letters are constants, so that the classes never depend on the installed fonts. :func:`select` is the rule, and the
tests check that it still gives these letters. It goes through the scripts in the order of ``ORDER``, capitals first,
and leaves out accented letters and every letter that resembles an *earlier* one of any script.
Resemblance is measured: in three upright faces, each letter is scaled to the same longest side, centred, slightly
blurred and correlated with each earlier letter; the largest correlation counts. The thresholds were set by viewing the
pairs around them. Above 0.86 are pairs such as K and κ. Between 0.80 and 0.86 are different letters, such as n and u or
O and Ω, but also small copies of capitals (ґ, Ґ) and borrowed shapes (Չ, Q). So the stricter threshold applies to the
two cases of one letter and to letters of different splits.
"""

import unicodedata
from pathlib import Path

import numpy as np

from deepemd.errors import InputError

__all__ = ["FACES", "LETTERS", "NOVEL_FACES", "SCRIPTS", "face_files", "select"]

_STYLES = ("", "-Bold", "-Oblique", "-BoldOblique")
_SERIF_STYLES = ("", "-Bold", "-Italic", "-BoldItalic")
# The faces that have every script; only these have Armenian and Georgian.
NOVEL_FACES: tuple[str, ...] = (
    *(f"DejaVuSans{style}" for style in _STYLES),
    *(f"DejaVuSansMono{style}" for style in _STYLES),
    *(f"DejaVuSerif{style}" for style in _SERIF_STYLES),
)
FACES: tuple[str, ...] = (*NOVEL_FACES, "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta")

SCRIPTS = {
    "base": ("latin", "latin-extended", "cyrillic"),
    "val": ("greek",),
    "novel": ("armenian", "georgian"),
}
# The rarer Latin letters come last: there are many of them, so enough remain.
ORDER = ("latin", "greek", "cyrillic", "armenian", "georgian", "latin-extended")
# Largest allowed correlation with an earlier letter, and with the other case of a letter or a letter of another split.
LOOK_ALIKE, STRICT = 0.86, 0.80
_VARYING = "Ϝϝ"  # digamma is an F in some faces, an f in others
_MEASURED = ("DejaVuSans", "DejaVuSerif", "STIXGeneral")

LETTERS: dict[str, str] = {
    "latin": "ABCDEHIJKLMNOPQRSTUVWXYZabdfghkmnrty",
    "greek": "ΞΣΦΨϚϞϠαβδζηθλμνξςφχωϟϡ",
    "cyrillic": "ЂЉЊЋЏДЖЗЛЧШЩЪЫЭЮЯѢҐфђѣ",
    "armenian": "ԲԳԴԵԶԷԸԹԺԻԽԾԿՀՁՃՄՆՇՊՌՎՐՒՔՖդէթիխկձճմնշչպջվք",
    "georgian": "აბდეზკლჟრსტუფქღყჭჯჰჱჲჴჵჶჸჹჺ",
    "latin-extended": "ÆÞŒßæœƈƒƪƫƺƾǁɐɕɚɝɞɠɣɤɮɱɲɸɹɻɿʁʂʃʅʇʍʐʑʒʔʕʝʞʣʤʦʧʨ",
}


def face_files(folder: Path | None = None) -> dict[str, Path]:
    """Return the font file of each of the 16 faces, in ``folder`` or in matplotlib's own folder of fonts.

    Raises:
        InputError: a font file is missing.
    """
    import matplotlib

    folder = folder or Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    files = {face: folder / f"{face}.ttf" for face in FACES}
    missing = [path.name for path in files.values() if not path.is_file()]
    if missing:
        raise InputError(
            f"glyphs needs the fonts of matplotlib, but {folder} lacks {', '.join(missing)}: "
            "install matplotlib by pip (some distributions remove its fonts)"
        )
    return files


def candidates(script: str) -> list[str]:
    """Return the unaccented letters of a script that all its faces have: capitals first, then by code point."""
    from matplotlib.ft2font import FT2Font

    files = face_files()
    faces = NOVEL_FACES if script in ("armenian", "georgian") else FACES
    common = set.intersection(*(set(FT2Font(str(files[face])).get_charmap()) for face in faces))
    name = script.removesuffix("-extended").upper() + " "
    letters = [
        letter
        for letter in map(chr, common)
        if unicodedata.category(letter) in ("Lu", "Ll", "Lo")
        and unicodedata.name(letter, "").startswith(name)
        and not unicodedata.decomposition(letter)
        and letter not in _VARYING
        and (name != "LATIN " or letter.isascii() == (script == "latin"))
    ]
    return sorted(letters, key=lambda letter: (unicodedata.category(letter) != "Lu", letter))


def likeness(letters: list[str]) -> np.ndarray:
    """Return the correlation of each pair of letters, the largest over the measured faces: (n, n) float64."""
    from matplotlib.ft2font import FT2Font
    from PIL import ImageFont

    files, alike = face_files(), np.full((len(letters), len(letters)), -1.0)
    for face in _MEASURED:
        font = ImageFont.truetype(str(files[face]), 96, layout_engine=ImageFont.Layout.BASIC)
        drawn = FT2Font(str(files[face])).get_charmap()
        here = np.array([i for i, letter in enumerate(letters) if ord(letter) in drawn])
        shapes = np.stack([_shape(font, letters[i]) for i in here])  # (m, pixels), for the m letters of the face
        alike[np.ix_(here, here)] = np.maximum(alike[np.ix_(here, here)], shapes @ shapes.T)
    return alike


def _shape(font: object, letter: str, side: int = 32, margin: int = 6) -> np.ndarray:
    """Return a letter, scaled to a longest side of ``side``, centred and blurred, as a zero-mean unit vector."""
    from PIL import Image, ImageFilter

    mask = font.getmask(letter, mode="L")  # type: ignore[attr-defined]
    image = Image.frombytes("L", mask.size, bytes(mask))
    image = image.crop(image.getbbox())
    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    canvas = Image.new("L", (side + 2 * margin, side + 2 * margin))
    canvas.paste(
        image.resize((width, height), Image.Resampling.BOX),
        ((canvas.width - width) // 2, (canvas.height - height) // 2),
    )
    vector = np.asarray(canvas.filter(ImageFilter.GaussianBlur(0.7)), dtype=np.float64).ravel()
    vector -= vector.mean()
    return vector / np.linalg.norm(vector)


def select(slack: float = 0.0) -> dict[str, str]:
    """Apply the rule to the installed fonts; return the selected letters of each script, as in ``LETTERS``.

    Args:
        slack: added to both thresholds; with it, the tests find letters close to a threshold.
    """
    pairs = [(script, letter) for script in ORDER for letter in candidates(script)]
    letters = [letter for _, letter in pairs]
    alike = likeness(letters)
    split = [next(name for name, scripts in SCRIPTS.items() if script in scripts) for script, _ in pairs]
    selected: list[int] = []
    for i, letter in enumerate(letters):
        strict = {j for j in range(i) if letters[j].lower() == letter.lower()} | {
            j for j in selected if split[j] != split[i]
        }
        if all(alike[i, j] <= (STRICT if j in strict else LOOK_ALIKE) + slack for j in range(i)):
            selected.append(i)
    return {script: "".join(letters[i] for i in selected if pairs[i][0] == script) for script in ORDER}

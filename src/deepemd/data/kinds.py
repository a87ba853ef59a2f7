"""Tell photos from other files, and both from what cameras, systems and network drives leave behind."""

import re
from collections.abc import Callable

__all__ = ["HEAD", "IMAGES", "is_image", "is_system", "named_like_image", "unknown_hidden"]

HEAD = 512  # bytes at the beginning of a file that show what it is
IMAGES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".heic", ".heif", ".avif", ".tif", ".tiff", ".bmp", ".gif", ".jp2"),
    *(".jpe", ".jfif", ".jfi", ".jif", ".pjpeg", ".pjp", ".mpo", ".apng", ".avifs", ".hif", ".heics", ".heifs"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".dib", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".qoi"),
    *(".tga", ".icb", ".vda", ".vst", ".pcd", ".xbm", ".spi", ".spider"),
)
"""Endings of photos, in lower case; the first dozen are common. Other files are photos if they begin like one."""

# Files that begin like photos and are none: raw data with a small preview, thumbnails of videos, unfinished downloads.
_NO_PHOTOS = (
    *(".3fr", ".arw", ".cr2", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".k25", ".kdc", ".mef", ".mos", ".mrw"),
    *(".nef", ".nrw", ".orf", ".pef", ".ptx", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
    *(".thm", ".part", ".partial", ".crdownload", ".opdownload", ".download"),
)
# Folders and files, whatever their upper and lower case.
_SYSTEM = re.compile(
    r"""
    \..*  # hidden
    | @eadir | @tmp | @sharebin | @recently-snapshot | @transcode | @__thumb | .*@syno(eastream|resource)
    | [#@~](recycle|snapshots?)
    | lost\+found | lost\.dir | found\.\d\d\d  # repaired disks
    | \$recycle\.bin | system\ volume\ information | \$extend | \$winreagent | recycle\.bin | (?-i:RECYCLER)  # Windows
    | (eh)?thumbs(_vista)?\.db(:.*)? | desktop\.ini | folder\.ico
    | __macosx | icon\r | network\ trash\ folder | temporary\ items | thevolumesettingsfolder | desktop\ d[bf]  # macOS
    | __pycache__ | picasa\.ini | zbthumbnail\.info | .+\.lrdata | .+\.photoslibrary | .+\.aplibrary  # programs
    """,
    re.IGNORECASE | re.VERBOSE,
)
# Hidden folders of known programs; others might have been meant as classes.
_KNOWN_HIDDEN = re.compile(
    r"\.(_.*|@.*|apple.*|bzr|cache.*|comments|config|directory|documentrevisions.*|ds_store|dropbox.*|dtrash|dvc|env"
    r"|fseventsd|fuse.*|git.*|hg|idea|ipynb_checkpoints|local|mypy_cache|nfs.*|picasa.*|pytest_cache|recycle.*"
    r"|ruff_cache|snapshots?|spotlight.*|st(folder|versions).*|svn|sync.*|te?mp.*|temporaryitems|thumb.*|trash.*|venv"
    r"|vscode|xvpics|zfs)",
    re.IGNORECASE,
)
_BEGINNINGS = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    *(b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51", b"8BPS\0\x01", b"DDS ", b"qoif", b"icns", b"BLP1", b"BLP2"),
    *(b"DanM", b"LinS", b"SIMPLE  =", b"\x59\xa6\x6a\x95", b"\xb1\x68\xde\x3a", b"/* XPM */", b"Image type: "),
)
_PATTERNS = re.compile(
    rb"""
    RIFF....WEBP
    | ....ftyp(avif|avis|mif1|msf1|hei[cxms]|hev[cxms])
    | BM....\0\0\0\0....[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0        # BMP, with the size of its second header
    | \x28\0\0\0.{8}\x01\0[\x01\x04\x08\x10\x18\x20]\0           # DIB
    | \s*\#define[\ \t]+\S*_width[\ \t]+\d                         # XBM
    | P[1-6]\s(\s|\#[^\n]*\n)*\d+\s(\s|\#[^\n]*\n)*\d+\s            # PBM, PGM and PPM, with their sizes
    | \0\0\x01\0[^\0]\0..[\x00-\x10]\0                              # ICO
    | \x0a[\0-\x05]\x01[\x01\x02\x04\x08]                           # PCX
    | \x01\xda[\0\x01][\x01\x02]\0                                  # SGI
    """,
    re.DOTALL | re.VERBOSE,
)


def is_system(name: str) -> bool:
    """Return whether a file or folder is hidden, or made by a system, a network drive or a program for itself.

    >>> [is_system(name) for name in ("@eaDir", "Thumbs.db", "._1.jpg", "recycled", "1.jpg")]
    [True, True, True, False, False]
    """
    return _SYSTEM.fullmatch(name) is not None


def unknown_hidden(name: str) -> bool:
    """Return whether a folder is hidden, but by no program that is known: it may have been meant as a class (.NET)."""
    return name.startswith(".") and _KNOWN_HIDDEN.fullmatch(name) is None


def named_like_image(name: str) -> bool:
    """Return whether the ending of a file's name is that of a photo."""
    return name.lower().endswith(IMAGES)


def is_image(name: str, head: Callable[[], bytes]) -> bool:
    r"""Return whether a file is a photo: it is named like one, or it begins like one.

    Args:
        name: name of the file.
        head: returns its first ``HEAD`` bytes; it is called only if the name does not decide.

    >>> is_image("IMG_1", lambda: b"\xff\xd8\xff\xe0"), is_image("film.mp4", lambda: b"\0\0\0 ftypisom")
    (True, False)
    """
    if named_like_image(name):
        return True
    if name.lower().endswith(_NO_PHOTOS):
        return False
    start = head()
    return start.startswith(_BEGINNINGS) or _PATTERNS.match(start) is not None

"""The content of image files: read it without waiting, say what is no image, and drop what no reader needs."""

import os
import stat
from pathlib import Path

from deepemd.errors import InputError

__all__ = ["kind", "read_file", "without_text"]

_MOST_BYTES = 2**30  # largest file that is read: more than an uncompressed image of the most pixels needs
_PNG = b"\x89PNG\r\n\x1a\n"
_TEXT = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")  # chunks of a PNG that do not change its pixels as they are read here
_KINDS = {
    b"version https://git-lfs": "a pointer of Git LFS: fetch the images themselves with git lfs pull",
    b"<!doctype html": "a web page: download the image itself",
    b"<html": "a web page: download the image itself",
    b"<svg": "an SVG drawing: save it as PNG",
    b"<?xml": "an XML or SVG file: save it as PNG",
    b"%pdf": "a PDF document: save its pictures as PNG or JPEG",
    b"pk\x03\x04": "a zip archive: unpack it",
}  # how a file begins, in lower case, and what it is


def read_file(path: Path, name: str) -> bytes:
    """Return the content of an image file; never wait for a pipe or read a device.

    Args:
        path: the file.
        name: name of the file in messages.

    Raises:
        InputError: the file is missing, cannot be read, is larger than 1 GiB, or is no regular file (a folder, a pipe,
            a socket, a device).
    """
    name = name or "an empty path"
    try:
        found = _checked(path.stat(), name)  # before it is opened, which can act on a device
        with open(path, "rb", opener=_open_without_waiting) as file:
            found = _checked(os.fstat(file.fileno()), name)  # another file may have taken the name
            content = file.read(found.st_size + 1) or b""
            if len(content) > found.st_size:  # the file grows, or is of a kind whose size the system does not say
                content += file.read(_MOST_BYTES) or b""
    except InputError:
        raise
    except FileNotFoundError as error:
        if path.is_symlink():
            raise InputError(f"{name}: a link to a file that does not exist: replace or remove it") from error
        raise InputError(f"{name}: there is no such file: check the path") from error
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror or error}): check the file") from error
    except ValueError as error:
        raise InputError(f"{name}: not the path of a file ({error}): check the path") from error
    if len(content) > _MOST_BYTES:
        raise _too_large(name)
    return content


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _checked(found: os.stat_result, name: str) -> os.stat_result:
    """Raise if a file is not a regular one, or is too large to be an image."""
    if not stat.S_ISREG(found.st_mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        what = kinds.get(stat.S_IFMT(found.st_mode), "a device")
        raise InputError(f"{name}: {what}, not an image file: pass the path of an image")
    if found.st_size > _MOST_BYTES:
        raise _too_large(name)
    return found


def _too_large(name: str) -> InputError:
    return InputError(f"{name}: larger than 1 GiB, too large for an image: scale it down or remove the file")


def kind(content: bytes) -> str | None:
    """Say what a file is that is no image, and what to do; None if it is not known.

    >>> kind(b"<!DOCTYPE html><title>Not found</title>")
    'a web page: download the image itself'
    """
    if not content:
        return "an empty file: replace or remove the file"
    begins = content[:200].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if content[4:8] == b"ftyp" and content[8:12] in (b"isom", b"iso2", b"mp41", b"mp42", b"avc1", b"qt  ", b"M4V "):
        return "a video: save one of its pictures as JPEG"
    return next((what for start, what in _KINDS.items() if begins.startswith(start)), None)


def without_text(content: bytes) -> bytes:
    """Return a PNG file without its texts and colour profile, which Pillow refuses where they are large.

    Other files, and what follows a damaged place, are returned as they are.
    """
    if not content.startswith(_PNG):
        return content
    parts, at = [_PNG], len(_PNG)
    while at + 12 <= len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")  # a length, a name of four letters, data, a sum
        if content[at + 4 : at + 8] not in _TEXT:
            parts.append(content[at:end])
        at = end
    return b"".join([*parts, content[at:]])

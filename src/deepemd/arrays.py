"""Read arrays of numpy's files with bounded memory: a header's claims are compared with the bytes that are there.

``numpy.load`` trusts a header: it reserves whatever size is claimed, unpacks what was compressed, and evaluates text.
"""

import math
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

__all__ = ["open_npy", "read_npz"]

_MAGIC = b"\x93NUMPY\x01\x00"  # version 1.0, which numpy writes unless an array has many fields
_HEADER = re.compile(
    rb"\{'descr': '([<>|=]?[biufU][0-9]{1,9})', 'fortran_order': (True|False), 'shape': \(([0-9, ]*)\), \} *\n?"
)
_MAX_SIDES, _MAX_DIGITS = 8, 18  # dimensions of an array, and digits of each


def open_npy(path: Path) -> np.ndarray:
    """Open an array of numbers or text in a .npy file as a read-only memory map.

    Raises:
        ValueError: the file is damaged, or its length is not that of the array.
        OSError: the file cannot be read.
    """
    if path.exists() and not path.is_file():
        raise ValueError("not a file")
    with path.open("rb") as file:
        dtype, shape, order, offset = _header(file)
        found, size = path.stat().st_size - offset, dtype.itemsize * math.prod(shape)
    if found != size:
        raise ValueError(f"{found:,} bytes, {size:,} expected for an array of {_times(shape)}")
    if not size:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", offset, shape, "F" if order else "C")


def read_npz(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Read arrays of numbers or text from a .npz file that ``numpy.savez`` wrote, and verify their check sums.

    Args:
        path: the file.
        names: names of the arrays; others in the file are ignored.

    Raises:
        ValueError: the file is damaged, an array is missing, or compressed, which could fill the memory.
        OSError: the file cannot be read.
    """
    if path.exists() and not path.is_file():
        raise ValueError("not a file")
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                return {name: _member(archive, name) for name in names}
        except Exception as error:  # zipfile raises many types for a damaged archive
            raise ValueError(f"{error or type(error).__name__}") from error


def _member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    entry = archive.getinfo(f"{name}.npy")
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        raise ValueError(f"{name} is compressed")
    with archive.open(entry) as file:
        dtype, shape, order, _ = _header(file)  # type: ignore[arg-type]
        content = file.read()  # to the end, where its check sum is verified
    if len(content) != dtype.itemsize * math.prod(shape):
        raise ValueError(f"{name} holds {len(content):,} bytes, which are not an array of {_times(shape)}")
    if not content:
        return np.empty(shape, dtype)
    return np.frombuffer(bytearray(content), dtype).reshape(shape, order="F" if order else "C")


def _header(file: BinaryIO) -> tuple[np.dtype[Any], tuple[int, ...], bool, int]:
    """Read the header: dtype, shape, whether the order is Fortran's, and the place of the first value."""
    start = file.read(len(_MAGIC) + 2)
    length = int.from_bytes(start[-2:], "little")
    text = file.read(length)
    match = _HEADER.fullmatch(text)
    if not start.startswith(_MAGIC) or len(text) != length or match is None:
        raise ValueError("no header of an array of numbers")
    kind, fortran, sides = match.groups()
    written = [side for side in sides.replace(b" ", b"").split(b",") if side]
    if len(written) > _MAX_SIDES or any(len(side) > _MAX_DIGITS for side in written):
        raise ValueError("an array of far too many dimensions or values")
    shape = tuple(map(int, written))
    try:
        dtype = np.dtype(kind.decode())
    except TypeError as error:
        raise ValueError(f"values of type {kind.decode()}") from error
    if not dtype.itemsize:
        raise ValueError(f"values of type {kind.decode()}, which take no bytes")
    return dtype, shape, fortran == b"True", len(start) + length


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(f"{side}" for side in shape) or "one value"

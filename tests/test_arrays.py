"""Arrays from files: what numpy writes is read, and a header's claims are never trusted."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from deepemd.arrays import open_npy, read_npz

ARRAYS = [
    np.arange(6, dtype=np.int64).reshape(2, 3),
    np.arange(24, dtype=np.float16).reshape(2, 3, 4).T,
    np.array(["a", "grün", ""]),
    np.zeros((0, 3), np.float32),
    np.array(7),
    np.array([True, False]),
    np.arange(3, dtype=">i4"),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{a.shape}")
def test_what_numpy_writes_is_read(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", a=array, b=np.zeros(3))
    for found in (open_npy(tmp_path / "a.npy"), read_npz(tmp_path / "a.npz", ["a"])["a"]):
        assert found.dtype == array.dtype
        assert found.shape == array.shape
        assert np.array_equal(found, array)


def npy(header: str, content: bytes = bytes(24)) -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


BAD = {
    "2 GB": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2000000000,), }"),
    "more bytes than there are": npy(
        "{'descr': '<f8', 'fortran_order': False, 'shape': (999999999999999999, 99999), }"
    ),
    "more numbers than 64 bits count": npy(
        "{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999999999,), }"
    ),
    "fewer": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }"),
    "negative": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-3,), }"),
    "objects": npy("{'descr': '|O', 'fortran_order': False, 'shape': (3,), }"),
    "fields": npy("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (3,), }"),
    "unknown type": npy("{'descr': '<f7', 'fortran_order': False, 'shape': (3,), }"),
    "no bytes": npy("{'descr': '<U0', 'fortran_order': False, 'shape': (3,), }", b""),
    "nested": npy("(" * 100),
    "code": npy("{'descr': __import__('os').getcwd(), 'fortran_order': False, 'shape': (3,), }"),
    "long digits": b"\x93NUMPY\x01\x00\xff\xff{'descr': '<f8', 'fortran_order': False, 'shape': (" + b"1" * 65490,
    "many dimensions": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1, 1, 1, 1, 1, 1, 1, 1, 3), }"),
    "nothing": b"",
    "only the beginning": b"\x93NUMPY\x01\x00",
    "of no version": b"\x93NUMPY\x07\x00" + bytes(100),
    "a pickle": b"\x80\x04K\x01.",
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_damage_is_a_value_error_in_both_kinds_of_file(tmp_path, data):
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(ValueError, match=r"\w"):
        open_npy(tmp_path / "a.npy")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", data)
    with pytest.raises(ValueError, match=r"\w"):
        read_npz(tmp_path / "a.npz", ["a"])


def test_other_damage_of_a_zip(tmp_path):
    path = tmp_path / "a.npz"
    for data in (b"", b"PK", bytes(1000)):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"\w"):
            read_npz(path, ["a"])
    np.savez(path, a=np.zeros(3))
    with pytest.raises(ValueError, match=r"b\.npy"):
        read_npz(path, ["b"])
    with pytest.raises(FileNotFoundError):
        read_npz(tmp_path / "none.npz", ["a"])
    for read in (open_npy, lambda path: read_npz(path, ["a"])):
        with pytest.raises(ValueError, match="not a file"):
            read(tmp_path)


def test_a_bomb_is_not_unpacked(tmp_path):
    content = io.BytesIO()
    np.save(content, np.zeros(50_000_000, np.uint8))
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", content.getvalue())
    del content
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="compressed"):
            read_npz(tmp_path / "a.npz", ["a"])
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()

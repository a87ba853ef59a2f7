"""Pickles of arrays come back as they went in; pickles that run code, and damaged ones, are refused."""

import collections
import os
import pickle
import subprocess
from pathlib import Path

import numpy as np
import pytest

from deepemd.data.archives import open_archive
from deepemd.data.pickles import field, unpickle
from deepemd.errors import InputError


def read(tmp_path: Path, content: bytes) -> object:
    (tmp_path / "x.pkl").write_bytes(content)
    return unpickle(open_archive(tmp_path, tmp_path), "x.pkl")


def objects(*items: object) -> np.ndarray:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def plain(array: np.ndarray) -> list:
    """Its elements; those of arrays within it too."""
    return [item.tolist() if isinstance(item, np.ndarray) else item for item in array.reshape(-1).tolist()]


ARRAYS = [
    np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(5, dtype=">i4"),
    np.array(3.5),
    np.zeros((0, 84), dtype=np.uint8),
    np.array(["n01532829", "ö"]),
    np.array([b"a", b"bcd"]),
    np.array([True, False]),
    objects(np.arange(3, dtype=np.uint8), "text", [1, None]),
    objects(np.arange(3, dtype=np.uint8), np.arange(2, dtype=np.uint8)).reshape(2, 1),
]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_arrays_come_back(tmp_path, array, protocol):
    found = np.asarray(read(tmp_path, pickle.dumps(array, protocol)))
    assert (found.dtype.newbyteorder("="), found.shape) == (array.dtype.newbyteorder("="), array.shape)
    assert found.flags.f_contiguous == array.flags.f_contiguous
    assert plain(found) == plain(array)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_comes_back(tmp_path, protocol):
    data = {
        "labels": [1, 2.5, None, True, "ö", b"\xff", b""],
        b"data": (np.float32(0.5), np.int64(7), bytearray(b"ab")),
        "order": collections.OrderedDict(a=[0, 1]),
    }
    assert read(tmp_path, pickle.dumps(data, protocol)) == data


def test_a_pickle_of_python_2(tmp_path):
    """As Python 2 with numpy 1 wrote {'data': array([[1, 2], [3, 255]], uint8), 'labels': [0, 1]} by protocol 2."""
    content = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b"
        b"\x87Rq\x05(K\x01K\x02K\x02\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89U\x04\x01\x02\x03\xfftbU\x06labelsq\x08]q\t(K\x00K\x01eu."
    )
    found = read(tmp_path, content)
    assert np.array_equal(field(found, "data", "x"), np.array([[1, 2], [3, 255]], np.uint8))
    assert field(found, "labels", "x") == [0, 1]


class Calls:
    """Pickles as a call of ``function``."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def attacks(mark: Path) -> dict[str, object]:
    touch = Calls(os.system, f"touch {mark}")
    return {
        "bare": touch,
        "in a dict": {"data": np.zeros(3), "labels": [touch]},
        "as a key": {1: (touch,)},
        "in an array": objects(1, touch),
        "in an array's array": objects(objects(touch), 2),
        "eval": Calls(eval, f"open({str(mark)!r}, 'w')"),
        "popen": Calls(subprocess.Popen, ["touch", str(mark)]),
        "open": Calls(open, str(mark), "w"),
        "getattr": Calls(getattr, "text", "encode"),
        "numpy's file": Calls(np.memmap, str(mark), "u1", "w+", 0, (1,)),
        "numpy's save": Calls(np.save, str(mark), np.zeros(1)),
    }


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("name", attacks(Path("mark")))
def test_nothing_is_run(tmp_path, name, protocol):
    mark = tmp_path / "mark"
    attack = attacks(mark)[name]
    if name == "bare":  # the attack is one: Python itself runs it
        pickle.loads(pickle.dumps(attack, protocol))
        assert mark.exists()
        mark.unlink()
    with pytest.raises(InputError, match=r"x\.pkl: a pickle that would call \w+(\.\w+)*, which plain arrays need not"):
        read(tmp_path, pickle.dumps(attack, protocol))
    assert not list(tmp_path.glob("mark*"))


DTYPE = b"cnumpy\ndtype\n(V%s\nI00\nI01\ntR"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        # a name with dots, which protocol 4 follows: ndarray's own tofile
        (b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.", r"call numpy\.ndarray\.tofile"),
        (b"cnumpy\nload\n(Vx.npy\ntR.", r"call numpy\.load"),
        # types that hold pointers, made of bytes
        (b"cnumpy.core.numeric\n_frombuffer\n(C\x08AAAAAAAA" + DTYPE % b"O8" + b"(I1\ntVC\ntR.", "make objects"),
        (b"cnumpy.core.multiarray\nscalar\n(" + DTYPE % b"O8" + b"C\x08AAAAAAAAtR.", "make objects of bytes"),
        # structured types: as a text, and as fields in the state of a plain one
        (DTYPE % b"O,i4" + b".", "make an array of type 'O,i4'"),
        (DTYPE % b"V8" + b".", "make an array of type 'V8'"),
        (b"cnumpy\ndtype\n((lV" + b"a\nVO8\ntaI00\nI01\ntR.", "not a pickle of arrays"),
        (DTYPE % b"i8" + b"(I3\nV|\nN(Va\nt(dI-1\nI-1\nI0\ntb.", "make a structured array"),
        # a state that does not fit: more elements than bytes, and objects that are not there
        (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR(I1\n(I1000000\nt"
            + DTYPE % b"u1" + b"I00\nC\x04AAAAtb.",
            "not a pickle of arrays, or a truncated one",
        ),
        (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR(I1\n(I2\nt"
            + DTYPE % b"O8" + b"I00\nC\x10AAAAAAAAAAAAAAAAtb.",
            r"fill an array of \(2,\) objects with something else",
        ),
        (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR(I1\n(I2\nt"
            + DTYPE % b"O8" + b"I00\n(lI1\natb.",
            r"fill an array of \(2,\) objects with something else",
        ),
        (b"c_codecs\nencode\n(Vx\nVzip\ntR.", "encode by 'zip'"),
        (b"Pid\n.", "not a pickle of arrays"),
        (b"", "not a pickle of arrays"),
        (b"PK\x03\x04 no pickle", "not a pickle of arrays"),
    ],
)  # fmt: skip
def test_tricks_are_refused(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, content)


def test_a_pickle_cannot_change_the_next(tmp_path):
    """BUILD on what a name stands for would replace its attributes for all pickles to come."""
    poison = b"cnumpy\ndtype\n(N(V__call__\nV__defaults__\n(I1\ntdtb."
    with pytest.raises(InputError):
        read(tmp_path, poison)
    assert np.array_equal(read(tmp_path, pickle.dumps(np.arange(3))), np.arange(3))


def test_truncated_anywhere(tmp_path):
    content = pickle.dumps({"data": np.arange(40, dtype=np.uint8), "labels": ["a", "b"]}, 4)
    for length in range(len(content)):
        with pytest.raises(InputError, match=r"x\.pkl: not a pickle of arrays, or a truncated one"):
            read(tmp_path, content[:length])


def test_damaged_anywhere(tmp_path):
    """Bytes changed at random: what comes back is data or an InputError, never another exception or a crash."""
    rng = np.random.default_rng(11)
    whole = [pickle.dumps({"data": array, "labels": ["a", 2]}, protocol) for array in ARRAYS for protocol in (0, 2, 4)]
    refused = 0
    for k in range(600):
        content = bytearray(whole[k % len(whole)])
        for i in rng.integers(len(content), size=rng.integers(1, 4)):
            content[i] = rng.integers(256)
        try:
            read(tmp_path, bytes(content))
        except InputError:
            refused += 1
    assert refused > 200


def test_fields():
    assert field({b"data": 1}, "data", "x.pkl") == 1
    with pytest.raises(InputError, match=r"x\.pkl: expected a pickled dict with 'data', but found labels, meta"):
        field({"meta": 1, "labels": 2}, "data", "x.pkl")
    with pytest.raises(InputError, match=r"x\.pkl: expected a pickled dict with 'data', but found a list"):
        field([1], "data", "x.pkl")

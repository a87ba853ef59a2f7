"""FC100 and CIFAR-FS from CIFAR-100 in its true layout, with made-up pixels, and from pickles that others distribute.

Tests deepemd.data.benchmarks.cifar.
"""

import pickle
import tarfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from deepemd.data import prepare
from deepemd.data.benchmarks import BENCHMARKS
from deepemd.data.benchmarks.published import FILES, class_list
from deepemd.errors import InputError

NAMES = sorted(name for split in FILES for name in class_list("fc100", split))
SIZES = {"fc100": (60, 20, 20), "cifar-fs": (64, 16, 20)}


def official(folder: Path, per_class: tuple[int, int], protocol: int = 2) -> Path:
    """CIFAR-100's three pickles: bytes for keys, as Python 2 wrote them; an image's red plane holds its class."""
    folder.mkdir(parents=True)
    for part, each in zip(("train", "test"), per_class, strict=True):
        fine = np.random.default_rng(each).permutation(np.repeat(np.arange(100), each))
        data = np.zeros((len(fine), 3072), np.uint8)
        data[:, :1024] = fine[:, None]
        data[:, 1024] = 200  # the green plane's first pixel
        table = {b"data": data, b"fine_labels": fine.tolist(), b"coarse_labels": [0] * len(fine), b"filenames": []}
        (folder / part).write_bytes(pickle.dumps(table, protocol))
    names = {b"fine_label_names": [name.encode() for name in NAMES], b"coarse_label_names": []}
    (folder / "meta").write_bytes(pickle.dumps(names, 2))
    return folder


def test_the_lists_are_two_divisions_of_the_same_classes():
    for name, sizes in SIZES.items():
        lists = [class_list(name, split) for split in FILES]
        assert tuple(map(len, lists)) == sizes
        assert sorted(sum(lists, ())) == NAMES
        assert len(set(NAMES)) == 100
        assert all(list(names) == sorted(names) for names in lists)


def test_fc100_keeps_superclasses_together():
    assert {"man", "woman", "boy", "girl", "baby", "whale", "beaver"} <= set(class_list("fc100", "novel"))
    assert {"tiger", "wolf", "camel", "crab", "shrew"} <= set(class_list("fc100", "val"))
    assert {"trout", "rose", "bowl", "apple", "lamp", "sea", "turtle", "rocket"} <= set(class_list("fc100", "base"))


@pytest.mark.parametrize("form", ["folder", "tar.gz"])
@pytest.mark.parametrize("name", SIZES)
def test_official(tmp_path, name, form):
    source = official(tmp_path / "cifar-100-python", (2, 1))
    if form == "tar.gz":
        with tarfile.open(tmp_path / "cifar-100-python.tar.gz", "w:gz") as file:
            file.add(source, "cifar-100-python")
        source = tmp_path / "cifar-100-python.tar.gz"
    store = prepare(name, source, root=tmp_path / "root", strict=False)
    for (split, images), size in zip(store.splits.items(), SIZES[name], strict=True):
        assert images.classes == class_list(name, split)
        assert np.bincount(images.labels).tolist() == [3] * size
        for i in range(0, len(images), 7):
            pixels = np.asarray(images.image(i))
            assert pixels.shape == (32, 32, 3)
            assert NAMES[pixels[5, 7, 0]] == images.classes[images.labels[i]]
            assert pixels[0, 0].tolist() == [pixels[5, 7, 0], 200, 0]
            assert pixels[0, 1].tolist() == [pixels[5, 7, 0], 0, 0]


def test_the_whole_size_is_accepted(tmp_path):
    """500 and 100 images a class: what the archive has."""
    source = official(tmp_path / "cifar-100-python", (500, 100), protocol=4)  # Python 2's would take seconds
    for name, sizes in SIZES.items():
        with ExitStack() as opened:
            drafts = BENCHMARKS[name].find(source, tmp_path, opened)
            assert [len(draft.names) for draft in drafts.values()] == [600 * size for size in sizes]


def test_other_counts_are_refused(tmp_path):
    source = official(tmp_path / "cifar-100-python", (2, 1))
    with pytest.raises(InputError, match=r"not the base split of fc100, which has 60 given classes of 600 images"):
        prepare("fc100", source, root=tmp_path / "root")


def distributed(folder: Path, stem: str, name: str, each: int = 2, dense: bool = False) -> Path:
    folder.mkdir()
    for split, part in FILES.items():
        numbers = [NAMES.index(label) for label in class_list(name, split)]
        labels = [number for number in (range(len(numbers)) if dense else numbers) for _ in range(each)]
        data = np.zeros((len(labels), 32, 32, 3), np.uint8)
        data[..., 2] = np.array(labels)[:, None, None]
        (folder / f"{stem}_{part}.pickle").write_bytes(pickle.dumps({"data": data, "labels": labels}))
    return folder


@pytest.mark.parametrize(("name", "stem"), [("fc100", "FC100"), ("cifar-fs", "CIFAR_FS")])
def test_pickles_that_others_distribute(tmp_path, name, stem):
    store = prepare(name, distributed(tmp_path / "source", stem, name), root=tmp_path / "root", strict=False)
    for split, images in store.splits.items():
        assert images.classes == class_list(name, split)
        for i in range(0, len(images), 5):
            assert NAMES[np.asarray(images.image(i))[3, 4, 2]] == images.classes[images.labels[i]]


def test_another_split_is_refused(tmp_path):
    source = distributed(tmp_path / "source", "FC100", "cifar-fs", each=600)
    with pytest.raises(InputError, match=r"not the base split of fc100.* found 64 classes of 600 .* two ways: prepare"):
        prepare("fc100", source, root=tmp_path / "root")


def test_classes_that_cannot_be_identified_are_refused(tmp_path):
    """Labels from 0 to 59 could be any 60 classes."""
    source = distributed(tmp_path / "source", "FC100", "fc100", each=600, dense=True)
    with pytest.raises(InputError, match=r"found 60 classes of 600 images, .* 60 of them other classes \(000"):
        prepare("fc100", source, root=tmp_path / "root")


def test_bad_sources(tmp_path):
    source = official(tmp_path / "cifar", (2, 1))
    meta, train = (source / "meta").read_bytes(), (source / "train").read_bytes()
    cases = [
        ("meta", meta[:-9], r"cifar/meta: not a pickle of arrays, or a truncated one"),
        ("meta", pickle.dumps({b"names": []}), r"cifar/: expected a pickled dict with 'fine_label_names', but found"),
        ("train", pickle.dumps({b"data": np.zeros((2, 9), np.uint8), b"fine_labels": [0, 1]}), r"uint8 \(2, 3072\)"),
        (
            "train",
            pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"fine_labels": [100]}),
            "numbers from 0 to 99",
        ),
        ("train", pickle.dumps({b"data": 5, b"fine_labels": [1]}), "'data' is no array, but int"),
        ("train", pickle.dumps({b"data": [[1], [2, 3]], b"fine_labels": [1]}), "'data' is no array"),
        ("train", pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"fine_labels": [0, 1]}), r"uint8 \(2, 3072\)"),
        ("train", None, r"has meta, but no train: get cifar-100-python.tar.gz again"),
    ]
    for file, content, message in cases:
        (source / file).unlink() if content is None else (source / file).write_bytes(content)
        with pytest.raises(InputError, match=message):
            prepare("fc100", source, root=tmp_path / "root", strict=False)
        (source / "meta").write_bytes(meta)
        (source / "train").write_bytes(train)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: no CIFAR-100 found: expected cifar-100-python\.tar\.gz.*FC100_train"):
        prepare("fc100", tmp_path / "empty", root=tmp_path / "root")
    (tmp_path / "empty" / "FC100_val.pickle").write_bytes(pickle.dumps({"data": np.zeros((2, 3, 4)), "labels": [1]}))
    with pytest.raises(InputError, match=r"FC100_val\.pickle: 2 images, but 1 labels"):
        prepare("fc100", tmp_path / "empty", root=tmp_path / "root", strict=False)
    (tmp_path / "empty" / "FC100_val.pickle").write_bytes(pickle.dumps({"data": np.zeros((1, 3, 4)), "labels": [1]}))
    with pytest.raises(InputError, match=r"FC100_val\.pickle: image 0 is float64 \(3, 4\), not uint8"):
        prepare("fc100", tmp_path / "empty", root=tmp_path / "root", strict=False)

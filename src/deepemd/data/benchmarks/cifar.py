"""FC100 and CIFAR-FS: the 100 classes of CIFAR-100, 600 images of 32 x 32 each, divided in two ways.

FC100 keeps the five classes of a superclass together (12 / 4 / 4 superclasses); CIFAR-FS divides at random.

Krizhevsky, "Learning multiple layers of features from tiny images" (2009); FC100: Oreshkin, Rodriguez & Lacoste,
"TADAM" (NeurIPS 2018); CIFAR-FS: Bertinetto, Henriques, Torr & Vedaldi, "Meta-learning with differentiable closed-form
solvers" (ICLR 2019).
"""

from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np

from deepemd.data.archives import Archive, open_archive
from deepemd.data.benchmarks.published import FILES, Counts, check_split, class_list
from deepemd.data.drafts import Draft, from_arrays
from deepemd.data.pickles import array, unpickle, words
from deepemd.errors import InputError

__all__ = ["cifar_fs", "fc100"]

_REMEDY = "FC100 and CIFAR-FS divide the same classes in two ways: prepare it from cifar-100-python.tar.gz"


def fc100(source: Path, scratch: Path, opened: ExitStack, *, strict: bool = True) -> dict[str, Draft]:
    """Find FC100 in the archive of CIFAR-100, packed or not, or in FC100_train.pickle, ...; see :func:`cifar_fs`."""
    return _find("fc100", "FC100", source, scratch, opened, strict)


def cifar_fs(source: Path, scratch: Path, opened: ExitStack, *, strict: bool = True) -> dict[str, Draft]:
    """Find CIFAR-FS in the archive of CIFAR-100, packed or not, or in CIFAR_FS_train.pickle, ...

    Args:
        source: cifar-100-python.tar.gz, or the folder unpacked from it (train, test, meta); its two parts are merged,
            as a split of classes needs no test images. Or a folder or archive with CIFAR_FS_train.pickle,
            CIFAR_FS_val.pickle and CIFAR_FS_test.pickle: each a dict with data (N, 32, 32, 3) and labels, the numbers
            of CIFAR-100's classes. Absent splits are left out.
        scratch: folder where a compressed tar may be unpacked.
        opened: holds the archives open while the drafts are read.
        strict: refuse classes that are not the published ones, 600 images each.

    Raises:
        InputError: nothing was found, a pickle is damaged or has other content, or the splits are not the published
            ones.
    """
    return _find("cifar-fs", "CIFAR_FS", source, scratch, opened, strict)


def _find(name: str, stem: str, source: Path, scratch: Path, opened: ExitStack, strict: bool) -> dict[str, Draft]:
    archive = opened.enter_context(closing(open_archive(source, scratch)))
    drafts = _official(archive, name) or _distributed_pickles(archive, name, stem)
    if not drafts:
        raise InputError(
            f"{source}: no CIFAR-100 found: expected cifar-100-python.tar.gz, the folder in it, or {stem}_train.pickle"
        )
    for split, draft in drafts.items():
        if strict:
            n = 600 * len(class_list(name, split))
            check_split(f"{source}", name, split, draft, Counts(n, 600, 600), _REMEDY)
    return drafts


def _official(archive: Archive, name: str) -> dict[str, Draft]:
    """Find the splits in the two parts of CIFAR-100; return none if the archive is not CIFAR-100."""
    folder = next((path.removesuffix("meta") for path in archive.sizes if path.split("/")[-1] == "meta"), None)
    if folder is None:
        return {}
    absent = [part for part in ("train", "test") if folder + part not in archive.sizes]
    if absent:
        raise InputError(
            f"{archive.path}: has {folder}meta, but no {folder}{absent[0]}: get cifar-100-python.tar.gz again"
        )
    where = f"{archive.path}/{folder}"
    names = np.array(words(unpickle(archive, f"{folder}meta"), "fine_label_names", where))
    parts = [_part(archive, folder + part, len(names)) for part in ("train", "test")]
    labels = names[np.concatenate([numbers for numbers, _ in parts])]
    images = np.concatenate([rows for _, rows in parts]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # (N, 32, 32, 3)
    drafts = {}
    for split in FILES:
        chosen = np.flatnonzero(np.isin(labels, class_list(name, split)))
        drafts[split] = from_arrays(where, labels[chosen].tolist(), images[chosen])
    return drafts


def _part(archive: Archive, path: str, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Read one of the two parts: the numbers of the classes (N,), and pixels (N, 3072), plane by plane."""
    where, table = f"{archive.path}/{path}", unpickle(archive, path)
    numbers, rows = _numbers(table, "fine_labels", n_classes, where), array(table, "data", where)
    if rows.dtype != np.uint8 or rows.shape != (len(numbers), 3072):
        raise InputError(
            f"{where}: expected data uint8 ({len(numbers)}, 3072), but found {rows.dtype} {rows.shape}: get it again"
        )
    return numbers, rows


def _distributed_pickles(archive: Archive, name: str, stem: str) -> dict[str, Draft]:
    """Find the splits in separate pickles, as others distribute them."""
    names = np.array(sorted(label for split in FILES for label in class_list(name, split)))  # in the order of CIFAR-100
    drafts = {}
    for split, part in FILES.items():
        paths = [path for path in archive.sizes if path.split("/")[-1] == f"{stem}_{part}.pickle"]
        if not paths:
            continue
        where = f"{archive.path}/{paths[0]}"
        table = unpickle(archive, paths[0])
        numbers = _numbers(table, "labels", len(names), where)
        labels = names[numbers]
        if set(labels.tolist()) != set(class_list(name, split)):  # numbered differently: the names would be wrong
            labels = np.array([f"{number:03}" for number in numbers])
        drafts[split] = from_arrays(where, labels.tolist(), array(table, "data", where))
    return drafts


def _numbers(table: object, key: str, n_classes: int, where: str) -> np.ndarray:
    """Return the numbers of classes under ``key``: int64 (N,)."""
    numbers = array(table, key, where)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or np.any((numbers < 0) | (numbers >= n_classes)):
        raise InputError(
            f"{where}: {key!r} must be numbers from 0 to {n_classes - 1}, but there are others: "
            "get the benchmark's own file"
        )
    return numbers.astype(np.int64)

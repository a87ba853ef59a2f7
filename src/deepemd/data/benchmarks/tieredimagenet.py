"""tieredImageNet: 608 classes of ImageNet with all their 779,165 training images, divided 351 / 97 / 160.

The division is by 34 superclasses, 20 / 6 / 8, so that novel classes differ more from those seen in training.

Ren et al., "Meta-learning for semi-supervised few-shot classification" (ICLR 2018).
"""

import re
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from deepemd.data.archives import Archive, open_archive
from deepemd.data.benchmarks.published import FILES, Counts, check_split, class_list, note_small_copy
from deepemd.data.drafts import Draft, from_arrays, from_files
from deepemd.data.pickles import array, unpickle, words
from deepemd.errors import InputError

__all__ = ["tieredimagenet"]

_COUNTS = {  # a class of ILSVRC has from 732 to 1,300 training images
    "base": Counts(448_695, 732, 1300),
    "val": Counts(124_261, 732, 1300),
    "novel": Counts(206_209, 732, 1300),
}
_FORMS = (
    "expected class folders such as n01530575, of ILSVRC's training images or in train/, val/ and test/; or "
    "train_images_png.pkl and train_labels.pkl, ..."
)
_REMEDY = "It takes all training images of ILSVRC 2012 of 608 classes: get those that are missing"


def tieredimagenet(source: Path, scratch: Path, opened: ExitStack, *, strict: bool = True) -> dict[str, Draft]:
    """Find the splits of tieredImageNet in a folder, a tar or a zip.

    Args:
        source: the training images of ILSVRC 2012 in their class folders (n01530575, ...; classes of no split are left
            out), the same in train/, val/ and test/, or the commonly distributed pickles of 84 x 84 images:
            train_images_png.pkl with train_labels.pkl, .... Absent splits are left out. A pickle is held in memory: 6
            GB for train.
        scratch: folder where a compressed tar may be unpacked.
        opened: holds the archive open while the drafts are read.
        strict: refuse classes or numbers of images that are not the published ones. The pickles have the words of a
            class, not its WordNet id, so only the numbers of classes and images are compared for them.

    Raises:
        InputError: nothing was found, a class is in a folder of another split, a pickle is damaged or has other
            content, or the splits are not the published ones.
    """
    archive = opened.enter_context(closing(open_archive(source, scratch)))
    drafts = _folders(archive) or _pickled(archive)
    if not drafts:
        raise InputError(f"{source}: no tieredImageNet found: {_FORMS}")
    for split, draft in drafts.items():
        if strict:
            check_split(str(archive.path), "tieredimagenet", split, _by_id(draft, split), _COUNTS[split], _REMEDY)
    return {split: note_small_copy(draft) for split, draft in drafts.items()}


def _folders(archive: Archive) -> dict[str, Draft]:
    """Find the splits in class folders, by the published lists; return none if there are no such folders."""
    splits = {label: split for split in FILES for label in class_list("tieredimagenet", split)}
    rows: dict[str, list[tuple[str, str, str]]] = {split: [] for split in FILES}
    for path in archive.sizes:
        parts = path.split("/")
        label = parts[-2] if len(parts) > 1 else ""
        if not re.fullmatch(r"n\d{8}", label) or not path.lower().endswith((".jpeg", ".jpg", ".png")):
            continue
        split = splits.get(label)
        if len(parts) > 2 and parts[-3] in ("val", "test") and (split is None or FILES[split] != parts[-3]):
            raise InputError(
                f"{archive.path}: {path}: class {label} is not in the {parts[-3]} split of tieredImageNet: this is "
                "another division, or ILSVRC's own validation images: give the folder of its training images alone"
            )
        if split is not None:
            rows[split].append((label, f"{label}/{parts[-1]}", path))
    return {split: from_files(archive, found) for split, found in rows.items() if found}


def _pickled(archive: Archive) -> dict[str, Draft]:
    """Find the splits in pickles."""
    paths = {path.split("/")[-1]: path for path in archive.sizes}
    drafts = {}
    for split, stem in FILES.items():
        images, labels = f"{stem}_images_png.pkl", f"{stem}_labels.pkl"
        if images not in paths:
            continue
        if labels not in paths:
            raise InputError(f"{archive.path}: has {images}, but no {labels}: put it in the same folder")
        found = unpickle(archive, paths[images])
        if not isinstance(found, list) and not (isinstance(found, np.ndarray) and found.ndim):
            raise InputError(f"{archive.path}/{paths[images]}: expected a list of images: get the file again")
        names = _labels(unpickle(archive, paths[labels]), f"{archive.path}/{paths[labels]}")
        drafts[split] = from_arrays(f"{archive.path}/{paths[images]}", names, found, _encoded)
    return drafts


def _labels(table: object, where: str) -> list[str]:
    """Return the class of each image: its number and, if known, its words, which two classes may share."""
    specific = isinstance(table, dict) and bool({"label_specific", b"label_specific"} & table.keys())
    numbers = array(table, "label_specific" if specific else "labels", where)
    names = words(table, "label_specific_str", where) if specific else []
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or np.any(numbers < 0):
        raise InputError(f"{where}: its labels are not the numbers of classes: get the file again")
    if specific and len(numbers) and numbers.max() >= len(names):
        raise InputError(f"{where}: has class {numbers.max()}, but words for {len(names)} classes: get the file again")
    return [f"{number:03} {names[number]}" if specific else f"{number:03}" for number in numbers.tolist()]


def _encoded(array: np.ndarray, name: str) -> bytes:
    """Return the bytes of a PNG file that are held in an array."""
    if array.dtype != np.uint8:
        raise InputError(f"{name} is {array.dtype} {array.shape}, not the bytes of a PNG file: get the file again")
    return array.tobytes()


def _by_id(draft: Draft, split: str) -> Draft:
    """Return the split with the published class names, if its classes are words and of the right number."""
    expected = class_list("tieredimagenet", split)
    if any(re.fullmatch(r"n\d{8}", label) for label in draft.classes) or len(draft.classes) != len(expected):
        return draft
    return replace(draft, classes=expected)

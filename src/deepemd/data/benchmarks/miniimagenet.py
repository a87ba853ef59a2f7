"""miniImageNet: 100 classes of ImageNet, 600 images each, divided 64 / 16 / 20.

The set is by Vinyals et al., "Matching networks for one shot learning" (NeurIPS 2016), in the split of Ravi &
Larochelle, "Optimization as a model for few-shot learning" (ICLR 2017), which published results use. Its CSV files name
the images by numbers: ``n0153282900000005.jpg`` is the fifth image of class n01532829 when ILSVRC's files are sorted by
the number in their names. The public scripts that create the set, such as mini-imagenet-tools, use this rule.
"""

import csv
import io
import re
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np

from deepemd.data.archives import Archive, open_archive
from deepemd.data.benchmarks.published import FILES, Counts, check_split, class_list, note_small_copy
from deepemd.data.drafts import Draft, from_arrays, from_files
from deepemd.data.pickles import array, field, text, unpickle
from deepemd.errors import InputError

__all__ = ["miniimagenet"]

_FORMS = (
    "expected train.csv, val.csv or test.csv (filename,label) beside images/ or ILSVRC's class folders, in one tar or "
    "zip, or with train.zip, ...; or mini-imagenet-cache-train.pkl, or miniImageNet_category_split_val.pickle"
)
_REMEDY = (
    "Some sets of this name, such as timm/mini-imagenet on the Hugging Face hub, are divided differently, and results "
    "on them cannot be compared: get the split of Ravi and Larochelle"
)
# Two forms of 84 x 84 arrays: few-shot-ssl-public's, and that of FewShotWithoutForgetting and MetaOptNet.
_CACHE = "mini-imagenet-cache-{}.pkl"
_CATEGORIES = {
    "base": "miniImageNet_category_split_train_phase_train.pickle",
    "val": "miniImageNet_category_split_val.pickle",
    "novel": "miniImageNet_category_split_test.pickle",
}


def miniimagenet(source: Path, scratch: Path, opened: ExitStack, *, strict: bool = True) -> dict[str, Draft]:
    """Find the splits of miniImageNet in a folder, a tar or a zip.

    Args:
        source: a folder or archive with train.csv, val.csv, test.csv and the images, in ``images/`` or elsewhere; a
            folder may instead have one archive for each split (train.zip), and an archive may have its CSV files next
            to it. The images may be ILSVRC's training images in their class folders. Or a folder or archive with the
            commonly distributed pickles of 84 x 84 arrays. Absent splits are left out.
        scratch: folder where a compressed tar may be unpacked.
        opened: holds the archives open while the drafts are read.
        strict: refuse classes that are not the published ones, 600 images each.

    Raises:
        InputError: nothing was found, a CSV is malformed or names absent files, a pickle is damaged or has other
            content, or the splits are not the published ones.
    """
    whole = opened.enter_context(closing(open_archive(source, scratch)))
    drafts = {}
    for split, stem in FILES.items():
        table = _table(whole, stem)
        found = _tabled(table, source, stem, whole, scratch, opened) if table else _pickled(whole, split)
        if found is None:
            continue
        where, draft = found
        if strict:
            n = 600 * len(class_list("miniimagenet", split))
            check_split(where, "miniimagenet", split, draft, Counts(n, 600, 600), _REMEDY)
        drafts[split] = note_small_copy(draft)
    if not drafts:
        raise InputError(f"{source}: no miniImageNet found: {_FORMS}")
    return drafts


def _tabled(
    table: tuple[str, bytes], source: Path, stem: str, whole: Archive, scratch: Path, opened: ExitStack
) -> tuple[str, Draft]:
    """Find a split by its CSV file."""
    where, content = table
    archive = whole
    for suffix in (".zip", ".tar", ".tar.gz", ".tgz"):
        if source.is_dir() and (source / (stem + suffix)).is_file():
            archive = opened.enter_context(closing(open_archive(source / (stem + suffix), scratch)))
            break
    return where, _draft(where, _rows(where, content), archive)


def _pickled(archive: Archive, split: str) -> tuple[str, Draft] | None:
    """Find a split in a pickle of arrays."""
    for name in (_CACHE.format(FILES[split]), _CATEGORIES[split]):
        for path in [path for path in archive.sizes if path.split("/")[-1] == name]:
            where, table = f"{archive.path}/{path}", unpickle(archive, path)
            if name == _CATEGORIES[split]:
                return where, from_arrays(where, _category_labels(table, where), array(table, "data", where))
            images = array(table, "image_data", where)
            return where, from_arrays(where, _cache_labels(table, len(images), where), images)
    return None


def _cache_labels(table: object, n: int, where: str) -> list[str]:
    """Return the class of each of n images, from {"class_dict": {class: [its images]}}."""
    labels = [""] * n
    for name, indices in _dict(table, "class_dict", where).items():
        for i in indices if isinstance(indices, list | np.ndarray) else ["no list"]:
            if not isinstance(i, int | np.integer) or not 0 <= i < n or labels[i]:
                raise InputError(
                    f"{where}: class {text(name)} names image {i}, which is absent or of two classes: get it again"
                )
            labels[i] = text(name)
    if "" in labels:
        raise InputError(f"{where}: image {labels.index('')} of {n} has no class: get the file again")
    return labels


def _category_labels(table: object, where: str) -> list[str]:
    """Return the class of each image, from {"labels": [number], "catname2label": {class: number}}."""
    names = {text(number): text(name) for name, number in _dict(table, "catname2label", where).items()}
    numbers = [text(number) for number in array(table, "labels", where).tolist()]
    absent = [number for number in numbers if number not in names]
    if absent:
        raise InputError(f"{where}: label {absent[0]} has no name in catname2label: get the file again")
    return [names[number] for number in numbers]


def _dict(table: object, key: str, where: str) -> dict:
    found = field(table, key, where)
    if not isinstance(found, dict):
        raise InputError(f"{where}: {key!r} is not a dict, but {type(found).__name__}: get the benchmark's own file")
    return found


def _table(archive: Archive, stem: str) -> tuple[str, bytes] | None:
    """Return the name, for messages, and the content of a split's CSV file, in the archive or next to it."""
    inside = [name for name in archive.sizes if name.split("/")[-1] == f"{stem}.csv"]
    if len(inside) > 1:
        raise InputError(f"{archive.path}: has {len(inside)} files {stem}.csv ({', '.join(inside)}): keep one")
    if inside:
        return f"{archive.path}/{inside[0]}", archive.read(inside[0])
    beside = archive.path.with_name(f"{stem}.csv")
    own = archive.path.name.split(".")[0]
    if archive.path.is_file() and beside.is_file() and own in (stem, *({own} - {"train", "val", "test"})):
        return str(beside), beside.read_bytes()
    return None


def _rows(where: str, text: bytes) -> list[tuple[str, str, int]]:
    """Return label, file name and line number of each row, sorted by label, then by file name."""
    try:
        lines = list(csv.reader(io.StringIO(text.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{where}: not a CSV file in UTF-8 ({error}): get it again") from error
    if not lines or lines[0] != ["filename", "label"]:
        found = ",".join(lines[0]) if lines else "nothing"
        raise InputError(f"{where}:1: the header must be filename,label, but it is {found:.80}: correct it")
    seen: dict[str, int] = {}
    rows = []
    for number, line in enumerate(lines[1:], 2):
        if len(line) != 2 or not all(cell.strip() for cell in line):
            raise InputError(f"{where}:{number}: expected a file name and a label, but found {line}: correct the line")
        name, label = line[0].strip(), line[1].strip()
        if name in seen:
            raise InputError(f"{where}:{number}: {name} is already in line {seen[name]}: remove one of the two")
        seen[name] = number
        rows.append((label, name, number))
    if not rows:
        raise InputError(f"{where}: has a header but no rows: get it again")
    return sorted(rows)


def _draft(where: str, rows: list[tuple[str, str, int]], archive: Archive) -> Draft:
    """Find the file of each row: by its path, by its name, or by its number among ILSVRC's images of the class."""
    by_name: dict[str, list[str]] = {}
    by_class: dict[str, list[str]] = {}
    for path in archive.sizes:
        parts = path.split("/")
        by_name.setdefault(parts[-1], []).append(path)
        if re.fullmatch(r"n\d{8}/n\d{8}_\d+\.JPEG", "/".join(parts[-2:])):
            by_class.setdefault(parts[-2], []).append(path)
    for paths in by_class.values():
        paths.sort(key=lambda path: int(path[path.rindex("_") + 1 : -len(".JPEG")]))
    files, absent, note = [], [], ""
    for label, name, number in rows:
        found = [name] if name in archive.sizes else by_name.get(name.split("/")[-1], [])
        if not found and (found := _numbered(name, by_class)):
            note = "images chosen by their numbers in ILSVRC's class folders, which must be complete"
        if len(found) > 1:
            raise InputError(f"{where}:{number}: {name} could be {found[0]} or {found[1]} in {archive.path}: keep one")
        absent += [] if found else [(number, name)]
        files += [(label, name, path) for path in found]
    if absent:
        number, name = min(absent)
        raise InputError(
            f"{where}:{number}: names {name}, which is not in {archive.path} ({len(absent):,} of {len(rows):,} rows "
            "name absent files): get the images again, or the CSV that belongs to them"
        )
    return from_files(archive, files, note)


def _numbered(name: str, by_class: dict[str, list[str]]) -> list[str]:
    """Find the file of ILSVRC for a name such as n0153282900000005.jpg: the fifth image of its class, if there is one.

    Missing images in a class folder shift the others. The numbers go up to the last images of a class, so some image is
    then absent.
    """
    match = re.fullmatch(r"(n\d{8})(\d{8})\.jpg", name)
    files = by_class.get(match[1], []) if match else []
    return files[int(match[2]) - 1 : int(match[2])] if match and int(match[2]) else []

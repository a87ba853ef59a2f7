"""Published benchmarks: where their files are, and whether they are the published ones."""

import csv
import hashlib
import io
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np

from deepemd.data.archives import Archive, open_archive
from deepemd.data.store import Draft
from deepemd.errors import InputError

__all__ = ["miniimagenet"]

# File name, classes, and the head of the sha256 of the sorted class names (WordNet ids) joined by blanks: the split of
# Ravi & Larochelle, "Optimization as a model for few-shot learning" (ICLR 2017), which published figures are about.
_MINIIMAGENET = {
    "base": ("train", 64, "be048a0de45b4bc4"),
    "val": ("val", 16, "5124b4fddbb708d8"),
    "novel": ("test", 20, "460d8d798f59aaa1"),
}
_PER_CLASS = 600
_FORMS = (
    "expected train.csv, val.csv or test.csv (filename,label) beside images/, in one tar or zip, or with train.zip, ..."
)


def miniimagenet(source: Path, scratch: Path, opened: ExitStack, *, strict: bool = True) -> dict[str, Draft]:
    """Find the splits of miniImageNet in a folder, a tar or a zip.

    Args:
        source: a folder or an archive with train.csv, val.csv, test.csv and the images, in ``images/`` or anywhere;
            a folder may instead hold one archive for each split (train.zip), and an archive may have its CSV files
            beside it.
            Splits that are absent are left out.
        scratch: where a compressed tar may be unpacked.
        opened: keeps the archives open while the drafts are read.
        strict: refuse classes that are not the published ones, 600 images each.

    Raises:
        InputError: nothing was found, a CSV is malformed or names absent files, or the split is another one.
    """
    whole = opened.enter_context(closing(open_archive(source, scratch)))
    drafts = {}
    for split, (stem, _, _) in _MINIIMAGENET.items():
        table = _table(whole, stem)
        if table is None:
            continue
        where, text = table
        archive = whole
        for suffix in (".zip", ".tar", ".tar.gz", ".tgz"):
            if source.is_dir() and (source / (stem + suffix)).is_file():
                archive = opened.enter_context(closing(open_archive(source / (stem + suffix), scratch)))
                break
        drafts[split] = _draft(where, _rows(where, text), archive)
        if strict:
            _refuse_other_splits(where, split, drafts[split])
    if not drafts:
        raise InputError(f"{source}: no miniImageNet found: {_FORMS}")
    return drafts


def _table(archive: Archive, stem: str) -> tuple[str, bytes] | None:
    """A split's CSV, in the archive or beside it, and how to call it in a message."""
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
    """Label, file name and line of each row, sorted by label, then by file name."""
    try:
        lines = list(csv.reader(io.StringIO(text.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{where}: not a CSV file in UTF-8 ({error}): get it again") from error
    if not lines or lines[0] != ["filename", "label"]:
        found = ",".join(lines[0]) if lines else "nothing"
        raise InputError(f"{where}:1: the header must be filename,label, but it is {found}: correct it")
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
    """Find each row's file, by its path or else by its bare name."""
    by_name: dict[str, list[str]] = {}
    for path in archive.sizes:
        by_name.setdefault(path.split("/")[-1], []).append(path)
    paths, absent = [], []
    for _, name, number in rows:
        found = [name] if name in archive.sizes else by_name.get(name.split("/")[-1], [])
        if len(found) > 1:
            raise InputError(f"{where}:{number}: {name} could be {found[0]} or {found[1]} in {archive.path}: keep one")
        absent += [] if found else [(number, name)]
        paths += found
    if absent:
        number, name = min(absent)
        raise InputError(
            f"{where}:{number}: names {name}, which is not in {archive.path} ({len(absent):,} of {len(rows):,} rows "
            "name absent files): get the images again, or the CSV that belongs to them"
        )
    classes = tuple(sorted({label for label, _, _ in rows}))
    index = {label: i for i, label in enumerate(classes)}
    labels = np.array([index[label] for label, _, _ in rows], dtype=np.int64)
    size = sum(archive.sizes[path] for path in paths)
    return Draft(classes, labels, tuple(name for _, name, _ in rows), lambda i: archive.read(paths[i]), size=size)


def _refuse_other_splits(where: str, split: str, draft: Draft) -> None:
    """Refuse what is called miniImageNet but is divided otherwise."""
    _, expected, known = _MINIIMAGENET[split]
    counts = np.bincount(draft.labels)
    head = hashlib.sha256(" ".join(draft.classes).encode()).hexdigest()[: len(known)]
    if len(counts) == expected and head == known and np.all(counts == _PER_CLASS):
        return
    found = f"{len(counts)} classes of {counts.min()} to {counts.max()} images"
    if len(counts) == expected and np.all(counts == _PER_CLASS):
        found += ", some of them other classes"
    raise InputError(
        f"{where}: not the {split} split of miniImageNet, which has {expected} given classes of {_PER_CLASS} images: "
        f"found {found}. The set called timm/mini-imagenet on the Hugging Face hub, for one, is divided otherwise and "
        "its figures cannot be compared: get the one of Ravi and Larochelle, or pass --strict false (strict=False)"
    )

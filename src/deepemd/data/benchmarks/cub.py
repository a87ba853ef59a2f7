"""CUB-200-2011: 11,788 photographs of 200 kinds of birds, divided 100 / 50 / 50 and cropped to the bird.

Wah, Branson, Welinder, Perona & Belongie, "The Caltech-UCSD Birds-200-2011 dataset" (2011); the split: Ye, Hu, Zhan &
Sha, "Few-shot learning via embedding adaptation with set-to-set functions" (FEAT, CVPR 2020), which reports results on
images cropped to the published bounding boxes.
"""

import re
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from deepemd.data.archives import Archive, open_archive
from deepemd.data.benchmarks.published import FILES, Counts, check_split, class_list
from deepemd.data.decoding import decode
from deepemd.data.drafts import Draft, from_files, png
from deepemd.errors import InputError

__all__ = ["cub"]

_COUNTS = {"base": Counts(5891, 41, 60), "val": Counts(2932, 49, 60), "novel": Counts(2965, 45, 60)}
_REMEDY = "Other papers divide the birds differently: get CUB_200_2011.tgz, whole"


class Box(NamedTuple):
    """A bounding box in pixels: its upper left corner, its width and its height."""

    x: float
    y: float
    width: float
    height: float


def cub(source: Path, scratch: Path, opened: ExitStack, *, strict: bool = True, crop: bool = True) -> dict[str, Draft]:
    """Find the splits of CUB-200-2011.

    Args:
        source: CUB_200_2011.tgz, or the folder in it: images.txt, bounding_boxes.txt and images/.
        scratch: folder where the tar is unpacked.
        opened: holds the archive open while the drafts are read.
        strict: refuse a set that is not exactly the published one.
        crop: cut each image to its bounding box and store it as PNG, without loss; else store the files unchanged.

    Raises:
        InputError: nothing was found, a table is malformed or names absent files, or images are missing.
    """
    archive = opened.enter_context(closing(open_archive(source, scratch)))
    folder = _folder(archive)
    rows = _rows(archive, folder)
    splits = {label: split for split in FILES for label in class_list("cub", split)}
    drafts = {}
    for split in FILES:
        chosen = [(label, name, path) for _, label, name, path in rows if splits.get(label) == split]
        draft = from_files(archive, chosen, "whole images, not cropped to the bounding boxes")
        if strict:
            check_split(f"{archive.path}", "cub", split, draft, _COUNTS[split], _REMEDY)
        if chosen:
            drafts[split] = draft
    if not drafts:
        raise InputError(f"{archive.path}/{folder}images.txt: none of its classes is one of CUB's: {_REMEDY}")
    if not crop:
        return drafts
    boxes = _boxes(archive, folder)
    absent = [name for number, _, name, _ in rows if number not in boxes]
    if absent:
        raise InputError(f"{archive.path}/{folder}bounding_boxes.txt: has no box of {absent[0]}: {_REMEDY}")
    by_name = {name: boxes[number] for number, _, name, _ in rows}
    return {split: _cropped(draft, by_name) for split, draft in drafts.items()}


def _folder(archive: Archive) -> str:
    """Return the folder of images.txt in the archive: "", or a path that ends with a slash."""
    found = [path.removesuffix("images.txt") for path in archive.sizes if path.split("/")[-1] == "images.txt"]
    if len(found) != 1:
        raise InputError(
            f"{archive.path}: {'no' if not found else 'more than one'} CUB-200-2011 found: expected CUB_200_2011.tgz, "
            "or the folder in it, with images.txt, bounding_boxes.txt and images/"
        )
    return found[0]


def _table(archive: Archive, path: str, columns: int) -> dict[str, list[str]]:
    """Read a table of CUB: the cells of each line, by the number of the image at its beginning."""
    where, table = f"{archive.path}/{path}", {}
    if path not in archive.sizes:
        raise InputError(f"{where}: there is no such file: {_REMEDY}")
    for number, line in enumerate(archive.read(path).decode("utf-8", "replace").splitlines(), 1):
        cells = line.split()
        if len(cells) != columns or cells[0] in table:
            raise InputError(f"{where}:{number}: expected {columns} columns and a new number first: {_REMEDY}")
        table[cells[0]] = cells[1:]
    return table


def _rows(archive: Archive, folder: str) -> list[tuple[str, str, str, str]]:
    """Return number, class, name and path of each image."""
    rows = []
    for number, (name,) in _table(archive, f"{folder}images.txt", 2).items():
        path = f"{folder}images/{name}"
        if path not in archive.sizes:
            raise InputError(f"{archive.path}/{folder}images.txt: names images/{name}, which is absent: {_REMEDY}")
        rows.append((number, name.split("/")[0], name, path))
    return rows


def _boxes(archive: Archive, folder: str) -> dict[str, Box]:
    """Return the box of each image, by its number."""
    boxes = {}
    for number, cells in _table(archive, f"{folder}bounding_boxes.txt", 5).items():
        if not all(re.fullmatch(r"-?[0-9]{1,9}(\.[0-9]+)?", cell) for cell in cells):
            raise InputError(
                f"{archive.path}/{folder}bounding_boxes.txt: the box of image {number} is not four numbers: {_REMEDY}"
            )
        boxes[number] = Box(*map(float, cells))
    return boxes


def _cropped(draft: Draft, boxes: dict[str, Box]) -> Draft:
    """Return a draft of the same images, each cropped to its box when it is read."""

    def read(i: int) -> bytes:
        name = draft.names[i]
        image, box = decode(draft.read(i), name), boxes[name]
        left, top = max(0, round(box.x)), max(0, round(box.y))
        right, bottom = min(image.width, round(box.x + box.width)), min(image.height, round(box.y + box.height))
        if left >= right or top >= bottom:
            raise InputError(f"{name}: its bounding box {tuple(box)} lies outside of the image {image.size}: {_REMEDY}")
        return png(image.crop((left, top, right, bottom)))

    return replace(draft, read=read, note="cropped to the bounding boxes; the crops are PNG")

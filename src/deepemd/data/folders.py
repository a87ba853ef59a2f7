"""Read class folders, the common layout of labelled images, from a folder, zip or tar."""

from deepemd.data.archives import Archive
from deepemd.data.drafts import from_files
from deepemd.data.store import SPLITS, Draft
from deepemd.errors import InputError

__all__ = ["IMAGES", "all_images", "class_folders"]

SPLIT_FOLDERS = {"base": "base", "train": "base", "val": "val", "valid": "val", "novel": "novel", "test": "novel"}
_LAYOUT = "expected <class>/<image>, or {base,val,novel}/<class>/<image> (train, valid and test are understood too)"
IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".avif", ".heic", ".heif")


def class_folders(archive: Archive) -> dict[str, Draft]:
    """Find the splits of class folders: base, val and novel if there are such folders, else the one split ``all``.

    Classes are sorted by name, and images within a class by file name. Every file in a class folder must be an image;
    files next to the class folders that are not images (a licence, a table) are ignored.

    Raises:
        InputError: there are no class folders, a class folder contains folders, an image is outside of any class, there
            are two folders for one split (base and train), or a class is in two splits.
    """
    files = [(name, name.split("/")) for name in archive.sizes]
    files = _without_wrapper(files)
    divided = any(len(parts) > 2 and parts[0] in SPLIT_FOLDERS for _, parts in files)
    depth = 3 if divided else 2
    splits: dict[str, list[tuple[str, str, str]]] = {}
    given: dict[str, str] = {}
    for name, parts in files:
        if len(parts) < depth and not name.lower().endswith(IMAGES):
            continue
        if len(parts) != depth or (divided and parts[0] not in SPLIT_FOLDERS):
            raise InputError(f"{archive.path}: {name} does not fit: {_LAYOUT}: move or remove it")
        split = SPLIT_FOLDERS[parts[0]] if divided else "all"
        if given.setdefault(split, parts[0]) != parts[0] and divided:
            raise InputError(f"{archive.path}: has both {given[split]}/ and {parts[0]}/ for one split: remove one")
        splits.setdefault(split, []).append((parts[-2], name, name))
    if not splits:
        raise InputError(f"{archive.path}: no class folders with images in it: {_LAYOUT}")
    splits = {split: splits[split] for split in SPLITS if split in splits}
    _refuse_shared_classes(archive, splits)
    return {split: from_files(archive, rows) for split, rows in splits.items()}


def all_images(archive: Archive) -> Draft:
    """Find every image, at any depth; return one split whose classes are the folders, the outermost named ``"."``.

    Files that are not named like images (.jpg, .png, ...) are ignored.

    Raises:
        InputError: there are no images.
    """
    names = [name for name in archive.sizes if name.lower().endswith(IMAGES)]
    if not names:
        raise InputError(f"{archive.path}: no images in it ({', '.join(IMAGES)}): check the folder")
    return from_files(archive, [(name.rpartition("/")[0] or ".", name, name) for name in names])


def _without_wrapper(files: list[tuple[str, list[str]]]) -> list[tuple[str, list[str]]]:
    """Drop a single top folder, as many archives have one: flowers/rose/1.jpg -> rose/1.jpg."""
    tops = {parts[0] for _, parts in files}
    wrapped = len(tops) == 1 and not tops & SPLIT_FOLDERS.keys() and any(len(parts) > 2 for _, parts in files)
    return [(name, parts[1:]) for name, parts in files] if wrapped else files


def _refuse_shared_classes(archive: Archive, splits: dict[str, list[tuple[str, str, str]]]) -> None:
    seen: dict[str, str] = {}
    for split, label in ((split, label) for split, rows in splits.items() for label in {row[0] for row in rows}):
        if label in seen:
            raise InputError(
                f"{archive.path}: class {label!r} is in both {seen[label]} and {split}: a few-shot split divides the "
                "classes, not the images of a class; put each class into one split"
            )
        seen[label] = split

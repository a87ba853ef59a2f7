"""The rules of class folders, the common layout of labelled images, for a folder, zip or tar.

The class of an image is the first folder that holds it; more folders may follow. Files that are no images are ignored
and reported. A folder of splits, or one that is a level too high, is refused, as its folders are no classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from deepemd.data.archives import Archive
from deepemd.data.class_names import name_warnings
from deepemd.data.drafts import Draft, from_files
from deepemd.data.kinds import IMAGES, is_image, named_like_image
from deepemd.data.layout import (
    Tops,
    are_splits,
    first_split,
    layout_warnings,
    listed,
    pack_folder,
    split_of,
    top_folders,
    wrapper,
)
from deepemd.data.store import SPLITS, is_store_file
from deepemd.errors import InputError, printable

__all__ = ["COMMON", "LOOSE", "Found", "class_drafts", "class_folders", "find_images", "index_draft"]

COMMON = f"{', '.join(IMAGES[:12])}, ..."  # endings of photos, for messages
LOOSE = "."  # the class of images outside of any class folder, in an index
_LAYOUT = "expected <class>/<image>, or {base,val,novel}/<class>/<image> (train, valid and test are understood too)"
_LISTED = 5  # names in a message


@dataclass
class Found:
    """The images of class folders.

    Attributes:
        rows: class and name of each image, sorted by name.
        loose: images outside of any class folder.
        others: files that are no images, and empty folders that are named like one.
        empty: class folders without an image.
        warnings: what else the user should know, one sentence each, with the remedy.
    """

    rows: list[tuple[str, str]] = field(default_factory=list)
    loose: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def messages(self, loose: str) -> list[str]:
        """Return all that the user should know, one line each; `loose` says what becomes of images without a class."""
        kinds = (
            (self.empty, "class folder holds no image", "class folders hold no images"),
            (self.others, "file is no image, and ignored", "files are no images, and ignored"),
            (self.loose, f"image is in no class folder, and {loose}", f"images are in no class folder, and {loose}"),
        )
        lines = [f"{len(n):,} {one if len(n) == 1 else more}: {_some(n)}" for n, one, more in kinds if n]
        return [printable(line) for line in [*lines, *self.warnings]]


def find_images(archive: Archive) -> tuple[list[str], list[str]]:
    """Return the sorted names of the images of a folder or archive, and of all else in it.

    The latter are files that are no images, among them the images of a prepared data set or an index in one file; and
    folders that are named like an image and hold nothing.
    """
    images, others = list[str](), list[str]()
    for name in archive.sizes:
        folder, _, last = name.rpartition("/")
        packed = is_store_file(last) and f"{folder}/store.json".lstrip("/") in archive.sizes
        (images if not packed and is_image(name, partial(archive.head, name)) else others).append(name)
    folders = [f"{name}/" for name in archive.folders if named_like_image(name)]
    others += [folder[:-1] for folder in folders if not any(name.startswith(folder) for name in archive.sizes)]
    return images, sorted(others)


def class_folders(archive: Archive) -> Found:
    """Find the images of class folders.

    Raises:
        InputError: the folders are splits such as train and test, or one folder holds all the class folders.
    """
    images, others = find_images(archive)
    _refuse_splits(str(archive.path), top_folders(images))
    _refuse_wrapper(str(archive.path), images)
    return _named(_found(archive, images, others))


def index_draft(archive: Archive) -> tuple[Draft, Found]:
    """Return all images of a folder as one split; those outside of any class folder have the class ``LOOSE``.

    Raises:
        InputError: there are no images; the folders are splits; or there is only one folder, which holds class folders.
    """
    images, others = find_images(archive)
    if not images:
        raise InputError(f"{archive.path}: no images in it ({COMMON}): check the folder")
    _refuse_splits(str(archive.path), top_folders(images))
    if all("/" in name for name in images):
        _refuse_wrapper(str(archive.path), images)
    found = _named(_found(archive, images, others))
    rows = [*found.rows, *((LOOSE, name) for name in found.loose)]
    return from_files(archive, [(label, name, name) for label, name in rows]), found


def class_drafts(archive: Archive) -> tuple[dict[str, Draft], Found]:
    """Return the splits of class folders: base, val and novel if there are such folders, else the one split ``all``.

    Classes are sorted by name, and images within a class by file name. In a zip or tar, one folder may hold all.

    Raises:
        InputError: there are no class folders, a folder is beside splits, there are two folders for one split (base and
            train), a class is in two splits, or one folder holds all the class folders.
    """
    images, others = find_images(archive)
    prefix = "" if archive.path.is_dir() else pack_folder(images)
    tops = top_folders(name[len(prefix) :] for name in images if name.startswith(prefix))
    folders = _split_folders(archive, tops, prefix) if are_splits(tops) else {"all": prefix}
    found = {split: _found(archive, images, others, folder) for split, folder in folders.items()}
    rows = {split: found[split].rows for split in SPLITS if split in found and found[split].rows}
    whole = Found(
        [row for some in rows.values() for row in some],
        [name for name in images if not name.startswith(tuple(folders.values()))],
        others,
    )
    for split, folder in folders.items():
        where, names = f"{archive.path}/{folder}".rstrip("/"), [name[len(folder) :] for _, name in found[split].rows]
        _refuse_wrapper(where, names, f"move them to {where}" if folder else "")
        whole.loose += found[split].loose
        whole.empty += [folder + name for name in found[split].empty]
        whole.warnings += found[split].warnings
    if are_splits(tops):
        whole.empty += sorted(name for name in archive.folders if _is_empty(name, prefix, tops))
    if not rows:
        empty = f" (no images in {listed(whole.empty)})" if whole.empty else ""
        raise InputError(f"{archive.path}: no class folders with images in it: {_LAYOUT}{empty}")
    _refuse_shared_classes(archive, rows)
    drafts = {split: from_files(archive, [(label, name, name) for label, name in rows[split]]) for split in rows}
    return drafts, _named(whole)


def _split_folders(archive: Archive, tops: Tops, prefix: str) -> dict[str, str]:
    """Return the folder of each split, with a slash."""
    folders: dict[str, str] = {}
    for top in sorted(tops):
        split = split_of(top)
        if split is None:
            raise InputError(
                f"{archive.path}: {prefix}{top} is beside splits, but none of them: {_LAYOUT}: move it elsewhere"
            )
        if not tops[top] - {""}:
            raise InputError(f"{archive.path}: the split {prefix}{top} has no class folders: {_LAYOUT}")
        if split in folders:
            raise InputError(f"{archive.path}: has both {folders[split]} and {prefix}{top}/ for one split: remove one")
        folders[split] = f"{prefix}{top}/"
    return folders


def _found(archive: Archive, images: Sequence[str], others: Sequence[str], folder: str = "") -> Found:
    """Find the images of the class folders in a folder, whose name ends with a slash."""
    rows, found = {}, Found(others=list(others))
    for name in images:
        if name.startswith(folder):
            label, _, inner = name[len(folder) :].partition("/")
            if inner:
                rows[name] = label
            else:
                found.loose.append(name)
    found.rows = _without_repeats(rows, archive.links)
    tops = top_folders(name[len(folder) :] for _, name in found.rows)
    found.empty = sorted(name[len(folder) :] for name in archive.folders if _is_empty(name, folder, tops))
    lost = [name for name in others if not archive.links.get(name, "-") and name.rpartition("/")[0] == folder[:-1]]
    found.warnings = [
        *(f"{name} is a link that leads nowhere: restore what it leads to, or remove the link" for name in lost),
        *(f"the hidden folder {name} is left out: rename it if it is a class" for name in archive.hidden if not folder),
        *layout_warnings(tops),
    ]
    return found


def _without_repeats(rows: Mapping[str, str], links: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return class and name of each image; of the names by which links show an image twice in a class, only one."""
    names: dict[tuple[str, str], str] = {}
    for name, label in rows.items():
        own = links.get(name) or name
        if rows.get(own) == label:
            names[label, own] = own
        else:
            names.setdefault((label, own), name)
    return [(label, name) for name, label in rows.items() if names[label, links.get(name) or name] == name]


def _is_empty(name: str, folder: str, tops: Tops) -> bool:
    """Return whether a folder is directly in another one, whose name ends with a slash, and holds no images."""
    inner = name[len(folder) :]
    return name.startswith(folder) and "/" not in inner and inner not in tops


def _named(found: Found) -> Found:
    """Add the warnings on the names of the classes."""
    found.warnings += name_warnings(label for label, _ in found.rows)
    return found


def _refuse_splits(where: str, tops: Tops) -> None:
    if not are_splits(tops):
        return
    first = first_split(tops)
    if first is None:
        remedy = f"put each class into a folder of its own, such as {where}/<class>/<image>"
    else:
        remedy = f"pass {where}/{first}" if len(tops) == 1 else f"pass one of them, such as {where}/{first}"
    if len(tops) == 1:
        raise InputError(
            f"{where}: its only folder {listed(tops)} is a split, not a class: {remedy}; if it is a class, rename it"
        )
    raise InputError(
        f"{where}: its folders {listed(tops)} are splits, not classes: {remedy}; if they are classes, rename them"
    )


def _refuse_wrapper(where: str, images: Sequence[str], remedy: str | None = None) -> None:
    """Raise if one folder holds all class folders; without a `remedy`, also say so if they are splits."""
    prefix = wrapper(images)
    if not prefix:
        return
    path, inner = f"{where}/{prefix[:-1]}", top_folders(n[len(prefix) :] for n in images if n.startswith(prefix))
    if remedy is None:
        _refuse_splits(path, inner)
    kind = "splits" if are_splits(inner) else "classes"
    raise InputError(
        f"{where}: one folder holds all images, with the folders {listed(inner)} in it: if these are the {kind}, "
        f"{remedy or f'pass {path}'}; if it is one class, add the folder of another"
    )


def _refuse_shared_classes(archive: Archive, splits: dict[str, list[tuple[str, str]]]) -> None:
    seen: dict[str, str] = {}
    for split, label in (
        (split, label) for split, rows in splits.items() for label in sorted({row[0] for row in rows})
    ):
        if label in seen:
            raise InputError(
                f"{archive.path}: class {label!r} is in both {seen[label]} and {split}: a few-shot split divides the "
                "classes, not the images of a class; put each class into one split"
            )
        seen[label] = split


def _some(names: Sequence[str]) -> str:
    more = [f"{len(names) - _LISTED:,} more"] * (len(names) > _LISTED)
    return ", ".join([*names[:_LISTED], *more])

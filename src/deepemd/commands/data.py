"""``deepemd data``: list, prepare and verify data sets."""

import sys
from pathlib import Path

from deepemd.commands.console import console
from deepemd.errors import InputError

__all__ = ["data_list", "data_prepare", "data_verify"]


def data_list(root: Path | None = None) -> None:
    """List the data sets there are and those that are prepared, with their fingerprints.

    Args:
        root: folder of the prepared stores; $DEEPEMD_DATA or ~/.cache/deepemd/data unless given.
    """
    from rich.table import Table
    from rich.text import Text

    from deepemd.data import DATASETS, default_root, load, prepared

    table = Table(title=Text(f"prepared in {root or default_root()}"), title_justify="left")
    for head in ("data set", "split", "classes", "images", "a class", "median size", "sha256"):
        table.add_column(head, justify="left" if head in ("data set", "split", "sha256") else "right")
    for folder in prepared(root):
        try:
            store = load(folder)
        except InputError:
            table.add_row(Text(folder.name), "damaged: prepare it again with --force")
            continue
        for split, images in store.splits.items():
            f = images.fingerprint
            each = (
                f"{f.per_class_min}" if f.per_class_min == f.per_class_max else f"{f.per_class_min}-{f.per_class_max}"
            )
            size = f"{f.median_width} x {f.median_height}"
            table.add_row(Text(folder.name), split, f"{f.classes}", f"{f.images:,}", each, size, f.sha256[:12])
    out = console()
    for name, about in DATASETS.items():
        out.print(Text(name, "bold") + Text(f"  {about}"))
    out.print(table if table.row_count else Text(f"nothing is prepared yet in {root or default_root()}"))


def data_prepare(
    name: str,
    source: Path | None = None,
    root: Path | None = None,
    force: bool = False,
    strict: bool = True,
    skip_bad: bool = False,
    download: bool = False,
) -> None:
    """Check every image of a data set and keep them, as they came, in a store with a fingerprint.

    glyphs needs no source. A benchmark (deepemd data list) is read from the files that it is published as; without a
    source, the message says which these are, and where they come from. A folder of your own needs no preparing: its
    path is a data set; it holds <class>/<image> or {base,val,novel}/<class>/<image>.

    Args:
        name: a data set of `deepemd data list`, or a folder of class folders.
        source: where the files are.
        root: folder of the prepared stores; $DEEPEMD_DATA or ~/.cache/deepemd/data unless given.
        force: prepare it again although it is there.
        strict: refuse a benchmark whose classes or counts are not the published ones.
        skip_bad: go on without images that cannot be decoded, and list them; a benchmark needs --strict false too.
        download: get a benchmark's files from their official address; broken off, it goes on where it was.
    """
    from deepemd.data import prepare, prepared

    there = [folder.resolve() for folder in prepared(root)]
    store = prepare(name, source, root, force=force, strict=strict, skip_bad=skip_bad, download=download)
    if source is not None and not force and store.path.resolve() in there:
        told = store.notes.get("source", "")
        print(f"it was prepared already, from {told}; {source} was not read: pass --force to do so", file=sys.stderr)
    for split, images in store.splits.items():
        f = images.fingerprint
        print(f"{store.name}/{split}: {f.classes} classes, {f.images:,} images, sha256 {f.sha256}")
    if store.notes.get("note"):
        print(f"note: {store.notes['note']}")
    print(f"in {store.path}")
    if store.skipped:
        print(*store.skipped, f"{len(store.skipped):,} bad images were left out", sep="\n", file=sys.stderr)


def data_verify(name: str, root: Path | None = None) -> None:
    """Read a prepared store and compare it with its fingerprint.

    Args:
        name: a prepared data set, or a folder.
        root: folder of the prepared stores; $DEEPEMD_DATA or ~/.cache/deepemd/data unless given.
    """
    from deepemd.data import load, verify

    store = load(name, root)
    defects = verify(store)
    if defects:
        raise InputError(f"{store.path} is not whole: {'; '.join(defects)}. Prepare it again with --force")
    images = sum(len(split) for split in store.splits.values())
    print(f"{store.path}: {images:,} images in {len(store.splits)} splits, all as they were prepared")

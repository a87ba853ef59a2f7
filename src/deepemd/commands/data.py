"""``deepemd data``: list, prepare and verify data sets."""

import sys
from pathlib import Path

from deepemd.commands.console import console
from deepemd.errors import InputError
from deepemd.results import output_lock

__all__ = ["data_list", "data_prepare", "data_verify"]


def data_list(root: Path | None = None) -> None:
    """List the known data sets, and the prepared ones with their fingerprints.

    Args:
        root: folder of the prepared data sets; by default $DEEPEMD_DATA, else ~/.cache/deepemd/data.
    """
    from rich.text import Text

    from deepemd.apps.reports.tables import TextTable
    from deepemd.data import DATASETS, default_root, load, prepared

    heads = ("data set", "split", "classes", "images", "per class", "median size", "sha256")
    rows: list[list[str]] = []
    for folder in prepared(root):
        try:
            store = load(folder)
        except InputError:
            rows.append([folder.name, "damaged: prepare it again with --force", *[""] * 5])
            continue
        for split, images in store.splits.items():
            f = images.fingerprint
            one_size = f.per_class_min == f.per_class_max
            per_class = f"{f.per_class_min}" if one_size else f"{f.per_class_min}-{f.per_class_max}"
            size = f"{f.median_width} x {f.median_height}"
            rows.append([folder.name, split, f"{f.classes}", f"{f.images:,}", per_class, size, f.sha256[:12]])
    out = console()
    for name, about in DATASETS.items():
        out.print(Text(name, "bold") + Text(f"  {about}"))
    place = root or default_root()
    table = TextTable(f"prepared in {place}", heads, rows)
    out.print(table.rich() if rows else Text(f"nothing is prepared yet in {place}"))


def data_prepare(
    name: str,
    source: Path | None = None,
    root: Path | None = None,
    force: bool = False,
    strict: bool = True,
    skip_bad: bool = False,
    download: bool = False,
) -> None:
    """Check every image of a data set, and store the unchanged files with a fingerprint.

    The data set glyphs needs no source. A benchmark (see deepemd data list) is read from its published files; if you
    pass no source, the message says which files these are and where to get them. Your own folder needs no preparation:
    pass its path wherever a data set is expected. It holds <class>/<image> or {base,val,novel}/<class>/<image>; an
    image may be in more folders below its class.

    Args:
        name: a data set of `deepemd data list`, or a folder of class folders.
        source: folder or archive of the files.
        root: folder of the prepared data sets; by default $DEEPEMD_DATA, else ~/.cache/deepemd/data.
        force: prepare the data set again, even if it is already prepared.
        strict: refuse a benchmark whose classes or counts are not the published ones.
        skip_bad: leave out images that cannot be decoded, and list them; for a benchmark, also pass --strict false.
        download: download a benchmark's files from their official address; an interrupted download continues.
    """
    from deepemd.data import default_root, prepare, prepared
    from deepemd.data.catalog import messages

    already = [folder.resolve() for folder in prepared(root)]
    place = Path(root or default_root()) / (Path(name) if source else Path(name).resolve()).name
    with output_lock(place, option="root"):
        store = prepare(name, source, root, force=force, strict=strict, skip_bad=skip_bad, download=download)
    if source is not None and not force and store.path.resolve() in already:
        print(
            f"{name} was already prepared, from {store.notes.get('source', '')}; {source} was not read: pass --force to"
            " prepare it again",
            file=sys.stderr,
        )
    for split, images in store.splits.items():
        f = images.fingerprint
        print(f"{store.name}/{split}: {f.classes} classes, {f.images:,} images, sha256 {f.sha256}")
    if store.notes.get("note"):
        print(f"note: {store.notes['note']}")
    print(f"stored in {store.path}")
    for message in messages(store):
        print(f"deepemd: {message}", file=sys.stderr)
    if store.skipped:
        print(*store.skipped, f"{len(store.skipped):,} bad images were left out", sep="\n", file=sys.stderr)


def data_verify(name: str, root: Path | None = None) -> None:
    """Read all of a prepared data set and compare it with its fingerprint.

    Args:
        name: a prepared data set, or a folder.
        root: folder of the prepared data sets; by default $DEEPEMD_DATA, else ~/.cache/deepemd/data.
    """
    from deepemd.data import load, verify

    store = load(name, root)
    defects = verify(store)
    if defects:
        raise InputError(f"{store.path} is damaged: {'; '.join(defects)}")
    images = sum(len(split) for split in store.splits.values())
    print(f"{store.path}: {images:,} images in {len(store.splits)} splits, all unchanged since they were prepared")

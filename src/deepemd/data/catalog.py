"""From the name of a data set, or a folder, to its prepared store."""

import hashlib
import os
from contextlib import ExitStack, closing
from pathlib import Path

from deepemd.data import glyphs
from deepemd.data.archives import Archive, open_archive
from deepemd.data.benchmarks import BENCHMARKS
from deepemd.data.downloads import DOWNLOADS, fetch
from deepemd.data.folders import class_folders
from deepemd.data.store import Draft, Store, open_store, write_store
from deepemd.errors import InputError
from deepemd.files import explain_disk_errors

__all__ = ["DATASETS", "default_root", "load", "prepare", "prepared"]

DATASETS = {
    "glyphs": "built in: letters of five scripts, rendered in seconds; needs no source",
    **{name: benchmark.about for name, benchmark in BENCHMARKS.items()},
}
PathLike = str | os.PathLike[str]


def default_root() -> Path:
    """Where stores are kept: the environment variable DEEPEMD_DATA, else ~/.cache/deepemd/data."""
    return Path(os.environ.get("DEEPEMD_DATA") or Path.home() / ".cache" / "deepemd" / "data")


def load(name: PathLike, root: PathLike | None = None) -> Store:
    """Open a data set by its name, or a folder of class folders by its path.

    What needs no source is prepared on first use: glyphs, and folders, which are prepared again when their files
    have changed. The path of a store is opened as it is.

    Args:
        name: a name of ``DATASETS``, a name given to :func:`prepare`, or a folder.
        root: where stores are kept; by default $DEEPEMD_DATA, else ~/.cache/deepemd/data.

    Raises:
        InputError: an unknown name, a set that has not been prepared, a damaged store, or bad images.
    """
    return prepare(name, root=root)


def prepare(
    name: PathLike,
    source: PathLike | None = None,
    root: PathLike | None = None,
    *,
    force: bool = False,
    strict: bool = True,
    skip_bad: bool = False,
    download: bool = False,
) -> Store:
    """Make the store of a data set, unless it is there: every image is decoded once, then kept as it came.

    Args:
        name: a name of ``DATASETS``, or any name for class folders at ``source``, or just a folder of class folders:
            ``<class>/<image>`` or ``{base,val,novel}/<class>/<image>``.
        source: the folder, zip or tar to read; glyphs needs none.
        root: where stores are kept; by default $DEEPEMD_DATA, else ~/.cache/deepemd/data.
        force: make it again although it is there; the old one stays until the new one is whole.
        strict: refuse a benchmark whose classes or counts are not the published ones.
        skip_bad: go on without images that cannot be decoded; the store lists them in its skipped.txt. A benchmark
            needs every image, unless ``strict`` is False.
        download: get the files of a benchmark that has an address first, where no ``source`` is given.

    Raises:
        InputError: nothing at ``source``, a layout that is not understood, bad images (the first is named), splits
            other than the published ones, a full disk, no connection. The message says what to do.
    """
    root = Path(root) if root is not None else default_root()
    folder = Path(name)
    _refuse_undecodable(name, source)
    if str(name) not in DATASETS and source is None and _is_folder(folder):
        if (folder / "store.json").is_file():
            return open_store(folder)
        return _prepare_folder(folder, root, force, skip_bad)
    if len(folder.parts) != 1 or str(name).startswith("."):
        raise InputError(f"name: there is no folder {name}, and a name has no slashes and no dot first: check it")
    path = root / str(name)
    if (path / "store.json").is_file() and not force:
        store = open_store(path)
        if str(name) != "glyphs" or store.notes.get("published pixels sha256") == glyphs.GENERATOR_HASH:
            return store  # else: glyphs as an older version of this package rendered them
    if str(name) == "glyphs":
        return write_store(path, "glyphs", *glyphs.drafts())
    if source is None and download:
        source = fetch(str(name), root)
    if source is None:
        _refuse_without_source(str(name), root)
    if skip_bad and strict and str(name) in DATASETS:
        raise InputError(f"skip_bad: published figures are about every image of {name}: pass --strict false with it")
    with ExitStack() as opened:
        drafts = _read(str(name), Path(os.fspath(source or "")), root, opened, strict)
        notes = {"source": str(Path(os.fspath(source or "")).resolve()), "strict": str(strict)}
        notes["note"] = "; ".join(sorted({draft.note for draft in drafts.values()} - {""}))
        return write_store(path, str(name), drafts, notes, skip_bad=skip_bad)


def prepared(root: PathLike | None = None) -> list[Path]:
    """The folders of all stores in ``root``, sorted; :func:`load` opens each."""
    return sorted(file.parent for file in (Path(root) if root is not None else default_root()).glob("[!.]*/store.json"))


def _refuse_undecodable(*paths: PathLike | None) -> None:
    """Names that are not text cannot be kept in a store."""
    for path in paths:
        try:
            os.fspath(path or "").encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{path!a}: the name is not UTF-8: rename the file or folder") from error


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError) as error:  # no access, a name that is too long, a null byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: cannot be looked up ({reason}): check the name and the access to it") from error


def _read(name: str, source: Path, root: Path, opened: ExitStack, strict: bool) -> dict[str, Draft]:
    """The splits at ``source``."""
    with explain_disk_errors(root, needed=0):
        root.mkdir(parents=True, exist_ok=True)
    if name in BENCHMARKS:
        return BENCHMARKS[name].find(source, root, opened, strict=strict)
    return class_folders(opened.enter_context(closing(open_archive(source, root))))


def _prepare_folder(folder: Path, root: Path, force: bool, skip_bad: bool) -> Store:
    """The store of class folders, under the folder's name and a hash of its path, made again when a file changed."""
    folder = folder.resolve()
    path = root / f"{folder.name}-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"
    with closing(open_archive(folder, root)) as archive:
        listing = _listing(archive)
        if (path / "store.json").is_file() and not force:
            store = open_store(path)
            if store.notes["listing"] == listing:
                return store
        notes = {"source": str(folder), "listing": listing}
        return write_store(path, folder.name, class_folders(archive), notes, skip_bad=skip_bad)


def _listing(archive: Archive) -> str:
    """A hash of names, sizes and times of change: equal as long as nobody touched the folder."""
    rows = (f"{name}\0{size}\0{_changed(archive.path / name)}\n" for name, size in archive.sizes.items())
    return hashlib.sha256("".join(rows).encode()).hexdigest()


def _changed(file: Path) -> int:
    """When a file was changed, in nanoseconds; of a link to a file that is gone, when the link was."""
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return file.lstat().st_mtime_ns


def _refuse_without_source(name: str, root: Path) -> None:
    if name in BENCHMARKS:
        command = f"deepemd data prepare {name}"
        download = f"; or let `{command} --download` do both" if name in DOWNLOADS else ""
        raise InputError(
            f"{name}: not prepared in {root}: {BENCHMARKS[name].get}, then run `{command} --source PATH`{download}"
        )
    known = ", ".join([*DATASETS, *(path.name for path in prepared(root) if path.name not in DATASETS)])
    raise InputError(
        f"name: unknown data set {name!r}, and there is no such folder: choose one of {known}, or a folder"
    )

"""Open or prepare a data set, given its name or a folder."""

import hashlib
import logging
import os
from contextlib import ExitStack, closing
from pathlib import Path

from deepemd.data import glyphs
from deepemd.data.archives import Archive, open_archive
from deepemd.data.benchmarks import BENCHMARKS
from deepemd.data.downloads import DOWNLOADS, fetch
from deepemd.data.drafts import Draft
from deepemd.data.folders import class_drafts
from deepemd.data.store import Store, open_store
from deepemd.data.storing import write_store
from deepemd.errors import InputError
from deepemd.files import end_of_name, explain_disk_errors
from deepemd.processes import rank

__all__ = ["DATASETS", "default_root", "load", "messages", "prepare", "prepared"]

DATASETS = {
    "glyphs": "built in: letters of five scripts, rendered in seconds; needs no source",
    **{name: benchmark.summary for name, benchmark in BENCHMARKS.items()},
}
_RULES = "2"  # changes with the rules of class folders, so that a folder is prepared again
PathLike = str | os.PathLike[str]


def default_root() -> Path:
    """Return the folder of the prepared data sets: $DEEPEMD_DATA, else ~/.cache/deepemd/data."""
    try:
        return Path(os.environ.get("DEEPEMD_DATA") or Path.home() / ".cache" / "deepemd" / "data")
    except RuntimeError as error:
        raise InputError("there is no home folder for prepared data sets: set DEEPEMD_DATA or pass root") from error


def load(name: PathLike, root: PathLike | None = None) -> Store:
    """Open a data set by its name, or a folder of class folders by its path.

    Data sets that need no source are prepared on first use: glyphs, and folders, which are prepared again after their
    files have changed. The path of a store is opened directly. What is wrong with the class folders, such as a class
    without images, is logged.

    Args:
        name: a name of ``DATASETS``, a name given to :func:`prepare`, or a folder.
        root: folder of the prepared data sets; by default $DEEPEMD_DATA, else ~/.cache/deepemd/data.

    Raises:
        InputError: the name is unknown, the data set has not been prepared, or its store or its images are damaged.
    """
    store = prepare(name, root=root)
    if rank() == 0 and store.path != Path(name):
        for message in messages(store):
            logging.getLogger(__name__).warning("%s: %s", name, message)
    return store


def messages(store: Store) -> list[str]:
    """Return what the user should know of the class folders that a store was prepared from, one line each."""
    return store.notes.get("messages", "").splitlines()


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
    """Prepare the store of a data set, unless it exists: check every image by decoding it, and store the files.

    Args:
        name: a name of ``DATASETS``; or any name, for class folders at ``source``; or a folder of class folders:
            ``<class>/<image>`` or ``{base,val,novel}/<class>/<image>``.
        source: the folder, zip or tar to read; glyphs needs none.
        root: folder of the prepared data sets; by default $DEEPEMD_DATA, else ~/.cache/deepemd/data.
        force: prepare the data set again, even if its store exists; the old store stays until the new one is complete.
        strict: refuse a benchmark whose classes or counts are not the published ones.
        skip_bad: leave out images that cannot be decoded; the store lists them in its skipped.txt. A benchmark needs
            every image, unless ``strict`` is False.
        download: first download the files of a benchmark that has an official address, if no ``source`` is given.

    Raises:
        InputError: there is nothing at ``source``, its layout is unknown, images are bad (the first is named), the
            splits are not the published ones, the disk is full, or there is no connection.
    """
    root = Path(root) if root is not None else default_root()
    folder = Path(name)
    _refuse_undecodable(name, source)
    if str(name) not in DATASETS and source is None and _is_folder(folder):
        if (folder / "store.json").is_file():
            return open_store(folder)
        return _prepare_folder(folder, root, force, skip_bad)
    if len(folder.parts) != 1 or str(name).startswith("."):
        raise InputError(f"name: there is no folder {name}, and a name has no slash and no leading dot: check it")
    path = root / str(name)
    if (path / "store.json").is_file() and not force:
        store = open_store(path)
        if str(name) != "glyphs" or store.notes.get("published pixels sha256") == glyphs.GENERATOR_HASH:
            return store  # otherwise an older version of this package rendered these glyphs
    if str(name) == "glyphs":
        return write_store(path, "glyphs", *glyphs.drafts())
    if source is None and download:
        source = fetch(str(name), root)
    if source is None:
        _refuse_without_source(str(name), root)
    if skip_bad and strict and str(name) in DATASETS:
        raise InputError(f"skip_bad: published figures use every image of {name}: pass --strict false too")
    with ExitStack() as opened:
        drafts, about = _read(str(name), Path(os.fspath(source or "")), root, opened, strict)
        notes = {"source": str(Path(os.fspath(source or "")).resolve()), "strict": str(strict), "messages": about}
        notes["note"] = "; ".join(sorted({draft.note for draft in drafts.values()} - {""}))
        return write_store(path, str(name), drafts, notes, skip_bad=skip_bad)


def prepared(root: PathLike | None = None) -> list[Path]:
    """Return the sorted folders of all stores in ``root``; :func:`load` opens each."""
    return sorted(file.parent for file in (Path(root) if root is not None else default_root()).glob("[!.]*/store.json"))


def _refuse_undecodable(*paths: PathLike | None) -> None:
    """Refuse names that are not text, as a store cannot hold them."""
    for path in paths:
        try:
            os.fspath(path or "").encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{path!a}: the name is not UTF-8: rename the file or folder") from error


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError) as error:  # no access, a name that is too long, or a null byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: cannot be looked up ({reason}): check the name and the permissions") from error


def _read(name: str, source: Path, root: Path, opened: ExitStack, strict: bool) -> tuple[dict[str, Draft], str]:
    """Find the splits at ``source``; also return what the user should know, a line each."""
    with explain_disk_errors(root, needed=0):
        root.mkdir(parents=True, exist_ok=True)
    if name in BENCHMARKS:
        return BENCHMARKS[name].find(source, root, opened, strict=strict), ""
    drafts, found = class_drafts(opened.enter_context(closing(open_archive(source, root))))
    return drafts, "\n".join(found.messages("ignored"))


def _prepare_folder(folder: Path, root: Path, force: bool, skip_bad: bool) -> Store:
    """Open or prepare the store of class folders; it is prepared again after a file has changed.

    The store has the folder's name and a hash of its path.
    """
    folder = folder.resolve()
    path = root / f"{end_of_name(folder.name, 246)}-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"
    with closing(open_archive(folder, root)) as archive:
        listing = _listing(archive)
        if (path / "store.json").is_file() and not force:
            store = open_store(path)
            if store.notes["listing"] == listing:
                return store
        drafts, found = class_drafts(archive)
        notes = {"source": str(folder), "listing": listing, "messages": "\n".join(found.messages("ignored"))}
        return write_store(path, folder.name, drafts, notes, skip_bad=skip_bad)


def _listing(archive: Archive) -> str:
    """Return a hash of a folder's names, sizes and modification times, and of the version of the rules."""
    files = (f"{name}\0{size}\0{_changed(archive.path / name)}\n" for name, size in archive.sizes.items())
    folders = (f"{name}/\n" for name in [*sorted(archive.folders), *archive.hidden])
    return hashlib.sha256("".join([_RULES, *folders, *files]).encode()).hexdigest()


def _changed(file: Path) -> int:
    """Return the modification time of a file, or of a broken link, in nanoseconds."""
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return file.lstat().st_mtime_ns


def _refuse_without_source(name: str, root: Path) -> None:
    if name in BENCHMARKS:
        command = f"deepemd data prepare {name}"
        download = f"; or run `{command} --download`" if name in DOWNLOADS else ""
        how_to_get = BENCHMARKS[name].how_to_get
        raise InputError(f"{name}: not prepared in {root}: {how_to_get}, then run `{command} --source PATH`{download}")
    known = ", ".join([*DATASETS, *(path.name for path in prepared(root) if path.name not in DATASETS)])
    raise InputError(
        f"name: unknown data set {name!r}, and there is no such folder: choose one of {known}, or a folder"
    )

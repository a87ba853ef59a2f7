"""From a name or a folder to a prepared store."""

import os
from pathlib import Path

from deepemd.data import glyphs
from deepemd.data.store import Draft, Store, open_store, write_store
from deepemd.errors import InputError

__all__ = ["BUILT_IN", "default_root", "load", "prepare"]

BUILT_IN = ("glyphs", "miniimagenet")


def default_root() -> Path:
    """Where stores are kept: the environment variable DEEPEMD_DATA, else ~/.cache/deepemd/data."""
    return Path(os.environ.get("DEEPEMD_DATA") or Path.home() / ".cache" / "deepemd" / "data")


def prepare(
    name: str | os.PathLike[str],
    source: str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    *,
    force: bool = False,
) -> Store:
    path = (Path(root) if root is not None else default_root()) / str(name)
    if (path / "store.json").is_file() and not force:
        return open_store(path)
    if str(name) == "glyphs":
        drafts, notes = glyphs.drafts()
        return write_store(path, "glyphs", drafts, notes)
    raise InputError(f"name: unknown data set {str(name)!r}: choose one of {', '.join(BUILT_IN)}")


def load(name: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> Store:
    return prepare(name, root=root)

"""List the files of a folder, without those that systems leave behind. Links are followed, but not in circles."""

import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from deepemd.data.kinds import is_system, unknown_hidden
from deepemd.errors import InputError

__all__ = ["Tree", "walk"]

_MOST_VISITS = 10_000  # links that lead to one folder; chains of links could otherwise double without end


@dataclass(frozen=True)
class Tree:
    """What a folder holds; names are paths inside, with ``/`` between folders.

    Attributes:
        sizes: size in bytes of each file, by its sorted name.
        folders: the folders.
        links: for a file that is reached through a link, its name without links, or its path if it is outside of the
            folder; for a link that leads nowhere, an empty string.
        hidden: hidden folders at the top that no known program makes.
    """

    sizes: dict[str, int]
    folders: set[str] = field(default_factory=set)
    links: dict[str, str] = field(default_factory=dict)
    hidden: list[str] = field(default_factory=list)


def walk(root: Path) -> Tree:
    """List a folder, at any depth.

    Raises:
        InputError: a folder cannot be read, a link leads back to a folder that holds it, a name is not text, or there
            is a pipe, a socket or a device.
    """
    tree, visits = Tree({}), Counter[str]()
    # A folder, whether no link leads to it, and the real paths of it and of the folders above it.
    pending: list[tuple[str, bool, tuple[str, ...]]] = [("", True, (os.path.realpath(root),))]
    while pending:
        prefix, direct, above = pending.pop()
        for entry in _entries(root, prefix):
            name, linked = prefix + entry.name, entry.is_symlink()
            if is_system(entry.name):
                if not prefix and unknown_hidden(entry.name) and _is_folder(entry):
                    tree.hidden.append(name)
                continue
            _refuse_undecodable(root, name)
            if not _is_folder(entry):
                size = _size(entry)
                tree.sizes[name] = size or 0
                if size is None or linked or not direct:
                    tree.links[name] = "" if size is None else _own_name(entry, linked, above)
                continue
            real = os.path.realpath(entry.path) if linked else os.path.join(above[-1], entry.name)
            if linked:
                visits[real] += 1
                _refuse_circles(entry.path, real, above, visits[real])
            tree.folders.add(name)
            pending.append((f"{name}/", direct and not linked, (*above, real)))
    return Tree(dict(sorted(tree.sizes.items())), tree.folders, tree.links, sorted(tree.hidden))


def _entries(root: Path, prefix: str) -> list["os.DirEntry[str]"]:
    folder = os.path.join(root, prefix)
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:  # to skip the folder silently could mean to skip a class
        raise InputError(
            f"{Path(folder)}: the folder cannot be read ({error.strerror}): give yourself access to it"
        ) from error


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _size(entry: "os.DirEntry[str]") -> int | None:
    """Return the size of a file in bytes; None for a link that leads nowhere, or a file without access."""
    try:
        status = entry.stat()
    except OSError:  # reading it raises an error
        return None
    if not stat.S_ISREG(status.st_mode):  # reading a pipe could block forever
        raise InputError(f"{entry.path}: a pipe, socket or device, not a file: remove it")
    return status.st_size


def _own_name(entry: "os.DirEntry[str]", linked: bool, above: tuple[str, ...]) -> str:
    """Return the name without links of a file that is reached through one; its path if it is elsewhere or hidden."""
    real = os.path.realpath(entry.path) if linked else os.path.join(above[-1], entry.name)
    inside = real.removeprefix(os.path.join(above[0], "")).replace(os.sep, "/")
    return real if any(is_system(part) for part in inside.split("/")) else inside


def _refuse_circles(path: str, real: str, above: tuple[str, ...], visits: int) -> None:
    if real in above:
        raise InputError(f"{path}: a link back to {real}, which holds it: remove the link")
    if visits > _MOST_VISITS:
        raise InputError(f"{path}: one of more than {_MOST_VISITS:,} links to {real}: remove some of them")


def _refuse_undecodable(root: Path, name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{root}: the name of {name!a} in it is not UTF-8: rename the file") from error

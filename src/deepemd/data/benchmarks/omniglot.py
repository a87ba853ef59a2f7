"""Omniglot: 1,623 handwritten characters of 50 alphabets, each drawn by 20 people.

The published division is by alphabets: ``images_background`` (30 alphabets, 964 characters) for training, and
``images_evaluation`` (20 alphabets, 659 characters) for testing, which is ``novel`` here. No validation split was
published. Here, ``val`` is five of the background alphabets, of unrelated scripts: Anglo-Saxon Futhorc, Burmese,
Cyrillic, Hebrew and N'Ko (151 characters). The other 25 are ``base`` (813 characters).

Lake, Salakhutdinov & Tenenbaum, "Human-level concept learning through probabilistic program induction" (Science 2015).
"""

from contextlib import ExitStack, closing
from pathlib import Path

from deepemd.data.archives import Archive, open_archive
from deepemd.data.benchmarks.published import Counts, check_split, class_list
from deepemd.data.drafts import Draft, from_files
from deepemd.errors import InputError

__all__ = ["omniglot"]

_COUNTS = {"base": Counts(16260, 20, 20), "val": Counts(3020, 20, 20), "novel": Counts(13180, 20, 20)}
_TREES = ("images_background", "images_evaluation")
_FORMS = "expected images_background and images_evaluation, as zip files or unpacked, in one folder, or one alone"
_REMEDY = "Get images_background.zip and images_evaluation.zip again (not the small ones)"


def omniglot(source: Path, scratch: Path, opened: ExitStack, *, strict: bool = True) -> dict[str, Draft]:
    """Find the splits of Omniglot; the classes are named ``Alphabet/character01``, the strokes stay black on white.

    Args:
        source: a folder with images_background.zip and images_evaluation.zip, or with the unpacked trees
            ``images_background/Alphabet/character01/0709_01.png``; one of them alone gives its own splits.
        scratch: folder where a compressed tar may be unpacked.
        opened: holds the archives open while the drafts are read.
        strict: refuse characters that are not the published ones, 20 drawings each.

    Raises:
        InputError: nothing was found, a tree was found twice, or the number of characters or drawings is wrong.
    """
    drafts = {}
    for tree in _TREES:
        found = _tree(source, tree, scratch, opened)
        if found is None:
            continue
        archive, rows = found
        val = {label.split("/")[0] for label in class_list("omniglot", "val")} if tree == _TREES[0] else set()
        for split in ("base", "val") if tree == _TREES[0] else ("novel",):
            chosen = [row for row in rows if (row[0].split("/")[0] in val) == (split == "val")]
            if chosen or strict:
                drafts[split] = from_files(archive, chosen)
            if strict:
                check_split(f"{archive.path}", "omniglot", split, drafts[split], _COUNTS[split], _REMEDY)
    if not drafts:
        raise InputError(f"{source}: no Omniglot found: {_FORMS}")
    return drafts


def _tree(
    source: Path, tree: str, scratch: Path, opened: ExitStack
) -> tuple[Archive, list[tuple[str, str, str]]] | None:
    """Return the archive with one of the two trees, and its rows; None if it is absent."""
    places = [source, source / f"{tree}.zip"] if (source / f"{tree}.zip").is_file() else [source]
    found = []
    for place in places:
        archive = opened.enter_context(closing(open_archive(place, scratch)))
        rows = _rows(archive, tree)
        if rows:
            found.append((archive, rows))
    if len(found) > 1:
        raise InputError(f"{source}: has {tree}.zip and its files unpacked: keep one of the two")
    return found[0] if found else None


def _rows(archive: Archive, tree: str) -> list[tuple[str, str, str]]:
    """Return class, name and path of each drawing below the folder ``tree``, at any depth."""
    rows = []
    for path in archive.sizes:
        parts = [archive.path.name.removesuffix(".zip"), *path.split("/")]
        if len(parts) >= 4 and parts[-4] == tree and path.endswith(".png"):
            rows.append((f"{parts[-3]}/{parts[-2]}", "/".join(parts[-4:]), path))
    return rows

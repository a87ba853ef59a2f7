"""Write a data set into a store: every image is decoded once, and the store appears when it is complete."""

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np

from deepemd.data.decoding import measure
from deepemd.data.drafts import Draft
from deepemd.data.images import BLOCK, WORKERS, Fingerprint
from deepemd.data.store import FORMAT, SKIPPED, SPLITS, Store, is_store_file, open_store, update_hash
from deepemd.errors import InputError
from deepemd.files import atomic_folder, contents, file_sha256
from deepemd.json_files import json_text
from deepemd.progress import track

__all__ = ["write_store"]

_MAX_HELD = 64_000_000  # encoded bytes in memory between reading and writing


def write_store(
    path: Path,
    name: str,
    drafts: dict[str, Draft],
    notes: dict[str, str],
    *,
    skip_bad: bool = False,
) -> Store:
    """Read, check and write every image of every split; the store appears as ``path`` in one step.

    Each image is decoded once, in a pool of threads, so that a damaged file is found now and not during training.

    Args:
        path: the folder to create.
        name: name of the data set.
        drafts: the splits by their names.
        notes: the source of the data.
        skip_bad: leave out bad images; list them in ``skipped.txt``, and their number in the notes.

    Raises:
        InputError: images cannot be decoded (the first is named, the others are counted) and `skip_bad` is not set, a
            class would be empty without them, the folder exists and holds other files than those of a store, or the
            disk is full.
    """
    _refuse_other(path)
    with atomic_folder(path, needed=sum(draft.size for draft in drafts.values())) as folder:
        prints, sums, skipped = {}, {}, list[str]()
        for split in (split for split in SPLITS if split in drafts):
            fingerprint, bad = _write_split(folder, name, split, drafts[split], skip_bad)
            prints[split], sums[split] = fingerprint.as_dict(), file_sha256(folder / f"{split}.npz")
            skipped += [f"{split}: {error}" for error in bad]
        if skipped:
            notes = {**notes, "skipped": f"{len(skipped):,} bad images, listed in {SKIPPED}"}
            lines = "".join(" ".join(line.splitlines()) + "\n" for line in skipped)
            (folder / SKIPPED).write_text(lines, encoding="utf-8")
        description = {"format": FORMAT, "name": name, "notes": notes, "splits": prints, "index_sha256": sums}
        text = json_text(description, path / "store.json", indent=1, ascii_only=False)
        (folder / "store.json").write_text(text, encoding="utf-8")
    return open_store(path)


def _refuse_other(path: Path) -> None:
    """Refuse a folder that holds files which no store has, because replacing it would delete them."""
    with suppress(FileNotFoundError, NotADirectoryError):
        other = next((name for name in contents(path) if not is_store_file(name)), None)
        if other is not None:
            raise InputError(f"{path}: holds {other}, which is not a store's: move it away, or choose another folder")


def _write_split(
    folder: Path, name: str, split: str, draft: Draft, skip_bad: bool
) -> tuple[Fingerprint, list[InputError]]:
    """Write the two files of a split; return its fingerprint, and an error for each image that was left out."""
    if not draft.names:
        raise InputError(f"{name}/{split}: there are no images in it: check the source")
    good, lengths, sizes, bad = list[int](), [], [], list[InputError]()
    digest = hashlib.sha256("\0".join(draft.classes).encode())
    with (folder / f"{split}.bin").open("wb") as file:
        for i, encoded, size in _checked(f"{name}/{split}", draft):
            if isinstance(size, InputError):
                bad.append(size)
                continue
            file.write(encoded)
            good.append(i)
            lengths.append(len(encoded))
            sizes.append(size)
            update_hash(digest, draft.labels, draft.groups, draft.names, i, encoded)
    if bad and not skip_bad:
        count = f" ({len(bad):,} of {len(draft.names):,} images are bad)" if len(bad) > 1 else ""
        raise InputError(f"{bad[0]}{count}, or pass --skip-bad (skip_bad=True) to leave bad images out")
    counts = np.bincount(draft.labels[good], minlength=len(draft.classes))
    if not counts.all():
        label = draft.classes[int(counts.argmin())]
        raise InputError(f"{name}/{split}: every image of class {label!r} is bad, the first because of {bad[0]}")
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    groups = np.zeros(0, np.int64) if draft.groups is None else draft.groups[good]
    names, classes = np.array([draft.names[i] for i in good]), np.array(draft.classes)
    np.savez(
        folder / f"{split}.npz", offsets=offsets, labels=draft.labels[good], groups=groups, names=names, classes=classes
    )
    width, height = (int(side) for side in np.median(np.array(sizes), axis=0))
    fingerprint = Fingerprint(
        f"{name}/{split}", len(draft.classes), len(good), int(counts.min()), int(counts.max()),
        width, height, "sorted", digest.hexdigest(),
    )  # fmt: skip
    return fingerprint, bad


def _checked(name: str, draft: Draft) -> Iterator[tuple[int, bytes, tuple[int, int] | InputError]]:
    """Decode all images in threads, some megabytes at a time; yield each with its size or its error."""

    def check(i: int, encoded: bytes | InputError) -> tuple[int, bytes, tuple[int, int] | InputError]:
        if isinstance(encoded, InputError):
            return i, b"", encoded
        try:
            return i, encoded, measure(encoded, draft.names[i])
        except InputError as error:
            return i, b"", error

    def read(i: int) -> bytes | InputError:
        try:
            return draft.read(i)
        except InputError as error:
            return error

    waiting: deque[tuple[int, Future[tuple[int, bytes, tuple[int, int] | InputError]]]] = deque()
    held = 0
    with ThreadPoolExecutor(WORKERS) as pool:
        for i in track(range(len(draft.names)), f"preparing {name}", len(draft.names), "images"):
            encoded = read(i)
            size = 0 if isinstance(encoded, InputError) else len(encoded)
            waiting.append((size, pool.submit(check, i, encoded)))
            held += size
            while held > _MAX_HELD or len(waiting) > BLOCK:
                size, oldest = waiting.popleft()
                held -= size
                yield oldest.result()
        yield from (future.result() for _, future in waiting)

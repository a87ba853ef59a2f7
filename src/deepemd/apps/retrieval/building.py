"""Build an index: embed every image once, and write all that a search needs into one folder."""

import os
import re
from contextlib import closing, nullcontext
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from deepemd.apps.retrieval.checksums import node_checks
from deepemd.apps.retrieval.index import FORMATS, INDEX_FILE, Index, model_sha256, open_index
from deepemd.apps.retrieval.whitening import Groups, fit_whitening, whitening_array
from deepemd.data import Images, load
from deepemd.data.archives import open_archive
from deepemd.data.drafts import Draft
from deepemd.data.folders import LOOSE, index_draft
from deepemd.data.store import is_store_file, open_store
from deepemd.data.storing import write_store
from deepemd.embedding.splits import embed
from deepemd.errors import InputError
from deepemd.files import atomic_folder, contents, file_sha256
from deepemd.json_files import json_text
from deepemd.model import DeepEMD
from deepemd.model.pretrained import pretrained
from deepemd.processes import barrier, broadcast, rank, rank_zero_first
from deepemd.progress import Progress

__all__ = ["build_index"]

_TOGETHER = 1024  # images that are whitened at a time
_FILES = re.compile(r"index\.json|(nodes|pooled|checks|whitening)\.npy|model/(config\.json|model\.safetensors)")


def build_index(
    model: "str | os.PathLike[str] | nn.Module",
    data: str | Path,
    path: Path,
    *,
    whiten: Groups | None = None,
    split: str | None = None,
    root: Path | None = None,
    force: bool = False,
    skip_bad: bool = False,
    bf16: bool = False,
    cache: Path | None = None,
) -> Index:
    """Embed images and write the index, which appears only when it is complete.

    Several processes share the images; the first one writes the index, to a disk that all of them see.

    Args:
        model: any model of :func:`deepemd.model.pretrained.pretrained`, or the folder of a saved classifier, whose
            classes play no part; the index holds a copy.
        data: a folder of class folders, or of images without classes, which have the class ``"."``; or, with `split` or
            by the name of a prepared data set, one of its splits.
        path: folder for the index.
        whiten: "classes" or "neighbours" to whiten the nodes, see :mod:`deepemd.apps.retrieval.whitening`.
        split: the split of the data set.
        root: folder of the prepared data sets; by default $DEEPEMD_DATA, else ~/.cache/deepemd/data.
        force: replace an existing index.
        skip_bad: leave out images that cannot be decoded; ``images/skipped.txt`` lists them.
        bf16, cache: see :func:`deepemd.embedding.splits.embed`; with a cache, a killed run continues where it stopped.

    Raises:
        InputError: `path` holds something else, there are no images, the folders are splits or a level too high, an
            image or the model cannot be read, there are no classes to whiten by, or the disk is full.
    """
    _refuse_other(path, force)
    with rank_zero_first():  # of several processes, one fetches a model
        network = pretrained(model)
    barrier()  # until all processes have checked the folder
    with atomic_folder(path, needed=0) if rank() == 0 else nullcontext() as made:
        if made is not None:
            _copy_images(data, split, root, made / "images", skip_bad)
        folder = broadcast(made)
        assert folder is not None
        (images,) = open_store(folder / "images").splits.values()
        nodes = embed(network, images, bf16=bf16, cache=cache)  # (N, n, C)
        if made is not None:
            with Progress("writing the index"):
                _fill(made, network, images, nodes, whiten, "bf16" if bf16 else "32")
    barrier()
    return open_index(path)


def _fill(folder: Path, network: DeepEMD, images: Images, nodes: Tensor, whiten: Groups | None, precision: str) -> None:
    """Write all files of an index except the images, which already exist."""
    if not bool(nodes.isfinite().all()):
        bad = images.names[int((~nodes.isfinite()).flatten(1).any(1).nonzero()[0, 0])]
        raise InputError(f"{bad}: its embedding is not finite, so it cannot be compared: use another model")
    arrays: dict[str, np.ndarray] = {}
    if whiten is not None:
        labels = np.where(np.array(images.classes)[images.labels] == LOOSE, -1, images.labels)
        whitening = fit_whitening(nodes, labels, whiten)
        arrays["whitening"] = whitening_array(whitening)
        whitened = nodes.new_empty(*nodes.shape[:2], len(whitening.root))  # (N, n, C + 1)
        for part, place in zip(nodes.split(_TOGETHER), whitened.split(_TOGETHER), strict=True):
            place.copy_(whitening(part))
        nodes = whitened
    half = nodes.half()
    stored = (half if half.isfinite().all() else nodes).numpy()
    arrays |= {"nodes": stored, "pooled": nodes.mean(1).numpy(), "checks": node_checks(stored, range(len(stored)))}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    for pixels in images.path.parent.glob("*.npy"):  # made to embed them
        pixels.unlink()
    network.save(folder / "model")
    description = {
        "format": FORMATS[whiten is not None],
        "model": model_sha256(folder / "model"),
        "data": images.fingerprint.sha256,
        "files": {f"{name}.npy": file_sha256(folder / f"{name}.npy") for name in arrays if name != "nodes"},
        "precision": precision,
        **({} if whiten is None else {"whiten": whiten}),
    }
    (folder / INDEX_FILE).write_text(json_text(description, folder / INDEX_FILE, indent=1), encoding="utf-8")


def _refuse_other(path: Path, force: bool) -> None:
    if not path.exists() or (path.is_dir() and not contents(path)):
        return
    if not (path / INDEX_FILE).is_file():
        raise InputError(f"{path}: holds something other than an index: choose another folder")
    if not force:
        raise InputError(f"{path}: holds an index already: pass --force (force=True) to make it again")
    for place, _, names in os.walk(path):
        within = Path(place).relative_to(path).as_posix()
        for name in contents(Path(place)) if within in (".", "images", "model") else names:
            full = name if within == "." else f"{within}/{name}"
            ours = is_store_file(name) if within == "images" else _FILES.fullmatch(full)
            if not ours and full not in ("images", "model"):
                raise InputError(
                    f"{path}: holds {full}, which is not of an index: move it away, or choose another folder"
                )


def _copy_images(data: str | Path, split: str | None, root: Path | None, path: Path, skip_bad: bool) -> None:
    """Check the images and store them as a data set with one split."""
    folder = Path(data)
    if split is None and folder.is_dir() and not (folder / "store.json").is_file():
        with closing(open_archive(folder, path.parent)) as archive:
            draft, found = index_draft(archive)
            notes = {"source": str(folder), "messages": "\n".join(found.messages("has no class"))}
            write_store(path, folder.resolve().name, {"all": draft}, notes, skip_bad=skip_bad)
            return
    splits = load(data, root).splits
    if split is None and len(splits) > 1:
        raise InputError(f"split: {data} has the splits {', '.join(splits)}: choose one with --split")
    split = split or next(iter(splits))
    if split not in splits:
        raise InputError(f"split: {data} has no split {split!r}; choose one of {', '.join(splits)}")
    images = splits[split]
    size = int(images.offsets[-1])
    draft = Draft(images.classes, images.labels, images.names, images.encoded, images.groups, size)
    write_store(path, images.name.rpartition("/")[0], {split: draft}, {"source": str(data)})

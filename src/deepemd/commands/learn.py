"""``deepemd learn``: teach corrected labels to a saved classifier."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from deepemd.commands.outputs import check_output
from deepemd.commands.photos import fail_if_unreadable, refuse_absent
from deepemd.errors import InputError, printable
from deepemd.files import atomic_folder, contents
from deepemd.model.folder import CONFIG_FILE, WEIGHTS_FILE, refuse_other_settings

if TYPE_CHECKING:
    from deepemd.classifier.classifier import PhotoClassifier

__all__ = ["learn"]


def learn(
    model: Path,
    corrections: Path,
    out: Path | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    force: bool = False,
    cache: Path | None = None,
) -> None:
    """Teach corrected labels to a saved classifier: `deepemd learn MODEL predictions.csv`.

    Write the right label of a photo into the column correct_label of predictions.csv, or fill in the column label of
    label_next.csv. These photos are added to their classes, a new label makes a new class, and a photo that is in
    another class is moved. Rows that are not filled in are not learned. A changed label counts too if predictions.json
    still lies beside the CSV file, and if the label is the name of a class.

    The classifier is replaced in one step at the end. If the command is stopped before, nothing is lost: run it again.
    Photos that are not there are listed and left out, and the exit code is then 2.

    Args:
        model: folder of a classifier that `deepemd predict --save` wrote; it is replaced, unless --out is given.
        corrections: CSV file with the photos and their right labels.
        out: folder for the new classifier; then the old one stays as it is.
        image_column: column that names the photos; by default image, file, path or the like.
        label_column: column whose labels are all learned; by default correct_label.
        force: replace a classifier in the folder of --out.
        cache: folder of the cached embeddings; by default $DEEPEMD_CACHE, else ~/.cache/deepemd/embeddings.
    """
    from deepemd.apps.photos.corrections import learn_corrections, read_corrections
    from deepemd.apps.photos.fitting import unreadable
    from deepemd.classifier.classifier import PhotoClassifier
    from deepemd.data.sources import Columns, PhotoSources
    from deepemd.device import keep_freed_memory
    from deepemd.results import output_lock

    refuse_absent("model", [model], "folder")
    refuse_absent("corrections", [corrections], "CSV file")
    keep_freed_memory()
    target = _target(model, out, force)
    with PhotoSources.opened(Columns(image_column, label_column)) as sources, output_lock(target, option="--out"):
        classifier = PhotoClassifier.load(model, cache=cache or True)
        found = read_corrections(corrections, sources, classifier.classes_.tolist())
        for note in found.notes:
            note.print()
        learned = learn_corrections(classifier, found)
        if learned.changed or out is not None:
            _replace(classifier, target)
    if learned.bad:
        unreadable(learned.bad, "of the corrections").print()
    print(f"{printable(learned.sentence(classifier))}\nmodel: {printable(out or model)}")
    fail_if_unreadable(len(learned.bad))


def _target(model: Path, out: Path | None, force: bool) -> Path:
    """Return the folder to write, without links.

    Raises:
        InputError: it is the current folder, which cannot be replaced, or it holds another model.
    """
    target = (out or model).resolve()
    option = "model" if out is None else "out"
    if target == Path().resolve() or target in Path().resolve().parents:
        raise InputError(f"{option}: {target} holds the current folder, and is replaced as a whole: change to another")
    if target.exists() and not target.is_dir():
        raise InputError(f"{option}: {target} is a file: name a folder")
    if out is not None:
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            check_output("out", target / name, name, force=force)
        refuse_other_settings(target)
    return target


def _replace(classifier: "PhotoClassifier", target: Path) -> None:
    """Put a classifier in place, in one step; other files of the folder stay."""
    with atomic_folder(target, 50_000_000) as made:
        for name in contents(target) if target.exists() else []:
            if name not in (CONFIG_FILE, WEIGHTS_FILE):
                _copy(target / name, made / name)
        classifier.save(made, force=True)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target, follow_symlinks=False)

"""Save the classes of a visitor as a zip of a model's folder, and open such a zip."""

import io
import zipfile
from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from deepemd.apps.web.folder import scratch_folder
from deepemd.apps.web.session import MAX_CLASSES, MAX_PHOTOS, Visitor, class_name
from deepemd.classifier.classifier import PhotoClassifier
from deepemd.data.archives import Archive, open_archive
from deepemd.data.decoding import decode, measure
from deepemd.embedding.cache import fingerprint
from deepemd.errors import InputError
from deepemd.model import DeepEMD
from deepemd.model.folder import CHECK, CONFIG_FILE, WEIGHTS_FILE, read_config

__all__ = ["MODEL", "model_zip", "with_model"]

MODEL = "deepemd-model"
"""The name of the zip and of the folder in it."""

_MAX_CONFIG = 2**24  # bytes
_MAX_WEIGHTS = 2**29
_MAX_SIDE = 1024  # pixels


def model_zip(visitor: Visitor, uploads: Path) -> bytes:
    """Return a zip with the folder that the classifier of a visitor saves.

    Args:
        visitor: the visitor.
        uploads: the folder for files of the moment.

    Raises:
        InputError: there are no classes, or the disk is full.
    """
    if visitor.classifier is None:
        raise InputError("There are no classes to save")
    file = io.BytesIO()
    with scratch_folder(uploads) as folder, zipfile.ZipFile(file, "w") as archive:  # the weights hardly shrink
        try:
            visitor.classifier.save(folder)
        except InputError as error:
            raise InputError(str(error).replace(str(folder), MODEL)) from error
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            archive.write(folder / name, f"{MODEL}/{name}")
    return file.getvalue()


def with_model(visitor: Visitor, path: Path, name: str, uploads: Path) -> Visitor:
    """Give a visitor the classes of a saved classifier, in place of their own.

    Args:
        visitor: the visitor, whose model must be the one that the classifier was saved with.
        path: a zip or tar with the folder of a saved classifier.
        name: the name of the file for the visitor.
        uploads: the folder for files of the moment.

    Raises:
        InputError: the file holds no such folder, is damaged, or its model is another one.
    """
    with scratch_folder(uploads) as folder:
        try:
            _unpack(path, folder)
            classifier = _loaded(folder, visitor.model)
        except InputError as error:
            text = str(error)
            for place in (folder / CONFIG_FILE, folder / WEIGHTS_FILE, folder, path):
                text = text.replace(str(place), place.name if place.parent == folder else name)
            raise InputError(text if text.startswith(name) else f"{name}: {text}") from error
    return visitor.changed(classifier, tuple(map(str, classifier.classes_.tolist())))


def _unpack(path: Path, folder: Path) -> None:
    """Write the two files of a model from an archive into a folder, under names of our own."""
    archive = open_archive(path, folder)
    try:
        for name, content in _found(archive).items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise InputError(f"{path}: cannot be unpacked ({error.strerror}): try again later") from error
    finally:
        archive.close()


def _found(archive: Archive) -> dict[str, bytes]:
    """Return the content of the two files of the one model in an archive."""
    places = [name.removesuffix(CONFIG_FILE) for name in archive.sizes if name.split("/")[-1] == CONFIG_FILE]
    places = [place for place in places if place + WEIGHTS_FILE in archive.sizes]
    if len(places) != 1:
        raise InputError(
            f"{archive.path}: holds {len(places)} folders of a model, each of {CONFIG_FILE} and {WEIGHTS_FILE}: choose "
            "a zip that was saved on this page, or zip the folder that 'deepemd predict --save' wrote"
        )
    for name, most in ((CONFIG_FILE, _MAX_CONFIG), (WEIGHTS_FILE, _MAX_WEIGHTS)):
        if archive.sizes[places[0] + name] > most:
            raise InputError(f"{archive.path}: {name} in it has more than {most / 2**20:.0f} MB")
    return {name: archive.read(places[0] + name) for name in (CONFIG_FILE, WEIGHTS_FILE)}


def _loaded(folder: Path, model: DeepEMD) -> PhotoClassifier:
    """Load a classifier, and let it share the model that all visitors have."""
    config = read_config(folder)
    if "classifier" not in config:
        raise InputError(f"{folder}: a model without classes")
    if _of_the_model(config) != _of_the_model(model.config):  # before anything else is built from it
        raise _other_model()
    made = PhotoClassifier.load(folder, cache=False)
    if fingerprint(made.model_) != fingerprint(model):
        raise _other_model()
    made.backbone, made.model_, made.head_ = model, model, replace(made.head_, model=model)
    photos, classes = int(made.support_.count.sum()), len(made.classes_)
    if photos > MAX_PHOTOS or classes > MAX_CLASSES:
        raise InputError(
            f"{folder}: {photos:,} photos in {classes:,} classes; this page takes {MAX_PHOTOS} in {MAX_CLASSES}. "
            "'deepemd predict --model' has no such limit"
        )
    for example in made.support_.examples:
        _check_picture(example.picture)
    return _named(made)


def _check_picture(picture: bytes) -> None:
    """Raise an error unless this is a small JPEG, as every classifier saves it; look at its size before decoding it."""
    if not picture.startswith(b"\xff\xd8\xff") or max(measure(picture, "a photo in it")) > _MAX_SIDE:
        raise InputError("a photo in it is no small JPEG, as a classifier saves it: save the classes again")
    decode(picture, "a photo in it")


def _of_the_model(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in ("format", "classifier", CHECK)}


def _other_model() -> InputError:
    return InputError(
        "it was saved with another encoder or other settings than this page uses. Unpack it, and start the page with "
        "it: deepemd app --backbone FOLDER"
    )


def _named(classifier: PhotoClassifier) -> PhotoClassifier:
    """Return a classifier whose classes have names as the page takes them: texts that can be seen."""
    before = classifier.classes_.tolist()
    names = [class_name(str(one)) for one in before]
    if names == before:
        return classifier
    if len(set(names)) < len(names):
        raise InputError(f"two of its classes have the same name here: {', '.join(map(repr, before))[:200]}")
    made = copy(classifier)
    order = np.argsort(np.asarray(names), kind="stable")
    made.support_, made.classes_ = made.support_.sorted(order), np.asarray(names)[order]
    made.calibrate()
    return made

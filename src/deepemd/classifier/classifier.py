"""Photos in, labels out: fit, predict, explain, save and load."""

import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import nn

from deepemd.classifier.adaptation import Adapt, Head, adapted
from deepemd.classifier.answers import FittedClassifier
from deepemd.classifier.calibration import refuse_class_named
from deepemd.classifier.learning import add_photos, check_labels
from deepemd.classifier.saving import SavedClassifier, read_classifier, write_classifier
from deepemd.classifier.settings import check_settings, settings_of
from deepemd.classifier.trust import Trust
from deepemd.data.inputs import as_images, as_labels
from deepemd.data.photos import class_photos
from deepemd.errors import InputError
from deepemd.model import DeepEMD
from deepemd.model.folder import CONFIG_FILE, WEIGHTS_FILE
from deepemd.model.pretrained import DEFAULT, pretrained
from deepemd.nodes import Regions, parse_regions

if TYPE_CHECKING:
    from deepemd.data.decoding import Picture

__all__ = ["PhotoClassifier"]


class PhotoClassifier(FittedClassifier):
    """The classifier behind :class:`deepemd.FewShotClassifier`, which documents its settings and attributes.

    It is not an estimator itself: so commands need not wait a second for the import of scikit-learn.
    """

    def __init__(
        self,
        backbone: "str | os.PathLike[str] | DeepEMD | nn.Module" = DEFAULT,
        *,
        regions: str | Regions | None = None,
        fast: bool = False,
        adapt: Adapt = "auto",
        temperature: float | None = None,
        unknown: float | None = None,
        unknown_label: Any = "unknown",
        coverage: float | None = None,
        threshold: float | None = None,
        unsure_label: Any = "unsure",
        cache: bool | str | os.PathLike[str] = True,
        batch_size: int = 8,
    ) -> None:
        self.backbone = backbone
        self.regions = regions
        self.fast = fast
        self.adapt = adapt
        self.temperature = temperature
        self.unknown = unknown
        self.unknown_label = unknown_label
        self.coverage = coverage
        self.threshold = threshold
        self.unsure_label = unsure_label
        self.cache = cache
        self.batch_size = batch_size

    def fit(self, X: "Iterable[Picture]", y: Iterable[Any]) -> Self:
        """Learn the classes from their photos.

        Args:
            X: (K,) images: paths, PIL images or arrays, of any sizes, in a list, an array, a column of pandas or a
                generator. They belong to their labels by position; an index of pandas plays no part.
            y: (K,) their labels, at least two different ones; a class may have any number of photos.

        Returns:
            The classifier itself.

        Raises:
            InputError: a photo cannot be read, the labels do not match the photos, there is only one class, or a
                setting is out of range.
        """
        errors = self.fit_readable(X, y, stop=True)
        assert not any(errors)
        self._warn_if_nothing_is_unknown()
        return self

    def fit_readable(
        self, X: "Iterable[Picture]", y: Iterable[Any], *, stop: bool = False, progress: str = ""
    ) -> list[InputError | None]:
        """Learn the classes from the photos that can be read; leave out the others.

        Args:
            X, y: as for :meth:`fit`.
            stop: raise the error of the first photo that cannot be read.
            progress: what is shown beside the number of photos; by default no progress is shown.

        Returns:
            (K,) for each photo None, or the reason why it was left out.

        Raises:
            InputError: as for :meth:`fit`, or no photo of a class can be read.
        """
        images = as_images(X)
        labels = check_labels(images, y)
        classes = np.unique(labels)
        if len(classes) < 2:
            raise InputError(f"y holds {len(classes)} class ({classes.tolist()}): pass photos of at least two classes")
        self._start()
        return self._add(images, labels, classes, stop=stop, progress=progress)

    def partial_fit(
        self,
        X: "Iterable[Picture]",
        y: Iterable[Any],
        classes: Iterable[Any] | None = None,
    ) -> Self:
        """Add photos of known or new classes; the other classes do not change.

        The temperature and the threshold are fitted again, which is fast.

        Args:
            X, y: as for :meth:`fit`.
            classes: all labels that will be added, as in scikit-learn; not needed here.

        Raises:
            InputError: as for :meth:`fit`.
        """
        images = as_images(X)
        labels = check_labels(images, y)
        if classes is not None and not set(labels.tolist()) <= set(as_labels(classes, "classes").tolist()):
            raise InputError("y holds labels that are not in classes: list all of them, or leave classes out")
        if not hasattr(self, "support_"):
            self._start()
        known = self.classes_ if self.support_ else labels[:0]
        if len(known) and isinstance(known.tolist()[0], str) != isinstance(labels.tolist()[0], str):
            raise InputError(
                f"y holds {labels.tolist()[0]!r}, but the classes so far are {known.tolist()}: use one type"
            )
        new = [label for label in np.unique(labels).tolist() if label not in set(known.tolist())]
        classes_ = np.concatenate((known, np.asarray(new, dtype=labels.dtype))) if new else known
        self._add(images, labels, classes_, stop=True)
        self._warn_if_nothing_is_unknown()
        return self

    def forget(self, label: Any) -> Self:
        """Remove a class and its photos; the other classes do not change.

        Raises:
            InputError: the label is not a class, or it is the only class left.
        """
        self._check_fitted()
        classes = self.classes_.tolist()
        if label not in classes or len(classes) == 1:
            raise InputError(
                f"label is {label!r}: choose one of {', '.join(map(str, classes))}; at least one class must remain"
            )
        place = classes.index(label)
        self.support_ = self.support_.without(place)
        self.classes_ = np.delete(self.classes_, place)
        self.calibrate()
        return self

    def fit_folder(self, path: "str | os.PathLike[str]") -> Self:
        """Learn the classes from a folder that holds a folder of photos for each class.

        Files that are not photos are ignored. Warnings list the photos that cannot be read and are left out, and what
        else is odd about the folder: class folders without photos, names that print alike.

        Raises:
            InputError: the folder holds fewer than two class folders, no photo of a class can be read, or a setting is
                out of range.
        """
        photos = class_photos(Path(path))
        bad = [error for error in self.fit_readable(photos.files, photos.labels) if error is not None]
        listed = "\n".join(map(str, bad))
        left_out = [f"left out, as they cannot be read:\n{listed}"] if bad else []
        empty = [f"class folders without a photo: {', '.join(photos.empty)}"] if photos.empty else []
        for warning in (*left_out, *empty, *photos.warnings):
            warnings.warn(warning, stacklevel=2)
        self._warn_if_nothing_is_unknown()
        return self

    def save(self, folder: "str | os.PathLike[str]", *, force: bool = False) -> Path:
        """Write model.safetensors and config.json: the model, the classes, and small pictures of the photos.

        :meth:`deepemd.DeepEMD.load` reads the model alone from the same folder.

        Args:
            folder: the folder, which is made if it does not exist.
            force: replace a model that the folder holds already.

        Raises:
            InputError: the folder holds a model already, it cannot be written, or a label is neither text nor a number.
        """
        self._check_fitted()
        there = [str(Path(folder) / name) for name in (CONFIG_FILE, WEIGHTS_FILE) if (Path(folder) / name).exists()]
        if there and not force:
            raise InputError(
                f"{' and '.join(there)}: already there: choose another folder, or pass force=True to replace"
            )
        saved = SavedClassifier(
            *(self.model_, self.support_, self.classes_, self.head_.setting, self.trust_), settings_of(self)
        )
        return write_classifier(saved, Path(folder))

    @classmethod
    def load(
        cls,
        folder: "str | os.PathLike[str]",
        *,
        cache: bool | str | os.PathLike[str] = True,
        backbone: nn.Module | None = None,
    ) -> Self:
        """Read a folder that :meth:`save` wrote; nothing in it is executed.

        Args:
            folder: the folder that holds model.safetensors and config.json.
            cache: as for the classifier.
            backbone: your own encoder, if the classifier was saved with one; built as it was then.

        Raises:
            InputError: a file is missing, damaged or truncated, or the folder holds a model without classes.
        """
        saved = read_classifier(Path(folder), backbone=backbone)
        made = cls(Path(folder), **saved.options, cache=cache)
        try:
            check_settings(made)
            made._refuse_reserved(saved.classes)
        except InputError as error:
            raise InputError(f"{Path(folder) / CONFIG_FILE}: {error}; save the classifier again") from error
        made.model_, made.support_, made.classes_ = saved.model, saved.support, saved.classes
        made.head_, made.trust_ = Head.fit(saved.model, saved.support, saved.setting), saved.trust
        return made

    def _start(self) -> None:
        """Check the settings, load the model, and forget all classes."""
        check_settings(self)
        regions = parse_regions(self.regions) if isinstance(self.regions, str) else self.regions
        self.model_ = pretrained(self.backbone, regions=regions, fast=self.fast)
        self.support_ = None

    def _add(
        self,
        images: "Sequence[Picture]",
        labels: NDArray[Any],
        classes: NDArray[Any],
        *,
        stop: bool,
        progress: str = "",
    ) -> list[InputError | None]:
        """Embed photos and add them to their classes; if an error is raised, nothing changes."""
        self._refuse_reserved(classes)
        place = {label: k for k, label in enumerate(classes.tolist())}
        ids = [place[label] for label in labels.tolist()]
        support, errors = add_photos(
            self.support_, self._embedder(), images, ids, list(place), stop=stop, progress=progress
        )
        order = np.argsort(classes, kind="stable")
        self.support_, self.classes_ = support.sorted(order), classes[order]
        self.calibrate()
        return errors

    def calibrate(self) -> None:
        """Choose how images are compared, and fit the temperature and thresholds, by leaving photos out in turn."""
        found = adapted(self.model_, self.support_, self.adapt)
        self.head_ = Head.fit(self.model_, self.support_, found.setting)
        labels = self.support_.labels[found.which]
        self.trust_ = Trust(found.which, found.similarity, labels, found.setting.way, found.reason)

    def _refuse_reserved(self, classes: NDArray[Any]) -> None:
        """Raise an error if a class has the label of unknown or unsure images, and there are such images."""
        if self.unknown is not None:
            refuse_class_named(self.unknown_label, classes.tolist(), "unknown")
        if self.threshold is not None:
            refuse_class_named(self.unsure_label, classes.tolist(), "unsure")

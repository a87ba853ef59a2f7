"""Photos in, labels out: fit, predict, explain, save and load."""

import math
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from operator import length_hint
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from deepemd.checks import real_number
from deepemd.classifier.calibration import fit_temperature, refuse_class_named, unknown_notice, unknown_threshold
from deepemd.classifier.learning import add_photos, check_labels
from deepemd.classifier.prediction import Explanation, Prediction, Rule
from deepemd.classifier.saving import SavedClassifier, read_classifier, write_classifier
from deepemd.classifier.support import Example
from deepemd.data.decoding import decode
from deepemd.data.inputs import as_images, as_labels, iterate_images
from deepemd.data.photos import class_photos
from deepemd.embedding.cache import default_cache
from deepemd.embedding.stream import Embedded, Embedder
from deepemd.errors import InputError
from deepemd.explain.matches import Side, match_nodes
from deepemd.model import DeepEMD
from deepemd.model.folder import CONFIG_FILE, WEIGHTS_FILE
from deepemd.model.pretrained import DEFAULT, pretrained
from deepemd.nodes import Regions, parse_regions
from deepemd.progress import track

if TYPE_CHECKING:
    from deepemd.data.decoding import Picture

__all__ = ["PhotoClassifier"]

_BATCH = 64  # images matched at a time
_UNFAMILIAR = 0.05  # share of known photos that may count as unfamiliar if `unknown` is not set


class PhotoClassifier:
    """The classifier behind :class:`deepemd.FewShotClassifier`, which documents its settings and attributes.

    It is not an estimator itself: so commands need not wait a second for the import of scikit-learn.
    """

    classes_: NDArray[Any]
    support_: Any  # a Support, once there are photos
    model_: DeepEMD
    temperature_: float
    threshold_: float

    def __init__(
        self,
        backbone: "str | os.PathLike[str] | DeepEMD | nn.Module" = DEFAULT,
        *,
        regions: str | Regions | None = None,
        temperature: float | None = None,
        unknown: float | None = None,
        unknown_label: Any = "unknown",
        cache: bool | str | os.PathLike[str] = True,
        batch_size: int = 8,
    ) -> None:
        self.backbone = backbone
        self.regions = regions
        self.temperature = temperature
        self.unknown = unknown
        self.unknown_label = unknown_label
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
            progress: the text next to a progress bar on a terminal; no bar by default.

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

    def predict(self, X: "Iterable[Picture]") -> NDArray[Any]:
        """Return the label of each image, (Q,).

        Raises:
            InputError: an image cannot be read, which :meth:`stream` only reports; or X is one image instead of a list.
        """
        rows = list(self._strict(X))
        return np.asarray([row.label for row in rows], dtype=self._label_type() if rows else self.classes_.dtype)

    def predict_proba(self, X: "Iterable[Picture]") -> NDArray[np.float64]:
        """Return the probability of each class, (Q, M), in the order of ``classes_``."""
        return np.array([row.probabilities for row in self._strict(X)]).reshape(-1, len(self.classes_))

    def stream(self, images: "Iterable[Picture]", *, progress: str = "") -> Iterator[Prediction]:
        """Classify any number of images, one after the other, in bounded memory.

        Args:
            images: paths, PIL images or arrays, as for :meth:`fit`. A generator's are fetched as they are needed.
            progress: the text next to a progress bar on a terminal; no bar by default.

        Returns:
            An iterator over the predictions, in the order of the images. An image that cannot be read has an ``error``,
            and the rest follow.

        Raises:
            InputError: `images` is one image instead of a list.
        """
        self._refuse_one_class()
        self._warn_if_nothing_is_unknown()
        return (prediction for _, prediction in self.stream_embedded(iterate_images(images), progress=progress))

    def stream_embedded(
        self, images: "Iterable[Picture]", *, side: float = 0, progress: str = ""
    ) -> Iterator[tuple[Embedded, Prediction]]:
        """Classify images as :meth:`stream` does, and also yield their nodes, which :meth:`explain_embedded` needs.

        Args:
            images, progress: as for :meth:`stream`.
            side: the longest side, in pixels, of the thumbnail that comes with each image; 0 for none, ``math.inf``
                for the picture itself.
        """
        self._refuse_one_class()
        total = length_hint(images)  # 0 for a generator
        rows = self._embedder().stream(iterate_images(images), side=(lambda _: side) if side else None)
        waiting: list[Embedded] = []
        for row in track(rows, progress, total) if progress else rows:
            waiting.append(row)
            if len(waiting) == _BATCH:
                yield from self._predict(waiting)
                waiting = []
        yield from self._predict(waiting)

    def explain(self, image: "Picture", *, label: Any = None) -> Explanation:
        """Explain a prediction: match the image with the most similar photo of a class.

        Args:
            image: a path, a PIL image or an array.
            label: the class; by default the most similar one.

        Raises:
            InputError: the image cannot be read, or the label is not a class.
        """
        self._check_fitted()
        if isinstance(image, list | tuple):
            raise InputError(f"image is a {type(image).__name__}: pass one image; predict takes a list of them")
        ((embedded, prediction),) = self.stream_embedded([image], side=math.inf)
        return self.explain_embedded(embedded, prediction, label=label)

    def explain_embedded(self, embedded: Embedded, prediction: Prediction, *, label: Any = None) -> Explanation:
        """Explain the prediction for an image that :meth:`stream_embedded` has yielded with its picture."""
        if embedded.nodes is None or not (embedded.picture or embedded.thumbnail):
            raise embedded.error or InputError("embedded has no picture: pass side= to stream_embedded")
        place = int(prediction.probabilities.argmax())
        if label is not None:
            if label not in self.classes_.tolist():
                raise InputError(f"label is {label!r}: choose one of {', '.join(map(str, self.classes_))}")
            place = self.classes_.tolist().index(label)
        best = self.support_.nearest(self.model_, embedded.nodes, place)
        picture = embedded.picture or decode(embedded.thumbnail, "image")
        query = Side(picture, embedded.size, embedded.nodes, embedded.key)
        found = match_nodes(self.model_, query, self.support_.side(best))
        return Explanation(prediction, found, self.support_.examples[best].name)

    def leave_one_out(self) -> tuple[list[Example], NDArray[np.int64], NDArray[np.float64]]:
        """Classify each photo of the support set by all the others, to estimate how well new photos are classified.

        Returns:
            The P photos of classes with at least two photos, (P,) the index of each photo's class in ``classes_``, and
            (P, M) the probabilities of the classes.
        """
        self._check_fitted()
        which, similarity = self.support_.leave_one_out(self.model_)
        examples = [self.support_.examples[k] for k in which.tolist()]
        proba = (self.temperature_ * similarity).softmax(1).numpy()
        return examples, self.support_.labels[which].numpy(), proba

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
            *(self.model_, self.support_, self.classes_, self.temperature_, self.unknown, self.unknown_label)
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
        made = cls(Path(folder), unknown=saved.unknown, unknown_label=saved.unknown_label, cache=cache)
        made._refuse_class_named_unknown(saved.classes)
        order = np.argsort(saved.classes, kind="stable")  # classifiers of older versions are not sorted
        made.model_, made.support_, made.classes_ = saved.model, saved.support.sorted(order), saved.classes[order]
        made.calibrate()
        made.temperature_ = saved.temperature
        return made

    def _check_fitted(self) -> None:
        if getattr(self, "support_", None) is None:  # also after a fit that has failed
            from sklearn.exceptions import NotFittedError

            raise NotFittedError(f"this {type(self).__name__} is not fitted yet: call fit before this method")

    def _start(self) -> None:
        """Check the settings, load the model, and forget all classes."""
        regions = parse_regions(self.regions) if isinstance(self.regions, str) else self.regions
        if self.temperature is not None:
            real_number("temperature", self.temperature, 0, above=True, hint="None fits it")
        if self.unknown is not None:
            unknown_threshold(torch.zeros(0), self.unknown)
        self.model_ = pretrained(self.backbone, regions=regions)
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
        self._refuse_class_named_unknown(classes)
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
        """Fit the temperature and the threshold to the support set by leave-one-out."""
        which, similarity = self.support_.leave_one_out(self.model_)
        labels = self.support_.labels[which]
        self.temperature_ = float(self.temperature or fit_temperature(similarity, labels))
        own = similarity.gather(1, labels[:, None])[:, 0]
        self.threshold_ = unknown_threshold(own, _UNFAMILIAR if self.unknown is None else self.unknown)

    @property
    def unknown_notice(self) -> str:
        """Why no image can be labelled unknown although `unknown` is set; empty if there are enough photos."""
        self._check_fitted()
        if self.unknown is None or self.threshold_ > -np.inf:
            return ""
        return unknown_notice(self.unknown, self.support_.tested, self.unknown_label)

    def _warn_if_nothing_is_unknown(self) -> None:
        if self.unknown_notice:
            warnings.warn(self.unknown_notice, stacklevel=3)

    def _refuse_class_named_unknown(self, classes: NDArray[Any]) -> None:
        if self.unknown is not None:
            refuse_class_named(self.unknown_label, classes.tolist())

    def _refuse_one_class(self) -> None:
        """Raise an error if there is only one class, after `partial_fit` or `forget`."""
        self._check_fitted()
        if len(self.classes_) < 2:
            raise InputError(
                f"the only class is {self.classes_.tolist()[0]!r}: at least two are needed; add one with partial_fit"
            )

    def _embedder(self) -> Embedder:
        """Return the embedder of this classifier; make a new one only if the model or the settings have changed."""
        cache = default_cache() if self.cache is True else Path(os.fspath(self.cache)) if self.cache else None
        made: Embedder | None = getattr(self, "_embedder_", None)
        if made is None or made.model is not self.model_ or (made.cache, made.batch_size) != (cache, self.batch_size):
            self._embedder_ = made = Embedder(self.model_, cache, self.batch_size)
        return made

    def _strict(self, images: "Iterable[Picture]") -> Iterator[Prediction]:
        """Classify images; raise the error of the first one that cannot be read."""
        for prediction in self.stream(images):
            if prediction.error is not None:
                raise prediction.error
            yield prediction

    def _predict(self, rows: Sequence[Embedded]) -> Iterator[tuple[Embedded, Prediction]]:
        """Match the images that could be read with the classes."""
        rule = Rule(
            self.classes_.tolist(), self.temperature_, self.threshold_, self.unknown is not None, self.unknown_label
        )
        good = [row.nodes for row in rows if row.nodes is not None]
        similarities = iter(self.support_.similarities(self.model_, torch.stack(good)) if good else ())  # (M,) each
        for row in rows:
            yield row, rule.predict(next(similarities)) if row.error is None else rule.refuse(row.error)

    def _label_type(self) -> Any:
        """Return the dtype of predicted labels: that of the classes, unless the label for unknown does not fit it."""
        if self.unknown is None or self.classes_.dtype.kind == np.asarray(self.unknown_label).dtype.kind:
            return None if self.classes_.dtype.kind in "US" else self.classes_.dtype
        return object

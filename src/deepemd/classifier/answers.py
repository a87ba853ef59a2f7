"""What a fitted classifier says of images: labels, probabilities, prediction sets, embeddings and explanations."""

import math
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from operator import length_hint
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from deepemd.classifier.adaptation import Head, Setting
from deepemd.classifier.calibration import coverage_notice, unknown_notice
from deepemd.classifier.prediction import Explanation, Prediction, Rule
from deepemd.classifier.settings import share
from deepemd.classifier.support import Example
from deepemd.classifier.trust import Trust
from deepemd.data.decoding import decode
from deepemd.data.inputs import iterate_images
from deepemd.embedding.cache import default_cache
from deepemd.embedding.stream import Embedded, Embedder
from deepemd.errors import InputError
from deepemd.explain.matches import Match, Side, match_nodes
from deepemd.model import DeepEMD
from deepemd.progress import track

if TYPE_CHECKING:
    from deepemd.data.decoding import Picture

__all__ = ["FittedClassifier"]

_BATCH = 64  # images matched at a time


class FittedClassifier:
    """The part of a classifier that answers; :class:`deepemd.classifier.classifier.PhotoClassifier` fits it.

    Attributes:
        classes_: (M,) the labels, sorted.
        support_: the photos of the classes; None before there are any.
        model_: the model that encodes photos.
        head_: how images are compared with the classes.
        trust_: how the photos were classified by the others.
    """

    classes_: NDArray[Any]
    support_: Any  # a Support, once there are photos
    model_: DeepEMD
    head_: Head
    trust_: Trust
    temperature: float | None
    unknown: float | None
    unknown_label: Any
    coverage: float | None
    threshold: float | None
    unsure_label: Any
    cache: bool | str | os.PathLike[str]
    batch_size: int

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

    def predict_set(self, X: "Iterable[Picture]", coverage: float = 0.95) -> list[tuple[Any, ...]]:
        """Return for each image the classes among which its own is, with a stated probability.

        A set holds the classes of at least a certain probability, so it is small for clear images and large for
        doubtful ones. Of new images of the same kind as the photos of the classes, at least the share `coverage` has
        its own class in its set, on average over draws of photos. With n photos in classes of two or more, coverages
        above n / (n + 1) are out of reach: the sets then hold all classes, and a warning says so.

        Args:
            X: as for :meth:`predict`.
            coverage: between 0 and 1. The larger, the larger the sets.

        Returns:
            (Q,) tuples of labels, the most probable first; at least one in each.

        Raises:
            InputError: as for :meth:`predict`, or the coverage is not between 0 and 1.

        Source: Sadinle, Lei, Wasserman: Least ambiguous set-valued classifiers with bounded error levels (2019), on
            photos that are left out in turn.
        """
        coverage = share("coverage", coverage)
        self._refuse_one_class()
        self._warn_if_sets_hold_all(coverage)
        rule = self._rule(coverage)
        return [rule.predict(one).labels for nodes in self._embedded(X) for one in self.head_.similarities(nodes)]

    def decision_function(self, X: "Iterable[Picture]") -> NDArray[np.float64]:
        """Return the logits of each image, as scikit-learn's tools expect them.

        Args:
            X: as for :meth:`predict`.

        Returns:
            (Q, M) temperature * similarity, in the order of ``classes_``; for two classes (Q,), the second logit minus
            the first.

        Raises:
            InputError: as for :meth:`predict`.
        """
        self._refuse_one_class()
        found = [self.head_.similarities(nodes).numpy() for nodes in self._embedded(X)]
        logits = self.temperature_ * np.concatenate([*found, np.zeros((0, len(self.classes_)))])
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def transform(self, X: "Iterable[Picture]") -> NDArray[np.float32]:
        """Return one embedding of each image, for other tools: the mean of its nodes, adapted, of length 1.

        Nodes are whitened by the photos of the classes, whichever way decides, unless ``adapt`` is "none".

        Args:
            X: as for :meth:`predict`.

        Returns:
            (Q, C) float32; C is the encoder's number of channels, and one more if nodes are whitened.

        Raises:
            InputError: as for :meth:`predict`.
        """
        self._check_fitted()
        head = self.head_
        if head.setting.way == "ridge":
            head = Head.fit(self.model_, self.support_, Setting("whiten", head.setting.smallest))
        means = [head.prepare(nodes).mean(1) for nodes in self._embedded(X)]
        if not means:
            means = [head.classes.mean(1)[:0]]
        return F.normalize(torch.cat(means).float(), dim=-1).numpy()

    def _embedded(self, X: "Iterable[Picture]") -> Iterator[Tensor]:
        """Embed images, some at a time: (Q, N, C); raise the error of the first one that cannot be read."""
        self._check_fitted()
        waiting: list[Tensor] = []
        for embedded in self._embedder().stream(iterate_images(X)):
            if embedded.nodes is None:
                raise embedded.error or InputError("an image cannot be read")
            waiting.append(embedded.nodes)
            if len(waiting) == _BATCH:
                yield torch.stack(waiting)
                waiting = []
        if waiting:
            yield torch.stack(waiting)

    def stream(self, images: "Iterable[Picture]", *, progress: str = "") -> Iterator[Prediction]:
        """Classify any number of images, one after the other, in bounded memory.

        Args:
            images: paths, PIL images or arrays, as for :meth:`fit`. A generator's are fetched as they are needed.
            progress: what is shown beside the number of photos; by default no progress is shown.

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
        for row in track(rows, progress, total, "photos") if progress else rows:
            waiting.append(row)
            if len(waiting) == _BATCH:
                yield from self.predict_embedded(waiting)
                waiting = []
        yield from self.predict_embedded(waiting)

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
        picture = embedded.picture or decode(embedded.thumbnail, "image")
        found, example = self.match_class(Side(picture, embedded.size, embedded.nodes, embedded.key), place)
        evidence = self.head_.evidence(embedded.nodes)
        if evidence is not None:
            found = replace(found, evidence=evidence[:, place])
        return Explanation(prediction, found, example, evidence)

    def match_class(self, query: Side, place: int) -> tuple[Match, str]:
        """Match an image, by its nodes as this classifier compares them, with the most similar photo of a class.

        Args:
            query: the image, with its nodes as the model made them.
            place: the place of the class in ``classes_``.

        Returns:
            The match, and the name of the photo.
        """
        photos, support = self._compared_nodes(), self.support_
        nodes = self.head_.prepare(query.nodes[None])[0]
        among = (support.labels == place).nonzero()[:, 0]
        best = int(among[self.head_.nearest(nodes, photos[among])])
        sides = query._replace(nodes=nodes), support.side(best)._replace(nodes=photos[best])
        return match_nodes(self.model_, *sides), support.examples[best].name

    def _compared_nodes(self) -> Tensor:
        """Return the nodes of all examples as they are compared; they are computed once for many explanations."""
        made: tuple[Head, Tensor] | None = getattr(self, "_compared_", None)
        if made is None or made[0] is not self.head_:
            self._compared_ = made = (self.head_, self.head_.prepare(self.support_.nodes))
        return made[1]

    def leave_one_out(self) -> tuple[list[Example], NDArray[np.int64], NDArray[np.float64]]:
        """Classify each photo of the support set by the others, to estimate how well new photos are classified.

        Photos are left out in up to ten groups, each of which holds at most a tenth of a large class. Photos of one
        class that look like one series are left out together.

        Returns:
            The P photos of classes with at least two photos, (P,) the index of each photo's class in ``classes_``, and
            (P, M) the probabilities of the classes.
        """
        self._check_fitted()
        which = self.trust_.which
        examples = [self.support_.examples[k] for k in which.tolist()]
        proba = (self.temperature_ * self.trust_.similarity).softmax(1).numpy()
        return examples, self.support_.labels[which].numpy(), proba

    def _check_fitted(self) -> None:
        if getattr(self, "support_", None) is None:  # also after a fit that has failed
            from sklearn.exceptions import NotFittedError

            raise NotFittedError(f"this {type(self).__name__} is not fitted yet: call fit before this method")

    @property
    def temperature_(self) -> float:
        """The temperature T of the probabilities, softmax(T * similarity)."""
        return float(self.temperature or self.trust_.temperature)

    @property
    def adaptation_(self) -> str:
        """How images are compared with the classes, and why it was chosen: a sentence."""
        return self.trust_.reason

    @property
    def familiar_threshold_(self) -> float:
        """The similarity below which an image is not familiar; minus infinity where there are too few photos."""
        return self.trust_.familiar_from(self.unknown)

    @property
    def unknown_notice(self) -> str:
        """Why no image can be labelled unknown although `unknown` is set; empty if there are enough photos."""
        self._check_fitted()
        if self.unknown is None or self.familiar_threshold_ > -np.inf:
            return ""
        return unknown_notice(self.unknown, len(self.trust_.which), self.unknown_label)

    @property
    def coverage_notice(self) -> str:
        """Why prediction sets hold all classes although `coverage` is set; empty if there are enough photos."""
        return "" if self.coverage is None else coverage_notice(self.coverage, len(self.trust_.which))

    def _warn_if_nothing_is_unknown(self) -> None:
        if self.unknown_notice:
            warnings.warn(self.unknown_notice, stacklevel=3)
        if self.coverage is not None:
            self._warn_if_sets_hold_all(self.coverage, stacklevel=4)

    def _warn_if_sets_hold_all(self, coverage: float, stacklevel: int = 3) -> None:
        notice = coverage_notice(coverage, len(self.trust_.which))
        if notice:
            warnings.warn(notice, stacklevel=stacklevel)

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

    def predict_embedded(self, rows: Sequence[Embedded]) -> Iterator[tuple[Embedded, Prediction]]:
        """Classify images that are embedded already, such as those that :meth:`stream_embedded` has yielded."""
        rule = self._rule(self.coverage)
        good = [row.nodes for row in rows if row.nodes is not None]
        similarities = iter(self.head_.similarities(torch.stack(good)) if good else ())  # (M,) each
        for row in rows:
            yield row, rule.predict(next(similarities)) if row.error is None else rule.refuse(row.error)

    def _rule(self, coverage: float | None) -> Rule:
        """Return the rule for predictions, with sets of a coverage."""
        return Rule(
            classes=self.classes_.tolist(),
            temperature=self.temperature_,
            familiar_from=self.familiar_threshold_,
            unknown_label=None if self.unknown is None else (self.unknown_label,),
            unsure_label=None if self.threshold is None else (self.unsure_label,),
            unsure_below=self.threshold or 0.0,
            set_from=None if coverage is None else self.trust_.set_from(coverage, self.temperature_),
        )

    def _label_type(self) -> Any:
        """Return the dtype of predicted labels: that of the classes, unless another label does not fit it."""
        others = [self.unknown_label] * (self.unknown is not None) + [self.unsure_label] * (self.threshold is not None)
        kind = self.classes_.dtype.kind
        if all(np.asarray(other).dtype.kind == kind for other in others):
            return None if self.classes_.dtype.kind in "US" else self.classes_.dtype
        return object

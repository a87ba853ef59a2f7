"""DeepEMD as a scikit-learn estimator."""

from typing import Any

from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin

from deepemd.classifier.classifier import PhotoClassifier

__all__ = ["FewShotClassifier"]


class FewShotClassifier(ClassifierMixin, TransformerMixin, BaseEstimator, PhotoClassifier):
    """Classify photos from a few examples of each class, part by part, with DeepEMD.

    It is a scikit-learn estimator whose samples are images instead of rows of numbers: paths, PIL images or arrays.

    Args:
        backbone: the encoder: "efficientnet-lite0", which is installed and needs no download; a folder or a
            name on the hub such as "facebook/dinov2-small"; a :class:`deepemd.DeepEMD`; or a module that returns maps.
            See :func:`deepemd.model.pretrained.pretrained`.
        regions: how an image becomes nodes, such as "grid:3,2" or :class:`deepemd.Grid`; by default the model's own.
        fast: read photos at 224 pixels alone, in a quarter of the time; see
            :func:`deepemd.model.pretrained.pretrained`.
        adapt: how nodes are adapted to the photos of the classes: "whiten", "ridge" or "none", see
            :mod:`deepemd.classifier.adaptation`. "auto" takes what suits the number of photos, or what is clearly
            better when they are left out in turn; ``adaptation_`` says what, and why.
        temperature: T of the probabilities, softmax(T * similarity). By default it is fitted to photos that
            are left out in turn.
        unknown: share of photos of the known classes that may be labelled `unknown_label` by mistake, such as 0.05;
            images that resemble no class then get this label. By default every image gets a class. It takes 1 / unknown
            - 1 photos (19 for 0.05) in classes of two or more; a warning says if there are fewer.
        unknown_label: the label of such images; no class may have it. If the labels are numbers, pass a number.
        coverage: share of images whose own class is in their prediction set, such as 0.95; predictions then have a set,
            ``labels``. See :meth:`predict_set`.
        threshold: probability below which an image is labelled `unsure_label`, such as 0.8. It works with few photos,
            but says nothing about images of other things, which may look certain: see `unknown`.
        unsure_label: the label of such images; no class may have it.
        cache: folder of the cached embeddings; True for $DEEPEMD_CACHE, else ~/.cache/deepemd/embeddings; False for no
            cache. Only files are cached, never arrays and images in memory.
        batch_size: number of images encoded together; lower it if memory is short.

    Attributes:
        classes_: (M,) the labels, sorted; a label that `partial_fit` adds takes its place among them.
        temperature_: the T in use.
        adaptation_: how images are compared with the classes, and why.
        familiar_threshold_: similarity below which an image is not familiar; minus infinity with too few photos.
        model_: the DeepEMD model.
        support_: the support set: node sets and example photos of the classes.

    >>> import numpy as np
    >>> from deepemd import FewShotClassifier
    >>> red, blue = (np.full((64, 64, 3), colour, np.uint8) for colour in ((200, 30, 30), (30, 30, 200)))
    >>> classifier = FewShotClassifier().fit([red, blue], ["red", "blue"])
    >>> classifier.predict([red]).tolist()
    ['red']

    Source: Zhang et al., DeepEMD (CVPR 2020; arXiv 2003.06777); a class is the mean of its shots' node sets.
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False  # images, not rows of numbers
        tags.input_tags.three_d_array = True
        tags.no_validation = True
        tags.transformer_tags.preserves_dtype = []  # images of any dtype become float32 embeddings
        return tags

"""DeepEMD with the interface of an EasyFSL classifier (sicara/easy-few-shot-learning); that package is not needed.

EasyFSL's evaluation and training loops call ``process_support_set`` and then the module itself.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deepemd.data.inputs import as_labels
from deepemd.errors import InputError
from deepemd.evaluation.methods import SFC
from deepemd.matching import class_means, emd_logits
from deepemd.model import DeepEMD

__all__ = ["DeepEMDClassifier"]

_MOST = 16.0  # no images that were normalised exceed it; those from 0 to 255 do


class DeepEMDClassifier(nn.Module):
    """Classifies the queries of one task after another, like the methods of EasyFSL.

    Args:
        model: the model that embeds and matches.
        mean, std: mean and standard deviation of the channels by which the data set has normalised its images. This is
            undone, because the model has its own normalisation. EasyFSL's data sets use ImageNet's,
            (0.485, 0.456, 0.406) and (0.229, 0.224, 0.225). By default images are in 0..1, or uint8.
        sfc: fit a node set to the shots of each class by the structured fully connected layer. By default a class is
            the mean of its shots' node sets, through which gradients flow.
        use_softmax: return probabilities instead of logits.

    >>> from deepemd import conv4
    >>> classifier = DeepEMDClassifier(DeepEMD(conv4())).eval()
    >>> classifier.process_support_set(torch.rand(4, 3, 92, 92), torch.tensor([1, 0, 1, 2]))
    >>> classifier(torch.rand(2, 3, 92, 92)).shape
    torch.Size([2, 3])

    With EasyFSL: ``easyfsl.utils.evaluate(DeepEMDClassifier(DeepEMD.load("runs/meta/best")), loader, device="cpu")``.
    The loader's images go to the model's ``embed``; for FCN, scale them to ``model.resize`` without cutting.

    Source: ``easyfsl/methods/few_shot_classifier.py`` of EasyFSL 1.5.0, whose interface this is.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        model: DeepEMD,
        *,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        sfc: SFC | None = None,
        use_softmax: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.sfc = sfc
        self.use_softmax = use_softmax
        self.register_buffer("shift", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.prototypes: Tensor | None = None  # (n_way, N, C)

    def process_support_set(self, support_images: Tensor, support_labels: Tensor) -> None:
        """Embed the shots of a task and make a node set of each class.

        Args:
            support_images: (n_support, 3, H, W), in any order: a tensor, an array, or a list, generator or column of
                tensors (3, H, W).
            support_labels: (n_support,) whole numbers from 0 to n_way - 1, each class at least once: a tensor, an
                array, a list, or a column of pandas, whose index plays no part.

        Raises:
            ValueError: the labels have another number or range, a class has no shot, or `support_images` is one image.
        """
        nodes = self.compute_features(support_images)  # (n_support, N, C)
        labels = as_labels(support_labels, "support_labels")
        if labels.dtype.kind not in "iub" and len(labels):
            raise InputError(f"support_labels are {labels.dtype}: pass whole numbers from 0 to n_way - 1")
        support_labels = torch.as_tensor(labels.astype("int64"), device=nodes.device)
        n_way = int(support_labels.max()) + 1 if len(support_labels) else 0
        there = set(support_labels.tolist())
        if empty := [k for k in range(min(n_way, len(there) + 1)) if k not in there]:
            raise InputError(f"every class needs a shot: class {empty[0]} has none, of those from 0 to {n_way - 1}")
        if self.sfc is None:
            self.prototypes = class_means(nodes, support_labels, n_way)
        else:
            self.prototypes = self.sfc.fit(self.model, nodes, support_labels, n_way)

    def forward(self, query_images: Tensor) -> Tensor:
        """Return the scores (n_query, n_way) of queries (n_query, 3, H, W) for the classes of the support set."""
        if self.prototypes is None:
            raise InputError("there is no support set yet: call process_support_set before the queries")
        model, nodes = self.model, self.compute_features(query_images)  # (n_query, N, C)
        logits = emd_logits(nodes, self.prototypes, temperature=model.temperature, **model.head)
        return logits.softmax(-1) if self.use_softmax else logits

    def compute_features(self, images: Tensor) -> Tensor:
        """Return the node sets (n_images, N, C) of images (n_images, 3, H, W).

        Raises:
            ValueError: `images` is one image, or the images differ in size.
        """
        images = _batch(images).to(self.shift.device)
        if images.dtype != torch.uint8:
            images = (images * self.scale + self.shift).to(self.shift.dtype)
        return self.model.embed(images)

    @staticmethod
    def is_transductive() -> bool:
        """Return False: each query is classified on its own."""
        return False


def _batch(images: Any) -> Tensor:
    """Return images (n, 3, H, W) as a tensor: uint8, or floats."""
    if not isinstance(images, Tensor | np.ndarray) or images.dtype == object:
        images = _stack(images)
    batch = torch.as_tensor(images)
    if batch.ndim != 4 or batch.shape[1] != 3:
        raise InputError(f"images have the shape {tuple(batch.shape)}: pass (n, 3, H, W); of one image, image[None]")
    if batch.dtype == torch.uint8 or not batch.numel():
        return batch
    low, high = (float(value) for value in batch.detach().aminmax())
    if batch.is_floating_point():
        if high > _MOST:
            raise InputError(f"images are {batch.dtype} up to {high:g}: pass uint8, or divide them by 255")
        return batch
    if low < 0 or high > 255:
        raise InputError(f"images are {batch.dtype} from {low:g} to {high:g}: pass uint8, or floats from 0 to 1")
    return batch.byte()


def _stack(images: Any) -> Tensor:
    """Stack a list, a generator or a column of images (3, H, W)."""
    try:
        tensors = [torch.as_tensor(image) for image in images]
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"images are of type {type(images).__name__}, {error}: pass a tensor (n, 3, H, W), or a list of (3, H, W)"
        ) from error
    if len({tensor.shape for tensor in tensors}) != 1:
        shapes = ", ".join(sorted({str(tuple(tensor.shape)) for tensor in tensors}))
        raise InputError(f"images have the shapes {shapes or '()'}: pass images of one size, (n, 3, H, W)")
    return torch.stack(tensors)

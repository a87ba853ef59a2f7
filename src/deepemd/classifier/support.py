"""The support set of a classifier: the mean of each class's node sets, and example photos."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepemd.checks import whole_number, whole_numbers
from deepemd.data.decoding import decode
from deepemd.errors import InputError
from deepemd.explain.matches import Side

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Example", "Support"]

MAX_EXAMPLES = 100  # photos of a class that are stored; the mean is over all photos
EXAMPLE_SIDE = 320  # pixels, the longest side of their pictures


@dataclass(frozen=True)
class Example:
    """A photo of the support set.

    Attributes:
        name: its file, or its position.
        key: identifies the photo by its content; Sampling draws its patches from it.
        picture: the photo as a small JPEG.
        size: (height, width) of the photo itself, in pixels.
    """

    name: str
    key: int
    picture: bytes = field(repr=False)
    size: tuple[int, int]

    def image(self) -> "Image":
        """Decode the small picture."""
        return decode(self.picture, self.name)


@dataclass(frozen=True)
class Support:
    """Node sets of M classes and of K example photos; immutable: adding or removing photos returns a new one.

    Attributes:
        total: (M, N, C) float64, the sum of the node sets of all photos of a class.
        count: (M,) int64, the number of these photos.
        nodes: (K, N, C) float16 or float32, the node sets of the example photos, at most 100 a class.
        labels: (K,) int64, their classes.
        examples: the example photos.
    """

    total: Tensor = field(repr=False)
    count: Tensor
    nodes: Tensor = field(repr=False)
    labels: Tensor
    examples: tuple[Example, ...] = field(repr=False)

    @classmethod
    def empty(cls, n: int, channels: int) -> Self:
        """Return an empty support set."""
        total, nodes = torch.zeros(0, n, channels, dtype=torch.float64), torch.zeros(0, n, channels)
        return cls(total, torch.zeros(0, dtype=torch.int64), nodes, torch.zeros(0, dtype=torch.int64), ())

    def added(
        self, nodes: Sequence[Tensor], labels: Sequence[int], examples: "Sequence[Example | None]", *, classes: int
    ) -> Self:
        """Return a support set with more photos.

        Args:
            nodes: (N, C) of each photo.
            labels: the class of each.
            examples: the photos to store as examples; None for the others.
            classes: the new number of classes, M.
        """
        fresh = classes - len(self.count)
        total = torch.cat((self.total, self.total.new_zeros(fresh, *self.total.shape[1:])))
        count = torch.cat((self.count, self.count.new_zeros(fresh)))
        places = torch.tensor(labels, dtype=torch.int64)
        total.index_add_(0, places, torch.stack(list(nodes)).double())
        count += places.bincount(minlength=classes)
        stored = [k for k, example in enumerate(examples) if example is not None]
        more = torch.stack([nodes[k] for k in stored]) if stored else self.nodes[:0]
        found = tuple(example for example in examples if example is not None)
        return replace(
            self,
            total=total,
            count=count,
            nodes=torch.cat((self.nodes, more)),
            labels=torch.cat((self.labels, places[stored])),
            examples=(*self.examples, *found),
        )

    def without(self, label: int) -> Self:
        """Return the support set without one class; the classes behind it move up."""
        classes, photos = torch.arange(len(self.count)) != label, self.labels != label
        labels = self.labels[photos]
        return replace(
            self,
            total=self.total[classes],
            count=self.count[classes],
            nodes=self.nodes[photos],
            labels=labels - (labels > label).long(),
            examples=tuple(self.examples[k] for k in photos.nonzero()[:, 0].tolist()),
        )

    def without_example(self, k: int) -> Self:
        """Return the support set without example k, whose class has other photos."""
        kept = torch.arange(len(self.labels)) != k
        label = int(self.labels[k])
        total, count = self.total.clone(), self.count.clone()
        total[label] -= self.nodes[k].double()
        count[label] -= 1
        examples = (*self.examples[:k], *self.examples[k + 1 :])
        return replace(
            self, total=total, count=count, nodes=self.nodes[kept], labels=self.labels[kept], examples=examples
        )

    def sorted(self, order: NDArray[np.int64]) -> Self:
        """Return the support set with its classes in another order; class order[k] becomes class k."""
        places = torch.from_numpy(order)
        new = places.argsort()  # the new place of each class
        return replace(self, total=self.total[places], count=self.count[places], labels=new[self.labels])

    @property
    def prototypes(self) -> Tensor:
        """Return the mean node set of each class, (M, N, C) float64."""
        return self.total / self.count[:, None, None]

    def without_photos(self, which: Tensor) -> Tensor:
        """Return the mean node sets of the classes without some of the examples, which leave each class a photo."""
        labels = self.labels[which]
        total = self.total.index_add(0, labels, self.nodes[which].double(), alpha=-1)
        return total / (self.count - labels.bincount(minlength=len(self.count)))[:, None, None]

    def side(self, k: int) -> Side:
        """Return example k as an image to be matched."""
        example = self.examples[k]
        return Side(example.image(), example.size, self.nodes[k], example.key)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors to save."""
        half = self.nodes.half()
        pictures = b"".join(example.picture for example in self.examples)
        return {
            "total": self.total,
            "count": self.count,
            "nodes": half if bool((half.float() == self.nodes).all()) else self.nodes,
            "labels": self.labels,
            "pictures": torch.frombuffer(bytearray(pictures), dtype=torch.uint8) if pictures else torch.zeros(0).byte(),
            "ends": torch.tensor([len(e.picture) for e in self.examples], dtype=torch.int64).cumsum(0),
        }

    def config(self) -> list[dict[str, Any]]:
        """Return the settings to save: the name, key and size of each example."""
        return [{"name": e.name, "key": e.key, "size": list(e.size)} for e in self.examples]

    @classmethod
    def restored(cls, tensors: dict[str, Tensor], config: Sequence[dict[str, Any]]) -> Self:
        """Restore a support set from the results of :meth:`tensors` and :meth:`config`.

        Raises:
            InputError: the two do not match, or are not what a classifier saves.
        """
        _check_tensors(tensors)
        pictures, ends = tensors["pictures"].numpy().tobytes(), [0, *tensors["ends"].tolist()]
        if not len(config) == len(ends) - 1 == len(tensors["nodes"]) == len(tensors["labels"]):
            raise InputError(f"{len(config)} examples in the settings, {len(tensors['nodes'])} among the tensors")
        if ends != sorted(ends) or ends[-1] != len(pictures):
            raise InputError("the pictures of the examples do not end where they should")
        examples = tuple(_example(one, pictures[ends[k] : ends[k + 1]]) for k, one in enumerate(config))
        nodes = tensors["nodes"].float()
        return cls(tensors["total"], tensors["count"], nodes, tensors["labels"], examples)


def _example(settings: dict[str, Any], picture: bytes) -> Example:
    """Restore an example from its settings."""
    height, width = whole_numbers("size", settings["size"], count=2, hint="the height and width of an example")
    name, key = settings["name"], whole_number("key", settings["key"], 0, 2**64 - 1)
    if not isinstance(name, str):
        raise InputError(f"the name of an example is {name!r:.80}")
    return Example(name, key, picture, (height, width))


def _check_tensors(tensors: dict[str, Tensor]) -> None:
    """Refuse tensors that :meth:`Support.tensors` cannot have returned."""
    whole, real = (torch.int64,), (torch.float16, torch.float32)
    wanted = {"total": (3, (torch.float64,)), "count": (1, whole), "nodes": (3, real), "labels": (1, whole)}
    wanted |= {"pictures": (1, (torch.uint8,)), "ends": (1, whole)}
    for name, (sides, types) in wanted.items():
        found = tensors[name]
        if found.ndim != sides or found.dtype not in types or not found.isfinite().all():
            raise InputError(
                f"{name} of {tuple(found.shape)}, {found.dtype}, is of another shape or type, or not finite"
            )
    total, count, nodes, labels = (tensors[name] for name in ("total", "count", "nodes", "labels"))
    if len(total) != len(count) or total.shape[1:] != nodes.shape[1:]:
        raise InputError(f"total of {tuple(total.shape)}, but {len(count)} counts and nodes of {tuple(nodes.shape)}")
    photos = labels.clamp(0, max(len(count) - 1, 0)).bincount(minlength=len(count))
    if (
        not len(count)
        or (count < 1).any()
        or (photos > count).any()
        or labels.ne(labels.clamp(0, len(count) - 1)).any()
    ):
        raise InputError(f"the numbers of photos, {count.tolist()!r:.80}, do not fit the examples")

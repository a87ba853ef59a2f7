"""Embed images that are searched for, as the images of the index were embedded."""

import os
from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from deepemd.apps.reports.drawing import PICTURE_SIDE
from deepemd.apps.retrieval.index import Index
from deepemd.data.inputs import as_images
from deepemd.embedding.stream import Embedder
from deepemd.errors import InputError
from deepemd.explain.matches import Side
from deepemd.progress import track

if TYPE_CHECKING:
    from deepemd.data.decoding import Picture

__all__ = ["Queries", "embed_queries"]


class Queries(NamedTuple):
    """Images to search for.

    Attributes:
        names: (Q,) the path of each, or its number.
        sides: (Q,) a small copy of each with its nodes, for drawings.
        nodes: (Q, n, C) float32, whitened if the nodes of the index are.
        bad: the errors of images that cannot be read, which are left out.
    """

    names: Sequence[str]
    sides: Sequence[Side]
    nodes: Tensor
    bad: Sequence[InputError]


def embed_queries(index: Index, images: "Iterable[Picture]", *, skip_bad: bool = False) -> Queries:
    """Decode and embed images as an index does.

    Args:
        index: the index to be searched.
        images: paths, PIL images or arrays, in a list, a column of pandas or a generator.
        skip_bad: leave out images that cannot be read, and return their errors, as long as one can be read.

    Raises:
        InputError: an image cannot be read and `skip_bad` is not set, or there is none that can be read, or `images`
            is one image instead of a list.
    """
    from PIL import Image

    asked = as_images(images, "images")
    if not asked:
        raise InputError("images is empty: pass at least one image")
    names, sides, bad = list[str](), list[Side](), list[InputError]()
    rows = Embedder(index.model.eval(), precision=index.precision).stream(asked, side=lambda _: PICTURE_SIDE)
    for k, row in enumerate(track(rows, "embedding the queries", len(asked), "images")):
        if row.nodes is None:
            assert row.error is not None
            if not skip_bad:
                raise row.error
            bad.append(row.error)
            continue
        nodes = row.nodes if index.whitening is None else index.whitening(row.nodes[None])[0]  # (n, C)
        image = asked[k]
        names.append(str(image) if isinstance(image, str | os.PathLike) else f"image {k}")
        sides.append(Side(Image.open(BytesIO(row.thumbnail)), row.size, nodes, row.key))
    if not sides:
        raise InputError("\n".join(["no image can be read:", *(f"  {error}" for error in bad)]))
    return Queries(names, sides, torch.stack([side.nodes for side in sides]), bad)

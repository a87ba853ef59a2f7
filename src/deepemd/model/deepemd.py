"""DeepEMD, the model: an encoder, the regions that it encodes, and the transport between node sets."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self, get_args
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from deepemd.checks import real_number, real_numbers, whole_number
from deepemd.errors import InputError
from deepemd.matching import Weights, emd_logits
from deepemd.model.folder import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    read_config,
    read_tensors,
    round_to_half,
    verify_weights,
    write_saved,
)
from deepemd.model.hub import find_model, model_card, push
from deepemd.model.loading import build_model, load_weights
from deepemd.nodes import (
    FCN,
    Backbone,
    Memory,
    MultiScale,
    Regions,
    WholeImage,
    as_backbone,
    cut,
    encode,
    encode_blank,
    patch_nodes,
    power_transform,
    to_original,
)

__all__ = ["MEAN", "STD", "DeepEMD"]

# Mean and standard deviation of miniImageNet's channels, by which the paper normalises.
MEAN = (125.3 / 255, 123.0 / 255, 113.9 / 255)
STD = (63.0 / 255, 62.1 / 255, 66.7 / 255)
_MAX_SIDE = 4096  # pixels of the squares that an encoder sees
_CLASSIFIER = "classifier."  # prefix of the tensors that a saved classifier adds to the weights
# Encoder -> side of the images -> (h, w) of its map. By weak reference: a replaced encoder is not kept alive by it.
_MAP_SIZES: WeakKeyDictionary[nn.Module, dict[int, tuple[int, int]]] = WeakKeyDictionary()


class DeepEMD(nn.Module):
    """Few-shot classification by the Earth Mover's Distance between the parts of two images.

    The model turns episodes into logits. It holds no support set, so that episodes can be batched.

    Args:
        backbone: the encoder, from :func:`deepemd.nodes.conv4` or :func:`deepemd.nodes.resnet12`; or any module that
            returns (B, C, h, w) maps; it is called once, on a black image.
        regions: how an image becomes nodes: :class:`FCN`, :class:`deepemd.nodes.MultiScale`, :class:`Grid` or
            :class:`Sampling`. It can be changed later, as the weights do not depend on it.
        image_size: side of the square that the encoder sees, in pixels.
        resize: side of the square to which a whole image is scaled before its central `image_size` square is cut out;
            in the paper, 92 before 84. Pass `image_size` for objects that fill their image, such as glyphs. Grid and
            Sampling do not use it: they cut their patches from the original.
        max_side: longest side of the originals from which patches are cut, in pixels; larger ones are scaled down.
        mean, std: mean and standard deviation of each channel, for values in 0..1.
        temperature: T of the logits, T * (1 - EMD); tuned in the paper.
        weights: how nodes are weighted, see :func:`deepemd.matching.emd_logits`.
        floor: added to every cross-reference weight, in the units of squared embeddings. The paper's 1e-3 suits nodes
            of length 10 and more.
        context: how much of its whole image is mixed into each node, see :func:`deepemd.matching.emd_logits`.
        power: exponent of the nodes' channels, after which all nodes have length 1, see
            :func:`deepemd.nodes.power_transform`; 0.5 suits an encoder with ReLU that was trained to classify. None
            leaves nodes as they are.

    Raises:
        InputError: a setting is of another type or out of range, or the encoder returns no map.

    >>> from deepemd.nodes import FCN, conv4
    >>> model = DeepEMD(conv4(), FCN())
    >>> support, query = torch.rand(5, 3, 84, 84), torch.rand(10, 3, 84, 84)
    >>> model(support, query, n_way=5).shape
    torch.Size([10, 5])

    Source: Zhang, Cai, Lin, Shen: DeepEMD (CVPR 2020; extension arXiv 2003.06777).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        regions: Regions | None = None,
        *,
        image_size: int = 84,
        resize: int = 92,
        max_side: int = 256,
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
        temperature: float = 12.5,
        weights: Weights = "cross-reference",
        floor: float = 1e-3,
        context: float = 0.0,
        power: float | None = None,
    ) -> None:
        super().__init__()
        self.image_size = whole_number("image_size", image_size, 1, _MAX_SIDE, hint="84 and 224 are usual")
        self.resize = whole_number("resize", resize, 1, _MAX_SIDE, hint="92 for an image_size of 84 is usual")
        if self.resize < self.image_size:
            raise InputError(f"resize is {resize}, smaller than image_size {image_size}: make it at least as large")
        self.max_side = whole_number("max_side", max_side, hint="256 is usual")
        self.temperature = real_number("temperature", temperature, 0, 1e9, above=True, hint="12.5 is usual")
        self.floor = real_number("floor", floor, 0, 1e9, hint="0.001 is usual")
        self.context = real_number("context", context, 0, 1e9, hint="0 leaves the nodes as they are")
        self.power = None if power is None else real_number("power", power, 0, 10, above=True, hint="0.5 is usual")
        self._mean = real_numbers("mean", mean, -1e4, 1e4, count=3, hint="one for each channel, of values in 0..1")
        self._std = real_numbers("std", std, 1e-4, 1e4, count=3, hint="one for each channel, of values in 0..1")
        if weights not in get_args(Weights):
            raise InputError(f"weights is {weights!r}: choose one of {', '.join(get_args(Weights))}")
        # Any, because the types of torch cannot express "a module with the attributes of Backbone".
        self.backbone: Any = as_backbone(backbone, self.image_size)
        self.regions: Regions = FCN() if regions is None else regions
        self.weights: Weights = weights
        # Not persistent: mean and std are saved in config.json, not with the weights.
        self.register_buffer("mean", torch.tensor(self._mean, dtype=torch.float32).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(self._std, dtype=torch.float32).view(3, 1, 1), persistent=False)
        for parameter in self.parameters():
            if parameter.ndim == 4:  # several times faster in bfloat16 on a CPU
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    def normalise(self, images: Tensor) -> Tensor:
        """Scale (B, 3, H, W) uint8 images, or float ones in 0..1, to zero mean and unit deviation in channels_last."""
        if images.dtype == torch.uint8:
            images = images.to(self.mean.dtype) / 255
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def embed(
        self,
        images: Tensor,
        boxes: Tensor | None = None,
        *,
        flip: Tensor | None = None,
        memory: Memory = Memory(),  # noqa: B008  (frozen)
    ) -> Tensor:
        """Encode images into their node sets.

        Args:
            images: (B, 3, H, W), uint8, or float in 0..1. FCN and MultiScale cut the central `image_size` square out of
                larger ones; Grid and Sampling take the originals, padded to a common size where they differ.
            boxes: (B, M, 4) float, the patches of Grid or Sampling: x0, y0, x1, y1 in pixels of `images`. By default
                the regions choose them for images of H x W. The others take none.
            flip: (B, M) bool, the patches to mirror; for training.
            memory: what is stored for the backward pass; for training.

        Returns:
            (B, N, C) nodes, float32 even under autocast; raw, unless the model has a `power`.

        Raises:
            InputError: the images are smaller than `image_size` (FCN) or do not have three channels, or the boxes do
                not fit.
        """
        min_side = self.image_size if isinstance(self.regions, WholeImage) else 1
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[-2:]) < min_side:
            raise InputError(
                f"images has shape {tuple(images.shape)}: the model takes (B, 3, H, W) with H and W of at least"
                f" {min_side}; resize them first"
            )
        nodes = self._nodes(images, boxes, flip, partial(encode, self.backbone, memory=memory))
        return nodes if self.power is None else power_transform(nodes, self.power)

    def _nodes(
        self, images: Tensor, boxes: Tensor | None, flip: Tensor | None, encoder: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Encode images into raw nodes; the arguments are those of :meth:`embed`."""
        if not isinstance(self.regions, WholeImage):
            if boxes is None:
                boxes = torch.from_numpy(self.regions.boxes(np.broadcast_to(images.shape[-2:], (len(images), 2))))
            # Without a name of their own, the raw patches are freed once they are normalised.
            # (B, M, 3, S, S) -> (B * M, 3, S, S)
            flat = self.normalise(cut(images, boxes, self.image_size, flip=flip).flatten(0, 1))
            return patch_nodes(encoder, flat.unflatten(0, boxes.shape[:2]))  # -> (B, M, C)
        if boxes is not None or flip is not None:
            raise InputError("boxes and flip are for Grid and Sampling, but this model sees whole images")
        top, left = ((side - self.image_size) // 2 for side in images.shape[-2:])
        images = images[:, :, top : top + self.image_size, left : left + self.image_size]  # -> (B, 3, S, S)
        return self.regions(encoder, self.normalise(images))  # -> (B, N, C)

    def boxes(self, sizes: ArrayLike, *, seed: int = 0, indices: ArrayLike | None = None) -> NDArray[np.float64]:
        """Return the boxes of the nodes in the original images, for instance to draw them.

        Args:
            sizes: (B, 2) height and width of the original images, in pixels.
            seed, indices: choose the crops of Sampling, see :meth:`deepemd.nodes.Sampling.boxes`; other regions ignore
                them.

        Returns:
            (B, N, 4) x0, y0, x1, y1 in pixels of the originals.
        """
        if not isinstance(self.regions, WholeImage):
            return self.regions.boxes(sizes, seed=seed, indices=indices).astype(np.float64)
        side = self.image_size
        if isinstance(self.regions, MultiScale):
            seen = self.regions.boxes(side, {size: self._map_size(size) for size in self.regions.sizes})
        else:
            seen = self.regions.boxes(side, side, *self._map_size(side))  # (N, 4) in pixels of the encoder's input
        return np.stack(
            [
                to_original(seen, width, height, resize=self.resize, size=side)
                for height, width in np.asarray(sizes).reshape(-1, 2).tolist()
            ]
        )

    @property
    def node_counts(self) -> tuple[int, ...]:
        """The number of nodes of each input size, for :class:`deepemd.nodes.MultiScale`; they follow one another."""
        assert isinstance(self.regions, MultiScale)
        return self.regions.counts({size: self._map_size(size) for size in self.regions.sizes})

    def _map_size(self, side: int) -> tuple[int, int]:
        """Return height and width of the encoder's map, found by encoding one black image and then cached."""
        sizes = _MAP_SIZES.setdefault(self.backbone, {})
        if side not in sizes:
            sizes[side] = tuple(encode_blank(self.backbone, side).shape[-2:])
        return sizes[side]

    def forward(self, support: Tensor, query: Tensor, n_way: int) -> Tensor:
        """Classify the queries of one episode.

        Support and query pass through the encoder as one batch, so that batch norm sees both in training. A class is
        represented by the mean of its shots' node sets.

        Args:
            support: (n_shot * n_way, 3, H, W) images, shot by shot: one of each class in order, then the next shot.
            query: (Q, 3, H, W) images, as for :meth:`embed`.
            n_way: number of classes.

        Returns:
            (Q, n_way) logits, float32, differentiable.

        Raises:
            InputError: the support images do not divide into n_way classes.
        """
        if n_way < 1 or len(support) % n_way or not len(support):
            raise InputError(f"support holds {len(support)} images: pass n_way * n_shot of them; n_way is {n_way}")
        nodes = self.embed(torch.cat((support, query)))  # (n_shot * n_way + Q, 3, H, W) -> (..., N, C)
        return self.match(nodes[: len(support)], nodes[len(support) :], n_way)  # -> (Q, n_way)

    def match(self, support: Tensor, query: Tensor, n_way: int, *, query_chunk: int | None = None) -> Tensor:
        """Classify encoded node sets, of any number of episodes together.

        Args:
            support: (..., n_shot * n_way, N, C) nodes, shot by shot.
            query: (..., Q, N, C) nodes.
            n_way: number of classes.
            query_chunk: see :func:`deepemd.matching.emd_logits`; for training.

        Returns:
            (..., Q, n_way) logits, float32.
        """
        classes = support.unflatten(-3, (-1, n_way)).mean(-4)  # (..., n_shot * n_way, N, C) -> (..., n_way, N, C)
        with torch.autocast(query.device.type, enabled=False):  # the transport is exact: its input stays float32
            logits: Tensor = emd_logits(
                query.float(),
                classes.float(),
                temperature=self.temperature,
                **self.head,
                query_chunk=query_chunk,
            )  # -> (..., Q, n_way)
        return logits

    @property
    def head(self) -> dict[str, Any]:
        """The arguments of :func:`deepemd.matching.emd_logits` other than the temperature."""
        return {"weights": self.weights, "floor": self.floor, "context": self.context}

    @property
    def config(self) -> dict[str, Any]:
        """The content of config.json: the settings from which :meth:`load` rebuilds the model."""
        return {
            "backbone": dict(self.backbone.config),
            "regions": self.regions.config,
            "image_size": self.image_size,
            "resize": self.resize,
            "max_side": self.max_side,
            "mean": list(self._mean),
            "std": list(self._std),
            "temperature": self.temperature,
            **self.head,
            **({} if self.power is None else {"power": self.power}),
        }

    def save(self, folder: str | Path, *, half: bool = False) -> Path:
        """Write model.safetensors and config.json into a folder, which is created if needed; replace an older model.

        Args:
            folder: the folder.
            half: round matrices and filters to float16, to publish a file of half the size, with three digits of
                precision. They are loaded as float32.

        Returns:
            The folder.

        Raises:
            InputError: the folder holds a classifier or files of another program, it cannot be written (no space, no
                permission), or a weight is too large for float16.
        """
        state = self.state_dict()
        return write_saved(Path(folder), self.config, round_to_half(state) if half else state)

    def push_to_hub(self, repo_id: str, *, license: str | None = None, **settings: Any) -> str:
        """Upload the folder that :meth:`save` writes, and a model card, to the Hugging Face Hub.

        Args:
            repo_id: ``"owner/name"``; the repository is created if needed.
            license: licence of the weights, as the hub spells it; by default "apache-2.0". Required if the encoder was
                pretrained by somebody else.
            **settings: ``private``, ``token``, ``branch``, ``commit_message``, ``create_pr`` and other arguments of
                ``huggingface_hub.ModelHubMixin.push_to_hub``.

        Returns:
            The address of the commit.

        Raises:
            InputError: the licence is missing, or the hub cannot be reached or refuses.
        """
        settings = {"commit_message": "Upload a model of deepemd", **settings}
        return push(self.save, model_card(repo_id, self.config, license), repo_id, **settings)

    @classmethod
    def from_pretrained(
        cls,
        name: "str | os.PathLike[str]",
        *,
        device: str | torch.device = "cpu",
        backbone: Backbone | nn.Module | None = None,
        **download: Any,
    ) -> Self:
        """Load a model by its name: a folder, an installed model, or a model on the Hugging Face Hub.

        Args:
            name: a folder; else ``"resnet12-miniimagenet"``, which is installed with the package and needs no network
                (see docs/results.md); else ``"owner/name"`` on the hub, as :meth:`push_to_hub` uploads it.
            device, backbone: see :meth:`load`.
            **download: ``revision``, ``token``, ``cache_dir``, ``force_download`` and ``local_files_only`` of
                ``huggingface_hub.snapshot_download``.

        Raises:
            InputError: there is no such model, the hub cannot be reached, or as for :meth:`load`.

        >>> DeepEMD.from_pretrained("resnet12-miniimagenet").backbone.channels
        640
        """
        return cls.load(find_model(name, **download), device=device, backbone=backbone)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        device: str | torch.device = "cpu",
        backbone: Backbone | nn.Module | None = None,
    ) -> Self:
        """Load a model from a folder that :meth:`save` or a classifier wrote, in evaluation mode.

        Args:
            folder: the folder of model.safetensors and config.json.
            device: the device to load the model to.
            backbone: your own encoder, if the model was saved with one; built as it was then, because the folder holds
                only its weights.

        Raises:
            InputError: a file is missing or damaged, or the weights belong to another architecture.
        """
        folder = Path(folder)
        config = read_config(folder)
        model = build_model(cls, config, folder / CONFIG_FILE, encoder=backbone)
        tensors = read_tensors(folder)
        state = {name: tensor for name, tensor in tensors.items() if not name.startswith(_CLASSIFIER)}
        load_weights(model, state, folder / WEIGHTS_FILE)
        verify_weights(folder, config)
        return model.to(device).eval()

"""What a training run is: every setting, its default and when to change it.

The defaults are the paper's, for ResNet-12 on miniImageNet. ``GLYPHS_PRETRAIN`` and ``GLYPHS_METATRAIN`` are those of
``deepemd demo``; the folder recipes/ of the source holds others as YAML.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from deepemd.errors import InputError
from deepemd.matching import Weights
from deepemd.model import DeepEMD
from deepemd.nodes import Memory, backbone, parse_regions
from deepemd.nodes.backbones import WIDTHS

__all__ = [
    "GLYPHS_METATRAIN",
    "GLYPHS_PRETRAIN",
    "Augmentation",
    "MetatrainRecipe",
    "ModelConfig",
    "PretrainRecipe",
    "Schedule",
    "Validation",
]


def _within(owner: object, name: str, low: float, high: float = math.inf) -> None:
    if not low <= getattr(owner, name) <= high:
        most = f"from {low:g} to {high:g}" if high < math.inf else f"at least {low:g}"
        raise InputError(f"{name} is {getattr(owner, name)}: it must be {most}")


def _positive(owner: object, *names: str) -> None:
    for name in names:
        if not 0 < getattr(owner, name) < math.inf:
            raise InputError(f"{name} is {getattr(owner, name)}: it must be above 0")


@dataclass(frozen=True)
class ModelConfig:
    """The model to train.

    Args:
        backbone: ``resnet12`` as in the paper, or ``conv4``, about thirty times cheaper, for a CPU.
        widths: channels of resnet12's four blocks; fewer for a CPU.
        space_to_depth: 2 has resnet12 fold 2 x 2 pixels into one first: a quarter of the work, for a CPU.
        channels: width of conv4.
        pools: how many of conv4's four blocks halve the image; fewer for small images, to keep several nodes.
        regions: how an image becomes nodes: fcn, fcn:2,1 (with a pyramid), pooled:3 (its levels
            alone), grid:3,2 or sampling:9.
        image_size: side of the square that the encoder sees, in pixels.
        resize: side to which images are scaled before the central square is cut, at least image_size.
        max_side: originals from which grid and sampling cut their patches are made no larger than this.
        temperature: factor of the logits.
        weights: how nodes are weighted.
    """

    backbone: Literal["resnet12", "conv4"] = "resnet12"
    widths: tuple[int, int, int, int] = WIDTHS
    space_to_depth: Literal[1, 2] = 1
    channels: int = 64
    pools: int = 4
    regions: str = "fcn"
    image_size: int = 84
    resize: int = 92
    max_side: int = 256
    temperature: float = 12.5
    weights: Weights = "cross-reference"

    def __post_init__(self) -> None:
        _positive(self, "image_size", "resize", "temperature")

    def build(self) -> DeepEMD:
        """The model with fresh weights, from torch's global generator.

        Raises:
            InputError: settings that do not fit each other: images too small for the encoder, a pyramid level that is
                not coarser than its map. They are tried on an empty image, so that no hour is spent before.
        """
        settings: dict[str, dict[str, Any]] = {
            "conv4": {"channels": self.channels, "pools": self.pools},
            "resnet12": {"widths": self.widths, "space_to_depth": self.space_to_depth},
        }
        model = DeepEMD(
            backbone(self.backbone, **settings[self.backbone]),
            parse_regions(self.regions),
            image_size=self.image_size,
            resize=self.resize,
            max_side=self.max_side,
            temperature=self.temperature,
            weights=self.weights,
        )
        with torch.no_grad():
            model.eval().embed(torch.zeros(1, 3, self.image_size, self.image_size))
        return model.train()


@dataclass(frozen=True)
class Augmentation:
    """How training images vary.

    Args:
        flip: mirror half of the images; off where left and right matter, as in letters.
        crop_scale: range of a random crop's area, as a share of the image's.
        jitter: how far brightness, contrast and saturation vary; 0 for not at all.
    """

    flip: bool = True
    crop_scale: tuple[float, float] = (0.08, 1.0)
    jitter: float = 0.0


@dataclass(frozen=True)
class Validation:
    """The fixed episodes on which the best checkpoint is picked.

    Args:
        n_episodes: how many; the standard error falls with their square root.
        n_way: classes of an episode.
        n_shot: labelled images of a class.
        n_query: images to classify of each class.
        seed: of the episodes, apart from the run's own seed, so that runs can be compared.
        every: epochs between validations; it must divide the epochs of the run.
    """

    n_episodes: int = 100
    n_way: int = 5
    n_shot: int = 1
    n_query: int = 15
    seed: int = 0
    every: int = 1

    def __post_init__(self) -> None:
        _positive(self, "n_episodes", "n_way", "n_shot", "n_query", "every")


@dataclass(frozen=True)
class Schedule:
    """The learning rate as a function of the epoch.

    Args:
        kind: ``step`` multiplies by `decay` every `every` epochs; ``cosine`` falls to zero at the end, which does
            better in short runs.
        decay: factor of ``step``.
        every: epochs between the steps of ``step``.
        warmup: epochs over which the rate first rises from zero; may be a fraction.
    """

    kind: Literal["step", "cosine"] = "step"
    decay: float = 0.2
    every: int = 30
    warmup: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in ("step", "cosine"):
            raise InputError(f"schedule.kind is {self.kind!r}: choose step or cosine")
        _positive(self, "decay", "every")
        _within(self, "warmup", 0)

    def factor(self, epoch: float, epochs: int) -> float:
        """By what the learning rate is multiplied at a moment of the run, in epochs from its start.

        >>> [round(Schedule().factor(epoch, 120), 3) for epoch in (0, 29.9, 30, 60)]
        [1.0, 1.0, 0.2, 0.04]
        >>> [round(Schedule("cosine", warmup=1).factor(epoch, 11), 3) for epoch in (0, 0.5, 1, 6, 11)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
        """
        if epoch < self.warmup:
            return epoch / self.warmup
        if self.kind == "cosine":
            return 0.5 + 0.5 * math.cos(math.pi * (epoch - self.warmup) / max(epochs - self.warmup, 1e-9))
        return float(self.decay ** (epoch // self.every))


@dataclass(frozen=True)
class PretrainRecipe:
    """Pre-training: a linear classifier over the base classes on the pooled embedding.

    Args:
        model: the model to train.
        epochs: passes over the base images.
        batch_size: images of a step; halve it, and lr with it, where memory is short.
        parts: in how many parts the images of a step are encoded, each with batch statistics of its own: memory is that
            of one part, and so many processes can share a step. It must divide batch_size.
        lr: learning rate of SGD with Nesterov momentum 0.9.
        weight_decay: of all parameters.
        schedule: how lr falls.
        label_smoothing: share of the target that is spread over all classes.
        sizes: sides of the training crops in equal parts of the run, such as 48,64,84: small ones first cost less, and
            the last must be the model's image_size. Empty for image_size throughout, as in the paper.
        rotations: turn every image by 90, 180 and 270 degrees too, as classes of their own; the custom for handwritten
            characters. An epoch is four times as long.
        memory: what is kept for the backward pass; here its `checkpoint` alone.
        augmentation: how images vary.
        validation: the episodes that pick the best checkpoint.

    Source: Zhang et al., DeepEMD (CVPR 2020), section 5.1.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    epochs: int = 120
    batch_size: int = 128
    parts: int = 1
    lr: float = 0.1
    weight_decay: float = 5e-4
    schedule: Schedule = field(default_factory=Schedule)
    label_smoothing: float = 0.0
    sizes: tuple[int, ...] = ()
    rotations: bool = False
    memory: Memory = field(default_factory=Memory)
    augmentation: Augmentation = field(default_factory=Augmentation)
    validation: Validation = field(default_factory=Validation)

    def __post_init__(self) -> None:
        _positive(self, "epochs", "batch_size", "parts", "lr")
        _within(self, "weight_decay", 0)
        _within(self, "label_smoothing", 0, 1)
        if self.sizes and (self.sizes[-1] != self.model.image_size or min(self.sizes) < 1):
            raise InputError(f"sizes is {self.sizes}: its last must be model.image_size, {self.model.image_size}")
        _check_parts(self, "batch_size")
        if self.memory != Memory(checkpoint=self.memory.checkpoint):
            raise InputError(
                f"memory is {self.memory}: pre-training begins without statistics that batch norm could be frozen at,"
                " and matches no queries; set memory.checkpoint alone, or lower batch_size"
            )
        _check_interval(self.epochs, self.validation)


@dataclass(frozen=True)
class MetatrainRecipe:
    """Meta-training: whole episodes, with gradients through the transport.

    Args:
        epochs: how many times episodes_per_epoch.
        episodes_per_epoch: training episodes between two looks at the schedule and the validation.
        episodes_per_step: episodes that share an update.
        parts: in how many parts the episodes of a step are encoded, each with batch statistics of its own: memory is
            that of one part, and so many processes can share a step. It must divide episodes_per_step.
        n_way: classes of a training episode.
        n_shot: labelled images of a class; the 1-shot model serves k shots too.
        n_query: images to classify of each class.
        regions: how an image becomes nodes, such as grid:3,2; those of the model unless given.
        lr: learning rate of SGD with Nesterov momentum 0.9.
        weight_decay: of all parameters.
        schedule: how lr falls.
        memory: what is kept for the backward pass, and whether batch norm is frozen.
        augmentation: how images vary.
        validation: the episodes that pick the best checkpoint; the model that training starts from counts too.

    Source: Zhang et al., DeepEMD (CVPR 2020), section 5.1.
    """

    epochs: int = 100
    episodes_per_epoch: int = 50
    episodes_per_step: int = 1
    parts: int = 1
    n_way: int = 5
    n_shot: int = 1
    n_query: int = 15
    regions: str | None = None
    lr: float = 5e-4
    weight_decay: float = 5e-4
    schedule: Schedule = field(default_factory=lambda: Schedule(decay=0.5, every=10))
    memory: Memory = field(default_factory=Memory)
    augmentation: Augmentation = field(default_factory=Augmentation)
    validation: Validation = field(default_factory=lambda: Validation(n_episodes=1000))

    def __post_init__(self) -> None:
        _positive(
            self, "epochs", "episodes_per_epoch", "episodes_per_step", "parts", "n_way", "n_shot", "n_query", "lr"
        )
        _within(self, "weight_decay", 0)
        _check_parts(self, "episodes_per_step")
        _check_interval(self.epochs, self.validation)
        if self.episodes_per_epoch % self.episodes_per_step:
            raise InputError(
                f"episodes_per_step is {self.episodes_per_step}: it must divide episodes_per_epoch,"
                f" {self.episodes_per_epoch}"
            )


def _check_parts(recipe: "PretrainRecipe | MetatrainRecipe", of: str) -> None:
    if getattr(recipe, of) % recipe.parts:
        raise InputError(f"parts is {recipe.parts}: it must divide {of}, {getattr(recipe, of)}")


def _check_interval(epochs: int, validation: Validation) -> None:
    if epochs % validation.every:
        raise InputError(f"validation.every is {validation.every}: it must divide the {epochs} epochs")


_GLYPHS = Augmentation(flip=False, crop_scale=(0.5, 1.0))
_CONV4_GLYPHS = ModelConfig("conv4", pools=3, image_size=40, resize=40)

GLYPHS_PRETRAIN = PretrainRecipe(
    _CONV4_GLYPHS,
    epochs=12,
    batch_size=64,
    schedule=Schedule("cosine", warmup=0.5),
    augmentation=_GLYPHS,
    validation=Validation(n_episodes=200, every=2),
)

GLYPHS_METATRAIN = MetatrainRecipe(
    epochs=8,
    lr=3e-3,
    schedule=Schedule("cosine"),
    augmentation=_GLYPHS,
    validation=Validation(n_episodes=200, every=2),
)

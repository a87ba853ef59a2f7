"""The parts of a recipe: model, augmentation, validation episodes and schedule, with the paper's values as defaults."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch

from deepemd.checks import real_number, real_numbers
from deepemd.data import Episodes
from deepemd.errors import InputError
from deepemd.matching import Weights
from deepemd.model import DeepEMD
from deepemd.nodes import backbone, parse_regions
from deepemd.nodes.backbones import WIDTHS

__all__ = ["Augmentation", "ModelConfig", "Schedule", "Validation", "check_positive", "check_range"]


def check_range(owner: object, name: str, low: float, high: float = math.inf) -> None:
    """Raise InputError unless the attribute lies from `low` to `high`."""
    if not low <= getattr(owner, name) <= high:
        most = f"from {low:g} to {high:g}" if high < math.inf else f"at least {low:g}"
        raise InputError(f"{name} is {getattr(owner, name)}: it must be {most}")


def check_positive(owner: object, *names: str) -> None:
    """Raise InputError unless the attributes are finite and above 0."""
    for name in names:
        if not 0 < getattr(owner, name) < math.inf:
            raise InputError(f"{name} is {getattr(owner, name)}: it must be above 0")


@dataclass(frozen=True)
class ModelConfig:
    """The model to train.

    Args:
        backbone: ``resnet12`` as in the paper, or ``conv4``, about thirty times cheaper, for a CPU.
        widths: channels of resnet12's four blocks; fewer for a CPU.
        space_to_depth: with 2, resnet12 first rearranges 2 x 2 pixels into channels: a quarter of the work, for a CPU.
        channels: channels of conv4.
        pools: number of conv4's four blocks that halve the image; use fewer for small images, to get several nodes.
        regions: how an image becomes nodes: fcn, fcn:2,1 (with a pyramid), pooled:3 (its levels
            alone), grid:3,2 or sampling:9.
        image_size: side of the square that the encoder sees, in pixels.
        resize: side to which images are scaled before the central square is cut, at least image_size.
        max_side: longest side, in pixels, of the originals that grid and sampling cut their patches from.
        temperature: factor of the logits.
        weights: how nodes are weighted: cross-reference as in the paper, or uniform.
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
        check_positive(self, "image_size", "resize", "temperature")

    def build(self) -> DeepEMD:
        """Return the model with new random weights, from torch's global generator.

        Raises:
            InputError: the settings contradict each other: the images are too small for the encoder, or a pyramid level
                is not coarser than its map. One empty image is encoded to find this out before any long work.
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
    """The random variation of training images.

    Args:
        flip: mirror half of the images; turn it off where left and right matter, as in letters.
        crop_scale: range of a random crop's area, as a share of the image's area.
        jitter: how far brightness, contrast and saturation vary; 0 leaves them as they are.
    """

    flip: bool = True
    crop_scale: tuple[float, float] = (0.08, 1.0)
    jitter: float = 0.0

    def __post_init__(self) -> None:
        hint = "give a range of shares of the image, 0 < low <= high <= 1"
        low, high = real_numbers("augmentation.crop_scale", self.crop_scale, 1e-6, 1, count=2, hint=hint)
        if low > high:
            raise InputError(f"augmentation.crop_scale is {self.crop_scale}: {hint}")
        real_number("augmentation.jitter", self.jitter, 0, 1, hint="0 leaves the colours as they are")


@dataclass(frozen=True)
class Validation:
    """The fixed episodes that choose the best checkpoint, and the interval between validations.

    Args:
        n_episodes: number of episodes; the standard error falls with its square root.
        n_way: classes of an episode.
        n_shot: labelled images of a class.
        n_query: images to classify of each class.
        seed: seed of the episodes; it is not the run's own seed, so that runs can be compared.
        every: epochs between validations; it must divide the epochs of the run.
    """

    n_episodes: int = 100
    n_way: int = 5
    n_shot: int = 1
    n_query: int = 15
    seed: int = 0
    every: int = 1

    def __post_init__(self) -> None:
        check_positive(self, "n_episodes", "n_way", "n_shot", "n_query", "every")

    @property
    def episodes(self) -> Episodes:
        """The settings of the episodes."""
        return Episodes(self.n_way, self.n_shot, self.n_query, self.n_episodes, self.seed)


@dataclass(frozen=True)
class Schedule:
    """The learning rate as a function of the epoch.

    Args:
        kind: ``step`` multiplies the rate by `decay` every `every` epochs; ``cosine`` lowers it to zero at the end,
            which does better in short runs.
        decay: factor of ``step``.
        every: epochs between the steps of ``step``.
        warmup: epochs in which the rate first rises from zero; it may be a fraction.
    """

    kind: Literal["step", "cosine"] = "step"
    decay: float = 0.2
    every: int = 30
    warmup: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in ("step", "cosine"):
            raise InputError(f"schedule.kind is {self.kind!r}: choose step or cosine")
        check_positive(self, "decay", "every")
        check_range(self, "warmup", 0)

    def factor(self, epoch: float, epochs: int) -> float:
        """Return the factor of the learning rate `epoch` epochs after the start of a run of `epochs` epochs.

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

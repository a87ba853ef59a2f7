"""Recipes: every setting of a training run, its default and when to change it.

The defaults are the paper's, for ResNet-12 on miniImageNet. ``GLYPHS_PRETRAIN`` and ``GLYPHS_METATRAIN`` are those of
``deepemd demo``; the folder recipes/ in the source holds others as YAML.
"""

from dataclasses import dataclass, field

from deepemd.errors import InputError
from deepemd.nodes import Memory
from deepemd.training.settings import Augmentation, ModelConfig, Schedule, Validation, check_positive, check_range

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


@dataclass(frozen=True)
class PretrainRecipe:
    """Pre-training: a linear classifier over the base classes on the pooled embedding.

    Args:
        model: the model to train.
        epochs: passes over the base images.
        batch_size: images of a step; halve it, and lr with it, if memory is short.
        grad_accum_steps: micro-batches of a step; it must divide batch_size. Each is encoded on its own, with its own
            batch statistics: a step takes the memory of one, and that many processes can share it.
        lr: learning rate of SGD with Nesterov momentum 0.9.
        weight_decay: weight decay of all parameters.
        schedule: how lr changes over the run.
        label_smoothing: share of the target that is spread over all classes.
        sizes: sides of the training crops in equal stretches of the run, such as 48,64,84: small crops cost less, and
            the last must be the model's image_size. Leave it empty for image_size throughout, as in the paper.
        rotations: also turn every image by 90, 180 and 270 degrees, as new classes, as is usual for handwritten
            characters. An epoch is then four times as long.
        memory: how to save memory; pre-training supports only `checkpoint`.
        augmentation: how images vary.
        validation: the episodes that choose the best checkpoint.

    Source: Zhang et al., DeepEMD (CVPR 2020), section 5.1.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    epochs: int = 120
    batch_size: int = 128
    grad_accum_steps: int = 1
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
        check_positive(self, "epochs", "batch_size", "grad_accum_steps", "lr")
        check_range(self, "weight_decay", 0)
        check_range(self, "label_smoothing", 0, 1)
        if self.sizes and (self.sizes[-1] != self.model.image_size or min(self.sizes) < 1):
            raise InputError(f"sizes is {self.sizes}: its last must be model.image_size, {self.model.image_size}")
        _check_micro_batches(self, "batch_size")
        if self.memory != Memory(checkpoint=self.memory.checkpoint):
            raise InputError(
                f"memory is {self.memory}: pre-training starts without batch statistics to freeze and matches no"
                " queries; set memory.checkpoint alone, or lower batch_size"
            )
        _check_interval(self.epochs, self.validation)


@dataclass(frozen=True)
class MetatrainRecipe:
    """Meta-training: whole episodes, with gradients through the transport.

    Args:
        epochs: length of the run.
        episodes_per_epoch: training episodes of an epoch, which is the unit of schedule and validation.
        episodes_per_step: episodes that share a step of the optimizer.
        grad_accum_steps: micro-batches of a step; it must divide episodes_per_step. Each is encoded on its own, with
            its own batch statistics: a step takes the memory of one, and that many processes can share it.
        n_way: classes of a training episode.
        n_shot: labelled images of a class; a model that is trained with one shot also works with several.
        n_query: images to classify of each class.
        regions: how an image becomes nodes, such as grid:3,2; by default those of the model.
        lr: learning rate of SGD with Nesterov momentum 0.9.
        weight_decay: weight decay of all parameters.
        schedule: how lr changes over the run.
        memory: how to save memory, and whether batch norm is frozen.
        augmentation: how images vary.
        validation: the episodes that choose the best checkpoint; the initial model is a candidate.

    Source: Zhang et al., DeepEMD (CVPR 2020), section 5.1.
    """

    epochs: int = 100
    episodes_per_epoch: int = 50
    episodes_per_step: int = 1
    grad_accum_steps: int = 1
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
        check_positive(
            self,
            "epochs",
            "episodes_per_epoch",
            "episodes_per_step",
            "grad_accum_steps",
            "n_way",
            "n_shot",
            "n_query",
            "lr",
        )
        check_range(self, "weight_decay", 0)
        _check_micro_batches(self, "episodes_per_step")
        _check_interval(self.epochs, self.validation)
        if self.episodes_per_epoch % self.episodes_per_step:
            raise InputError(
                f"episodes_per_step is {self.episodes_per_step}: it must divide episodes_per_epoch,"
                f" {self.episodes_per_epoch}"
            )


def _check_micro_batches(recipe: "PretrainRecipe | MetatrainRecipe", of: str) -> None:
    if getattr(recipe, of) % recipe.grad_accum_steps:
        raise InputError(f"grad_accum_steps is {recipe.grad_accum_steps}: it must divide {of}, {getattr(recipe, of)}")


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

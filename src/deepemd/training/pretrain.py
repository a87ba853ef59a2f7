"""Pre-training: a linear classifier over the base classes on the pooled embedding, validated by DeepEMD's accuracy.

Source: Zhang et al., DeepEMD (CVPR 2020), section 5.1.
"""

from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepemd.data import Images
from deepemd.data.augment import Augment
from deepemd.device import Device, Precision
from deepemd.model import DeepEMD
from deepemd.nodes import encode
from deepemd.processes import process_group, rank_zero_first
from deepemd.training.batches import Batch, classification_batches
from deepemd.training.folder import TrainingResult
from deepemd.training.recipes import PretrainRecipe
from deepemd.training.run import Plan, run

__all__ = ["Pretraining", "pretrain"]


class Pretraining(nn.Module):
    """The task of pre-training: classify base images.

    Args:
        model: the model whose encoder is trained.
        classes: number of base classes.
        recipe: the settings.
        steps: number of steps of the run.
    """

    def __init__(self, model: DeepEMD, classes: int, recipe: PretrainRecipe, steps: int) -> None:
        super().__init__()
        self.model = model
        self.classifier = nn.Linear(model.backbone.channels, classes)
        sizes = recipe.sizes or (model.image_size,)
        self.augments = nn.ModuleList(Augment(size, **asdict(recipe.augmentation)) for size in sizes)
        self.recipe = recipe
        self.steps = steps

    def augment(self, batch: Batch) -> Batch:
        """Vary the images; the size of the crops depends on the step."""
        vary = self.augments[len(self.augments) * batch.step // self.steps]
        return batch._replace(images=vary(batch.images, batch.seed))

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy over the base classes, and the logits (B, K)."""
        images = self.model.normalise(batch.images)  # (B, 3, S, S)
        maps = encode(self.model.backbone, images, self.recipe.memory)  # -> (B, C, h, w)
        with torch.autocast(maps.device.type, enabled=False):
            logits = self.classifier(maps.float().mean((2, 3)))  # -> (B, C) -> (B, K)
            loss = F.cross_entropy(logits, batch.labels, label_smoothing=self.recipe.label_smoothing)
        return loss, logits


@process_group()
def pretrain(
    recipe: PretrainRecipe,
    base: Images,
    val: Images,
    out: str | Path,
    *,
    seed: int = 0,
    resume: bool = False,
    precision: Precision = "auto",
    device: Device = "auto",
) -> TrainingResult:
    """Pre-train a model; save the state with the best validation accuracy.

    Step i is a function of (seed, i) and the weights before it: on a CPU with the same number of threads, a resumed run
    gives the same result, to the bit, as an uninterrupted one. If torchrun started several processes, they share the
    micro-batches of each step (`recipe.grad_accum_steps`): see :mod:`deepemd.training.steps`.

    Args:
        recipe: the settings; see :data:`deepemd.training.recipes.GLYPHS_PRETRAIN` for a complete one.
        base: the images to train on.
        val: images of other classes, whose episodes choose the best checkpoint.
        out: folder of the run: see :mod:`deepemd.training.folder`. The model is saved as ``out/best``.
        seed: seed of the weights, the order of the images and the augmentation.
        resume: continue the run in `out`, or start it if there is none; if it has ended, return its result.
        precision: ``auto``, ``bf16`` or ``32``.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        InputError: `out` holds a run and `resume` is not set, or the run had other settings or data; the loss is no
            longer finite; a file cannot be written.
        Interrupted: SIGTERM or Ctrl-C was received; everything is saved.
    """

    def make_plan() -> Plan:
        with rank_zero_first():
            pixels = base.pixels(recipe.model.resize)
        batches = classification_batches(
            pixels,
            base.labels,
            recipe.batch_size,
            recipe.epochs,
            seed,
            rotations=recipe.rotations,
            grad_accum_steps=recipe.grad_accum_steps,
        )
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(seed)
            classes = len(base.classes) * (4 if recipe.rotations else 1)
            task = Pretraining(recipe.model.build(), classes, recipe, len(batches))
        return Plan("pre-training", task, batches, images=recipe.batch_size // recipe.grad_accum_steps)

    return run(
        *("pretrain", recipe, base, val, out, make_plan),
        seed=seed,
        resume=resume,
        precision=precision,
        device=device,
    )

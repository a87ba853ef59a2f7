"""Pre-training: a linear classifier over the base classes on the pooled embedding, judged by DeepEMD's accuracy.

Source: Zhang et al., DeepEMD (CVPR 2020), section 5.1.
"""

from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepemd.data import Images
from deepemd.data.augment import Augment
from deepemd.device import Device, Precision, choose_device, choose_precision
from deepemd.embedding.views import prepare
from deepemd.model import DeepEMD
from deepemd.nodes import encode
from deepemd.processes import process_group, rank_zero_first
from deepemd.training.batches import Batch, check_seed, classification_batches
from deepemd.training.estimate import estimate
from deepemd.training.fit import fit
from deepemd.training.folder import RunFolder, TrainingResult
from deepemd.training.recipes import PretrainRecipe
from deepemd.training.steps import Training
from deepemd.training.validation import Validator

__all__ = ["Pretraining", "pretrain"]


class Pretraining(nn.Module):
    """Classifies base images.

    Args:
        model: whose encoder is trained.
        classes: number of base classes.
        recipe: the settings.
        steps: length of the run.
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
        """Vary the images, to the size of crops of this part of the run."""
        vary = self.augments[len(self.augments) * batch.step // self.steps]
        return batch._replace(images=vary(batch.images, batch.seed))

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the base classes, and logits (B, K)."""
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
    """Pre-train a model and keep the best by validation accuracy.

    Step i is a function of (seed, i) and the weights before it: on a CPU, a run that was interrupted and resumed with
    the same number of threads ends as one that was not, to the bit. Where torchrun started several processes, they
    share the parts of each step (`recipe.parts`): see :mod:`deepemd.training.steps`.

    Args:
        recipe: the settings; see :data:`deepemd.training.recipes.GLYPHS_PRETRAIN` for a complete one.
        base: the images to train on.
        val: the images on whose episodes the best checkpoint is picked; of other classes.
        out: folder of the run: see :mod:`deepemd.training.folder`. The model is saved as ``out/best``.
        seed: of weights, order and augmentation.
        resume: go on with the run in `out`, or begin it if there is none yet; a finished run returns its result.
        precision: ``auto``, ``bf16`` or ``32``.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        InputError: `out` holds a run and `resume` is not set, or it was started with other settings or data; the loss
            left the finite; a file cannot be written.
        Interrupted: SIGTERM or Ctrl-C came; everything is on the disk.
    """
    folder = RunFolder(Path(out))
    accelerator = choose_device(device)
    number_format = choose_precision(precision, accelerator)
    check_seed(seed)
    settings = {
        "command": "pretrain",
        "recipe": asdict(recipe),
        "seed": seed,
        "precision": number_format,
        "data": {"base": base.fingerprint.as_dict(), "val": val.fingerprint.as_dict()},
    }
    result = folder.open(settings, resume=resume)
    if result is not None:
        return result
    validator = Validator(val, recipe.validation)
    with rank_zero_first():
        pixels = base.pixels(recipe.model.resize)
    batches = classification_batches(
        pixels, base.labels, recipe.batch_size, recipe.epochs, seed, rotations=recipe.rotations, parts=recipe.parts
    )
    steps_per_epoch = len(batches) // recipe.epochs
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        classes = len(base.classes) * (4 if recipe.rotations else 1)
        task = Pretraining(recipe.model.build(), classes, recipe, len(batches))
    each = recipe.batch_size // recipe.parts
    needed = estimate(task.model, recipe.memory, each, bf16=number_format == "bf16-mixed")
    with rank_zero_first():
        prepare(task.model, val)
    folder.begin(settings)
    return fit(
        Training(task, recipe, validator, steps_per_epoch),
        batches,
        folder,
        title="pre-training",
        steps_per_epoch=steps_per_epoch,
        validate_every=recipe.validation.every * steps_per_epoch,
        precision=number_format,
        accelerator=accelerator,
        notice=needed,
    )

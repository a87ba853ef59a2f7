"""Pre-training: a linear classifier over the base classes on the pooled embedding, judged by DeepEMD's accuracy.

Source: Zhang et al., DeepEMD (CVPR 2020), section 5.1.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepemd.data import Images
from deepemd.data.augment import Augment
from deepemd.model import DeepEMD
from deepemd.nodes import encode
from deepemd.training.batches import Batch, check_seed, classification_batches
from deepemd.training.device import Device, Precision, choose_device, choose_precision
from deepemd.training.estimate import estimate
from deepemd.training.evaluate import Figure
from deepemd.training.fit import Meter, fit, sgd
from deepemd.training.folder import RunFolder, TrainingResult
from deepemd.training.recipes import PretrainRecipe
from deepemd.training.validation import Validator

__all__ = ["PretrainModule", "pretrain"]


class PretrainModule(pl.LightningModule):
    """Classifies base images; validates by episodes.

    Args:
        model: whose encoder is trained.
        classes: number of base classes.
        recipe: the settings.
        validator: the fixed episodes.
        steps_per_epoch: for the learning rate.
    """

    def __init__(
        self, model: DeepEMD, classes: int, recipe: PretrainRecipe, validator: Validator, steps_per_epoch: int
    ) -> None:
        super().__init__()
        self.model = model
        self.classifier = nn.Linear(model.backbone.channels, classes)
        self.meter = Meter()
        sizes = recipe.sizes or (model.image_size,)
        self.augments = nn.ModuleList(Augment(size, **asdict(recipe.augmentation)) for size in sizes)
        self.recipe = recipe
        self.validator = validator
        self.steps_per_epoch = steps_per_epoch
        self.accuracy: Figure | None = None

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        return self.recipe.lr * self.recipe.schedule.factor(step / self.steps_per_epoch, self.recipe.epochs)

    def augment(self, step: int) -> nn.Module:
        """The augmentation of a step, to the size of crops of this part of the run."""
        return self.augments[len(self.augments) * step // (self.recipe.epochs * self.steps_per_epoch)]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD; :meth:`rate` sets its learning rate each step."""
        return sgd(self, self.recipe.lr, self.recipe.weight_decay)

    def on_after_batch_transfer(self, batch: Any, *_: Any) -> Any:
        """Augment on the device, outside of autocast."""
        if not isinstance(batch, Batch):
            return batch
        return batch._replace(images=self.augment(batch.step)(batch.images, batch.seed))

    def on_train_batch_start(self, batch: Batch, *_: Any) -> None:
        """Set the learning rate, a function of the step."""
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.rate(batch.step)

    def training_step(self, batch: Batch) -> Tensor:
        """Cross-entropy of the base classes."""
        images = self.model.normalise(batch.images)  # (B, 3, S, S)
        maps = encode(self.model.backbone, images, self.recipe.memory)  # -> (B, C, h, w)
        with torch.autocast(maps.device.type, enabled=False):
            logits = self.classifier(maps.float().mean((2, 3)))  # -> (B, C) -> (B, K)
            loss = F.cross_entropy(logits, batch.labels, label_smoothing=self.recipe.label_smoothing)
        self.meter.check(loss, batch.step)
        self.meter.add(loss, logits, batch.labels)
        self.log("loss", loss)
        return loss

    def validation_step(self, indices: np.ndarray) -> None:
        """Embed some of the images of the episodes."""
        self.validator.embed(self.model, indices)

    def on_validation_epoch_end(self) -> None:
        """Match the episodes."""
        self.accuracy = self.validator.measure(self.model)
        self.log("val_accuracy", self.accuracy.mean)


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
    the same number of threads ends as one that was not, to the bit.

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
    pixels = base.pixels(recipe.model.resize)
    batches = classification_batches(
        pixels, base.labels, recipe.batch_size, recipe.epochs, seed, rotations=recipe.rotations
    )
    steps_per_epoch = len(batches) // recipe.epochs
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        classes = len(base.classes) * (4 if recipe.rotations else 1)
        module = PretrainModule(recipe.model.build(), classes, recipe, validator, steps_per_epoch)
    needed = estimate(module.model, recipe.memory, recipe.batch_size, bf16=number_format == "bf16-mixed")
    folder.begin(settings)
    return fit(
        module,
        batches,
        folder,
        title="pre-training",
        steps_per_epoch=steps_per_epoch,
        validate_every=recipe.validation.every * steps_per_epoch,
        precision=number_format,
        accelerator=accelerator,
        notice=needed,
    )

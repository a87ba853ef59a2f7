"""Meta-training: whole episodes through the encoder and the transport, with the full gradient.

Source: Zhang et al., DeepEMD (CVPR 2020), section 5.1.
"""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from deepemd.data import EpisodeSampler, Images
from deepemd.data.augment import Augment
from deepemd.device import Device, Precision, choose_device, choose_precision
from deepemd.embedding.cache import fingerprint
from deepemd.embedding.views import View, prepare, view
from deepemd.model import DeepEMD
from deepemd.nodes import FCN, parse_regions
from deepemd.processes import process_group, rank_zero_first
from deepemd.training.batches import Batch, check_seed, episode_batches
from deepemd.training.estimate import estimate
from deepemd.training.fit import fit
from deepemd.training.folder import RunFolder, TrainingResult
from deepemd.training.keeper import diverged
from deepemd.training.recipes import MetatrainRecipe
from deepemd.training.steps import Training
from deepemd.training.validation import Validator

__all__ = ["Metatraining", "metatrain"]


class Metatraining(nn.Module):
    """Classifies the queries of training episodes.

    Args:
        model: what is trained.
        recipe: the settings.
    """

    def __init__(self, model: DeepEMD, recipe: MetatrainRecipe) -> None:
        super().__init__()
        self.model = model
        whole = isinstance(model.regions, FCN)  # else patches are cut from the original: they are the crops
        self.vary = (
            Augment(model.image_size, **asdict(recipe.augmentation))
            if whole
            else Augment(None, flip=False, jitter=recipe.augmentation.jitter)
        )
        self.recipe = recipe

    def augment(self, batch: Batch) -> Batch:
        """Vary the images."""
        return batch._replace(images=self.vary(batch.images, batch.seed))

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the queries over all episodes of the batch, which batch norm sees together; and logits
        (E * Q, n_way)."""
        recipe = self.recipe
        # (E * (n_way * n_shot + Q), 3, H, W) -> (..., N, C)
        nodes = self.model.embed(batch.images, batch.boxes, flip=self._flip(batch), memory=recipe.memory)
        if nodes.device.type == "cpu" and not torch.isfinite(nodes).all():
            raise diverged("the embeddings are", batch.step)
        episodes = recipe.episodes_per_step // recipe.parts
        nodes = nodes.unflatten(0, (episodes, -1))  # -> (E, n_way * n_shot + Q, N, C)
        support, query = nodes.split((recipe.n_way * recipe.n_shot, recipe.n_way * recipe.n_query), dim=1)
        logits = self.model.match(support, query, recipe.n_way, query_chunk=recipe.memory.query_chunk)
        logits = logits.flatten(0, 1)  # (E, Q, n_way) -> (E * Q, n_way)
        return F.cross_entropy(logits, batch.labels), logits

    def _flip(self, batch: Batch) -> Tensor | None:
        """Which patches to mirror, (B, M): half of them, a function of the batch's seed."""
        if batch.boxes is None or not self.recipe.augmentation.flip:
            return None
        coins = torch.rand(batch.boxes.shape[:2], generator=torch.Generator().manual_seed(batch.seed))
        return coins < 0.5


@process_group()
def metatrain(
    recipe: MetatrainRecipe,
    model: str | Path,
    base: Images,
    val: Images,
    out: str | Path,
    *,
    seed: int = 0,
    resume: bool = False,
    precision: Precision = "auto",
    device: Device = "auto",
) -> TrainingResult:
    """Train a saved model on episodes and keep the best by validation accuracy, never one worse than it was.

    Args:
        recipe: the settings; see :data:`deepemd.training.recipes.GLYPHS_METATRAIN` for a complete one.
        model: the model to start from: a folder, usually ``best`` of a pre-training run, or a name that
            :meth:`deepemd.DeepEMD.from_pretrained` takes.
        base, val, out, seed, resume, precision, device: as for :func:`deepemd.training.pretrain.pretrain`.

    Raises:
        InputError: as for pre-training; or `model` is no saved model.
        Interrupted: SIGTERM or Ctrl-C came; everything is on the disk.
    """
    folder = RunFolder(Path(out))
    start = DeepEMD.from_pretrained(model).train()
    if recipe.regions:
        start.regions = parse_regions(recipe.regions)
    accelerator = choose_device(device)
    number_format = choose_precision(precision, accelerator)
    check_seed(seed)
    settings = {
        "command": "metatrain",
        "recipe": asdict(recipe),
        "model": {"config": start.config, "sha256": fingerprint(start)},
        "seed": seed,
        "precision": number_format,
        "data": {"base": base.fingerprint.as_dict(), "val": val.fingerprint.as_dict()},
    }
    result = folder.open(settings, resume=resume)
    if result is not None:
        return result
    validator = Validator(val, recipe.validation)
    episodes = EpisodeSampler(
        base.labels,
        recipe.n_way,
        recipe.n_shot,
        recipe.n_query,
        n_episodes=recipe.epochs * recipe.episodes_per_epoch,
        seed=seed,
        groups=base.groups,
        names=base.classes,
    )

    def see(indices: NDArray[np.int64], seed: int) -> View:
        return view(start, base, indices, seed=seed, training=True)

    batches = episode_batches(see, episodes, recipe.episodes_per_step, recipe.parts)
    steps_per_epoch = recipe.episodes_per_epoch // recipe.episodes_per_step
    images = recipe.episodes_per_step // recipe.parts * recipe.n_way * (recipe.n_shot + recipe.n_query)
    needed = estimate(start, recipe.memory, images, n_way=recipe.n_way, bf16=number_format == "bf16-mixed")
    with rank_zero_first():
        prepare(start, base, val)
    folder.begin(settings)
    return fit(
        Training(Metatraining(start, recipe), recipe, validator, steps_per_epoch),
        batches,
        folder,
        title="meta-training",
        steps_per_epoch=steps_per_epoch,
        validate_every=recipe.validation.every * steps_per_epoch,
        precision=number_format,
        accelerator=accelerator,
        validate_first=True,
        notice=needed,
    )

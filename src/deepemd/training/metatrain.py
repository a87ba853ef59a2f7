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

from deepemd.data import Episodes, Images
from deepemd.data.augment import Augment
from deepemd.device import Device, Precision
from deepemd.embedding.cache import fingerprint
from deepemd.embedding.views import View, view
from deepemd.model import DeepEMD
from deepemd.nodes import WholeImage, parse_regions
from deepemd.processes import process_group
from deepemd.training.batches import Batch, episode_batches
from deepemd.training.folder import TrainingResult
from deepemd.training.recipes import MetatrainRecipe
from deepemd.training.run import Plan, run
from deepemd.training.steps import diverged

__all__ = ["Metatraining", "metatrain"]


class Metatraining(nn.Module):
    """The task of meta-training: classify the queries of training episodes.

    Args:
        model: the model to train.
        recipe: the settings.
    """

    def __init__(self, model: DeepEMD, recipe: MetatrainRecipe) -> None:
        super().__init__()
        self.model = model
        whole = isinstance(model.regions, WholeImage)  # otherwise the patches serve as random crops
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
        """Return the cross-entropy of all queries, and the logits (E * Q, n_way).

        Batch norm sees all episodes of the micro-batch together.
        """
        recipe = self.recipe
        # (E * (n_way * n_shot + Q), 3, H, W) -> (..., N, C)
        nodes = self.model.embed(batch.images, batch.boxes, flip=self._flip(batch), memory=recipe.memory)
        if nodes.device.type == "cpu" and not torch.isfinite(nodes).all():
            raise diverged("the embeddings are", batch.step)
        episodes = recipe.episodes_per_step // recipe.grad_accum_steps
        nodes = nodes.unflatten(0, (episodes, -1))  # -> (E, n_way * n_shot + Q, N, C)
        support, query = nodes.split((recipe.n_way * recipe.n_shot, recipe.n_way * recipe.n_query), dim=1)
        logits = self.model.match(support, query, recipe.n_way, query_chunk=recipe.memory.query_chunk)
        logits = logits.flatten(0, 1)  # (E, Q, n_way) -> (E * Q, n_way)
        return F.cross_entropy(logits, batch.labels), logits

    def _flip(self, batch: Batch) -> Tensor | None:
        """Choose which patches (B, M) are mirrored: half of them, as a function of the batch's seed."""
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
    """Train a saved model on episodes; save the state with the best validation accuracy, including the initial one.

    Args:
        recipe: the settings; see :data:`deepemd.training.recipes.GLYPHS_METATRAIN` for a complete one.
        model: the initial model: a folder, usually ``best`` of a pre-training run, or a name that
            :meth:`deepemd.DeepEMD.from_pretrained` takes.
        base, val, out, seed, resume, precision, device: as for :func:`deepemd.training.pretrain.pretrain`.

    Raises:
        InputError: as for pre-training; or `model` is not a saved model.
        Interrupted: SIGTERM or Ctrl-C was received; everything is saved.
    """
    start = DeepEMD.from_pretrained(model).train()
    if recipe.regions:
        start.regions = parse_regions(recipe.regions)

    def make_view(indices: NDArray[np.int64], seed: int) -> View:
        return view(start, base, indices, seed=seed, training=True)

    def make_plan() -> Plan:
        length = recipe.epochs * recipe.episodes_per_epoch
        episodes = Episodes(recipe.n_way, recipe.n_shot, recipe.n_query, length, seed).sampler(base)
        return Plan(
            "meta-training",
            Metatraining(start, recipe),
            episode_batches(make_view, episodes, recipe.episodes_per_step, recipe.grad_accum_steps),
            images=recipe.episodes_per_step
            // recipe.grad_accum_steps
            * recipe.n_way
            * (recipe.n_shot + recipe.n_query),
            n_way=recipe.n_way,
            validate_first=True,
        )

    return run(
        *("metatrain", recipe, base, val, out, make_plan),
        seed=seed,
        resume=resume,
        precision=precision,
        device=device,
        start={"config": start.config, "sha256": fingerprint(start)},
    )

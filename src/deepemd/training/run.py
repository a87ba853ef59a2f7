"""A training run, from its settings to its result, as pre-training and meta-training share it."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deepemd.data import Images
from deepemd.device import Device, Precision, choose_device, choose_precision
from deepemd.embedding.views import prepare
from deepemd.processes import rank_zero_first
from deepemd.results import shared_output_lock
from deepemd.training.batches import Batches, check_seed
from deepemd.training.estimate import estimate
from deepemd.training.fit import fit
from deepemd.training.folder import RunFolder, TrainingResult
from deepemd.training.recipes import MetatrainRecipe, PretrainRecipe
from deepemd.training.steps import Task, Training
from deepemd.training.validation import Validator

__all__ = ["Plan", "run"]


@dataclass(frozen=True)
class Plan:
    """The plan of a run: the module to train, and the batches.

    Attributes:
        title: name of the training, for the terminal.
        task: the module to train.
        batches: all steps of the run.
        images: images of a micro-batch.
        n_way: classes of an episode; None where no episodes are matched.
        validate_first: whether the initial model is a candidate for the best.
    """

    title: str
    task: Task
    batches: Batches
    images: int
    n_way: int | None = None
    validate_first: bool = False


def run(
    command: str,
    recipe: PretrainRecipe | MetatrainRecipe,
    base: Images,
    val: Images,
    out: str | Path,
    make_plan: Callable[[], Plan],
    *,
    seed: int,
    resume: bool,
    precision: Precision,
    device: Device,
    start: Mapping[str, Any] | None = None,
) -> TrainingResult:
    """Open the run's folder, and train unless the run has already ended.

    All settings are checked before anything is written, and `make_plan` is called only if there is something to train.

    Args:
        command: name of the training in config.yaml.
        recipe, base, val, out, seed, resume, precision, device: as for :func:`deepemd.training.pretrain.pretrain`.
        make_plan: function that makes the plan, including any long preparation.
        start: description of the initial model, for config.yaml.
    """
    folder = RunFolder(Path(out))
    accelerator = choose_device(device)
    number_format = choose_precision(precision, accelerator)
    check_seed(seed)
    settings = {
        "command": command,
        "recipe": asdict(recipe),
        **({} if start is None else {"model": dict(start)}),
        "seed": seed,
        "precision": number_format,
        "data": {"base": base.fingerprint.as_dict(), "val": val.fingerprint.as_dict()},
    }
    with shared_output_lock(folder.config):
        result = folder.open(settings, resume=resume)
        if result is not None:
            return result
        validator = Validator(val, recipe.validation)
        plan = make_plan()
        model, bf16 = plan.task.model, number_format == "bf16-mixed"
        needed = estimate(model, recipe.memory, plan.images, n_way=plan.n_way, bf16=bf16)
        with rank_zero_first():
            prepare(model, base, val)
        folder.begin(settings)
        steps_per_epoch = len(plan.batches) // recipe.epochs
        return fit(
            Training(plan.task, recipe, validator, steps_per_epoch),
            plan.batches,
            folder,
            title=plan.title,
            steps_per_epoch=steps_per_epoch,
            validate_every=recipe.validation.every * steps_per_epoch,
            precision=number_format,
            accelerator=accelerator,
            validate_first=plan.validate_first,
            notice=needed,
        )

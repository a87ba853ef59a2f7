"""Train with Lightning, from the first step or from a checkpoint, until the run has ended."""

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from pytorch_lightning.strategies import DDPStrategy

from deepemd.device import keep_freed_memory
from deepemd.errors import InputError
from deepemd.nodes import Memory
from deepemd.processes import process_info, world_size
from deepemd.progress import say
from deepemd.training.batches import Batches
from deepemd.training.checkpoint import CheckpointFiles
from deepemd.training.display import ProgressDisplay
from deepemd.training.folder import RunFolder, TrainingResult
from deepemd.training.saving import STATE, CheckpointCallback
from deepemd.training.steps import Training

__all__ = ["fit"]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Lightning's banners and tips, and a warning with newer versions of torch.

    The thread in which TensorBoard writes is silenced too: its error is raised at the next write.
    """
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch")]
    levels = [logger.level for logger in loggers]
    hook = threading.excepthook

    def unless_tensorboard(died: threading.ExceptHookArgs) -> None:
        if not type(died.thread).__module__.startswith("tensorboard."):
            hook(died)

    for logger in loggers:
        logger.setLevel(logging.ERROR)
    threading.excepthook = unless_tensorboard
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            yield
    finally:
        threading.excepthook = hook
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def fit(
    module: Training,
    batches: Batches,
    folder: RunFolder,
    *,
    title: str,
    steps_per_epoch: int,
    validate_every: int,
    precision: Literal["bf16-mixed", "32-true"],
    accelerator: str,
    validate_first: bool = False,
    notice: object = None,
) -> TrainingResult:
    """Train to the end of the run.

    For Lightning the whole run is one epoch, so that its checkpoints store the step; our epochs are counted in steps.

    Args:
        module: the module to train.
        batches: all steps of the run.
        folder: folder of the run, which has been opened.
        title: name of the training, for the terminal.
        steps_per_epoch: steps of one of our epochs.
        validate_every: steps between validations; divides the number of steps.
        precision, accelerator: Lightning's names.
        validate_first: whether the initial model is a candidate for the best.
        notice: a line to print before training begins, such as an estimate of its memory.

    Raises:
        Interrupted: SIGTERM or Ctrl-C was received; everything is saved.
        KeyboardInterrupt: a second Ctrl-C was received; the steps since the last checkpoint are lost.
        InputError: the loss or the weights are no longer finite, or the folder cannot be written.
    """
    steps = len(batches)
    display = ProgressDisplay(title, steps // steps_per_epoch, steps_per_epoch)
    saving = CheckpointCallback(folder, steps=steps, steps_per_epoch=steps_per_epoch, every=validate_every)
    checkpoint = folder.checkpoint(module)
    if checkpoint is not None and checkpoint.content["global_step"] >= steps:  # interrupted after the last step
        return folder.finish(checkpoint.content["callbacks"][STATE]["best"], steps)
    done = 0 if checkpoint is None else int(checkpoint.content["global_step"])
    if notice is not None:
        say(str(notice))
    if (
        accelerator == "cpu" and module.recipe.memory == Memory()
    ):  # otherwise freed blocks often do not fit the next step
        keep_freed_memory()
    environment = TorchElasticEnvironment() if world_size() > 1 else LightningEnvironment()  # never Slurm's
    with quiet(), saving.signals.handled():
        trainer = pl.Trainer(
            accelerator=accelerator,
            **_engine(),
            precision=precision,
            benchmark=accelerator == "cuda",
            max_epochs=1,
            val_check_interval=validate_every,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            callbacks=[display, saving],
            plugins=[CheckpointFiles(), environment],
            logger=TensorBoardLogger(folder.path, name="tensorboard", version="", purge_step=done or None),
            log_every_n_steps=min(10, steps),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder.path,
        )
        resume_from = None if checkpoint is None else str(checkpoint.path)
        del checkpoint  # its memory
        try:
            if validate_first and resume_from is None:
                trainer.validate(module, dataloaders=module.validator, verbose=False)
            trainer.fit(module, batches, module.validator, ckpt_path=resume_from, weights_only=True)
        except SystemExit as stop:  # Lightning's reaction to a second Ctrl-C
            raise KeyboardInterrupt from stop
        except OSError as error:  # raised for TensorBoard's file; our own files have their own messages
            raise InputError(f"{folder.path}: cannot be written ({error}); free space and --resume") from error
    result = folder.finish(saving.best, steps)
    if saving.signals.received is not None:  # received in the last step: begin nothing else
        signal.raise_signal(saving.signals.received)
    return result


def _engine() -> dict[str, Any]:
    """Return Lightning's settings for the processes that share the run."""
    if world_size() == 1:
        return {"devices": 1}
    here = process_info().local_world_size
    return {
        "devices": here,
        "num_nodes": world_size() // here,
        "strategy": DDPStrategy(),
    }

"""Runs a Lightning module from its first step, or from where it was interrupted, to its result."""

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn

from deepemd.errors import InputError
from deepemd.training.batches import Batches
from deepemd.training.checkpoint import CheckpointFiles
from deepemd.training.device import keep_freed_memory
from deepemd.training.folder import RunFolder, TrainingResult
from deepemd.training.keeper import STATE, Keeper, diverged
from deepemd.training.progress import ProgressDisplay

__all__ = ["Meter", "fit", "sgd"]


class Meter(nn.Module):
    """Means of loss and accuracy since the last validation; its sums travel with the checkpoint."""

    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(3))  # loss, accuracy, count

    @torch.no_grad()
    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count a step: loss of it, logits (..., K) and labels (...)."""
        accuracy = (logits.argmax(-1) == labels).float().mean()
        self.sums += torch.stack((loss.detach().float(), accuracy, torch.ones_like(accuracy)))

    def read(self) -> tuple[float, float]:
        """Mean loss and mean accuracy, NaN before the first step."""
        loss, accuracy, count = self.sums.tolist()
        return (loss / count, accuracy / count) if count else (float("nan"), float("nan"))

    def reset(self) -> None:
        """Begin anew."""
        self.sums.zero_()

    def check(self, loss: Tensor, step: int) -> None:
        """Stop a run that has diverged; on a GPU only now and then, for looking at a number holds it up."""
        if (loss.device.type == "cpu" or step % 20 == 0) and not torch.isfinite(loss + self.sums[0]):
            raise diverged("the loss is", step)


def sgd(module: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Stochastic gradient descent with Nesterov momentum 0.9, as in the paper."""
    return torch.optim.SGD(module.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=weight_decay)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Lightning's banners and tips, and a warning that it draws from newer versions of torch.

    TensorBoard's writing thread is silenced too: what stops it is raised again at the next write.
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
    module: Any,
    batches: Batches,
    folder: RunFolder,
    *,
    title: str,
    steps_per_epoch: int,
    validate_every: int,
    precision: str,
    accelerator: str,
    validate_first: bool = False,
) -> TrainingResult:
    """Train to the end.

    The whole run is one epoch of Lightning's, whose checkpoint and loader know the step; ours are counted in steps.

    Args:
        module: a Lightning module with ``model``, ``meter``, ``validator``, ``accuracy`` and ``rate(step)``.
        batches: all steps.
        folder: opened already.
        title: what to call it on the screen.
        steps_per_epoch: steps of one of our epochs.
        validate_every: steps between validations; divides the number of steps.
        precision, accelerator: Lightning's names.
        validate_first: whether the model that training starts from is a candidate for the best.

    Raises:
        Interrupted: SIGTERM or Ctrl-C.
        KeyboardInterrupt: a second Ctrl-C; what was done since the last checkpoint is lost.
        InputError: the loss or the weights left the finite, or the folder cannot be written.
    """
    steps = len(batches)
    display = ProgressDisplay(title, steps // steps_per_epoch, steps_per_epoch)
    keeper = Keeper(folder, steps=steps, steps_per_epoch=steps_per_epoch, every=validate_every, display=display)
    checkpoint = folder.checkpoint(module)
    if checkpoint is not None and checkpoint.content["global_step"] >= steps:  # interrupted after the last step
        return folder.finish(checkpoint.content["callbacks"][STATE]["best"], steps)
    done = 0 if checkpoint is None else int(checkpoint.content["global_step"])
    if accelerator == "cpu":
        keep_freed_memory()
    with quiet(), keeper.signals():
        trainer = pl.Trainer(
            accelerator=accelerator,
            devices=1,
            precision=_lightning_precision(precision),
            benchmark=accelerator == "cuda",
            max_epochs=1,
            val_check_interval=validate_every,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            callbacks=[display, keeper],
            plugins=[CheckpointFiles()],
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
        except SystemExit as stop:  # what Lightning makes of a second Ctrl-C
            raise KeyboardInterrupt from stop
        except OSError as error:  # of TensorBoard's own file: ours are written with messages of their own
            raise InputError(f"{folder.path}: cannot be written ({error}); free space and --resume") from error
    result = folder.finish(keeper.best, steps)
    if keeper.received is not None:  # it came in the last step: this run has ended, what would follow shall not begin
        signal.raise_signal(keeper.received)
    return result


def _lightning_precision(precision: str) -> Literal["bf16-mixed", "32-true"]:
    return "bf16-mixed" if precision == "bf16-mixed" else "32-true"

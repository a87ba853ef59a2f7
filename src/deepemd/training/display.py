"""Show the progress of a run: steps, loss, accuracy and time left, and the progress of each validation."""

import time
from typing import Any

import pytorch_lightning as pl

from deepemd.progress import Progress, say

__all__ = ["ProgressDisplay"]

_REFRESH = 0.5  # seconds between readings of the means: at every step, they would stall a GPU


class ProgressDisplay(pl.Callback):
    """Shows the progress of a run on standard error: a bar on a terminal, plain lines elsewhere.

    The module has ``meter``, with the running means of loss and accuracy, and ``validator``.

    Args:
        title: name of the training, such as "pre-training".
        epochs: number of epochs of the run.
        steps_per_epoch: steps of an epoch.
    """

    def __init__(self, title: str, epochs: int, steps_per_epoch: int) -> None:
        self.title = title
        self.epochs = epochs
        self.steps_per_epoch = steps_per_epoch
        self._training: Progress | None = None
        self._validation: Progress | None = None
        self._batches = self._validated = 0  # of a validation
        self._read = 0.0  # when the means were last read

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Begin at the step from which the run continues."""
        step, total = trainer.global_step, int(trainer.num_training_batches)
        say(f"{self.title}: {self.epochs} epochs, {total} steps" + f", from step {step}" * bool(step))
        self._training = Progress(self._epoch(step), total, "steps", done=step).__enter__()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        """Show the step, and from time to time the means."""
        if self._training is None:
            return
        now = time.monotonic()
        if now - self._read >= _REFRESH:
            self._read = now
            loss, accuracy = pl_module.meter.read()
            self._training.detail = f"loss {loss:.3f}, accuracy {100 * accuracy:.1f} %"
        self._training.description = self._epoch(trainer.global_step)
        self._training.set(trainer.global_step)

    def on_validation_start(self, _trainer: pl.Trainer, pl_module: Any) -> None:
        """Show the progress of the validation: beside that of the training, or alone before the training begins."""
        self._batches = len(pl_module.validator)
        self._validated = 0
        if self._training is None:
            self._validation = Progress("validating the initial model", self._batches, "batches").__enter__()

    def on_validation_batch_end(self, *_: Any) -> None:
        """Advance by a batch of images."""
        self._validated += 1
        if self._validation is not None:
            self._validation.advance()
        elif self._training is not None:
            self._training.detail = f"validating, {self._validated} of {self._batches} batches"
            self._training.advance(0)

    def on_validation_end(self, *_: Any) -> None:
        """Return to the progress of the training."""
        if self._validation is not None:
            self._validation.__exit__(None, None, None)
            self._validation = None
        elif self._training is not None:
            self._training.detail = ""

    def on_train_end(self, *_: Any) -> None:
        """Show no more."""
        self._close()

    def on_exception(self, _trainer: pl.Trainer, _pl_module: Any, error: BaseException) -> None:
        """Show no more."""
        self._close(error)

    def _close(self, error: BaseException | None = None) -> None:
        for shown in (self._training, self._validation):
            if shown is not None:
                shown.__exit__(type(error) if error else None, None, None)
        self._training = self._validation = None

    def _epoch(self, step: int) -> str:
        return f"epoch {(max(step, 1) - 1) // self.steps_per_epoch + 1}/{self.epochs}"

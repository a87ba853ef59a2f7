"""Show the progress of a run: on a terminal as a bar with loss, accuracy and time left, elsewhere as plain lines."""

import time
from typing import Any

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deepemd.processes import rank

__all__ = ["ProgressDisplay"]

REFRESH = 0.5  # seconds between updates of the bar
PLAIN = 30.0  # seconds between lines where there is no terminal


class ProgressDisplay(pl.Callback):
    """Shows the progress of a run on standard error.

    The module has ``meter``, with the running means of loss and accuracy, and ``validator``.

    Args:
        title: name of the training, such as "pre-training".
        epochs: number of epochs of the run.
        steps_per_epoch: steps of an epoch.
        console: the console to print on; by default standard error.
    """

    def __init__(self, title: str, epochs: int, steps_per_epoch: int, console: Console | None = None) -> None:
        self.title = title
        self.epochs = epochs
        self.steps_per_epoch = steps_per_epoch
        self.console = console or Console(stderr=True, quiet=rank() > 0)
        self.bar: Progress | None = None
        self._shown = self._started = time.monotonic()
        self._first = 0  # the step at which this process started

    def print(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        self.console.print(text, highlight=False, soft_wrap=True)

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Show the bar, starting at the step from which the run continues."""
        self._shown = self._started = time.monotonic()
        self._first = trainer.global_step
        total = int(trainer.num_training_batches)
        self.print(
            f"{self.title}: {self.epochs} epochs, {total} steps" + f", from step {self._first}" * bool(self._first)
        )
        if not self.console.is_terminal or rank() > 0:
            return
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=14),  # everything fits into 80 columns
            MofNCompleteColumn(),
            TextColumn("{task.fields[means]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=self.console,
            speed_estimate_period=300,
        )
        self.bar.start()
        self.train = self.bar.add_task(self._epoch(self._first), total=total, completed=self._first, means="")
        self.validation = self.bar.add_task("validating", visible=False, means="")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        """Show the means from time to time, because reading them from a GPU at every step would stall it."""
        now = time.monotonic()
        if now - self._shown < (REFRESH if self.bar else PLAIN):
            return
        self._shown = now
        step, total = trainer.global_step, int(trainer.num_training_batches)
        loss, accuracy = pl_module.meter.read()
        means = f"loss {loss:.3f} accuracy {100 * accuracy:.1f} %"
        if self.bar:
            self.bar.update(self.train, completed=step, description=self._epoch(step), means=means)
        else:
            left = (now - self._started) / max(1, step - self._first) * (total - step)
            self.print(f"{self._epoch(step)}  step {step}/{total}  {means}  {left / 60:.1f} min left")

    def on_validation_start(self, _trainer: pl.Trainer, pl_module: Any) -> None:
        """Show the bar of the validation."""
        if self.bar:
            self.bar.reset(self.validation, total=len(pl_module.validator), visible=True)

    def on_validation_batch_end(self, *_: Any) -> None:
        """Advance the bar of the validation by a batch of images."""
        if self.bar:
            self.bar.advance(self.validation)

    def on_validation_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Hide the bar of the validation."""
        if self.bar:
            self.bar.update(self.train, completed=trainer.global_step)
            self.bar.update(self.validation, visible=False)

    def on_train_end(self, *_: Any) -> None:
        """Remove the bar."""
        self.close()

    def on_exception(self, *_: Any) -> None:
        """Remove the bar."""
        self.close()

    def close(self) -> None:
        """Remove the bar, if there is one."""
        if self.bar:
            self.bar.stop()
            self.bar = None

    def _epoch(self, step: int) -> str:
        return f"epoch {(max(step, 1) - 1) // self.steps_per_epoch + 1}/{self.epochs}"

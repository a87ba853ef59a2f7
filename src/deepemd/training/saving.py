"""Save the best model, a checkpoint and the metrics during a run, and stop after a signal."""

import csv
import io
import math
import time
from typing import Any

import pytorch_lightning as pl
import torch

from deepemd.errors import Interrupted
from deepemd.files import atomic_write
from deepemd.processes import all_reduce_max, rank
from deepemd.progress import say
from deepemd.training.checkpoint import STATE
from deepemd.training.folder import RunFolder
from deepemd.training.signals import StopSignals
from deepemd.training.steps import diverged

__all__ = ["STATE", "CheckpointCallback"]

SAVE_EVERY = 120.0  # seconds between checkpoints, in addition to one after each validation


class CheckpointCallback(pl.Callback):
    """Saves and stops between two steps, so that a resumed run gives the same result as an uninterrupted one.

    With several processes, the first one writes, and all stop after the same step, whichever received the signal.

    The module must have ``model``, ``meter``, ``accuracy`` (of the latest validation) and ``rate(step)``.

    Args:
        folder: folder of the run.
        steps: number of steps of the run.
        steps_per_epoch: steps of an epoch, for metrics and messages.
        every: steps between validations.
    """

    def __init__(self, folder: RunFolder, *, steps: int, steps_per_epoch: int, every: int) -> None:
        self.folder = folder
        self.steps = steps
        self.steps_per_epoch = steps_per_epoch
        self.every = every
        self.best: dict[str, float] = {}
        self.rows: list[dict[str, float]] = []
        self.signals = StopSignals(say)
        self._before = 0.0  # seconds before the run was resumed
        self._began = self._saved = time.monotonic()

    @property
    def state_key(self) -> str:
        """The key of this callback's state in a checkpoint."""
        return STATE

    def state_dict(self) -> dict[str, Any]:
        """Return the state of this callback for a checkpoint."""
        return {"best": dict(self.best), "rows": list(self.rows), "seconds": self.seconds()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self.best, self.rows = dict(state_dict["best"]), list(state_dict["rows"])
        self._before, self._began = float(state_dict["seconds"]), time.monotonic()

    def seconds(self) -> float:
        """Return the seconds that the run has taken, including the time before it was resumed."""
        return self._before + time.monotonic() - self._began

    def on_train_start(self, *_: Any) -> None:
        """Replace the signal handlers that Lightning has just set, which do not save between steps."""
        self.signals.listen()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        """Save if it is time, and stop if a signal was received."""
        step = trainer.global_step
        if step % self.every == 0:
            return  # a validation follows, and saves
        stop, save = all_reduce_max(self.signals.received or 0, time.monotonic() - self._saved > SAVE_EVERY)
        if stop or save:
            self.save(trainer, pl_module)
        if stop:
            raise Interrupted(stop, self.folder.path, step, self.steps)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Record the validation, save the model if it is the best so far, and stop if a signal was received."""
        step, accuracy = trainer.global_step, pl_module.accuracy
        loss, train_accuracy = pl_module.meter.read()
        pl_module.meter.reset()
        better = not self.best or accuracy.mean > self.best["accuracy"]
        self.rows.append(
            {
                "step": step,
                "epoch": step / self.steps_per_epoch,
                "loss": loss,
                "accuracy": train_accuracy,
                "val_accuracy": accuracy.mean,
                "val_ci95": accuracy.ci95,
                "lr": pl_module.rate(max(step - 1, 0)),
                "seconds": round(self.seconds(), 1),
            }
        )
        if better:
            self._check_finite(pl_module, step)
            if rank() == 0:
                pl_module.model.save(self.folder.best)
            self.best = {"accuracy": accuracy.mean, "ci95": accuracy.ci95, "step": step}
        if rank() == 0:
            self._write_rows()
        trained = f"loss {loss:.3f}  accuracy {100 * train_accuracy:.1f} %  " if step else ""
        epoch = f"epoch {step / self.steps_per_epoch:g}" if step else "at the start"
        say(f"{epoch}  {trained}validation {accuracy} %{'  (best so far)' if better else ''}")
        if step:  # before the first step there is no optimizer to save
            self.save(trainer, pl_module)
        (stop,) = all_reduce_max(self.signals.received or 0)
        if stop and step < self.steps:
            raise Interrupted(stop, self.folder.path, step, self.steps)

    def save(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write last.ckpt; see :mod:`deepemd.training.checkpoint`."""
        self._check_finite(pl_module, trainer.global_step)
        trainer.save_checkpoint(self.folder.last)  # the first process writes it
        self._saved = time.monotonic()

    def _check_finite(self, pl_module: Any, step: int) -> None:
        if not all(bool(torch.isfinite(parameter).all()) for parameter in pl_module.parameters()):
            raise diverged("the weights are", step)

    def _write_rows(self) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in self.rows:  # unknown values stay empty
            writer.writerow({name: "" if math.isnan(value) else value for name, value in row.items()})
        atomic_write(self.folder.metrics, text.getvalue().encode(), "free some space, then --resume")

"""One step of the optimizer: gradients are accumulated over micro-batches, which the processes share.

A step of K micro-batches has the loss L = (1/K) sum_k L_k. Each micro-batch passes through the encoder on its own, and
batch norm normalises it by its own statistics. It starts with the running statistics s at the beginning of the step and
turns them into s_k; the step sets them to s + (1/K) sum_k (s_k - s). So the result depends neither on the order of the
micro-batches nor on the processes that encode them.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import ParallelStrategy
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from deepemd.errors import InputError
from deepemd.evaluation.intervals import MeanCI
from deepemd.model import DeepEMD
from deepemd.processes import all_reduce
from deepemd.training.batches import Batch
from deepemd.training.recipes import MetatrainRecipe, PretrainRecipe
from deepemd.training.validation import Validator

__all__ = ["Meter", "Statistics", "Task", "Training", "diverged", "sgd"]


class Task(Protocol):
    """A module to train: it holds the model and computes the loss."""

    model: DeepEMD

    def augment(self, batch: Batch) -> Batch:
        """Return the micro-batch with augmented images, on the device."""

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the mean loss (), and the logits (..., K) for `batch.labels`."""


class Meter(nn.Module):
    """The means of loss and accuracy since the last validation; checkpoints hold the sums."""

    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(3))  # loss, accuracy, count

    @staticmethod
    @torch.no_grad()
    def measure(loss: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """Return a micro-batch's addition (3,) to the sums, from its loss (), logits (..., K) and labels (...)."""
        accuracy = (logits.argmax(-1) == labels).float().mean()
        return torch.stack((loss.detach().float(), accuracy, torch.ones_like(accuracy)))

    def read(self) -> tuple[float, float]:
        """Return mean loss and mean accuracy, NaN before the first step."""
        loss, accuracy, count = self.sums.tolist()
        return (loss / count, accuracy / count) if count else (float("nan"), float("nan"))

    def reset(self) -> None:
        """Set all sums to zero."""
        self.sums.zero_()

    def check(self, loss: Tensor, step: int) -> None:
        """Stop a run that has diverged. On a GPU, check only every 20 steps, because reading a number stalls it."""
        if (loss.device.type == "cpu" or step % 20 == 0) and not torch.isfinite(loss + self.sums[0]):
            raise diverged("the loss is", step)


def diverged(what: str, step: int) -> InputError:
    """Return the error for a run with numbers that are not finite, such as "the loss is"."""
    return InputError(
        f"{what} not finite at step {step}: the run has diverged; start again in another folder with a lower lr or"
        " a longer warm-up (the best model so far and the last checkpoint are saved)"
    )


def sgd(module: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Return stochastic gradient descent with Nesterov momentum 0.9, as in the paper."""
    return torch.optim.SGD(module.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=weight_decay)


class Statistics:
    """The running statistics of a module over the micro-batches of one step; other buffers stay as they are.

    Args:
        module: the module at the beginning of the step.
    """

    def __init__(self, module: nn.Module) -> None:
        self.floats = [buffer for buffer in module.buffers() if buffer.is_floating_point()]
        self.counts = [buffer for buffer in module.buffers() if not buffer.is_floating_point()]
        self.before = parameters_to_vector(self.floats)  # (D,)
        self.counted = [buffer.clone() for buffer in self.counts]
        self.change = torch.zeros_like(self.before)  # sum_k (s_k - s) of this process

    def begin(self) -> None:
        """Restore the statistics at the beginning of the step, before a micro-batch."""
        self._put(self.before)
        for buffer, counted in zip(self.counts, self.counted, strict=True):
            buffer.copy_(counted)

    def end(self) -> None:
        """Record the change, after a micro-batch."""
        self.change += parameters_to_vector(self.floats) - self.before

    def finish(self, change: Tensor, micro_batches: int) -> None:
        """Set the mean over all micro-batches of the step, from the sum (D,) of their changes."""
        self._put(self.before + change / micro_batches)

    def _put(self, values: Tensor) -> None:
        pieces = values.split([buffer.numel() for buffer in self.floats])
        for buffer, piece in zip(self.floats, pieces, strict=True):
            buffer.copy_(piece.view_as(buffer))


class Training(pl.LightningModule):
    """Trains a task and validates it on episodes. A batch of Lightning is a step: the micro-batches of this process.

    Args:
        task: the module to train.
        recipe: the settings.
        validator: the fixed episodes.
        steps_per_epoch: the unit of the learning rate's schedule.
    """

    def __init__(
        self, task: Task, recipe: PretrainRecipe | MetatrainRecipe, validator: Validator, steps_per_epoch: int
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.task = task
        self.meter = Meter()
        self.recipe = recipe
        self.validator = validator
        self.steps_per_epoch = steps_per_epoch
        self.accuracy: MeanCI | None = None

    @property
    def model(self) -> DeepEMD:
        """The model that is trained."""
        return self.task.model

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        return self.recipe.lr * self.recipe.schedule.factor(step / self.steps_per_epoch, self.recipe.epochs)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return SGD; :meth:`rate` sets its learning rate at each step."""
        return sgd(self, self.recipe.lr, self.recipe.weight_decay)

    def training_step(self, batches: list[Batch]) -> None:
        """Accumulate the gradients of all micro-batches and take one step of the optimizer."""
        optimizer: Any = self.optimizers()
        for group in optimizer.param_groups:
            group["lr"] = self.rate(batches[0].step)
        optimizer.zero_grad()
        statistics = Statistics(self.task.model) if self.recipe.grad_accum_steps > 1 else None
        sums = torch.zeros(3, device=self.device)
        full_precision = torch.autocast(
            self.device.type, enabled=False
        )  # for everything except the encoder's forward pass
        for batch in batches:
            if statistics:
                statistics.begin()
            with full_precision:
                augmented = self.task.augment(batch)
            loss, logits = self.task(augmented)
            self.meter.check(loss, batch.step)
            with full_precision, self._gradient_sync(batch is batches[-1]):
                self.manual_backward(loss / len(batches))
            sums += self.meter.measure(loss, logits, batch.labels)
            if statistics:
                statistics.end()
        if statistics:
            reduced = all_reduce(torch.cat((sums, statistics.change)))  # (3 + D,), one exchange for both
            sums = reduced[:3]
            statistics.finish(reduced[3:], self.recipe.grad_accum_steps)
        optimizer.step()
        self.meter.sums += sums
        self.log("loss", sums[0] / sums[2])

    def _gradient_sync(self, last: bool) -> AbstractContextManager[None]:
        """Let the processes average their gradients in the backward pass of the last micro-batch only."""
        strategy = self.trainer.strategy
        if last or not isinstance(strategy, ParallelStrategy):
            return nullcontext()
        blocked: AbstractContextManager[None] = strategy.block_backward_sync()
        return blocked

    def validation_step(self, indices: np.ndarray) -> None:
        """Embed a batch of images of the episodes."""
        self.validator.embed(self.model, indices)

    def on_validation_epoch_end(self) -> None:
        """Match the episodes and log their accuracy."""
        self.accuracy = self.validator.measure(self.model)
        self.log("val_accuracy", self.accuracy.mean, sync_dist=True)

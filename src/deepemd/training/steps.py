"""One step of the optimizer: the parts of its batch in turn, over the processes that share them.

A step of P parts has the loss L = (1/P) sum_p L_p. Each part passes through the encoder on its own, and batch norm
normalises it by its own statistics. Of the running statistics every part begins with those s that the step began with,
and would leave s_p; the step leaves s + (1/P) sum_p (s_p - s). So it does not matter in which order a part is encoded,
nor in which process.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import ParallelStrategy
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from deepemd.evaluation.intervals import MeanCI
from deepemd.model import DeepEMD
from deepemd.processes import all_reduce
from deepemd.training.batches import Batch
from deepemd.training.keeper import diverged
from deepemd.training.recipes import MetatrainRecipe, PretrainRecipe
from deepemd.training.validation import Validator

__all__ = ["Meter", "Statistics", "Task", "Training", "sgd"]


class Task(Protocol):
    """What is trained: a module with a model in it."""

    model: DeepEMD

    def augment(self, batch: Batch) -> Batch:
        """The batch with its images varied, on the device."""

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean loss (), and logits (..., K) of what `batch.labels` says."""


class Meter(nn.Module):
    """Means of loss and accuracy since the last validation; its sums travel with the checkpoint."""

    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(3))  # loss, accuracy, count

    @staticmethod
    @torch.no_grad()
    def figures(loss: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """What a part adds to the sums, (3,): loss of it, logits (..., K) and labels (...)."""
        accuracy = (logits.argmax(-1) == labels).float().mean()
        return torch.stack((loss.detach().float(), accuracy, torch.ones_like(accuracy)))

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


class Statistics:
    """The running statistics of a module over the parts of one step; buffers that do not change stay as they are.

    Args:
        module: at the beginning of the step.
    """

    def __init__(self, module: nn.Module) -> None:
        self.floats = [buffer for buffer in module.buffers() if buffer.is_floating_point()]
        self.counts = [buffer for buffer in module.buffers() if not buffer.is_floating_point()]
        self.before = parameters_to_vector(self.floats)  # (D,)
        self.counted = [buffer.clone() for buffer in self.counts]
        self.change = torch.zeros_like(self.before)  # sum_p (s_p - s) of this process

    def begin(self) -> None:
        """Before a part: the statistics that the step began with."""
        self._put(self.before)
        for buffer, counted in zip(self.counts, self.counted, strict=True):
            buffer.copy_(counted)

    def end(self) -> None:
        """After a part."""
        self.change += parameters_to_vector(self.floats) - self.before

    def settle(self, change: Tensor, parts: int) -> None:
        """After the last part, with the sum (D,) of the changes of all `parts`."""
        self._put(self.before + change / parts)

    def _put(self, values: Tensor) -> None:
        pieces = values.split([buffer.numel() for buffer in self.floats])
        for buffer, piece in zip(self.floats, pieces, strict=True):
            buffer.copy_(piece.view_as(buffer))


class Training(pl.LightningModule):
    """Trains a task; validates by episodes. A batch of Lightning's is a step: the parts that this process has of it.

    Args:
        task: what is trained.
        recipe: the settings.
        validator: the fixed episodes.
        steps_per_epoch: for the learning rate.
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
        """The learning rate of a step."""
        return self.recipe.lr * self.recipe.schedule.factor(step / self.steps_per_epoch, self.recipe.epochs)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD; :meth:`rate` sets its learning rate each step."""
        return sgd(self, self.recipe.lr, self.recipe.weight_decay)

    def training_step(self, parts: list[Batch]) -> None:
        """Gradients of all parts, and one step of the optimizer."""
        optimizer: Any = self.optimizers()
        for group in optimizer.param_groups:
            group["lr"] = self.rate(parts[0].step)
        optimizer.zero_grad()
        statistics = Statistics(self.task.model) if self.recipe.parts > 1 else None
        figures = torch.zeros(3, device=self.device)
        full_precision = torch.autocast(self.device.type, enabled=False)  # where the encoder's forward pass is not
        for batch in parts:
            if statistics:
                statistics.begin()
            with full_precision:
                seen = self.task.augment(batch)
            loss, logits = self.task(seen)
            self.meter.check(loss, batch.step)
            with full_precision, self._gradients(among=batch is parts[-1]):
                self.manual_backward(loss / len(parts))
            figures += self.meter.figures(loss, logits, batch.labels)
            if statistics:
                statistics.end()
        if statistics:
            all_of_it = all_reduce(torch.cat((figures, statistics.change)))  # (3 + D,), one exchange for both
            figures = all_of_it[:3]
            statistics.settle(all_of_it[3:], self.recipe.parts)
        optimizer.step()
        self.meter.sums += figures
        self.log("loss", figures[0] / figures[2])

    def _gradients(self, *, among: bool) -> AbstractContextManager[None]:
        """Whether the backward pass takes the mean of the gradients among the processes: in the last part."""
        strategy = self.trainer.strategy
        if among or not isinstance(strategy, ParallelStrategy):
            return nullcontext()
        blocked: AbstractContextManager[None] = strategy.block_backward_sync()
        return blocked

    def validation_step(self, indices: np.ndarray) -> None:
        """Embed some of the images of the episodes."""
        self.validator.embed(self.model, indices)

    def on_validation_epoch_end(self) -> None:
        """Match the episodes."""
        self.accuracy = self.validator.measure(self.model)
        self.log("val_accuracy", self.accuracy.mean, sync_dist=True)

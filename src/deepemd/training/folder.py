"""The folder of a run: its settings, its checkpoints and its result.

out/
  config.yaml              recipe, seed, number format and data fingerprints
  best/                    the saved model with the best validation accuracy: model.safetensors, config.json
  metrics.csv              a row for each validation
  tensorboard/             curves
  last.ckpt                for resuming only
  previous.ckpt            the checkpoint before it, in case last.ckpt is damaged
  result.json              written at the end
"""

import json
import logging
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from deepemd.checks import real_number, whole_number
from deepemd.errors import InputError
from deepemd.files import atomic_write, remove_leftovers
from deepemd.json_files import read_json, write_json
from deepemd.processes import barrier, rank
from deepemd.training.checkpoint import Checkpoint, previous, read
from deepemd.training.old_names import rename_keys

__all__ = ["RunFolder", "TrainingResult"]

_MAX_BYTES = 1_000_000  # of config.yaml


@dataclass(frozen=True)
class TrainingResult:
    """The result of a run.

    Attributes:
        model: folder of the best model.
        accuracy: its validation accuracy, in 0..1.
        ci95: half the width of the 95 % confidence interval of `accuracy`.
        step: the step of the best model.
        steps: number of steps of the run.
        metrics: CSV file with all validations.
    """

    model: Path
    accuracy: float
    ci95: float
    step: int
    steps: int
    metrics: Path


@dataclass(frozen=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """The settings of the run."""
        return self.path / "config.yaml"

    @property
    def best(self) -> Path:
        """The folder of the best model."""
        return self.path / "best"

    @property
    def last(self) -> Path:
        """The latest checkpoint."""
        return self.path / "last.ckpt"

    @property
    def metrics(self) -> Path:
        """The CSV file of the validations so far."""
        return self.path / "metrics.csv"

    def open(self, settings: dict[str, Any], *, resume: bool) -> TrainingResult | None:
        """Check that a run can start in this folder, or that its run can be resumed with these settings.

        Nothing is written yet: see :meth:`begin`.

        Returns:
            The result if the run has already ended, else None.

        Raises:
            InputError: the folder holds a run and `resume` is not set, the run had other settings or data, or without a
                run the folder holds files that one would replace.
        """
        if not self.config.exists():
            self._refuse_other()
            return None
        if not resume:
            raise InputError(
                f"{self.path}: holds a run already: pass --resume to continue it, or choose another folder"
            )
        try:
            earlier = _read_yaml(self.config)
            before = _flat(rename_keys({key: value for key, value in earlier.items() if key != "made_with"}))
        except Exception as error:  # a damaged file raises many types
            raise InputError(f"{self.config}: damaged ({error!s:.200}); start again in another folder") from error
        now = _flat(_plain(settings))
        missing = [name for name in now if name not in before]
        if missing:
            raise InputError(
                f"{self.config}: damaged, or of another version of deepemd: it does not say"
                f" {missing[0]}; start again in another folder"
            )
        for name, old in before.items():
            new = now.get(name, "nothing")
            if old != new:
                raise InputError(
                    f"{name}: the run in {self.path} was started with {old!r}, but {new!r} is requested now: resume it"
                    " with the same value, or start another run in another folder"
                )
        return self.result()

    def _refuse_other(self) -> None:
        """Refuse a folder without a run that holds files of the names of a run's, which would be replaced."""
        for name in ("best", "metrics.csv", "last.ckpt", "previous.ckpt", "result.json", "tensorboard"):
            if os.path.lexists(self.path / name):
                raise InputError(
                    f"{self.path}: holds {name} but no {self.config.name}, so it is not of a run and would be replaced:"
                    " choose another folder, or move it away"
                )

    def begin(self, settings: dict[str, Any]) -> None:
        """Write config.yaml, unless the run has begun, and remove the unfinished files of a killed process.

        Call it when all settings are known to be valid, so that a run that cannot begin leaves no files behind.

        Raises:
            InputError: the folder cannot be written.
        """
        import yaml  # type: ignore[import-untyped]

        barrier()  # every process has checked whether there is a run
        if rank() > 0:
            return
        remove_leftovers(self.path)
        remove_leftovers(self.best)
        if not self.config.exists():
            made_with = {"python": platform.python_version(), "torch": str(torch.__version__)}
            content = yaml.safe_dump({**_plain(settings), "made_with": made_with}, sort_keys=False)
            atomic_write(self.config, content.encode(), "choose another folder")

    def checkpoint(self, module: nn.Module) -> Checkpoint | None:
        """Return the latest undamaged checkpoint; None if the run stopped before the first one.

        Raises:
            InputError: all checkpoints are damaged, or their weights do not match `module`.
        """
        found = self._last_whole()
        if found is None:
            return None
        states = (module.state_dict(), found.content["state_dict"])
        expected, there = ({name: tuple(tensor.shape) for name, tensor in state.items()} for state in states)
        for name in [*expected, *there]:
            if expected.get(name) != there.get(name):
                raise InputError(
                    f"{found.path}: of another architecture: {name} is {there.get(name, 'absent')} in it and"
                    f" {expected.get(name, 'absent')} in this run; put the run's own last.ckpt back, or start again in"
                    " another folder"
                )
        return found

    def _last_whole(self) -> Checkpoint | None:
        """Read last.ckpt, or previous.ckpt if last.ckpt is damaged or missing."""
        damage: ValueError | None = None
        for path in (self.last, previous(self.last)):
            if path.exists():
                try:
                    found = read(path)
                except ValueError as error:
                    damage = damage or error
                else:
                    if damage is not None:
                        logging.getLogger(__name__).warning(
                            "%s: damaged (%s); continuing from %s, step %d",
                            *(self.last, damage, path.name, found.content["global_step"]),
                        )
                    return found
        if damage is not None:
            raise InputError(
                f"{self.last}: damaged or truncated ({damage}), and no undamaged one before it; start again in another"
                " folder"
            ) from damage
        return None

    def finish(self, best: dict[str, float], steps: int) -> TrainingResult:
        """Write result.json at the end of the run, and return the result."""
        accuracy, ci95, step = best["accuracy"], best["ci95"], int(best["step"])
        result = TrainingResult(self.best, accuracy, ci95, step, steps, self.metrics)
        content = {**asdict(result), "model": self.best.name, "metrics": self.metrics.name}
        if rank() == 0:
            write_json(content, self.path / "result.json")
        return result

    def result(self) -> TrainingResult | None:
        """Return the result if the run has ended, else None."""
        path = self.path / "result.json"
        if not path.exists():
            return None
        try:
            content = read_json(path, remedy="remove it and resume the run")
            accuracy, ci95 = (real_number(name, content[name], 0, 1) for name in ("accuracy", "ci95"))
            step, steps = (whole_number(name, content[name], 0) for name in ("step", "steps"))
        except KeyError as error:
            raise InputError(f"{path}: damaged, {error} is missing; remove it and resume the run") from error
        except InputError as error:
            raise InputError(f"{path}: damaged ({error}); remove it and resume the run") from error
        return TrainingResult(self.best, accuracy, ci95, step, steps, self.metrics)


def _read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that a run has written; references, which could unfold to gigabytes, are refused."""
    import yaml

    if path.stat().st_size > _MAX_BYTES or not path.is_file():
        raise ValueError("not a file of settings")
    text = path.read_text(encoding="utf-8")
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
        raise ValueError("it holds references")
    found = yaml.safe_load(text)
    if not isinstance(found, dict):
        raise ValueError(f"it holds a {type(found).__name__}")
    return found


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings as YAML will read them: tuples become lists."""
    return dict(json.loads(json.dumps(settings)))


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested dictionaries to one with dotted names."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        name: leaf
        for key, value in tree.items()
        for name, leaf in _flat(value, f"{prefix}{'.' * bool(prefix)}{key}").items()
    }

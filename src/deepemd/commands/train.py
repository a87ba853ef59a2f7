"""The commands ``deepemd demo``, ``pretrain`` and ``metatrain``."""

from pathlib import Path
from typing import TYPE_CHECKING

from deepemd.device import Device, Precision
from deepemd.errors import InputError
from deepemd.processes import rank, rank_zero_first
from deepemd.results import output_lock, shared_output_lock
from deepemd.training.recipes import MetatrainRecipe, PretrainRecipe

if TYPE_CHECKING:
    from deepemd.data import Images
    from deepemd.training.folder import TrainingResult

__all__ = ["demo", "metatrain", "pretrain"]

_CONFIG_FILE = "config.yaml"  # of a run; its lock is that of the run


def demo(out: Path = Path("deepemd-demo"), seed: int = 0, n_episodes: int = 1000, resume: bool = False) -> None:
    """Train DeepEMD on the built-in letters and recognise letters of scripts it has never seen.

    Renders the letters, pre-trains and meta-trains a small encoder, compares DeepEMD with ProtoNet and local k-NN on
    Armenian and Georgian letters, and writes a page with the table, the learning curves and pictures of matched parts.
    Takes minutes on a laptop's CPU and needs no internet.

    Args:
        out: folder of the report and of both training runs.
        seed: seed of the weights, the order of the images and the augmentation.
        n_episodes: number of evaluation episodes; the intervals narrow with its square root.
        resume: continue a demo that was interrupted.
    """
    from deepemd.apps.demo import run_demo

    with output_lock(out / "index.html"):
        run_demo(out, seed=seed, n_episodes=n_episodes, resume=resume)


def pretrain(
    data: str,
    out: Path,
    recipe: PretrainRecipe = PretrainRecipe(),  # noqa: B008  (frozen)
    seed: int = 0,
    resume: bool = False,
    precision: Precision = "auto",
    device: Device = "auto",
    root: Path | None = None,
) -> None:
    """Train an encoder as a classifier of the base classes; save the best by DeepEMD accuracy on validation episodes.

    The folder OUT receives best/ (the model), last.ckpt (for --resume), config.yaml, metrics.csv and TensorBoard
    logs. After Ctrl-C or SIGTERM, --resume continues the run.

    Args:
        data: a data set with the splits base and val: a name of `deepemd data list`, or a folder.
        out: folder of the run.
        recipe: settings of the run, by default the paper's (recipes/ in the source holds complete files for --config).
        seed: seed of the weights, the order of the images and the augmentation; the same seed gives the same run.
        resume: continue the run in OUT, or start it if there is none.
        precision: number format of the encoder.
        device: device to train on.
        root: folder of the prepared data sets; by default $DEEPEMD_DATA, else ~/.cache/deepemd/data.
    """
    from deepemd.training.pretrain import pretrain as run

    with shared_output_lock(out / _CONFIG_FILE):
        base, val = _splits(data, root)
        _print(run(recipe, base, val, out, seed=seed, resume=resume, precision=precision, device=device))


def metatrain(
    model: Path,
    data: str,
    out: Path,
    recipe: MetatrainRecipe = MetatrainRecipe(),  # noqa: B008  (frozen)
    seed: int = 0,
    resume: bool = False,
    precision: Precision = "auto",
    device: Device = "auto",
    root: Path | None = None,
) -> None:
    """Train a pre-trained model further on whole episodes, with gradients through the transport.

    The folder OUT receives the same files as with `deepemd pretrain`. The initial model is validated first, so the
    saved model is never worse on the validation episodes.

    Args:
        model: initial model: the folder best/ of a pre-training run, or resnet12-miniimagenet, which is installed.
        data: a data set with the splits base and val: a name of `deepemd data list`, or a folder.
        out: folder of the run.
        recipe: settings of the run, by default the paper's (recipes/ in the source holds complete files for --config).
        seed: seed of the episodes and the augmentation; the same seed gives the same run.
        resume: continue the run in OUT, or start it if there is none.
        precision: number format of the encoder.
        device: device to train on.
        root: folder of the prepared data sets; by default $DEEPEMD_DATA, else ~/.cache/deepemd/data.
    """
    from deepemd.training.metatrain import metatrain as run

    with shared_output_lock(out / _CONFIG_FILE):
        base, val = _splits(data, root)
        _print(run(recipe, model, base, val, out, seed=seed, resume=resume, precision=precision, device=device))


def _print(result: "TrainingResult") -> None:
    if rank() == 0:
        print(f"model: {result.model}, validation accuracy {100 * result.accuracy:.2f} ± {100 * result.ci95:.2f} %")


def _splits(data: str, root: Path | None) -> "tuple[Images, Images]":
    """Load the base and validation splits of a data set."""
    from deepemd.data import load

    with rank_zero_first():
        store = load(data, root)
    for split in ("base", "val"):
        if split not in store.splits:
            raise InputError(
                f"data: {data} has no split {split!r}, only {', '.join(store.splits)}; training needs base and val: "
                "a folder must hold base/ and val/ (or train/ and val/), with class folders in them"
            )
    return store.splits["base"], store.splits["val"]

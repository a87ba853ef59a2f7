"""``deepemd demo``, ``pretrain``, ``metatrain`` and ``evaluate``."""

from pathlib import Path
from typing import Literal

from deepemd.errors import InputError
from deepemd.files import writable
from deepemd.training.device import Device, Precision
from deepemd.training.recipes import MetatrainRecipe, PretrainRecipe

__all__ = ["demo", "evaluate", "metatrain", "pretrain"]


def demo(out: Path = Path("deepemd-demo"), seed: int = 0, n_episodes: int = 1000, resume: bool = False) -> None:
    """Train DeepEMD on the built-in letters and recognise letters of scripts it has never seen.

    Renders the letters, pre-trains and meta-trains a small encoder, compares DeepEMD with ProtoNet and local k-NN on
    Armenian and Georgian letters, and writes a page with the table, the learning curves and pictures of matched parts.
    Takes minutes on a laptop's CPU and needs no internet.

    Args:
        out: folder of the report and of both training runs.
        seed: of weights, order and augmentation.
        n_episodes: episodes of the evaluation; the intervals narrow with their square root.
        resume: go on with a demo that was interrupted.
    """
    from deepemd.apps.demo import run_demo

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
    """Train an encoder as a classifier of the base classes; keep the best by DeepEMD accuracy on validation episodes.

    The folder OUT receives best/ (the model), last.ckpt (for --resume), config.yaml, metrics.csv and TensorBoard
    logs. Ctrl-C and SIGTERM lose nothing.

    Args:
        data: a data set with the splits base and val: a name of `deepemd data list`, or a folder.
        out: folder of the run.
        recipe: the settings; the paper's unless changed. recipes/ of the source holds complete ones for --config.
        seed: of weights, order and augmentation; the same seed gives the same run.
        resume: go on with the run in OUT, or begin it.
        precision: number format of the encoder.
        device: where to train.
        root: folder of the prepared stores; $DEEPEMD_DATA or ~/.cache/deepemd/data unless given.
    """
    from deepemd.training.pretrain import pretrain as run

    base, val = _splits(data, root)
    result = run(recipe, base, val, out, seed=seed, resume=resume, precision=precision, device=device)
    print(f"model: {result.model}, validation accuracy {100 * result.accuracy:.2f} ± {100 * result.ci95:.2f} %")


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

    The folder OUT is laid out as by `deepemd pretrain`. The model that training starts from is validated first, so
    what is kept is never worse.

    Args:
        model: folder of the model to start from: best/ of a pre-training run.
        data: a data set with the splits base and val: a name of `deepemd data list`, or a folder.
        out: folder of the run.
        recipe: the settings; the paper's unless changed. recipes/ of the source holds complete ones for --config.
        seed: of episodes and augmentation; the same seed gives the same run.
        resume: go on with the run in OUT, or begin it.
        precision: number format of the encoder.
        device: where to train.
        root: folder of the prepared stores; $DEEPEMD_DATA or ~/.cache/deepemd/data unless given.
    """
    from deepemd.training.metatrain import metatrain as run

    base, val = _splits(data, root)
    result = run(recipe, model, base, val, out, seed=seed, resume=resume, precision=precision, device=device)
    print(f"model: {result.model}, validation accuracy {100 * result.accuracy:.2f} ± {100 * result.ci95:.2f} %")


def evaluate(
    model: Path,
    data: str,
    split: Literal["base", "val", "novel", "all"] = "novel",
    n_way: int = 5,
    n_shot: int = 1,
    n_query: int = 15,
    n_episodes: int = 1000,
    seed: int = 0,
    out: Path | None = None,
    picture: Path | None = None,
    precision: Precision = "auto",
    device: Device = "auto",
    root: Path | None = None,
) -> None:
    """Measure a model on episodes of classes it was not trained on, beside ProtoNet and local k-NN.

    Every image is embedded once. All methods see the same embeddings and episodes, so their differences from DeepEMD
    are paired. With several shots a class is the mean of its shots' node sets.

    Args:
        model: folder of a saved model.
        data: a name of `deepemd data list`, or a folder.
        split: which classes; a folder without splits has "all".
        n_way: classes of an episode.
        n_shot: labelled images of a class.
        n_query: images to classify of each class.
        n_episodes: how many; the paper takes 5,000 for one shot and 600 for more.
        seed: of the episodes; the same seed gives the same episodes to every model.
        out: JSON file to write the report to.
        picture: PNG file for a picture of the parts that were matched in the first episodes.
        precision: number format of the encoder.
        device: where to embed the images.
        root: folder of the prepared stores; $DEEPEMD_DATA or ~/.cache/deepemd/data unless given.
    """
    from rich.console import Console

    from deepemd.apps.plots import example_matches, matches_picture
    from deepemd.apps.report import accuracy_grid, write_json
    from deepemd.data import load
    from deepemd.model import DeepEMD
    from deepemd.training.device import choose_device, choose_precision
    from deepemd.training.evaluate import Episodes
    from deepemd.training.evaluate import evaluate as run

    for option, file, example in (("out", out, "report.json"), ("picture", picture, "matches.png")):
        if file is not None:  # before the long work
            if file.is_dir():
                raise InputError(f"{option}: {file} is a folder; name a file in it, such as {file / example}")
            with writable(file.parent, needed=0, remedy=f"choose another place for --{option}"):
                file.parent.mkdir(parents=True, exist_ok=True)
    network = DeepEMD.load(model, device=choose_device(device))
    store = load(data, root)
    if split not in store.splits:
        raise InputError(f"split: {data} has no split {split!r}; choose one of {', '.join(store.splits)}")
    episodes = Episodes(n_way, n_shot, n_query, n_episodes, seed)
    bf16 = choose_precision(precision, choose_device(device)) == "bf16-mixed"
    evaluation = run(network, store.splits[split], episodes, bf16=bf16)
    f, seconds = store.splits[split].fingerprint, evaluation.seconds
    console = Console()
    console.print(accuracy_grid({"": evaluation}).rich())
    console.print(f"{f.name}: {f.classes} classes, {f.images:,} images, sha256 {f.sha256[:12]}", highlight=False)
    console.print(
        f"embedding {seconds['embedding']:.1f} s, matching {seconds['matching']:.1f} s with all methods",
        highlight=False,
    )
    if out is not None:
        write_json({"model": str(model), "config": network.config, "precision": precision, **evaluation.as_dict()}, out)
        console.print(f"report: {out}", highlight=False)
    if picture is not None:
        examples = example_matches(network.to("cpu"), store.splits[split], episodes.sampler(store.splits[split]))
        console.print(f"picture: {matches_picture(examples, picture)}", highlight=False)


def _splits(data: str, root: Path | None):  # type: ignore[no-untyped-def]
    from deepemd.data import load

    store = load(data, root)
    for split in ("base", "val"):
        if split not in store.splits:
            raise InputError(
                f"data: {data} has no split {split!r}, only {', '.join(store.splits)}; training needs base and val: "
                "a folder needs the subfolders base/ and val/ (or train/ and val/) with class folders in them"
            )
    return store.splits["base"], store.splits["val"]

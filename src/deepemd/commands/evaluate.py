"""The command ``deepemd evaluate``."""

import sys
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from deepemd.commands.console import console
from deepemd.commands.outputs import Output, ResultFiles, check_picture
from deepemd.data import Episodes
from deepemd.device import Device, Precision
from deepemd.errors import InputError
from deepemd.evaluation.evaluate import METHOD
from deepemd.evaluation.methods import SFC
from deepemd.processes import rank, rank_zero_first

if TYPE_CHECKING:
    from deepemd.data import Images
    from deepemd.evaluation.evaluate import Evaluation
    from deepemd.model import DeepEMD

__all__ = ["evaluate"]

Split = Literal["base", "val", "novel", "all"]


def evaluate(
    model: Path,
    data: str,
    split: Split = "novel",
    n_way: int | str = 5,
    n_shot: int | str = 1,
    n_query: int = 15,
    n_episodes: int = 1000,
    method: str = METHOD,
    regions: str | None = None,
    sfc: SFC = SFC(),  # noqa: B008  (frozen)
    seed: int = 0,
    out: Path | None = None,
    picture: Path | None = None,
    curve: Path | None = None,
    precision: Precision = "auto",
    device: Device = "auto",
    cache: Path | None = None,
    root: Path | None = None,
    force: bool = False,
) -> None:
    """Measure a model, and baselines, on episodes of classes that it was not trained on.

    Every image is embedded once. All methods see the same embeddings and episodes, so their differences from the first
    method are paired: the intervals are far narrower than those of two separate runs. Several data sets, ways or shots,
    separated by commas, make one table: `deepemd evaluate MODEL miniimagenet:val,glyphs --n_shot 1,5,10`. Episodes
    for which a data set has too few classes or images are left out.

    Args:
        model: folder of a saved model, or any encoder of `deepemd predict --backbone`; resnet12-miniimagenet and
            efficientnet-lite0 are installed.
        data: names of `deepemd data list`, or folders; NAME:SPLIT overrides --split.
        split: split of the data set to evaluate on; that of a folder without splits is "all".
        n_way: classes of an episode; 5,10 evaluates both.
        n_shot: labelled images of a class; 1,5 evaluates both.
        n_query: images to classify of each class.
        n_episodes: number of episodes; the paper uses 5,000 for one shot and 600 for more.
        method: methods to compare with the first one: all, or some of deepemd, deepemd-sfc, deepemd-average,
            deepemd-nearest, uniform, sinkhorn, protonet, local-knn, matching-net, fusion, cosine-classifier, linear.
            deepemd takes the mean of the shots' node sets, deepemd-sfc fits a node set to them.
        regions: how an image becomes nodes, such as fcn, fcn:2,1, grid:3,2 or sampling:25; by default the model's own.
        sfc: how deepemd-sfc is fitted.
        seed: seed of the episodes and of Sampling's patches; the same seed gives every model the same episodes.
        out: JSON file for the report.
        picture: PNG file for a picture of the matched parts in the first episodes.
        curve: PNG file for curves of the accuracy against the number of shots.
        precision: number format of the encoder.
        device: device to embed the images on.
        cache: folder of the cached embeddings; by default $DEEPEMD_CACHE, else ~/.cache/deepemd/embeddings. They make
            the next evaluation of the same model and images faster.
        root: folder of the prepared data sets; by default $DEEPEMD_DATA, else ~/.cache/deepemd/data.
        force: replace the files of --out, --picture and --curve.
    """
    from deepemd.device import choose_device, choose_precision, keep_freed_memory
    from deepemd.embedding.cache import default_cache
    from deepemd.evaluation.table import evaluate_all
    from deepemd.model.pretrained import pretrained
    from deepemd.nodes import parse_regions

    for option, file in (("picture", picture), ("curve", curve)):
        check_picture(option, file)
    settings = [
        Episodes(way, shot, n_query, n_episodes, seed)
        for way, shot in product(_numbers("n_way", n_way), _numbers("n_shot", n_shot))
    ]
    where = choose_device(device)
    if where == "cpu":
        keep_freed_memory()
    outputs = (Output("out", out, "report.json"), Output("picture", picture, "p.png"), Output("curve", curve, "c.png"))
    with ResultFiles(*outputs, force=force) as result:
        with rank_zero_first():
            network = pretrained(str(model)).to(where)
            splits = _splits(data, split, root)
        if regions is not None:
            network.regions = parse_regions(regions)
        evaluations = evaluate_all(
            network,
            splits,
            settings,
            method=method,
            sfc=sfc,
            bf16=choose_precision(precision, where) == "bf16-mixed",
            cache=cache or default_cache(),
            left_out=_print_left_out,
        )
        if rank() == 0:
            _print(evaluations)
            about = {"model": str(model), "config": network.config, "precision": precision}
            try:
                _write(evaluations, about, result, out, curve)
                if picture is not None:
                    _draw(network, splits, evaluations[0], result.draft(picture))
            except BaseException:  # of a long evaluation, what is written is put in place
                result.commit(interrupted=True)
                raise
            result.commit()
            for name, file in {"report": out, "curve": curve, "picture": picture}.items():
                if file is not None:
                    print(f"{name}: {file}")
    if not evaluations[-1].complete:
        raise KeyboardInterrupt  # what was finished has been reported


def _print_left_out(setting: str, reason: InputError) -> None:
    if rank() == 0:
        print(f"deepemd: left out {setting}: {reason}", file=sys.stderr)


def _print(evaluations: "list[Evaluation]") -> None:
    """Print the table, the data sets and the time."""
    from deepemd.apps.reports.tables import accuracy_table, settings_table

    terminal = console()
    table = accuracy_table({"": evaluations[0]}) if len(evaluations) == 1 else settings_table(evaluations)
    terminal.print(table.rich())
    for f in {(one.fingerprint["name"], one.fingerprint["sha256"]): one.fingerprint for one in evaluations}.values():
        terminal.print(f"{f['name']}: {f['classes']} classes, {f['images']:,} images, sha256 {f['sha256'][:12]}")
    times = {name: sum(e.seconds.get(name, 0.0) for e in evaluations) for name in evaluations[0].seconds}
    terminal.print("seconds: " + ", ".join(f"{name} {value:.1f}" for name, value in times.items()))


def _write(
    evaluations: "list[Evaluation]", about: dict[str, Any], result: ResultFiles, out: Path | None, curve: Path | None
) -> None:
    """Write the report and the curves, if their files are given."""
    from deepemd.apps.reports.curves import accuracy_curves
    from deepemd.apps.reports.tables import write_json

    if out is not None:
        reports = [e.as_dict() for e in evaluations]
        write_json(about | (reports[0] if len(reports) == 1 else {"evaluations": reports}), result.draft(out))
    if curve is not None:
        accuracy_curves(evaluations, result.draft(curve))


def _draw(model: "DeepEMD", splits: "dict[str, Images]", first: "Evaluation", picture: Path) -> None:
    """Draw the matched parts of the first episodes."""
    from deepemd.explain.matches import example_matches
    from deepemd.explain.plots import matches_picture

    images = next(images for images in splits.values() if images.fingerprint.as_dict() == first.fingerprint)
    matches_picture(example_matches(model.to("cpu"), images, first.episodes.sampler(images)), picture)


def _splits(data: str, split: str, root: Path | None) -> "dict[str, Images]":
    """Return the splits that `data` names, as a dictionary with the keys name:split."""
    from deepemd.data import DATASETS, load
    from deepemd.data.store import SPLITS

    found = {}
    for name in [data] if Path(data).is_dir() else data.split(","):
        head, _, tail = name.rpartition(":")
        if head in DATASETS and tail not in SPLITS:
            raise InputError(f"split: {name} asks for the split {tail!r}; choose one of {', '.join(SPLITS)}")
        where, part = (head, tail) if tail in SPLITS and head else (name, split)
        store = load(where, root)
        if part not in store.splits:
            raise InputError(f"split: {where} has no split {part!r}; choose one of {', '.join(store.splits)}")
        found[f"{where}:{part}"] = store.splits[part]
    return found


def _numbers(option: str, text: int | str) -> list[int]:
    """Parse numbers separated by commas."""
    try:
        return [int(part) for part in str(text).split(",")]
    except ValueError as error:
        raise InputError(
            f"{option} is {text!r}: pass a number, or several separated by commas, such as 5,10"
        ) from error

"""``deepemd evaluate``."""

import sys
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deepemd.commands.console import console
from deepemd.commands.outputs import check_output
from deepemd.data import Episodes
from deepemd.device import Device, Precision
from deepemd.errors import InputError
from deepemd.evaluation.evaluate import METHOD
from deepemd.evaluation.methods import SFC
from deepemd.processes import rank, rank_zero_first

if TYPE_CHECKING:
    from deepemd.data import Images
    from deepemd.evaluation.evaluate import Evaluation

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
) -> None:
    """Measure a model on episodes of classes it was not trained on, beside the baselines.

    Every image is embedded once. All methods see the same embeddings and episodes, so their differences from the first
    method are paired: their intervals are far tighter than those of two separate runs. Several data sets, ways or
    shots, with commas between them, make one table: `deepemd evaluate MODEL miniimagenet:val,glyphs --n_shot 1,5,10`.
    What a data set has too few classes or images for is left out of it.

    Args:
        model: folder of a saved model, or what `deepemd predict --backbone` takes: resnet12-miniimagenet and
            efficientnet-lite0 are installed.
        data: names of `deepemd data list`, or folders; NAME:SPLIT takes another split than `split`.
        split: which classes; a folder without splits has "all".
        n_way: classes of an episode; 5,10 for both.
        n_shot: labelled images of a class; 1,5 for both.
        n_query: images to classify of each class.
        n_episodes: how many; the paper takes 5,000 for one shot and 600 for more.
        method: what to compare; the others are compared with the first. all, or some of deepemd, deepemd-sfc,
            deepemd-average, deepemd-nearest, uniform, sinkhorn, protonet, local-knn, matching-net, fusion,
            cosine-classifier, linear.
            deepemd takes the mean of the shots' node sets, deepemd-sfc fits a node set to them.
        regions: how an image becomes nodes, such as fcn, fcn:2,1, grid:3,2 or sampling:25; the model's own by default.
        sfc: how deepemd-sfc is fitted.
        seed: of the episodes and of Sampling's patches; the same seed gives the same episodes to every model.
        out: JSON file to write the report to.
        picture: PNG file for a picture of the parts that were matched in the first episodes.
        curve: PNG file for curves of the accuracy against the number of shots.
        precision: number format of the encoder.
        device: where to embed the images.
        cache: folder where the embeddings are kept, so that the next evaluation of the same model and images begins
            with the episodes; $DEEPEMD_CACHE or ~/.cache/deepemd/embeddings unless given.
        root: folder of the prepared stores; $DEEPEMD_DATA or ~/.cache/deepemd/data unless given.
    """
    from deepemd.apps.reports.curves import accuracy_curves
    from deepemd.apps.reports.tables import accuracy_table, settings_table, write_json
    from deepemd.device import choose_device, choose_precision
    from deepemd.embedding.cache import default_cache
    from deepemd.embedding.splits import embed
    from deepemd.evaluation.evaluate import evaluate as run
    from deepemd.evaluation.methods import choose
    from deepemd.explain.matches import example_matches
    from deepemd.explain.plots import matches_picture
    from deepemd.model.pretrained import pretrained
    from deepemd.nodes import parse_regions

    check_output("out", out, "report.json")
    check_output("picture", picture, "p.png")
    check_output("curve", curve, "c.png")
    settings = [
        Episodes(way, shot, n_query, n_episodes, seed)
        for way, shot in product(_numbers("n_way", n_way), _numbers("n_shot", n_shot))
    ]
    with rank_zero_first():
        network = pretrained(model).to(choose_device(device))
    if regions is not None:
        network.regions = parse_regions(regions)
    with rank_zero_first():
        sets = _sets(data, split, root)
    for episodes in settings:  # whatever cannot be done is refused before the long work
        choose(method, network, n_shot=episodes.n_shot, sfc=sfc)
    possible = _possible(sets, settings)
    bf16 = choose_precision(precision, choose_device(device)) == "bf16-mixed"

    told = console()
    evaluations: list[Evaluation] = []
    for name, some in possible.items():
        began = time.perf_counter()
        nodes = embed(network, sets[name], seed=seed, bf16=bf16, cache=cache or default_cache())
        took = {"embedding": time.perf_counter() - began}
        for episodes in some:
            if not evaluations or evaluations[-1].complete:
                one = run(network, sets[name], episodes, method=method, sfc=sfc, nodes=nodes)
                evaluations.append(replace(one, seconds=one.seconds | took))
                took = {}  # counted once
        if not evaluations[-1].complete:
            break
    if rank() > 0:
        return  # the first process tells
    grid = accuracy_table({"": evaluations[0]}) if len(evaluations) == 1 else settings_table(evaluations)
    told.print(grid.rich())
    for name in possible:
        f = sets[name].fingerprint
        told.print(f"{f.name}: {f.classes} classes, {f.images:,} images, sha256 {f.sha256[:12]}")
    times = {name: sum(e.seconds.get(name, 0.0) for e in evaluations) for name in evaluations[0].seconds}
    told.print("seconds: " + ", ".join(f"{name} {value:.1f}" for name, value in times.items()))
    if out is not None:
        reports = [e.as_dict() for e in evaluations]
        about = {"model": str(model), "config": network.config, "precision": precision}
        write_json({**about, **(reports[0] if len(reports) == 1 else {"evaluations": reports})}, out)
        told.print(f"report: {out}")
    if curve is not None:
        told.print(f"curve: {accuracy_curves(evaluations, curve)}")
    if picture is not None:
        name, some = next(iter(possible.items()))
        examples = example_matches(network.to("cpu"), sets[name], some[0].sampler(sets[name]))
        told.print(f"picture: {matches_picture(examples, picture)}")
    if not evaluations[-1].complete:
        raise KeyboardInterrupt  # what was finished has been reported


def _sets(data: str, split: str, root: Path | None) -> "dict[str, Images]":
    """The splits that are named, by name:split."""
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


def _possible(sets: "dict[str, Images]", settings: list[Episodes]) -> dict[str, list[Episodes]]:
    """The episodes that each split can give. Of a table, what cannot be had is left out and told."""
    found: dict[str, list[Episodes]] = {}
    refused: list[tuple[str, InputError]] = []
    for (name, images), episodes in product(sets.items(), settings):
        try:
            episodes.sampler(images)
        except InputError as error:
            refused.append((f"{name}, {episodes.n_way}-way {episodes.n_shot}-shot", error))
        else:
            found.setdefault(name, []).append(episodes)
    if not found:
        raise refused[0][1]
    for what, why in refused if rank() == 0 else ():
        print(f"deepemd: left out {what}: {why}", file=sys.stderr)
    return found


def _numbers(option: str, text: int | str) -> list[int]:
    try:
        return [int(part) for part in str(text).split(",")]
    except ValueError as error:
        raise InputError(
            f"{option} is {text!r}: a number, or several with commas between them, such as 5,10"
        ) from error

"""Do the labels of the photos that `deepemd predict --label_next` lists teach more than those of random ones?

    python benchmarks/label_next.py FOLDER

FOLDER holds a folder of photos for each class. Of some classes, a few photos are labelled, five of each are not, and
the rest is the test set. As many photos as there are classes are then labelled: those that the rule chooses, those of
the smallest margin, or random ones. All three are tried in each trial, on the same photos, and the difference to random
ones is paired. In some settings as many photos of other classes are among the unlabelled ones; their labels teach
nothing here. Half of the classes, which the rule was chosen on, is reported apart from the other half. Writes
benchmarks/results/label-next.json.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepemd.apps.photos.label_next import choose
from deepemd.classifier.calibration import fit_temperature
from deepemd.classifier.support import Example, Support
from deepemd.data.photos import class_photos
from deepemd.embedding.cache import default_cache
from deepemd.embedding.stream import Embedder
from deepemd.evaluation.intervals import MeanCI
from deepemd.model import DeepEMD
from deepemd.model.pretrained import pretrained
from deepemd.versions import versions

ROOT = Path(__file__).parents[1]
# Classes, labelled photos of each, and whether photos of other classes are among the unlabelled ones.
SETTINGS = (
    *((5, 1, False), (5, 2, False), (5, 5, False), (10, 2, False), (20, 1, False), (20, 2, False), (20, 5, False)),
    *((5, 1, True), (5, 5, True), (10, 2, True)),
)
UNLABELLED = 5  # photos of each class
OTHERS = -1  # the label of photos of other classes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "label-next.json")
    options = parser.parse_args()

    torch.manual_seed(0)
    photos, model = class_photos(options.folder), pretrained()
    rows = Embedder(model, default_cache()).stream(photos.files)
    nodes = torch.stack([row.nodes for row in rows if row.nodes is not None])  # (I, N, C)
    labels = np.unique(photos.labels, return_inverse=True)[1]  # (I,)
    shuffled = np.random.default_rng(0).permutation(labels.max() + 1)
    halves = np.array_split(shuffled, 2)
    report = {"photos": len(labels), "classes": len(shuffled), "unlabelled photos of a class": UNLABELLED}
    for name, classes in zip(("classes the rule was chosen on", "other classes"), halves, strict=True):
        report[name] = []
        for n_way, n_shot, others in SETTINGS:
            if n_way > len(classes):
                continue
            found = trials(model, nodes, labels, classes, n_way, n_shot, others, options.trials)
            gains = {rule: MeanCI.of(found[rule] - found["random"]) for rule in ("label_next", "margin")}
            report[name].append(
                {
                    "classes": n_way, "labelled photos of each": n_shot, "more labels": n_way, "trials": options.trials,
                    "photos of other classes among the unlabelled": others,
                    "accuracy": {rule: str(MeanCI.of(values)) for rule, values in found.items()},
                    "minus random": {k: f"{100 * g.mean:+.2f} ± {100 * g.ci95:.2f}" for k, g in gains.items()},
                }
            )  # fmt: skip
            print(name, report[name][-1], flush=True)
    options.out.write_text(json.dumps({**report, "versions": versions()}, indent=1, ensure_ascii=False) + "\n")


def trials(
    model: DeepEMD,
    nodes: Tensor,
    labels: NDArray[np.int64],
    classes: NDArray[np.int64],
    n_way: int,
    n_shot: int,
    others: bool,
    n: int,
) -> dict[str, NDArray[np.float64]]:
    """Return the accuracy in each trial: without more labels, and with those of each rule."""
    found: dict[str, list[float]] = {}
    for trial in range(n):
        rng = np.random.default_rng((n_way, n_shot, trial))
        chosen = rng.choice(classes, n_way, replace=False)
        drawn = [rng.permutation(np.flatnonzero(labels == k)) for k in chosen]
        parts = [np.split(one, [n_shot, n_shot + UNLABELLED]) for one in drawn]
        (shots, a), (pool, b), (test, c) = (
            (np.concatenate([part[k] for part in parts]), np.repeat(range(n_way), [len(part[k]) for part in parts]))
            for k in range(3)
        )
        if others:
            strangers = np.flatnonzero(np.isin(labels, classes) & ~np.isin(labels, chosen))
            pool = np.concatenate([pool, rng.choice(strangers, len(pool), replace=False)])
            b = np.concatenate([b, np.full(len(pool) - len(b), OTHERS)])
        support = Support.empty(*nodes.shape[1:]).added(
            list(nodes[shots]), a.tolist(), [Example(str(k), k, b"", (1, 1)) for k in range(len(a))], classes=n_way
        )
        which, similarity = support.leave_one_out(model)
        t = fit_temperature(similarity, support.labels[which])
        largest = (t * support.similarities(model, nodes[pool])).softmax(1).sort(1).values[:, -2:].numpy()
        margins = largest[:, 1] - largest[:, 0]  # (P,)
        more = {
            "none": [],
            "random": rng.choice(len(pool), n_way, replace=False).tolist(),
            "margin": margins.argsort(kind="stable")[:n_way].tolist(),
            "label_next": choose(margins, nodes[pool].mean(1).double().numpy(), n_way),
        }
        for rule, some in more.items():
            taught, some = support, [k for k in some if b[k] != OTHERS]
            if some:
                taught = support.added(list(nodes[pool[some]]), b[some].tolist(), [None] * len(some), classes=n_way)
            given = taught.similarities(model, nodes[test]).argmax(1).numpy()
            found.setdefault(rule, []).append(float((given == c).mean()))
    return {rule: np.array(values) for rule, values in found.items()}


if __name__ == "__main__":
    main()

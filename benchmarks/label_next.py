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
import copy
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deepemd.apps.photos.label_next import choose
from deepemd.classifier.classifier import PhotoClassifier
from deepemd.classifier.support import EXAMPLE_SIDE
from deepemd.data.photos import PhotoFile, class_photos
from deepemd.embedding.stream import Embedded
from deepemd.evaluation.intervals import MeanCI
from deepemd.versions import versions

ROOT = Path(__file__).parents[1]
# Classes, labelled photos of each, and whether photos of other classes are among the unlabelled ones.
SETTINGS = ((5, 1, False), (5, 5, False), (10, 2, False), (20, 2, False), (5, 2, True))
UNLABELLED = 5  # photos of each class


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, default=60, help="with five classes")
    parser.add_argument("--adapt", default="ridge", help="as for FewShotClassifier; auto takes four times as long")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "label-next.json")
    options = parser.parse_args()

    torch.manual_seed(0)
    photos, classifier = class_photos(options.folder), Prepared(adapt=options.adapt)
    classifier.prepare(photos.files)
    labels = np.unique(photos.labels, return_inverse=True)[1]  # (I,)
    shuffled = np.random.default_rng(0).permutation(labels.max() + 1)
    halves = np.array_split(shuffled, 2)
    report = {
        "photos": len(labels), "classes": len(shuffled), "unlabelled photos of a class": UNLABELLED,
        "adapt": options.adapt,
    }  # fmt: skip
    for name, classes in zip(("other classes", "classes the rule was chosen on"), halves[::-1], strict=True):
        report[name] = []
        for n_way, n_shot, others in SETTINGS:
            if n_way > len(classes):
                continue
            count = options.trials * 5 // n_way  # a trial of more classes takes longer and varies less
            found = trials(classifier, labels, classes, n_way, n_shot, others, count)
            gains = {rule: MeanCI.of(found[rule] - found["random"]) for rule in ("label_next", "margin")}
            report[name].append(
                {
                    "classes": n_way, "labelled photos of each": n_shot, "more labels": n_way, "trials": count,
                    "photos of other classes among the unlabelled": others,
                    "accuracy": {rule: str(MeanCI.of(values)) for rule, values in found.items()},
                    "minus random": {k: f"{100 * g.mean:+.2f} ± {100 * g.ci95:.2f}" for k, g in gains.items()},
                }
            )  # fmt: skip
            print(name, report[name][-1], flush=True)
    options.out.write_text(json.dumps({**report, "versions": versions()}, indent=1, ensure_ascii=False) + "\n")


class Prepared(PhotoClassifier):
    """A classifier of photos that are embedded once, for all trials."""

    def prepare(self, files: Sequence[PhotoFile]) -> None:
        """Embed all photos."""
        self._start()
        self.files = list(files)
        self.rows = list(super()._embedder().stream(files, side=lambda _: EXAMPLE_SIDE))
        self.row_of = dict(zip(self.files, self.rows, strict=True))

    def _embedder(self) -> "Prepared":
        return self

    def stream(self, images: Iterable[PhotoFile], *, side: object = None) -> Iterator[Embedded]:  # noqa: ARG002
        """Return the embedded photos; it stands for the method of the same name of an embedder."""
        return (self.row_of[image] for image in images)

    def _start(self) -> None:
        if not hasattr(self, "model_"):
            super()._start()


def trials(
    classifier: Prepared,
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
        shots, pool, test = (np.concatenate([part[k] for part in parts]) for k in range(3))
        if others:
            strangers = np.flatnonzero(np.isin(labels, classes) & ~np.isin(labels, chosen))
            pool = np.concatenate([pool, rng.choice(strangers, len(pool), replace=False)])
        first = copy.copy(classifier).fit([classifier.files[k] for k in shots], labels[shots])
        largest = np.sort(probabilities(first, pool), 1)[:, -2:]
        margins = largest[:, 1] - largest[:, 0]  # (P,)
        embeddings = np.stack([classifier.rows[k].nodes.mean(0).double().numpy() for k in pool])
        more = {
            "none": [],
            "random": rng.choice(len(pool), n_way, replace=False).tolist(),
            "margin": margins.argsort(kind="stable")[:n_way].tolist(),
            "label_next": choose(margins, embeddings, n_way),
        }
        for rule, some in more.items():
            taught, taken = copy.copy(first), [k for k in pool[some] if labels[k] in chosen] if some else []
            if taken:
                taught.partial_fit([classifier.files[k] for k in taken], labels[taken])
            given = taught.classes_[probabilities(taught, test).argmax(1)]
            found.setdefault(rule, []).append(float((given == labels[test]).mean()))
    return {rule: np.array(values) for rule, values in found.items()}


def probabilities(classifier: Prepared, which: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the probability of each class for some of the photos, (Q, M)."""
    rows = classifier.stream_embedded([classifier.files[k] for k in which])
    return np.stack([prediction.probabilities for _, prediction in rows])


if __name__ == "__main__":
    main()

"""What the SFC (`fit_prototypes`) gains over class means by learning rate and epochs, and that its speed is free.

    python benchmarks/sfc_accuracy.py sweep runs/meta/best miniimagenet    # half an hour on two cores
    python benchmarks/sfc_accuracy.py twin runs/meta/best miniimagenet     # ten minutes

Write benchmarks/results/sfc-sweep.json and sfc-twin.json: accuracies on 5-way episodes of the validation classes, 15
queries a class, and differences episode by episode with their 95 % interval. The twin descends one episode at a time
in float64, by PyTorch's autograd and optimizer, every transport problem from a fresh start, with the same mini-batches.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from deepemd.bench.measure import machine
from deepemd.data import EpisodeSampler, load
from deepemd.embedding.splits import embed
from deepemd.evaluation.intervals import MeanCI
from deepemd.matching import class_means, emd_logits, fit_prototypes
from deepemd.model import DeepEMD
from deepemd.progress import track

RESULTS = Path(__file__).parent / "results"


class Drawn(NamedTuple):
    """Episodes, embedded."""

    support: Tensor  # (E, K, n, C)
    query: Tensor  # (E, Q, n, C)
    labels: Tensor  # (E, K)
    means: np.ndarray  # (E,) accuracy of class means


def draw(model: Path, data: str, shots: int, episodes: int, seed: int) -> tuple[Drawn, dict]:
    """Episodes of the validation classes, and what a report says of them."""
    images = load(data).splits["val"]
    nodes = embed(DeepEMD.load(model), images)  # (N, n, C)
    drawn = list(EpisodeSampler(images.labels, n_shot=shots, n_episodes=episodes, seed=seed))
    support = nodes[torch.from_numpy(np.stack([e.support for e in drawn]))]
    query = nodes[torch.from_numpy(np.stack([e.query for e in drawn]))]
    labels = (torch.arange(support.shape[1]) % 5).expand(episodes, -1)
    means = accuracies(query, class_means(support, labels, 5))
    report = {
        "machine": machine(),
        "fingerprint": images.fingerprint.as_dict(),
        "shots": shots,
        "seed": seed,
        "length_of_a_node": float(support.norm(dim=-1).median()),
        "class_means": asdict(MeanCI.of(means)),
    }
    print(f"class means {MeanCI.of(means)}; a node is {report['length_of_a_node']:.3g} long", flush=True)
    return Drawn(support, query, labels, means), report


def accuracies(query: Tensor, prototypes: Tensor) -> np.ndarray:
    """(E,) of queries (E, Q, n, C) whose classes go round."""
    predicted = emd_logits(query, prototypes).argmax(-1)  # (E, Q)
    return (predicted == torch.arange(query.shape[1]) % 5).double().mean(-1).numpy()


def plain(support: Tensor, labels: Tensor, lr: float, epochs: int) -> Tensor:
    """One episode's prototypes in float64, in the plainest way."""
    generator = Generator().manual_seed(0)
    prototypes = class_means(support, labels, 5).requires_grad_()
    sgd = torch.optim.SGD([prototypes], lr=lr, momentum=0.9, dampening=0.9)
    for _ in range(epochs):
        for some in torch.randperm(len(support), generator=generator).split(4):
            sgd.zero_grad()
            F.cross_entropy(emd_logits(support[some], prototypes), labels[some]).backward()
            sgd.step()
    return prototypes.detach()


def twin(drawn: Drawn, report: dict, lr: float, epochs: int, out: Path) -> None:
    """Ours beside the plain twin."""
    generator = Generator().manual_seed(0)
    ours = fit_prototypes(drawn.support, drawn.labels, n_way=5, lr=lr, epochs=epochs, generator=generator)
    episodes = track(zip(drawn.support.double(), drawn.labels, strict=True), "the twin", len(ours))
    theirs = torch.stack([plain(support, labels, lr, epochs) for support, labels in episodes])
    fast, slow = accuracies(drawn.query, ours), accuracies(drawn.query.double(), theirs)
    moved = (theirs - class_means(drawn.support.double(), drawn.labels, 5)).norm()
    report |= {
        "lr": lr,
        "epochs": epochs,
        "ours": asdict(MeanCI.of(fast)),
        "twin": asdict(MeanCI.of(slow)),
        "ours_minus_twin": asdict(MeanCI.of(fast - slow)),
        "prototypes_differ_relative_to_their_movement": float((ours - theirs).norm() / moved),
    }
    out.write_text(json.dumps(report, indent=1) + "\n")
    print(f"twin {MeanCI.of(slow)}, ours minus twin {MeanCI.of(fast - slow)}\n{out}")


def sweep(drawn: Drawn, report: dict, lrs: list[float], epochs: list[int], out: Path) -> None:
    """Ours beside class means, for every rate and number of epochs; the report grows row by row."""
    report["rows"] = []
    for count in epochs:
        for lr in lrs:
            generator, began = Generator().manual_seed(0), time.perf_counter()
            found = fit_prototypes(
                drawn.support, drawn.labels, n_way=5, lr=lr, epochs=count, generator=generator, track=track
            )
            took = (time.perf_counter() - began) / len(found)
            accuracy = accuracies(drawn.query, found)
            figure, gain = MeanCI.of(accuracy), MeanCI.of(accuracy - drawn.means)
            row = {"epochs": count, "lr": lr, "accuracy": asdict(figure), "gain": asdict(gain)}
            report["rows"].append(row | {"seconds_an_episode": took})
            out.write_text(json.dumps(report, indent=1) + "\n")
            print(f"{count} epochs, lr {lr:g}: {figure}, gain {gain}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("sweep", "twin"))
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--episodes", type=int, help="200 for the sweep, 100 for the twin")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lr", type=float, nargs="+", help="of the sweep, or the twin's; 10 for the twin")
    parser.add_argument("--epochs", type=int, nargs="+", help="likewise; 100 for the twin")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    out = options.out or RESULTS / f"sfc-{options.what}.json"
    episodes = options.episodes or (200 if options.what == "sweep" else 100)
    drawn, report = draw(options.model, options.data, options.shots, episodes, options.seed)
    if options.what == "twin":
        twin(drawn, report, (options.lr or [10.0])[0], (options.epochs or [100])[0], out)
    else:
        lrs = options.lr or [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0]
        sweep(drawn, report, lrs, options.epochs or [10, 30, 100], out)


if __name__ == "__main__":
    main()

"""What the SFC (`fit_prototypes`) gains over class means by learning rate and epochs, and that its speed is free.

    python benchmarks/sfc_accuracy.py runs/meta/best miniimagenet             # half an hour on two cores
    python benchmarks/sfc_accuracy.py runs/meta/best miniimagenet --episodes 8 --twin 2 --lr 1 10 --epochs 10

Writes benchmarks/results/sfc-accuracy.json: accuracies on 5-way episodes of the validation classes, 15 queries a class,
and differences episode by episode with their 95 % interval. The twin descends one episode at a time in float64, by
PyTorch's autograd and optimizer, every transport problem from a fresh start, with the same order of mini-batches.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from deepemd.bench.measure import machine
from deepemd.data import EpisodeSampler, load
from deepemd.data.images import track
from deepemd.matching import class_means, emd_logits, fit_prototypes
from deepemd.model import DeepEMD
from deepemd.training.evaluate import Figure, embed

RESULTS = Path(__file__).parent / "results" / "sfc-accuracy.json"
LRS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
EPOCHS = (10, 30, 100)


def plain(support: Tensor, labels: Tensor, lr: float, epochs: int, generator: Generator) -> Tensor:
    """One episode's prototypes in float64, in the plainest way."""
    prototypes = class_means(support, labels, 5).requires_grad_()
    sgd = torch.optim.SGD([prototypes], lr=lr, momentum=0.9, dampening=0.9)
    for _ in range(epochs):
        for some in torch.randperm(len(support), generator=generator).split(4):
            sgd.zero_grad()
            F.cross_entropy(emd_logits(support[some], prototypes), labels[some]).backward()
            sgd.step()
    return prototypes.detach()


def accuracies(query: Tensor, prototypes: Tensor) -> np.ndarray:
    """(E,) of queries (E, Q, n, C) whose classes go round."""
    predicted = emd_logits(query, prototypes).argmax(-1)  # (E, Q)
    return (predicted == torch.arange(query.shape[1]) % 5).double().mean(-1).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lr", type=float, nargs="+", default=LRS)
    parser.add_argument("--epochs", type=int, nargs="+", default=EPOCHS)
    parser.add_argument("--twin", type=int, default=100, help="episodes that the plain twin descends; 0 for none")
    parser.add_argument("--twin_lr", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()

    images = load(options.data).splits["val"]
    nodes = embed(DeepEMD.load(options.model), images)  # (N, n, C)
    sampler = EpisodeSampler(images.labels, n_shot=options.shots, n_episodes=options.episodes, seed=options.seed)
    drawn = list(sampler)
    support = nodes[torch.from_numpy(np.stack([e.support for e in drawn]))]  # (E, K, n, C)
    query = nodes[torch.from_numpy(np.stack([e.query for e in drawn]))]  # (E, Q, n, C)
    labels = (torch.arange(support.shape[1]) % 5).expand(len(drawn), -1)
    means = accuracies(query, class_means(support, labels, 5))
    result: dict = {
        "machine": machine(),
        "fingerprint": images.fingerprint.as_dict(),
        "shots": options.shots,
        "seed": options.seed,
        "length_of_a_node": float(support.norm(dim=-1).median()),
        "class_means": asdict(Figure.of(means)),
        "rows": [],
    }
    print(f"class means {Figure.of(means)}, |u| {result['length_of_a_node']:.3g}", flush=True)

    def save() -> None:
        options.out.write_text(json.dumps(result, indent=1) + "\n")

    if options.twin:
        some, epochs, lr = slice(options.twin), max(options.epochs), options.twin_lr
        seeded = [Generator().manual_seed(0) for _ in range(options.twin + 1)]
        ours = fit_prototypes(support[some], labels[some], n_way=5, lr=lr, epochs=epochs, generator=seeded[-1])
        fitted = [
            plain(s, k, lr, epochs, g)
            for s, k, g in track(zip(support[some].double(), labels, seeded, strict=False), "twin", options.twin)
        ]
        fast, slow = accuracies(query[some], ours), accuracies(query[some].double(), torch.stack(fitted))
        result["twin"] = {
            "lr": lr,
            "epochs": epochs,
            "ours": asdict(Figure.of(fast)),
            "twin": asdict(Figure.of(slow)),
            "difference": asdict(Figure.of(fast - slow)),
            "largest_difference_of_an_entry": float((ours - torch.stack(fitted)).abs().max()),
        }
        save()
        print(f"twin {Figure.of(slow)}, ours minus twin {Figure.of(fast - slow)}", flush=True)

    for epochs in options.epochs:
        for lr in options.lr:
            generator, row = Generator().manual_seed(0), {"epochs": epochs, "lr": lr}
            began = time.perf_counter()
            found = fit_prototypes(support, labels, n_way=5, lr=lr, epochs=epochs, generator=generator, track=track)
            row["seconds_an_episode"] = (time.perf_counter() - began) / len(drawn)
            accuracy = accuracies(query, found)
            row["accuracy"], row["gain"] = asdict(Figure.of(accuracy)), asdict(Figure.of(accuracy - means))
            result["rows"].append(row)
            save()
            print(f"{epochs} epochs, lr {lr:g}: {Figure.of(accuracy)}, gain {Figure.of(accuracy - means)}", flush=True)


if __name__ == "__main__":
    main()
